"""Where pixels went: the displacement that a geometric corruption applied, so that ground truth can
follow.

A field is float32 (H, W, 2), (down, across) in pixels: pixel (y, x) of the corrupted image shows
the clean one at (y + down, x + across).
"""

from collections.abc import Callable

import numpy as np

from stillrobust.corruptions import blur, digital, filters
from stillrobust.corruptions.draws import Rng
from stillrobust.corruptions.severity import parameters
from stillrobust.samples import Array

Field = Callable[[tuple[int, int], int, Rng, str], Array]


def _grid(size: tuple[int, int]) -> tuple[Array, Array]:
    rows, columns = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    return rows.astype(np.float32), columns.astype(np.float32)


def _elastic(size: tuple[int, int], severity: int, rng: Rng, regime: str) -> Array:
    field = digital.elastic_fields(size, severity, rng, regime)
    if field.matrix is None:
        return np.stack([field.down, field.across], axis=-1)
    # out(p) = in(back p), and here p is the displaced place
    (a, b, right), (c, d, below) = digital.inverted(field.matrix).tolist()
    rows, columns = _grid(size)
    # In float64 explicitly: numpy 1 and 2 give a float64 scalar times a float32 array different types.
    x, y = (columns + field.across).astype(np.float64), (rows + field.down).astype(np.float64)
    moved = c * x + d * y + below - rows, a * x + b * y + right - columns
    return np.stack(moved, axis=-1).astype(np.float32)


def _glass(size: tuple[int, int], severity: int, rng: Rng, regime: str) -> Array:
    """Of the shuffle; the blurs before and after it move nothing."""
    places = np.arange(size[0] * size[1], dtype=np.uint32)
    blur.shuffle(places, size, severity, rng, regime)
    rows, columns = _grid(size)
    came = places.reshape(size)
    return np.stack([came // size[1] - rows, came % size[1] - columns], axis=-1).astype(np.float32)


def _zoom(size: tuple[int, int], severity: int, rng: Rng, regime: str) -> Array:
    """The mean over the layers, the original counted twice: where the middle of the smear is."""

    def mean(length: int) -> Array:
        total = np.arange(length, dtype=np.float64) * 2
        factors = parameters("zoom_blur", severity, regime)
        for factor in factors[1:]:
            first, second, near, far = (part[:length] for part in filters.zoom_axis(length, factor))
            total += first * near + second * far
        moved: Array = (total / (len(factors) + 1) - np.arange(length)).astype(np.float32)
        return moved

    down, across = mean(size[0]), mean(size[1])
    return np.stack(np.broadcast_arrays(down[:, None], across[None]), axis=-1)


def _pixelate(size: tuple[int, int], severity: int, rng: Rng, regime: str) -> Array:
    """To the middle of the block that a pixel shows."""

    def middle(small: int, length: int) -> Array:
        places = digital.nearest_places(small, length)
        moved: Array = ((places + 0.5) * length / small - 0.5 - np.arange(length)).astype(
            np.float32
        )
        return moved

    small = digital.small_size(*size, severity, regime)
    down, across = middle(small[0], size[0]), middle(small[1], size[1])
    return np.stack(np.broadcast_arrays(down[:, None], across[None]), axis=-1)


FIELDS: dict[str, Field] = {
    "elastic_transform": _elastic,
    "glass_blur": _glass,
    "zoom_blur": _zoom,
    "pixelate": _pixelate,
}
"""The corruptions that move pixels."""


def _reflected(places: Array, size: int) -> Array:
    places = places % (2 * size)
    return np.where(places < size, places, 2 * size - 1 - places)


def warp_map(values: Array, field: Array) -> Array:
    """Label maps or masks (..., H, W), each pixel from the nearest place that the field names; the
    same dtype.
    """
    height, width = field.shape[:2]
    rows, columns = _grid((height, width))
    y = _reflected(np.rint(rows + field[..., 0]).astype(np.int64), height)
    x = _reflected(np.rint(columns + field[..., 1]).astype(np.int64), width)
    warped: Array = values[..., y, x]
    return warped


def warp_boxes(boxes: Array, field: Array) -> Array:
    """float32 (N, 4) xyxy -> the extents of the pixels that show the box's inside; all 0 where no
    pixel does.
    """
    rows, columns = _grid((field.shape[0], field.shape[1]))
    y, x = rows + field[..., 0] + 0.5, columns + field[..., 1] + 0.5
    out = np.zeros((len(boxes), 4), np.float32)
    for index, (left, top, right, bottom) in enumerate(boxes):
        out[index] = extents((x >= left) & (x < right) & (y >= top) & (y < bottom))
    return out


def extents(mask: Array) -> tuple[float, float, float, float]:
    """bool (H, W) -> (x1, y1, x2, y2) of its pixels, the last two exclusive; all 0 for an empty
    mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
