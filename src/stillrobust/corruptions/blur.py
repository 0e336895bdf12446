"""Blur: defocus, glass, motion, zoom and gaussian."""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from stillrobust.corruptions import draws, elementary, filters
from stillrobust.corruptions.compiled import Kernels
from stillrobust.corruptions.corruption import Corruption
from stillrobust.corruptions.displacement import pixel_grid
from stillrobust.corruptions.draws import Key, Rng
from stillrobust.samples import Array, Image

geometry, disks = Kernels("geometry"), Kernels("disk")


DISK_TOLERANCE = 2e-4
"""Grey levels: the disk's sum is exact; at most two dozen roundings by 2**-25 of 255 follow."""


@lru_cache(maxsize=32)
def disk_kernel(radius: float, alias_sigma: float, exact: bool) -> Array:
    """Return the reference's aliased disk, float32.

    At radius 8 and more it touches the array's edge and sums to 1.01, as in the reference.

    Args:
        radius: In pixels.
        alias_sigma: Of the Gaussian that smooths the disk.
        exact: Use OpenCV's filter, whose last bit depends on the processor. Otherwise the disk is
            computed in float64 and the same everywhere.
    """
    reach, spread = (8, 1) if radius <= 8 else (int(radius), 2)
    x, y = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    shape = ((x**2 + y**2) <= radius**2).astype(np.float32)
    shape /= shape.sum()
    if exact:
        blurred: Array = cv2.GaussianBlur(
            shape, ksize=(2 * spread + 1, 2 * spread + 1), sigmaX=alias_sigma
        )
        return blurred
    weights, values = _smoothing_weights(alias_sigma, spread, exact), shape.astype(np.float64)
    for _ in range(2):  # rows, then columns
        padded = np.pad(values, ((spread, spread), (0, 0)), mode="reflect")
        values = sum(weight * padded[i : i + len(values)] for i, weight in enumerate(weights)).T
    return values.astype(np.float32)


def _smoothing_weights(sigma: float, spread: int, exact: bool) -> Array:
    """The Gaussian after the disk: float64 weights at distances -spread..spread."""
    if exact:
        kernel: Array = cv2.getGaussianKernel(2 * spread + 1, sigma, cv2.CV_32F)[:, 0].astype(
            np.float64
        )
        return kernel
    weights = elementary.exp(-(np.arange(-spread, spread + 1) ** 2) / (2 * sigma**2))
    return np.asarray(weights / math.fsum(weights))


@dataclass(frozen=True)
class _DiskParts:
    """The disk's kernel in parts: a sum over whole pixels, a small Gaussian, single places."""

    whole: Array
    """float64 (K, K): the whole kernel, without its border of zeros."""
    half: Array
    """Half widths of the rows of whole pixels."""
    smoothing: tuple[Array, Array]
    """float32 weights at distances 0..h, down (divided by the disk's area) and across."""
    margin: int
    """Pixels needed around an image."""
    places: Array
    """(N, 2) down and across from the corner of an array of radius ``margin``, sorted by weight."""
    weights: Array
    """float32: the distinct weights. Each belongs to the places up to its entry of ``ends``."""
    ends: Array
    tolerance: np.float32
    """Largest error of the result, in grey levels."""


@lru_cache(maxsize=32)
def _disk_parts(radius: float, alias_sigma: float, exact: bool) -> _DiskParts:
    """Split the disk's kernel.

    For fast draws, weights below 5e-6 (together below 1e-4) are omitted, the others scaled up.
    """
    whole = disk_kernel(radius, alias_sigma, exact).astype(np.float64)
    filled = np.flatnonzero(whole.any(axis=0))
    whole = np.ascontiguousarray(whole[filled[0] : filled[-1] + 1, filled[0] : filled[-1] + 1])
    reach, inner, spread = len(whole) // 2, int(radius), 1 if radius <= 8 else 2
    offsets = np.arange(-inner, inner + 1)
    half = np.array([int(np.sqrt(radius**2 - offset**2)) for offset in offsets])
    if alias_sigma <= 0.1:  # exp(-50): nothing reaches the neighbours
        spread = 0
    smoothing = _smoothing_weights(alias_sigma, spread, exact)
    pixels = (np.abs(offsets)[None] <= half[:, None]).astype(np.float64)
    margin = max(reach, inner + spread)
    left = np.zeros((2 * margin + 1, 2 * margin + 1))
    left[margin - reach : margin + reach + 1, margin - reach : margin + reach + 1] = whole
    for i, first in enumerate(smoothing):
        for j, second in enumerate(smoothing):
            top, side = margin - inner - spread + i, margin - inner - spread + j
            left[top : top + len(half), side : side + len(half)] -= (
                first * second * pixels / pixels.sum()
            )
    rounded = np.round(left, 7 if exact else 5)
    weights, groups = np.unique(rounded[rounded != 0], return_inverse=True)
    order = np.argsort(groups, kind="stable")
    places = np.argwhere(rounded != 0)[order] * (1, 3)
    alike = [left[rounded == weight] for weight in weights]
    means = np.array([math.fsum(group) / len(group) for group in alike])
    ends = np.cumsum(np.bincount(groups, minlength=len(weights)))
    missed = left.copy()
    missed[rounded != 0] -= means[groups]
    gain = 1.0 if exact else 1 + math.fsum(missed.reshape(-1))
    tails = (
        (smoothing[spread:] * gain / pixels.sum()).astype(np.float32),
        smoothing[spread:].astype(np.float32),
    )
    off = np.float32(DISK_TOLERANCE + (255 * np.abs(missed).sum() if exact else 0))
    return _DiskParts(whole, half, tails, margin, places, means.astype(np.float32), ends, off)


