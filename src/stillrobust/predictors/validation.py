"""Copying, conversion and validation of what a model returns, before anything reads it."""

import sys
from collections.abc import Callable, Sequence
from itertools import combinations, islice
from typing import Any

import numpy as np

from stillrobust.errors import UserError
from stillrobust.names import format_count
from stillrobust.predictors.predictor import Predictor
from stillrobust.samples import Array, Image, Prediction
from stillrobust.untrusted import printable
from stillrobust.user_files import error_summary

# pixels that a box may exceed the image by: detectors clip in the resized image and scale back
TOLERANCE = 1.0
ROUNDING = 1e-6  # by which float32 probabilities may leave 0..1
SUM_ROUNDING = 1e-2  # of float16 probabilities of many classes
LARGEST = 1 << 28  # numbers in an array of one image
LARGEST_MASKS = 1 << 33  # a thousand masks of 8 megapixels
FIELDS = {
    "classification": ("probabilities",),
    "detection": ("boxes", "labels", "scores", "masks"),
    "segmentation": ("label_map", "confidence"),
}


class PredictionFault(ValueError):
    """What is wrong with a prediction, as ``"X, but got Y; do Z"``."""


def validated_predictor(
    predictor: Predictor, classes: int, has_masks: bool
) -> Callable[[Sequence[Image], Sequence[str]], list[Prediction]]:
    """Wrap ``predictor.predict`` with copies of the images, conversion and validation.

    A model may write into its images. A model that returns the same memory for several images of a
    batch, such as one output buffer, receives one image at a time from then on.

    Args:
        predictor: The model.
        classes: Number of classes of the dataset.
        has_masks: Whether the ground truth has masks.

    Returns:
        A function of images and their names, which returns plain copies; see
        :func:`validated_prediction`. An invalid prediction, or an exception of the model, becomes a
        ``UserError`` that names the image.
    """
    one_by_one = False

    def predict(images: Sequence[Image], names: Sequence[str]) -> list[Prediction]:
        nonlocal one_by_one
        if one_by_one and len(images) > 1:
            return [predict([image], [name])[0] for image, name in zip(images, names, strict=True)]
        predictions = _call(predictor, images, names)
        if len(images) > 1 and _share_memory(predictions, FIELDS[predictor.task]):
            one_by_one = True
            return predict(images, names)
        valid = []
        for image, name, prediction in zip(images, names, predictions, strict=True):
            height, width = image.shape[:2]
            try:
                valid.append(
                    validated_prediction(
                        prediction, predictor.task, (height, width), classes, has_masks
                    )
                )
            except PredictionFault as fault:
                raise UserError(
                    f"{predictor.model} cannot be scored on {name} {(height, width)}: expected"
                    f" {fault}; correct its predict"
                ) from None
        return valid

    return predict


def _call(predictor: Predictor, images: Sequence[Image], names: Sequence[str]) -> list[Any]:
    """Return what the model returns for copies of the images, one object per image."""
    try:
        predictions = predictor.predict([image.copy() for image in images])
        known = isinstance(predictions, list | tuple)
        # one more than expected suffices: a class of the user's may iterate without end
        found = list(islice(predictions, len(images) + 1)) if known else None
    except UserError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        failing = _first_failing_image(predictor, images, names)
        where = failing or f"a batch of {format_count(len(images), 'image')} from {names[0]} on"
        raise UserError(
            f"{predictor.model} failed on {where}: {error_summary(error)}; call its predict on"
            " that image"
        ) from error
    if found is None or len(found) != len(images):
        got = _type_name(predictions) if found is None else f"{len(found)}"
        got = f"more than {len(images)}" if found and len(found) > len(images) else got
        raise UserError(
            f"Expected a list of {format_count(len(images), 'prediction')} from"
            f" {predictor.model}, but got"
            f" {got}; return one per image, in their order"
        )
    return found


def _first_failing_image(
    predictor: Predictor, images: Sequence[Image], names: Sequence[str]
) -> str:
    """Return the first image that the model fails on by itself; empty if there is none."""
    for image, name in zip(images, names, strict=True):
        try:
            predictor.predict([image.copy()])
        except KeyboardInterrupt:
            raise
        except BaseException:
            return f"{name} {image.shape[:2]}"
    return ""


def _share_memory(predictions: Sequence[Any], fields: Sequence[str]) -> bool:
    """Return whether two predictions hold the same memory, which the model may have overwritten."""
    for name in fields:
        values = [_field(prediction, name) for prediction in predictions]
        for one, other in combinations([value for value in values if value is not None], 2):
            if _same_memory(one, other):
                return True
    return False


def _field(prediction: Any, name: str) -> Any:
    # anything else is refused later
    return getattr(prediction, name) if type(prediction) is Prediction else None


