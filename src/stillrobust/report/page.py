"""The page: one offline file with the answer, tables, charts, examples and details.

It loads nothing from the network, and every name that comes from data is escaped. The charting
library is in the file once.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from typing import Any

import numpy as np
from markupsafe import Markup

import stillrobust
from stillrobust import paper
from stillrobust.grid import Place
from stillrobust.report.breakdown import breakdown_table, class_heat_map, size_heat_table
from stillrobust.report.downloads import download_links, report_files
from stillrobust.report.extra_corruptions import extra_corruptions_table
from stillrobust.report.figures import score_charts
from stillrobust.report.gallery import Images, gallery, severity_steps
from stillrobust.report.headline import answers_table, headline
from stillrobust.report.heat_map import corruption_heat_table, heat_style
from stillrobust.report.labels import TASKS, mean_name, metric_name, task_name
from stillrobust.report.paper_figures import list_paper_figures
from stillrobust.report.partial_results import partial_results_table
from stillrobust.report.protocol_groups import protocol_difference, protocol_groups
from stillrobust.report.renderers import render_html
from stillrobust.report.results_table import DROPS, FILTERS, GROUP_ORDER, results_table
from stillrobust.report.rows import Row, Summary
from stillrobust.report.summary import SEED
from stillrobust.report.table import Cell, Column, Percent, Table, cell_text
from stillrobust.report.transfer_gain import transfer_gain, transfer_gain_table
from stillrobust.report.upstream_gain import upstream_gain, upstream_gain_table
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Store

LIBRARY_PLACE = "<!-- charting library -->"  # no text from data contains a comment
FEW_ROWS = 6  # up to which nobody needs a search
BARS = {
    **dict.fromkeys(("clean", "mpc", "score"), "score"),
    **dict.fromkeys((*(f"{group}_drop" for group in GROUP_ORDER), "mean_drop", "drop"), "drop"),
}
"""Key of a column of percentages -> kind of the bar behind its numbers."""
PAPER_TABLES = {"detection": "Table 1", "segmentation": "Table 2"}


def render_page(store: Store, summary: Summary) -> str:
    """Render the page.

    Args:
        store: The results store, for runs and pictures.
        summary: Rows of the store.

    Returns:
        HTML; the same for the same store.
    """
    images: Images = {}
    runs, rows = store.runs(), summary.rows
    results = results_table(rows, summary.replicates)
    shared, by_run = _protocols(store, summary)
    style, script = (
        Markup(files("stillrobust.report").joinpath(f"templates/page.{kind}").read_text("utf-8"))
        for kind in ("css", "js")
    )
    html = str(
        render_html(
            "page.html",
            style=style,
            heat_style=Markup(heat_style()),
            script=script,
            summary=summary,
            headline=headline(runs, summary),
            results=without_constant_columns(results),
            filters=_filter_choices(results),
            few_rows=FEW_ROWS,
            partial=partial_results_table(summary.partial_rows),
            answers=[
                transfer_gain_table(transfer_gain(runs, rows)),
                upstream_gain_table(upstream_gain(runs, rows)),
                answers_table(summary),
            ],
            groups=[
                *(_group(store, group, summary, images) for group in protocol_groups(rows)),
                *(
                    _partial_group(store, group, summary, images)
                    for group in protocol_groups(summary.partial_rows)
                ),
            ],
            images=images,
            bars=BARS,
            extra=extra_corruptions_table(summary),
            published=_published_table(rows),
            shared_protocol=shared,
            protocols=by_run,
            provenance=_provenance(summary),
            links=download_links(report_files(store, summary), list_paper_figures(runs, summary)),
        )
    )
    return html.replace(LIBRARY_PLACE, _library() if 'class="chart"' in html else "")


def _library() -> str:
    """The charting library as text, which the page's script runs when it draws the first chart.

    It takes a second to run, and the numbers are there before. It is not a value of the template,
    so nothing in it is escaped.
    """
    from plotly.offline import get_plotlyjs

    return f'<script type="text/plain" id="library">{get_plotlyjs()}</script>'


def _filter_choices(results: Table) -> dict[str, list[str]]:
    """The values of each filter that has more than one."""
    choices = {
        name: list(dict.fromkeys(row.filters[name] for row in results.rows)) for name in FILTERS
    }
    return {name: values for name, values in choices.items() if len(values) > 1}


def without_constant_columns(table: Table) -> Table:
    """Move text columns with a single value from a table to its title."""
    constant: dict[int, str] = {}
    for index, column in table.visible:
        values = {cell_text(row.cells[index]) for row in table.rows}
        if column.is_text and index != table.row_header and len(values) == 1:
            constant[index] = values.pop()
    columns = tuple(
        replace(column, heading=None) if index in constant else column
        for index, column in enumerate(table.columns)
    )
    title = ", ".join([table.title, *filter(None, constant.values())])
    return replace(table, title=title, columns=columns)


def _group(store: Store, rows: list[Row], summary: Summary, images: Images) -> dict[str, Any]:
    """Charts, tables and pictures of comparable rows."""
    numbers = rows[0].robustness
    names = {row.run.name for row in rows}
    values: dict[str, dict[Place, float]] = {name: {} for name in names}
    for one in summary.measurements:
        if one.run in names and one.metric == numbers.metric:
            values[one.run][one.corruption, one.severity] = one.value
    return {
        "title": _group_title(rows, summary.rows),
        "curves": score_charts(rows),
        "by_corruption": corruption_heat_table(rows, values),
        "breakdown": breakdown_table(rows, summary),
        "by_size": size_heat_table(rows, summary),
        "by_class": class_heat_map(rows, summary),
        **_pictures(store, rows, summary.rows, images),
    }


def _partial_group(
    store: Store, rows: list[Row], summary: Summary, images: Images
) -> dict[str, Any]:
    """Pictures of comparable rows with fewer than the 15 corruptions; a table has their numbers."""
    title = f"{_group_title(rows, summary.partial_rows)}, {mean_name(rows[0].robustness)}"
    return {
        "title": title,
        "curves": None,
        **_pictures(store, rows, summary.partial_rows, images),
    }


def _group_title(rows: Sequence[Row], all_rows: Sequence[Row]) -> str:
    run, metric = rows[0].run, rows[0].robustness.metric
    title = f"{task_name(run)} on {run.dataset}, {metric_name(metric)}"
    return ", ".join(filter(None, [title, protocol_difference(rows, all_rows)]))


def _pictures(
    store: Store, rows: list[Row], all_rows: Sequence[Row], images: Images
) -> dict[str, Any]:
    """The gallery of comparable rows; only the first metric of a task and dataset has one."""
    subject = rows[0].run.task, rows[0].run.dataset
    first = next(row for row in all_rows if (row.run.task, row.run.dataset) == subject)
    is_first = first is rows[0]
    return {
        "gallery": gallery(store, rows, images) if is_first else None,
        "steps": severity_steps(store, rows, images) if is_first else [],
    }


def _published_table(rows: tuple[Row, ...]) -> Table:
    """The paper's printed drops for the tasks on the page."""
    shown = {
        PAPER_TABLES[row.run.task]: TASKS[row.run.task]
        for row in rows
        if row.run.task in PAPER_TABLES
    }
    lines: list[list[Cell]] = [
        [
            str(line["model"]),
            shown[table.name],
            *(Percent(float(line[drop]) / 100, digits=2) for drop in DROPS[:-1]),
        ]
        for table in paper.printed_tables()
        if table.name in shown
        for line in table.rows.values()
    ]
    columns = [Column(heading="Model", is_text=True), Column(heading="Task", is_text=True)]
    columns += [Column(heading=group.capitalize()) for group in GROUP_ORDER]
    title = (
        "Other data and sizes, longer training: compare the order of the models with the results"
        " above, not the numbers."
    )
    return Table.from_rows(title, columns, lines)


