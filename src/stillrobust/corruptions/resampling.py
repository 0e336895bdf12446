"""Resizing with the same pixels on every processor, like Pillow's box filter and OpenCV's resize.

Exact draws use the libraries' own code, which depends on the release and on the processor.
"""

import math
from functools import lru_cache

import numpy as np

from stillrobust.corruptions.compiled import Kernels
from stillrobust.samples import Array, Image

kernels = Kernels("resampling")

SHARPNESS = -0.75  # of the bicubic kernel in OpenCV (Keys 1981, a)
UNIT = 2048  # of a weight (kernels/resampling.py, BITS)


@lru_cache(maxsize=256)
def _box_windows(size: int, small: int) -> tuple[Array, Array]:
    """The samples that Pillow's box filter averages: their first and number, int64 (small,)."""
    scale = size / small
    support = 0.5 * max(scale, 1.0)
    first, counts = np.empty(small, np.int64), np.empty(small, np.int64)
    for place in range(small):
        centre = (place + 0.5) * scale
        seen = range(max(0, int(centre - support + 0.5)), min(size, int(centre + support + 0.5)))
        # a sample counts if its middle lies in the window, half open
        inside = [i for i in seen if -0.5 < (i - centre + 0.5) * (1 / max(scale, 1.0)) <= 0.5]
        first[place], counts[place] = inside[0], len(inside)
    return first, counts


def box_resize(image: Image, size: tuple[int, int]) -> Image:
    """Resize uint8 (H, W, 3) to ``size`` (H, W) by area average, columns first."""
    height, width = image.shape[:2]
    if size[1] != width:
        narrow = np.empty((height, size[1] * 3), np.uint8)
        kernels.box_columns(image.reshape(height, -1), *_box_windows(width, size[1]), narrow)
    else:
        narrow = image.reshape(height, -1)
    out = np.empty((size[0], size[1] * 3), np.uint8)
    kernels.box_rows(narrow, *_box_windows(height, size[0]), out)
    return out.reshape(*size, 3)


def _cubic(x: float) -> tuple[float, float, float, float]:
    """Weights of the samples at -1, 0, 1, 2 for a place ``x`` in 0..1 (Keys 1981)."""
    a = SHARPNESS
    before = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    own = ((a + 2) * x - (a + 3)) * x * x + 1
    after = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    return before, own, after, 1 - before - own - after


def _taps(size: int, new: int, cubic: bool) -> tuple[Array, Array]:
    """Sources and weights of every output, int64 (new, T); the weights sum to ``UNIT``."""
    sources, weights = [], []
    for place in range(new):
        at = (place + 0.5) * (size / new) - 0.5
        whole = math.floor(at)
        share = at - whole
        parts = _cubic(share) if cubic else (1 - share, share)
        rounded = [math.floor(part * UNIT + 0.5) for part in parts]
        rounded[1 if cubic else 0] += UNIT - sum(rounded)
        sources.append(
            [min(max(whole + i - (1 if cubic else 0), 0), size - 1) for i in range(len(parts))]
        )
        weights.append(rounded)
    return np.array(sources, np.int64), np.array(weights, np.int64)


def resize(image: Image, size: tuple[int, int], cubic: bool = True) -> Image:
    """Resize without smoothing, within a grey level of ``cv2.resize``.

    Args:
        image: uint8 (H, W, 3).
        size: (H, W) of the result.
        cubic: Bicubic; otherwise bilinear.
    """
    out = np.empty((*size, 3), np.uint8)
    rows, columns = _taps(image.shape[0], size[0], cubic), _taps(image.shape[1], size[1], cubic)
    kernels.resize(np.ascontiguousarray(image), *rows, *columns, out)
    return out


def warp_affine(image: Image, back: Array) -> Array:
    """Warp uint8 (H, W, 3) to float32: out(y, x) = image at ``back`` @ (x, y, 1), bilinear.

    Args:
        image: uint8 (H, W, 3); edges are mirrored.
        back: (2, 3), from the result to the image.
    """
    out = np.empty(image.shape, np.float32)
    kernels.affine(image, back, out)
    return out
