"""Validation of predictions before they are scored."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stillrobust.errors import UserError
from stillrobust.predictors.predictor import Predictor
from stillrobust.samples import Array, Image, Prediction
from stillrobust.user_files import USER_CODE_ERRORS, error_summary

# pixels that a box may exceed the image by: detectors clip in the resized image and scale back
TOLERANCE = 1.0


def validated_predictor(
    predictor: Predictor, classes: int, has_masks: bool
) -> Callable[[Sequence[Image], Sequence[str]], list[Prediction]]:
    """Wrap ``predictor.predict`` with validation.

    Args:
        predictor: The model.
        classes: Number of classes of the dataset.
        has_masks: Whether the ground truth has masks.

    Returns:
        A function of images and their names. An invalid prediction, or an exception of the model,
        becomes a ``UserError`` that names the image.
    """

    def predict(images: Sequence[Image], names: Sequence[str]) -> list[Prediction]:
        try:
            predictions = predictor.predict(list(images))
        except UserError:
            raise
        except USER_CODE_ERRORS as error:
            failing = _first_failing_image(predictor, images, names)
            where = failing or f"a batch of {len(images)} images from {names[0]} on"
            raise UserError(
                f"{predictor.model} failed on {where}: {error_summary(error)}; call its predict on"
                " that image"
            ) from error
        if not isinstance(predictions, list | tuple) or len(predictions) != len(images):
            got = (
                f"{len(predictions)}"
                if isinstance(predictions, list | tuple)
                else type(predictions).__name__
            )
            raise UserError(
                f"Expected a list of {len(images)} predictions from {predictor.model}, but got"
                f" {got}; return one per image, in their order"
            )
        for image, name, prediction in zip(images, names, predictions, strict=True):
            fault = prediction_fault(
                prediction, predictor.task, image.shape[:2], classes, has_masks
            )
            if fault:
                raise UserError(
                    f"{predictor.model} cannot be scored on {name} {image.shape[:2]}: expected"
                    f" {fault}; correct its predict"
                )
        return list(predictions)

    return predict


def _first_failing_image(
    predictor: Predictor, images: Sequence[Image], names: Sequence[str]
) -> str:
    """Return the first image that the model fails on by itself; empty if there is none."""
    for image, name in zip(images, names, strict=True):
        try:
            predictor.predict([image])
        except USER_CODE_ERRORS:
            return f"{name} {image.shape[:2]}"
    return ""


def prediction_fault(
    prediction: object, task: str, size: tuple[int, ...], classes: int, has_masks: bool
) -> str:
    """Return what is wrong with a prediction, as ``"X, but got Y; do Z"``; empty if valid.

    Args:
        prediction: What the model returned for one image.
        task: Task of the dataset.
        size: (H, W) of the image.
        classes: Number of classes of the dataset.
        has_masks: Whether the ground truth has masks.
    """
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
            f"probabilities of shape ({classes},), but got {_shape(values)}; give one per class of"
            " the dataset, in its order"
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
    if (
        not np.isfinite(boxes).all()
        or (boxes < -TOLERANCE).any()
        or (boxes > limits + TOLERANCE).any()
    ):
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
