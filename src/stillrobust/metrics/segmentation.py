"""miou over the whole set: intersections and unions are summed over all images, then divided (not
averaged per image).
"""

from collections.abc import Sequence

import numpy as np

from stillrobust.errors import UserError
from stillrobust.metrics.calibration import bin_confidences
from stillrobust.metrics.image_ids import UniqueImageIds
from stillrobust.samples import IGNORE, DatasetInfo, Prediction, Target


def mean_iou(intersections: np.ndarray, unions: np.ndarray) -> np.ndarray:
    """(..., C) counts -> (...)

    mean over the classes that occur in ground truth or prediction; NaN where none does.
    """
    ratios = class_iou(intersections, unions)
    present = np.isfinite(ratios)
    count = present.sum(-1)
    result: np.ndarray = np.where(
        count > 0, np.where(present, ratios, 0).sum(-1) / np.maximum(count, 1), np.nan
    )
    return result


def class_iou(intersections: np.ndarray, unions: np.ndarray) -> np.ndarray:
    """(..., C) counts -> (..., C) intersection over union; NaN for a class that does not occur."""
    result: np.ndarray = np.where(unions > 0, intersections / np.maximum(unions, 1), np.nan)
    return result


class MeanIoU:
    """Counts per image and class; pixels whose true label is ``IGNORE`` are left out."""

    def __init__(self, info: DatasetInfo) -> None:
        self.info = info
        self.seen = UniqueImageIds()
        self.intersections: list[np.ndarray] = []
        self.unions: list[np.ndarray] = []
        self.bins: list[np.ndarray] = []
        """Of calibration, by image; empty where the model gives no confidence."""

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """``label_map`` (H, W) of each prediction against the target's."""
        classes = len(self.info.classes)
        for prediction, target in zip(predictions, targets, strict=True):
            truth, found = target.label_map, prediction.label_map
            if truth is None or found is None or truth.shape != found.shape:
                shape = None if found is None else found.shape
                raise UserError(
                    f"Expected a label map of {target.size} for {target.image_id}, but got {shape}"
                    "; give one at the size of the ground truth"
                )
            counts = truth != IGNORE
            truth, found = truth[counts].astype(np.int64), found[counts].astype(np.int64)
            if (truth >= classes).any():
                raise UserError(
                    f"Expected labels below {classes} or {IGNORE} in {target.image_id}, but got"
                    f" {truth.max()}; labels count in the order of the data's classes"
                )
            confidence = _confidence(prediction, counts, target.image_id)
            if self.seen.ids and (confidence is None) != (not self.bins):
                raise UserError(
                    f"Expected confidence for all images or for none, but {target.image_id}"
                    " differs; check the model"
                )
            self.seen.add([target.image_id])
            if confidence is not None:
                self.bins.append(bin_confidences(confidence, truth == found))
            agreed = np.bincount(truth[truth == found], minlength=classes)[:classes]
            either = (
                np.bincount(truth, minlength=classes)[:classes]
                + np.bincount(found, minlength=classes)[:classes]
                - agreed
            )
            self.intersections.append(agreed.astype(np.int32))
            self.unions.append(either.astype(np.int32))

    def merge(self, other: "MeanIoU") -> None:
        """Add another's images."""
        if self.seen.ids and other.seen.ids and bool(self.bins) != bool(other.bins):
            raise UserError(
                "Expected confidence in both metrics or in none; they are of different models, so"
                " keep them apart"
            )
        self.seen.add(other.seen.ids)
        self.intersections += other.intersections
        self.unions += other.unions
        self.bins += other.bins

    def compute(self) -> dict[str, float]:
        """``miou``, 0..1."""
        if not self.unions:
            return {"miou": float("nan")}
        counts = self.statistics()
        return {
            "miou": float(
                mean_iou(
                    counts["intersections"].sum(0, np.int64), counts["unions"].sum(0, np.int64)
                )
            )
        }

    def statistics(self) -> dict[str, np.ndarray]:
        """``intersections`` and ``unions`` int32 (N, C); with confidence ``bins`` float32 (N, 3,
        15), see ``calibration``.
        """
        shape = (len(self.seen.ids), len(self.info.classes))
        bins = {"bins": np.array(self.bins, np.float32)} if self.bins else {}
        return {
            "image_ids": self.seen.array(),
            "intersections": np.array(self.intersections, np.int32).reshape(shape),
            "unions": np.array(self.unions, np.int32).reshape(shape),
            **bins,
        }


def _confidence(prediction: Prediction, counts: np.ndarray, image_id: str) -> np.ndarray | None:
    """The confidence of the pixels that count, (P,), or None."""
    if prediction.confidence is None:
        return None
    confidence = np.asarray(prediction.confidence)
    if (
        confidence.shape != counts.shape
        or not (confidence >= 0).all()
        or confidence.max(initial=0) > 1 + 1e-3
    ):
        raise UserError(
            f"Expected confidence of shape {counts.shape} in 0..1 for {image_id}; give the"
            " softmax's maximum"
        )
    counted: np.ndarray = confidence[counts]
    return counted