def defocus_blur(image: Image, rng: Rng, radius: float, alias_sigma: float) -> Image:
    """Blur with a disk. No draws."""
    exact = not isinstance(rng, Key)
    parts = _disk_parts(radius, alias_sigma, exact)
    height, width = image.shape[:2]
    spread, inner = len(parts.smoothing[0]) - 1, len(parts.half) // 2
    padded = cv2.copyMakeBorder(image, *(parts.margin,) * 4, cv2.BORDER_REFLECT_101).reshape(
        height + 2 * parts.margin, -1
    )
    cut = parts.margin - inner - spread
    seen = padded[cut : len(padded) - cut, 3 * cut : padded.shape[1] - 3 * cut]
    totals = np.empty((height + 2 * spread, (width + 2 * spread) * 3), np.int32)
    disks.disk_sums(np.ascontiguousarray(seen), parts.half, totals)
    out = np.empty_like(image)
    total = parts.whole.sum() if exact else math.fsum(parts.whole.reshape(-1))
    levels = filters.truncate_to_uint8(filters.FRACTIONS * total)
    # with a gain, flat areas are not near whole numbers
    near = levels if total < 1 else np.arange(256, dtype=np.uint8)
    tables = (
        totals,
        parts.smoothing,
        padded,
        parts.places,
        parts.weights,
        parts.ends,
        parts.whole,
        float(parts.whole.max()) / 255,
        filters.FRACTIONS if exact else None,
        near,
    )
    done = disks.disk_uint8(
        *tables, *filters.NO_FLAT_AREAS, parts.tolerance, 0, out.reshape(height, -1)
    )
    if done < height:
        flat = filters.find_flat_areas(image, len(parts.whole) // 2, levels)
        disks.disk_uint8(*tables, *flat, parts.tolerance, done, out.reshape(height, -1))
    return out


def shuffle(pixels: Array, size: tuple[int, int], rng: Rng, reach: int, iterations: int) -> None:
    """Shuffle uint32 (H * W), packed pixels or their places, in place, as glass_blur does."""
    height, width = size
    if isinstance(rng, Key):
        steps = np.arange(-reach, reach)
        shifts = (steps[:, None] * width + steps).reshape(-1).astype(np.int32)
        geometry.shuffle_fast(pixels, height, width, reach, iterations, shifts, *rng.stream(0))
    else:
        count = iterations * max(0, height - 2 * reach) * max(0, width - 2 * reach)
        drawn = draws.integers(rng, 2 * reach - 1, 2 * count)
        geometry.shuffle(pixels, height, width, reach, iterations, drawn)


def glass_blur(image: Image, rng: Rng, sigma: float, reach: int, iterations: int) -> Image:
    """Blur, shuffle pixels locally, blur.

    Draws: a pair (dx, dy) in -reach..reach-1 per pixel and iteration.
    """
    height, width = image.shape[:2]
    blurred = filters.gaussian_uint8(image, sigma, not isinstance(rng, Key))
    pixels = cv2.cvtColor(blurred, cv2.COLOR_RGB2RGBA)  # four bytes, so that a pixel is one word
    shuffle(pixels.view(np.uint32).reshape(-1), (height, width), rng, reach, iterations)
    return filters.gaussian_uint8(
        cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), sigma, not isinstance(rng, Key)
    )


def _glass_displacement(
    size: tuple[int, int], rng: Rng, sigma: float, reach: int, iterations: int
) -> Array:
    """The shuffle's displacement. The blurs before and after it move nothing."""
    places = np.arange(size[0] * size[1], dtype=np.uint32)
    shuffle(places, size, rng, reach, iterations)
    rows, columns = pixel_grid(size)
    sources = places.reshape(size)
    field = sources // size[1] - rows, sources % size[1] - columns
    return np.stack(field, axis=-1).astype(np.float32)


def motion_blur(image: Image, rng: Rng, radius: int, sigma: float) -> Image:
    """Blur along one direction. Draws: one angle in -45..45 degrees."""
    angle = rng.uniform(0, -45, 45) if isinstance(rng, Key) else rng.uniform(-45, 45)
    size = image.shape[0], image.shape[1]
    exact = not isinstance(rng, Key)
    return filters.motion_uint8(
        image, filters.motion_taps(size, radius, sigma, angle, exact), exact
    )


