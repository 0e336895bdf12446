"""Metrics. A metric counts per image, can be merged with others, and divides once at the end.

``METRICS[task](info)`` creates the metric of a task. To add a metric for a task, write a class that
follows ``Metric`` in a file of its own and add it to ``METRICS``. To add a score to a task, add it
to the class of the task: to ``names``, ``compute`` and the ``recompute`` functions, and raise
``version``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from stillrobust.metrics.classification import Top1
from stillrobust.metrics.detection import AveragePrecision
from stillrobust.metrics.segmentation import MeanIoU
from stillrobust.samples import Array, DatasetInfo, Prediction, Target

__all__ = ["HEADLINE_METRIC", "METRICS", "METRIC_NAMES", "Metric"]


class Metric(Protocol):
    """The contract of a metric.

    In the docstrings below, N is the number of images, C of classes, and R of re-weightings of the
    images (bootstrap replicates). ``weights`` is (R, N): how often each image counts in each
    replicate, in the order of ``statistics()["image_ids"]``.
    """

    version: ClassVar[str]
    """Part of every protocol. It changes when the metric counts differently."""
    names: ClassVar[dict[str, str]]
    """Key of each value of ``compute`` -> its name in reports. The first is the task's headline."""
    marker: ClassVar[str]
    """A key that only this metric's ``statistics()`` have; stored ones are recognised by it."""
    shapes: ClassVar[dict[str, str]]
    """Key of each of ``statistics()`` -> its shape: N images, C classes, other letters for other
    lengths, digits for fixed ones. Stored statistics are checked against it; a key may be missing.
    Values are not negative. Keys that end in ``image`` hold indices of images, in ``label`` of
    classes; ``correct`` and ``confidence`` are at most 1.
    """

    def __init__(self, info: DatasetInfo) -> None: ...

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Add images.

        Args:
            predictions: One prediction per image.
            targets: The ground truth of the same images.

        Raises:
            UserError: If an image was added before, or a prediction or target is invalid.
        """
        ...

    def merge(self, other: Any) -> None:
        """Add the images of another metric of the same class, for instance of another process."""
        ...

    def compute(self) -> dict[str, float]:
        """The values by metric name, 0 to 1; NaN if there is nothing to score."""
        ...

    def statistics(self) -> dict[str, Array]:
        """Compact arrays per image, from which the values can be recomputed.

        Returns:
            Arrays by name, without Python objects; ``image_ids`` is a string array (N,).
        """
        ...

    @staticmethod
    def recompute(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """The values of ``compute`` under weights: metric name -> float64 (R,)."""
        ...

    @staticmethod
    def recompute_by_class(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """The value of each class: metric name -> float64 (R, C); NaN for absent classes."""
        ...

    @staticmethod
    def images_per_class(statistics: Mapping[str, Array]) -> Array | None:
        """Number of images that each class counts in, int64 (C,).

        ``None`` if the values are no mean over classes. Intervals need several images per class.
        """
        ...

    @staticmethod
    def recompute_details(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """Calibration error and other further values: name -> float64 (R,); may be empty."""
        ...


METRICS: dict[str, type[Metric]] = {
    "classification": Top1,
    "detection": AveragePrecision,
    "segmentation": MeanIoU,
}
"""Task -> its metric. A further score of a task is a further value of the same class."""
METRIC_NAMES = {key: name for metric in METRICS.values() for key, name in metric.names.items()}
"""Name in reports of every score, in the order of the report."""
HEADLINE_METRIC = {task: next(iter(metric.names)) for task, metric in METRICS.items()}
"""Task -> the score that stands for it if only one can."""
