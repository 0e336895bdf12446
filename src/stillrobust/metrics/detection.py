"""box_ap and mask_ap: COCO average precision .50:.05:.95, all sizes, 100 detections an image, through hotcoco.

hotcoco's twelve statistics equal pycocotools' (a test holds them against it). Masks are kept as run lengths, so that the
state grows with the number of detections and not with the size of the images.
"""

from collections.abc import Sequence
from typing import Any

import hotcoco
import numpy as np

from stillrobust.errors import UserError
from stillrobust.metrics.seen import SeenImages
from stillrobust.samples import DatasetInfo, Prediction, Target

KINDS = {"box_ap": "bbox", "mask_ap": "segm"}
THRESHOLDS = 10  # IoU .50:.05:.95
ALL_SIZES = [0.0, 1e10]  # COCO's area range "all"


def _encode(mask: np.ndarray) -> dict[str, Any]:
    run_lengths: dict[str, Any] = hotcoco.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return run_lengths


def _corner_and_size(box: np.ndarray) -> list[float]:
    left, top, right, bottom = (float(value) for value in box)
    return [left, top, right - left, bottom - top]


def _check_masks(whose: str, masks: np.ndarray | None, count: int, target: Target) -> None:
    """One mask a box, as large as the image; hotcoco scores masks of another size as misses, without a word."""
    expected, shape = (count, *target.size), None if masks is None else masks.shape
    if shape != expected and count:
        raise UserError(f"Expected {whose} masks of shape {expected} for {target.image_id}, but got {shape}")


