"""Do two sets of random images come from one distribution? Numbers of each image, compared by a
permutation test.

The test calibrates itself: our own images, with other seeds, say how far the numbers scatter. It is
exact: with the same distribution on both sides, it errs once in ``RELABELINGS + 1`` cases.
"""

from collections.abc import Sequence

import numpy as np

from stillrobust.samples import Array, Image

BINS = 16  # of 16 grey levels each
# pixels: together with the deviation's size, its autocorrelation from grain to cloud
LAGS = (1, 4, 16)
RELABELINGS = 999


def roughness(deviation: Array, axis: int, lag: int) -> float:
    """log(1 + mean squared difference) of a deviation (H, W, 3) and itself ``lag`` pixels further
    along ``axis``.
    """
    size = deviation.shape[axis]
    ahead, behind = (
        np.take(deviation, range(lag, size), axis),
        np.take(deviation, range(size - lag), axis),
    )
    return float(np.log1p(((ahead - behind) ** 2).mean()))


def describe(outs: Sequence[Image], clean: Image, flat: Array) -> Array:
    """The numbers of all corrupted versions of one image, both sides' together: float64 (N, F).

    ``flat``: bool (H, W), the flat patches. Of each version: the mean change per channel, the
    standard deviation and mean size of the change (grey levels); the standard deviation of its
    deviation from the mean of all versions, and that deviation's :func:`roughness` over each of
    ``LAGS``, down and across; the shares of a histogram of the flat patches.
    """
    # what is random shows against it; against the clean image, blur and haze would hide it
    middle = np.mean(outs, axis=0)
    return np.array([_describe_one(out, clean, middle, flat) for out in outs])


def _describe_one(out: Image, clean: Image, middle: Array, flat: Array) -> Array:
    change, deviation = out.astype(np.float64) - clean, out - middle
    moments = [*change.mean(axis=(0, 1)), change.std(), np.abs(change).mean(), deviation.std()]
    spectrum = [roughness(deviation, axis, lag) for axis in (0, 1) for lag in LAGS]
    histogram = np.bincount(out[flat].reshape(-1) // (256 // BINS), minlength=BINS) / (
        3 * flat.sum()
    )
    return np.array([*moments, *spectrum, *histogram])


def p_value(theirs: Array, ours: Array) -> float:
    """The share of relabelings in which the two sides are at least as far apart as they are.

    theirs: float64 (n, S, F), ours: float64 (m, S, F): n and m seeds, S settings (image and
    severity), F numbers. Every number is standardised over both sides; its distance from the median
    joins it, so that another spread is seen too. The distance between the sides is the largest
    difference of means, in any one setting or over all of them.
    """
    pool = np.concatenate([theirs, ours])
    pool = np.concatenate([pool, np.abs(pool - np.median(pool, axis=0))], axis=2)
    scale = pool.std(axis=0)
    pool = (pool - pool.mean(axis=0)) / np.where(scale > 0, scale, 1)
    rng = np.random.RandomState(0)  # of the test alone: the verdict is the same every time
    orders = [np.arange(len(pool)), *(rng.permutation(len(pool)) for _ in range(RELABELINGS))]
    distances = [_distance(pool, order[: len(theirs)]) for order in orders]
    return float(np.mean(np.array(distances) >= distances[0] * (1 - 1e-12)))


def _distance(pool: Array, chosen: Array) -> float:
    """Between the chosen seeds and the others.

    The pool's mean is 0, so that the chosen ones' mean says it alone.
    """
    means = pool[chosen].mean(axis=0)
    # as settings are independent, on one scale with a single setting's
    over_all = means.mean(axis=0) * np.sqrt(len(means))
    return float(max(np.abs(means).max(), np.abs(over_all).max()))
