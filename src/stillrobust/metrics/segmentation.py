"""``miou`` of a dataset: intersections and unions are summed over all images, then divided."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from stillrobust.errors import UserError
from stillrobust.metrics.calibration import BINS, bin_confidences, ece_of_bins
from stillrobust.metrics.image_ids import UniqueImageIds
from stillrobust.samples import IGNORE, Array, DatasetInfo, Prediction, Target


def mean_iou(intersections: Array, unions: Array) -> Array:
    """Mean IoU over the classes that occur in ground truth or prediction.

    Args:
        intersections: (..., C), pixels that agree.
        unions: (..., C), pixels that are of the class in ground truth or prediction.

    Returns:
        float64 (...); NaN if no class occurs.
    """
    ratios = class_iou(intersections, unions)
    present = np.isfinite(ratios)
    count = present.sum(-1)
    result: Array = np.where(
        count > 0, np.where(present, ratios, 0).sum(-1) / np.maximum(count, 1), np.nan
    )
    return result


def class_iou(intersections: Array, unions: Array) -> Array:
    """IoU of each class, (..., C) from counts (..., C); NaN for a class that does not occur."""
    result: Array = np.where(unions > 0, intersections / np.maximum(unions, 1), np.nan)
    return result


class MeanIoU:
    """Mean intersection over union. Pixels whose true label is ``IGNORE`` do not count."""

    version: ClassVar[str] = "dataset-miou-2"
    names: ClassVar[dict[str, str]] = {"miou": "mIoU"}
    marker: ClassVar[str] = "unions"
    shapes: ClassVar[dict[str, str]] = {
        "image_ids": "N", "intersections": "N C", "unions": "N C", "bins": f"N 3 {BINS}",
    }  # fmt: skip

    def __init__(self, info: DatasetInfo) -> None:
        self.info = info
        self.seen = UniqueImageIds()
        self.intersections: list[Array] = []
        self.unions: list[Array] = []
        self.bins: list[Array] = []
        """Sums for calibration, per image; empty if the model gives no confidence."""

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Compare ``label_map`` (H, W) with that of the target."""
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
        """Add the images of another metric."""
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
        """``miou``, 0 to 1."""
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

    def statistics(self) -> dict[str, Array]:
        """Statistics of N images and C classes.

        Returns:
            ``intersections`` and ``unions``, int32 (N, C) pixels. With confidence also ``bins``,
            float32 (N, 3, 15), see ``bin_confidences``.
        """
        shape = (len(self.seen.ids), len(self.info.classes))
        bins = {"bins": np.array(self.bins, np.float32)} if self.bins else {}
        return {
            "image_ids": self.seen.array(),
            "intersections": np.array(self.intersections, np.int32).reshape(shape),
            "unions": np.array(self.unions, np.int32).reshape(shape),
            **bins,
        }

    @staticmethod
    def recompute(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """``miou`` under weights."""
        intersections, unions = statistics["intersections"], statistics["unions"]
        return {"miou": mean_iou(weights @ intersections, weights @ unions)}

    @staticmethod
    def recompute_by_class(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """``miou``: the IoU of each class."""
        intersections, unions = statistics["intersections"], statistics["unions"]
        return {"miou": class_iou(weights @ intersections, weights @ unions)}

    @staticmethod
    def images_per_class(statistics: Mapping[str, Array]) -> Array:
        """Images with the class in ground truth or prediction, int64 (C,)."""
        images: Array = (statistics["unions"] > 0).sum(0)
        return images

    @staticmethod
    def recompute_details(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """``ece`` over pixels, if the model gives a confidence."""
        if "bins" not in statistics:
            return {}
        return {"ece": ece_of_bins(np.tensordot(weights, statistics["bins"], 1))}


def _confidence(prediction: Prediction, counts: Array, image_id: str) -> Array | None:
    """The confidence of the pixels that count, (P,), or ``None`` if the model gives none."""
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
    counted: Array = confidence[counts]
    return counted
