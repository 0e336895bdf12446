"""What several corruptions are made of: Gaussian filter, clipped zoom, one-sided motion blur.

Sums run in the reference's order in float64 (scikit-image's ``gaussian`` and ``scipy.ndimage.zoom`` underneath it), so that
results agree to the last bit wherever the draws do. Compiled code is kept on disk, so that a machine compiles once.
"""

import math
from functools import lru_cache

import cv2
import numba
import numpy as np

from stillrobust.samples import Array, Image


def truncate(fractions: Array) -> Image:
    """Fractions -> uint8, clipped and truncated (never rounded), as the reference does it."""
    values: Image = (np.clip(fractions, 0, 1) * 255).astype(np.uint8)
    return values


@lru_cache(maxsize=64)
def gaussian_weights(sigma: float, truncate: float) -> Array:
    """Weights at distances -R..R, R = int(truncate * sigma + 0.5), summing to 1."""
    radius = int(truncate * sigma + 0.5)
    distance = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / (sigma * sigma) * distance**2)
    normalised: Array = weights / weights.sum()
    return normalised


@numba.njit(cache=True)
def _correlate_rows(padded, weights, out):  # type: ignore[no-untyped-def]
    """Symmetric correlation along axis 0 of (H + 2R, W), the outermost pair first, as scipy's correlate1d adds it."""
    radius = len(weights) // 2
    for y in range(out.shape[0]):
        row, middle = out[y], padded[y + radius]
        for x in range(out.shape[1]):
            row[x] = middle[x] * weights[radius]
        for distance in range(radius, 0, -1):
            before, after, weight = padded[y + radius - distance], padded[y + radius + distance], weights[radius + distance]
            for x in range(out.shape[1]):
                row[x] += (before[x] + after[x]) * weight


@numba.njit(cache=True)
def _correlate_columns(padded, weights, channels, out):  # type: ignore[no-untyped-def]
    """The same along axis 1 of rows of interleaved channels."""
    radius, width = len(weights) // 2, out.shape[1]
    for y in range(out.shape[0]):
        row, source = out[y], padded[y]
        middle = source[radius * channels : radius * channels + width]
        for x in range(width):
            row[x] = middle[x] * weights[radius]
        for distance in range(radius, 0, -1):
            before = source[(radius - distance) * channels : (radius - distance) * channels + width]
            after = source[(radius + distance) * channels : (radius + distance) * channels + width]
            weight = weights[radius + distance]
            for x in range(width):
                row[x] += (before[x] + after[x]) * weight


def gaussian_filter(
    values: Array,
    sigma: float | tuple[float, float],
    truncate: float = 4.0,
    border: str = "edge",
    between: type = np.float64,
) -> Array:
    """Separable Gaussian of (H, W) or (H, W, C), rows first -> float64 of the same shape.

    ``border`` is numpy's name: ``edge``, or ``symmetric`` (half-sample). ``between``: the type that scipy stores the first
    pass in.
    """
    sigmas = (float(sigma), float(sigma)) if isinstance(sigma, int | float) else sigma
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    flat = values.reshape(height, width, channels).astype(np.float64)
    down, across = (gaussian_weights(float(s), truncate) for s in sigmas)
    radius = len(down) // 2
    padded = np.pad(flat, ((radius, radius), (0, 0), (0, 0)), mode=border)  # type: ignore[call-overload]
    first = np.empty((height, width * channels))
    _correlate_rows(padded.reshape(height + 2 * radius, -1), down, first)
    first = first.astype(between).astype(np.float64)
    radius = len(across) // 2
    padded = np.pad(first.reshape(flat.shape), ((0, 0), (radius, radius), (0, 0)), mode=border)  # type: ignore[call-overload]
    second = np.empty((height, width * channels))
    _correlate_columns(padded.reshape(height, -1), across, channels, second)
    return second.reshape(values.shape)


@lru_cache(maxsize=512)
def zoom_axis(size: int, factor: float) -> tuple[Array, Array, Array, Array]:
    """Clipped zoom along one axis: for each output, two source indices and their weights (0 beyond the crop's end).

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


@numba.njit(cache=True)
def _zoom(values, y0, y1, wy0, wy1, x0, x1, wx0, wx1, out):  # type: ignore[no-untyped-def]
    for y in range(out.shape[0]):
        upper, lower = values[y0[y]], values[y1[y]]
        for x in range(out.shape[1]):
            for c in range(out.shape[2]):
                total = upper[x0[x], c] * wy0[y] * wx0[x]
                total += upper[x1[x], c] * wy0[y] * wx1[x]
                total += lower[x0[x], c] * wy1[y] * wx0[x]
                total += lower[x1[x], c] * wy1[y] * wx1[x]
                out[y, x, c] = total


def clipped_zoom(values: Array, factor: float) -> Array:
    """(H, W, C) -> at least (H, W, C) of the same dtype, the middle of ``values`` enlarged by ``factor``."""
    down, across = zoom_axis(values.shape[0], factor), zoom_axis(values.shape[1], factor)
    out = np.empty((len(down[0]), len(across[0]), values.shape[2]), values.dtype)
    _zoom(values, *down, *across, out)
    return out


def motion_blur(values: Array, radius: int, sigma: float, angle: float) -> Array:
    """One-sided motion blur of (H, W, C) along ``angle`` degrees, edges repeated -> float64, the same shape.

    As the reference has it, a shift of the image's size or more ends the sum, and the rest of the weight is lost.
    """
    taps = np.arange(2 * radius + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    weights /= weights.sum()
    along = (2 * radius + 1) * np.sin(np.deg2rad(angle)), (2 * radius + 1) * np.cos(np.deg2rad(angle))
    length = np.hypot(*along)
    height, width = values.shape[:2]
    # shift = -ceil(i * direction - 1/2); the sample comes from the other side
    down, across = (np.ceil(taps * part / length - 0.5).astype(int) for part in along)
    beyond = (np.abs(down) >= height) | (np.abs(across) >= width)
    count = int(beyond.argmax()) if beyond.any() else len(taps)
    reach_y, reach_x = (int(np.abs(part[:count]).max(initial=0)) for part in (down, across))
    padded = cv2.copyMakeBorder(values, reach_y, reach_y, reach_x, reach_x, cv2.BORDER_REPLICATE).astype(np.float64)
    padded = padded.reshape(height + 2 * reach_y, width + 2 * reach_x, -1)
    blurred = np.zeros((height, width, padded.shape[2]))
    for weight, dy, dx in zip(weights[:count], down[:count], across[:count], strict=True):
        top, left = reach_y + dy, reach_x + dx
        blurred += weight * padded[top : top + height, left : left + width]
    return blurred.reshape(values.shape)
