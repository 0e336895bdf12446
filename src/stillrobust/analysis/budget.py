"""Estimates of mPC from part of the cells and images, with an interval.

Cells and images are evaluated in fixed orders. Two rules estimate mPC, both linear in the scores:

- mIoU at severity 3: coefficients from 76 published segmentation models (``budget_table.json``,
  made by ``benchmarks/budget.py``). The cell order is the most informative one for left-out
  architectures.
- Everything else: the cells are a stratified sample without replacement (Cochran 1977, ch. 5). The
  severities are the strata, each with its own random permutation of the corruptions.

An :class:`Estimate` is a separate type, so tables of full results cannot include it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from stillrobust.analysis.intervals import (
    INDEPENDENT,
    LEVEL,
    SCORE_RANGE,
    UNBOUNDED,
    interval,
    student_quantile,
)
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, COMMON, SEVERITIES, Place, corrupted_places
from stillrobust.samples import Array

LEARNED = ("miou", (3,))  # metric and severities of the table


@dataclass(frozen=True)
class BudgetEstimate:
    """mPC of one run in one metric, estimated from part of its cells, 0..1."""

    metric: str
    severities: tuple[int, ...]
    value: float
    low: float
    high: float
    cells: int
    """Number of cells used, the clean one included."""
    total_cells: int
    """Number of cells of a full evaluation."""


def cell_order(metric: str, severities: Sequence[int] = SEVERITIES) -> tuple[Place, ...]:
    """Return all cells in evaluation order, the clean one first.

    Args:
        metric: Metric that mPC is estimated in.
        severities: Severities that mPC covers.

    Raises:
        UserError: If a severity is invalid.
    """
    if not severities or not set(severities) <= set(SEVERITIES):
        raise UserError(
            f"Expected severities from 1 to 5, but got {tuple(severities)}: give for example 1,3,5"
        )
    levels = tuple(sorted(set(severities)))
    if (metric, levels) == LEARNED:
        return (CLEAN, *((corruption, 3) for corruption in _table()["order"]))
    return (CLEAN, *_latin_order(levels))


def _latin_order(severities: Sequence[int]) -> list[Place]:
    """Return one cell of each severity per round, with a shifted permutation of the corruptions.

    Every prefix covers the severities evenly. At five severities, the first 15 cells cover every
    corruption once.
    """
    # a hash gives the same permutation on every machine
    corruptions = sorted(
        COMMON, key=lambda name: hashlib.sha256(f"budget {name}".encode()).digest()
    )
    shift = len(COMMON) // len(severities)
    return [
        (corruptions[(turn + place * shift) % len(COMMON)], severity)
        for turn in range(len(COMMON))
        for place, severity in enumerate(severities)
    ]


def image_order(total: int) -> list[int]:
    """Return the positions 0..total-1 of a dataset's images in evaluation order.

    Every prefix is spread over the dataset, because class folders are sorted: halves take turns, so
    do their halves, and so on (van der Corput 1935). A hash decides which half begins, so that a
    periodic dataset is not sampled in one phase (scrambling, Owen 1995).
    """

    def interleave(begin: int, end: int) -> list[int]:
        if end - begin < 2:
            return list(range(begin, end))
        middle = (begin + end) // 2
        # the second is as long as the first, or longer by one
        halves = interleave(begin, middle), interleave(middle, end)
        first = (
            1
            if (end - begin) % 2
            else hashlib.sha256(f"budget images {begin} {end}".encode()).digest()[0] % 2
        )
        merged = [0] * (end - begin)
        merged[::2], merged[1::2] = halves[first], halves[1 - first]
        return merged

    return interleave(0, total)


def estimate_mpc(
    clean: float,
    measured: Mapping[Place, float],
    metric: str,
    severities: Sequence[int] = SEVERITIES,
    replicates: Mapping[Place, Array] | None = None,
    freedom: float = INDEPENDENT,
) -> BudgetEstimate:
    """Estimate mPC from the first cells of :func:`cell_order`.

    Args:
        clean: Score on the clean data, 0..1.
        measured: Scores by cell. Cells after the first missing one are not used.
        metric: Metric of the scores.
        severities: Severities that mPC covers.
        replicates: Bootstrap replicates (R,) of the clean and every measured cell, paired. They add
            the uncertainty from the images; without them the interval is for these images.
        freedom: Degrees of freedom of the groups of images; see ``Grouping.freedom``.

    Raises:
        UserError: If the cells are too few, or complete.
    """
    order = cell_order(metric, severities)[1:]
    count = next((index for index, place in enumerate(order) if place not in measured), len(order))
    places = order[:count]
    if count == len(order):
        raise UserError(
            "All cells are available: compute the robustness itself instead of an estimate"
        )
    levels = tuple(sorted(set(severities)))
    rule = _regression_rule if (metric, levels) == LEARNED else _sampling_rule
    intercept, weights, reach = rule(places, [measured[place] for place in places], levels)
    value = intercept + float(np.dot(weights, [clean, *(measured[place] for place in places)]))
    low, high = value - reach, value + reach
    if replicates is not None:
        values = intercept + np.dot(
            weights, np.stack([replicates[place] for place in (CLEAN, *places)])
        )
        image_low, image_high = interval(values, value, UNBOUNDED, freedom=freedom)
        # two independent sources of error
        wide = float(np.hypot(reach, (image_high - image_low) / 2))
        low, high = (image_low + image_high) / 2 - wide, (image_low + image_high) / 2 + wide
    low, high = max(low, SCORE_RANGE[0]), min(high, SCORE_RANGE[1])
    return BudgetEstimate(
        metric, levels, value, low, high, len(places) + 1, len(corrupted_places(levels)) + 1
    )


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(
        (files("stillrobust.analysis") / "budget_table.json").read_text(encoding="utf-8")
    )
    return table


def _regression_rule(
    places: Sequence[Place], values: Sequence[float], severities: Sequence[int]
) -> tuple[float, Array, float]:
    """Return intercept, weights of clean and cells, and half the interval, from the table."""
    if not places:
        raise UserError(
            f"Expected at least the cell {' '.join(map(str, cell_order(*LEARNED)[1]))} to estimate"
            " from; evaluate it"
        )
    rule = _table()["rules"][len(places) - 1]
    return rule["intercept"], np.array(rule["weights"]), rule["reach"]


def _sampling_rule(
    places: Sequence[Place], values: Sequence[float], severities: Sequence[int]
) -> tuple[float, Array, float]:
    """Return the same for stratified sampling: the mean of the severities' means."""
    strata = [
        np.array([v for (_, at), v in zip(places, values, strict=True) if at == severity])
        for severity in severities
    ]
    if min(map(len, strata)) < 2:
        raise UserError(
            "Expected at least two cells of every severity to estimate from, that is"
            f" {2 * len(severities)} and the clean one, but got {len(places)} in budget order;"
            " evaluate more"
        )
    sizes = np.array([len(stratum) for stratum in strata])
    variances = np.array([stratum.var(ddof=1) for stratum in strata])
    variance = float((variances / sizes * (1 - sizes / len(COMMON))).sum()) / len(strata) ** 2
    share = {
        severity: 1 / (size * len(strata)) for severity, size in zip(severities, sizes, strict=True)
    }
    weights = np.array([0.0, *(share[severity] for _, severity in places)])
    return 0.0, weights, student_quantile((1 + LEVEL) / 2, int((sizes - 1).sum())) * variance**0.5
