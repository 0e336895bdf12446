"""Breakdown of a run's scores by calibration, object size, class and corruption."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stillrobust.analysis.intervals import REPLICATES, SCORE_RANGE, interval
from stillrobust.analysis.reference import worst_corruption
from stillrobust.analysis.resampling import CellReplicates, resample_cells
from stillrobust.analysis.robustness import covered_cells, robustness
from stillrobust.analysis.rounding import decimals
from stillrobust.grid import CLEAN, COMMON, SEVERITIES, Place
from stillrobust.metrics.recompute import recompute_by_class, recompute_details
from stillrobust.samples import Array
from stillrobust.storage.store import Measurement, Run, Store

Bounds = tuple[float, float]


@dataclass(frozen=True)
class BreakdownRow:
    """A score on the clean data and its mean over the corrupted cells, 0..1, with intervals."""

    name: str
    clean: float
    clean_interval: Bounds
    corrupted: float
    corrupted_interval: Bounds


def breakdown(
    store: Store,
    run: str,
    severities: Sequence[int] = SEVERITIES,
    count: int = REPLICATES,
    corruptions: Sequence[str] = COMMON,
) -> list[BreakdownRow]:
    """Return calibration errors and AP by object size.

    Args:
        store: The results store.
        run: Name of the run.
        severities: Severities that the corrupted mean covers.
        count: Number of bootstrap replicates.
        corruptions: Corruptions that it covers.

    Returns:
        A row per quantity; empty if the cells have no statistics for them.

    Raises:
        MissingCellsError: If a cell is missing.
    """
    replicates = resample_cells(
        store, run, _places(severities, corruptions), count, compute=recompute_details
    )
    return _rows_with_intervals(replicates)


def class_breakdown(
    store: Store,
    run: Run,
    severities: Sequence[int] = SEVERITIES,
    corruptions: Sequence[str] = COMMON,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the clean score and the mean over the corrupted cells of every class.

    Args:
        store: The results store.
        run: The run.
        severities: Severities that the corrupted mean covers.
        corruptions: Corruptions that it covers.

    Returns:
        (clean, corrupted) by metric and class, 0..1; NaN for a class without ground truth.

    Raises:
        MissingCellsError: If a cell is missing.
    """

    def columns(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        scores = recompute_by_class(statistics, weights)
        return {
            f"{name}\0{i}": one for name, values in scores.items() for i, one in enumerate(values.T)
        }

    replicates = resample_cells(
        store, run.name, _places(severities, corruptions), 1, compute=columns
    )
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for key, values in (replicates.values if replicates else {}).items():
        metric, number = key.split("\0")
        if int(number) >= len(run.classes):  # an altered record: no name for the class
            continue
        found.setdefault(metric, {})[run.classes[int(number)]] = (
            float(values[0, 0]),
            float(values[1:, 0].mean()),
        )
    return found


def breakdown_lines(
    store: Store, run: Run, severities: Sequence[int] = SEVERITIES, classes: int = 5
) -> list[str]:
    """Return the breakdown of a run as lines for a terminal, in percent with intervals.

    Args:
        store: The results store.
        run: The run.
        severities: Severities that the corrupted mean covers, over all 15 corruptions. A run that
            has fewer corruptions, each at the same severities, is described over those.
        classes: Number of classes to list, those with the largest loss first.

    Raises:
        MissingCellsError: If a cell is missing.
    """
    measurements = store.measurements(run.name)
    severities, corruptions = covered_cells(measurements, severities)
    lines = []
    if len(corruptions) < len(COMMON):
        levels = ", ".join(map(str, severities))
        lines.append(f"over {len(corruptions)} of 15 corruptions at severity {levels}")
    lines += _worst_corruption_lines(store, measurements, severities, corruptions)
    for line in breakdown(store, run.name, severities, corruptions=corruptions):
        lines.append(f"{line.name}: {_scores(line)}")
    for metric, scores in class_breakdown(store, run, severities, corruptions).items():
        lost = {
            name: clean - corrupted
            for name, (clean, corrupted) in scores.items()
            if np.isfinite(clean - corrupted)
        }
        worst = sorted(lost, key=lambda name: -lost[name])[:classes]
        lines.append(
            f"{metric} by class, largest loss first, {len(worst)} of {len(lost)}"
            " (the extremes of many, so a part of their loss is chance):"
        )
        lines += [
            f"  {line.name}: {_scores(line)}"
            for line in _class_rows(store, run, metric, worst, _places(severities, corruptions))
        ]
    return lines


def _places(severities: Sequence[int], corruptions: Sequence[str]) -> list[Place]:
    return [CLEAN, *((name, level) for name in corruptions for level in severities)]


def _worst_corruption_lines(
    store: Store,
    measurements: Sequence[Measurement],
    severities: Sequence[int],
    corruptions: Sequence[str],
) -> list[str]:
    """The worst corruption in each metric, with the interval of its score."""
    lines = []
    for metric in sorted({one.metric for one in measurements}):
        own = [one for one in measurements if one.metric == metric]
        numbers = robustness(own, severities, corruptions)
        name, part = worst_corruption(numbers)
        drawn = resample_cells(store, numbers.run, [(name, level) for level in severities])
        bounds = (
            interval(
                drawn.values[metric][:, 1:].mean(0), part.mpc, SCORE_RANGE, freedom=drawn.freedom
            )
            if drawn and metric in drawn.values
            else None
        )
        lines.append(
            f"{metric}: worst corruption {name}, {_percent(part.mpc, bounds)} of"
            f" {100 * numbers.clean:.1f} (the lowest of {len(numbers.by_corruption)} scores, so a"
            " part of that is chance)"
        )
    return lines


def _class_rows(
    store: Store, run: Run, metric: str, names: Sequence[str], places: Sequence[Place]
) -> list[BreakdownRow]:
    """The scores of some classes with intervals."""
    columns = [run.classes.index(name) for name in names]

    def chosen(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        scores = recompute_by_class(statistics, weights)[metric]
        return {name: scores[:, column] for name, column in zip(names, columns, strict=True)}

    return _rows_with_intervals(resample_cells(store, run.name, places, compute=chosen))


def _rows_with_intervals(replicates: CellReplicates | None) -> list[BreakdownRow]:
    """A row per quantity, from the clean cell and the corrupted ones."""
    if replicates is None:
        return []
    rows = []
    for name, values in replicates.values.items():
        clean, corrupted = values[0], values[1:].mean(0)
        if np.isnan(clean[0]):  # no ground truth, such as no large objects
            continue
        bounds = [
            interval(part[1:], float(part[0]), SCORE_RANGE, freedom=replicates.freedom)
            for part in (clean, corrupted)
        ]
        rows.append(BreakdownRow(name, float(clean[0]), bounds[0], float(corrupted[0]), bounds[1]))
    return rows


def _scores(row: BreakdownRow) -> str:
    return (
        f"clean {_percent(row.clean, row.clean_interval)}, "
        f"corrupted {_percent(row.corrupted, row.corrupted_interval)}"
    )


def _percent(value: float, bounds: Bounds | None) -> str:
    digits = decimals(bounds)
    around = f" [{100 * bounds[0]:.{digits}f}, {100 * bounds[1]:.{digits}f}]" if bounds else ""
    return f"{100 * value:.{digits}f}{around}"
