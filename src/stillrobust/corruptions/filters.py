"""What several corruptions are made of: Gaussian filter, clipped zoom, one-sided motion blur."""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from stillrobust.corruptions import elementary
from stillrobust.corruptions.compiled import Kernels
from stillrobust.corruptions.draws import quantiles
from stillrobust.samples import Array, Image

kernels, noises = Kernels("filters"), Kernels("fields")

FRACTIONS = np.arange(256) / 255.0
"""Grey levels as the reference has them: float64 (256,), 0..1."""
FRACTIONS32 = FRACTIONS.astype(np.float32)

TOLERANCE = np.float32(1e-3)
"""Grey levels: float32 sums of at most some dozens of terms are nearer than this to the reference's
float64 ones.
"""


def truncate_to_uint8(fractions: Array) -> Image:
    """Fractions -> uint8, clipped and truncated (never rounded), as the reference does it."""
    values: Image = (np.clip(fractions, 0, 1) * 255).astype(np.uint8)
    return values


@lru_cache(maxsize=64)
def gaussian_weights(sigma: float, truncate: float, exact: bool) -> Array:
    """Weights at distances -R..R, R = int(truncate * sigma + 0.5), summing to 1; sigma 0 leaves
    things as they are.

    ``exact``: with numpy's ``exp`` and sum, as the reference has them on this processor; else the
    same on every processor.
    """
    radius = int(truncate * sigma + 0.5)
    if not radius:
        return np.ones(1)
    exponents = -0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2
    weights = np.exp(exponents) if exact else elementary.exp(exponents)
    normalised: Array = weights / (weights.sum() if exact else math.fsum(weights))
    return normalised


