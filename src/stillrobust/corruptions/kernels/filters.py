"""Correlations on rows of interleaved channels: separable and symmetric, and along a line.

Sums run in float32. Uncertain samples are computed again in float64 (see :mod:`truncation`), one by
one, or a whole row at once if it holds many, as on ramps.
"""

# mypy: ignore-errors

import numpy as np

from stillrobust.corruptions.kernels.jit import kernel
from stillrobust.corruptions.kernels.truncation import (
    needs_flat_areas,
    to_grey_level,
    truncate,
    truncate_near,
    truncate_row,
    truncation_buffers,
)


@kernel
def _vertical(rows, middle, weights, line):
    """line = symmetric correlation of ``rows`` about row ``middle``.

    Two pairs of rows per pass, so ``line`` is read and written less often.
    """
    radius, own, start = len(weights) - 1, rows[middle], 1
    if radius >= 2:
        a, b, c, d = rows[middle - 1], rows[middle + 1], rows[middle - 2], rows[middle + 2]
        centre, near, far, start = weights[0], weights[1], weights[2], 3
        for x in range(line.size):
            pairs = near * (np.float32(a[x]) + np.float32(b[x])) + far * (
                np.float32(c[x]) + np.float32(d[x])
            )
            line[x] = centre * np.float32(own[x]) + pairs
    else:
        for x in range(line.size):
            line[x] = weights[0] * np.float32(own[x])
    for distance in range(start, radius, 2):
        a, b = rows[middle - distance], rows[middle + distance]
        c, d = rows[middle - distance - 1], rows[middle + distance + 1]
        near, far = weights[distance], weights[distance + 1]
        for x in range(line.size):
            line[x] += near * (np.float32(a[x]) + np.float32(b[x])) + far * (
                np.float32(c[x]) + np.float32(d[x])
            )
    if (radius - start) % 2 == 0 and radius >= start:
        a, b, near = rows[middle - radius], rows[middle + radius], weights[radius]
        for x in range(line.size):
            line[x] += near * (np.float32(a[x]) + np.float32(b[x]))


@kernel
def _horizontal(source, channels, weights, line):
    """The same along a row: ``source`` is longer than ``line`` by the radius on both sides."""
    radius, width, start = len(weights) - 1, line.size, 1
    own = source[radius * channels : radius * channels + width]
    if radius >= 2:
        left, right = (radius - 1) * channels, (radius + 1) * channels
        a, b = source[left : left + width], source[right : right + width]
        c, d = (
            source[left - channels : left - channels + width],
            source[right + channels : right + channels + width],
        )
        centre, near, far, start = weights[0], weights[1], weights[2], 3
        for x in range(width):
            line[x] = centre * own[x] + (near * (a[x] + b[x]) + far * (c[x] + d[x]))
    else:
        for x in range(width):
            line[x] = weights[0] * own[x]
    for distance in range(start, radius, 2):
        left, right = (radius - distance) * channels, (radius + distance) * channels
        a, b = source[left : left + width], source[right : right + width]
        c, d = (
            source[left - channels : left - channels + width],
            source[right + channels : right + channels + width],
        )
        near, far = weights[distance], weights[distance + 1]
        for x in range(width):
            line[x] += near * (a[x] + b[x]) + far * (c[x] + d[x])
    if (radius - start) % 2 == 0 and radius >= start:
        a, b, near = (
            source[:width],
            source[2 * radius * channels : 2 * radius * channels + width],
            weights[radius],
        )
        for x in range(width):
            line[x] += near * (a[x] + b[x])


@kernel
def separable(padded, down, across, out):
    """Symmetric separable correlation of float32 (H + 2Rv, W + 2Rh) -> float32 (H, W); weights at
    distances 0..R.
    """
    column, vertical = np.empty(padded.shape[1], np.float32), len(down) - 1
    for y in range(out.shape[0]):
        _vertical(padded, y + vertical, down, column)
        _horizontal(column, 1, across, out[y])


@kernel
def _column_exact(rows, middle, x, weights, fractions):
    """One column in the order of scipy's correlate1d: the middle, then pairs from outside in."""
    total = fractions[rows[middle, x]] * weights[0]
    for distance in range(len(weights) - 1, 0, -1):
        total += (
            fractions[rows[middle - distance, x]] + fractions[rows[middle + distance, x]]
        ) * weights[distance]
    return total


