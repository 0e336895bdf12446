"""``box_ap`` and ``mask_ap``: COCO average precision .50:.05:.95, equal to pycocotools.

It covers all object sizes, with at most 100 detections of a class per image. Detections are matched
in ``update`` and only the matches are kept, 26 bytes per detection and kind. So the state does not
grow with the image size, and any re-weighting of the images can be computed from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stillrobust.errors import UserError
from stillrobust.metrics.average_precision import average_precision, class_average_precision
from stillrobust.metrics.calibration import ece_of_rows
from stillrobust.metrics.image_ids import UniqueImageIds
from stillrobust.metrics.matching import (
    SIZE_RANGES,
    SIZES,
    THRESHOLDS,
    box_areas,
    box_overlaps,
    mask_overlaps,
    match_detections,
    rank_detections,
)
from stillrobust.samples import Array, DatasetInfo, Prediction, Target


@dataclass(frozen=True)
class _Matches:
    """The matches of D detections of one image, sorted by score.

    Attributes:
        label: int16 (D,).
        score: float64 (D,).
        matched: uint16 (D, 4), one bit per IoU threshold, for each size range: whether the
            detection is matched, also to a crowd or to an object outside the range.
        ignored: uint16 (D, 4), likewise: whether it counts neither as right nor as wrong.
    """

    label: Array
    score: Array
    matched: Array
    ignored: Array


@dataclass(frozen=True)
class _Objects:
    """The G objects of one image.

    Attributes:
        label: int16 (G,).
        sizes: uint8 (G,), one bit per size range that the object counts in; 0 for a crowd.
    """

    label: Array
    sizes: Array


class AveragePrecision:
    """COCO average precision of boxes and, if the dataset has them, of masks."""

    version: ClassVar[str] = "coco-ap-2"
    names: ClassVar[dict[str, str]] = {"box_ap": "box AP", "mask_ap": "mask AP"}
    marker: ClassVar[str] = "object_sizes"
    shapes: ClassVar[dict[str, str]] = {
        "image_ids": "N", "classes": "",
        "object_image": "G", "object_label": "G", "object_sizes": "G",
        "box_image": "D", "box_label": "D", "box_score": "D",
        "box_matched": "D 4", "box_ignored": "D 4",
        "mask_image": "E", "mask_label": "E", "mask_score": "E",
        "mask_matched": "E 4", "mask_ignored": "E 4",
    }  # fmt: skip

    def __init__(self, info: DatasetInfo) -> None:
        self.info = info
        self.kinds = ("box", "mask") if info.has_masks else ("box",)
        self.seen = UniqueImageIds()
        self.objects: list[_Objects] = []
        self.matches: dict[str, list[_Matches]] = {kind: [] for kind in self.kinds}

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Match boxes and, if the dataset has masks, masks."""
        for prediction, target in zip(predictions, targets, strict=True):
            self._check_truth(target)
            self._check_prediction(prediction, target)
            matches = {kind: _match(kind, prediction, target) for kind in self.kinds}
            objects = _objects(target)
            # After everything that can fail, so that an image is counted completely or not at all.
            self.seen.add([target.image_id])
            self.objects.append(objects)
            for kind in self.kinds:
                self.matches[kind].append(matches[kind])

    def _check_truth(self, target: Target) -> None:
        if target.boxes is None or target.labels is None:
            raise UserError(
                f"Expected boxes and labels as ground truth of {target.image_id}; check the dataset"
            )
        _check_labels(
            "ground truth",
            target.labels,
            len(target.boxes),
            len(self.info.classes),
            target.image_id,
        )
        if self.info.has_masks:
            _check_masks("ground truth", target.masks, len(target.boxes), target)

    def _check_prediction(self, prediction: Prediction, target: Target) -> None:
        boxes, labels, scores = prediction.boxes, prediction.labels, prediction.scores
        if boxes is None or labels is None or scores is None:
            raise UserError(
                f"Expected boxes, labels and scores from the model for {target.image_id}, but some"
                " are missing; give all three, empty where nothing is found"
            )
        if self.info.has_masks and prediction.masks is None:
            raise UserError(
                f"The data has masks, but the model gave none for {target.image_id}; mask_ap needs"
                " them"
            )
        _check_labels("predicted", labels, len(boxes), len(self.info.classes), target.image_id)
        if len(scores) != len(boxes) or not (
            np.isfinite(boxes).all() and np.isfinite(scores).all()
        ):
            raise UserError(
                f"Expected finite boxes and as many finite scores for {target.image_id}, but got"
                f" {len(boxes)} boxes and {len(scores)} scores, some perhaps not numbers; check the"
                " model"
            )
        if self.info.has_masks:
            _check_masks("predicted", prediction.masks, len(boxes), target)

    def merge(self, other: "AveragePrecision") -> None:
        """Add the images of another metric."""
        self.seen.add(other.seen.ids)
        self.objects += other.objects
        for kind in self.kinds:
            self.matches[kind] += other.matches[kind]

    def compute(self) -> dict[str, float]:
        """``box_ap`` and, with masks, ``mask_ap``; 0 if no object was found."""
        statistics = self.statistics()
        once = np.ones((1, len(self.seen.ids)))
        return {
            f"{kind}_ap": float(average_precision(statistics, kind, once)[0]) for kind in self.kinds
        }

    def statistics(self) -> dict[str, Array]:
        """Statistics of D detections and G objects in N images.

        Returns:
            For ``box`` and, with masks, ``mask``, sorted by class and then by rank: ``box_image``
            int32 (D,), ``box_label`` int16 (D,), ``box_score`` float32 (D,), ``box_matched`` and
            ``box_ignored`` uint16 (D, 4). Of the objects, sorted by class: ``object_image`` int32
            (G,), ``object_label`` int16 (G,), ``object_sizes`` uint8 (G,). And ``classes``, the
            number of classes.
        """
        # Images are sorted by id: detections of equal score rank in the order of the images, which
        # must not depend on the order of the updates.
        order = sorted(range(len(self.seen.ids)), key=lambda index: self.seen.ids[index])
        objects = [self.objects[index] for index in order]
        label = _joined([one.label for one in objects], np.int16)
        by_class = np.argsort(label, kind="stable")
        arrays: dict[str, Array] = {
            "image_ids": np.array([self.seen.ids[index] for index in order], dtype=np.str_),
            "classes": np.array(len(self.info.classes)),
            "object_image": np.repeat(
                np.arange(len(order), dtype=np.int32), [len(one.label) for one in objects]
            )[by_class],
            "object_label": label[by_class],
            "object_sizes": _joined([one.sizes for one in objects], np.uint8)[by_class],
        }
        for kind in self.kinds:
            matches = [self.matches[kind][index] for index in order]
            label, score = (
                _joined([one.label for one in matches], np.int16),
                _joined([one.score for one in matches], np.float64),
            )
            # stable: equal scores stay in the images' order, as COCOeval ranks them
            ranked = np.lexsort((-score, label))
            image = np.repeat(
                np.arange(len(order), dtype=np.int32), [len(one.label) for one in matches]
            )
            empty = [np.zeros((0, len(SIZE_RANGES)), np.uint16)]
            arrays |= {
                f"{kind}_image": image[ranked],
                f"{kind}_label": label[ranked],
                f"{kind}_score": score[ranked].astype(np.float32),
                f"{kind}_matched": np.concatenate(empty + [one.matched for one in matches])[ranked],
                f"{kind}_ignored": np.concatenate(empty + [one.ignored for one in matches])[ranked],
            }
        return arrays

    @staticmethod
    def recompute(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """``box_ap`` and ``mask_ap`` under weights."""
        return {
            f"{kind}_ap": average_precision(statistics, kind, weights)
            for kind in _kinds(statistics)
        }

    @staticmethod
    def recompute_by_class(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """``box_ap`` and ``mask_ap`` of each class."""
        return {
            f"{kind}_ap": class_average_precision(statistics, kind, weights)
            for kind in _kinds(statistics)
        }

    @staticmethod
    def images_per_class(statistics: Mapping[str, Array]) -> Array:
        """Images with an object of the class, int64 (C,)."""
        pairs = np.stack([statistics["object_image"], statistics["object_label"]])
        labels = np.unique(pairs, axis=1)[1].astype(np.int64)
        return np.bincount(labels, minlength=int(statistics["classes"]))

    @staticmethod
    def recompute_details(statistics: Mapping[str, Array], weights: Array) -> dict[str, Array]:
        """``box_ece`` and ``box_ap_small``, ``_medium``, ``_large``; likewise for masks."""
        found = {}
        for kind in _kinds(statistics):
            counts = statistics[f"{kind}_ignored"][:, 0] & 1 == 0
            correct = (statistics[f"{kind}_matched"][:, 0] & 1).astype(bool)
            image, score = statistics[f"{kind}_image"], statistics[f"{kind}_score"]
            found[f"{kind}_ece"] = ece_of_rows(
                image[counts], score[counts], correct[counts], weights
            )
        for kind in _kinds(statistics):
            for size in SIZES[1:]:
                found[f"{kind}_ap_{size}"] = average_precision(statistics, kind, weights, size)
        return found


def _kinds(statistics: Mapping[str, Array]) -> list[str]:
    return [kind for kind in ("box", "mask") if f"{kind}_image" in statistics]


def _joined(parts: list[Array], dtype: type) -> Array:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)


def _check_labels(whose: str, labels: Array, count: int, classes: int, image_id: str) -> None:
    if len(labels) != count or (count and not (labels.min() >= 0 and labels.max() < classes)):
        raise UserError(
            f"Expected {count} {whose} labels from 0 to {classes - 1} for {image_id}, but got"
            f" {labels[:8].tolist()}; labels count in the order of the data's classes"
        )


def _check_masks(whose: str, masks: Array | None, count: int, target: Target) -> None:
    """Require one mask per box, at the size of the image."""
    expected, shape = (count, *target.size), None if masks is None else masks.shape
    if shape != expected and count:
        raise UserError(
            f"Expected {whose} masks of shape {expected} for {target.image_id}, but got {shape};"
            " give them at the size of the image"
        )


def _truth(target: Target) -> tuple[Array, Array, Array]:
    """Labels int16 (G,), areas float64 (G,) and crowds bool (G,) of an image."""
    assert target.boxes is not None
    assert target.labels is not None
    count = len(target.boxes)
    areas = (
        box_areas(target.boxes) if target.areas is None else np.asarray(target.areas, np.float64)
    )
    crowd = np.zeros(count, bool) if target.crowd is None else np.asarray(target.crowd, bool)
    return np.asarray(target.labels, np.int16).reshape(count), areas, crowd


def _objects(target: Target) -> _Objects:
    labels, areas, crowd = _truth(target)
    inside = (
        (areas[:, None] >= SIZE_RANGES[:, 0])
        & (areas[:, None] <= SIZE_RANGES[:, 1])
        & ~crowd[:, None]
    )
    return _Objects(labels, (inside << np.arange(len(SIZE_RANGES))).sum(1).astype(np.uint8))


def _match(kind: str, prediction: Prediction, target: Target) -> _Matches:
    assert prediction.boxes is not None
    assert prediction.labels is not None
    assert prediction.scores is not None
    labels, areas, crowd = _truth(target)
    ranked = rank_detections(
        np.asarray(prediction.labels, np.int16), np.asarray(prediction.scores, np.float64)
    )
    found_labels = np.asarray(prediction.labels, np.int16)[ranked]
    scores = np.asarray(prediction.scores, np.float64)[ranked]
    if kind == "box" or not len(ranked):
        found_areas = box_areas(prediction.boxes[ranked])
        overlaps = box_overlaps(prediction.boxes[ranked], target.boxes, crowd)  # type: ignore[arg-type]
    else:
        assert prediction.masks is not None
        masks = np.asarray(prediction.masks, bool)[ranked]
        found_areas = np.array([np.count_nonzero(mask) for mask in masks], np.float64)
        truth = (
            np.zeros((0, *target.size), bool)
            if target.masks is None
            else np.asarray(target.masks, bool)
        )
        overlaps = mask_overlaps(masks, truth, crowd, found_labels, labels, found_areas)
    matched, ignored = match_detections(
        overlaps, found_labels, found_areas, labels, areas, crowd, SIZE_RANGES, THRESHOLDS
    )
    return _Matches(found_labels, scores, matched, ignored)
