"""Digital: contrast, elastic_transform, pixelate, jpeg_compression and saturate."""

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

from stillrobust.corruptions import draws, filters, resampling
from stillrobust.corruptions.compiled import Kernels
from stillrobust.corruptions.corruption import Corruption
from stillrobust.corruptions.displacement import pixel_grid
from stillrobust.corruptions.draws import Key, Rng
from stillrobust.errors import UserError
from stillrobust.samples import Array, Image

colour, geometry, jpeg, streams = (
    Kernels("colour"),
    Kernels("geometry"),
    Kernels("jpeg"),
    Kernels("streams"),
)


def contrast(image: Image, rng: Rng, factor: float) -> Image:
    """Move every channel towards its mean over the image. No draws."""
    table = _contrast_levels(
        np.array(cv2.sumElems(image)[:3]) / (image.shape[0] * image.shape[1]) / 255, factor
    )
    # near whole numbers the reference's rounding decides
    if not isinstance(rng, Key) and (np.abs(table - np.rint(table)) < 1e-9).any():
        table = _contrast_levels(np.mean(image / 255.0, axis=(0, 1)), factor)
    changed: Image = cv2.LUT(image, table.astype(np.uint8)[None]).reshape(image.shape)
    return changed


def _contrast_levels(means: Array, factor: float) -> Array:
    """The result for each grey level, not truncated: float64 (256, 3) from means (3,)."""
    levels: Array = np.clip((filters.FRACTIONS[:, None] - means) * factor + means, 0, 1) * 255
    return levels


@dataclass(frozen=True)
class ElasticField:
    """Where elastic_transform takes pixels from.

    ``down`` and ``across`` are float32 (H, W), in pixels. They apply after ``matrix``, if any.
    """

    matrix: Array | None
    down: Array
    across: Array
    drawn: tuple[Array, Array]
    """float64 (H, W), down and across: the noise before smoothing. Empty for fast draws."""
    weights: tuple[Array, Array]
    strength: float


def elastic_fields(
    size: tuple[int, int],
    rng: Rng,
    strength: float,
    sigma: float | None = None,
    jitter: float = 0.0,
    side: int | None = None,
) -> ElasticField:
    """Draw the fields of one image.

    Args:
        size: (H, W).
        rng: Source of the draws.
        strength: In pixels for the library's variant, whose other parameters follow from ``size``.
        sigma: If given, the original variant of ImageNet-C: all three numbers are multiples of
            ``side``, and ``jitter`` of three corners adds an affine map.
        jitter: See ``sigma``.
        side: Default: the image's shorter side.
    """
    height, width = size
    matrix = None
    if sigma is not None:
        side = side or min(height, width)
        strength, sigma = strength * side, sigma * side
        amplitude, sigmas = 1.0, (sigma, sigma)
        matrix = _affine(size, jitter * side, rng)
    else:
        amplitude = 0.005 * height  # the height for both fields, as in the reference
        sigmas = 0.01 * height, 0.01 * width
    weights = (
        filters.one_sided_weights(sigmas[0], 3.0, True),
        filters.one_sided_weights(sigmas[1], 3.0, True),
    )
    if isinstance(rng, Key):
        across, down = (
            filters.smooth_noise(rng.stream(i), size, sigmas, amplitude * strength) for i in (0, 1)
        )
        return ElasticField(matrix, down, across, (NO_NOISE, NO_NOISE), weights, strength)
    columns, rows = (
        draws.uniforms(rng, height * width, 2.0 * amplitude, -amplitude).reshape(size)
        for _ in range(2)
    )
    across, down = (
        filters.smooth_field(drawn.astype(np.float32), sigmas, strength, exact=True)
        for drawn in (columns, rows)
    )
    return ElasticField(matrix, down, across, (rows, columns), weights, strength)


NO_NOISE = np.zeros((0, 0))


