"""Digital: contrast, elastic_transform, pixelate, jpeg_compression and saturate."""

from functools import lru_cache
from io import BytesIO

import cv2
import numpy as np
from PIL import Image as Pillow

from stillrobust.corruptions import draws, filters
from stillrobust.corruptions.compiled import Kernels
from stillrobust.corruptions.draws import Key, Rng
from stillrobust.corruptions.severity import parameters
from stillrobust.samples import Array, Image

fields, geometry = Kernels("fields"), Kernels("geometry")


def contrast(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Move every channel towards its mean over the image. No draws."""
    factor = parameters("contrast", severity, regime)
    means = np.array(cv2.sumElems(image)[:3]) / (image.shape[0] * image.shape[1]) / 255
    grey = (np.arange(256) / 255)[:, None]
    table = (np.clip((grey - means) * factor + means, 0, 1) * 255).astype(np.uint8)
    changed: Image = cv2.LUT(image, table[None]).reshape(image.shape)
    return changed


def _uniform_field(rng: Rng, stream: int, amplitude: float, shape: tuple[int, int], factor: float) -> Array:
    """float32 uniforms in -amplitude..amplitude, times ``factor``."""
    if isinstance(rng, Key):
        field = np.empty(shape, np.float32)
        fields.uniform_fast(np.float32(amplitude * factor), *rng.stream(stream), field.reshape(-1))
        return field
    drawn = draws.uniforms(rng, shape[0] * shape[1])
    drawn *= 2 * amplitude * factor
    drawn -= amplitude * factor
    return drawn.astype(np.float32).reshape(shape)


def elastic_fields(size: tuple[int, int], severity: int, rng: Rng, regime: str) -> tuple[Array | None, Array, Array]:
    """(an affine matrix to warp by first, or None; down, across): float32 (H, W) in pixels, where each pixel comes from."""
    entry = parameters("elastic_transform", severity, regime)
    height, width = size
    matrix = None
    if isinstance(entry, tuple):
        strength, sigma, jitter = (part * (244 if regime == "imagenet-c" else min(height, width)) for part in entry)
        amplitude, sigmas = 1.0, (sigma, sigma)
        matrix = _affine(size, jitter, rng)
    else:
        strength, amplitude = entry, 0.005 * height  # the height for both fields, as in the source
        sigmas = 0.01 * height, 0.01 * width
    across = filters.smooth_field(_uniform_field(rng, 0, amplitude, size, strength), sigmas)
    down = filters.smooth_field(_uniform_field(rng, 1, amplitude, size, strength), sigmas)
    return matrix, down, across


def elastic_transform(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Move pixels along a smooth random field. Draws: uniforms for the columns' field, then for the rows'.

    Where the table has three numbers it is the original of ImageNet-C, which first jitters three corners of a square and warps
    the image so that they follow. Draws of that come first.
    """
    height, width = image.shape[:2]
    matrix, down, across = elastic_fields((height, width), severity, rng, regime)
    values: Array = image
    if matrix is not None:
        values = cv2.warpAffine(image.astype(np.float32), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    four = np.empty((height, width * 4), np.float32)
    geometry.to_four(values.reshape(height, -1), four)
    out = np.empty_like(image)
    geometry.displace(four.reshape(-1), width, down, across, filters.HAIR, out.reshape(height, -1))
    return out


def _affine(size: tuple[int, int], jitter: float, rng: Rng) -> Array:
    """Three corners of the middle third move by up to ``jitter`` pixels each way: the matrix (2, 3) that takes them there."""
    middle, third = np.array(size, np.float32) // 2, min(size) // 3
    corners = np.array([middle + third, [middle[0] + third, middle[1] - third], middle - third], np.float32)
    if isinstance(rng, Key):
        shift = np.random.RandomState(rng.words[6]).uniform(-jitter, jitter, (3, 2))
    else:
        shift = rng.uniform(-jitter, jitter, (3, 2))
    matrix: Array = cv2.getAffineTransform(corners, corners + shift.astype(np.float32))
    return matrix


@lru_cache(maxsize=256)
def nearest_places(small: int, size: int) -> Array:
    """Pillow's source indices: a float64 sum that begins in the middle of the first sample."""
    steps = np.full(size, small / size)
    steps[0] *= 0.5
    places: Array = np.minimum(np.add.accumulate(steps).astype(np.int64), small - 1)
    return places


def small_size(height: int, width: int, severity: int, regime: str) -> tuple[int, int]:
    """(H, W) of the small image: at least a pixel, where the reference fails."""
    factor = parameters("pixelate", severity, regime)
    return max(1, int(height * factor)), max(1, int(width * factor))


def pixelate(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Shrink by area average, enlarge by nearest neighbour (ImageNet-C and its small kin: by area average). No draws."""
    height, width = image.shape[:2]
    small = small_size(height, width, severity, regime)[::-1]
    picture = Pillow.fromarray(image).resize(small, Pillow.Resampling.BOX)
    if regime != "imagenet":
        return np.array(picture.resize((width, height), Pillow.Resampling.BOX))
    out = np.empty_like(image)
    rows, columns = nearest_places(small[1], height), nearest_places(small[0], width)
    geometry.nearest(np.array(picture).reshape(small[1], -1), rows, columns, out.reshape(height, -1))
    return out


def jpeg_compression(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Through Pillow's JPEG encoder and back. No draws; the pixels depend on the libjpeg that Pillow carries."""
    buffer = BytesIO()
    Pillow.fromarray(image).save(buffer, "JPEG", quality=parameters("jpeg_compression", severity, regime))
    return np.array(Pillow.open(buffer))


@lru_cache(maxsize=16)
def _saturation(factor: float, offset: float) -> Array:
    """[V, min]: S' / S where the pixel's largest and smallest channels are V and min (0 where S is 0)."""
    largest, smallest = np.arange(256)[:, None], np.arange(256)[None]
    saturation = np.where(largest > 0, (largest - np.minimum(smallest, largest)) / np.maximum(largest, 1), 0.0)
    changed = np.clip(saturation * factor + offset, 0, 1)
    ratio: Array = np.where(saturation > 0, changed / np.where(saturation > 0, saturation, 1), 0.0)
    return ratio


def saturate(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Scale S of HSV. No draws."""
    factor, offset = parameters("saturate", severity, regime)
    out = np.empty_like(image)
    hair = 1e-9  # values fall on whole numbers, less a rounding error
    fields.saturate(image.reshape(-1), _saturation(factor, offset), float(offset), hair, out.reshape(-1))
    return out