def _same_memory(one: Any, other: Any) -> bool:
    if _is_tensor(one) and _is_tensor(other):
        try:
            return bool(one.numel() > 0 and one.data_ptr() == other.data_ptr())
        except (
            RuntimeError,
            TypeError,
        ):  # a tensor without memory of its own, such as a sparse one
            return False
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        # overlapping bounds suffice: predicting one by one is right in any case
        return bool(one.size) and bool(np.may_share_memory(one, other))
    return one is other and isinstance(one, list)


def validated_prediction(
    prediction: object, task: str, size: tuple[int, int], classes: int, has_masks: bool
) -> Prediction:
    """Copy a prediction into plain arrays and check it.

    Arrays, tensors on any device, and lists are accepted, of booleans, integers or real numbers.

    Args:
        prediction: What the model returned for one image.
        task: Task of the dataset.
        size: (H, W) of the image.
        classes: Number of classes of the dataset.
        has_masks: Whether the ground truth has masks.

    Returns:
        A prediction with the fields of the task, in contiguous arrays of its own: float32 or
        float64 numbers, int64 ``labels``, bool ``masks``, uint8 ``label_map``.

    Raises:
        PredictionFault: If the prediction cannot be scored.
    """
    if type(prediction) is not Prediction:
        raise PredictionFault(
            f"a stillrobust.samples.Prediction, but got {_type_name(prediction)}; wrap the arrays"
            " in one"
        )
    values = {name: _plain_array(name, getattr(prediction, name)) for name in FIELDS[task]}
    if task == "classification":
        return Prediction(probabilities=_probabilities(values["probabilities"], classes))
    if task == "segmentation":
        return Prediction(
            label_map=_label_map(values["label_map"], size, classes),
            confidence=_confidence(values["confidence"], size),
        )
    return _detections(values, size, classes, has_masks)


def _plain_array(name: str, value: Any) -> Array | None:
    """Return a contiguous copy as bool, integers, float32 or float64; ``None`` for ``None``."""
    if value is None:
        return None
    try:
        found = _as_numpy(name, value)
        _require_bounded(name, found.size if isinstance(found, np.ndarray) else 0)
        plain = np.array(found, order="C", copy=True, subok=False)
    except PredictionFault:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PredictionFault(
            f"{name} as an array, but {_type_name(value)} cannot be converted to one"
            f" ({error_summary(error)}); return an array of numbers"
        ) from None
    if plain.dtype.kind not in "biuf":
        raise PredictionFault(
            f"{name} of booleans, integers or real numbers, but got {_shape(plain)}; convert them"
        )
    if plain.dtype.kind == "f":
        wide = plain.dtype.itemsize >= np.dtype(np.float64).itemsize
        with np.errstate(over="ignore"):  # of long doubles; infinity is refused later
            return plain.astype(np.float64 if wide else np.float32)
    return plain.astype(plain.dtype.newbyteorder("="))


def _require_bounded(name: str, size: int) -> None:
    """Refuse an array before it is copied; a view may claim more than the memory has."""
    if size > (LARGEST_MASKS if name == "masks" else LARGEST):
        raise PredictionFault(f"{name} of one image, but got {size:,} numbers; return fewer")


