"""Decode image files to uint8 RGB. One table for readers, folders that are corrupted, and caches.

| Image | Pixels |
|---|---|
| 8 bits a sample | as stored: grey repeated, palette looked up, alpha dropped, CMYK to RGB |
| fewer bits | stretched, so that the largest value is 255 |
| more bits, whole numbers | the range ``scale``; without it the upper 8 bits, if they tell enough |
| more bits, of another type | the range ``scale``, which is required |

The EXIF orientation is applied unless it is switched off. Colour profiles are not applied. Of
several frames or pages the first is read.
"""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

from stillrobust.data.image_headers import (
    IMAGE_KINDS,
    MAX_PIXELS,
    UNREADABLE,
    ImageHeader,
    has_all_chunks,
    read_header,
)
from stillrobust.data.jpeg_scans import has_all_blocks, has_all_scans, may_lack_data
from stillrobust.errors import UserError
from stillrobust.samples import Array, Image

LEAST_SPAN = 1 / 4  # of the range of 16 bits; below it, 8 bits would tell few levels apart
# How to undo what an orientation did, as (transpose, flip rows, flip columns), in this order.
UNDO_ORIENTATION: Mapping[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


class RefusedImageError(Exception):
    """An image that cannot be used.

    Args:
        expected: What was expected, such as "a whole image".
        found: What was found, such as "the file is cut off".
        advice: What to do.
        fault: Heading under which such images are counted.
    """

    def __init__(self, expected: str, found: str, advice: str, fault: str) -> None:
        super().__init__(found)
        self.expected, self.found, self.advice, self.fault = expected, found, advice, fault


@dataclass(frozen=True)
class ImageReading:
    """How the images of a dataset are read.

    Raises:
        UserError: For an invalid value.
    """

    scale: tuple[float, float] | None = None
    """(low, high): the values of images with more than 8 bits that become 0 and 255."""
    exif: bool = True
    """Apply the EXIF orientation; ``False`` for boxes on images as they are stored."""

    def __post_init__(self) -> None:
        if self.scale is not None:
            object.__setattr__(self, "scale", _checked_scale(self.scale))
        if not isinstance(self.exif, bool):
            raise UserError(f"Expected exif=True or exif=False, but got {self.exif!r}; give one")

    @property
    def protocol(self) -> str:
        """The text that stands in the protocol; empty for the default."""
        parts = []
        if self.scale:
            low, high = self.scale
            parts.append(f"values {low:.10g} to {high:.10g} become 0 to 255")
        if not self.exif:
            parts.append("EXIF orientation ignored")
        return "; ".join(parts)


DEFAULT_READING = ImageReading()


def _checked_scale(scale: Any) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in scale)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(
            f"Expected scale=(low, high) with two numbers and low < high, but got {scale!r}; give"
            " the values that become 0 and 255"
        )
    return low, high


@dataclass(frozen=True)
class DecodedImage:
    """An image and what was done with its values."""

    pixels: Image
    """uint8 (H, W, 3) RGB."""
    header: ImageHeader
    clipped: float = 0.0
    """Share of the values outside ``scale``, 0..1."""


def check_image(content: bytes) -> ImageHeader:
    """Check everything that can be seen without decoding.

    Args:
        content: The file's bytes.

    Returns:
        The header.

    Raises:
        RefusedImageError: If the image is cut off, too large, or of a kind that is not read.
    """
    header = read_header(content)
    if is_cut_off(content, header):
        raise cut_off_error()
    if header is None:
        raise undecodable_error()
    if header.width * header.height > MAX_PIXELS:
        raise RefusedImageError(
            f"an image of at most {MAX_PIXELS:,} pixels",
            "it has more",
            "scale it down",
            f"more than {MAX_PIXELS:,} pixels",
        )
    if header.refused:
        raise RefusedImageError(
            f"a {IMAGE_KINDS} image",
            header.refused,
            "save it as an 8-bit PNG",
            "a kind of image that is not read",
        )
    return header


def undecodable_error() -> RefusedImageError:
    """The error for a file that is damaged or none of ``IMAGE_KINDS``."""
    return RefusedImageError(
        f"a {IMAGE_KINDS} image",
        "its content cannot be decoded",
        "replace the file",
        "cannot be decoded",
    )


def cut_off_error() -> RefusedImageError:
    """The error for a file that is not whole."""
    return RefusedImageError(
        "a whole image", "the file is cut off or empty", "replace it", "cut off or empty"
    )


def is_cut_off(content: bytes, header: ImageHeader | None) -> bool:
    """Whether a file is empty, or a PNG or JPEG lacks its end or a scan.

    Decoders would fill the rest of a JPEG with grey. Of the other kinds they refuse cut files.
    """
    if header and header.jpeg:
        return not (header.jpeg.has_end and has_all_scans(header.jpeg))
    return not content or (content.startswith(b"\x89PNG") and not has_all_chunks(content))


