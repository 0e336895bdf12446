"""What several corruptions are made of: Gaussian filter, clipped zoom, one-sided motion blur.

Sums run in float32 where the reference has float64: results differ by one grey level at most, on about one sample in a thousand.
"""

import math
from functools import lru_cache

import cv2
import numpy as np

from stillrobust.corruptions.compiled import Kernels
from stillrobust.samples import Array, Image

kernels = Kernels("filters")

HAIR = np.float32(1e-3)
"""Grey levels added before truncation: flat areas are whole numbers, and must not fall by one for a rounding error."""


UNCHANGED = np.zeros(0, np.int32)
"""No grey level is taken down."""


def truncate(fractions: Array) -> Image:
    """Fractions -> uint8, clipped and truncated (never rounded), as the reference does it."""
    values: Image = (np.clip(fractions, 0, 1) * 255).astype(np.uint8)
    return values


@lru_cache(maxsize=64)
def gaussian_weights(sigma: float, truncate: float) -> Array:
    """Weights at distances -R..R, R = int(truncate * sigma + 0.5), summing to 1; sigma 0 leaves things as they are."""
    radius = int(truncate * sigma + 0.5)
    distance = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / (sigma * sigma) * distance**2) if radius else np.ones(1)
    normalised: Array = weights / weights.sum()
    return normalised


