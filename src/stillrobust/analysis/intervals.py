"""Confidence intervals: paired half-sample bootstrap over images or groups of images, groups of
runs, seeds.

A resample is a random half of the images (McCarthy 1969; Shao & Tu 1995, sec. 5.2). Its score
varies around that of the whole dataset as much as the latter varies around the truth. It has no
image twice: average precision would count a copy as a second detection.

Resamples depend on the image ids only. All runs and cells over the same images are therefore
paired, and what two scores have in common cancels in their difference (Efron & Tibshirani 1993,
ch. 6 and 13). ``docs/explanation/statistics.md`` has the formulas and the measured coverage.
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
# degrees of freedom of Student's t: deviations that depend on rare classes are uncertain; chosen by
# measured coverage
FREEDOM = 30
INDEPENDENT = float("inf")  # freedom of images that are independent of each other
REPLICATES = 400  # relative error of a standard deviation: 1 / sqrt(2 * 400) = 3.5 %

Range = tuple[float, float]
SCORE_RANGE: Range = (0.0, 1.0)
"""Of P, mPC and every other score."""
RATIO_RANGE: Range = (0.0, float("inf"))
"""Of rPC, which exceeds 1 if the corrupted score exceeds the clean one."""
DROP_RANGE: Range = (-float("inf"), 1.0)
"""Of a drop, which is 1 - rPC."""
UNBOUNDED: Range = (-float("inf"), float("inf"))


def bootstrap_weights(
    image_ids: Sequence[str] | Array,
    replicates: int = REPLICATES,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Array:
    """Return the resamples as weights of the images.

    Args:
        image_ids: Ids of N images. Weights depend on the set of ids and not on their order.
        replicates: Number R of resamples.
        seed: Seed of the resampling.
        groups: The group of each image (default: every image stands for itself). A resample is
            then half of the groups, with all their images.

    Returns:
        int64 (R, N) of 0 and 1. For odd N, halves are rounded down and up in turn.

    Raises:
        UserError: If there are no images.
    """
    if groups is not None:
        names, members = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)
        return np.asarray(bootstrap_weights(names, replicates, seed)[:, members])
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


def interval(
    values: Array,
    estimate: float,
    within: Range,
    level: float = LEVEL,
    freedom: float = INDEPENDENT,
) -> tuple[float, float]:
    """Return the bias-corrected Student interval of an estimate (Davison & Hinkley 1997, eq. 5.5).

    Small datasets raise AP and shift mIoU. A half of the dataset is further off by about as much as
    the dataset is from the truth, which corrects the bias.

    Args:
        values: Bootstrap replicates (R,). NaN replicates are left out.
        estimate: The value on the whole dataset.
        within: Possible values, such as ``SCORE_RANGE``; the bounds are clipped to them.
        level: Confidence level.
        freedom: Degrees of freedom of the groups of images; see ``Grouping.freedom``.

    Returns:
        Lower and upper bound; NaN if fewer than two replicates are left.
    """
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan"), float("nan")
    centre = 2 * estimate - float(values.mean())
    reach = _quantile(level, freedom) * float(values.std(ddof=1))
    low, high = (min(max(end, within[0]), within[1]) for end in (centre - reach, centre + reach))
    return low, high


def paired_interval(
    values: Array, estimate: float, level: float = LEVEL, freedom: float = INDEPENDENT
) -> tuple[float, float]:
    """Return the interval of a paired difference of two runs.

    Most of the bias cancels in a difference. Where classes are rare, correcting all of the
    estimated bias adds more variance than bias it removes. Half of it is corrected, and the other
    half is added to the standard deviation, in squares. Without bias this is :func:`interval`.

    Args:
        values: Bootstrap replicates of the difference (R,). NaN replicates are left out.
        estimate: The difference on the whole dataset.
        level: Confidence level.
        freedom: Degrees of freedom of the groups of images; see ``Grouping.freedom``.

    Returns:
        Lower and upper bound; NaN if fewer than two replicates are left.
    """
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan"), float("nan")
    centre, deviation = _difference_moments(values, estimate)
    reach = _quantile(level, freedom) * deviation
    return float(centre - reach), float(centre + reach)


def _quantile(level: float, freedom: float) -> float:
    """Student's quantile of a two-sided interval."""
    return student_quantile((1 + level) / 2, min(FREEDOM, freedom))


def _difference_moments(values: Array, estimate: float | Array) -> tuple[Array, Array]:
    """Centre and deviation of the intervals of differences (...) from replicates (..., R)."""
    half_bias = (values.mean(-1) - estimate) / 2
    return estimate - half_bias, np.hypot(values.std(-1, ddof=1), half_bias)


def robustness_replicates(clean: Array, cells: Array) -> dict[str, Array]:
    """Return P, mPC, rPC and drop of each replicate.

    Args:
        clean: Scores on the clean data (R,).
        cells: Scores of the corrupted cells (K, R), paired.

    Returns:
        Arrays (R,) by name.
    """
    mpc = np.asarray(cells).mean(axis=0)
    rpc = np.divide(mpc, clean, out=np.full_like(mpc, np.nan), where=np.asarray(clean) > 0)
    return {"P": np.asarray(clean), "mPC": mpc, "rPC": rpc, "drop": 1 - rpc}


