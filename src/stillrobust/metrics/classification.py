"""``top1``: the fraction of images whose most probable class is the true class."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from stillrobust.errors import UserError
from stillrobust.metrics.calibration import ece_of_rows
from stillrobust.metrics.image_ids import UniqueImageIds
from stillrobust.samples import Array, DatasetInfo, Prediction, Target


class Top1:
    """Accuracy. Of equal probabilities the lowest class counts, as in ``argmax``."""

    version: ClassVar[str] = "top1-2"
    names: ClassVar[dict[str, str]] = {"top1": "top-1"}
    marker: ClassVar[str] = "correct"
    shapes: ClassVar[dict[str, str]] = {
        "image_ids": "N", "correct": "N", "label": "N", "confidence": "N", "classes": "",
    }  # fmt: skip

    def __init__(self, info: DatasetInfo) -> None:
        self.info = info
        self.seen = UniqueImageIds()
        self.correct: list[bool] = []
        self.label: list[int] = []
        self.confidence: list[float] = []

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Compare ``probabilities`` (C,) with ``label``."""
        for prediction, target in zip(predictions, targets, strict=True):
            if prediction.probabilities is None or len(prediction.probabilities) != len(
                self.info.classes
            ):
                raise UserError(
                    f"Expected {len(self.info.classes)} probabilities for {target.image_id}; check"
                    " the model's classes"
                )
            if target.label is None:
                raise UserError(
                    f"Expected a label as ground truth of {target.image_id}; check the dataset"
                )
            # argmax would name the first NaN as the answer
            if np.isnan(prediction.probabilities).any():
                raise UserError(
                    f"The model's probabilities for {target.image_id} are not numbers; check its"
                    " weights"
                )
            self.seen.add([target.image_id])
            self.correct.append(int(np.argmax(prediction.probabilities)) == target.label)
            self.label.append(int(target.label))
            self.confidence.append(float(np.max(prediction.probabilities)))

    def merge(self, other: "Top1") -> None:
        """Add the images of another metric."""
        self.seen.add(other.seen.ids)
        self.correct += other.correct
        self.label += other.label
        self.confidence += other.confidence

    def compute(self) -> dict[str, float]:
        """``top1``, 0 to 1."""
        return {"top1": float(np.mean(self.correct)) if self.correct else float("nan")}

    def statistics(self) -> dict[str, Array]:
        """Statistics of N images.

        Returns:
            ``correct`` bool (N,), ``label`` int32 (N,) the true class, ``confidence`` float32 (N,)
            the largest probability, and ``classes``, the number of classes.
        """
        return {
            "image_ids": self.seen.array(),
            "correct": np.array(self.correct, bool),
            "label": np.array(self.label, np.int32),
            "confidence": np.array(self.confidence, np.float32),
            "classes": np.array(len(self.info.classes)),
        }

    @staticmethod
    def recompute(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """``top1`` under weights."""
        return {"top1": weights @ statistics["correct"] / weights.sum(1)}

    @staticmethod
    def recompute_by_class(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """``top1`` of the images of each class."""
        members = statistics["label"][:, None] == np.arange(int(statistics["classes"]))
        count = weights @ members
        correct = weights @ (members & statistics["correct"][:, None])
        return {"top1": np.where(count > 0, correct / np.maximum(count, 1), np.nan)}

    @staticmethod
    def images_per_class(statistics: Mapping[str, Array]) -> None:
        """``None``: top-1 is a mean over images."""
        return

    @staticmethod
    def recompute_details(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """``ece``, the calibration error, if the statistics have the confidence."""
        if "confidence" not in statistics:
            return {}
        confidence = statistics["confidence"]
        image = np.arange(len(confidence))
        return {"ece": ece_of_rows(image, confidence, statistics["correct"], weights)}
