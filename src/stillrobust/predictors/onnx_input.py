"""Preparation of images for ONNX files: size, layout, channels, range; and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from stillrobust.errors import UserError
from stillrobust.predictors.onnx_session import OnnxFile
from stillrobust.samples import Array, Image

FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
SIZE_INPUT = "orig_target_sizes"  # of RT-DETR and D-FINE: (W, H) that boxes are scaled to
CHANNELS = (3, 1)
PADDING = 114  # grey of letterboxes, as in Ultralytics' LetterBox


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the input of a model."""

    image: tuple[int, int]
    """(H, W) of the image."""
    input: tuple[int, int]
    """(H, W) of the input."""
    inner: tuple[int, int, int, int]
    """top, left, height, width of the resized image in the input."""

    def boxes_to_image(self, boxes: Array) -> Array:
        """Convert boxes (N, 4) xyxy in pixels of the input to pixels of the image."""
        top, left, height, width = self.inner
        scale = np.array([self.image[1] / width, self.image[0] / height] * 2)
        placed: Array = ((boxes - np.array([left, top] * 2)) * scale).astype(np.float32)
        return placed

    def crop(self, planes: Array) -> Array:
        """Cut the padding off planes (..., h, w) that cover the input at any resolution."""
        rows, columns = (planes.shape[-2] / self.input[0], planes.shape[-1] / self.input[1])
        top, left, height, width = self.inner
        first, start = round(top * rows), round(left * columns)
        last, end = round((top + height) * rows), round((left + width) * columns)
        return planes[..., first : max(last, first + 1), start : max(end, start + 1)]


@dataclass(frozen=True)
class OnnxInput:
    """How an image becomes the input of a file."""

    name: str
    dtype: Any
    layout: str
    """``nchw`` or ``nhwc``."""
    channels: int
    size: tuple[int, int] | None
    """(H, W) that images are resized to; ``None`` for the size of the image."""
    letterbox: bool
    bgr: bool
    mean: tuple[float, ...] | None
    """``None`` for uint8 inputs, which take the pixels as they are."""
    std: tuple[float, ...] | None
    scale: float
    takes_size: bool
    """Whether a second input takes the size that boxes are scaled to."""

    def prepare(self, image: Image) -> tuple[dict[str, Array], Placement]:
        """Return the feeds of the session and the placement of the image.

        Args:
            image: uint8 (H, W, 3) RGB.
        """
        pixels, placement = self._resize(image)
        if self.channels == 1:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
        elif self.bgr:
            pixels = pixels[..., ::-1]
        values: Array = pixels
        if self.mean is not None:
            scaled = pixels.astype(np.float32) / 255 * np.float32(self.scale)
            values = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        planes = values if self.layout == "nhwc" else values.transpose(2, 0, 1)
        feeds = {self.name: np.ascontiguousarray(planes[None], dtype=self.dtype)}
        if self.takes_size:
            feeds[SIZE_INPUT] = np.array([placement.input[::-1]], np.int64)
        return feeds, placement

    def _resize(self, image: Image) -> tuple[Image, Placement]:
        height, width = image.shape[:2]
        if self.size is None:
            return image, Placement((height, width), (height, width), (0, 0, height, width))
        top, left, inner = 0, 0, self.size
        if self.letterbox:
            ratio = min(self.size[0] / height, self.size[1] / width)
            inner = (max(1, round(height * ratio)), max(1, round(width * ratio)))
            # Ultralytics' LetterBox rounds half a pixel down
            top, left = (
                round((whole - part) / 2 - 0.1)
                for whole, part in zip(self.size, inner, strict=True)
            )
        resized = cv2.resize(image, inner[::-1], interpolation=cv2.INTER_LINEAR)
        if self.letterbox:
            canvas = np.full((*self.size, 3), PADDING, np.uint8)
            canvas[top : top + inner[0], left : left + inner[1]] = resized
            resized = canvas
        return resized, Placement((height, width), self.size, (top, left, *inner))

    def facts(self) -> dict[str, Any]:
        """Return what is stored with the run."""
        return {
            "size": self.size,
            "layout": self.layout,
            "channels": "grey" if self.channels == 1 else "bgr" if self.bgr else "rgb",
            "letterbox": self.letterbox,
            "mean": self.mean,
            "std": self.std,
            "scale": self.scale,
        }


