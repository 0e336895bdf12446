"""How sure a number is: paired bootstrap over images, percentile intervals.

Paired: the resampling depends on the images' ids alone, so that every run and every cell over the same images is re-weighted
in the same way, and what is common to two numbers cancels in their difference (Efron & Tibshirani 1993, ch. 6 and 13).
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from stillrobust.errors import UserError

REPLICATES = 200  # enough for an interval's ends to be good to a few hundredths of its width


def bootstrap_weights(image_ids: Sequence[str] | np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """How often each image counts in each resampling of the set: int64 (R, N), rows sum to N.

    An image's weights depend on the set of ids and not on their order.
    """
    ids = [str(image_id) for image_id in image_ids]
    if not ids:
        raise UserError("Expected images to resample, but there are none; check the dataset")
    order = np.argsort(np.array(ids), kind="stable")
    digest = hashlib.sha256("\n".join([str(seed), *sorted(ids)]).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    drawn = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=replicates)
    weights = np.empty_like(drawn)
    weights[:, order] = drawn
    return weights


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap replicates; NaN replicates (nothing to measure in the draw) are left out."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def robustness_replicates(clean: np.ndarray, cells: np.ndarray) -> dict[str, np.ndarray]:
    """P, mPC, rPC and drop in each replicate, from ``clean`` (R,) and the corrupted cells' values (K, R)."""
    mpc = np.asarray(cells).mean(axis=0)
    rpc = np.divide(mpc, clean, out=np.full_like(mpc, np.nan), where=np.asarray(clean) > 0)
    return {"P": np.asarray(clean), "mPC": mpc, "rPC": rpc, "drop": 1 - rpc}
