"""One offline page: the answer, the table, the figures, the pictures, and how it was measured.

Everything is inside the file; it asks the network for nothing. Every name that comes from data is escaped.
"""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import stillrobust
from stillrobust import paper
from stillrobust.intervals import LEVEL
from stillrobust.report.answers import answers, sections
from stillrobust.report.figures import curves, heat_map
from stillrobust.report.gallery import definitions, gallery
from stillrobust.report.summary import METRICS, SEED, TASKS, Row, Summary, summarize
from stillrobust.report.tables import ALIKE, HEADINGS, TEXT_COLUMNS, cells
from stillrobust.robustness import Place
from stillrobust.store import Store, content_key, write_whole

QUESTION = "Is it still robust?"


def write_page(store: Store, path: Path | str) -> None:
    """Write the page of a store."""
    write_whole({Path(path): page(store, summarize(store)).encode()})


def page(store: Store, summary: Summary) -> str:
    """The page as text; the same store gives the same page."""
    images: dict[str, str] = {}
    parts = [_section(store, section, summary, images) for section in sections(summary.rows)]
    body = [
        f"<h1>{QUESTION}</h1>",
        *(f'<p class="answer">{escape(sentence)}</p>' for sentence in answers(summary.rows)),
        "" if summary.rows else '<p class="answer">There is no complete run yet, so there is no answer.</p>',
        _incomplete(summary),
        _table(summary),
        definitions(images),
        *parts,
        _published(summary.rows),
        _protocol(store, summary),
        _provenance(summary),
    ]
    style = files("stillrobust.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{QUESTION}</title>'
        f"<style>\n{style}</style></head>\n<body>\n" + "\n".join(filter(None, body)) + "\n</body></html>\n"
    )


def _incomplete(summary: Summary) -> str:
    if not summary.incomplete:
        return ""
    lines = "".join(f"<li><b>{escape(one.run)}</b>: {escape(one.reason)}</li>" for one in summary.incomplete)
    return (
        '<div class="warning"><h3>Incomplete</h3><p>These have no line below; nothing is averaged over holes.</p>'
        f"<ul>{lines}</ul></div>"
    )


def _table(summary: Summary) -> str:
    if not summary.rows:
        return ""
    heads = "".join(_head(index, text) for index, text in enumerate(HEADINGS))
    several = {(row.run.task, row.run.dataset) for row in summary.rows}
    lines = []
    for section in sections(summary.rows):
        best = {index: min(column) for index, column in _drops(section).items()}
        for row in section:
            texts = cells(row, section)
            if len(several) > len({row.run.task for row in summary.rows}):
                texts[0] += f", {row.run.dataset}"
            drops = _drops([row])
            lines.append(f"<tr>{''.join(_cell(i, text, drops, best) for i, text in enumerate(texts))}</tr>")
    levels = sorted({row.robustness.severities for row in summary.rows})
    at = " or ".join(", ".join(map(str, severities)) for severities in levels)
    note = (
        f"Clean score and performance drops in %, lower drops are better (best in bold); mean over the 15 corruptions "
        f"at severity {at}. [ ]: {LEVEL:.0%} interval, images resampled {summary.replicates} times; it does not hold "
        f"the chance of another training. {ALIKE}"
    )
    return (
        f'<h2>The table</h2><div class="scroll"><table class="numbers"><thead><tr>{heads}</tr></thead>'
        f'<tbody>{"".join(lines)}</tbody></table></div><p class="soft">{escape(note)}</p>'
    )


def _drops(rows: Sequence[Row]) -> dict[int, list[float]]:
    """The drops in each numeric column after the clean score."""
    groups = [heading.lower() for heading in HEADINGS[TEXT_COLUMNS + 1 : -2]]
    columns = [[row.robustness.by_group[group].drop for row in rows] for group in groups]
    columns.append([row.robustness.drop for row in rows])
    return dict(enumerate(columns, start=TEXT_COLUMNS + 1))


def _cell(index: int, text: str, drops: dict[int, list[float]], best: dict[int, float]) -> str:
    if index < TEXT_COLUMNS:
        return f"<td>{escape(text)}</td>"
    bold = " best" if index in best and drops[index][0] <= best[index] else ""
    return f'<td class="number{bold}">{escape(text)}</td>'


def _head(index: int, text: str) -> str:
    return f'<th scope="col"{"" if index < TEXT_COLUMNS else " class=number"}>{text}</th>'


