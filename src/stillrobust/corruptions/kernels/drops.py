"""The drops of spatter in whole numbers: OpenCV's edges, distances, equalisation and embossing.

OpenCV's own functions depend on the processor: its builds for x86 pass some of them to Intel's IPP,
which uses floating point.
"""

# mypy: ignore-errors

import numpy as np

from stillrobust.corruptions.kernels.jit import kernel

LOW, HIGH = 50, 150  # thresholds of Canny's edges, from the reference
TAN_22 = 13573  # tan(22.5 degrees) in units of 2**-15 (OpenCV, canny.cpp)
# 1, 1.4 and 2.1969 in units of 2**-16 (OpenCV, distransf.cpp)
STRAIGHT, DIAGONAL, KNIGHT = 65536, 91750, 143976
FURTHEST = 20 * 65536  # where the reference cuts distances off


@kernel
def _mirror_index(place, size):
    """Reflect at the middle of the first and last sample, one sample beyond them."""
    if size == 1:
        return 0
    if place < 0:
        return -place
    return 2 * size - 2 - place if place >= size else place


@kernel
def canny_edges(layer):
    """Canny's edges (1986) as OpenCV finds them: uint8 (H, W) -> bool (H, W)."""
    height, width = layer.shape
    across, down = np.empty((height, width), np.int32), np.empty((height, width), np.int32)
    size = np.zeros((height + 2, width + 2), np.int32)
    left, right = np.empty(width, np.int64), np.empty(width, np.int64)
    for x in range(width):
        left[x], right[x] = max(x - 1, 0), min(x + 1, width - 1)
    for y in range(height):
        above, own, below = layer[max(y - 1, 0)], layer[y], layer[min(y + 1, height - 1)]
        for x in range(width):
            i, k = left[x], right[x]
            a, b, c = np.int32(above[i]), np.int32(above[x]), np.int32(above[k])
            d, e = np.int32(own[i]), np.int32(own[k])
            f, g, h = np.int32(below[i]), np.int32(below[x]), np.int32(below[k])
            dx, dy = (c - a) + 2 * (e - d) + (h - f), (f - a) + 2 * (g - b) + (h - c)
            across[y, x], down[y, x], size[y + 1, x + 1] = dx, dy, abs(dx) + abs(dy)
    found = np.zeros((height, width), np.bool_)
    maybe = np.zeros((height, width), np.bool_)
    stack, depth = np.empty((height * width, 2), np.int32), 0
    for y in range(height):
        before, own, after = size[y], size[y + 1], size[y + 2]
        for x in range(width):
            strength = own[x + 1]
            if strength <= LOW:
                continue
            dx, dy = across[y, x], down[y, x]
            shallow, steep = np.int64(abs(dx)) * TAN_22, np.int64(abs(dy)) << 15
            if steep < shallow:
                thin = strength > own[x] and strength >= own[x + 2]
            elif steep > shallow + (np.int64(abs(dx)) << 16):
                thin = strength > before[x + 1] and strength >= after[x + 1]
            else:
                side = -1 if (dx ^ dy) < 0 else 1
                thin = strength > before[x + 1 - side] and strength > after[x + 1 + side]
            if thin and strength > HIGH:
                found[y, x] = True
                stack[depth, 0], stack[depth, 1] = y, x
                depth += 1
            elif thin:
                maybe[y, x] = True
    while depth:
        depth -= 1
        y, x = stack[depth, 0], stack[depth, 1]
        for j in range(max(y - 1, 0), min(y + 2, height)):
            for i in range(max(x - 1, 0), min(x + 2, width)):
                if maybe[j, i] and not found[j, i]:
                    found[j, i] = True
                    stack[depth, 0], stack[depth, 1] = j, i
                    depth += 1
    return found