def require_all_blocks(
    content: bytes, header: ImageHeader, corners: Sequence[Sequence[int]]
) -> None:
    """Require that a decoded JPEG had the data of all its pixels.

    Args:
        content: The file's bytes.
        header: Its header.
        corners: RGB of the decoded picture's four corners.

    Raises:
        RefusedImageError: If data are missing, even if the file has an end marker.
    """
    layout = header.jpeg
    if layout and may_lack_data(layout, corners) and not has_all_blocks(content, layout):
        raise cut_off_error()


def decode_image(content: bytes, reading: ImageReading = DEFAULT_READING) -> DecodedImage:
    """Decode an image file by the rules of this module.

    Args:
        content: The file's bytes.
        reading: Options of the dataset.

    Returns:
        The image.

    Raises:
        RefusedImageError: If the image cannot be used.
    """
    header = check_image(content)
    clipped = 0.0
    if header.bits > 8 or header.sample != "unsigned":
        values = _decode_deep(content, header, reading.exif)
        pixels, clipped = _to_eight_bits(values, header, reading.scale)
    elif header.kind == "GIF" or (header.kind == "TIFF" and (header.bits < 8 or header.has_alpha)):
        pixels = _decode_by_pillow(content)
    else:
        pixels = _decode_by_opencv(content, cv2.IMREAD_COLOR, reading.exif)
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, pixels)
        if header.jpeg:
            require_all_blocks(content, header, pixels[[0, 0, -1, -1], [0, -1, 0, -1]].tolist())
    if header.kind == "TIFF" and not reading.exif:
        pixels = _undo_orientation(pixels, header.orientation)
    return DecodedImage(pixels, header, clipped)


def _decode_by_opencv(content: bytes, flags: int, exif: bool) -> Array:
    """(H, W) or (H, W, 3 or 4) BGR."""
    if not exif and flags != cv2.IMREAD_UNCHANGED:  # which never applies it
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # for instance a header that claims more pixels than OpenCV accepts
        decoded = None
    if decoded is None:
        raise undecodable_error()
    return np.asarray(decoded)


def _decode_by_pillow(content: bytes) -> Image:
    """GIF, and TIFF with alpha, which OpenCV would darken, or of few bits."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = PillowImage.open(io.BytesIO(content))
            return np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    except UNREADABLE:
        raise undecodable_error() from None


def _decode_deep(content: bytes, header: ImageHeader, exif: bool) -> Array:
    """Stored values of more than 8 bits, (H, W) or (H, W, 3) RGB."""
    if header.kind == "PNG":
        values = _decode_by_opencv(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, exif)
    else:
        values = _decode_by_opencv(content, cv2.IMREAD_UNCHANGED, exif)
        if header.bits in (10, 12, 14):  # OpenCV fills 16 bits from the top
            values = values >> (16 - header.bits)
    if 8 * values.itemsize < header.bits:
        raise undecodable_error()
    if header.white_is_zero and header.sample == "unsigned":
        values = (2**header.bits - 1 - values).astype(values.dtype)
    return values[..., 2::-1] if values.ndim == 3 else values


def _to_eight_bits(
    values: Array, header: ImageHeader, scale: tuple[float, float] | None
) -> tuple[Image, float]:
    """uint8 (H, W, 3) and the share of the values that were clipped."""
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RefusedImageError(
            "an image of finite numbers",
            "its values include NaN or infinity",
            "replace them",
            "values that are not finite",
        )
    clipped = 0.0
    if scale:
        clipped = float(np.mean((values < scale[0]) | (values > scale[1])))
        shares = (values.astype(np.float64) - scale[0]) / (scale[1] - scale[0])
        grey = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
    else:
        _require_wide_range(header, low.item(), high.item())
        grey = (values >> (header.bits - 8)).astype(np.uint8)
    if grey.ndim == 2:
        grey = np.stack([grey] * 3, axis=2)
    return np.ascontiguousarray(grey), clipped


def _require_wide_range(header: ImageHeader, low: float, high: float) -> None:
    """Require that the upper 8 bits tell enough levels apart.

    Raises:
        RefusedImageError: If they do not. It states the range and the option.
    """
    largest = 2**header.bits - 1
    has_range = header.sample == "unsigned" and header.bits <= 16
    if has_range and high - low >= LEAST_SPAN * largest:
        return
    example = (f"{low:.10g}", f"{high:.10g}") if low < high else ("0", str(largest))
    limits = f" of 0 to {largest}" if has_range else ""
    raise RefusedImageError(
        "an image whose values use at least a quarter of their range",
        f"its values ({header.bits}-bit {header.sample} numbers) are {low:.10g} to {high:.10g}"
        + limits,
        "choose one range for all images that becomes 0 to 255, such as"
        f" scale=({', '.join(example)}), or --scale {' '.join(example)} of corrupt",
        "more than 8 bits, in an unknown range",
    )


def _undo_orientation(pixels: Image, orientation: int) -> Image:
    """Turn an image back to how it is stored."""
    transpose, rows, columns = UNDO_ORIENTATION[orientation]
    stored = pixels.swapaxes(0, 1) if transpose else pixels
    stored = stored[:: -1 if rows else 1, :: -1 if columns else 1]
    return np.ascontiguousarray(stored)
