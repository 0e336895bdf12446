"""Correlation with the disk of defocus_blur.

It is a running sum over whole pixels, a small Gaussian after it, and single places at the edge.
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
    """Sum uint8 samples under a disk -> int32 (H, W * 3); ``padded`` has a border of r pixels.

    From row to row, the samples that enter at the disk's lower edge are added and those that leave
    at its upper edge are subtracted. ``half`` (2r + 1) holds the half width at offsets -r..r.
    """
    size, radius, width = len(half), len(half) // 2, out.shape[1]
    total, change = np.zeros(width, np.int32), np.empty(width, np.int16)
    for j in range(size):
        for dy in range(-half[j], half[j] + 1):
            row = padded[radius + dy][3 * j : 3 * j + width]
            for x in range(width):
                total[x] += np.int32(row[x])
    for x in range(width):
        out[0, x] = total[x]
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
    """line += weighted samples at ``places`` (N, 2).

    Places ``ends[i - 1]`` to ``ends[i]`` have the weight ``weights[i]`` and are added as integers,
    four per pass.
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
    """Correlate the window at corner (y, x) with ``whole`` (K, K), in float64."""
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
    single,
    fractions,
    levels,
    flat,
    flat_levels,
    tolerance,
    start,
    out,
):
    """Smooth the disk's sums, add the remaining places, truncate to uint8 (H, W * 3).

    Args:
        sums: Of :func:`disk_sums`, (H + 2h, (W + 2h) * 3).
        smoothing: Weights at distances 0..h, down (divided by the disk's area) and across.
        padded: The image with a border.
        places: See :func:`_add_places`, like ``weights`` and ``ends``.
        weights: See ``places``.
        ends: See ``places``.
        whole: float64 (K, K): the kernel that the parts above add up to.
        single: Its largest weight / 255, which all have if nothing is smoothed.
        fractions: float64 (256,): grey level / 255, to correlate uncertain samples with ``whole``
            again; or ``None``, and they are not.
        levels: uint8 (256,): the result for each grey level in a flat area.
        flat: Where windows are flat, like ``out``; empty if not computed yet.
        flat_levels: The results there.
        tolerance: Of the float32 sums, in grey levels.
        start: First row.
        out: Result.

    Returns:
        The height. Or the row at which to call again with ``flat``, because many samples are
        uncertain.
    """
    spread, margin, width = (
        len(smoothing[0]) - 1,
        (padded.shape[0] - out.shape[0]) // 2,
        out.shape[1],
    )
    inner, fractional = margin - len(whole) // 2, np.empty((0, 0))
    column, line, alike = (
        np.empty(sums.shape[1], np.float32),
        np.empty(width, np.float32),
        np.empty(width, np.int16),
    )
    near, found = truncation_buffers(width)
    for y in range(start, out.shape[0]):
        if spread == 0:  # all weights are equal: the sum is the result
            for x in range(width):
                out[y, x] = to_grey_level(sums[y, x] * single)
            continue
        _vertical(sums, y + spread, smoothing[0], column)
        _horizontal(column, 3, smoothing[1], line)
        _add_places(padded, y, places, weights, ends, alike, line)
        target = out[y]
        if fractions is None:
            truncate_near(line, tolerance, levels, near, found, target)
            continue
        count = truncate_row(y, line, tolerance, flat, flat_levels, near, found, target)
        if needs_flat_areas(count, width, flat):
            return y
        if 32 * count > width:
            if not fractional.size:
                fractional = fractions[padded.reshape(-1)].reshape(padded.shape)
            taps, sum64 = np.argwhere(whole), np.empty(width)
            down, across = taps[:, 0] + inner, 3 * (taps[:, 1] + inner)
            weights64 = whole.reshape(-1)[np.flatnonzero(whole)]
            correlate_line_exact(fractional, y, down, across, weights64, sum64)
            for x in range(width):
                target[x] = to_grey_level(sum64[x])
            continue
        for i in range(count):
            target[found[i]] = _disk_sample_exact(
                padded, y + inner, found[i] + 3 * inner, whole, fractions
            )
    return out.shape[0]
