"""Digital: contrast, elastic_transform, pixelate, jpeg_compression and saturate."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image as Pillow

from stillrobust.corruptions import draws, filters
from stillrobust.corruptions.compiled import Kernels
from stillrobust.corruptions.draws import Key, Rng
from stillrobust.corruptions.severity import parameters
from stillrobust.errors import UserError
from stillrobust.samples import Array, Image

colour, geometry = Kernels("colour"), Kernels("geometry")


def contrast(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Move every channel towards its mean over the image. No draws."""
    factor = parameters("contrast", severity, regime)
    table = _contrast_levels(np.array(cv2.sumElems(image)[:3]) / (image.shape[0] * image.shape[1]) / 255, factor)
    if (np.abs(table - np.rint(table)) < 1e-9).any():  # then the rounding of the reference's own sum decides, as on flat images
        table = _contrast_levels(np.mean(image / 255.0, axis=(0, 1)), factor)
    changed: Image = cv2.LUT(image, table.astype(np.uint8)[None]).reshape(image.shape)
    return changed


def _contrast_levels(means: Array, factor: float) -> Array:
    """What each grey level becomes, untruncated: float64 (256, 3) from fractions (3,)."""
    levels: Array = np.clip((filters.FRACTIONS[:, None] - means) * factor + means, 0, 1) * 255
    return levels


@dataclass(frozen=True)
class Elastic:
    """Where elastic_transform takes pixels from: float32 (H, W) fields down and across, in pixels, after ``matrix`` if any."""

    matrix: Array | None
    down: Array
    across: Array
    drawn: tuple[Array, Array]
    """float64 (H, W), down and across: what was smoothed, in exact mode; else empty."""
    weights: tuple[Array, Array]
    strength: float


def elastic_fields(size: tuple[int, int], severity: int, rng: Rng, regime: str) -> Elastic:
    """The fields of one image of ``size`` (H, W)."""
    entry = parameters("elastic_transform", severity, regime)
    height, width = size
    matrix = None
    if isinstance(entry, tuple):
        strength, sigma, jitter = (part * (244 if regime == "imagenet-c" else min(height, width)) for part in entry)
        amplitude, sigmas = 1.0, (sigma, sigma)
        matrix = _affine(size, jitter, rng)
    else:
        strength, amplitude = entry, 0.005 * height  # the height for both fields, as in the source
        sigmas = 0.01 * height, 0.01 * width
    weights = filters.half_weights(sigmas[0], 3.0), filters.half_weights(sigmas[1], 3.0)
    if isinstance(rng, Key):
        across, down = (filters.smooth_noise(rng.stream(i), size, sigmas, amplitude * strength) for i in (0, 1))
        return Elastic(matrix, down, across, (NOTHING, NOTHING), weights, strength)
    columns, rows = (draws.uniforms(rng, height * width, 2.0 * amplitude, -amplitude).reshape(size) for _ in range(2))
    across, down = (filters.smooth_field(drawn.astype(np.float32), sigmas, strength) for drawn in (columns, rows))
    return Elastic(matrix, down, across, (rows, columns), weights, strength)


NOTHING = np.zeros((0, 0))