def _is_tensor(value: Any) -> bool:
    """Whether this is a tensor. Predictions made elsewhere are validated without torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _as_numpy(name: str, value: Any) -> Any:
    """Return an array or nested list of numbers; the caller copies it."""
    if isinstance(value, bool | int | float | np.generic):
        return value
    if _is_tensor(value):
        import torch

        _require_bounded(name, value.numel())
        tensor = value.detach().cpu()
        if tensor.layout is not torch.strided:
            tensor = tensor.to_dense()
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            tensor = tensor.float()  # numpy has no bfloat16 and no float8
        return tensor.resolve_conj().resolve_neg().numpy()
    if isinstance(value, np.ma.MaskedArray):
        raise PredictionFault(
            f"{name} as a plain array, but got a masked array of shape {np.shape(value)}; fill it"
            " with .filled(value)"
        )
    if isinstance(value, list | tuple):
        return [_as_numpy(name, item) for item in value]
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return _as_numpy(name, np.asanyarray(value))
    raise PredictionFault(
        f"{name} as an array, a tensor or a list, but got {_type_name(value)}; return an array"
    )


def _probabilities(values: Array | None, classes: int) -> Array:
    if values is None or values.shape != (classes,):
        raise PredictionFault(
            f"probabilities of shape ({classes},), but got {_shape(values)}; give one per class of"
            " the dataset, in its order"
        )
    numbers = _as_float(values)
    total = float(numbers.astype(np.float64).sum()) if np.isfinite(numbers).all() else np.nan
    if not abs(total - 1) <= SUM_ROUNDING:
        raise PredictionFault(
            f"probabilities that sum to 1, but they sum to {total:.4g} and have"
            f" {_range(numbers)}; apply a softmax"
        )
    return _within_0_and_1("probabilities", numbers)


def _label_map(values: Array | None, size: tuple[int, int], classes: int) -> Array:
    if values is None or values.shape != size:
        raise PredictionFault(
            f"a label_map of shape {size}, but got {_shape(values)}; resize the logits to the"
            " image, then argmax"
        )
    return _labels("label_map", values, classes).astype(np.uint8)


def _confidence(values: Array | None, size: tuple[int, int]) -> Array | None:
    if values is None:
        return None
    if values.shape != size:
        raise PredictionFault(
            f"confidence of shape {size}, but got {_shape(values)}; resize it to the image, or"
            " leave it out"
        )
    return _within_0_and_1("confidence", _as_float(values))


def _detections(
    values: dict[str, Array | None], size: tuple[int, int], classes: int, has_masks: bool
) -> Prediction:
    boxes, labels, scores, masks = (values[name] for name in FIELDS["detection"])
    if boxes is None or labels is None or scores is None:
        missing = [name for name in ("boxes", "labels", "scores") if values[name] is None]
        raise PredictionFault(
            f"boxes, labels and scores, but {', '.join(missing)} is None; give empty arrays where"
            " nothing is found"
        )
    count = len(boxes) if boxes.ndim else -1
    if boxes.shape == (0,):  # an empty list
        boxes = boxes.reshape(0, 4)
    if boxes.shape != (count, 4) or labels.shape != (count,) or scores.shape != (count,):
        raise PredictionFault(
            f"boxes (N, 4), labels (N,) and scores (N,), but got {_shape(boxes)}, {_shape(labels)},"
            f" {_shape(scores)}; give one row per detection of this image"
        )
    return Prediction(
        boxes=_boxes(_as_float(boxes), size),
        labels=_labels("labels", labels, classes),
        scores=_within_0_and_1("scores", _as_float(scores)),
        masks=_masks(masks, (count, *size)) if has_masks else None,
    )


def _boxes(boxes: Array, size: tuple[int, int]) -> Array:
    limits = np.array([size[1], size[0], size[1], size[0]], np.float64)
    if (
        not np.isfinite(boxes).all()
        or (boxes < -TOLERANCE).any()
        or (boxes > limits + TOLERANCE).any()
    ):
        raise PredictionFault(
            f"boxes xyxy in pixels of the image, but got {_range(boxes)}; scale them back and clip"
            " them"
        )
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise PredictionFault(
            "boxes as x1, y1, x2, y2, but some end before they start; convert them from x, y,"
            " width, height"
        )
    return boxes


def _labels(name: str, values: Array, classes: int) -> Array:
    """Return labels as int64."""
    if values.size and not (
        np.isfinite(values).all()
        and np.min(values) >= 0
        and np.max(values) < classes
        and (values == np.floor(values)).all()
    ):
        raise PredictionFault(
            f"{name} of integer labels in 0..{classes - 1}, but got {_range(values)}; count from 0"
            " in the order of the data's classes"
        )
    return values.astype(np.int64)


def _masks(values: Array | None, shape: tuple[int, ...]) -> Array:
    if values is not None and shape[0] == 0 and len(values.shape) and len(values) == 0:
        return np.zeros(shape, bool)
    if values is None or values.shape != shape:
        raise PredictionFault(
            f"masks bool of shape {shape}, but got {_shape(values)}; the data has masks"
        )
    if values.dtype != bool and not np.isin(values, (0, 1)).all():
        raise PredictionFault(
            f"masks of booleans, or 0 and 1, but got {_range(values)}; apply a threshold"
        )
    return values.astype(bool, copy=False)


def _within_0_and_1(name: str, values: Array) -> Array:
    if values.size and not (np.min(values) >= -ROUNDING and np.max(values) <= 1 + ROUNDING):
        raise PredictionFault(
            f"{name} in 0..1, but got {_range(values)}; apply a softmax or sigmoid"
        )
    return np.clip(values, 0, 1)


def _as_float(values: Array) -> Array:
    """Return float64 values as they are, and others as the float type that holds them exactly."""
    return values.astype(np.result_type(values.dtype, np.float32), copy=False)


def _type_name(value: object) -> str:
    """Return the printable name of a value's type."""
    return printable(type(value).__name__)[:60]


def _shape(values: Array | None) -> str:
    return "None" if values is None else f"{values.dtype} {values.shape}"


def _range(values: Array) -> str:
    if np.isnan(values).any():
        return "NaN"
    return f"values from {np.min(values):.4g} to {np.max(values):.4g}"
