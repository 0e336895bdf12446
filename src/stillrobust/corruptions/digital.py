"""Digital: contrast, elastic_transform, pixelate, jpeg_compression and saturate."""

from functools import lru_cache
from io import BytesIO

import numba
import numpy as np
from PIL import Image as Pillow

from stillrobust.corruptions import filters
from stillrobust.corruptions.severity import parameters
from stillrobust.samples import Array, Image

Rng = np.random.RandomState


def contrast(image: Image, severity: int, rng: Rng) -> Image:
    """Move every channel towards its mean over the image. No draws."""
    factor = parameters("contrast", severity)
    means = image.reshape(-1, 3).sum(axis=0, dtype=np.int64) / (image.shape[0] * image.shape[1]) / 255
    grey = (np.arange(256) / 255)[:, None]
    table = (np.clip((grey - means) * factor + means, 0, 1) * 255).astype(np.uint8)
    return np.stack([table[image[..., c], c] for c in range(3)], axis=-1)


@numba.njit(cache=True)
def _reflect(index, size):  # type: ignore[no-untyped-def]
    """Half-sample reflection: -1 -> 0, size -> size - 1, however far out."""
    index %= 2 * size
    return index if index < size else 2 * size - 1 - index


@numba.njit(cache=True)
def _displace(image, down, across, out):  # type: ignore[no-untyped-def]
    """out(y, x) = image at (y + down, x + across), bilinear in float64, result stored as float32."""
    height, width = image.shape[:2]
    for y in range(height):
        for x in range(width):
            sy, sx = y + np.float64(down[y, x]), x + np.float64(across[y, x])
            fy, fx = np.floor(sy), np.floor(sx)
            wy, wx = sy - fy, sx - fx
            y0, y1 = _reflect(int(fy), height), _reflect(int(fy) + 1, height)
            x0, x1 = _reflect(int(fx), width), _reflect(int(fx) + 1, width)
            for c in range(3):
                total = image[y0, x0, c] * (1 - wy) * (1 - wx)
                total += image[y0, x1, c] * (1 - wy) * wx
                total += image[y1, x0, c] * wy * (1 - wx)
                total += image[y1, x1, c] * wy * wx
                out[y, x, c] = total


def elastic_transform(image: Image, severity: int, rng: Rng) -> Image:
    """Move pixels along a smooth random field. Draws: uniforms for the columns' field, then for the rows'."""
    strength = parameters("elastic_transform", severity)
    height, width = image.shape[:2]
    amplitude, sigma = 0.005 * height, (0.01 * height, 0.01 * width)  # the height for both fields, as in the source

    def field() -> Array:
        drawn = rng.uniform(-amplitude, amplitude, size=(height, width))
        smooth: Array = (filters.gaussian_filter(drawn, sigma, 3.0, "symmetric") * strength).astype(np.float32)
        return smooth

    across = field()
    down = field()
    fractions = image.astype(np.float32) / np.float32(255)
    moved = np.empty_like(fractions)
    _displace(fractions, down, across, moved)
    return filters.truncate(moved)


def pixelate(image: Image, severity: int, rng: Rng) -> Image:
    """Shrink by area average, enlarge by nearest neighbour. No draws."""
    factor = parameters("pixelate", severity)
    height, width = image.shape[:2]
    small = max(1, int(width * factor)), max(1, int(height * factor))  # at least a pixel, where the reference fails
    picture = Pillow.fromarray(image).resize(small, Pillow.Resampling.BOX)
    return np.array(picture.resize((width, height), Pillow.Resampling.NEAREST))


def jpeg_compression(image: Image, severity: int, rng: Rng) -> Image:
    """Through Pillow's JPEG encoder and back. No draws; the pixels depend on the libjpeg that Pillow carries."""
    buffer = BytesIO()
    Pillow.fromarray(image).save(buffer, "JPEG", quality=parameters("jpeg_compression", severity))
    return np.array(Pillow.open(buffer))


@lru_cache(maxsize=8)
def _saturation(factor: float, offset: float) -> Array:
    """[V, min]: S' / S where the pixel's largest and smallest channels are V and min (0 where S is 0)."""
    largest, smallest = np.arange(256)[:, None], np.arange(256)[None]
    saturation = np.where(largest > 0, (largest - np.minimum(smallest, largest)) / np.maximum(largest, 1), 0.0)
    changed = np.clip(saturation * factor + offset, 0, 1)
    ratio: Array = np.where(saturation > 0, changed / np.where(saturation > 0, saturation, 1), 0.0)
    return ratio


@numba.njit(cache=True)
def _saturate(image, ratio, offset, out):  # type: ignore[no-untyped-def]
    hair = 1e-9  # values fall on whole numbers, less a rounding error
    for i in range(image.shape[0]):
        largest, smallest = max(image[i, 0], image[i, 1], image[i, 2]), min(image[i, 0], image[i, 1], image[i, 2])
        if largest == smallest:  # hue 0 is red: with an offset, grey turns reddish, as in the reference
            out[i, 0] = largest
            out[i, 1] = out[i, 2] = int(largest * (1 - offset) + hair)
        else:
            for c in range(3):
                value = largest - (float(largest) - image[i, c]) * ratio[largest, smallest]
                out[i, c] = int(max(value, 0.0) + hair)


def saturate(image: Image, severity: int, rng: Rng) -> Image:
    """Scale S of HSV. No draws."""
    factor, offset = parameters("saturate", severity)
    out = np.empty_like(image)
    _saturate(image.reshape(-1, 3), _saturation(factor, offset), float(offset), out.reshape(-1, 3))
    return out