def _protocols(store: Store, summary: Summary) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Keys and values that all runs share, and those of each run."""
    protocols = {
        run.name: _flatten({**asdict(run), "classes": list(run.classes)}) for run in store.runs()
    }
    for one in summary.measurements:
        if one.run in protocols:
            for key, text in _flatten({"cells": one.protocol}).items():
                seen = protocols[one.run].setdefault(key, text)
                if text not in seen.split(" / "):
                    protocols[one.run][key] = f"{seen} / {text}"
    if len(protocols) < 2:
        return {}, protocols
    first, *others = protocols.values()
    shared = {
        key: text for key, text in first.items() if all(one.get(key) == text for one in others)
    }
    by_run = {
        name: {key: text for key, text in own.items() if key not in shared}
        for name, own in protocols.items()
    }
    return shared, by_run


def _provenance(summary: Summary) -> dict[str, str]:
    numbers = sorted(
        (asdict(one) for one in summary.measurements),
        key=lambda one: (one["run"], one["metric"], one["corruption"], one["severity"]),
    )
    seconds = {(one.run, one.corruption, one.severity): one.seconds for one in summary.measurements}
    return {
        "stillrobust": stillrobust.__version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "cells": str(len(seconds)),
        "measurements": str(len(numbers)),
        "evaluation time": f"{sum(seconds.values()) / 60:.1f} minutes, all cells together",
        "content of the store": content_key({"measurements": numbers}),
        "resamples": f"{summary.replicates}, seed {SEED}",
    }


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as one, with dotted keys; values as text."""
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat
