"""What the report says: one row per run and metric, with its interval, and what is missing."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stillrobust.analysis.intervals import REPLICATES, interval, rank_groups, robustness_replicates
from stillrobust.analysis.resampling import resample_cells
from stillrobust.analysis.robustness import robustness
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import CLEAN, COMMON, GROUPS, SEVERITIES, Place, corrupted_places
from stillrobust.report.blocks import comparable
from stillrobust.report.rows import Incomplete, Row, Summary
from stillrobust.samples import Array
from stillrobust.storage.store import Measurement, Run, Store

SEED = 0

TASKS = {
    "classification": "Image classification",
    "detection": "Object detection",
    "segmentation": "Semantic segmentation",
}
# in the order of the report
METRICS = {"top1": "top-1", "box_ap": "box AP", "mask_ap": "mask AP", "miou": "mIoU"}
QUANTITIES = ("clean", "corrupted", "drop", *(f"drop.{group}" for group in GROUPS))
"""What a claim may be about: P, mPC, the mean drop, and that of each group of corruptions."""
MODES = {
    "fixed_feature": "fixed feature",
    "full_network": "full network",
    "released_freeze": "released freeze",
    "upstream": "upstream",
    "robustify": "upstream",
    "external": "external",
}


def summarize(
    store: Store,
    replicates: int = REPLICATES,
    only: Collection[str] | None = None,
    severities: tuple[int, ...] | None = None,
) -> Summary:
    """Read a store, or the runs of it that ``only`` names; a run with holes is listed as incomplete
    and never averaged.

    ``severities`` are those of :func:`severities_of` if they are not given.
    """
    measurements = [one for one in store.measurements() if only is None or one.run in only]
    rows: list[Row] = []
    incomplete: list[Incomplete] = []
    runs = [run for run in store.runs() if only is None or run.name in only]
    for run in runs:
        own = [measurement for measurement in measurements if measurement.run == run.name]
        found, missing = _rows_of(run, own, severities or severities_of(run, runs, measurements))
        incomplete += missing
        rows += _with_intervals(store, run, found, replicates) if replicates and found else found
    for name in sorted(
        {measurement.run for measurement in measurements} - {run.name for run in runs}
    ):
        incomplete.append(
            Incomplete(
                name, "there are measurements, but no record of the run: run the study again"
            )
        )
    rows = _with_letters(sorted(rows, key=_order))
    return Summary(tuple(rows), tuple(incomplete), tuple(measurements), replicates)


def severities_of(
    run: Run, runs: Iterable[Run], measurements: Iterable[Measurement]
) -> tuple[int, ...]:
    """The severities of a run's table: all that any run of its task, data and protocol was measured
    at.

    So a run that is behind the others has holes, instead of a mean over fewer severities.
    """
    measurements = list(measurements)
    protocols: dict[str, Mapping[str, Any]] = {}
    for one in measurements:
        protocols.setdefault(one.run, one.protocol)
    mine = comparable(protocols.get(run.name, {}))
    beside = {
        other.name
        for other in runs
        if (other.task, other.dataset) == (run.task, run.dataset)
        and comparable(protocols.get(other.name, {})) == mine
    }
    there = {m.severity for m in measurements if m.run in beside and m.corruption in COMMON}
    return tuple(sorted(there & set(SEVERITIES))) or SEVERITIES


def shown_metrics(measurements: Iterable[Measurement]) -> list[str]:
    """The metrics that get a row: those of the paper, or all if there are none of these."""
    there = {measurement.metric for measurement in measurements}
    return [metric for metric in METRICS if metric in there] or sorted(there)


def model_name(row: Row, rows: Sequence[Row]) -> str:
    """The backbone and the technique of its transfer, with the run's name where two runs of one
    table share both and the mode.
    """
    same = [
        other
        for other in rows
        if (_model(other.run), other.run.setting) == (_model(row.run), row.run.setting)
        and other.table == row.table
    ]
    return _model(row.run) if len(same) < 2 else f"{_model(row.run)} ({row.run.name})"


def backbone_name(run: Run) -> str:
    """The spec, with weights of one's own by the name of their file: the folder says nothing to a
    reader.
    """
    return re.sub(r"(['\"])[^'\"]*[/\\]([^'\"/\\]+)\1", r"\1\2\1", run.backbone)


def _model(run: Run) -> str:
    backbone = backbone_name(run)
    training = run.protocol.get("training")
    technique = training.get("technique") if isinstance(training, dict) else None
    return f"{backbone} + {technique}" if technique and not run.is_upstream else backbone


def overlaps_test(run: Run) -> tuple[str, ...]:
    """Return the corruptions of the test that a model or its backbone saw in training.

    The training records them. Nothing is known about models that were trained elsewhere.
    """
    return tuple(run.protocol.get("overlaps_test", ()))


def _rows_of(
    run: Run, own: list[Measurement], severities: tuple[int, ...]
) -> tuple[list[Row], list[Incomplete]]:
    if not own:
        return [], [Incomplete(run.name, "nothing is measured yet: run the study")]
    rows, incomplete = [], []
    for metric in shown_metrics(own):
        of_metric = [measurement for measurement in own if measurement.metric == metric]
        try:
            numbers = robustness(of_metric, severities)
        except UserError as error:
            incomplete.append(Incomplete(run.name, str(error)))
            continue
        images = next(m.images for m in of_metric if (m.corruption, m.severity) == CLEAN)
        rows.append(Row(run, numbers, images, circumstances=comparable(of_metric[0].protocol)))
    return rows, incomplete


def _with_intervals(store: Store, run: Run, rows: list[Row], replicates: int) -> list[Row]:
    try:
        places = corrupted_places(rows[0].robustness.severities)
        drawn = resample_cells(store, run.name, (CLEAN, *places), replicates, SEED)
    except MissingCellsError:
        return rows  # the numbers stand without their statistics; they only have no interval
    if drawn is None:
        return rows
    result = []
    for row in rows:
        cells = drawn.values.get(row.robustness.metric)
        values = None if cells is None else _quantities(cells[0, 1:], cells[1:, 1:], places)
        if values is None or not np.isfinite(values["drop"]).all():
            result.append(row)
            continue
        around = interval(values["drop"], row.robustness.drop)
        result.append(replace(row, interval=around, resampled=values, drawn_from=drawn.image_ids))
    return result


def _with_letters(rows: list[Row]) -> list[Row]:
    """The rows in their order, those of one table and the same images compared with each other."""
    tables: dict[tuple[object, ...], list[int]] = {}
    for index, row in enumerate(rows):
        if row.drops is not None:
            tables.setdefault((*row.table, row.drawn_from), []).append(index)
    result = list(rows)
    for members in tables.values():
        drops = [np.asarray(rows[i].drops) for i in members]
        letters = rank_groups([rows[i].robustness.drop for i in members], drops)
        for index, letter in zip(members, letters, strict=True):
            result[index] = replace(rows[index], alike=letter)
    return result


def _quantities(clean: Array, cells: Array, places: Sequence[Place]) -> dict[str, Array]:
    """Every quantity of a metric in every resample, from ``clean`` (R,) and the ``cells`` (K, R) at
    ``places``.
    """
    every = robustness_replicates(clean, cells)
    found = {"clean": every["P"], "corrupted": every["mPC"], "drop": every["drop"]}
    for group, members in GROUPS.items():
        inside = [index for index, (corruption, _) in enumerate(places) if corruption in members]
        found[f"drop.{group}"] = robustness_replicates(clean, cells[inside])["drop"]
    for level in sorted({severity for _, severity in places}):
        found[f"severity.{level}"] = cells[[severity == level for _, severity in places]].mean(0)
    return found


def _order(row: Row) -> tuple[object, ...]:
    tasks, metrics = list(TASKS), list(METRICS)
    task, metric = row.run.task, row.robustness.metric
    return (
        tasks.index(task) if task in tasks else len(tasks),
        task,
        row.run.dataset,
        metrics.index(metric) if metric in metrics else len(metrics),
        metric,
        "imported" in row.run.protocol,  # one's own first
        row.table[3:],
        row.run.setting,
        row.robustness.drop,
        row.run.name,
    )