def read_input(file: OnnxFile, options: Mapping[str, Any], missing: dict[str, str]) -> OnnxInput:
    """Determine how images enter a file, from its input and the options.

    Args:
        file: The open file.
        options: ``size``, ``layout``, ``channels``, ``letterbox``, ``mean``, ``std``, ``scale``;
            ``None`` where the file decides.
        missing: Receives the options that have to be given: name -> what to give.

    Raises:
        UserError: If the file has other inputs, or an option contradicts the file.
    """
    inputs = {one.name: one for one in file.session.get_inputs()}
    takes_size = len(inputs) == 2 and SIZE_INPUT in inputs
    images = [one for name, one in inputs.items() if not (takes_size and name == SIZE_INPUT)]
    if len(images) != 1 or len(images[0].shape) != 4:
        raise UserError(
            f"Expected one input of images with 4 axes in {file.path}, but it has"
            f" {file.description()}; export it so, or write a Python file"
            " (docs/how_to/your_model.md)"
        )
    shape, kind = list(images[0].shape), images[0].type
    if kind not in FLOAT_TYPES and kind != "tensor(uint8)":
        raise UserError(
            f"Expected an input of float32, float16 or uint8 in {file.path}, but it has"
            f" {file.description()}; export it so"
        )
    if isinstance(shape[0], int) and shape[0] > 1:
        raise UserError(
            f"Expected a batch of 1 or of any size in {file.path}, but it has"
            f" {file.description()}; export it with batch 1"
        )
    layout = _layout(file, shape, options["layout"], missing)
    axes = shape[1:] if layout == "nhwc" else [*shape[2:], shape[1]]
    mean, std = _normalisation(file, kind, axes[2], options, missing)
    ultralytics = file.from_ultralytics and file.metadata.get("task") != "classify"
    letterbox = options["letterbox"]
    return OnnxInput(
        name=images[0].name,
        dtype=FLOAT_TYPES.get(kind, np.uint8),
        layout=layout,
        channels=1 if axes[2] == 1 else 3,
        size=_size(file, axes[:2], options["size"]),
        letterbox=ultralytics if letterbox is None else letterbox,
        bgr=options["channels"] == "bgr",
        mean=mean,
        std=std,
        scale=options["scale"],
        takes_size=takes_size,
    )


def _layout(file: OnnxFile, shape: list[Any], given: str | None, missing: dict[str, str]) -> str:
    sides = {"nchw": (1, shape[2:]), "nhwc": (3, shape[1:3])}
    possible = [name for name, (axis, _) in sides.items() if shape[axis] in CHANNELS] or [
        name  # the axis of channels is dynamic
        for name, (axis, size) in sides.items()
        if not isinstance(shape[axis], int) and isinstance(size[0], int) == isinstance(size[1], int)
    ]
    if not possible or (given is not None and given not in possible):
        raise UserError(
            f"Expected an input of 3 channels (RGB) or 1 (grey)"
            f"{f' in the layout {given}' if given else ''} in {file.path}, but it has"
            f" {file.description()}; export it so, or write a Python file"
            " (docs/how_to/your_model.md)"
        )
    if given is None and len(possible) > 1:
        missing["layout"] = "layout='nchw' or 'nhwc'"
    return given or possible[0]


def _size(file: OnnxFile, axes: list[Any], given: tuple[int, int] | None) -> tuple[int, int] | None:
    fixed = tuple(axis if isinstance(axis, int) and axis > 0 else None for axis in axes)
    if given is not None and any(
        axis not in (None, wanted) for axis, wanted in zip(fixed, given, strict=True)
    ):
        raise UserError(
            f"{file.path} has an input of fixed size ({axes[0]}, {axes[1]}), but got size={given};"
            " leave size out, or export the file with that size"
        )
    if given is not None:
        return given
    if None not in fixed:
        return fixed  # type: ignore[return-value]
    if any(fixed):
        raise UserError(
            f"Expected size=(H, W), because the input of {file.path} fixes one side:"
            f" ({axes[0]}, {axes[1]}); give it"
        )
    exported = file.metadata.get("imgsz") if file.from_ultralytics else None
    if isinstance(exported, list | tuple) and len(exported) == 2:
        return int(exported[0]), int(exported[1])
    return None


def _normalisation(
    file: OnnxFile, kind: str, channels: Any, options: Mapping[str, Any], missing: dict[str, str]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    mean, std = options["mean"], options["std"]
    if kind == "tensor(uint8)":
        if mean is not None or std is not None or options["scale"] != 1:
            raise UserError(
                f"{file.path} takes uint8 pixels as they are ({file.description()}), but got mean,"
                " std or scale; leave them out"
            )
        return None, None
    if mean is None and std is None and file.from_ultralytics:
        return (0.0,), (1.0,)  # Ultralytics exports take 0..1
    if mean is None or std is None:
        missing["mean, std"] = (
            "mean=0, std=1 (pixels of 0..1), mean=0, std=1, scale=255 (0..255), or"
            " mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225) (ImageNet)"
        )
        return (0.0,), (1.0,)
    if channels == 1 and (len(mean) > 1 or len(std) > 1):
        raise UserError(
            f"{file.path} has one channel ({file.description()}), but got mean={mean}, std={std};"
            " give one number each"
        )
    if max(mean) > options["scale"]:
        raise UserError(
            f"Expected a mean within 0..{options['scale']}, the range of the pixels, but got"
            f" mean={mean}; give scale=255 if mean and std are for pixels of 0..255"
        )
    return mean, std
