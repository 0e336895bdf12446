"""Checks of the options of ONNX files, and the names of their classes."""

from collections.abc import Mapping, Sequence
from typing import Any

from stillrobust.errors import UserError
from stillrobust.predictors.onnx_detections import BOX_FORMATS, SCORE_KINDS
from stillrobust.predictors.onnx_session import OnnxFile
from stillrobust.predictors.outputs import class_names
from stillrobust.samples import DatasetInfo

CHOICES = {
    "layout": ("nchw", "nhwc"),
    "channels": ("rgb", "bgr"),
    "boxes": BOX_FORMATS,
    "scores": SCORE_KINDS,
    "first_label": (0, 1),
    "scale": (1, 255),
    "letterbox": (True, False),
    "normalized": (True, False),
}


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of an ONNX file.

    Args:
        options: Values by name; ``None`` for those that are not given.

    Returns:
        The same with ``size`` and the numbers of ``mean`` and ``std`` as tuples.

    Raises:
        UserError: If a value is not one of its option.
    """
    found = dict(options)
    for name, choices in CHOICES.items():
        value = options[name]
        if value is not None and not any(
            value == choice and isinstance(value, bool) == isinstance(choice, bool)
            for choice in choices
        ):
            raise _wrong(name, " or ".join(map(repr, choices)), value)
    for name in ("mean", "std"):
        found[name] = _numbers(name, options[name])
    nms = options["nms"]
    if nms is not None and nms is not False and not (_is_number(nms) and 0 < nms <= 1):
        raise _wrong("nms", "an overlap of 0..1, or False if the file does it", nms)
    size = options["size"]
    if size is not None:
        if not isinstance(size, list | tuple) or len(size) != 2 or not all(map(_is_side, size)):
            raise _wrong("size", "(H, W) in pixels", size)
        found["size"] = (int(size[0]), int(size[1]))
    return found


def named_classes(file: OnnxFile, given: object, info: DatasetInfo) -> Sequence[str] | None:
    """Return the model's class names by index: from the option, or from the file's metadata.

    Args:
        file: The open file.
        given: The option ``classes``.
        info: Description of the dataset.

    Returns:
        The names, or ``None`` if neither tells them.

    Raises:
        UserError: If the option is no list of names and no known set.
    """
    if given is None:
        names = file.metadata.get("names")
        if isinstance(names, dict) and all(isinstance(number, int) for number in names):
            return class_names({number: str(name) for number, name in names.items()})
        return None
    if given == "data":
        return info.classes
    if given in ("coco", "coco91"):
        from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

        names = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
        return names if given == "coco91" else [n for n in names[1:] if n != "N/A"]
    if (
        not isinstance(given, list | tuple)
        or not given
        or not all(isinstance(name, str) for name in given)
    ):
        raise _wrong("classes", "a list of names, 'data', 'coco' or 'coco91'", given)
    return list(given)


def _numbers(name: str, value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    values = value if isinstance(value, list | tuple) else (value,)
    if len(values) not in (1, 3) or not all(
        _is_number(one) and (name == "mean" or one > 0) for one in values
    ):
        positive = "positive " if name == "std" else ""
        raise _wrong(name, f"one {positive}number, or one for each of three channels", value)
    return tuple(float(one) for one in values)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    )


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 16


def _wrong(name: str, expected: str, value: object) -> UserError:
    return UserError(f"Expected {name}={expected}, but got {name}={value!r}; correct it")
