"""Weather: snow, frost, fog, brightness and spatter."""

from functools import lru_cache

import cv2
import numpy as np

from stillrobust.corruptions import draws, filters, textures
from stillrobust.corruptions.compiled import Kernels
from stillrobust.corruptions.draws import Key, Rng
from stillrobust.corruptions.noise import quantiles
from stillrobust.corruptions.severity import parameters
from stillrobust.samples import Array, Image

fields, geometry = Kernels("fields"), Kernels("geometry")


def snow(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Whiten, then add blurred flakes. Draws: a normal per pixel, one angle in -135..-45 degrees."""
    mean, std, zoom, threshold, radius, sigma, mix = parameters("snow", severity, regime)
    height, width = image.shape[:2]
    flakes = _flakes((height, width), mean, std, zoom, threshold, rng)
    angle = rng.uniform(2, -135, -45) if isinstance(rng, Key) else rng.uniform(-135, -45)
    down, across, weights, _ = filters.motion_taps((flakes.shape[0], flakes.shape[1]), radius, sigma, angle)
    taps = down, across, weights, filters.UNCHANGED
    layer = filters.motion_grey(flakes, taps, 255.0, np.float32(0.5), (height, width))[..., 0]
    out = np.empty_like(image)
    # a thinner hair than elsewhere: the layer is rounded too, and the two must not add up to two grey levels
    fields.snow(image.reshape(height, -1), layer, np.float32(mix), np.float32(1e-4), out.reshape(height, -1))
    return out


def _flakes(shape: tuple[int, int], mean: float, std: float, zoom: float, threshold: float, rng: Rng) -> Array:
    """The enlarged middle of a normal field, 0 below the threshold, 0..1: float32, at least ``shape``."""
    (y0, y1, *wy), (x0, x1, *wx) = filters.zoom_axis(shape[0], zoom), filters.zoom_axis(shape[1], zoom)
    out = np.empty((len(y0), len(x0)), np.float32)
    if not isinstance(rng, Key):
        field = (draws.normals(rng, shape[0] * shape[1]) * std + mean).reshape(shape)
        geometry.enlarge_flakes(field, y0, y1, *wy, x0, x1, *wx, threshold, out)
        return out
    top, left = int(y0[0]), int(x0[0])
    field = np.empty((int(y1[-1]) - top + 1, int(x1[-1]) - left + 1), np.float32)  # only what is seen
    fields.normal_fast((quantiles() * std + mean).astype(np.float32), *rng.stream(0), field.reshape(-1))
    rows, columns = ([weights.astype(np.float32) for weights in pair] for pair in (wy, wx))
    places = (y0 - top, y1 - top), (x0 - left, x1 - left)
    geometry.enlarge_flakes_fast(field, *places[0], *rows, *places[1], *columns, np.float32(threshold), out)
    return out


def frost(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Blend with a crop of a frost photograph. Draws: which of five, row, column."""
    own, ice = parameters("frost", severity, regime)
    height, width = image.shape[:2]

    def below(word: int, limit: int) -> int:
        return int(rng.uniform(word, 0, limit)) if isinstance(rng, Key) else int(rng.randint(0, limit))

    layer = textures.frost_layer(below(0, 5), height, width, SHRINK.get(regime))
    top = below(1, layer.shape[0] - height)
    left = below(2, layer.shape[1] - width)
    out = np.empty_like(image)
    flat = layer.reshape(layer.shape[0], -1)
    fields.blend(image.reshape(height, -1), flat, top, 3 * left, float(own), float(ice), out.reshape(height, -1))
    return out


SHRINK = {"cifar": 0.2, "tiny-imagenet": 0.3}
"""How much smaller the small-image sets of ImageNet-C's authors make the textures."""


def plasma(size: int, decay: float, rng: Rng) -> tuple[Array, float, float]:
    """Diamond-square height map, toroidal: (float32 (size, size), lowest, highest); ``size`` a power of two, 2 or more.

    Draws: per level one block of uniforms for the squares and two for the diamonds.
    """
    heights = np.empty((size, size), np.float32)
    if isinstance(rng, Key):
        low, high = fields.plasma_fast(float(decay), *rng.stream(0), heights)
    else:
        drawn = draws.uniforms(rng, size * size - 1)
        drawn *= 2
        drawn -= 1
        low, high = fields.plasma(drawn, float(decay), heights)
    return heights, low, high


def fog(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Add a plasma fractal and compress the range. Draws: those of :func:`plasma`."""
    amount, decay = parameters("fog", severity, regime)
    height, width = image.shape[:2]
    heights, low, high = plasma(1 << (max(height, width, 3) - 1).bit_length(), decay, rng)
    brightest = int(image.max()) / 255
    scales = np.float32(amount * 255 / (high - low)), np.float32(brightest / (brightest + amount))
    out = np.empty_like(image)
    fields.fog(image.reshape(height, -1), heights, np.float32(low), *scales, filters.HAIR, out.reshape(height, -1))
    return out


@lru_cache(maxsize=16)
def _brighter(amount: float) -> Array:
    """[V, c]: a channel's new value where the pixel's largest channel is V: c * V' / V (grey V' for black)."""
    value, channel = np.arange(256)[:, None], np.arange(256)[None]
    brighter = np.minimum(value / 255 + amount, 1) * 255
    table = np.where(value > 0, np.minimum(channel, value) / np.maximum(value, 1) * brighter, brighter)
    return np.floor(table + 1e-9).astype(np.uint8)  # the products fall on whole numbers, less a rounding error


def brightness(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Raise V of HSV. No draws."""
    out = np.empty_like(image)
    fields.by_largest(image.reshape(-1), _brighter(parameters("brightness", severity, regime)), out.reshape(-1))
    return out


WATER = (175 / 255.0, 238 / 255.0, 238 / 255.0)  # pale turquoise, written for BGR in the source but applied in this order
MUD = (63 / 255.0, 42 / 255.0, 20 / 255.0)


def spatter(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Drops of water (1-3) or mud (4, 5). Draws: a normal per pixel."""
    mean, std, sigma, threshold, strength, mud = parameters("spatter", severity, regime)
    if isinstance(rng, Key):
        drawn = np.empty(image.shape[:2], np.float32)
        fields.normal_fast(quantiles().astype(np.float32), *rng.stream(0), drawn.reshape(-1))
    else:
        drawn = draws.normals(rng, image.shape[0] * image.shape[1]).reshape(image.shape[:2])
    layer = filters.gaussian_filter(drawn * std + mean, sigma)
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
