"""Weather: snow, frost, fog, brightness and spatter."""

from functools import lru_cache

import cv2
import numpy as np

from stillrobust.corruptions import draws, filters, textures
from stillrobust.corruptions.compiled import Kernels
from stillrobust.corruptions.corruption import Corruption
from stillrobust.corruptions.draws import Key, Rng, quantiles
from stillrobust.samples import Array, Image

colour, fields, geometry, drop_kernels = (
    Kernels("colour"),
    Kernels("fields"),
    Kernels("geometry"),
    Kernels("drops"),
)


def snow(
    image: Image,
    rng: Rng,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    mix: float,
) -> Image:
    """Whiten, then add blurred flakes.

    Draws: a normal per pixel, one angle in -135..-45 degrees.
    """
    height, width = image.shape[:2]
    layer = _snow_layer((height, width), (mean, std, zoom, threshold), radius, sigma, rng)
    out = np.empty_like(image)
    shares, tables = (
        (np.float32(mix), np.float32(1 - mix)),
        (filters.FRACTIONS32, filters.FRACTIONS),
    )
    # exact draws need OpenCV's grey, whose last bit depends on the processor
    grey = (
        None
        if isinstance(rng, Key)
        else cv2.cvtColor(filters.FRACTIONS32[image], cv2.COLOR_RGB2GRAY)
    )
    fields.snow(
        image.reshape(height, -1),
        layer,
        *shares,
        *tables,
        grey,
        np.float32(2e-4),
        out.reshape(height, -1),
    )
    return out


def _snow_layer(
    size: tuple[int, int], flakes: tuple[float, ...], radius: int, sigma: float, rng: Rng
) -> Image:
    """The layer of flakes, uint8 ``size``: a normal field, enlarged, cut off and motion-blurred.

    ``flakes``: mean, standard deviation, zoom, threshold.
    """
    mean, std, zoom, threshold = flakes
    rows, columns = filters.zoom_axis(size[0], zoom), filters.zoom_axis(size[1], zoom)
    out = np.empty((len(rows[0]), len(columns[0])), np.float32)
    if isinstance(rng, Key):
        top, left = int(rows[0][0]), int(columns[0][0])
        seen = np.empty((int(rows[1][-1]) - top + 1, int(columns[1][-1]) - left + 1), np.float32)
        fields.normal_fast(
            (quantiles() * std + mean).astype(np.float32), *rng.stream(0), seen.reshape(-1)
        )
        near = [
            (a - start, b - start, p.astype(np.float32), q.astype(np.float32))
            for start, (a, b, p, q) in ((top, rows), (left, columns))
        ]
        geometry.enlarge_flakes_fast(seen, *near, np.float32(threshold), out)
        field, angle = None, rng.uniform(2, -135, -45)
    else:
        field = (draws.normals(rng, size[0] * size[1]) * std + mean).reshape(size)
        geometry.enlarge_flakes(field, rows, columns, threshold, out)
        angle = rng.uniform(-135, -45)
    taps = filters.motion_taps(
        (out.shape[0], out.shape[1]), radius, sigma, angle, exact=not isinstance(rng, Key)
    )
    layer = np.zeros(size, np.uint8)
    if len(taps.weights):
        border = taps.border()
        padded = cv2.copyMakeBorder(out, *border, cv2.BORDER_REPLICATE)
        places = taps.down + border[0], taps.across + border[2]
        again = (border[0], border[2]), field, rows, columns, taps.weights, threshold
        geometry.blur_flakes(
            padded,
            *places,
            taps.kept_weights,
            *again,
            np.float32(filters.TOLERANCE / 2 + 255 * taps.tail),
            layer,
        )
    return layer


def frost(
    image: Image, rng: Rng, image_weight: float, frost_weight: float, shrink: float | None = None
) -> Image:
    """Blend with a crop of a frost photograph. Draws: which of five, row, column."""
    height, width = image.shape[:2]

    def draw_integer(word: int, limit: int) -> int:
        return (
            int(rng.uniform(word, 0, limit)) if isinstance(rng, Key) else int(rng.randint(0, limit))
        )

    layer = textures.frost_layer(
        draw_integer(0, 5), height, width, shrink, exact=not isinstance(rng, Key)
    )
    top = draw_integer(1, layer.shape[0] - height)
    left = draw_integer(2, layer.shape[1] - width)
    out = np.empty_like(image)
    flat = layer.reshape(layer.shape[0], -1)
    fields.blend(
        image.reshape(height, -1),
        flat,
        top,
        3 * left,
        float(image_weight),
        float(frost_weight),
        out.reshape(height, -1),
    )
    return out


