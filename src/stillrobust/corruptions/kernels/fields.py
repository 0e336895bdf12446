"""Fields and blends: uniforms, normals, plasma, fog, snow, frost."""

# mypy: ignore-errors

import numpy as np

from stillrobust.corruptions.kernels.jit import kernel
from stillrobust.corruptions.kernels.streams import hash_counter
from stillrobust.corruptions.kernels.truncation import to_grey_level, truncate, truncation_buffers

SPREAD = np.float32(2.0 / 4294967296.0)


@kernel
def uniform_fast(amplitude, first, second, out):
    """float32 uniforms in [-amplitude, amplitude)."""
    for i in range(out.size):
        out[i] = (
            np.float32(hash_counter(np.uint32(i), first, second)) * SPREAD - np.float32(1)
        ) * amplitude


@kernel
def normal_fast(table, first, second, out):
    """float32 values of a table of 65,536 quantiles, one word each."""
    for i in range(out.size):
        out[i] = table[hash_counter(np.uint32(i), first, second) >> np.uint32(16)]


@kernel
def _noise_row(draws, counter, first, second, amplitude, out):
    """Uniforms in -amplitude..amplitude from ``draws`` (-1..1), or from hashes if it is empty."""
    if draws.size:
        drawn = draws[counter : counter + out.size]
        for j in range(out.size):
            out[j] = amplitude * drawn[j]
    else:
        for j in range(out.size):
            word = hash_counter(np.uint32(counter + j), first, second)
            out[j] = np.float32(amplitude) * (np.float32(word) * SPREAD - np.float32(1))


@kernel
def _update_extremes(row, low, high):
    for x in range(row.size):
        low[x], high[x] = min(low[x], row[x]), max(high[x], row[x])


@kernel
def plasma(draws, decay, first, second, needed, heights):
    """Diamond-square map, toroidal, float32 (n, n).

    Each level's grid (n, n) is stored without gaps, so that rows are whole vectors. It becomes the
    next grid (2n, 2n): its points, the middles of squares, and the two kinds of diamonds. Sums run
    in float32, noise in the type of the draws, which is float64 in the reference.

    Args:
        draws: float64 (n * n - 1), the reference's draws; or float32 (0), which hashes.
        decay: Of the noise from level to level.
        first: Key of the hash, like ``second``.
        second: See ``first``.
        needed: The finest level is made for so many rows only.
        heights: Result.

    Returns:
        The lowest and the highest value that was made.
    """
    size, wobble, counter = heights.shape[0], 100.0, 0
    low, high = np.zeros(size, np.float32), np.zeros(size, np.float32)
    quarter, grid, whole_noise = (
        np.float32(0.25),
        np.zeros((1, 1), np.float32),
        np.empty(size, draws.dtype),
    )
    while len(grid) < size:
        count, amplitude = len(grid), wobble * wobble
        finer = heights if 2 * count == size else np.empty((2 * count, 2 * count), np.float32)
        middles, wrapped = (
            np.empty((count, count), np.float32),
            np.empty((count, count + 1), np.float32),
        )
        above, left = np.empty(count, np.float32), np.empty(count, np.float32)
        noise, low_row, high_row = whole_noise[:count], low[:count], high[:count]
        rows = (min(needed, size) + 1) // 2 if 2 * count == size else count
        for i in range(count):
            for j in range(count):
                wrapped[i, j] = grid[i, j]
            wrapped[i, count] = grid[i, 0]
        for i in range(-1, min(rows, count - 1)):  # from the last row on, which is above the first
            i %= count
            a, b, row = wrapped[i], wrapped[(i + 1) % count], middles[i]
            _noise_row(draws, counter + i * count, first, second, amplitude, noise)
            for j in range(count):
                row[j] = np.float32(((a[j] + b[j]) + (a[j + 1] + b[j + 1])) * quarter + noise[j])
            _update_extremes(row, low_row, high_row)
        for i in range(rows):
            a, b, row, before = (
                wrapped[i],
                wrapped[(i + 1) % count],
                middles[i],
                middles[(i - 1) % count],
            )
            _noise_row(draws, counter + (count + i) * count, first, second, amplitude, noise)
            for j in range(count):
                above[j] = np.float32(
                    ((row[j] + before[j]) + (a[j] + a[j + 1])) * quarter + noise[j]
                )
            _update_extremes(above, low_row, high_row)
            _noise_row(draws, counter + (2 * count + i) * count, first, second, amplitude, noise)
            left[0] = np.float32(((row[0] + row[count - 1]) + (a[0] + b[0])) * quarter + noise[0])
            for j in range(1, count):
                left[j] = np.float32(((row[j] + row[j - 1]) + (a[j] + b[j])) * quarter + noise[j])
            _update_extremes(left, low_row, high_row)
            even, odd = finer[2 * i], finer[2 * i + 1]
            for j in range(count):
                even[2 * j], even[2 * j + 1] = a[j], above[j]
                odd[2 * j], odd[2 * j + 1] = left[j], row[j]
        grid, wobble, counter = finer, wobble / decay, counter + 3 * count * count
    lowest, highest = low[0], high[0]
    for x in range(1, size):
        lowest, highest = min(lowest, low[x]), max(highest, high[x])
    return lowest, highest