@lru_cache(maxsize=64)
def _half(sigma: float, truncate: float) -> Array:
    weights = gaussian_weights(sigma, truncate)
    half: Array = weights[len(weights) // 2 :].astype(np.float32)
    return half


@lru_cache(maxsize=64)
def _lowered_gaussian(sigma: float) -> Array:
    """int32 (256,): 1 where float64 sums in the reference's order leave a flat grey level a hair below itself."""
    weights = gaussian_weights(sigma, 4.0)
    radius = len(weights) // 2
    values = np.arange(256) / 255.0
    for _ in range(2):
        total = values * weights[radius]
        for distance in range(radius, 0, -1):
            total += (values + values) * weights[radius + distance]
        values = total
    return np.arange(256, dtype=np.int32) - truncate(values)


@lru_cache(maxsize=64)
def _lowered_motion(radius: int, sigma: float) -> Array:
    """The same for a motion blur that loses no weight."""
    total = np.zeros(256)
    for weight in _motion_weights(radius, sigma):
        total += weight * np.arange(256)
    return np.arange(256, dtype=np.int32) - np.clip(total, 0, 255).astype(np.uint8)


def _motion_weights(radius: int, sigma: float) -> Array:
    taps = np.arange(2 * radius + 1)
    weights: Array = np.exp(-(taps**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    weights /= weights.sum()
    return weights


def gaussian_grey(image: Image, sigma: float) -> Image:
    """Gaussian filter of uint8 (H, W, 3), edges repeated, truncated to uint8."""
    half, height = _half(float(sigma), 4.0), image.shape[0]
    radius = len(half) - 1
    padded = cv2.copyMakeBorder(image, radius, radius, radius, radius, cv2.BORDER_REPLICATE)
    out = np.empty_like(image)
    flat = _lowered_gaussian(float(sigma))
    kernels.separable_to_grey(padded.reshape(height + 2 * radius, -1), half, half, 3, HAIR, flat, out.reshape(height, -1))
    return out


def smooth_field(field: Array, sigmas: tuple[float, float]) -> Array:
    """Gaussian filter of a float32 (H, W), cut at three sigmas, edges reflected -> float32."""
    down, across = _half(sigmas[0], 3.0), _half(sigmas[1], 3.0)
    rows, columns = len(down) - 1, len(across) - 1
    padded = cv2.copyMakeBorder(field, rows, rows, columns, columns, cv2.BORDER_REFLECT)
    out = np.empty_like(field)
    kernels.separable(padded, down, across, 1, out)
    return out


def gaussian_filter(values: Array, sigma: float, between: type = np.float64) -> Array:
    """Separable Gaussian of (H, W) in float64, edges repeated: scikit-image's ``gaussian`` to the last bit.

    ``between``: the type that scipy stores the first pass in.
    """
    weights = gaussian_weights(float(sigma), 4.0)
    radius = len(weights) // 2
    first, second = np.empty(values.shape), np.empty(values.shape)
    kernels.correlate_rows(np.pad(values.astype(np.float64), ((radius, radius), (0, 0)), mode="edge"), weights, first)
    first = first.astype(between).astype(np.float64)
    kernels.correlate_columns(np.pad(first, ((0, 0), (radius, radius)), mode="edge"), weights, second)
    return second


@lru_cache(maxsize=512)
def zoom_axis(size: int, factor: float) -> tuple[Array, Array, Array, Array]:
    """Clipped zoom along one axis: for each output, two source indices (int64) and their weights (0 beyond the crop's end).

    The middle ceil(size / factor) samples become round(that * factor) by linear interpolation with aligned corners; the
    first sample of the crop is the first of the output.
    """
    crop = math.ceil(size / factor)
    start, length = (size - crop) // 2, round(crop * factor)
    ratio = (crop - 1) / (length - 1) if length > 1 else 0.0
    place = np.arange(length) * ratio
    first = np.minimum(np.floor(place).astype(np.int64), crop - 1)
    second = np.minimum(first + 1, crop - 1)
    inside = place <= crop - 1  # rounding can put the last one a hair beyond: scipy's mode "constant" makes it 0
    weight = np.where(inside, place - np.floor(place), 0.0)
    return start + first, start + second, np.where(inside, 1 - weight, 0.0), weight


Taps = tuple[Array, Array, Array, Array]


def motion_taps(shape: tuple[int, int], radius: int, sigma: float, angle: float) -> Taps:
    """(down, across, weights, lowered) of a one-sided blur along ``angle`` degrees: int64, int64, float32, int32.

    As the reference has it, a shift of the image's size or more ends the sum, and the rest of the weight is lost. A tail of
    less than 2e-5 is left out, its weight given to the others.
    """
    taps, weights = np.arange(2 * radius + 1), _motion_weights(radius, sigma)
    along = (2 * radius + 1) * np.sin(np.deg2rad(angle)), (2 * radius + 1) * np.cos(np.deg2rad(angle))
    length = np.hypot(*along)
    # shift = -ceil(i * direction - 1/2); the sample comes from the other side
    down, across = (np.ceil(taps * part / length - 0.5).astype(np.int64) for part in along)
    beyond = (np.abs(down) >= shape[0]) | (np.abs(across) >= shape[1])
    count = int(beyond.argmax()) if beyond.any() else len(taps)
    kept = min(count, int((np.cumsum(weights[::-1])[::-1] > 2e-5).sum()))
    shares = weights[:kept] * (weights[:count].sum() / weights[:kept].sum()) if kept else weights[:kept]
    lowered = _lowered_motion(radius, sigma) if count == len(taps) else UNCHANGED
    return down[:kept], across[:kept], shares.astype(np.float32), lowered


def motion_grey(values: Array, taps: Taps, scale: float, hair: np.float32, size: tuple[int, int]) -> Image:
    """Motion blur of (H, W) or (H, W, 3), edges repeated, times ``scale``, truncated to uint8; the top left ``size`` of it."""
    down, across, weights, lowered = taps
    channels = values.shape[2] if values.ndim == 3 else 1
    if not len(weights):
        return np.zeros((*size, channels), np.uint8)
    top, left = max(0, -int(down.min())), max(0, -int(across.min()))
    bottom, right = max(0, int(down.max())), max(0, int(across.max()))
    padded = cv2.copyMakeBorder(values, top, bottom, left, right, cv2.BORDER_REPLICATE).astype(np.float32)
    out = np.empty((*size, channels), np.uint8)
    places = down + top, (across + left) * channels
    rows = padded.reshape(len(padded), -1)
    kernels.shifted_to_grey(rows, *places, weights, np.float32(scale), hair, lowered, out.reshape(size[0], -1))
    return out