class AveragePrecision:
    """Ground truth and detections of the images seen, in COCO's own words."""

    def __init__(self, info: DatasetInfo) -> None:
        self.info = info
        self.seen = SeenImages()
        self.sizes: list[tuple[int, int]] = []
        self.truth: list[list[dict[str, Any]]] = []
        self.found: list[list[dict[str, Any]]] = []
        self._evaluated: dict[str, Any] | None = None

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Boxes, labels, scores and, where the dataset has them, masks."""
        for prediction, target in zip(predictions, targets, strict=True):
            truth, found = self._annotations(target), self._detections(prediction, target)
            self.seen.add([target.image_id])  # last of what can fail: an image is counted wholly or not at all
            self.sizes.append(target.size)
            self.truth.append(truth)
            self.found.append(found)
        self._evaluated = None

    def _annotations(self, target: Target) -> list[dict[str, Any]]:
        if target.boxes is None or target.labels is None:
            raise UserError(f"Expected boxes and labels as ground truth of {target.image_id}; check the dataset")
        if self.info.has_masks:
            _check_masks("ground truth", target.masks, len(target.boxes), target)
        rows = []
        for index, box in enumerate(target.boxes):
            corner = _corner_and_size(box)
            row: dict[str, Any] = {
                "bbox": corner,
                "category_id": int(target.labels[index]) + 1,
                "iscrowd": int(target.crowd is not None and target.crowd[index]),
                "area": corner[2] * corner[3] if target.areas is None else float(target.areas[index]),
            }
            if self.info.has_masks and target.masks is not None:
                row["segmentation"] = _encode(target.masks[index])
            rows.append(row)
        return rows

    def _detections(self, prediction: Prediction, target: Target) -> list[dict[str, Any]]:
        if prediction.boxes is None or prediction.labels is None or prediction.scores is None:
            raise UserError(f"Expected boxes, labels and scores from the model for {target.image_id}, but some are missing")
        if self.info.has_masks and prediction.masks is None:
            raise UserError(f"The data has masks, but the model gave none for {target.image_id}; mask_ap needs them")
        if self.info.has_masks:
            _check_masks("predicted", prediction.masks, len(prediction.boxes), target)
        rows = []
        for index, box in enumerate(prediction.boxes):
            row: dict[str, Any] = {
                "bbox": _corner_and_size(box),
                "category_id": int(prediction.labels[index]) + 1,
                "score": float(prediction.scores[index]),
            }
            if self.info.has_masks and prediction.masks is not None:
                row["segmentation"] = _encode(prediction.masks[index])
            rows.append(row)
        return rows

    def merge(self, other: "AveragePrecision") -> None:
        """Add another's images."""
        self.seen.add(other.seen.ids)
        self.sizes += other.sizes
        self.truth += other.truth
        self.found += other.found
        self._evaluated = None

    def _order(self) -> list[int]:
        """Images by id: equal scores are ranked by the images' order, which must not depend on who saw them first."""
        return sorted(range(len(self.seen.ids)), key=lambda index: self.seen.ids[index])

    def _evaluate(self) -> dict[str, Any]:
        if self._evaluated is None:
            order = self._order()
            truth: dict[str, Any] = {
                "images": [
                    {"id": number, "height": self.sizes[index][0], "width": self.sizes[index][1]}
                    for number, index in enumerate(order, 1)
                ],
                "categories": [{"id": number, "name": name} for number, name in enumerate(self.info.classes, 1)],
                "annotations": [{**row, "image_id": number} for number, index in enumerate(order, 1) for row in self.truth[index]],
            }
            for number, row in enumerate(truth["annotations"], 1):
                row["id"] = number
            found = [{**row, "image_id": number} for number, index in enumerate(order, 1) for row in self.found[index]]
            reference = hotcoco.COCO(truth)
            kinds = {name: kind for name, kind in KINDS.items() if name == "box_ap" or self.info.has_masks}
            self._evaluated = {name: _run(reference, found, kind) for name, kind in kinds.items()}
        return self._evaluated

    def compute(self) -> dict[str, float]:
        """``box_ap`` and, with masks, ``mask_ap``; NaN where there is no object to find, 0 where none was found."""
        if not any(not row["iscrowd"] for rows in self.truth for row in rows):
            return {name: float("nan") for name in KINDS if name == "box_ap" or self.info.has_masks}
        return {name: _average(evaluated) for name, evaluated in self._evaluate().items()}

    def statistics(self) -> dict[str, np.ndarray]:
        """For ``box`` and ``mask``: detections with their matches at ten thresholds; ``objects`` int32 (N, C)."""
        order = self._order()
        arrays = {"image_ids": np.array([self.seen.ids[index] for index in order], dtype=np.str_)}
        for name, evaluated in self._evaluate().items():
            prefix = name.removesuffix("_ap")
            flat = _flatten(evaluated)
            arrays |= {f"{prefix}_{key}": value for key, value in flat.items()}
        objects = np.zeros((len(order), len(self.info.classes)), np.int32)
        for place, index in enumerate(order):
            for row in self.truth[index]:
                objects[place, row["category_id"] - 1] += not row["iscrowd"]
        return arrays | {"objects": objects}


def _run(reference: Any, found: list[dict[str, Any]], kind: str) -> Any:
    if not found:
        return None
    evaluated = hotcoco.COCOeval(reference, reference.loadRes(found), kind)
    evaluated.evaluate()
    evaluated.accumulate()
    return evaluated


def _average(evaluated: Any) -> float:
    if evaluated is None:
        return 0.0
    precision = np.asarray(evaluated.eval["precision"])[:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def _flatten(evaluated: Any) -> dict[str, np.ndarray]:
    rows: list[tuple[int, int, float]] = []
    matched: list[np.ndarray] = []
    ignored: list[np.ndarray] = []
    for one in evaluated.evalImgs if evaluated is not None else ():
        if one is None or list(one["aRng"]) != ALL_SIZES:
            continue
        image, label = one["image_id"] - 1, one["category_id"] - 1
        rows += [(image, label, score) for score in one["dtScores"]]
        if one["dtScores"]:
            matched.append(np.array(one["dtMatched"], bool).T)
            ignored.append(np.array(one["dtIgnore"], bool).T)
    empty = np.zeros((0, THRESHOLDS), bool)
    return {
        "image": np.array([row[0] for row in rows], np.int32),
        "label": np.array([row[1] for row in rows], np.int32),
        "score": np.array([row[2] for row in rows], np.float64),
        "matched": np.concatenate([empty, *matched]),
        "ignored": np.concatenate([empty, *ignored]),
    }
