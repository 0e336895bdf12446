"""mPC from part of its cells and images: fixed orders to measure them in, and an estimate with an
honest interval.

Two rules, both linear in the scores. For mIoU at severity 3 the coefficients come from 76 published
segmentation models (``budget_table.json``, made by ``benchmarks/budget.py``); cells are in the
order that told most of left-out architectures. For every other metric and set of severities nothing
published is wide enough to learn from, and the cells are a sample: the severities are strata, each
with its own random permutation of the corruptions, and the interval is that of stratified sampling
without replacement (Cochran 1977, ch. 5). An :class:`Estimate` is a type of its own, which no table
of full numbers takes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from stillrobust.analysis.intervals import LEVEL, interval, student_quantile
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, COMMON, SEVERITIES, Place, corrupted_places
from stillrobust.samples import Array

LEARNED = ("miou", (3,))  # what the table is about


@dataclass(frozen=True)
class Estimate:
    """mPC of one run in one metric, estimated from part of its cells; not comparable with a full
    one without its interval.
    """

    metric: str
    severities: tuple[int, ...]
    value: float
    low: float
    high: float
    cells: int
    """How many cells it rests on, the clean one included."""
    of: int
    """How many a full measurement has."""


def cell_order(metric: str, severities: Sequence[int] = SEVERITIES) -> tuple[Place, ...]:
    """All cells in the order to measure them, the clean one first.

    Raises ``UserError`` for severities that are none.
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
    """Round by round one cell of each severity; the corruptions' permutation is shifted from
    severity to severity.

    So every first part holds the severities evenly, and the first 15 cells at five severities hold
    every corruption once.
    """
    # the same everywhere
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
    """The positions 0..total-1 of a set's images in the order to measure them: the first n are
    among the first m > n.

    Any first part is spread over the set, so that class folders, which are sorted, are each drawn
    from: halves take turns, so do their halves, and so on (van der Corput 1935). Which half begins
    is told by a hash, so that a set with a period, such as classes in turn, is not met always in
    the same phase (scrambled, Owen 1995).
    """

    def ordered(begin: int, end: int) -> list[int]:
        if end - begin < 2:
            return list(range(begin, end))
        middle = (begin + end) // 2
        # the second is never shorter, and by one at most longer
        halves = ordered(begin, middle), ordered(middle, end)
        first = (
            1
            if (end - begin) % 2
            else hashlib.sha256(f"budget images {begin} {end}".encode()).digest()[0] % 2
        )
        merged = [0] * (end - begin)
        merged[::2], merged[1::2] = halves[first], halves[1 - first]
        return merged

    return ordered(0, total)


def estimate_mpc(
    clean: float,
    measured: Mapping[Place, float],
    metric: str,
    severities: Sequence[int] = SEVERITIES,
    replicates: Mapping[Place, Array] | None = None,
) -> Estimate:
    """mPC from the ``clean`` score and the cells ``measured``, which must begin :func:`cell_order`;
    cells beyond are not used.

    ``replicates``, of the clean and of every measured cell in the same resamples of the images
    (R,), add what the images leave open; without them the interval is for these images. Raises
    ``UserError`` where the cells are too few or all there.
    """
    order = cell_order(metric, severities)[1:]
    count = next((index for index, place in enumerate(order) if place not in measured), len(order))
    places = order[:count]
    if count == len(order):
        raise UserError(
            "All cells are measured: compute the robustness itself, which needs no estimate"
        )
    levels = tuple(sorted(set(severities)))
    rule = _learned if (metric, levels) == LEARNED else _sampled
    intercept, weights, reach = rule(places, [measured[place] for place in places], levels)
    value = intercept + float(np.dot(weights, [clean, *(measured[place] for place in places)]))
    low, high = value - reach, value + reach
    if replicates is not None:
        values = intercept + np.dot(
            weights, np.stack([replicates[place] for place in (CLEAN, *places)])
        )
        image_low, image_high = interval(values, value)
        # two independent sources of error
        wide = float(np.hypot(reach, (image_high - image_low) / 2))
        low, high = (image_low + image_high) / 2 - wide, (image_low + image_high) / 2 + wide
    return Estimate(
        metric, levels, value, low, high, len(places) + 1, len(corrupted_places(levels)) + 1
    )


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(
        (files("stillrobust.analysis") / "budget_table.json").read_text(encoding="utf-8")
    )
    return table


def _learned(
    places: Sequence[Place], values: Sequence[float], severities: Sequence[int]
) -> tuple[float, Array, float]:
    """Intercept, weights of clean and cells, and half of the interval, from the models of the
    table.
    """
    if not places:
        raise UserError(
            f"Expected at least the cell {' '.join(map(str, cell_order(*LEARNED)[1]))} to estimate"
            " from; measure it"
        )
    rule = _table()["rules"][len(places) - 1]
    return rule["intercept"], np.array(rule["weights"]), rule["reach"]


def _sampled(
    places: Sequence[Place], values: Sequence[float], severities: Sequence[int]
) -> tuple[float, Array, float]:
    """The same of stratified sampling: the mean of the severities' means."""
    strata = [
        np.array([v for (_, at), v in zip(places, values, strict=True) if at == severity])
        for severity in severities
    ]
    if min(map(len, strata)) < 2:
        raise UserError(
            "Expected at least two cells of every severity to estimate from, that is"
            f" {2 * len(severities)} and the clean one, but {len(places)} are there in the order of"
            " the budget; measure more"
        )
    sizes = np.array([len(stratum) for stratum in strata])
    variances = np.array([stratum.var(ddof=1) for stratum in strata])
    variance = float((variances / sizes * (1 - sizes / len(COMMON))).sum()) / len(strata) ** 2
    share = {
        severity: 1 / (size * len(strata)) for severity, size in zip(severities, sizes, strict=True)
    }
    weights = np.array([0.0, *(share[severity] for _, severity in places)])
    return 0.0, weights, student_quantile((1 + LEVEL) / 2, int((sizes - 1).sum())) * variance**0.5
