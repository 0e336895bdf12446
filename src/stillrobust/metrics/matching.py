"""COCO's greedy matching of detections to objects, at ten IoU thresholds and in four size ranges.

The rules are those of pycocotools' ``COCOeval.evaluateImg``, and tests compare the numbers.
Detections are processed in the order of their scores. Each is matched to the free object of its
class with the largest overlap. A crowd can be matched many times. Crowds, objects outside the size
range, and detections matched to them do not count.

It is implemented and compiled here because every detection's matches are stored. Reading them back
from an evaluator takes a hundred times as long as the matching.
"""

import numba
import numpy as np

from stillrobust.samples import Array

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # COCO's IoU .50:.05:.95
MAX_DETECTIONS = 100  # per class and image, as in COCO
SIZES = ("all", "small", "medium", "large")
# Areas in pixels; COCO's ranges, both ends included.
SIZE_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], np.float64)
EVERY_THRESHOLD = (1 << len(THRESHOLDS)) - 1


def rank_detections(labels: Array, scores: Array) -> Array:
    """Rank the detections of an image and keep the best of each class.

    Args:
        labels: int (D,).
        scores: float (D,).

    Returns:
        int64 (K,), indices by falling score, at most ``MAX_DETECTIONS`` of a class. Detections of
        equal score keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    by_label = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[by_label]
    place = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)
    kept = np.zeros(len(order), bool)
    kept[by_label] = place < MAX_DETECTIONS
    ranked: Array = order[kept[order]]
    return ranked


def box_overlaps(found: Array, truth: Array, crowd: Array) -> Array:
    """IoU of boxes.

    Args:
        found: Detections, (D, 4) xyxy.
        truth: Objects, (G, 4) xyxy.
        crowd: bool (G,).

    Returns:
        float64 (D, G). For a crowd it is the fraction of the detection inside the crowd.
    """
    result: Array = _box_overlaps(_corner_and_size(found), _corner_and_size(truth), crowd)
    return result


def box_areas(boxes: Array) -> Array:
    """Areas of boxes (N, 4) xyxy: float64 (N,) pixels."""
    sizes = _corner_and_size(boxes)
    result: Array = sizes[:, 2] * sizes[:, 3]
    return result


def mask_overlaps(
    found: Array, truth: Array, crowd: Array, found_labels: Array, truth_labels: Array, areas: Array
) -> Array:
    """IoU of masks, computed only for detections and objects of the same class.

    Args:
        found: Detections, bool (D, H, W).
        truth: Objects, bool (G, H, W).
        crowd: bool (G,).
        found_labels: int (D,).
        truth_labels: int (G,).
        areas: float64 (D,), pixels of the detections.

    Returns:
        float64 (D, G), 0 for different classes. For a crowd it is the fraction of the detection
        inside the crowd.
    """
    overlaps = np.zeros((len(found), len(truth)))
    for g in range(len(truth)):
        same = np.flatnonzero(found_labels == truth_labels[g])
        if not len(same):
            continue
        object_area = np.count_nonzero(truth[g])
        rows, columns = np.flatnonzero(truth[g].any(1)), np.flatnonzero(truth[g].any(0))
        if not len(rows):
            continue
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = np.ascontiguousarray(truth[g][window])
        for d in same:
            common = np.count_nonzero(found[d][window] & inside)
            either = areas[d] if crowd[g] else areas[d] + object_area - common
            overlaps[d, g] = common / either if either else 0.0
    return overlaps


def _corner_and_size(boxes: Array) -> Array:
    """Boxes as x, y, width, height, float64: as COCO stores them, so rounding is the same."""
    sizes = np.array(boxes, np.float64).reshape(-1, 4)
    sizes[:, 2:] -= sizes[:, :2]
    return sizes


@numba.njit(cache=True, nogil=True)
def _box_overlaps(found, truth, crowd):  # type: ignore[no-untyped-def]
    overlaps = np.zeros((len(found), len(truth)))
    for d in range(len(found)):
        for g in range(len(truth)):
            width = min(found[d, 0] + found[d, 2], truth[g, 0] + truth[g, 2]) - max(
                found[d, 0], truth[g, 0]
            )
            height = min(found[d, 1] + found[d, 3], truth[g, 1] + truth[g, 3]) - max(
                found[d, 1], truth[g, 1]
            )
            if width > 0 and height > 0:
                common, area = width * height, found[d, 2] * found[d, 3]
                overlaps[d, g] = common / (
                    area if crowd[g] else area + truth[g, 2] * truth[g, 3] - common
                )
    return overlaps


@numba.njit(cache=True, nogil=True)
def match_detections(  # type: ignore[no-untyped-def]
    overlaps, found_labels, found_areas, truth_labels, truth_areas, crowd, ranges, thresholds
):
    """Match the detections of an image to its objects.

    Args:
        overlaps: float64 (D, G), detections by falling score.
        found_labels: int (D,).
        found_areas: float64 (D,), pixels.
        truth_labels: int (G,).
        truth_areas: float64 (G,), pixels.
        crowd: bool (G,).
        ranges: float64 (A, 2), size ranges.
        thresholds: float64 (T,), IoU thresholds.

    Returns:
        ``matched`` and ``ignored``, uint16 (D, A), one bit per threshold.
    """
    matched = np.zeros((len(overlaps), len(ranges)), np.uint16)
    ignored = np.zeros((len(overlaps), len(ranges)), np.uint16)
    for a in range(len(ranges)):
        low, high = ranges[a]
        out = crowd | (truth_areas < low) | (truth_areas > high)
        # Objects that count come first and are preferred.
        order = np.concatenate((np.flatnonzero(~out), np.flatnonzero(out)))
        for t in range(len(thresholds)):
            taken = np.zeros(len(order), np.bool_)
            for d in range(len(overlaps)):
                best, best_overlap = -1, min(thresholds[t], 1 - 1e-10)
                for g in order:
                    if truth_labels[g] != found_labels[d] or (taken[g] and not crowd[g]):
                        continue
                    if best >= 0 and not out[best] and out[g]:
                        break
                    if overlaps[d, g] >= best_overlap:
                        best, best_overlap = g, overlaps[d, g]
                if best >= 0:
                    taken[best] = True
                    matched[d, a] |= 1 << t
                    if out[best]:
                        ignored[d, a] |= 1 << t
                elif found_areas[d] < low or found_areas[d] > high:
                    ignored[d, a] |= 1 << t
    return matched, ignored