@kernel
def _gaussian_sample_exact(padded, middle, x, weights, fractions):
    """Gaussian of one sample; its window begins at column ``x``, three samples a pixel."""
    radius = len(weights) - 1
    total = _column_exact(padded, middle, x + 3 * radius, weights, fractions) * weights[0]
    for distance in range(radius, 0, -1):
        left = _column_exact(padded, middle, x + 3 * (radius - distance), weights, fractions)
        right = _column_exact(padded, middle, x + 3 * (radius + distance), weights, fractions)
        total += (left + right) * weights[distance]
    return to_grey_level(total)


@kernel
def _gaussian_row_exact(padded, middle, weights, fractions, out):
    """:func:`_gaussian_sample_exact` for a whole row."""
    radius, width, own = len(weights) - 1, out.size, padded[middle]
    column, line = np.empty(own.size), np.empty(width)
    for x in range(own.size):
        column[x] = fractions[own[x]] * weights[0]
    for distance in range(radius, 0, -1):
        a, b = padded[middle - distance], padded[middle + distance]
        for x in range(own.size):
            column[x] += (fractions[a[x]] + fractions[b[x]]) * weights[distance]
    centre = column[3 * radius : 3 * radius + width]
    for x in range(width):
        line[x] = centre[x] * weights[0]
    for distance in range(radius, 0, -1):
        left, right = 3 * (radius - distance), 3 * (radius + distance)
        before, after = column[left : left + width], column[right : right + width]
        for x in range(width):
            line[x] += (before[x] + after[x]) * weights[distance]
    for x in range(width):
        out[x] = to_grey_level(line[x])


