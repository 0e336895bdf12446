"""Filters that several corruptions use: Gaussian, clipped zoom, one-sided motion blur."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from stillrobust.corruptions import elementary
from stillrobust.corruptions.compiled import Kernels
from stillrobust.corruptions.draws import quantiles
from stillrobust.samples import Array, Image

kernels, noises = Kernels("filters"), Kernels("fields")

FRACTIONS = np.arange(256) / 255.0
"""Grey levels as the reference represents them: float64 (256,), 0..1."""
FRACTIONS32 = FRACTIONS.astype(np.float32)

TOLERANCE = np.float32(1e-3)
"""Grey levels: a float32 sum of a few dozen terms differs less from the reference's float64 sum."""


def truncate_to_uint8(fractions: Array) -> Image:
    """Convert fractions to uint8: clipped and truncated, never rounded, as in the reference."""
    values: Image = (np.clip(fractions, 0, 1) * 255).astype(np.uint8)
    return values


@lru_cache(maxsize=64)
def gaussian_weights(sigma: float, truncate: float, exact: bool) -> Array:
    """Return a Gaussian's weights, which sum to 1; sigma 0 is the identity.

    Args:
        sigma: In pixels.
        truncate: The radius in sigmas: R = int(truncate * sigma + 0.5).
        exact: Use numpy's ``exp`` and sum, as the reference does on this processor. Otherwise the
            weights are the same on every processor.

    Returns:
        float64 (2R + 1,).
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
    """Return :func:`gaussian_weights` at distances 0..R only."""
    weights = gaussian_weights(sigma, truncate, exact)
    return np.ascontiguousarray(weights[len(weights) // 2 :])


def find_flat_areas(image: Image, reach: int, levels: Array) -> tuple[Array, Array]:
    """Find the samples whose neighbourhood is constant.

    Args:
        image: uint8 (H, W, 3).
        reach: Size of the neighbourhood, in pixels each way.
        levels: uint8 (256,): the result for each grey level there.

    Returns:
        A mask and the results, uint8 (H, W * 3) each.
    """
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    alike = cv2.compare(cv2.erode(image, window), cv2.dilate(image, window), cv2.CMP_EQ)
    return alike.reshape(len(image), -1), cv2.LUT(image, levels).reshape(len(image), -1)


NO_FLAT_AREAS = np.zeros((0, 0), np.uint8), np.zeros((0, 0), np.uint8)
"""Passed to a kernel while flat areas are not computed."""


@lru_cache(maxsize=64)
def _flat_gaussian(sigma: float, exact: bool) -> Array:
    """The reference's results for flat areas, uint8 (256,): some are one level darker."""
    half, values = one_sided_weights(sigma, 4.0, exact), FRACTIONS
    for _ in range(2):
        total = values * half[0]
        for weight in half[:0:-1]:
            total += (values + values) * weight
        values = total
    return truncate_to_uint8(values)


