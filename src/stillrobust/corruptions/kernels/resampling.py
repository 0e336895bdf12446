"""Resizing in whole numbers, and affine maps: the same pixels on every processor."""

# mypy: ignore-errors

import math

import numpy as np

from stillrobust.corruptions.kernels.jit import kernel

BITS = 11  # fractional bits of a weight in OpenCV's resize of uint8
HALF = 1 << (2 * BITS - 1)
# fractional bits in Pillow's resize of uint8: 32 less 8 for the sample and 2 for sums
BOX_BITS = 22
BOX_HALF = 1 << (BOX_BITS - 1)


@kernel
def resize(image, rows, row_weights, columns, column_weights, out):
    """Resize uint8 (H, W, 3) -> uint8 (h, w, 3) with T weighted samples each way.

    ``rows`` and ``row_weights`` are int64 (h, T), weights in units of 2**-11; likewise for columns
    (w, T). The result is rounded once and clipped.
    """
    count = rows.shape[1]
    mixed = np.empty(image.shape[1] * 3, np.int32)
    flat = image.reshape(image.shape[0], -1)
    for y in range(out.shape[0]):
        mixed[:] = 0
        for tap in range(count):
            source, weight = flat[rows[y, tap]], np.int32(row_weights[y, tap])
            for i in range(mixed.size):
                mixed[i] += weight * np.int32(source[i])
        for x in range(out.shape[1]):
            for channel in range(3):
                total = np.int64(HALF)
                for tap in range(count):
                    total += column_weights[x, tap] * np.int64(mixed[3 * columns[x, tap] + channel])
                out[y, x, channel] = np.uint8(min(max(total >> (2 * BITS), 0), 255))


@kernel
def box_rows(image, first, counts, out):
    """Means of ``counts`` rows from ``first`` on: uint8 (H, N) -> uint8 (h, N)."""
    width = out.shape[1]
    total = np.empty(width, np.int32)
    for y in range(out.shape[0]):
        weight, target = np.int32((1 << BOX_BITS) / counts[y] + 0.5), out[y]
        total[:] = 0
        for row in range(first[y], first[y] + counts[y]):
            source = image[row]
            for x in range(width):
                total[x] += np.int32(source[x])
        for x in range(width):
            target[x] = np.uint8(np.int32(total[x] * weight + BOX_HALF) >> BOX_BITS)


@kernel
def box_columns(image, first, counts, out):
    """Means of ``counts`` columns from ``first`` on: uint8 (H, W * 3) -> uint8 (H, w * 3)."""
    weights = np.empty(counts.size, np.int32)
    for x in range(counts.size):
        weights[x] = np.int32((1 << BOX_BITS) / counts[x] + 0.5)
    for y in range(out.shape[0]):
        source, target = image[y], out[y]
        for x in range(counts.size):
            red, green, blue = np.int32(0), np.int32(0), np.int32(0)
            for place in range(first[x], first[x] + counts[x]):
                i = np.uint64(3 * place)
                red += np.int32(source[i])
                green += np.int32(source[i + np.uint64(1)])
                blue += np.int32(source[i + np.uint64(2)])
            i, weight = np.uint64(3 * x), weights[x]
            target[i] = np.uint8(np.int32(red * weight + BOX_HALF) >> BOX_BITS)
            target[i + np.uint64(1)] = np.uint8(np.int32(green * weight + BOX_HALF) >> BOX_BITS)
            target[i + np.uint64(2)] = np.uint8(np.int32(blue * weight + BOX_HALF) >> BOX_BITS)


@kernel
def _mirror_index(place, size):
    """Reflect at the middle of the first and last sample: -1 -> 1, size -> size - 2."""
    if size == 1:
        return 0
    place %= 2 * size - 2
    return place if place < size else 2 * size - 2 - place


@kernel
def affine(image, back, out):
    """out(y, x) = image at ``back`` (2, 3) @ (x, y, 1), bilinear, edges mirrored.

    uint8 (H, W, 3) -> float32 (H, W, 3).
    """
    height, width = image.shape[:2]
    for y in range(height):
        for x in range(width):
            across = back[0, 0] * x + back[0, 1] * y + back[0, 2]
            down = back[1, 0] * x + back[1, 1] * y + back[1, 2]
            left, top = math.floor(across), math.floor(down)
            wx, wy = np.float32(across - left), np.float32(down - top)
            x0, x1 = _mirror_index(int(left), width), _mirror_index(int(left) + 1, width)
            y0, y1 = _mirror_index(int(top), height), _mirror_index(int(top) + 1, height)
            for channel in range(3):
                a, b = np.float32(image[y0, x0, channel]), np.float32(image[y0, x1, channel])
                c, d = np.float32(image[y1, x0, channel]), np.float32(image[y1, x1, channel])
                upper, lower = a + wx * (b - a), c + wx * (d - c)
                out[y, x, channel] = upper + wy * (lower - upper)
