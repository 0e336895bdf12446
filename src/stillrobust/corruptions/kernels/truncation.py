"""Truncate float32 sums to grey levels, and find the samples whose rounding is uncertain.

The reference sums in float64 and truncates. A float32 sum is off by less than ``tolerance``. It can
give another grey level only if it lies within ``tolerance`` of a whole number (other than 0, as
everything below 1 is black). Some samples in a thousand do. For exact draws the caller computes
them again in float64, in the reference's order of operations.
"""

# mypy: ignore-errors

import numpy as np

from stillrobust.corruptions.kernels.jit import kernel

# they truncate to 0 and 255, and no whole number is within the tolerance
LOWEST, HIGHEST, HALF = np.float32(0.4), np.float32(255.5), np.float32(0.5)


@kernel
def truncation_buffers(width):
    """Allocate marks (padded to a multiple of eight) and places for :func:`truncate`."""
    return np.zeros((width + 7) // 8 * 8, np.uint8), np.empty(width, np.int64)


@kernel
def _marked_places(near, found):
    """Write marked places to ``found``, return their number. Few are set: test eight at once."""
    count, eights = 0, near.view(np.uint64)
    for i in range(eights.size):
        if eights[i]:
            for x in range(8 * i, 8 * i + 8):
                if near[x]:
                    found[count] = x
                    count += 1
    return count


@kernel
def truncate(line, tolerance, near, found, out):
    """Clip and truncate float32 ``line`` to uint8 ``out``.

    ``found`` receives the places within ``tolerance`` of a whole number. Returns their number.
    """
    for x in range(line.size):
        value = min(max(line[x], LOWEST), HIGHEST)
        out[x] = np.uint8(np.int32(value))
        near[x] = np.uint8(abs(value - np.float32(np.int32(value + HALF))) < tolerance)
    return _marked_places(near, found)


@kernel
def truncate_row(y, line, tolerance, flat, levels, near, found, out):
    """Truncate row ``y`` as :func:`truncate` does, except in flat areas.

    Where ``flat`` (uint8) is not 0, samples get their value of ``levels``. Both may be empty.
    """
    if not flat.size:
        return truncate(line, tolerance, near, found, out)
    even, level = flat[y], levels[y]
    for x in range(line.size):
        value = min(max(line[x], LOWEST), HIGHEST)
        out[x] = level[x] if even[x] else np.uint8(np.int32(value))
        near[x] = np.uint8(abs(value - np.float32(np.int32(value + HALF))) < tolerance) & np.uint8(
            even[x] == 0
        )
    return _marked_places(near, found)


@kernel
def truncate_near(line, tolerance, levels, near, found, out):
    """Truncate as :func:`truncate` does; samples near the whole number w become ``levels[w]``.

    Fast draws use it: the result is the one of a flat area, and nothing is computed again.
    """
    for i in range(truncate(line, tolerance, near, found, out)):
        out[found[i]] = levels[np.int32(min(max(line[found[i]], LOWEST), HIGHEST) + HALF) & 255]


@kernel
def to_grey_level(fraction):
    """Clip a float64 fraction to 0..1 and truncate it to a grey level."""
    return np.uint8(np.int32(min(max(fraction, 0.0), 1.0) * 255))


@kernel
def needs_flat_areas(count, width, flat):
    """Whether many samples of a row are uncertain and flat areas were not computed yet."""
    return 16 * count > width and not flat.size
