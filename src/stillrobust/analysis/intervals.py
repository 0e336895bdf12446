"""How sure a number is: paired half-sample bootstrap over images, intervals, groups not to be told
apart, spread over seeds.

A resample is a random half of the images (McCarthy 1969; Shao & Tu 1995, sec. 5.2). It varies
around the whole set's number as much as that does around the truth, and it holds no image twice, as
no set does: average precision takes a copy for a second find.
Paired: the resampling depends on the images' ids alone, so that every run and every cell over the
same images is re-weighted in the same way, and what is common to two numbers cancels in their
difference (Efron & Tibshirani 1993, ch. 6 and 13). ``docs/statistics.md`` has the formulas and how
often the intervals hold the truth.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from stillrobust.errors import UserError
from stillrobust.samples import Array

LEVEL = 0.95
# of Student's t: a deviation that hangs on rare classes is itself not sure; chosen by measured
# coverage
FREEDOM = 30
REPLICATES = 400  # a standard deviation good to 1 / sqrt(2 * 400) = 3.5 % of itself


def bootstrap_weights(
    image_ids: Sequence[str] | Array, replicates: int = REPLICATES, seed: int = 0
) -> Array:
    """Which images each half of the set holds: int64 (R, N) of 0 and 1; of an odd set the halves
    are short and long in turn.

    An image's weights depend on the set of ids and not on their order.
    """
    ids = [str(image_id) for image_id in image_ids]
    if not ids:
        raise UserError("Expected images to resample, but there are none; check the dataset")
    order = np.argsort(np.array(ids), kind="stable")
    digest = hashlib.sha256("\n".join([str(seed), *sorted(ids)]).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    sizes = (len(ids) + np.arange(replicates) % 2) // 2
    drawn = rng.permuted((np.arange(len(ids)) < sizes[:, None]).astype(np.int64), axis=1)
    weights = np.empty_like(drawn)
    weights[:, order] = drawn
    return weights


def interval(values: Array, estimate: float, level: float = LEVEL) -> tuple[float, float]:
    """The interval around ``estimate``, the number of the set itself, from its bootstrap replicates
    ``values`` (R,).

    Student's, and corrected for the bias that the replicates show (Davison & Hinkley 1997, eq.
    5.5): small sets raise AP and move mIoU, and a half of the set is by about as much further off
    as the set is from the truth. NaN replicates (nothing to measure in the draw) are left out; NaN
    where fewer than two are left.
    """
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan"), float("nan")
    centre = 2 * estimate - float(values.mean())
    reach = student_quantile((1 + level) / 2, FREEDOM) * float(values.std(ddof=1))
    return centre - reach, centre + reach


def robustness_replicates(clean: Array, cells: Array) -> dict[str, Array]:
    """P, mPC, rPC and drop in each replicate, from ``clean`` (R,) and the corrupted cells' values
    (K, R).
    """
    mpc = np.asarray(cells).mean(axis=0)
    rpc = np.divide(mpc, clean, out=np.full_like(mpc, np.nan), where=np.asarray(clean) > 0)
    return {"P": np.asarray(clean), "mPC": mpc, "rPC": rpc, "drop": 1 - rpc}


def simultaneous_intervals(
    estimates: Sequence[float] | Array, values: Array, level: float = LEVEL
) -> Array:
    """Intervals (K, 2) around ``estimates`` (K,) that hold all together with chance ``level``;
    ``values`` (K, R) are replicates.

    As :func:`interval`, but the reach is the quantile of the largest standardised deviation of a
    replicate, so that all of them together leave out a true value with a chance of ``1 - level``
    (single-step max-t, Westfall & Young 1993, ch. 2; Romano & Wolf 2005).
    """
    means = values.mean(1)
    deviations = np.maximum(values.std(1, ddof=1), 1e-12)  # equal numbers: nothing between them
    largest = np.abs((values - means[:, None]) / deviations[:, None]).max(0)
    # as a single interval
    longer = student_quantile((1 + level) / 2, FREEDOM) / NormalDist().inv_cdf((1 + level) / 2)
    centre, reach = (
        2 * np.asarray(estimates, float) - means,
        longer * np.quantile(largest, level) * deviations,
    )
    return np.stack([centre - reach, centre + reach], 1)


def rank_groups(
    estimates: Sequence[float] | Array, values: Sequence[Array] | Array, level: float = LEVEL
) -> list[str]:
    """Letters for runs in the order given: two that share a letter are not distinguishable.

    ``values`` (runs, R) are paired.

    Every pair is compared, all together by :func:`simultaneous_intervals`. Letters run from the
    lowest estimate; they are the maximal groups of a compact letter display (Piepho 2004).
    """
    numbers, replicates = np.asarray(estimates, float), np.asarray(values, float)
    order = np.argsort(numbers, kind="stable")
    firsts, seconds = np.triu_indices(len(order), 1)
    if not len(firsts):
        return ["a"] * len(order)
    differences = replicates[order[seconds]] - replicates[order[firsts]]
    low, high = simultaneous_intervals(
        numbers[order[seconds]] - numbers[order[firsts]], differences, level
    ).T
    apart = (low > 0) | (high < 0)
    alike = np.ones((len(order), len(order)), bool)
    alike[firsts[apart], seconds[apart]] = alike[seconds[apart], firsts[apart]] = False
    letters = [""] * len(order)
    for index, group in enumerate(_maximal_groups(alike)):
        for place in group:
            letters[order[place]] += _letter(index)
    return letters


def _maximal_groups(alike: Array) -> list[list[int]]:
    """The largest sets in which everyone is alike, by insertion and absorption (Piepho 2004)."""
    groups: list[set[int]] = [set(range(len(alike)))]
    for first, second in zip(*np.nonzero(np.triu(~alike)), strict=True):
        split = [
            group - {one} for group in groups if {first, second} <= group for one in (first, second)
        ]
        groups = [group for group in groups if not {first, second} <= group]
        for group in split:
            if not any(group <= other for other in groups):
                groups.append(group)
    return sorted(sorted(int(place) for place in group) for group in groups)


def _letter(index: int) -> str:
    """a ... z, then a1 ... z1, and so on."""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")


@dataclass(frozen=True)
class SeedMean:
    """A number of runs that differ in their seed alone."""

    mean: float
    deviation: float
    """Standard deviation over the seeds."""
    low: float
    high: float
    """Interval for the mean over all seeds and images that could have been."""
    seeds: int


def mean_over_seeds(
    estimates: Sequence[float] | Array, values: Sequence[Array] | Array, level: float = LEVEL
) -> SeedMean:
    """Seeds and images together: ``values`` (seeds, R) are paired replicates of ``estimates``
    (seeds,).

    Variance of the mean = s² / S over the seeds + the bootstrap variance of the mean over images;
    what seed and image do together is in both, which errs to the wide side (crossed random effects,
    Owen 2007). Student's t, since S is small, with (S - 1) * total / seeds' variance degrees of
    freedom: Satterthwaite (1946) squares that ratio, but S numbers alone tell it, and with its
    square 88 to 93 % of the intervals hold the truth for two and three seeds.
    """
    numbers, replicates = np.asarray(estimates, float), np.asarray(values, float).mean(0)
    if len(numbers) < 2:
        raise UserError(
            f"Expected runs of at least two seeds to speak of their spread, but got {len(numbers)};"
            " train with another seed"
        )
    of_seeds, of_images = float(numbers.var(ddof=1)) / len(numbers), float(replicates.var(ddof=1))
    total = of_seeds + of_images
    freedom = (len(numbers) - 1) * total / of_seeds if of_seeds > 0 else np.inf
    reach = student_quantile((1 + level) / 2, min(freedom, 1e4)) * total**0.5
    centre = 2 * float(numbers.mean()) - float(replicates.mean())
    return SeedMean(
        float(numbers.mean()),
        float(numbers.std(ddof=1)),
        centre - reach,
        centre + reach,
        len(numbers),
    )


@lru_cache(maxsize=256)
def student_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t: with t = sqrt(f) tan(a) its density in a is proportional to
    cos(a)^(f - 1).
    """
    angle = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
    density = np.cos(angle[:-1] + np.diff(angle) / 2) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum(density)])
    return float(np.sqrt(freedom) * np.tan(np.interp(probability, below / below[-1], angle)))
