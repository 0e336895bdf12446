"""Correlations in float32: separable and symmetric, along a line of shifts, and with a disk. Rows of interleaved channels.

The reference sums in float64. Its values are truncated, so that only a sum within a hair of a whole number can end one grey
level apart; ``hair`` (grey levels, added before truncation) keeps flat areas, which are whole numbers, where they are.
"""

# mypy: ignore-errors

import numpy as np

from stillrobust.corruptions.kernels.jit import kernel


@kernel
def _add_pairs(rows, middle, weights, start, line):
    """line += the symmetric taps of ``rows`` (first..last) about ``middle``, two pairs a pass, so that ``line`` is read less."""
    radius = len(weights) - 1
    distance = start
    while distance + 1 <= radius:
        a, b = rows[middle - distance], rows[middle + distance]
        c, d = rows[middle - distance - 1], rows[middle + distance + 1]
        near, far = weights[distance], weights[distance + 1]
        for x in range(line.size):
            line[x] += near * (np.float32(a[x]) + np.float32(b[x])) + far * (np.float32(c[x]) + np.float32(d[x]))
        distance += 2
    if distance <= radius:
        a, b, near = rows[middle - distance], rows[middle + distance], weights[distance]
        for x in range(line.size):
            line[x] += near * (np.float32(a[x]) + np.float32(b[x]))


@kernel
def _add_shifted_pairs(source, channels, weights, line):
    """The same along a row: ``source`` is longer than ``line`` by the radius on both sides."""
    radius, width = len(weights) - 1, line.size
    distance = 1
    while distance + 1 <= radius:
        left, right = (radius - distance) * channels, (radius + distance) * channels
        a, b = source[left : left + width], source[right : right + width]
        c, d = source[left - channels : left - channels + width], source[right + channels : right + channels + width]
        near, far = weights[distance], weights[distance + 1]
        for x in range(width):
            line[x] += near * (a[x] + b[x]) + far * (c[x] + d[x])
        distance += 2
    if distance <= radius:
        left, right = (radius - distance) * channels, (radius + distance) * channels
        a, b, near = source[left : left + width], source[right : right + width], weights[distance]
        for x in range(width):
            line[x] += near * (a[x] + b[x])


@kernel
def separable(padded, down, across, channels, out):
    """Symmetric separable correlation of (H + 2Rv, (W + 2Rh) * channels) -> float32 (H, W * channels).

    ``down`` and ``across`` hold the weights at distances 0..R.
    """
    reach, width = len(across) - 1, out.shape[1]
    column = np.empty(padded.shape[1], np.float32)
    vertical = len(down) - 1
    for y in range(out.shape[0]):
        own = padded[y + vertical]
        for x in range(column.size):
            column[x] = down[0] * np.float32(own[x])
        _add_pairs(padded, y + vertical, down, 1, column)
        line, middle = out[y], column[reach * channels : reach * channels + width]
        for x in range(width):
            line[x] = across[0] * middle[x]
        _add_shifted_pairs(column, channels, across, line)


@kernel
def _truncate(line, scale, hair, lowered, near, out):
    """out = line * scale, truncated; a value within a hair of a whole number goes where the reference has that number.

    An empty ``lowered`` leaves all as they are. ``near`` is scratch, uint8, a multiple of eight long and at least as long as the
    line: eight samples are asked at once.
    """
    width = line.size
    if not lowered.size:
        for x in range(width):
            out[x] = np.uint8(np.int32(min(line[x] * scale + hair, np.float32(255))))
        return
    reach = hair + hair
    for x in range(width):
        value = min(line[x] * scale + hair, np.float32(255))
        whole = np.int32(value)
        out[x] = np.uint8(whole)
        near[x] = np.uint8(value - np.float32(whole) < reach)
    eights = near.view(np.uint64)
    for i in range(eights.size):
        if eights[i]:
            for x in range(8 * i, min(8 * i + 8, width)):
                if near[x]:
                    out[x] -= np.uint8(lowered[out[x]])


