"""Summary of a store: a row per run and metric with its interval, and the incomplete runs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stillrobust.analysis.groups import groups_entry
from stillrobust.analysis.intervals import (
    DROP_RANGE,
    REPLICATES,
    interval,
    rank_groups,
    robustness_replicates,
)
from stillrobust.analysis.plausibility import run_warnings
from stillrobust.analysis.protocols import comparable_protocol
from stillrobust.analysis.resampling import resample_cells
from stillrobust.analysis.robustness import covered_cells, robustness
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import CLEAN, COMMON, GROUPS, SEVERITIES, Place
from stillrobust.metrics import METRIC_NAMES
from stillrobust.report.labels import TASKS
from stillrobust.report.rows import Incomplete, Row, Summary
from stillrobust.samples import Array
from stillrobust.storage.store import Measurement, Run, Store

SEED = 0

QUANTITIES = ("clean", "corrupted", "drop", *(f"drop.{group}" for group in GROUPS))
"""P, mPC, the mean drop, and the drop of each corruption group."""


def summarize(
    store: Store,
    replicates: int = REPLICATES,
    only: Collection[str] | None = None,
    severities: tuple[int, ...] | None = None,
) -> Summary:
    """Summarize the measurements of a store.

    A run with missing cells is listed as incomplete and never averaged. One that has all cells of
    fewer corruptions has a row of its own kind, whose mean is not mPC.

    Args:
        store: The results store.
        replicates: Number of bootstrap resamples behind the intervals; 0 for no intervals.
        only: Names of the runs to include (default: all).
        severities: Severities of the table (default: those of :func:`severities_of`).

    Returns:
        Rows in the order of the report, and what is incomplete.
    """
    measurements = [one for one in store.measurements() if only is None or one.run in only]
    rows: list[Row] = []
    partial: list[Row] = []
    incomplete: list[Incomplete] = []
    runs = [run for run in store.runs() if only is None or run.name in only]
    for run in runs:
        own = [measurement for measurement in measurements if measurement.run == run.name]
        found, missing = _rows_of(run, own, severities or severities_of(run, runs, measurements))
        incomplete += missing
        if replicates:
            found = _with_intervals(store, run, found, replicates)
        for row in found:
            (rows if row.robustness.is_complete else partial).append(row)
    for name in sorted(
        {measurement.run for measurement in measurements} - {run.name for run in runs}
    ):
        incomplete.append(
            Incomplete(name, "has measurements, but no record of the run: run the study again")
        )
    implausible = {
        run.name: sentences
        for run in runs
        if (sentences := run_warnings(run, [one for one in measurements if one.run == run.name]))
    }
    complete, fewer = (_with_letters(sorted(found, key=_order)) for found in (rows, partial))
    return Summary(
        tuple(complete),
        tuple(incomplete),
        tuple(measurements),
        replicates,
        tuple(fewer),
        implausible,
    )


def severities_of(
    run: Run, runs: Iterable[Run], measurements: Iterable[Measurement]
) -> tuple[int, ...]:
    """Return all severities at which any run of the same task, data and protocol was measured.

    A run that lags behind the others is therefore incomplete, not averaged over fewer severities.
    Runs with fewer than the 15 corruptions do not count.
    """
    measurements = list(measurements)
    protocols: dict[str, Mapping[str, Any]] = {}
    for one in measurements:
        protocols.setdefault(one.run, one.protocol)
    own = comparable_protocol(protocols.get(run.name, {}))
    peers = {
        other.name
        for other in runs
        if (other.task, other.dataset) == (run.task, run.dataset)
        and comparable_protocol(protocols.get(other.name, {})) == own
    }
    by_peer: dict[str, list[Measurement]] = {name: [] for name in peers}
    for one in measurements:
        if one.run in peers and one.corruption in COMMON:
            by_peer[one.run].append(one)
    found = {
        one.severity
        for own in by_peer.values()
        if covered_cells(own, SEVERITIES)[1] == COMMON
        for one in own
    }
    return tuple(sorted(found & set(SEVERITIES))) or SEVERITIES


def report_metrics(measurements: Iterable[Measurement]) -> list[str]:
    """Return the metrics that get a row: those of ``METRICS``, or all if it has none of them."""
    found = {measurement.metric for measurement in measurements}
    return [metric for metric in METRIC_NAMES if metric in found] or sorted(found)


def overlaps_test(run: Run) -> tuple[str, ...]:
    """Return the test corruptions that a model saw in training.

    Techniques of its own training and of its backbone's training count.
    """
    return tuple(run.protocol.get("overlaps_test", ()))


def _rows_of(
    run: Run, own: list[Measurement], severities: tuple[int, ...]
) -> tuple[list[Row], list[Incomplete]]:
    if not own:
        return [], [Incomplete(run.name, "has no measurement yet: run the study")]
    rows, incomplete = [], []
    for metric in report_metrics(own):
        of_metric = [measurement for measurement in own if measurement.metric == metric]
        try:
            numbers = robustness(of_metric, *covered_cells(of_metric, severities))
        except UserError as error:
            incomplete.append(Incomplete(run.name, str(error)))
            continue
        images = next(m.images for m in of_metric if (m.corruption, m.severity) == CLEAN)
        rows.append(Row(run, numbers, images, protocol=comparable_protocol(of_metric[0].protocol)))
    return rows, incomplete


def _with_intervals(store: Store, run: Run, rows: list[Row], replicates: int) -> list[Row]:
    if not rows:
        return rows
    try:
        places = rows[0].robustness.places
        drawn = resample_cells(store, run.name, (CLEAN, *places), replicates, SEED)
    except MissingCellsError:
        return rows  # the numbers stand without their statistics; they only have no interval
    if drawn is None:
        return [replace(row, interval=_imported_interval(row)) for row in rows]
    result = []
    for row in rows:
        cells = drawn.values.get(row.robustness.metric)
        values = None if cells is None else _quantities(cells[0, 1:], cells[1:, 1:], places)
        if values is None or not np.isfinite(values["drop"]).all():
            result.append(row)
            continue
        around = interval(values["drop"], row.robustness.drop, DROP_RANGE, freedom=drawn.freedom)
        result.append(
            replace(
                row,
                interval=around,
                resampled=values,
                image_ids=drawn.image_ids,
                images_per_class=drawn.images_per_class,
                grouping=drawn.grouping,
                protocol={**row.protocol, **groups_entry(drawn.grouping)},
            )
        )
    return result


def _imported_interval(row: Row) -> tuple[float, float] | None:
    """The interval of the drop that an imported card states for the same severities."""
    stated = row.run.protocol.get("imported", {}).get("intervals", {}).get(row.robustness.metric)
    if stated is None or tuple(stated["severities"]) != row.robustness.severities:
        return None
    low, high = stated["drop"]
    return low, high


def _with_letters(rows: list[Row]) -> list[Row]:
    """Add letters to comparable rows of the same images."""
    tables: dict[tuple[object, ...], list[int]] = {}
    for index, row in enumerate(rows):
        if row.drops is not None:
            tables.setdefault((*row.comparison_key, row.image_ids), []).append(index)
    result = list(rows)
    for members in tables.values():
        drop, mpc = (
            rank_groups(
                [sign * rows[i].value(quantity) for i in members],
                [sign * rows[i].resampled[quantity] for i in members],
                freedom=rows[members[0]].freedom,
            )
            for quantity, sign in (("drop", 1), ("corrupted", -1))  # a: the most robust
        )
        for index, by_drop, by_mpc in zip(members, drop, mpc, strict=True):
            result[index] = replace(rows[index], alike=by_drop, alike_mpc=by_mpc)
    return result


def _quantities(clean: Array, cells: Array, places: Sequence[Place]) -> dict[str, Array]:
    """Every quantity in every resample, from ``clean`` (R,) and ``cells`` (K, R) at ``places``."""
    every = robustness_replicates(clean, cells)
    found = {"clean": every["P"], "corrupted": every["mPC"], "drop": every["drop"]}
    for name in dict.fromkeys(corruption for corruption, _ in places):
        found[f"corruption.{name}"] = cells[[corruption == name for corruption, _ in places]].mean(
            0
        )
    for group, members in GROUPS.items():
        inside = [index for index, (corruption, _) in enumerate(places) if corruption in members]
        if inside:
            found[f"drop.{group}"] = robustness_replicates(clean, cells[inside])["drop"]
    for level in sorted({severity for _, severity in places}):
        found[f"severity.{level}"] = cells[[severity == level for _, severity in places]].mean(0)
    return found


def _order(row: Row) -> tuple[object, ...]:
    tasks, metrics = list(TASKS), list(METRIC_NAMES)
    task, metric = row.run.task, row.robustness.metric
    return (
        tasks.index(task) if task in tasks else len(tasks),
        task,
        row.run.dataset,
        metrics.index(metric) if metric in metrics else len(metrics),
        metric,
        "imported" in row.run.protocol,  # imported rows last
        row.comparison_key[3:],
        row.run.setting,
        row.robustness.drop,
        row.run.name,
    )