def _zoom_factors(stop: float, step: float) -> tuple[float, ...]:
    """``np.arange(1, stop, step)`` of the reference, in Python's arithmetic.

    Rounding adds a twelfth factor, 1.11, at severity 1. Python rounds products and sums one by one
    on every processor.
    """
    second = 1 + step
    return tuple(1 + place * (second - 1) for place in range(math.ceil((stop - 1) / step)))


Maps = tuple[Array, Array, Array, Array]


@lru_cache(maxsize=64)
def _zoom_maps(size: int, factors: tuple[float, ...]) -> Maps:
    """Two indices (int64) and two weights (float64) along an axis, (layers, size) each."""
    layers = [[part[:size] for part in filters.zoom_axis(size, factor)] for factor in factors]
    first, second, near, far = (np.array([layer[i] for layer in layers]) for i in range(4))
    return first, second, near, far


@lru_cache(maxsize=64)
def _zoom_columns(width: int, factors: tuple[float, ...]) -> tuple[Array, Array]:
    """The columns' map, with an even number of layers: first index times four, second weight.

    Places beyond the crop refer to the black pixel after the row.
    """
    first, _, near, far = _zoom_maps(width, factors)
    places = 4 * np.where(near + far > 0, first, width)
    more = ((0, len(factors) % 2), (0, 0))
    return np.pad(places, more, constant_values=4 * width).astype(np.uint64), np.pad(
        far, more
    ).astype(np.float32)


@lru_cache(maxsize=16)
def _flat_zoom_levels(layers: int) -> Array:
    """The reference's results for flat areas, uint8 (256,): some are one level darker."""
    own = total = filters.FRACTIONS32
    for _ in range(layers):
        total = total + own
    return filters.truncate_to_uint8((own + total) / np.float32(layers + 2))


def zoom_blur(image: Image, rng: Rng, stop: float, step: float) -> Image:
    """Mean of enlarged copies, the original counted twice. No draws."""
    height, width = image.shape[:2]
    # the first factor is 1: the image itself, which the kernel adds
    factors = _zoom_factors(stop, step)[1:]
    samples, four = (
        image.reshape(height, -1),
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).reshape(height, -1),
    )
    maps = _zoom_maps(height, factors), _zoom_maps(width, factors), *_zoom_columns(width, factors)
    out = np.empty_like(image)
    tables = None if isinstance(rng, Key) else filters.FRACTIONS32, _flat_zoom_levels(len(factors))
    geometry.zoom_mean(samples, four, *maps, *tables, filters.TOLERANCE, out.reshape(height, -1))
    return out


def _zoom_displacement(size: tuple[int, int], rng: Rng, stop: float, step: float) -> Array:
    """The mean over the layers, the original counted twice: the middle of the smear."""

    def mean(length: int) -> Array:
        total = np.arange(length, dtype=np.float64) * 2
        factors = _zoom_factors(stop, step)
        for factor in factors[1:]:
            first, second, near, far = (part[:length] for part in filters.zoom_axis(length, factor))
            total += first * near + second * far
        moved: Array = (total / (len(factors) + 1) - np.arange(length)).astype(np.float32)
        return moved

    down, across = mean(size[0]), mean(size[1])
    return np.stack(np.broadcast_arrays(down[:, None], across[None]), axis=-1)


def gaussian_blur(image: Image, rng: Rng, sigma: float) -> Image:
    """Gaussian filter, edges repeated. No draws."""
    return filters.gaussian_uint8(image, sigma, not isinstance(rng, Key))


_ZOOM_OF_SMALL_IMAGES = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))

BLUR = {
    "defocus_blur": Corruption(
        defocus_blur,
        {
            "imagenet": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
            "cifar": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
            "tiny-imagenet": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        },
        deterministic=True,
    ),
    "glass_blur": Corruption(
        glass_blur,
        {
            "imagenet": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
            "cifar": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
            "tiny-imagenet": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        },
        displacement=_glass_displacement,
    ),
    "motion_blur": Corruption(
        motion_blur,
        {
            "imagenet": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
            "cifar": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
            "tiny-imagenet": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        },
    ),
    "zoom_blur": Corruption(
        zoom_blur,
        {
            "imagenet": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
            "cifar": _ZOOM_OF_SMALL_IMAGES,
            "tiny-imagenet": _ZOOM_OF_SMALL_IMAGES,
        },
        deterministic=True,
        displacement=_zoom_displacement,
    ),
    "gaussian_blur": Corruption(
        gaussian_blur,
        {
            "imagenet": (1, 2, 3, 4, 6),
            "cifar": (0.4, 0.6, 0.7, 0.8, 1),
            "tiny-imagenet": (0.5, 0.75, 1, 1.25, 1.5),
        },
        deterministic=True,
    ),
}