def plasma(height: int, width: int, decay: float, rng: Rng) -> tuple[Array, float, float]:
    """Make a toroidal diamond-square height map.

    Fast draws compute the finest level only in the image's rows; the extremes hardly ever lie
    elsewhere. Draws: per level, one block of uniforms for the squares and two for the diamonds.

    Returns:
        float32 (size, size), where size is the next power of two; the lowest and highest value.
    """
    size = 1 << (max(height, width, 3) - 1).bit_length()
    heights = np.empty((size, size), np.float32)
    if isinstance(rng, Key):
        return heights, *fields.plasma(
            np.zeros(0, np.float32), float(decay), *rng.stream(0), height, heights
        )
    drawn = draws.uniforms(rng, size * size - 1, 2.0, -1.0)
    return heights, *fields.plasma(drawn, float(decay), np.uint32(0), np.uint32(0), size, heights)


def fog(image: Image, rng: Rng, amount: float, decay: float) -> Image:
    """Add a plasma fractal and compress the range. Draws: those of :func:`plasma`."""
    height, width = image.shape[:2]
    heights, low, high = plasma(height, width, decay, rng)
    brightest, out = int(image.max()) / 255, np.empty_like(image)
    scales = np.float32(low), np.float32(high), float(amount), brightest, filters.FRACTIONS
    tolerance = np.float32(0) if isinstance(rng, Key) else filters.TOLERANCE
    fields.fog(image.reshape(height, -1), heights, *scales, tolerance, out.reshape(height, -1))
    return out


@lru_cache(maxsize=16)
def _brightness_table(amount: float) -> Array:
    """uint8 [V, c]: the new value c * V' / V of a channel, if the pixel's largest channel is V.

    Black becomes grey V'. The entry 1, which hardly ever results otherwise, marks whole numbers,
    where the reference's rounding errors decide. The largest channel itself becomes V'.
    """
    value, channel = np.arange(256)[:, None], np.arange(256)[None]
    brighter = np.clip(filters.FRACTIONS + amount, 0, 1)[:, None] * 255
    levels = np.minimum(channel, value) / np.maximum(value, 1) * brighter
    table = np.where(np.abs(levels - np.rint(levels)) < 1e-9, 1, np.floor(levels)).astype(np.uint8)
    np.fill_diagonal(table, brighter.astype(np.uint8)[:, 0])
    return table


def brightness(image: Image, rng: Rng, amount: float) -> Image:
    """Raise V of HSV. No draws."""
    out = np.empty_like(image)
    colour.brighten(
        image.reshape(-1), _brightness_table(amount), amount, filters.FRACTIONS, out.reshape(-1)
    )
    return out


# pale turquoise; the reference means BGR but applies it in this order
WATER = (175 / 255.0, 238 / 255.0, 238 / 255.0)
MUD = (63 / 255.0, 42 / 255.0, 20 / 255.0)


def spatter(
    image: Image,
    rng: Rng,
    mean: float,
    std: float,
    sigma: float,
    threshold: float,
    strength: float,
    mud: bool,
) -> Image:
    """Drops of water (1-3) or mud (4, 5). Draws: a normal per pixel."""
    exact = not isinstance(rng, Key)
    if isinstance(rng, Key):
        drawn = np.empty(image.shape[:2], np.float32)
        fields.normal_fast(quantiles().astype(np.float32), *rng.stream(0), drawn.reshape(-1))
    else:
        drawn = draws.normals(rng, image.shape[0] * image.shape[1]).reshape(image.shape[:2])
    layer = filters.gaussian_filter(drawn * std + mean, sigma, exact)
    layer[layer < threshold] = 0
    fractions = image.astype(np.float32) / np.float32(255)
    if mud:
        cover = filters.gaussian_filter(
            (layer > threshold).astype(np.float32), strength, exact, between=np.float32
        )
        cover = cover.astype(np.float32)
        cover[cover < 0.8] = 0
        fractions = fractions * (1 - cover[..., None]) + cover[..., None] * np.array(MUD)
        return filters.truncate_to_uint8(fractions)
    layer = (layer * 255).astype(np.uint8)
    drops = (
        _opencv_drops(layer)
        if exact
        else layer
        * drop_kernels.emboss_distances(
            drop_kernels.edge_distances(drop_kernels.canny_edges(layer))
        ).astype(np.float32)
    )
    # no drop at all: the reference divides nought by nought, and a black image comes out
    if drops.max() == 0:
        return np.zeros_like(image)
    drops = drops / drops.max() * np.float32(strength)
    return filters.truncate_to_uint8(fractions + drops[..., None] * np.array(WATER, np.float32))


