"""Blur: defocus, glass, motion, zoom and gaussian."""

from functools import lru_cache

import cv2
import numpy as np

from stillrobust.corruptions import draws, filters
from stillrobust.corruptions.compiled import Kernels
from stillrobust.corruptions.draws import Key, Rng
from stillrobust.corruptions.severity import parameters
from stillrobust.samples import Array, Image

geometry, sums = Kernels("geometry"), Kernels("filters")


@lru_cache(maxsize=32)
def disk(radius: float, alias_sigma: float) -> Array:
    """The aliased disk of the reference; at radius 8 and more it touches the array's edge and sums to 1.01 (kept)."""
    reach, kernel = (8, 3) if radius <= 8 else (int(radius), 5)
    x, y = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    shape = ((x**2 + y**2) <= radius**2).astype(np.float32)
    shape /= shape.sum()
    blurred: Array = cv2.GaussianBlur(shape, ksize=(kernel, kernel), sigmaX=alias_sigma)
    return blurred


@lru_cache(maxsize=32)
def _disk_parts(radius: float, alias_sigma: float) -> tuple[Array, tuple[Array, Array], tuple[Array, Array, Array], int]:
    """The disk as a sum over whole pixels, a small Gaussian after it, and what is left at single places.

    (half widths of the disk's rows; the Gaussian's weights at distances 0..h, twice, one with the disk's area divided out;
    (down, across, weights) counted from the corner of an array of reach ``margin``; margin)
    """
    whole = disk(radius, alias_sigma).astype(np.float64)
    reach, inner, spread = len(whole) // 2, int(radius), 1 if radius <= 8 else 2
    offsets = np.arange(-inner, inner + 1)
    half = np.array([int(np.sqrt(radius**2 - offset**2)) for offset in offsets])
    if alias_sigma <= 0.1:  # exp(-50): nothing reaches the neighbours
        spread = 0
    smoothing = np.exp(-0.5 * (np.arange(-spread, spread + 1) / alias_sigma) ** 2)
    smoothing /= smoothing.sum()
    pixels = (np.abs(offsets)[None] <= half[:, None]).astype(np.float64)
    margin = max(reach, inner + spread)
    left = np.zeros((2 * margin + 1, 2 * margin + 1))
    left[margin - reach : margin + reach + 1, margin - reach : margin + reach + 1] = whole
    for i, first in enumerate(smoothing):
        for j, second in enumerate(smoothing):
            top, side = margin - inner - spread + i, margin - inner - spread + j
            left[top : top + len(half), side : side + len(half)] -= first * second * pixels / pixels.sum()
    down, across = np.nonzero(np.abs(left) > 1e-7)
    tail = smoothing[spread:].astype(np.float32)
    gaussians = (smoothing[spread:] / pixels.sum()).astype(np.float32), tail
    return half, gaussians, (down, across, left[down, across].astype(np.float32)), margin


def defocus_blur(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Blur with a disk. No draws."""
    radius, alias_sigma = parameters("defocus_blur", severity, regime)
    half, gaussians, (down, across, weights), margin = _disk_parts(radius, alias_sigma)
    height, width = image.shape[:2]
    spread, inner = len(gaussians[0]) - 1, len(half) // 2
    border = margin, margin, margin, margin
    padded = cv2.copyMakeBorder(image, *border, cv2.BORDER_REFLECT_101).reshape(height + 2 * margin, -1)
    cut = margin - inner - spread
    seen = padded[cut : len(padded) - cut, 3 * cut : padded.shape[1] - 3 * cut]
    totals = np.empty((height + 2 * spread, (width + 2 * spread) * 3), np.int32)
    sums.disk_sums(np.ascontiguousarray(seen), half, 3, totals)
    # the reference's kernel can sum to a hair less than 1, which takes flat areas one level down
    hair = filters.HAIR if disk(radius, alias_sigma).sum(dtype=np.float64) >= 1 else -filters.HAIR
    out = np.empty_like(image)
    sums.disk_to_grey(totals, gaussians, padded, down, across * 3, weights, 3, hair, out.reshape(height, -1))
    return out


def shuffle(pixels: Array, size: tuple[int, int], severity: int, rng: Rng, regime: str) -> None:
    """The shuffle of :func:`glass_blur`, in place, of uint32 (H * W): packed pixels, or their places."""
    _, reach, iterations = parameters("glass_blur", severity, regime)
    height, width = size
    if isinstance(rng, Key):
        steps = np.arange(-reach, reach)
        shifts = (steps[:, None] * width + steps).reshape(-1).astype(np.int32)
        geometry.shuffle_fast(pixels, height, width, reach, iterations, shifts, *rng.stream(0))
    else:
        count = iterations * max(0, height - 2 * reach) * max(0, width - 2 * reach)
        drawn = draws.integers(rng, 2 * reach - 1, 2 * count)
        geometry.shuffle(pixels, height, width, reach, iterations, drawn)


def glass_blur(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Blur, shuffle pixels locally, blur. Draws: a pair (dx, dy) in -reach..reach-1 per pixel and iteration."""
    sigma = parameters("glass_blur", severity, regime)[0]
    height, width = image.shape[:2]
    blurred = filters.gaussian_grey(image, sigma)
    pixels = np.empty(height * width, np.uint32)
    geometry.pack(blurred.reshape(-1), pixels)
    shuffle(pixels, (height, width), severity, rng, regime)
    geometry.unpack(pixels, blurred.reshape(-1))
    return filters.gaussian_grey(blurred, sigma)


def motion_blur(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Blur along one direction. Draws: one angle in -45..45 degrees."""
    radius, sigma = parameters("motion_blur", severity, regime)
    angle = rng.uniform(0, -45, 45) if isinstance(rng, Key) else rng.uniform(-45, 45)
    size = image.shape[0], image.shape[1]
    return filters.motion_grey(image, filters.motion_taps(size, radius, sigma, angle), 1.0, filters.HAIR, size)


@lru_cache(maxsize=64)
def _zoom_maps(height: int, width: int, factors: tuple[float, ...]) -> tuple[Array, ...]:
    """Rows (two indices, two weights) and columns (index times four, two weights) of the layers, all of them (layers, size)."""
    down = [[part[:height] for part in filters.zoom_axis(height, factor)] for factor in factors]
    across = [[part[:width] for part in filters.zoom_axis(width, factor)] for factor in factors]
    rows = [np.array([layer[i] for layer in down]).astype((np.int64, np.int64, np.float32, np.float32)[i]) for i in range(4)]
    places = np.array([layer[0] * 4 for layer in across]).astype(np.uint64)
    weights = [np.array([layer[i] for layer in across]).astype(np.float32) for i in (2, 3)]
    return (*rows, places, *weights)


def zoom_blur(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Mean of enlarged copies, the original counted twice. No draws."""
    height, width = image.shape[:2]
    factors = parameters("zoom_blur", severity, regime)[1:]  # the first is 1: the image itself, which the kernel adds
    four = np.empty((height, width * 4), np.float32)
    geometry.to_four(image.reshape(height, -1), four)
    out = np.empty_like(image)
    geometry.zoom_mean(four, *_zoom_maps(height, width, factors), filters.HAIR, out.reshape(height, -1))
    return out


def gaussian_blur(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Gaussian filter, edges repeated. No draws."""
    return filters.gaussian_grey(image, parameters("gaussian_blur", severity, regime))
