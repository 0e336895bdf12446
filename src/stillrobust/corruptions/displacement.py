"""Warp ground truth with the displacement field of a corruption that moves pixels.

A field is float32 (H, W, 2), (down, across) in pixels: pixel (y, x) of the corrupted image shows
the clean one at (y + down, x + across).
"""

import numpy as np

from stillrobust.samples import Array


def pixel_grid(size: tuple[int, int]) -> tuple[Array, Array]:
    """Return the row and the column of every pixel of an image of ``size``, float32 (H, W) each."""
    rows, columns = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    return rows.astype(np.float32), columns.astype(np.float32)


def _reflected(places: Array, size: int) -> Array:
    places = places % (2 * size)
    return np.where(places < size, places, 2 * size - 1 - places)


def warp_map(values: Array, field: Array) -> Array:
    """Warp label maps or masks to the corrupted image, by nearest neighbour.

    Args:
        values: (..., H, W), any dtype.
        field: float32 (H, W, 2), (down, across).
    """
    height, width = field.shape[:2]
    rows, columns = pixel_grid((height, width))
    y = _reflected(np.rint(rows + field[..., 0]).astype(np.int64), height)
    x = _reflected(np.rint(columns + field[..., 1]).astype(np.int64), width)
    warped: Array = values[..., y, x]
    return warped


def warp_boxes(boxes: Array, field: Array) -> Array:
    """Warp boxes: each becomes the extents of the pixels that show its inside.

    Args:
        boxes: float32 (N, 4) xyxy.
        field: float32 (H, W, 2), (down, across).

    Returns:
        float32 (N, 4); all 0 for a box that no pixel shows.
    """
    rows, columns = pixel_grid((field.shape[0], field.shape[1]))
    y, x = rows + field[..., 0] + 0.5, columns + field[..., 1] + 0.5
    out = np.zeros((len(boxes), 4), np.float32)
    for index, (left, top, right, bottom) in enumerate(boxes):
        out[index] = extents((x >= left) & (x < right) & (y >= top) & (y < bottom))
    return out


def extents(mask: Array) -> tuple[float, float, float, float]:
    """Return a mask's bounding box (x1, y1, x2, y2), the last two exclusive; all 0 if it is empty.

    Args:
        mask: bool (H, W).
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
