"""What a metric hides: each class, each range of sizes, and calibration, from kept statistics, for
any re-weighting.
"""

from collections.abc import Mapping

import numpy as np

from stillrobust.metrics.calibration import calibration_error
from stillrobust.metrics.segmentation import class_iou
from stillrobust.samples import Array


def details(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
    """By name, (R,): ``ece`` (``box_ece``, ``mask_ece``), and for detection ``box_ap_small``,
    ``_medium``, ``_large`` too.
    """
    found = calibration_error(statistics, weights)
    if "object_sizes" in statistics:
        from stillrobust.metrics.average_precision import average_precision  # with its compiler
        from stillrobust.metrics.matching import SIZES

        for kind in _kinds(statistics):
            found |= {
                f"{kind}_ap_{size}": average_precision(statistics, kind, weights, size)
                for size in SIZES[1:]
            }
    return found


def by_class(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
    """By metric, (R, C): ``top1`` of each true class, ``miou`` (the IoU), ``box_ap``, ``mask_ap``;
    NaN for absent classes.
    """
    weights = np.asarray(weights, float)
    if "correct" in statistics:
        members = statistics["label"][:, None] == np.arange(int(statistics["classes"]))
        there = weights @ members
        right = weights @ (members & statistics["correct"][:, None])
        return {"top1": np.where(there > 0, right / np.maximum(there, 1), np.nan)}
    if "unions" in statistics:
        return {
            "miou": class_iou(weights @ statistics["intersections"], weights @ statistics["unions"])
        }
    from stillrobust.metrics.average_precision import class_average_precision

    return {
        f"{kind}_ap": class_average_precision(statistics, kind, weights)
        for kind in _kinds(statistics)
    }


def _kinds(statistics: Mapping[str, Array]) -> list[str]:
    return [kind for kind in ("box", "mask") if f"{kind}_image" in statistics]