def gaussian_uint8(image: Image, sigma: float, exact: bool) -> Image:
    """Filter uint8 (H, W, 3) with a Gaussian, edges repeated, truncated to uint8."""
    half, height = one_sided_weights(float(sigma), 4.0, exact), image.shape[0]
    radius = len(half) - 1
    padded = cv2.copyMakeBorder(image, radius, radius, radius, radius, cv2.BORDER_REPLICATE)
    # each term rounds by 2**-24 of at most 255 (Higham 2002, 3.1), in two passes; so do the weights
    tolerance = np.float32(2 * (radius + 3) * 255 / 2**24)
    out = np.empty_like(image)
    levels = _flat_gaussian(float(sigma), exact)
    tables = (
        padded.reshape(height + 2 * radius, -1),
        half.astype(np.float32),
        half if exact else None,
        FRACTIONS,
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
    """Filter float32 (H, W) with a Gaussian cut at three sigmas, edges reflected.

    Args:
        field: float32 (H, W).
        sigmas: Down and across, in pixels.
        factor: The result is multiplied by it.
        exact: See :func:`gaussian_weights`.
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
    """Nodes at most one sigma apart along an axis, and the weights of a Gaussian at each sample.

    Noise on these nodes gives the same field as noise on every sample: the variance ripples by
    2 exp(-pi**2) = 1e-4 (Poisson summation).

    Returns:
        The number of nodes; the number of further nodes on each side; for each sample its first
        node, int64 (length,), and the weights, float32 (length, T).
    """
    count = math.ceil(length / sigma)
    spacing = length / count
    more = int(3 * sigma / spacing) + 1
    place = (np.arange(length) + 0.5) / spacing - 0.5
    first = np.floor(place).astype(np.int64) - more + 1
    distance = (place[:, None] - first[:, None] - np.arange(2 * more)) * spacing
    weights = elementary.exp(-0.5 * (distance / sigma) ** 2) * (np.abs(distance) <= 3 * sigma + 0.5)
    power = math.fsum(gaussian_weights(sigma, 3.0, False) ** 2)
    # cumsum adds one by one; the order of np.sum depends on the processor
    own = np.cumsum(weights**2, axis=1)[:, -1:]
    weights *= np.sqrt(power / own)
    return count, more, first + more, weights.astype(np.float32)


def smooth_noise(
    stream: tuple[np.uint32, np.uint32],
    size: tuple[int, int],
    sigmas: tuple[float, float],
    amplitude: float,
) -> Array:
    """Draw a field with the distribution of :func:`smooth_field` applied to uniforms.

    A wide filter hides single samples, so one normal number per square of sigma by sigma is enough.

    Args:
        stream: Key of the draws.
        size: (H, W).
        sigmas: Down and across, in pixels.
        amplitude: Of the uniforms.

    Returns:
        float32 (H, W).
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


def gaussian_filter(
    values: Array,
    sigma: float,
    exact: bool,
    between: type = np.float64,
    border: Literal["edge", "symmetric"] = "edge",
) -> Array:
    """Filter (H, W) with a Gaussian in float64.

    Args:
        values: (H, W).
        sigma: In pixels.
        exact: Equal to scikit-image's ``gaussian`` to the last bit; see :func:`gaussian_weights`.
        between: The type in which scipy stores the first pass.
        border: How the image goes on outside, as in ``np.pad``: scipy's ``nearest`` or ``reflect``.
    """
    weights = gaussian_weights(float(sigma), 4.0, exact)
    radius = len(weights) // 2
    first, second = np.empty(values.shape), np.empty(values.shape)
    kernels.correlate_rows(
        np.pad(values.astype(np.float64), ((radius, radius), (0, 0)), mode=border), weights, first
    )
    first = first.astype(between).astype(np.float64)
    kernels.correlate_columns(
        np.pad(first, ((0, 0), (radius, radius)), mode=border), weights, second
    )
    return second


@lru_cache(maxsize=512)
def zoom_axis(size: int, factor: float) -> tuple[Array, Array, Array, Array]:
    """Compute the clipped zoom along one axis.

    The middle ceil(size / factor) samples become round(that * factor) by linear interpolation with
    aligned corners. The first sample of the crop is the first of the output.

    Returns:
        For each output, two source indices (int64) and their weights, which are 0 beyond the crop.
    """
    crop = math.ceil(size / factor)
    start, length = (size - crop) // 2, round(crop * factor)
    ratio = (crop - 1) / (length - 1) if length > 1 else 0.0
    place = np.arange(length) * ratio
    first = np.minimum(np.floor(place).astype(np.int64), crop - 1)
    second = np.minimum(first + 1, crop - 1)
    # rounding can put the last place just beyond the crop, where scipy's mode "constant" gives 0
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
    kept_weights: Array
    """float32, without a negligible tail, whose weight the others share."""
    tail: float
    """Weight of that tail."""

    def border(self) -> tuple[int, int, int, int]:
        """Return the pixels needed on top, below, left and right of an image."""
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
    """(down, across, length) of the line in the reference, which is ``2 * radius + 1`` long."""
    if not exact:
        return *elementary.sin_cos(angle), 1.0
    segment = (
        (2 * radius + 1) * np.sin(np.deg2rad(angle)),
        (2 * radius + 1) * np.cos(np.deg2rad(angle)),
    )
    return *segment, math.hypot(*segment)


def motion_taps(
    shape: tuple[int, int], radius: int, sigma: float, angle: float, exact: bool
) -> Taps:
    """Compute a blur along ``angle`` degrees.

    As in the reference, a shift of the image's size or more ends the sum, and the remaining weight
    is lost.
    """
    taps, weights = np.arange(2 * radius + 1), _motion_weights(radius, sigma, exact)
    *direction, length = _motion_direction(radius, angle, exact)
    # shift = -ceil(i * direction - 1/2); the sample comes from the other side
    down, across = (np.ceil(taps * part / length - 0.5).astype(np.int64) for part in direction)
    beyond = (np.abs(down) >= shape[0]) | (np.abs(across) >= shape[1])
    count = int(beyond.argmax()) if beyond.any() else len(taps)
    down, across, weights = down[:count], across[:count], weights[:count]
    kept = int((np.cumsum(weights[::-1])[::-1] > 2e-6).sum())
    tail = math.fsum(weights[kept:])
    seen = weights[:kept] * (1 + tail / math.fsum(weights[:kept])) if kept else weights
    return Taps(down, across, weights, seen.astype(np.float32), tail)


def motion_uint8(image: Image, taps: Taps, exact: bool) -> Image:
    """Blur uint8 (H, W, 3) along a line, edges repeated, truncated to uint8."""
    if not len(taps.weights):
        return np.zeros_like(image)
    border = taps.border()
    padded = cv2.copyMakeBorder(image, *border, cv2.BORDER_REPLICATE).astype(np.float32)
    out = np.empty_like(image)
    places = taps.down + border[0], (taps.across + border[2]) * 3
    tolerance = np.float32(TOLERANCE / 2 + 255 * taps.tail)
    # results of flat areas, added in the reference's order
    levels = np.cumsum(taps.weights[:, None] * np.arange(256), axis=0)[-1]
    rows, table = padded.reshape(len(padded), -1), np.minimum(levels, 255).astype(np.uint8)
    if math.fsum(taps.weights) < 0.999:  # with lost weight, flat areas are not near whole numbers
        table = np.arange(256, dtype=np.uint8)
    kernels.motion_uint8(
        rows,
        *places,
        taps.kept_weights,
        taps.weights if exact else None,
        table,
        tolerance,
        out.reshape(len(out), -1),
    )
    return out
