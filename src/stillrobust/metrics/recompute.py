"""Recompute metrics from stored statistics, for any re-weighting of the images.

A bootstrap needs this: every replicate is one row of weights. ``statistics`` is what
``Metric.statistics`` returned, and ``weights`` (R, N) is how often each of N images counts in each
of R replicates, in the order of ``image_ids``.
"""

from collections.abc import Mapping

import numpy as np

from stillrobust.metrics import METRICS, Metric
from stillrobust.samples import Array


def metric_of_statistics(statistics: Mapping[str, Array]) -> type[Metric]:
    """The metric class that these statistics are from."""
    return next(metric for metric in METRICS.values() if metric.marker in statistics)


def recompute_metrics(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
    """Recompute the values of the metric.

    Args:
        statistics: Statistics of a metric.
        weights: (R, N), how often each image counts in each replicate.

    Returns:
        Metric name -> float64 (R,).
    """
    weights = np.ascontiguousarray(weights, np.float64)
    return metric_of_statistics(statistics).recompute(statistics, weights)


def recompute_by_class(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
    """Recompute the value of each class.

    Args:
        statistics: Statistics of a metric.
        weights: (R, N), how often each image counts in each replicate.

    Returns:
        Metric name -> float64 (R, C): accuracy, IoU or AP of each class; NaN for absent classes.
    """
    weights = np.ascontiguousarray(weights, np.float64)
    return metric_of_statistics(statistics).recompute_by_class(statistics, weights)


def images_per_class(statistics: Mapping[str, Array]) -> Array | None:
    """Return the number of images that each class counts in.

    Args:
        statistics: Statistics of a metric.

    Returns:
        int64 (C,); ``None`` if the metric is no mean over classes.
    """
    return metric_of_statistics(statistics).images_per_class(statistics)


def recompute_details(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
    """Recompute calibration errors and, for detection, AP by object size.

    Args:
        statistics: Statistics of a metric.
        weights: (R, N), how often each image counts in each replicate.

    Returns:
        Name -> float64 (R,): ``ece``, or ``box_ece``, ``mask_ece``, ``box_ap_small`` and so on.
        Empty if the model gave no confidence.
    """
    weights = np.ascontiguousarray(weights, np.float64)
    return metric_of_statistics(statistics).recompute_details(statistics, weights)
