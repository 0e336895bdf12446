"""The numbers again, from per-image statistics, for any re-weighting of the images: what a
bootstrap needs.
"""

from collections.abc import Mapping

import numpy as np

from stillrobust.metrics.segmentation import mean_iou
from stillrobust.samples import Array


def replicates(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
    """Metrics under ``weights`` (R, N), how often each image counts in each replicate -> (R,)
    values by metric name.

    ``statistics`` is what ``Metric.statistics`` returned; images are in the order of its
    ``image_ids``.
    """
    weights = np.ascontiguousarray(weights, np.float64)
    if "correct" in statistics:
        return {"top1": weights @ statistics["correct"] / weights.sum(1)}
    if "unions" in statistics:
        return {
            "miou": mean_iou(weights @ statistics["intersections"], weights @ statistics["unions"])
        }
    from stillrobust.metrics.average_precision import average_precision  # with its compiler

    kinds = [kind for kind in ("box", "mask") if f"{kind}_image" in statistics]
    return {f"{kind}_ap": average_precision(statistics, kind, weights) for kind in kinds}
