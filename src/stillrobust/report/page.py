"""The page: one offline file with headline, tables, figures, pictures and protocol.

It loads nothing from the network, and every name that comes from data is escaped.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
from stillrobust.report.figures import (
    HEIGHT,
    WIDTH,
    clean_against_corrupted,
    severity_curves,
    upstream_against_downstream,
)
from stillrobust.report.gallery import Images, gallery, severity_steps
from stillrobust.report.headline import headline
from stillrobust.report.heat_map import corruption_heat_table, heat_style
from stillrobust.report.labels import TASKS, metric_name, task_name
from stillrobust.report.paper_figures import list_paper_figures
from stillrobust.report.partial_results import partial_results_table
from stillrobust.report.protocol_groups import protocol_difference, protocol_groups
from stillrobust.report.renderers import render_html
from stillrobust.report.results_table import DROPS, FILTERS, GROUP_ORDER, results_table
from stillrobust.report.rows import Row, Summary
from stillrobust.report.summary import SEED
from stillrobust.report.table import Cell, Column, Percent, Table
from stillrobust.report.transfer_gain import summary_sentence, transfer_gain, transfer_gain_table
from stillrobust.report.upstream_gain import upstream_gain, upstream_gain_table
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Store

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
    gains = transfer_gain(runs, rows)
    sentences = [summary_sentence(gains)] if gains else []
    links = download_links(report_files(store, summary), list_paper_figures(runs, summary))
    style, script = (
        Markup(files("stillrobust.report").joinpath(f"templates/page.{kind}").read_text("utf-8"))
        for kind in ("css", "js")
    )
    shared, by_run = _protocols(store, summary)
    return str(
        render_html(
            "page.html",
            width=WIDTH,
            height=HEIGHT,
            style=style,
            heat_style=Markup(heat_style()),
            script=script,
            summary=summary,
            headline=sentences + headline(rows) + headline(summary.partial_rows),
            partial=partial_results_table(summary.partial_rows),
            partial_sections=[
                _pictures(store, group, summary.partial_rows, images)
                for group in protocol_groups(summary.partial_rows)
            ],
            results=results,
            filters=_filter_choices(results),
            gains=[
                transfer_gain_table(gains),
                upstream_gain_table(upstream_gain(runs, rows)),
            ],
            sections=[_section(store, group, summary, images) for group in protocol_groups(rows)],
            images=images,
            extra=extra_corruptions_table(summary),
            published=_published_table(rows),
            shared_protocol=shared,
            protocols=by_run,
            provenance=_provenance(summary),
            links=links,
        )
    )


def _filter_choices(results: Table) -> dict[str, list[str]]:
    """The values of each filter that has more than one."""
    choices = {
        name: list(dict.fromkeys(row.filters[name] for row in results.rows)) for name in FILTERS
    }
    return {name: values for name, values in choices.items() if len(values) > 1}


def _section(store: Store, rows: list[Row], summary: Summary, images: Images) -> dict[str, Any]:
    """Figures, tables and pictures of comparable rows."""
    run, numbers = rows[0].run, rows[0].robustness
    names = {row.run.name for row in rows}
    values: dict[str, dict[Place, float]] = {name: {} for name in names}
    for one in summary.measurements:
        if one.run in names and one.metric == numbers.metric:
            values[one.run][one.corruption, one.severity] = one.value
    title = f"{task_name(run)} on {run.dataset}: {metric_name(numbers.metric)}"
    return {
        "title": ", ".join(filter(None, [title, protocol_difference(rows, summary.rows)])),
        "figures": {
            "Score by severity": severity_curves(rows),
            "Clean against corrupted": clean_against_corrupted(rows),
            "Upstream against downstream": upstream_against_downstream(rows, summary.rows),
        },
        "by_corruption": corruption_heat_table(rows, values),
        "breakdown": breakdown_table(rows, summary),
        "by_size": size_heat_table(rows, summary),
        "by_class": class_heat_map(rows, summary),
        **_pictures(store, rows, summary.rows, images),
    }


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
