"""One offline page: the answer, the table, the figures, the pictures, and how it was measured.

Everything is inside the file; it asks the network for nothing. Every name that comes from data is
escaped.
"""

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

import stillrobust
from stillrobust.grid import Place
from stillrobust.report.answers import answers
from stillrobust.report.beside import beside_section
from stillrobust.report.blocks import apart, sections
from stillrobust.report.came_along import came_along, sentence
from stillrobust.report.downloads import downloads, numbers
from stillrobust.report.figures import FRAME, curves
from stillrobust.report.gained_upstream import gained_upstream
from stillrobust.report.gallery import definitions, gallery
from stillrobust.report.heat import heat_map, heat_style
from stillrobust.report.page_inside import by_class, by_size, hidden
from stillrobust.report.page_table import along_tables, published, table
from stillrobust.report.rows import Row, Summary
from stillrobust.report.scatter import clean_against_corrupted, upstream_against_downstream
from stillrobust.report.steps import steps
from stillrobust.report.summary import METRICS, SEED, TASKS
from stillrobust.report.tables import left_out_lines, overlap_lines
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Store

QUESTION = "Is it still robust?"
NOTHING = (
    "There is no complete run yet, so there is no answer: measure what is missing, then report"
    " again."
)
# A browser is told as well that the page loads nothing: what is not in the file is refused.
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;'
    " style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
)


def page(store: Store, summary: Summary) -> str:
    """The page as text; the same store gives the same page."""
    images: dict[str, str] = {}
    parts = [_section(store, section, summary, images) for section in sections(summary.rows)]
    along = came_along(store.runs(), summary.rows)
    told = [sentence(along)] * bool(along) + answers(summary.rows)
    body = [
        '<a class="skip" href="#table">Skip to the table</a>' if summary.rows else "",
        f"<main><h1>{QUESTION}</h1>",
        *(f'<p class="answer">{escape(text)}</p>' for text in told),
        "" if summary.rows else f'<p class="answer">{NOTHING}</p>',
        _incomplete(summary),
        table(summary),
        along_tables(along, gained_upstream(store.runs(), summary.rows)),
        *(
            f'<p class="warning">{escape(sentence)}</p>'
            for sentence in overlap_lines(summary.rows) + left_out_lines(summary.rows)
        ),
        definitions(images),
        *parts,
        beside_section(summary),
        published(summary.rows),
        _protocol(store, summary),
        _provenance(summary),
        downloads(numbers(store, summary)),
        "</main>",
    ]
    style, script = (
        files("stillrobust.report").joinpath(f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("css", "js")
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{POLICY}'
        f'<link rel="icon" href="data:,"><title>{QUESTION}</title>'
        f"<style>\n{style}{heat_style()}\n</style></head>\n<body>\n"
        + "\n".join(filter(None, body))
        + f"\n<script>\n{script}</script></body></html>\n"
    )


def _incomplete(summary: Summary) -> str:
    if not summary.incomplete:
        return ""
    lines = "".join(
        f"<li><b>{escape(one.run)}</b>: {escape(one.reason)}</li>" for one in summary.incomplete
    )
    return (
        f'<details class="warning"><summary>Incomplete: {len(summary.incomplete)}</summary><p>These'
        f" have no line below; nothing is averaged over holes.</p><ul>{lines}</ul></details>"
    )


def _section(store: Store, rows: list[Row], summary: Summary, images: dict[str, str]) -> str:
    run, numbers = rows[0].run, rows[0].robustness
    names = {row.run.name for row in rows}
    values: dict[str, dict[Place, float]] = {name: {} for name in names}
    for one in summary.measurements:
        if one.run in names and one.metric == numbers.metric:
            values[one.run][one.corruption, one.severity] = one.value
    task, metric = TASKS.get(run.task, run.task), METRICS.get(numbers.metric, numbers.metric)
    first = next(
        row for row in summary.rows if (row.run.task, row.run.dataset) == (run.task, run.dataset)
    )
    # once, not for each metric
    pictures = gallery(store, rows, images) + steps(store, rows, images) if first is rows[0] else ""
    figures = {
        "Severity by severity": curves(rows),
        "Clean against corrupted": clean_against_corrupted(rows),
        "Upstream against downstream": upstream_against_downstream(rows, summary.rows),
    }
    wide = {
        "Where it is lost": heat_map(rows, values),
        "What the one number hides": hidden(rows, summary),
        "By size of object": by_size(rows, summary),
        "By class": by_class(rows, summary),
        "What the models see and say": pictures,
    }
    beside = "".join(
        f"<div><h3>{title}</h3>{figure}</div>" for title, figure in figures.items() if figure
    )
    below = "".join(f"<h3>{title}</h3>{figure}" for title, figure in wide.items() if figure)
    title = ", ".join(
        filter(None, [f"{task} on {run.dataset}: {metric}", apart(rows, summary.rows)])
    )
    return (
        f'<section aria-label="{escape(title)}"><h2>{escape(title)}</h2><div'
        f' class="figures">{beside}</div>{below}</section>'
    )


def _protocol(store: Store, summary: Summary) -> str:
    """Every key: what all runs share once, then what each run has of its own."""
    protocols = {
        run.name: _flat({**asdict(run), "classes": list(run.classes)}) for run in store.runs()
    }
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
    shared = {
        key: text for key, text in every[0].items() if all(one.get(key) == text for one in every)
    }
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
    lines = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(text)}</td></tr>' for key, text in pairs
    )
    return (
        f'<div {FRAME} aria-label="Values"><table'
        f' class="values"><tbody>{lines}</tbody></table></div>'
    )


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