@kernel
def fog(image, heights, lowest, highest, amount, brightest, fractions, tolerance, out):
    """(image + amount * height) * brightest / (brightest + amount), truncated; uint8 (H, W * 3).

    Heights are scaled to 0..1. ``amount`` is float64; the reference multiplies it with the heights
    in float32.
    """
    thrice = np.empty(image.shape[1], np.float32)
    near, found = truncation_buffers(image.shape[1])
    line, spread, strength = (
        np.empty(image.shape[1], np.float32),
        highest - lowest,
        np.float32(amount),
    )
    rise, scale = np.float32(amount * 255 / spread), np.float32(brightest / (brightest + amount))
    for y in range(image.shape[0]):
        source, field = image[y], heights[y]
        for x in range(len(source) // 3):
            value = rise * (field[x] - lowest)
            thrice[3 * x], thrice[3 * x + 1], thrice[3 * x + 2] = value, value, value
        for x in range(line.size):
            line[x] = (np.float32(source[x]) + thrice[x]) * scale
        count = truncate(line, tolerance, near, found, out[y])
        for i in range(count):
            x = found[i]
            height = np.float64(strength * ((field[x // 3] - lowest) / spread))
            out[y, x] = to_grey_level(
                (fractions[source[x]] + height) * brightest / (brightest + amount)
            )


@kernel
def _snow_exact(bright, own, layers, mix, rest):
    """One sample in the reference's order; ``bright`` is the grey value of its pixel."""
    white = np.float32(np.float32(bright * np.float32(1.5)) + np.float32(0.5))
    whitened = np.float32(np.float32(mix * own) + np.float32(rest * max(own, white)))
    return to_grey_level(np.float64(whitened) + layers[0] + layers[1])


@kernel
def snow(image, flakes, mix, rest, fractions32, fractions, grey, tolerance, out):
    """Whiten, then add the layer of flakes and the same layer rotated by 180 degrees.

    Image uint8 (H, W * 3), flakes uint8 (H, W). ``grey`` float32 (H, W) is the grey image, from
    which uncertain samples are computed again; if it is ``None`` they are not.
    """
    height, width = flakes.shape
    white, fallen = np.empty(3 * width, np.float32), np.empty(3 * width, np.float32)
    line = np.empty(3 * width, np.float32)
    near, found = truncation_buffers(3 * width)
    red, green, blue = np.float32(0.299 * 1.5), np.float32(0.587 * 1.5), np.float32(0.114 * 1.5)
    for y in range(height):
        source, layer, turned = image[y], flakes[y], flakes[height - 1 - y]
        for x in range(width):
            bright = (
                red * np.float32(source[3 * x])
                + green * np.float32(source[3 * x + 1])
                + blue * np.float32(source[3 * x + 2])
            )
            bright += np.float32(127.5)
            white[3 * x], white[3 * x + 1], white[3 * x + 2] = bright, bright, bright
            both = np.float32(np.int32(layer[x]) + np.int32(turned[width - 1 - x]))
            fallen[3 * x], fallen[3 * x + 1], fallen[3 * x + 2] = both, both, both
        for x in range(line.size):
            own = np.float32(source[x])
            line[x] = mix * own + rest * max(own, white[x]) + fallen[x]
        count = truncate(line, tolerance, near, found, out[y])
        if grey is None:
            continue
        for i in range(count):
            x = found[i] // 3
            layers = fractions[layer[x]], fractions[turned[width - 1 - x]]
            out[y, found[i]] = _snow_exact(
                grey[y, x], fractions32[source[found[i]]], layers, mix, rest
            )


@kernel
def blend(image, layer, top, left, own, other, out):
    """own * image + other * layer in float64, truncated; uint8 (H, W * 3).

    The layer's crop begins at (top, left), in samples.
    """
    for y in range(image.shape[0]):
        a, target = image[y], out[y]
        b = layer[top + y][left : left + target.size]
        for x in range(target.size):
            target[x] = np.uint8(np.int32(min(own * a[x] + other * b[x], 255.0)))