@lru_cache(maxsize=64)
def one_sided_weights(sigma: float, truncate: float, exact: bool) -> Array:
    """The same at distances 0..R."""
    weights = gaussian_weights(sigma, truncate, exact)
    return np.ascontiguousarray(weights[len(weights) // 2 :])


def find_flat_areas(image: Image, reach: int, levels: Array) -> tuple[Array, Array]:
    """Where all samples at most ``reach`` pixels away are alike, and what they become (``levels``,
    (256,)): uint8 (H, W * 3).
    """
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    alike = cv2.compare(cv2.erode(image, window), cv2.dilate(image, window), cv2.CMP_EQ)
    return alike.reshape(len(image), -1), cv2.LUT(image, levels).reshape(len(image), -1)


NO_FLAT_AREAS = np.zeros((0, 0), np.uint8), np.zeros((0, 0), np.uint8)
"""In place of these, where nobody has looked."""


@lru_cache(maxsize=64)
def _flat_gaussian(sigma: float, exact: bool) -> Array:
    """uint8 (256,): what float64 sums in the reference's order leave of flat grey levels, some of
    them one less.
    """
    half, values = one_sided_weights(sigma, 4.0, exact), FRACTIONS
    for _ in range(2):
        total = values * half[0]
        for weight in half[:0:-1]:
            total += (values + values) * weight
        values = total
    return truncate_to_uint8(values)


def gaussian_uint8(image: Image, sigma: float, exact: bool) -> Image:
    """Gaussian filter of uint8 (H, W, 3), edges repeated, truncated to uint8."""
    half, height = one_sided_weights(float(sigma), 4.0, exact), image.shape[0]
    radius = len(half) - 1
    padded = cv2.copyMakeBorder(image, radius, radius, radius, radius, cv2.BORDER_REPLICATE)
    # every term rounds, 2**-24 of at most 255 (Higham 2002, 3.1); two passes, and the weights
    # themselves
    tolerance = np.float32(2 * (radius + 3) * 255 / 2**24)
    out = np.empty_like(image)
    levels = _flat_gaussian(float(sigma), exact)
    tables = (
        padded.reshape(height + 2 * radius, -1),
        half.astype(np.float32),
        half,
        FRACTIONS,
        exact,
        levels,
    )
    done = kernels.gaussian_uint8(*tables, *NO_FLAT_AREAS, tolerance, 0, out.reshape(height, -1))
    if done < height:
        kernels.gaussian_uint8(
            *tables,
            *find_flat_areas(image, radius, levels),
            tolerance,
            done,
            out.reshape(height, -1),
        )
    return out


def smooth_field(field: Array, sigmas: tuple[float, float], factor: float, exact: bool) -> Array:
    """Gaussian filter of a float32 (H, W), cut at three sigmas, edges reflected, times ``factor``
    -> float32.
    """
    down, across = (one_sided_weights(sigma, 3.0, exact).astype(np.float32) for sigma in sigmas)
    down *= np.float32(factor)
    rows, columns = len(down) - 1, len(across) - 1
    padded = cv2.copyMakeBorder(field, rows, rows, columns, columns, cv2.BORDER_REFLECT)
    out = np.empty_like(field)
    kernels.separable(padded, down, across, out)
    return out


@lru_cache(maxsize=32)
def _noise_grid(length: int, sigma: float) -> tuple[int, int, Array, Array]:
    """Places a sigma apart or a little less, symmetric in 0..length - 1, and what a Gaussian at
    each sample takes of them.

    (their number; how many more on both sides; the first one's index, int64 (length,); weights,
    float32 (length, T)). Noise on such nodes looks as noise on every sample does: the variance
    ripples by 2 exp(-pi**2) = 1e-4 (Poisson's summation).
    """
    count = math.ceil(length / sigma)
    spacing = length / count
    more = int(3 * sigma / spacing) + 1
    place = (np.arange(length) + 0.5) / spacing - 0.5
    first = np.floor(place).astype(np.int64) - more + 1
    distance = (place[:, None] - first[:, None] - np.arange(2 * more)) * spacing
    weights = elementary.exp(-0.5 * (distance / sigma) ** 2) * (np.abs(distance) <= 3 * sigma + 0.5)
    power = math.fsum(gaussian_weights(sigma, 3.0, False) ** 2)
    # one after the other: the order of numpy's sum is its own affair
    own = np.cumsum(weights**2, axis=1)[:, -1:]
    weights *= np.sqrt(power / own)
    return count, more, first + more, weights.astype(np.float32)


def smooth_noise(
    stream: tuple[np.uint32, np.uint32],
    size: tuple[int, int],
    sigmas: tuple[float, float],
    amplitude: float,
) -> Array:
    """What :func:`smooth_field` makes of uniforms in -amplitude..amplitude, in distribution:
    float32 (H, W).

    Wide filters see nothing of single samples: a normal number for every square of sigma by sigma
    gives the same field.
    """
    if min(sigmas) < 2:
        field = np.empty(size, np.float32)
        noises.uniform_fast(np.float32(amplitude), *stream, field.reshape(-1))
        return smooth_field(field, sigmas, 1.0, exact=False)
    (rows, above, *down), (columns, beside, *across) = (
        _noise_grid(*pair) for pair in zip(size, sigmas, strict=True)
    )
    noise = np.empty((columns, rows), np.float32)
    noises.normal_fast(
        (quantiles() * amplitude / math.sqrt(3)).astype(np.float32), *stream, noise.reshape(-1)
    )
    padded = cv2.copyMakeBorder(noise, beside, beside, above, above, cv2.BORDER_REFLECT)
    wide, out = np.empty((size[1], rows + 2 * above), np.float32), np.empty(size, np.float32)
    kernels.spread(padded, *across, wide)
    kernels.spread(np.ascontiguousarray(wide.T), *down, out)
    return out


def gaussian_filter(values: Array, sigma: float, exact: bool, between: type = np.float64) -> Array:
    """Separable Gaussian of (H, W) in float64, edges repeated: if ``exact`` scikit-image's
    ``gaussian`` to the last bit.

    ``between``: the type that scipy stores the first pass in.
    """
    weights = gaussian_weights(float(sigma), 4.0, exact)
    radius = len(weights) // 2
    first, second = np.empty(values.shape), np.empty(values.shape)
    kernels.correlate_rows(
        np.pad(values.astype(np.float64), ((radius, radius), (0, 0)), mode="edge"), weights, first
    )
    first = first.astype(between).astype(np.float64)
    kernels.correlate_columns(
        np.pad(first, ((0, 0), (radius, radius)), mode="edge"), weights, second
    )
    return second


@lru_cache(maxsize=512)
def zoom_axis(size: int, factor: float) -> tuple[Array, Array, Array, Array]:
    """Clipped zoom along one axis: for each output, two source indices (int64) and their weights (0
    beyond the crop's end).

    The middle ceil(size / factor) samples become round(that * factor) by linear interpolation with
    aligned corners; the first sample of the crop is the first of the output.
    """
    crop = math.ceil(size / factor)
    start, length = (size - crop) // 2, round(crop * factor)
    ratio = (crop - 1) / (length - 1) if length > 1 else 0.0
    place = np.arange(length) * ratio
    first = np.minimum(np.floor(place).astype(np.int64), crop - 1)
    second = np.minimum(first + 1, crop - 1)
    # rounding can put the last one a hair beyond: scipy's mode "constant" makes it 0
    inside = place <= crop - 1
    weight = np.where(inside, place - np.floor(place), 0.0)
    return start + first, start + second, np.where(inside, 1 - weight, 0.0), weight


@dataclass(frozen=True)
class Taps:
    """A one-sided blur along a line: tap i takes the sample at (down[i], across[i])."""

    down: Array
    across: Array
    weights: Array
    """float64, in the reference's order."""
    seen: Array
    """float32, without a tail that is given to the others."""
    tail: float
    """What that tail weighs."""

    def border(self) -> tuple[int, int, int, int]:
        """Pixels needed on top, below, left and right of an image."""
        top, left = max(0, -int(self.down.min())), max(0, -int(self.across.min()))
        return top, max(0, int(self.down.max())), left, max(0, int(self.across.max()))


@lru_cache(maxsize=32)
def _motion_weights(radius: int, sigma: float, exact: bool) -> Array:
    taps = np.arange(2 * radius + 1)
    exponents = -(taps**2) / (2 * sigma**2)
    if not exact:
        weights = elementary.exp(exponents)
        return np.asarray(weights / math.fsum(weights))
    weights = np.exp(exponents) / (np.sqrt(2 * np.pi) * sigma)
    return np.asarray(weights / weights.sum())


def _motion_direction(radius: int, angle: float, exact: bool) -> tuple[float, float, float]:
    """(down, across, length) of the reference's segment, ``2 * radius + 1`` pixels long."""
    if not exact:
        return *elementary.sin_cos(angle), 1.0
    along = (
        (2 * radius + 1) * np.sin(np.deg2rad(angle)),
        (2 * radius + 1) * np.cos(np.deg2rad(angle)),
    )
    return *along, math.hypot(*along)


def motion_taps(
    shape: tuple[int, int], radius: int, sigma: float, angle: float, exact: bool
) -> Taps:
    """A blur along ``angle`` degrees.

    As the reference has it, a shift of the image's size or more ends the sum, and the rest of the
    weight is lost.
    """
    taps, weights = np.arange(2 * radius + 1), _motion_weights(radius, sigma, exact)
    *along, length = _motion_direction(radius, angle, exact)
    # shift = -ceil(i * direction - 1/2); the sample comes from the other side
    down, across = (np.ceil(taps * part / length - 0.5).astype(np.int64) for part in along)
    beyond = (np.abs(down) >= shape[0]) | (np.abs(across) >= shape[1])
    count = int(beyond.argmax()) if beyond.any() else len(taps)
    down, across, weights = down[:count], across[:count], weights[:count]
    kept = int((np.cumsum(weights[::-1])[::-1] > 2e-6).sum())
    tail = math.fsum(weights[kept:])
    seen = weights[:kept] * (1 + tail / math.fsum(weights[:kept])) if kept else weights
    return Taps(down, across, weights, seen.astype(np.float32), tail)


def motion_uint8(image: Image, taps: Taps, exact: bool) -> Image:
    """Motion blur of uint8 (H, W, 3), edges repeated, truncated to uint8."""
    if not len(taps.weights):
        return np.zeros_like(image)
    border = taps.border()
    padded = cv2.copyMakeBorder(image, *border, cv2.BORDER_REPLICATE).astype(np.float32)
    out = np.empty_like(image)
    places = taps.down + border[0], (taps.across + border[2]) * 3
    tolerance = np.float32(TOLERANCE / 2 + 255 * taps.tail)
    # of flat areas; in order, as the reference adds
    levels = np.cumsum(taps.weights[:, None] * np.arange(256), axis=0)[-1]
    rows, table = padded.reshape(len(padded), -1), np.minimum(levels, 255).astype(np.uint8)
    if math.fsum(taps.weights) < 0.999:  # weight is lost, so that flat areas are no whole numbers
        table = np.arange(256, dtype=np.uint8)
    kernels.motion_uint8(
        rows, *places, taps.seen, taps.weights, exact, table, tolerance, out.reshape(len(out), -1)
    )
    return out
