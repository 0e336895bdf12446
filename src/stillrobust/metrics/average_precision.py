"""COCO average precision from stored matches, for any re-weighting of the images."""

from collections.abc import Mapping

import numba
import numpy as np

from stillrobust.metrics.matching import EVERY_THRESHOLD, SIZES, THRESHOLDS
from stillrobust.samples import Array

RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's recall grid


def average_precision(
    statistics: Mapping[str, Array], kind: str, weights: Array, size: str = "all"
) -> Array:
    """COCO AP .50:.05:.95, the mean over the classes that have objects.

    Args:
        statistics: As returned by ``AveragePrecision.statistics``.
        kind: ``"box"`` or ``"mask"``.
        weights: float64 (R, N), how often each image counts in each replicate.
        size: One of ``SIZES``.

    Returns:
        float64 (R,); NaN if there is no object.
    """
    by_class = class_average_precision(statistics, kind, weights, size)
    present = np.isfinite(by_class)
    count = present.sum(1)
    result: Array = np.where(
        count > 0, np.where(present, by_class, 0).sum(1) / np.maximum(count, 1), np.nan
    )
    return result


def class_average_precision(
    statistics: Mapping[str, Array], kind: str, weights: Array, size: str = "all"
) -> Array:
    """COCO AP .50:.05:.95 of each class.

    The rows of ``statistics`` are sorted by class and rank, so nothing is sorted here.

    Args:
        statistics: As returned by ``AveragePrecision.statistics``.
        kind: ``"box"`` or ``"mask"``.
        weights: float64 (R, N), how often each image counts in each replicate.
        size: One of ``SIZES``.

    Returns:
        float64 (R, C); NaN for a class without an object of that size.
    """
    place = SIZES.index(size)
    classes = np.arange(int(statistics["classes"]) + 1)
    in_range = (statistics["object_sizes"] >> place & 1).astype(bool)
    result: Array = _average_precision(
        statistics[f"{kind}_image"],
        np.searchsorted(statistics[f"{kind}_label"], classes),
        *_events(
            statistics[f"{kind}_matched"][:, place],
            statistics[f"{kind}_ignored"][:, place],
            np.searchsorted(statistics[f"{kind}_label"], classes),
            len(THRESHOLDS),
            EVERY_THRESHOLD,
        ),
        statistics["object_image"][in_range],
        np.searchsorted(statistics["object_label"][in_range], classes),
        np.ascontiguousarray(weights, np.float64),
        len(THRESHOLDS),
        RECALLS,
    )
    return result


@numba.njit(cache=True, nogil=True)
def _events(matched, ignored, first, threshold_count, every):  # type: ignore[no-untyped-def]
    """The rows that a threshold changes, computed once for all replicates.

    Most detections match nothing at any threshold. They are summed once for all thresholds
    (``base``: rows that are not ignored at every threshold). A threshold differs from that sum only
    in its events: the rows that are hits or ignored at this threshold.
    """
    base = ignored != every
    begins = np.zeros((len(first) - 1) * threshold_count + 1, np.int64)
    for fill in (False, True):
        if fill:
            rows, hits = np.empty(begins[-1], np.int32), np.empty(begins[-1], np.bool_)
        n = 0
        for c in range(len(first) - 1):
            for t in range(threshold_count):
                for d in range(first[c], first[c + 1]):
                    if base[d] and (matched[d] | ignored[d]) >> t & 1:
                        if fill:
                            rows[n], hits[n] = d, not ignored[d] >> t & 1
                        n += 1
                begins[c * threshold_count + t + 1] = n
    return base, begins, rows, hits


@numba.njit(cache=True, nogil=True)
def _average_precision(  # type: ignore[no-untyped-def]
    image,
    first,
    base,
    begins,
    rows,
    hits,
    object_image,
    object_first,
    weights,
    threshold_count,
    recalls,
):
    """AP for replicates × classes × thresholds.

    Precision only falls between two hits, so the hits alone define the envelope.
    """
    class_count = len(first) - 1
    result = np.full((len(weights), class_count), np.nan)
    summed = np.empty(len(image))
    precision, found = np.empty(len(rows)), np.empty(len(rows))
    for r in range(len(weights)):
        weight = weights[r]
        for c in range(class_count):
            objects = 0.0
            for o in range(object_first[c], object_first[c + 1]):
                objects += weight[object_image[o]]
            if objects <= 0:
                continue
            running = 0.0
            for d in range(first[c], first[c + 1]):
                if base[d]:
                    running += weight[image[d]]
                summed[d] = running
            total = 0.0
            for t in range(threshold_count):
                right, apart, n = 0.0, 0.0, 0
                for e in range(
                    begins[c * threshold_count + t], begins[c * threshold_count + t + 1]
                ):
                    w = weight[image[rows[e]]]
                    apart += w
                    if hits[e] and w > 0:
                        right += w
                        wrong = summed[rows[e]] - apart
                        found[n] = right / objects
                        # np.spacing(1), as in COCOeval
                        precision[n] = right / (right + wrong + 2.220446049250313e-16)
                        n += 1
                for k in range(n - 2, -1, -1):
                    precision[k] = max(precision[k], precision[k + 1])
                k = 0
                for recall in recalls:
                    while k < n and found[k] < recall:
                        k += 1
                    if k == n:
                        break
                    total += precision[k]
            result[r, c] = total / (threshold_count * len(recalls))
    return result
