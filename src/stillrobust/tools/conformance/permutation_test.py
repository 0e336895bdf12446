"""A permutation test of whether two sets of random images come from one distribution.

Each image is described by a few features. The test calibrates itself: images of stillrobust with
other seeds show how far the features scatter. It is exact: if the distributions are the same, it
errs once in ``RELABELINGS + 1`` cases.
"""

from collections.abc import Sequence

import numpy as np

from stillrobust.samples import Array, Image

BINS = 16  # of 16 grey levels each
# pixels: they capture the deviation's structure from grain to clouds
LAGS = (1, 4, 16)
RELABELINGS = 999


def roughness(deviation: Array, axis: int, lag: int) -> float:
    """log(1 + mean squared difference) of a deviation (H, W, 3) and itself ``lag`` pixels away."""
    size = deviation.shape[axis]
    ahead, behind = (
        np.take(deviation, range(lag, size), axis),
        np.take(deviation, range(size - lag), axis),
    )
    return float(np.log1p(((ahead - behind) ** 2).mean()))


def image_features(outs: Sequence[Image], clean: Image, flat: Array) -> Array:
    """Describe all corrupted versions of one image, of both sides together.

    The features are: the mean change per channel; the standard deviation and mean size of the
    change; the standard deviation of the deviation from the mean of all versions, and its
    :func:`roughness` over each of ``LAGS``, down and across; a histogram of the flat patches.

    Args:
        outs: uint8 (H, W, 3) each.
        clean: The image itself.
        flat: bool (H, W), the flat patches.

    Returns:
        float64 (N, F).
    """
    # randomness shows against the mean; against the clean image, blur and haze would hide it
    middle = np.mean(outs, axis=0)
    return np.array([_features_of(out, clean, middle, flat) for out in outs])


def _features_of(out: Image, clean: Image, middle: Array, flat: Array) -> Array:
    change, deviation = out.astype(np.float64) - clean, out - middle
    moments = [*change.mean(axis=(0, 1)), change.std(), np.abs(change).mean(), deviation.std()]
    spectrum = [roughness(deviation, axis, lag) for axis in (0, 1) for lag in LAGS]
    histogram = np.bincount(out[flat].reshape(-1) // (256 // BINS), minlength=BINS) / (
        3 * flat.sum()
    )
    return np.array([*moments, *spectrum, *histogram])


def p_value(theirs: Array, ours: Array) -> float:
    """Return the share of relabelings in which the two sides are at least as far apart.

    Each feature is standardised over both sides. Its distance from the median is added as a
    feature, so that a different spread is found too. The distance between the sides is the largest
    difference of means, in one setting or over all of them.

    Args:
        theirs: float64 (n, S, F): n seeds, S settings (image and severity), F features.
        ours: float64 (m, S, F).
    """
    pool = np.concatenate([theirs, ours])
    pool = np.concatenate([pool, np.abs(pool - np.median(pool, axis=0))], axis=2)
    scale = pool.std(axis=0)
    pool = (pool - pool.mean(axis=0)) / np.where(scale > 0, scale, 1)
    rng = np.random.RandomState(0)  # a fixed seed, so that the verdict is reproducible
    orders = [np.arange(len(pool)), *(rng.permutation(len(pool)) for _ in range(RELABELINGS))]
    distances = [_distance(pool, order[: len(theirs)]) for order in orders]
    return float(np.mean(np.array(distances) >= distances[0] * (1 - 1e-12)))


def _distance(pool: Array, chosen: Array) -> float:
    """Distance between the chosen seeds and the others.

    The pool's mean is 0, so the mean of the chosen seeds is enough.
    """
    means = pool[chosen].mean(axis=0)
    # settings are independent: this has the scale of a single setting
    over_all = means.mean(axis=0) * np.sqrt(len(means))
    return float(max(np.abs(means).max(), np.abs(over_all).max()))