def elastic_transform(
    image: Image,
    rng: Rng,
    strength: float,
    sigma: float | None = None,
    jitter: float = 0.0,
    side: int | None = None,
) -> Image:
    """Move pixels along a smooth random field.

    The original variant of ImageNet-C first jitters three corners of a square and warps the image
    with them. Draws: those of the corners, then uniforms for the columns' field and for the rows'.

    See :func:`elastic_fields` for the parameters.
    """
    height, width = image.shape[:2]
    field = elastic_fields((height, width), rng, strength, sigma, jitter, side)
    values: Array = image
    if field.matrix is not None and isinstance(rng, Key):
        values = resampling.warp_affine(image, invert_affine(field.matrix))
    elif field.matrix is not None:
        values = cv2.warpAffine(
            image.astype(np.float32),
            field.matrix,
            (width, height),
            borderMode=cv2.BORDER_REFLECT_101,
        )
        values += np.float32(1e-3)  # rounding leaves flat areas slightly below their level
    margin = 1 + max(
        int(np.ceil(max(part.max(), -part.min()))) for part in (field.down, field.across)
    )
    padded = cv2.copyMakeBorder(values, *(margin,) * 4, cv2.BORDER_REFLECT)
    four = cv2.cvtColor(padded, cv2.COLOR_RGB2RGBA).reshape(len(padded), -1)
    # only the library's variant with exact draws has a reference to the bit
    drawn = field.drawn if field.drawn[0].size and field.matrix is None else None
    tolerance = np.float32(0) if drawn is None else filters.TOLERANCE
    again = drawn, field.weights, field.strength, filters.FRACTIONS32, tolerance
    out = np.empty_like(image)
    geometry.displace(four, margin, field.down, field.across, *again, out.reshape(height, -1))
    return out


def _elastic_displacement(size: tuple[int, int], rng: Rng, *parameters: Any) -> Array:
    field = elastic_fields(size, rng, *parameters)
    if field.matrix is None:
        return np.stack([field.down, field.across], axis=-1)
    # The warped image at p shows the clean one at inverse(p), and p is here the displaced place.
    (a, b, right), (c, d, below) = invert_affine(field.matrix).tolist()
    rows, columns = pixel_grid(size)
    # Explicitly float64: numpy 1 and 2 disagree on a float64 scalar times a float32 array.
    x, y = (columns + field.across).astype(np.float64), (rows + field.down).astype(np.float64)
    moved = c * x + d * y + below - rows, a * x + b * y + right - columns
    return np.stack(moved, axis=-1).astype(np.float32)


def _affine(size: tuple[int, int], jitter: float, rng: Rng) -> Array:
    """Jitter three corners of the middle third by ``jitter`` pixels; return the map (2, 3)."""
    middle, third = np.array(size, np.float32) // 2, min(size) // 3
    corners = np.array(
        [middle + third, [middle[0] + third, middle[1] - third], middle - third], np.float32
    )
    if not isinstance(rng, Key):
        matrix: Array = cv2.getAffineTransform(
            corners, corners + rng.uniform(-jitter, jitter, (3, 2)).astype(np.float32)
        )
        return matrix
    words = np.empty(6, np.uint32)
    streams.fill_hashes(0, *rng.stream(3), words)
    (right, below), (_, above), (left, _) = corners.tolist()
    first, second, third = corners + (words.reshape(3, 2) / 2**31 - 1) * jitter
    if right == left:  # fewer than three pixels
        return np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    across, down = (second - third) / (right - left), (first - second) / (below - above)
    return np.stack([across, down, first - across * right - down * below], axis=1)


def invert_affine(matrix: Array) -> Array:
    """Invert an affine map (2, 3)."""
    (a, b, x), (c, d, y) = matrix.tolist()
    area = a * d - b * c
    a, b, c, d = d / area, -b / area, -c / area, a / area
    return np.array([[a, b, -a * x - b * y], [c, d, -c * x - d * y]])