@kernel
def gaussian_uint8(
    padded, weights32, weights64, fractions, levels, flat, flat_levels, tolerance, start, out
):
    """Gaussian filter of uint8 (H + 2R, (W + 2R) * 3) -> uint8 (H, W * 3).

    Args:
        padded: The image with a border of R pixels.
        weights32: At distances 0..R, float32.
        weights64: The same in float64, to compute uncertain samples again; or ``None``, and they
            are not.
        fractions: float64 (256,): grey level / 255.
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
    radius, width = len(weights32) - 1, out.shape[1]
    column, line = np.empty(padded.shape[1], np.float32), np.empty(width, np.float32)
    near, found = truncation_buffers(width)
    for y in range(start, out.shape[0]):
        _vertical(padded, y + radius, weights32, column)
        _horizontal(column, 3, weights32, line)
        target = out[y]
        if weights64 is None:
            truncate_near(line, tolerance, levels, near, found, target)
            continue
        count = truncate_row(y, line, tolerance, flat, flat_levels, near, found, target)
        if needs_flat_areas(count, width, flat):
            return y
        if count * radius > width:  # a sample costs some radius**2, a row width * radius
            _gaussian_row_exact(padded, y + radius, weights64, fractions, target)
            continue
        for i in range(count):
            target[found[i]] = _gaussian_sample_exact(
                padded, y + radius, found[i], weights64, fractions
            )
    return out.shape[0]


@kernel
def correlate_line(padded, y, down, across, weights, line):
    """line = the sum over taps of weight * padded[y + down, x + across], eight taps per pass."""
    width, tap, taps = line.size, 0, len(weights)
    line[:] = np.float32(0)
    while tap + 8 <= taps:
        a = padded[y + down[tap]][across[tap] : across[tap] + width]
        b = padded[y + down[tap + 1]][across[tap + 1] : across[tap + 1] + width]
        c = padded[y + down[tap + 2]][across[tap + 2] : across[tap + 2] + width]
        d = padded[y + down[tap + 3]][across[tap + 3] : across[tap + 3] + width]
        e = padded[y + down[tap + 4]][across[tap + 4] : across[tap + 4] + width]
        f = padded[y + down[tap + 5]][across[tap + 5] : across[tap + 5] + width]
        g = padded[y + down[tap + 6]][across[tap + 6] : across[tap + 6] + width]
        h = padded[y + down[tap + 7]][across[tap + 7] : across[tap + 7] + width]
        k, m, n, o = weights[tap], weights[tap + 1], weights[tap + 2], weights[tap + 3]
        p, q, r, s = weights[tap + 4], weights[tap + 5], weights[tap + 6], weights[tap + 7]
        for x in range(width):
            first = k * a[x] + m * b[x] + n * c[x] + o * d[x]
            line[x] += first + (p * e[x] + q * f[x] + r * g[x] + s * h[x])
        tap += 8
    while tap < taps:
        a, k = padded[y + down[tap]][across[tap] : across[tap] + width], weights[tap]
        for x in range(width):
            line[x] += k * a[x]
        tap += 1


@kernel
def correlate_line_exact(padded, y, down, across, weights, line):
    """:func:`correlate_line` in float64, one tap after the other, as the reference adds them."""
    width, tap, taps = line.size, 0, len(weights)
    line[:] = 0
    while tap + 4 <= taps:
        a = padded[y + down[tap]][across[tap] : across[tap] + width]
        b = padded[y + down[tap + 1]][across[tap + 1] : across[tap + 1] + width]
        c = padded[y + down[tap + 2]][across[tap + 2] : across[tap + 2] + width]
        d = padded[y + down[tap + 3]][across[tap + 3] : across[tap + 3] + width]
        k, m, n, o = weights[tap], weights[tap + 1], weights[tap + 2], weights[tap + 3]
        for x in range(width):
            line[x] = (
                line[x]
                + k * np.float64(a[x])
                + m * np.float64(b[x])
                + n * np.float64(c[x])
                + o * np.float64(d[x])
            )
        tap += 4
    while tap < taps:
        a, k = padded[y + down[tap]][across[tap] : across[tap] + width], weights[tap]
        for x in range(width):
            line[x] += k * np.float64(a[x])
        tap += 1


@kernel
def spread(rows, first, weights, out):
    """out[y] = the sum of ``weights[y]`` (T) times T rows, from ``first[y]`` on; float32."""
    down, across = np.arange(weights.shape[1]), np.zeros(weights.shape[1], np.int64)
    for y in range(len(out)):
        correlate_line(rows, first[y], down, across, weights[y], out[y])


@kernel
def motion_uint8(padded, down, across, weights32, weights64, levels, tolerance, out):
    """Sum shifted copies of float32 rows -> uint8. Shifts count from the corner of ``padded``.

    Uncertain samples are computed again with ``weights64``, unless it is ``None``. ``weights32``
    may be shorter; ``tolerance`` then includes the omitted tail. ``levels``, uint8 (256,), holds
    the results of flat areas.
    """
    width = out.shape[1]
    line = np.empty(width, np.float32)
    near, found = truncation_buffers(width)
    for y in range(out.shape[0]):
        correlate_line(padded, y, down, across, weights32, line)
        target = out[y]
        if weights64 is None:
            truncate_near(line, tolerance, levels, near, found, target)
            continue
        count = truncate(line, tolerance, near, found, target)
        if 8 * count > width:
            sums = np.empty(width)
            correlate_line_exact(padded, y, down, across, weights64, sums)
            for x in range(width):
                target[x] = np.uint8(np.int32(min(sums[x], 255.0)))
            continue
        for i in range(count):
            total = 0.0
            for tap in range(len(weights64)):
                total += weights64[tap] * np.float64(padded[y + down[tap], found[i] + across[tap]])
            target[found[i]] = np.uint8(np.int32(min(total, 255.0)))


@kernel
def correlate_rows(padded, weights, out):
    """Symmetric correlation along axis 0 of float64 (H + 2R, W), the outermost pair first, as
    scipy's correlate1d adds it.
    """
    radius = len(weights) // 2
    for y in range(out.shape[0]):
        row, middle = out[y], padded[y + radius]
        for x in range(row.size):
            row[x] = middle[x] * weights[radius]
        for distance in range(radius, 0, -1):
            before, after, weight = (
                padded[y + radius - distance],
                padded[y + radius + distance],
                weights[radius + distance],
            )
            for x in range(row.size):
                row[x] += (before[x] + after[x]) * weight


@kernel
def correlate_columns(padded, weights, out):
    """The same along axis 1."""
    radius, width = len(weights) // 2, out.shape[1]
    for y in range(out.shape[0]):
        row, source = out[y], padded[y]
        middle = source[radius : radius + width]
        for x in range(width):
            row[x] = middle[x] * weights[radius]
        for distance in range(radius, 0, -1):
            before, after = (
                source[radius - distance : radius - distance + width],
                source[radius + distance : radius + distance + width],
            )
            weight = weights[radius + distance]
            for x in range(width):
                row[x] += (before[x] + after[x]) * weight
