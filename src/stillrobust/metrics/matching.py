"""Which detections of an image find an object: COCO's greedy matching, at ten IoU thresholds and in
four ranges of size.

Written out here and compiled, because every detection's matches are kept: asking an evaluator for
them afterwards takes a hundred times as long as the matching itself. The rules are those of
pycocotools' ``COCOeval.evaluateImg`` (tests hold the numbers equal): detections in the order of
their scores, each takes the free object of its class that it overlaps most; a crowd region may be
taken many times; objects out of the range of sizes, crowds, and what is matched to them do not
count.
"""

import numba
import numpy as np

from stillrobust.samples import Array

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # COCO's IoU .50:.05:.95
DETECTIONS = 100  # COCO counts so many of one class in one image
SIZES = ("all", "small", "medium", "large")
# pixels of area; COCO's, ends included
SIZE_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], np.float64)
EVERY_THRESHOLD = (1 << len(THRESHOLDS)) - 1


def rank(labels: Array, scores: Array) -> Array:
    """Indices (K,) of the detections that count, the best first: at most ``DETECTIONS`` of a class;
    ties stay in order.
    """
    order = np.argsort(-scores, kind="stable")
    by_label = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[by_label]
    place = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)
    counted = np.zeros(len(order), bool)
    counted[by_label] = place < DETECTIONS
    ranked: Array = order[counted[order]]
    return ranked


def box_overlaps(found: Array, truth: Array, crowd: Array) -> Array:
    """IoU float64 (D, G) of boxes xyxy; with a crowd it is the share of the detection that lies
    inside.
    """
    result: Array = _box_overlaps(_corner_and_size(found), _corner_and_size(truth), crowd)
    return result


def box_areas(boxes: Array) -> Array:
    """Float64 (N,) pixels."""
    sizes = _corner_and_size(boxes)
    result: Array = sizes[:, 2] * sizes[:, 3]
    return result


def mask_overlaps(
    found: Array, truth: Array, crowd: Array, found_labels: Array, truth_labels: Array, areas: Array
) -> Array:
    """The same of masks bool (D, H, W) and (G, H, W); counted only where the classes agree, 0
    elsewhere.

    ``areas`` are the detections' numbers of pixels.
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
    """As COCO stores boxes, and so rounded as there: x, y, width, height, float64."""
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
def match(
    overlaps, found_labels, found_areas, truth_labels, truth_areas, crowd, ranges, thresholds
):  # type: ignore[no-untyped-def]
    """Detections, the best first, against objects -> (matched, ignored), uint16 (D, ranges), a bit
    for each threshold.
    """
    matched = np.zeros((len(overlaps), len(ranges)), np.uint16)
    ignored = np.zeros((len(overlaps), len(ranges)), np.uint16)
    for a in range(len(ranges)):
        low, high = ranges[a]
        out = crowd | (truth_areas < low) | (truth_areas > high)
        # what counts is preferred
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