@lru_cache(maxsize=256)
def nearest_places(small: int, size: int) -> Array:
    """Compute Pillow's source indices: a float64 sum from the middle of the first sample on."""
    steps = np.full(size, small / size)
    steps[0] *= 0.5
    places: Array = np.minimum(np.add.accumulate(steps).astype(np.int64), small - 1)
    return places


def _small_size(height: int, width: int, factor: float) -> tuple[int, int]:
    """(H, W) of the small image: at least one pixel, where the reference fails."""
    return max(1, int(height * factor)), max(1, int(width * factor))


def pixelate(image: Image, rng: Rng, factor: float, enlarge_by_area: bool = False) -> Image:
    """Shrink by area average; enlarge by nearest neighbour or by area average. No draws."""
    height, width = image.shape[:2]
    small = _small_size(height, width, factor)
    resize = resampling.box_resize if isinstance(rng, Key) else _pillow_box
    picture = resize(image, small)
    if enlarge_by_area:
        return resize(picture, (height, width))
    out = np.empty_like(image)
    rows, columns = nearest_places(small[0], height), nearest_places(small[1], width)
    geometry.gather_nearest(picture.reshape(small[0], -1), rows, columns, out.reshape(height, -1))
    return out


def _pixelate_displacement(
    size: tuple[int, int], rng: Rng, factor: float, enlarge_by_area: bool = False
) -> Array:
    """To the middle of the block that a pixel shows."""

    def middle(small: int, length: int) -> Array:
        places = nearest_places(small, length)
        offsets: Array = (places + 0.5) * length / small - 0.5 - np.arange(length)
        return offsets.astype(np.float32)

    small = _small_size(*size, factor)
    down, across = middle(small[0], size[0]), middle(small[1], size[1])
    return np.stack(np.broadcast_arrays(down[:, None], across[None]), axis=-1)


def _pillow_box(image: Image, size: tuple[int, int]) -> Image:
    return np.array(Pillow.fromarray(image).resize(size[::-1], Pillow.Resampling.BOX))


# Annex K of the standard (ITU-T T.81), row by row.
LUMINANCE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
], np.int32)  # fmt: skip
CHROMINANCE = np.full(64, 99, np.int32)
for _row, _entries in enumerate(((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56), (47, 66))):
    CHROMINANCE[8 * _row : 8 * _row + len(_entries)] = _entries


@lru_cache(maxsize=16)
def _quantisation_steps(quality: int) -> tuple[Array, Array]:
    """Quantisation steps of luminance and chrominance: int32 (64,), row by row (jcparam.c)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    luminance, chrominance = (
        np.clip((table * scale + 50) // 100, 1, 255).astype(np.int32)
        for table in (LUMINANCE, CHROMINANCE)
    )
    return luminance, chrominance


def jpeg_compression(image: Image, rng: Rng, quality: int) -> Image:
    """Compress with JPEG and decompress. No draws.

    Exact draws use libjpeg, as the reference; fast draws compute its arithmetic.
    """
    height, width = image.shape[:2]
    if max(height, width) > 65500:
        raise UserError(
            "Expected an image of at most 65,500 pixels a side, which JPEG allows, but got"
            f" {image.shape[:2]}; crop it first"
        )
    if not isinstance(rng, Key):
        file = io.BytesIO()
        Pillow.fromarray(image).save(file, "JPEG", quality=quality)
        # OpenCV decodes to the pixels of Pillow, in fewer copies
        decoded = cv2.imdecode(np.frombuffer(file.getbuffer(), np.uint8), cv2.IMREAD_COLOR)
        return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, decoded), np.uint8)
    half_height, half_width = (height + 1) // 2, (width + 1) // 2
    luma = np.empty((_round_up(height, 16), _round_up(width, 64)), np.uint8)
    blue, red = (
        np.empty((_round_up(half_height, 8), _round_up(half_width, 64)), np.uint8) for _ in range(2)
    )
    luminance, chrominance = _quantisation_steps(quality)
    jpeg.rgb_to_planes(image.reshape(height, -1), luma, blue, red)
    for plane, steps in ((luma, luminance), (blue, chrominance), (red, chrominance)):
        jpeg.quantise_plane(plane, steps)
    out = np.empty_like(image)
    jpeg.planes_to_rgb(luma, blue, red, out.reshape(height, -1))
    return out


def _round_up(size: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-size // multiple) * multiple


@lru_cache(maxsize=16)
def _saturation_ratios(factor: float, offset: float) -> Array:
    """[V, min]: S' / S for a pixel with largest channel V and smallest min; 0 if S is 0."""
    largest, smallest = np.arange(256)[:, None], np.arange(256)[None]
    saturation = np.where(
        largest > 0, (largest - np.minimum(smallest, largest)) / np.maximum(largest, 1), 0.0
    )
    changed = np.clip(saturation * factor + offset, 0, 1)
    ratio: Array = np.where(saturation > 0, changed / np.where(saturation > 0, saturation, 1), 0.0)
    return ratio


