"""top1: the fraction of images whose most probable class is the right one."""

from collections.abc import Sequence

import numpy as np

from stillrobust.errors import UserError
from stillrobust.metrics.image_ids import UniqueImageIds
from stillrobust.samples import DatasetInfo, Prediction, Target


class Top1:
    """Accuracy; ties go to the lowest class, as argmax has it."""

    def __init__(self, info: DatasetInfo) -> None:
        self.info = info
        self.seen = UniqueImageIds()
        self.correct: list[bool] = []
        self.label: list[int] = []
        self.confidence: list[float] = []

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """``probabilities`` (C,) of each prediction against ``label``."""
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
        """Add another's images."""
        self.seen.add(other.seen.ids)
        self.correct += other.correct
        self.label += other.label
        self.confidence += other.confidence

    def compute(self) -> dict[str, float]:
        """``top1``, 0..1."""
        return {"top1": float(np.mean(self.correct)) if self.correct else float("nan")}

    def statistics(self) -> dict[str, np.ndarray]:
        """``correct`` bool, ``label`` int32 (the true one) and ``confidence`` float32, each (N,);
        ``classes``, how many.
        """
        return {
            "image_ids": self.seen.array(),
            "correct": np.array(self.correct, bool),
            "label": np.array(self.label, np.int32),
            "confidence": np.array(self.confidence, np.float32),
            "classes": np.array(len(self.info.classes)),
        }
