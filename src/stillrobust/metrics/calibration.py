"""Expected calibration error (ECE): how far a model's confidence is from its accuracy.

ECE = Σ_b n_b / n · |accuracy in b − mean confidence in b| over 15 bins of equal width (Guo et al.
2017). Counted are: an image with its most probable class; a pixel with its class, over the whole
dataset; a detection, which is right if it is matched at IoU .50, without those in crowds (Küppers
et al. 2020, by confidence alone).
"""

import numpy as np

from stillrobust.samples import Array

BINS = 15  # Guo et al. 2017


def bin_confidences(confidence: Array, correct: Array) -> Array:
    """Sum the confidences of one image by bin.

    Args:
        confidence: (P,), 0 to 1.
        correct: bool (P,).

    Returns:
        float64 (3, BINS): count, sum of the confidences, number of correct ones.
    """
    bins = bin_indices(confidence)
    parts = (None, confidence.astype(np.float64), correct.astype(np.float64))
    return np.stack([np.bincount(bins, part, BINS) for part in parts]).astype(np.float64)


def bin_indices(confidence: Array) -> Array:
    """The bin of each confidence, int64 (P,); a confidence of 1 is in the last bin."""
    scaled = (np.asarray(confidence, np.float64) * BINS).astype(np.int64)
    result: Array = np.minimum(scaled, BINS - 1)
    return result


def ece_of_rows(image: Array, confidence: Array, correct: Array, weights: Array) -> Array:
    """ECE of single predictions.

    Args:
        image: int (P,), index of the image of each prediction.
        confidence: (P,), 0 to 1.
        correct: bool (P,).
        weights: float64 (R, N).

    Returns:
        float64 (R,); NaN if nothing counts.
    """
    place = image.astype(np.int64) * BINS + bin_indices(confidence)
    shape = (weights.shape[1], BINS)
    parts = (None, confidence.astype(np.float64), correct.astype(np.float64))
    sums = [weights @ np.bincount(place, part, shape[0] * BINS).reshape(shape) for part in parts]
    return ece_of_bins(np.stack(sums, 1))


def ece_of_bins(sums: Array) -> Array:
    """ECE from sums by bin, float64 (R, 3, BINS) as in ``bin_confidences`` -> (R,)."""
    count, confidence, correct = sums[:, 0], sums[:, 1], sums[:, 2]
    total = count.sum(1)
    error = np.abs(correct - confidence).sum(1) / np.maximum(total, 1)
    result: Array = np.where(total > 0, error, np.nan)
    return result
