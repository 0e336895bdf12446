"""Correlation with the disk of defocus_blur: a running sum, a small Gaussian after it, and single
places at the array's edge.
"""

# mypy: ignore-errors

import numpy as np

from stillrobust.corruptions.kernels.filters import _horizontal, _vertical, correlate_line_exact
from stillrobust.corruptions.kernels.jit import kernel
from stillrobust.corruptions.kernels.truncation import (
    needs_flat_areas,
    to_grey_level,
    truncate_near,
    truncate_row,
    truncation_buffers,
)


@kernel
def disk_sums(padded, half, out):
    """int32 sums of uint8 samples under a disk: row by row, what the disk's lower edge takes in
    less what its upper leaves.

    ``half`` (2r + 1): the disk's half width at each offset -r..r; out (H, W * 3), padded by r on
    every side.
    """
    size, radius, width = len(half), len(half) // 2, out.shape[1]
    total, change = np.zeros(width, np.int32), np.empty(width, np.int16)
    for j in range(size):
        for dy in range(-half[j], half[j] + 1):
            row = padded[radius + dy][3 * j : 3 * j + width]
            for x in range(width):
                total[x] += np.int32(row[x])
    out[0] = total
    for y in range(1, out.shape[0]):
        change[:] = 0
        for j in range(size):
            enters = padded[y + radius + half[j]][3 * j : 3 * j + width]
            leaves = padded[y - 1 + radius - half[j]][3 * j : 3 * j + width]
            for x in range(width):
                change[x] += np.int16(enters[x]) - np.int16(leaves[x])
        line = out[y]
        for x in range(width):
            total[x] += np.int32(change[x])
            line[x] = total[x]


@kernel
def _add_places(padded, y, places, weights, ends, sums, line):
    """line += samples at ``places`` (N, 2), of which ``ends[i - 1]`` to ``ends[i]`` have the weight
    ``weights[i]``.

    Samples of one weight are added as integers, four a pass.
    """
    width, place = line.size, 0
    for i in range(len(weights)):
        sums[:] = 0
        while place + 4 <= ends[i]:
            a = padded[y + places[place, 0]][places[place, 1] : places[place, 1] + width]
            b = padded[y + places[place + 1, 0]][
                places[place + 1, 1] : places[place + 1, 1] + width
            ]
            c = padded[y + places[place + 2, 0]][
                places[place + 2, 1] : places[place + 2, 1] + width
            ]
            d = padded[y + places[place + 3, 0]][
                places[place + 3, 1] : places[place + 3, 1] + width
            ]
            for x in range(width):
                sums[x] += np.int16(np.int16(a[x]) + np.int16(b[x])) + np.int16(
                    np.int16(c[x]) + np.int16(d[x])
                )
            place += 4
        while place < ends[i]:
            a = padded[y + places[place, 0]][places[place, 1] : places[place, 1] + width]
            for x in range(width):
                sums[x] += np.int16(a[x])
            place += 1
        for x in range(width):
            line[x] += weights[i] * np.float32(sums[x])


@kernel
def _disk_sample_exact(padded, y, x, whole, fractions):
    """The correlation with ``whole`` (K, K) whose window's corner is (y, x)."""
    total = 0.0
    for j in range(len(whole)):
        for k in range(len(whole)):
            total += whole[j, k] * fractions[padded[y + j, x + 3 * k]]
    return to_grey_level(total)


@kernel
def disk_uint8(
    sums,
    smoothing,
    padded,
    places,
    weights,
    ends,
    whole,
    fractions,
    exact,
    levels,
    flat,
    flat_levels,
    tolerance,
    start,
    out,
):
    """Smooth the disk's sums with a few symmetric taps, add the rest, truncate to uint8 (H, W * 3).

    sums (H + 2h, (W + 2h) * 3); ``smoothing`` holds the weights at distances 0..h, with the disk's
    area divided out of the first. ``whole`` float64 (K, K) is the kernel that all of this stands
    for; if ``exact``, samples near a whole number are correlated with it, or rows that hold many,
    as on a ramp. levels uint8 (256,): what flat areas become; flat, flat_levels: empty, or like
    ``out``: where they are, and their levels. Begins at row ``start``; returns the height, or the
    row before which flat areas have to be known.
    """
    spread, margin, width = (
        len(smoothing[0]) - 1,
        (padded.shape[0] - out.shape[0]) // 2,
        out.shape[1],
    )
    inner, fractional, sum64 = margin - len(whole) // 2, np.empty((0, 0)), np.empty(width)
    taps = np.argwhere(whole)
    down, across, weights64 = (
        taps[:, 0] + inner,
        3 * (taps[:, 1] + inner),
        whole.reshape(-1)[np.flatnonzero(whole)],
    )
    column, line, alike = (
        np.empty(sums.shape[1], np.float32),
        np.empty(width, np.float32),
        np.empty(width, np.int16),
    )
    near, found = truncation_buffers(width)
    single = whole.max() / 255
    for y in range(start, out.shape[0]):
        if spread == 0:  # one weight only, so that the sum says it all
            for x in range(width):
                out[y, x] = to_grey_level(sums[y, x] * single)
            continue
        _vertical(sums, y + spread, smoothing[0], column)
        _horizontal(column, 3, smoothing[1], line)
        _add_places(padded, y, places, weights, ends, alike, line)
        target = out[y]
        if not exact:
            truncate_near(line, tolerance, levels, near, found, target)
            continue
        count = truncate_row(y, line, tolerance, flat, flat_levels, near, found, target)
        if needs_flat_areas(count, width, flat):
            return y
        if 32 * count > width:
            if not fractional.size:
                fractional = fractions[padded.reshape(-1)].reshape(padded.shape)
            correlate_line_exact(fractional, y, down, across, weights64, sum64)
            for x in range(width):
                target[x] = to_grey_level(sum64[x])
            continue
        for i in range(count):
            target[found[i]] = _disk_sample_exact(
                padded, y + inner, found[i] + 3 * inner, whole, fractions
            )
    return out.shape[0]
