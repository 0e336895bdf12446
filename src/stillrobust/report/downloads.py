"""The numbers of the page inside the page: CSV, JSON and LaTeX as links that need no network."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from stillrobust.report.came_along import (
    Along,
    came_along,
    came_along_csv,
    came_along_markdown,
    flat,
)
from stillrobust.report.gained_upstream import (
    Gained,
    gained_csv,
    gained_flat,
    gained_markdown,
    gained_upstream,
)
from stillrobust.report.inside import details_csv
from stillrobust.report.latex import escaped, line
from stillrobust.report.rows import Row, Summary
from stillrobust.report.seeds import with_seed_means
from stillrobust.report.summary import overlaps_test
from stillrobust.report.tables import HEADINGS, TEXT_COLUMNS, blocks, measurements_csv, table_csv
from stillrobust.storage.store import Store

ROOM = 4_000_000  # bytes of links in the page; what has no room is beside the page alone


def numbers(store: Store, summary: Summary) -> dict[str, tuple[str, str, str]]:
    """Files of the table and of every number: kind, what it is, and content."""
    runs = store.runs()
    along, gained = came_along(runs, summary.rows), gained_upstream(runs, summary.rows)
    files = {
        "table.csv": ("text/csv", "the table, full precision", table_csv(summary.rows)),
        "table.tex": ("application/x-tex", "the table for a paper", latex_table(summary.rows)),
        "results.json": (
            "application/json",
            "rows with intervals, protocols, every score and what they hide",
            results_json(summary, along, gained),
        ),
        "measurements.csv": (
            "text/csv",
            "every number",
            measurements_csv(runs, summary.measurements),
        ),
        "details.csv": (
            "text/csv",
            "what the numbers hide: calibration, sizes, classes, mCE",
            details_csv(summary),
        ),
    }
    if gained:
        files["gained_upstream.csv"] = (
            "text/csv",
            "what techniques gain upstream, by group",
            gained_csv(gained),
        )
    if along:
        files["came_along.csv"] = (
            "text/csv",
            "what came along, full precision",
            came_along_csv(along),
        )
    if along or gained:
        both = "\n".join(filter(None, [came_along_markdown(along), gained_markdown(gained)]))
        files["came_along.md"] = ("text/markdown", "both tables for a page of documentation", both)
    return files


def downloads(files: Mapping[str, tuple[str, str, str]]) -> str:
    """Links that hold the files, as many as have room."""
    room, links = ROOM, []
    for name, (kind, about, text) in files.items():
        held = base64.b64encode(text.encode()).decode()
        told = f"{escape(about)}, {max(1, round(len(text.encode()) / 1000))} kB"
        if len(held) > room:
            links.append(f"<li>{name}: {told}, in the folder of this page</li>")
            continue
        room -= len(held)
        links.append(
            f'<li><a download="{name}" href="data:{kind};base64,{held}">{name}</a>: {told}</li>'
        )
    return f'<h2 id="downloads">Take the numbers along</h2><ul>{"".join(links)}</ul>'


def latex_table(rows: Sequence[Row]) -> str:
    r"""The table as one ``tabular`` that needs no package."""
    body = [line(HEADINGS)]
    for block in blocks(rows):
        body += (
            [rf"\multicolumn{{{len(HEADINGS)}}}{{l}}{{{escaped(block.title)}}} \\"]
            if block.title
            else []
        )
        body += [line(texts) for _, texts in block.lines]
    columns = "l" * TEXT_COLUMNS + "r" * (len(HEADINGS) - TEXT_COLUMNS)
    parts = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\hline",
        body[0],
        r"\hline",
        *body[1:],
        r"\hline",
        r"\end{tabular}",
        "",
    ]
    return "\n".join(parts)


def results_json(
    summary: Summary, along: Sequence[Along] = (), gained: Sequence[Gained] = ()
) -> str:
    """Every row, mean of seeds, gain upstream and after a transfer; a row also with its protocol
    and its scores.
    """
    scores: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for one in summary.measurements:
        scores.setdefault((one.run, one.metric), {}).setdefault(one.corruption, {})[
            one.severity
        ] = one.value
    means = [row for row in with_seed_means(summary.rows) if row not in summary.rows]
    rows = []
    for row in summary.rows:
        key = row.run.name, row.robustness.metric
        inside = summary.inside.get(key)
        rows.append(
            {
                **_told(row),
                "protocol": row.circumstances,
                "scores": scores[key],
                "inside": inside and asdict(inside),
            }
        )
    found = {
        "rows": rows,
        "means_of_seeds": [_told(row) for row in means],
        "came_along": [flat(line) for line in along],
        "gained_upstream": [gained_flat(line) for line in gained],
        "incomplete": [asdict(one) for one in summary.incomplete],
    }
    return json.dumps(found, ensure_ascii=False)


def _told(row: Row) -> dict[str, Any]:
    """The numbers of a row, fractions."""
    run, numbers = row.run, row.robustness
    about = {
        "run": run.name,
        "task": run.task,
        "dataset": run.dataset,
        "backbone": run.backbone,
        "transfer": run.setting,
    }
    kept = {
        "metric": numbers.metric,
        "severities": numbers.severities,
        "images": row.images,
        "clean": numbers.clean,
    }
    kept |= {
        "mpc": numbers.mpc,
        "rpc": numbers.rpc,
        "drop": numbers.drop,
        "drop_interval": row.interval,
        "alike": row.alike,
    }
    kept["overlaps_test"] = overlaps_test(run)
    return {**about, **kept}