def elastic_transform(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Move pixels along a smooth random field. Draws: uniforms for the columns' field, then for the rows'.

    Where the table has three numbers it is the original of ImageNet-C, which first jitters three corners of a square and warps
    the image so that they follow. Draws of that come first.
    """
    height, width = image.shape[:2]
    field = elastic_fields((height, width), severity, rng, regime)
    values: Array = image
    if field.matrix is not None:
        values = cv2.warpAffine(image.astype(np.float32), field.matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        values += np.float32(1e-3)  # flat areas come out of it a rounding error below themselves
    margin = 1 + max(int(np.ceil(max(part.max(), -part.min()))) for part in (field.down, field.across))
    padded = cv2.copyMakeBorder(values, *(margin,) * 4, cv2.BORDER_REFLECT)
    four = cv2.cvtColor(padded, cv2.COLOR_RGB2RGBA).reshape(len(padded), -1)
    # only the library's own transform, in exact mode, has a reference to the bit
    reach = filters.REACH if field.drawn[0].size and field.matrix is None else np.float32(0)
    again = field.drawn, field.weights, field.strength, filters.FRACTIONS32, reach
    out = np.empty_like(image)
    geometry.displace(four, margin, field.down, field.across, *again, out.reshape(height, -1))
    return out


def _affine(size: tuple[int, int], jitter: float, rng: Rng) -> Array:
    """Three corners of the middle third move by up to ``jitter`` pixels each way: the matrix (2, 3) that takes them there."""
    middle, third = np.array(size, np.float32) // 2, min(size) // 3
    corners = np.array([middle + third, [middle[0] + third, middle[1] - third], middle - third], np.float32)
    if isinstance(rng, Key):
        shift = np.random.RandomState(rng.words[6]).uniform(-jitter, jitter, (3, 2))
    else:
        shift = rng.uniform(-jitter, jitter, (3, 2))
    matrix: Array = cv2.getAffineTransform(corners, corners + shift.astype(np.float32))
    return matrix


@lru_cache(maxsize=256)
def nearest_places(small: int, size: int) -> Array:
    """Pillow's source indices: a float64 sum that begins in the middle of the first sample."""
    steps = np.full(size, small / size)
    steps[0] *= 0.5
    places: Array = np.minimum(np.add.accumulate(steps).astype(np.int64), small - 1)
    return places


def small_size(height: int, width: int, severity: int, regime: str) -> tuple[int, int]:
    """(H, W) of the small image: at least a pixel, where the reference fails."""
    factor = parameters("pixelate", severity, regime)
    return max(1, int(height * factor)), max(1, int(width * factor))


def pixelate(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Shrink by area average, enlarge by nearest neighbour (ImageNet-C and its small kin: by area average). No draws."""
    height, width = image.shape[:2]
    small = small_size(height, width, severity, regime)[::-1]
    picture = Pillow.fromarray(image).resize(small, Pillow.Resampling.BOX)
    if regime != "imagenet":
        return np.array(picture.resize((width, height), Pillow.Resampling.BOX))
    out = np.empty_like(image)
    rows, columns = nearest_places(small[1], height), nearest_places(small[0], width)
    geometry.nearest(np.array(picture).reshape(small[1], -1), rows, columns, out.reshape(height, -1))
    return out


def jpeg_compression(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Through OpenCV's JPEG codec and back: the pixels of Pillow's, which the reference uses, in half the time. No draws.

    The pixels depend on the libjpeg that OpenCV carries; libjpeg-turbo 3 has the reference's.
    """
    quality = [cv2.IMWRITE_JPEG_QUALITY, parameters("jpeg_compression", severity, regime)]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if done else None
    if decoded is None:
        raise UserError(f"Expected an image that JPEG holds, 65,500 pixels a side at most, but got {image.shape[:2]}; cut it first")
    rgb: Image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)
    return rgb


@lru_cache(maxsize=16)
def _saturation(factor: float, offset: float) -> Array:
    """[V, min]: S' / S where the pixel's largest and smallest channels are V and min (0 where S is 0)."""
    largest, smallest = np.arange(256)[:, None], np.arange(256)[None]
    saturation = np.where(largest > 0, (largest - np.minimum(smallest, largest)) / np.maximum(largest, 1), 0.0)
    changed = np.clip(saturation * factor + offset, 0, 1)
    ratio: Array = np.where(saturation > 0, changed / np.where(saturation > 0, saturation, 1), 0.0)
    return ratio


def saturate(image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
    """Scale S of HSV. No draws."""
    factor, offset = (float(part) for part in parameters("saturate", severity, regime))
    out = np.empty_like(image)
    colour.saturate(image.reshape(-1), _saturation(factor, offset), factor, offset, filters.FRACTIONS, out.reshape(-1))
    return out