def saturate(image: Image, rng: Rng, factor: float, offset: float) -> Image:
    """Scale S of HSV. No draws."""
    factor, offset = float(factor), float(offset)
    out = np.empty_like(image)
    colour.saturate(
        image.reshape(-1),
        _saturation_ratios(factor, offset),
        factor,
        offset,
        filters.FRACTIONS,
        out.reshape(-1),
    )
    return out


DIGITAL = {
    "contrast": Corruption(
        contrast,
        {"imagenet": (0.4, 0.3, 0.2, 0.1, 0.05), "cifar": (0.75, 0.5, 0.4, 0.3, 0.15)},
        deterministic=True,
    ),
    "elastic_transform": Corruption(
        elastic_transform,
        {
            # the library's variant: no affine part, and it scales with the image
            "imagenet": (12.5, 16.25, 21.25, 25.0, 30.0),  # 250 x (.05 .065 .085 .1 .12)
            "imagenet-c": (
                (2, 0.7, 0.1, 244),
                (2, 0.08, 0.2, 244),
                (0.05, 0.01, 0.02, 244),
                (0.07, 0.01, 0.02, 244),
                (0.12, 0.01, 0.02, 244),
            ),
            "cifar": (
                (0, 0, 0.08),
                (0.05, 0.2, 0.07),
                (0.08, 0.06, 0.06),
                (0.1, 0.04, 0.05),
                (0.1, 0.03, 0.03),
            ),
            "tiny-imagenet": (
                (0, 0, 0.08),
                (0.05, 0.3, 0.06),
                (0.1, 0.08, 0.06),
                (0.1, 0.03, 0.03),
                (0.16, 0.03, 0.02),
            ),
        },
        displacement=_elastic_displacement,
    ),
    "pixelate": Corruption(
        pixelate,
        {
            "imagenet": (0.6, 0.5, 0.4, 0.3, 0.25),
            # the original enlarges by area average too
            "imagenet-c": ((0.6, True), (0.5, True), (0.4, True), (0.3, True), (0.25, True)),
            "cifar": ((0.95, True), (0.9, True), (0.85, True), (0.75, True), (0.65, True)),
            "tiny-imagenet": ((0.9, True), (0.8, True), (0.7, True), (0.6, True), (0.5, True)),
        },
        deterministic=True,
        displacement=_pixelate_displacement,
    ),
    "jpeg_compression": Corruption(
        jpeg_compression,
        {
            "imagenet": (25, 18, 15, 10, 7),
            "cifar": (80, 65, 58, 50, 40),
            "tiny-imagenet": (65, 58, 50, 40, 25),
        },
        deterministic=True,
    ),
    "saturate": Corruption(
        saturate,
        {
            "imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
            "cifar": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
            "tiny-imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        },
        deterministic=True,
    ),
}
