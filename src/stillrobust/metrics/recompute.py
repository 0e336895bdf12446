"""The numbers again, from per-image statistics, for any re-weighting of the images: what a bootstrap needs."""

from collections.abc import Mapping

import numba
import numpy as np

from stillrobust.metrics.segmentation import mean_iou

RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's recall grid


def replicates(statistics: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics under ``weights`` (R, N), how often each image counts in each replicate -> (R,) values by metric name.

    ``statistics`` is what ``Metric.statistics`` returned; images are in the order of its ``image_ids``.
    """
    weights = np.ascontiguousarray(weights, np.float64)
    if "correct" in statistics:
        return {"top1": weights @ statistics["correct"] / weights.sum(1)}
    if "unions" in statistics:
        return {"miou": mean_iou(weights @ statistics["intersections"], weights @ statistics["unions"])}
    return {f"{kind}_ap": average_precision(statistics, kind, weights) for kind in ("box", "mask") if f"{kind}_image" in statistics}


def average_precision(statistics: Mapping[str, np.ndarray], kind: str, weights: np.ndarray) -> np.ndarray:
    """COCO AP .50:.05:.95 under ``weights`` (R, N) -> (R,); NaN in a replicate without any object."""
    label, score = statistics[f"{kind}_label"], statistics[f"{kind}_score"]
    order = np.lexsort((-score, label))  # stable: equal scores stay in the images' order, as COCOeval ranks them
    objects = weights @ statistics["objects"]
    first = np.searchsorted(label[order], np.arange(objects.shape[1] + 1))
    result: np.ndarray = _average_precision(
        statistics[f"{kind}_image"][order],
        statistics[f"{kind}_matched"][order],
        statistics[f"{kind}_ignored"][order],
        first,
        objects,
        weights,
        RECALLS,
    )
    return result


@numba.njit(cache=True)
def _average_precision(image, matched, ignored, first, objects, weights, recalls):  # type: ignore[no-untyped-def]
    """Loops over replicates, classes and thresholds; one pass forward over detections and one back for the envelope."""
    replicate_count, class_count, threshold_count = weights.shape[0], objects.shape[1], matched.shape[1]
    result = np.full(replicate_count, np.nan)
    precision, recall = np.empty(len(image)), np.empty(len(image))
    for r in range(replicate_count):
        total, present = 0.0, 0
        for c in range(class_count):
            if objects[r, c] <= 0:
                continue
            present += 1
            low, high = first[c], first[c + 1]
            for t in range(threshold_count):
                hits, misses = 0.0, 0.0
                for d in range(low, high):
                    if not ignored[d, t]:
                        if matched[d, t]:
                            hits += weights[r, image[d]]
                        else:
                            misses += weights[r, image[d]]
                    recall[d] = hits / objects[r, c]
                    precision[d] = hits / (hits + misses + 2.220446049250313e-16)  # np.spacing(1), as in COCOeval
                for d in range(high - 2, low - 1, -1):
                    precision[d] = max(precision[d], precision[d + 1])
                d = low
                for k in range(len(recalls)):
                    while d < high and recall[d] < recalls[k]:
                        d += 1
                    if d == high:
                        break
                    total += precision[d]
        if present > 0:
            result[r] = total / (present * threshold_count * len(recalls))
    return result
