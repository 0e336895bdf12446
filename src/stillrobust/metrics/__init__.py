"""Metrics: count, merge, divide once. ``METRICS[task](info)`` makes one.

Contract: ``update(predictions, targets)`` adds images, each once; ``merge(other)`` adds what
another one has counted; ``compute()`` gives fractions 0..1 by name; ``statistics()`` gives,
compactly and per image, all that is needed to compute the numbers again on any re-weighting of the
images (see ``recompute``).
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from stillrobust.metrics.classification import Top1
from stillrobust.metrics.detection import AveragePrecision
from stillrobust.metrics.segmentation import MeanIoU
from stillrobust.samples import DatasetInfo, Prediction, Target

__all__ = ["METRICS", "METRIC_VERSION", "Metric"]


class Metric(Protocol):
    """What every metric can do."""

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Add images with their predictions. Raises ``UserError`` where an image comes twice."""
        ...

    def merge(self, other: Any) -> None:
        """Add the images of another metric of the same kind."""
        ...

    def compute(self) -> dict[str, float]:
        """The numbers, fractions 0..1, by name."""
        ...

    def statistics(self) -> dict[str, np.ndarray]:
        """Arrays per image, with ``image_ids``; no objects."""
        ...


METRICS: dict[str, Callable[[DatasetInfo], Metric]] = {
    "classification": Top1,
    "detection": AveragePrecision,
    "segmentation": MeanIoU,
}

METRIC_VERSION = {
    "classification": "top1-2",
    "detection": "coco-ap-2",
    "segmentation": "dataset-miou-2",
}
"""Part of every protocol; raised when a metric changes what it counts or keeps."""
