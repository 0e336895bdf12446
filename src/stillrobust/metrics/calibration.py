"""Expected calibration error: how far confidence is from being right, for classes, pixels and
detections.

ECE = Σ_b n_b / n · |share right in b − mean confidence in b| over 15 bins of equal width (Guo et
al. 2017). What counts: an image and its most probable class; a pixel and its class, over the whole
set; a detection, right where it is matched at IoU .50, crowds left out (Küppers et al. 2020,
confidence alone).
"""

from collections.abc import Mapping

import numpy as np

from stillrobust.samples import Array

BINS = 15  # Guo et al. 2017


def bin_confidences(confidence: Array, right: Array) -> Array:
    """Of one image: float64 (3, BINS), how many, their summed confidence, how many of them right."""
    place = bin_indices(confidence)
    parts = (None, confidence.astype(np.float64), right.astype(np.float64))
    return np.stack([np.bincount(place, part, BINS) for part in parts]).astype(np.float64)


def bin_indices(confidence: Array) -> Array:
    """The bin of each confidence 0..1; a confidence of 1 is in the last."""
    result: Array = np.minimum(
        (np.asarray(confidence, np.float64) * BINS).astype(np.int64), BINS - 1
    )
    return result


def calibration_error(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
    """ECE (R,) under ``weights`` (R, N): ``ece``, or ``box_ece`` and ``mask_ece``; empty where no
    confidence was kept.
    """
    if "bins" in statistics:
        return {"ece": _of_bins(np.tensordot(np.asarray(weights, float), statistics["bins"], 1))}
    if "confidence" in statistics:
        image = np.arange(len(statistics["confidence"]))
        return {"ece": _of_rows(image, statistics["confidence"], statistics["correct"], weights)}
    found = {}
    for kind in ("box", "mask"):
        if f"{kind}_score" in statistics:
            counted = statistics[f"{kind}_ignored"][:, 0] & 1 == 0
            right = (statistics[f"{kind}_matched"][:, 0] & 1).astype(bool)
            rows = (
                statistics[f"{kind}_image"][counted],
                statistics[f"{kind}_score"][counted],
                right[counted],
            )
            found[f"{kind}_ece"] = _of_rows(*rows, weights)
    return found


def _of_rows(image: Array, confidence: Array, right: Array, weights: Array) -> Array:
    """ECE of rows that belong to images: summed by image and bin first."""
    weights = np.asarray(weights, float)
    place = image.astype(np.int64) * BINS + bin_indices(confidence)
    shape = (weights.shape[1], BINS)
    parts = (None, confidence.astype(np.float64), right.astype(np.float64))
    sums = [weights @ np.bincount(place, part, shape[0] * BINS).reshape(shape) for part in parts]
    return _of_bins(np.stack(sums, 1))


def _of_bins(sums: Array) -> Array:
    """(R, 3, BINS) sums -> (R,); NaN where nothing is counted."""
    count, confidence, right = sums[:, 0], sums[:, 1], sums[:, 2]
    total = count.sum(1)
    result: Array = np.where(
        total > 0, np.abs(right - confidence).sum(1) / np.maximum(total, 1), np.nan
    )
    return result