def simultaneous_intervals(
    estimates: Sequence[float] | Array,
    values: Array,
    level: float = LEVEL,
    freedom: float = INDEPENDENT,
) -> Array:
    """Return intervals of differences that jointly cover all true ones with probability ``level``.

    As :func:`paired_interval`, but the half-width is the quantile of the largest standardised
    deviation of a replicate (single-step max-t, Westfall & Young 1993, ch. 2; Romano & Wolf 2005).

    Args:
        estimates: Differences on the whole dataset (K,).
        values: Bootstrap replicates (K, R), paired.
        level: Joint confidence level.
        freedom: Degrees of freedom of the groups of images; see ``Grouping.freedom``.

    Returns:
        Bounds (K, 2).
    """
    means = values.mean(1)
    deviations = np.maximum(values.std(1, ddof=1), 1e-12)  # of equal scores
    largest = np.abs((values - means[:, None]) / deviations[:, None]).max(0)
    # t instead of normal quantile, as in a single interval
    longer = _quantile(level, freedom) / NormalDist().inv_cdf((1 + level) / 2)
    centre, deviation = _difference_moments(values, np.asarray(estimates, float))
    reach = longer * np.quantile(largest, level) * deviation
    return np.stack([centre - reach, centre + reach], 1)


def rank_groups(
    estimates: Sequence[float] | Array,
    values: Sequence[Array] | Array,
    level: float = LEVEL,
    freedom: float = INDEPENDENT,
) -> list[str]:
    """Return letters for runs: two runs that share a letter are not distinguishable.

    All pairs are compared with :func:`simultaneous_intervals`. Letters are the maximal groups of a
    compact letter display (Piepho 2004), from the lowest estimate on.

    Args:
        estimates: Values on the whole dataset, one per run.
        values: Bootstrap replicates (runs, R), paired.
        level: Joint confidence level.
        freedom: Degrees of freedom of the groups of images; see ``Grouping.freedom``.

    Returns:
        Letters in the order of the runs.
    """
    numbers, replicates = np.asarray(estimates, float), np.asarray(values, float)
    order = np.argsort(numbers, kind="stable")
    firsts, seconds = np.triu_indices(len(order), 1)
    if not len(firsts):
        return ["a"] * len(order)
    differences = replicates[order[seconds]] - replicates[order[firsts]]
    low, high = simultaneous_intervals(
        numbers[order[seconds]] - numbers[order[firsts]], differences, level, freedom
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
    """Return the maximal sets of mutually alike runs, by insertion and absorption (Piepho 2004)."""
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
    """Return a ... z, then a1 ... z1, and so on."""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")


@dataclass(frozen=True)
class SeedMean:
    """Mean over runs that differ only in their seed."""

    mean: float
    deviation: float
    """Standard deviation over the seeds."""
    low: float
    high: float
    """Interval of the mean over the populations of seeds and images."""
    seeds: int


def mean_over_seeds(
    estimates: Sequence[float] | Array,
    values: Sequence[Array] | Array,
    level: float = LEVEL,
    freedom: float = INDEPENDENT,
) -> SeedMean:
    """Return the mean over seeds with an interval over seeds and images.

    The variance of the mean is s² / S over the seeds plus the bootstrap variance over images. Their
    interaction is in both terms, so the interval errs on the wide side (crossed random effects,
    Owen 2007). Student's t has (S - 1) * total / seed variance degrees of freedom. Satterthwaite
    (1946) squares that ratio, but it is estimated from S values, and with the square only 88 to
    93 % of the intervals cover the truth for two and three seeds. Few groups of images add their
    own uncertainty: (S - 1) * total / (seed variance + (S - 1) * image variance / groups' freedom).

    Args:
        estimates: Values on the whole dataset, one per seed.
        values: Bootstrap replicates (seeds, R), paired.
        level: Confidence level.
        freedom: Degrees of freedom of the groups of images; see ``Grouping.freedom``.

    Raises:
        UserError: If there are fewer than two seeds.
    """
    numbers, replicates = np.asarray(estimates, float), np.asarray(values, float).mean(0)
    if len(numbers) < 2:
        raise UserError(
            f"Expected runs of at least two seeds for their spread, but got {len(numbers)};"
            " train with another seed"
        )
    of_seeds, of_images = float(numbers.var(ddof=1)) / len(numbers), float(replicates.var(ddof=1))
    total = of_seeds + of_images
    several = len(numbers) - 1
    uncertain = of_seeds + several * of_images / freedom
    degrees = several * total / uncertain if uncertain > 0 else np.inf
    reach = student_quantile((1 + level) / 2, min(degrees, 1e4)) * total**0.5
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
    """Return a quantile of Student's t.

    With t = sqrt(f) tan(a), the density of a is proportional to cos(a)^(f - 1).

    Args:
        probability: Probability, 0..1.
        freedom: Degrees of freedom f.
    """
    angle = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
    density = np.cos(angle[:-1] + np.diff(angle) / 2) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum(density)])
    return float(np.sqrt(freedom) * np.tan(np.interp(probability, below / below[-1], angle)))
