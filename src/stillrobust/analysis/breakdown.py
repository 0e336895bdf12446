"""Breakdown of a run's scores by calibration, object size, class and corruption."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stillrobust.analysis.intervals import REPLICATES, interval
from stillrobust.analysis.reference import worst_corruption
from stillrobust.analysis.resampling import resample_cells
from stillrobust.analysis.robustness import robustness
from stillrobust.grid import CLEAN, SEVERITIES, corrupted_places
from stillrobust.metrics.recompute import recompute_by_class, recompute_details
from stillrobust.samples import Array
from stillrobust.storage.store import Run, Store

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
    store: Store, run: str, severities: Sequence[int] = SEVERITIES, count: int = REPLICATES
) -> list[BreakdownRow]:
    """Return calibration errors and AP by object size.

    Args:
        store: The results store.
        run: Name of the run.
        severities: Severities that the corrupted mean covers.
        count: Number of bootstrap replicates.

    Returns:
        A row per quantity; empty if the cells have no statistics for them.

    Raises:
        MissingCellsError: If a cell is missing.
    """
    replicates = resample_cells(
        store, run, (CLEAN, *corrupted_places(severities)), count, compute=recompute_details
    )
    lines = []
    for name, values in (replicates.values if replicates else {}).items():
        clean, corrupted = values[0], values[1:].mean(0)
        bounds = [interval(part[1:], float(part[0])) for part in (clean, corrupted)]
        lines.append(BreakdownRow(name, float(clean[0]), bounds[0], float(corrupted[0]), bounds[1]))
    return lines


def class_breakdown(
    store: Store, run: Run, severities: Sequence[int] = SEVERITIES
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the clean score and the mean over the corrupted cells of every class.

    Args:
        store: The results store.
        run: The run.
        severities: Severities that the corrupted mean covers.

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
        store, run.name, (CLEAN, *corrupted_places(severities)), 1, compute=columns
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
    """Return the breakdown of a run as lines for a terminal, in percent.

    Args:
        store: The results store.
        run: The run.
        severities: Severities that the corrupted mean covers.
        classes: Number of classes to list, those with the largest loss first.

    Raises:
        MissingCellsError: If a cell is missing.
    """
    measurements = store.measurements(run.name)
    lines = []
    for metric in sorted({one.metric for one in measurements}):
        numbers = robustness([one for one in measurements if one.metric == metric], severities)
        name, part = worst_corruption(numbers)
        lines.append(
            f"{metric}: worst corruption {name}, {100 * part.mpc:.1f} of {100 * numbers.clean:.1f}"
        )
    for line in breakdown(store, run.name, severities):
        lines.append(
            f"{line.name}: clean {_percent(line.clean, line.clean_interval)}, "
            f"corrupted {_percent(line.corrupted, line.corrupted_interval)}"
        )
    for metric, scores in class_breakdown(store, run, severities).items():
        lost = sorted(
            (clean - corrupted, name)
            for name, (clean, corrupted) in scores.items()
            if np.isfinite(clean - corrupted)
        )
        worst = ", ".join(
            f"{name} {100 * scores[name][0]:.1f} to {100 * scores[name][1]:.1f}"
            for _, name in lost[::-1][:classes]
        )
        lines.append(f"{metric} by class, largest loss first: {worst}")
    return lines


def _percent(value: float, bounds: Bounds) -> str:
    return f"{100 * value:.1f} [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"