@kernel
def separable_to_grey(padded, down, across, channels, hair, lowered, out):
    """As :func:`separable`, truncated to uint8."""
    line = np.empty((1, out.shape[1]), np.float32)
    near = np.zeros((out.shape[1] + 7) // 8 * 8, np.uint8)
    rows = 2 * len(down) - 1
    for y in range(out.shape[0]):
        separable(padded[y : y + rows], down, across, channels, line)
        _truncate(line[0], np.float32(1), hair, lowered, near, out[y])


@kernel
def _along(padded, y, down, across, weights, line):
    """line = the sum over taps of weight * padded[y + down, x + across], eight taps a pass."""
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
def shifted_to_grey(padded, down, across, weights, scale, hair, lowered, out):
    """Sum of shifted copies of float32 rows, times ``scale``, plus ``hair``, truncated to uint8; shifts count from the corner.

    ``across`` is in samples (pixels times channels).
    """
    line = np.empty(out.shape[1], np.float32)
    near = np.zeros((out.shape[1] + 7) // 8 * 8, np.uint8)
    for y in range(out.shape[0]):
        _along(padded, y, down, across, weights, line)
        _truncate(line, scale, hair, lowered, near, out[y])


@kernel
def disk_sums(padded, half, channels, out):
    """int32 sums of uint8 samples under a disk: row by row, what the disk's lower edge takes in less what its upper leaves.

    ``half`` (2r + 1): the disk's half width at each offset -r..r; out (H, W * channels), padded by r on every side.
    """
    size, radius, width = len(half), len(half) // 2, out.shape[1]
    total, change = np.zeros(width, np.int32), np.empty(width, np.int16)
    for j in range(size):
        for dy in range(-half[j], half[j] + 1):
            row = padded[radius + dy][j * channels : j * channels + width]
            for x in range(width):
                total[x] += np.int32(row[x])
    out[0] = total
    for y in range(1, out.shape[0]):
        change[:] = 0
        for j in range(size):
            enters = padded[y + radius + half[j]][j * channels : j * channels + width]
            leaves = padded[y - 1 + radius - half[j]][j * channels : j * channels + width]
            for x in range(width):
                change[x] += np.int16(enters[x]) - np.int16(leaves[x])
        line = out[y]
        for x in range(width):
            total[x] += np.int32(change[x])
            line[x] = total[x]


@kernel
def disk_to_grey(sums, smoothing, padded, down, across, weights, channels, hair, out):
    """Smooth the disk's sums with a few symmetric taps, add ``weights`` at single places, truncate to uint8.

    sums (H + 2h, (W + 2h) * channels); ``smoothing`` holds the weights at distances 0..h, the disk's area divided out of
    one factor.
    """
    reach, width = len(smoothing[0]) - 1, out.shape[1]
    column = np.empty(sums.shape[1], np.float32)
    line, extra = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(out.shape[0]):
        own = sums[y + reach]
        for x in range(column.size):
            column[x] = smoothing[0][0] * np.float32(own[x])
        _add_pairs(sums, y + reach, smoothing[0], 1, column)
        middle = column[reach * channels : reach * channels + width]
        for x in range(width):
            line[x] = smoothing[1][0] * middle[x]
        _add_shifted_pairs(column, channels, smoothing[1], line)
        if len(weights):
            _along(padded, y, down, across, weights, extra)
            for x in range(width):
                line[x] += extra[x]
        target = out[y]
        for x in range(width):
            target[x] = np.uint8(np.int32(min(max(line[x] + hair, np.float32(0)), np.float32(255))))


@kernel
def correlate_rows(padded, weights, out):
    """Symmetric correlation along axis 0 of float64 (H + 2R, W), the outermost pair first, as scipy's correlate1d adds it."""
    radius = len(weights) // 2
    for y in range(out.shape[0]):
        row, middle = out[y], padded[y + radius]
        for x in range(row.size):
            row[x] = middle[x] * weights[radius]
        for distance in range(radius, 0, -1):
            before, after, weight = padded[y + radius - distance], padded[y + radius + distance], weights[radius + distance]
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