def _section(store: Store, rows: list[Row], summary: Summary, images: dict[str, str]) -> str:
    run, numbers = rows[0].run, rows[0].robustness
    names = {row.run.name for row in rows}
    values: dict[str, dict[Place, float]] = {name: {} for name in names}
    for one in summary.measurements:
        if one.run in names and one.metric == numbers.metric:
            values[one.run][one.corruption, one.severity] = one.value
    task, metric = TASKS.get(run.task, run.task), METRICS.get(numbers.metric, numbers.metric)
    first = next(row for row in summary.rows if (row.run.task, row.run.dataset) == (run.task, run.dataset))
    pictures = gallery(store, rows, images) if first is rows[0] else ""  # once, not again for a second metric
    return (
        f"<section><h2>{escape(task)} on {escape(run.dataset)}: {escape(metric)}</h2>"
        f"<h3>Severity by severity</h3>{curves(rows)}"
        f"<h3>Where it is lost</h3>{heat_map(rows, values)}"
        + (f"<h3>What the models see and say</h3>{pictures}" if pictures else "")
        + "</section>"
    )


def _published(rows: Sequence[Row]) -> str:
    """The paper's own tables for the tasks on the page: other data and training, so beside ours and not among it."""
    printed = {"detection": "Table 1", "segmentation": "Table 2"}
    shown = {printed.get(row.run.task): TASKS[row.run.task] for row in rows if row.run.task in printed}
    tables = []
    for table in paper.tables():
        for line in table.rows.values() if table.name in shown else ():
            numbers = "".join(f'<td class="number">{line[f"drop.{heading.lower()}"]:.2f}</td>' for heading in HEADINGS[5:9])
            tables.append(f"<tr><td>{shown[table.name]}</td><td>{escape(str(line['model']))}</td>{numbers}</tr>")
    if not tables:
        return ""
    heads = "".join(_head(index + 2 * (index > 1), text) for index, text in enumerate(("Task", "Model", *HEADINGS[5:9])))
    return (
        "<h2>What the paper found</h2><details><summary>Drops in % with fixed features, on COCO and ADE20K</summary>"
        f'<div class="scroll"><table class="numbers"><thead><tr>{heads}</tr></thead><tbody>{"".join(tables)}</tbody>'
        "</table></div><p class=soft>Other data, other sizes, longer training: the order of the models can be "
        "compared with the table above, the numbers cannot.</p></details>"
    )


def _protocol(store: Store, summary: Summary) -> str:
    """Every key: what all runs share once, then what each run has of its own."""
    protocols = {run.name: _flat({**asdict(run), "classes": list(run.classes)}) for run in store.runs()}
    for one in summary.measurements:
        if one.run in protocols:
            cell = _flat({"cells": one.protocol})
            for key, text in cell.items():
                seen = protocols[one.run].setdefault(key, text)
                if text not in seen.split(" / "):
                    protocols[one.run][key] = f"{seen} / {text}"
    if not protocols:
        return ""
    every = list(protocols.values())
    shared = {key: text for key, text in every[0].items() if all(one.get(key) == text for one in every)}
    parts = [_values(shared.items())] if len(every) > 1 else []
    for name, own in protocols.items():
        rest = [(key, text) for key, text in own.items() if len(every) == 1 or key not in shared]
        parts.append(f"<details><summary>{escape(name)}</summary>{_values(rest)}</details>")
    lead = "Shared by all runs, then what each run has of its own." if len(every) > 1 else ""
    return f'<h2>How it was measured</h2><p class="soft">{lead}</p>{"".join(parts)}'


def _provenance(summary: Summary) -> str:
    numbers = sorted(
        (asdict(one) for one in summary.measurements),
        key=lambda one: (one["run"], one["metric"], one["corruption"], one["severity"]),
    )
    places = {(one.run, one.corruption, one.severity): one.seconds for one in summary.measurements}
    values = {
        "stillrobust": stillrobust.__version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "cells": str(len(places)),
        "numbers": str(len(numbers)),
        "time of evaluation": f"{sum(places.values()) / 60:.1f} minutes, all cells together",
        "content of the store": content_key({"measurements": numbers}),
        "resamples": f"{summary.replicates}, seed {SEED}",
    }
    return f"<h2>Where it comes from</h2>{_values(values.items())}"


def _values(pairs: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f'<tr><th scope="row">{escape(key)}</th><td>{escape(text)}</td></tr>' for key, text in pairs)
    return f'<div class="scroll"><table class="values"><tbody>{lines}</tbody></table></div>'


def _flat(mapping: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested mappings as one, with dotted keys; values as text."""
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat
