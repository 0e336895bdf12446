"""Blur: defocus, glass, motion, zoom and gaussian."""

from functools import lru_cache

import cv2
import numba
import numpy as np

from stillrobust.corruptions import filters
from stillrobust.corruptions.severity import parameters
from stillrobust.samples import Array, Image

Rng = np.random.RandomState


@lru_cache(maxsize=8)
def disk(radius: int, alias_sigma: float) -> Array:
    """The aliased disk of the reference; at radius 8 and more it touches the array's edge and sums to 1.01 (kept)."""
    reach, kernel = (8, 3) if radius <= 8 else (radius, 5)
    x, y = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    shape = ((x**2 + y**2) <= radius**2).astype(np.float32)
    shape /= shape.sum()
    blurred: Array = cv2.GaussianBlur(shape, ksize=(kernel, kernel), sigmaX=alias_sigma)
    return blurred


def defocus_blur(image: Image, severity: int, rng: Rng) -> Image:
    """Blur with a disk. No draws."""
    return filters.truncate(cv2.filter2D(image / 255.0, -1, disk(*parameters("defocus_blur", severity))))


@numba.njit(cache=True)
def _shuffle(image, reach, iterations, shifts):  # type: ignore[no-untyped-def]
    """Copy each pixel from a near one, bottom right to top left. One way: the reference's swap of views copies only."""
    height, width = image.shape[:2]
    draw = 0
    for _ in range(iterations):
        for y in range(height - reach, reach, -1):
            for x in range(width - reach, reach, -1):
                dx, dy = shifts[draw]
                draw += 1
                for c in range(image.shape[2]):
                    image[y, x, c] = image[y + dy, x + dx, c]


def glass_blur(image: Image, severity: int, rng: Rng) -> Image:
    """Blur, shuffle pixels locally, blur. Draws: a pair (dx, dy) in -reach..reach-1 per pixel and iteration."""
    sigma, reach, iterations = parameters("glass_blur", severity)
    height, width = image.shape[:2]
    shuffled = (filters.gaussian_filter(image / 255.0, sigma) * 255).astype(np.uint8)
    count = iterations * max(0, height - 2 * reach) * max(0, width - 2 * reach)
    _shuffle(shuffled, reach, iterations, rng.randint(-reach, reach, size=(count, 2)))
    return filters.truncate(filters.gaussian_filter(shuffled / 255.0, sigma))


def motion_blur(image: Image, severity: int, rng: Rng) -> Image:
    """Blur along one direction. Draws: one angle in -45..45 degrees."""
    radius, sigma = parameters("motion_blur", severity)
    return np.clip(filters.motion_blur(image, radius, sigma, rng.uniform(-45, 45)), 0, 255).astype(np.uint8)


def zoom_blur(image: Image, severity: int, rng: Rng) -> Image:
    """Mean of enlarged copies, the original counted twice. No draws."""
    height, width = image.shape[:2]
    fractions = (image / 255.0).astype(np.float32)
    total = np.zeros_like(fractions)
    factors = parameters("zoom_blur", severity)
    for factor in factors:
        total += filters.clipped_zoom(fractions, factor)[:height, :width]
    return filters.truncate((fractions + total) / (len(factors) + 1))


def gaussian_blur(image: Image, severity: int, rng: Rng) -> Image:
    """Gaussian filter, edges repeated. No draws."""
    return filters.truncate(filters.gaussian_filter(image / 255.0, parameters("gaussian_blur", severity)))
