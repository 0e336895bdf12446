"""Scores of one cell from predictions and ground truth, wherever the predictions come from."""

from collections.abc import Sequence
from typing import Any

from stillrobust.evaluation.gallery_examples import example_arrays
from stillrobust.grid import CLEAN
from stillrobust.metrics import METRICS
from stillrobust.samples import DatasetInfo, Prediction, Sample, Target

EXAMPLE_SEVERITIES = (CLEAN[1], 3)  # shown in the gallery: the clean image and the middle severity


class CellScores:
    """The metric of one cell, and a few images with predictions for the gallery.

    Args:
        info: Facts about the dataset.
        severity: Severity of the cell. Only ``EXAMPLE_SEVERITIES`` have examples.
        examples: Number of examples to keep.
    """

    def __init__(self, info: DatasetInfo, severity: int, examples: int) -> None:
        self.metric = METRICS[info.task](info)
        self.limit = examples if severity in EXAMPLE_SEVERITIES else 0
        self.examples: list[tuple[Sample, Prediction]] = []

    @property
    def missing_examples(self) -> int:
        """Number of images that the gallery still takes."""
        return self.limit - len(self.examples)

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Add images; see ``Metric.update``."""
        self.metric.update(predictions, targets)

    def keep_examples(self, samples: Sequence[Sample], predictions: Sequence[Prediction]) -> None:
        """Keep the first of these images for the gallery, as many as it takes."""
        self.examples += zip(samples[: self.missing_examples], predictions, strict=False)

    def merge(self, other: "CellScores") -> None:
        """Add the images of another process, which follow this one's."""
        self.metric.merge(other.metric)
        self.examples += other.examples

    def record(self, seconds: float) -> dict[str, Any]:
        """Return metrics, seconds, statistics and examples, as ``Store.write_cell`` takes them."""
        return {
            "metrics": self.metric.compute(),
            "seconds": seconds,
            "statistics": self.metric.statistics(),
            "examples": example_arrays(self.examples[: self.limit]),
        }
