"""A finished model of any make, ready to be measured, and the checks of what it says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stillrobust.errors import UserError
from stillrobust.samples import Array, Image, Prediction
from stillrobust.storage.store import RunKind, Transfer
from stillrobust.user_files import RAISED, reason

Predict = Callable[[list[Image]], list[Prediction]]
# pixels that a box may reach over the image's edge: detectors clip in the resized image and scale
# back
OUTSIDE = 1.0


@dataclass(frozen=True)
class Predictor:
    """``predict(images: list of uint8 (H, W, 3) RGB) -> list[Prediction]``, one an image, and what
    there is to say of it.
    """

    task: str
    model: str
    """What it is called in reports: the backbone's spec, or the model's own name."""
    predict: Predict
    weights: str
    """SHA-256 (hex) of what decides its predictions; part of every number's protocol."""
    classes: tuple[str, ...] | None = None
    """In the order of its labels; ``None``: those of whatever data it is measured on."""
    masks: bool = True
    """Detection: whether it gives masks; without them only boxes are scored, and that is said."""
    kind: RunKind = "external"
    """How it came to be."""
    transfer: Transfer | None = None
    """``None`` unless ``kind`` is ``transfer``."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Anything else worth keeping with its numbers, as plain data."""


def checked(
    predictor: Predictor, classes: int, has_masks: bool
) -> Callable[[Sequence[Image], Sequence[str]], list[Prediction]]:
    """``predictor.predict`` that takes the images' names too and refuses what cannot be scored: one
    sentence with image and fault.

    ``classes``: how many the data has; ``has_masks``: whether its ground truth has masks.
    """

    def predict(images: Sequence[Image], names: Sequence[str]) -> list[Prediction]:
        try:
            predictions = predictor.predict(list(images))
        except UserError:
            raise
        except RAISED as error:  # told with its own words
            where = (
                _alone(predictor, images, names)
                or f"{len(images)} images together, {names[0]} first"
            )
            raise UserError(
                f"{predictor.model} failed on {where}: {reason(error)}; try its predict on that"
            ) from error
        if not isinstance(predictions, list | tuple) or len(predictions) != len(images):
            got = (
                f"{len(predictions)}"
                if isinstance(predictions, list | tuple)
                else type(predictions).__name__
            )
            raise UserError(
                f"Expected a list of {len(images)} predictions from {predictor.model}, but got"
                f" {got}; one an image, in their order"
            )
        for image, name, prediction in zip(images, names, predictions, strict=True):
            fault = fault_of(prediction, predictor.task, image.shape[:2], classes, has_masks)
            if fault:
                raise UserError(
                    f"{predictor.model} cannot be scored on {name} {image.shape[:2]}: expected"
                    f" {fault}; correct its predict"
                )
        return list(predictions)

    return predict


def _alone(predictor: Predictor, images: Sequence[Image], names: Sequence[str]) -> str:
    """The first image that the model fails on by itself; empty where it fails on none."""
    for image, name in zip(images, names, strict=True):
        try:
            predictor.predict([image])
        except RAISED:
            return f"{name} {image.shape[:2]}"
    return ""


def fault_of(
    prediction: object, task: str, size: tuple[int, ...], classes: int, has_masks: bool
) -> str:
    """What is wrong with one prediction, as ``"X, but got Y; do Z"``; empty where nothing is."""
    if not isinstance(prediction, Prediction):
        return (
            f"a stillrobust.samples.Prediction, but got {type(prediction).__name__}; wrap the"
            " arrays in one"
        )
    if task == "classification":
        return _fault_of_probabilities(prediction.probabilities, classes)
    if task == "segmentation":
        return _fault_of_map(prediction.label_map, size, classes)
    return _fault_of_detections(prediction, size, classes, has_masks)


def _fault_of_probabilities(values: Array | None, classes: int) -> str:
    if values is None or np.shape(values) != (classes,):
        return (
            f"probabilities of shape ({classes},), but got {_shape(values)}; one a class of the"
            " data, in its order"
        )
    if (
        not np.isfinite(values).all()
        or np.min(values) < -1e-6
        or abs(float(np.sum(values)) - 1) > 1e-2
    ):
        return (
            f"probabilities that sum to 1, but they sum to {float(np.sum(values)):.4g}; apply a"
            " softmax"
        )
    return ""


def _fault_of_map(values: Array | None, size: tuple[int, ...], classes: int) -> str:
    if values is None or np.shape(values) != tuple(size) or values.dtype != np.uint8:
        return (
            f"a label_map uint8 of shape {tuple(size)}, but got {_shape(values)}; resize the logits"
            " to the image, then argmax"
        )
    if values.size and int(values.max()) >= classes:
        return (
            f"labels below {classes}, but got {int(values.max())}; use the order of the data's"
            " classes"
        )
    return ""


def _fault_of_detections(
    prediction: Prediction, size: tuple[int, ...], classes: int, has_masks: bool
) -> str:
    boxes, labels, scores = prediction.boxes, prediction.labels, prediction.scores
    if boxes is None or labels is None or scores is None:
        missing = [
            name for name in ("boxes", "labels", "scores") if getattr(prediction, name) is None
        ]
        return (
            f"boxes, labels and scores, but {', '.join(missing)} is None; give empty arrays where"
            " nothing is found"
        )
    count = len(boxes)
    if (
        np.shape(boxes) != (count, 4)
        or np.shape(labels) != (count,)
        or np.shape(scores) != (count,)
    ):
        return (
            f"boxes (N, 4), labels (N,) and scores (N,), but got {_shape(boxes)}, {_shape(labels)},"
            f" {_shape(scores)}"
        )
    if count == 0:
        return ""
    if not np.isfinite(scores).all() or np.min(scores) < 0 or np.max(scores) > 1:
        return f"scores in 0..1, but got {_range(scores)}; apply a softmax or sigmoid"
    if (
        not np.issubdtype(np.asarray(labels).dtype, np.integer)
        or np.min(labels) < 0
        or np.max(labels) >= classes
    ):
        return (
            f"integer labels in 0..{classes - 1}, but got {_range(labels)}; count from 0 in the"
            " order of the data's classes"
        )
    limits = np.array([size[1], size[0], size[1], size[0]], np.float64)
    if not np.isfinite(boxes).all() or (boxes < -OUTSIDE).any() or (boxes > limits + OUTSIDE).any():
        return (
            f"boxes xyxy in pixels of the image, but got {_range(boxes)}; scale them back and clip"
            " them"
        )
    if (boxes[:, 2:] < boxes[:, :2]).any():
        return (
            "boxes as x1, y1, x2, y2, but some end before they start; convert them from x, y,"
            " width, height"
        )
    if has_masks and (prediction.masks is None or np.shape(prediction.masks) != (count, *size)):
        return (
            f"masks bool of shape {(count, *size)}, but got {_shape(prediction.masks)}; the data"
            " has masks"
        )
    return ""


def _shape(values: Any) -> str:
    return (
        "None"
        if values is None
        else f"{getattr(values, 'dtype', type(values).__name__)} {np.shape(values)}"
    )


def _range(values: Array) -> str:
    return f"values from {np.min(values):.4g} to {np.max(values):.4g}"