@kernel
def edge_distances(seeds):
    """Distance to the nearest edge, at most 20 pixels: bool (H, W) -> int32 (H, W).

    The unit is 2**-16 pixels. Two passes with steps of 1, 1.4 and 2.1969 pixels (Borgefors 1986, 5
    by 5).
    """
    height, width = seeds.shape
    wide = np.full((height + 4, width + 4), FURTHEST, np.int32)
    for y in range(height):
        own, one, two = wide[y + 2], wide[y + 1], wide[y]
        for x in range(2, width + 2):
            if seeds[y, x - 2]:
                own[x] = 0
                continue
            knight = min(min(two[x - 1], two[x + 1]), min(one[x - 2], one[x + 2])) + KNIGHT
            nearest = min(
                min(one[x - 1], one[x + 1]) + DIAGONAL, min(one[x], own[x - 1]) + STRAIGHT
            )
            own[x] = min(min(knight, nearest), FURTHEST)
    for y in range(height - 1, -1, -1):
        own, one, two = wide[y + 2], wide[y + 3], wide[y + 4]
        for x in range(width + 1, 1, -1):
            knight = min(min(two[x - 1], two[x + 1]), min(one[x - 2], one[x + 2])) + KNIGHT
            nearest = min(
                min(one[x - 1], one[x + 1]) + DIAGONAL, min(one[x], own[x + 1]) + STRAIGHT
            )
            own[x] = min(own[x], min(knight, nearest))
    return wide[2 : height + 2, 2 : width + 2].copy()


@kernel
def _box_sums(values):
    """Sums over 3 by 3 samples, edges mirrored: int32 (H, W)."""
    height, width = values.shape
    out, column = np.empty((height, width), np.int32), np.empty(width, np.int32)
    for y in range(height):
        above, own, below = (
            values[_mirror_index(y - 1, height)],
            values[y],
            values[_mirror_index(y + 1, height)],
        )
        for x in range(width):
            column[x] = np.int32(above[x]) + np.int32(own[x]) + np.int32(below[x])
        out[y, 0] = column[_mirror_index(-1, width)] + column[0] + column[_mirror_index(1, width)]
        for x in range(1, width - 1):
            out[y, x] = column[x - 1] + column[x] + column[x + 1]
        out[y, width - 1] = (
            column[_mirror_index(width - 2, width)]
            + column[width - 1]
            + column[_mirror_index(width, width)]
        )
    return out


@kernel
def emboss_distances(distance):
    """Smooth, equalise, emboss and smooth distances again: int32 (H, W) -> uint8 (H, W)."""
    height, width = distance.shape
    sums, counts = _box_sums(distance), np.zeros(256, np.int64)
    levels = np.empty((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            levels[y, x] = np.uint8(sums[y, x] // (9 * STRAIGHT))
            counts[levels[y, x]] += 1
    first = 0
    while counts[first] == 0:
        first += 1
    table, total, rest = np.full(256, first, np.uint8), np.int64(0), height * width - counts[first]
    if rest:
        scale = np.float32(255) / np.float32(rest)
        table[: first + 1] = 0
        for level in range(first + 1, 256):
            total += counts[level]
            table[level] = np.uint8(min(np.rint(np.float32(total) * scale), np.float32(255)))
    out = np.empty((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            levels[y, x] = table[levels[y, x]]
    for y in range(height):
        above, own, below = (
            levels[_mirror_index(y - 1, height)],
            levels[y],
            levels[_mirror_index(y + 1, height)],
        )
        for x in range(width):
            i, k = _mirror_index(x - 1, width), _mirror_index(x + 1, width)
            value = (
                np.int32(own[x]) + np.int32(own[k]) + np.int32(below[x]) + 2 * np.int32(below[k])
            )
            value -= 2 * np.int32(above[i]) + np.int32(above[x]) + np.int32(own[i])
            out[y, x] = np.uint8(min(max(value, 0), 255))
    sums = _box_sums(out)
    for y in range(height):
        for x in range(width):
            out[y, x] = np.uint8((sums[y, x] + 4) // 9)
    return out
