"""Weather: snow, frost, fog, brightness and spatter."""

from functools import lru_cache

import cv2
import numba
import numpy as np

from stillrobust.corruptions import filters, textures
from stillrobust.corruptions.severity import parameters
from stillrobust.samples import Array, Image

Rng = np.random.RandomState


def snow(image: Image, severity: int, rng: Rng) -> Image:
    """Whiten, then add blurred flakes. Draws: a normal per pixel, one angle in -135..-45 degrees."""
    mean, std, zoom, threshold, radius, sigma, mix = parameters("snow", severity)
    height, width = image.shape[:2]
    fractions = image.astype(np.float32) / np.float32(255)
    layer = rng.normal(size=(height, width), loc=mean, scale=std)
    layer = filters.clipped_zoom(layer[..., None], zoom)[..., 0]
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
    layer = filters.motion_blur(layer, radius, sigma, rng.uniform(-135, -45))
    layer = np.round(np.clip(layer, 0, 1) * 255).astype(np.uint8)[:height, :width, None] / 255.0
    grey = cv2.cvtColor(fractions, cv2.COLOR_RGB2GRAY)[..., None]
    fractions = mix * fractions + (1 - mix) * np.maximum(fractions, grey * 1.5 + 0.5)
    return filters.truncate(fractions + layer + np.rot90(layer, 2))


def frost(image: Image, severity: int, rng: Rng) -> Image:
    """Blend with a crop of a frost photograph. Draws: which of five, row, column."""
    own, ice = parameters("frost", severity)
    height, width = image.shape[:2]
    layer = textures.frost_layer(int(rng.randint(5)), height, width)
    top, left = int(rng.randint(0, layer.shape[0] - height)), int(rng.randint(0, layer.shape[1] - width))
    crop = layer[top : top + height, left : left + width]
    blended: Image = np.clip(own * image.astype(np.float64) + ice * crop.astype(np.float64), 0, 255).astype(np.uint8)
    return blended


def plasma(size: int, decay: float, rng: Rng) -> Array:
    """Diamond-square height map, toroidal, float32 (size, size) 0..1; ``size`` a power of two.

    Draws: per level one block of uniforms for the squares and two for the diamonds.
    """
    heights = np.zeros((size, size), np.float32)
    step, wobble = size, 100.0

    def rough(total: Array) -> Array:
        return total / 4 + wobble * rng.uniform(-wobble, wobble, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[0:size:step, 0:size:step]
        sums = corners + np.roll(corners, -1, axis=0)
        sums += np.roll(sums, -1, axis=1)
        heights[half:size:step, half:size:step] = rough(sums)
        middles = heights[half:size:step, half:size:step]
        heights[0:size:step, half:size:step] = rough(
            (middles + np.roll(middles, 1, axis=0)) + (corners + np.roll(corners, -1, axis=1))
        )
        heights[half:size:step, 0:size:step] = rough(
            (middles + np.roll(middles, 1, axis=1)) + (corners + np.roll(corners, -1, axis=0))
        )
        step, wobble = half, wobble / decay
    heights -= heights.min()
    heights /= heights.max()
    return heights


def fog(image: Image, severity: int, rng: Rng) -> Image:
    """Add a plasma fractal and compress the range. Draws: those of :func:`plasma`."""
    amount, decay = parameters("fog", severity)
    height, width = image.shape[:2]
    size = 1 << (max(height, width, 3) - 1).bit_length()
    fractions = image / 255.0
    brightest = fractions.max()
    fractions += amount * plasma(size, decay, rng)[:height, :width, None]
    return filters.truncate(fractions * brightest / (brightest + amount))


@lru_cache(maxsize=8)
def _brighter(amount: float) -> Array:
    """[V, c]: a channel's new value where the pixel's largest channel is V: c * V' / V (grey V' for black)."""
    value, channel = np.arange(256)[:, None], np.arange(256)[None]
    brighter = np.minimum(value / 255 + amount, 1) * 255
    table = np.where(value > 0, np.minimum(channel, value) / np.maximum(value, 1) * brighter, brighter)
    return np.floor(table + 1e-9).astype(np.uint8)  # the products fall on whole numbers, less a rounding error


@numba.njit(cache=True)
def _by_largest(image, table, out):  # type: ignore[no-untyped-def]
    for i in range(image.shape[0]):
        row = table[max(image[i, 0], image[i, 1], image[i, 2])]
        for c in range(3):
            out[i, c] = row[image[i, c]]


def brightness(image: Image, severity: int, rng: Rng) -> Image:
    """Raise V of HSV. No draws."""
    out = np.empty_like(image)
    _by_largest(image.reshape(-1, 3), _brighter(parameters("brightness", severity)), out.reshape(-1, 3))
    return out


WATER = (175 / 255.0, 238 / 255.0, 238 / 255.0)  # pale turquoise, written for BGR in the source but applied in this order
MUD = (63 / 255.0, 42 / 255.0, 20 / 255.0)


def spatter(image: Image, severity: int, rng: Rng) -> Image:
    """Drops of water (1-3) or mud (4, 5). Draws: a normal per pixel."""
    mean, std, sigma, threshold, strength, mud = parameters("spatter", severity)
    layer = filters.gaussian_filter(rng.normal(size=image.shape[:2], loc=mean, scale=std), sigma)
    layer[layer < threshold] = 0
    fractions = image.astype(np.float32) / np.float32(255)
    if mud:
        cover = filters.gaussian_filter((layer > threshold).astype(np.float32), strength, between=np.float32)
        cover = cover.astype(np.float32)
        cover[cover < 0.8] = 0
        fractions = fractions * (1 - cover[..., None]) + cover[..., None] * np.array(MUD)
        return filters.truncate(fractions)
    drops = _drops((layer * 255).astype(np.uint8))
    if drops.max() == 0:  # no drop at all: the reference divides nought by nought, and a black image comes out
        return np.zeros_like(image)
    drops = drops / drops.max() * np.float32(strength)
    return filters.truncate(fractions + drops[..., None] * np.array(WATER, np.float32))


def _drops(layer: Array) -> Array:
    """uint8 (H, W) -> float32: edges, distance to them, equalised and embossed; OpenCV's calls in the reference's order."""
    distance = cv2.distanceTransform(255 - cv2.Canny(layer, 50, 150), cv2.DIST_L2, 5)
    _, distance = cv2.threshold(distance, 20, 20, cv2.THRESH_TRUNC)
    distance = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    distance = cv2.blur(cv2.filter2D(distance, cv2.CV_8U, emboss), (3, 3)).astype(np.float32)
    drops: Array = layer * distance
    return drops