def _opencv_drops(layer: Array) -> Array:
    """uint8 (H, W) -> float32: edges, distance to them, equalised and embossed; OpenCV's calls in
    the reference's order.
    """
    distance = cv2.distanceTransform(255 - cv2.Canny(layer, 50, 150), cv2.DIST_L2, 5)
    _, distance = cv2.threshold(distance, 20, 20, cv2.THRESH_TRUNC)
    distance = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    distance = cv2.blur(cv2.filter2D(distance, cv2.CV_8U, emboss), (3, 3)).astype(np.float32)
    drops: Array = layer * distance
    return drops


_SNOW_OF_CIFAR = (
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)

WEATHER = {
    "snow": Corruption(
        snow,
        {
            "imagenet": (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
            "cifar": _SNOW_OF_CIFAR,
            "tiny-imagenet": (
                (*_SNOW_OF_CIFAR[0][:6], 0.8),
                (*_SNOW_OF_CIFAR[1][:6], 0.8),
                (*_SNOW_OF_CIFAR[2][:6], 0.7),
                (*_SNOW_OF_CIFAR[3][:6], 0.65),
                (*_SNOW_OF_CIFAR[4][:6], 0.6),
            ),
        },
    ),
    "frost": Corruption(
        frost,
        {
            "imagenet": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
            # the authors shrink the textures for small images
            "cifar": (
                (1, 0.2, 0.2),
                (1, 0.3, 0.2),
                (0.9, 0.4, 0.2),
                (0.85, 0.4, 0.2),
                (0.75, 0.45, 0.2),
            ),
            "tiny-imagenet": (
                (1, 0.3, 0.3),
                (0.9, 0.4, 0.3),
                (0.8, 0.45, 0.3),
                (0.75, 0.5, 0.3),
                (0.7, 0.55, 0.3),
            ),
        },
    ),
    "fog": Corruption(
        fog,
        {
            "imagenet": ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
            "cifar": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
            "tiny-imagenet": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        },
    ),
    "brightness": Corruption(
        brightness,
        {"imagenet": (0.1, 0.2, 0.3, 0.4, 0.5), "cifar": (0.05, 0.1, 0.15, 0.2, 0.3)},
        deterministic=True,
    ),
    "spatter": Corruption(
        spatter,
        {
            "imagenet": (
                (0.65, 0.3, 4, 0.69, 0.6, False),
                (0.65, 0.3, 3, 0.68, 0.6, False),
                (0.65, 0.3, 2, 0.68, 0.5, False),
                (0.65, 0.3, 1, 0.65, 1.5, True),
                (0.67, 0.4, 1, 0.65, 1.5, True),
            ),
            "cifar": (
                (0.62, 0.1, 0.7, 0.7, 0.5, False),
                (0.65, 0.1, 0.8, 0.7, 0.5, False),
                (0.65, 0.3, 1, 0.69, 0.5, False),
                (0.65, 0.1, 0.7, 0.69, 0.6, True),
                (0.65, 0.1, 0.5, 0.68, 0.6, True),
            ),
            "tiny-imagenet": (
                (0.62, 0.1, 0.7, 0.7, 0.6, False),
                (0.65, 0.1, 0.8, 0.7, 0.6, False),
                (0.65, 0.3, 1, 0.69, 0.6, False),
                (0.65, 0.1, 0.7, 0.68, 0.6, True),
                (0.65, 0.1, 0.5, 0.67, 0.6, True),
            ),
        },
    ),
}
