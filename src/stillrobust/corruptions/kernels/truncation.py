"""From sums in float32 to grey levels: truncated as the reference does it, with a list of the
samples that need a second look.

The reference sums in float64 and truncates, so that a float32 sum, which is off by less than
``tolerance``, can end on another grey level only where it lies within ``tolerance`` of a whole number, and
not of 0, since all below 1 is black. Those samples, some in a thousand, are found here and computed
again in float64 by the caller, in the reference's order of operations.
"""

# mypy: ignore-errors

import numpy as np

from stillrobust.corruptions.kernels.jit import kernel

# 0 and 255, with no whole number near
LOWEST, HIGHEST, HALF = np.float32(0.4), np.float32(255.5), np.float32(0.5)


@kernel
def truncation_buffers(width):
    """Two arrays for :func:`truncate` on rows of ``width`` samples: marks, a multiple of eight
    long, and places.
    """
    return np.zeros((width + 7) // 8 * 8, np.uint8), np.empty(width, np.int64)


@kernel
def _marked_places(near, found):
    """The marked places, asked for eight at a time, since few are set; how many."""
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
    """float32 ``line`` -> uint8 ``out``, clipped and truncated; ``found`` gets the places within
    ``tolerance`` of a whole number.

    Returns how many.
    """
    for x in range(line.size):
        value = min(max(line[x], LOWEST), HIGHEST)
        out[x] = np.uint8(np.int32(value))
        near[x] = np.uint8(abs(value - np.float32(np.int32(value + HALF))) < tolerance)
    return _marked_places(near, found)


@kernel
def truncate_row(y, line, tolerance, flat, levels, near, found, out):
    """The same of row ``y``; where ``flat`` (uint8) is not 0, samples get their level instead.

    Both may be empty.
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
    """The same, all settled at once: what is near the whole number w becomes ``levels[w]``, as it
    would in a flat area.
    """
    for i in range(truncate(line, tolerance, near, found, out)):
        out[found[i]] = levels[np.int32(min(max(line[found[i]], LOWEST), HIGHEST) + HALF) & 255]


@kernel
def to_grey_level(fraction):
    """A float64 fraction, clipped and truncated to a grey level."""
    return np.uint8(np.int32(min(max(fraction, 0.0), 1.0) * 255))


@kernel
def needs_flat_areas(count, width, flat):
    """Whether so many samples of a row are near a whole number that flat areas, so far unknown, are
    worth a look.
    """
    return 16 * count > width and not flat.size
