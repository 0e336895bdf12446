"""Recompute metrics from stored statistics, for any re-weighting of the images.

A bootstrap needs this: every replicate is one row of weights. ``statistics`` is what
``Metric.statistics`` returned, and ``weights`` (R, N) is how often each of N images counts in each
of R replicates, in the order of ``image_ids``.
"""

from collections.abc import Mapping

import numpy as np

from stillrobust.metrics import METRICS, Metric
from stillrobust.samples import Array

SHARES = ("correct", "confidence")  # values from 0 to 1


def metric_of_statistics(statistics: Mapping[str, Array]) -> type[Metric]:
    """The metric class that these statistics are from."""
    return next(metric for metric in METRICS.values() if metric.marker in statistics)


def has_known_metric(statistics: Mapping[str, Array]) -> bool:
    """Whether the statistics are from a metric of this library."""
    return any(metric.marker in statistics for metric in METRICS.values())


def check_statistics(statistics: Mapping[str, Array]) -> None:
    """Check stored statistics against the shapes of their metric.

    Arrays that the metric does not have are ignored.

    Args:
        statistics: Finite arrays with unique ``image_ids``.

    Raises:
        ValueError: If an array has another type, shape or range.
    """
    shapes = metric_of_statistics(statistics).shapes
    lengths: dict[str, int] = {}
    known = {name: statistics[name] for name in shapes if name in statistics}
    for name, array in known.items():
        if name != "image_ids" and (array.dtype.kind not in "biuf" or (array < 0).any()):
            raise ValueError(f"{name} has values that are not numbers from 0")
        symbols = shapes[name].split()
        expected = [
            int(symbol) if symbol.isdecimal() else lengths.setdefault(symbol, length)
            for symbol, length in zip(symbols, array.shape, strict=False)
        ]
        if len(symbols) != array.ndim or list(array.shape) != expected:
            raise ValueError(f"{name} has the shape {array.shape}")
    classes = int(known["classes"]) if "classes" in known else None
    for name, array in known.items():
        largest = (
            lengths["N"] - 1
            if name.endswith("_image")
            else classes - 1
            if name.endswith("label") and classes is not None
            else 1
            if name in SHARES
            else np.inf
        )
        if name != "image_ids" and array.size and array.max() > largest:
            raise ValueError(f"{name} has a value above {largest}")
        if name.endswith(("_image", "label")) and array.dtype.kind not in "iu":
            raise ValueError(f"{name} has values that are no indices")
    if "unions" in known and (known["intersections"] > known["unions"]).any():
        raise ValueError("intersections are larger than unions")


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
