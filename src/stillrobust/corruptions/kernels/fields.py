"""Fields and blends: uniforms, normals, plasma, fog, snow, frost, and look-up by two channels."""

# mypy: ignore-errors

import numpy as np

from stillrobust.corruptions.kernels.jit import kernel
from stillrobust.corruptions.kernels.streams import hashed

SPREAD = np.float32(2.0 / 4294967296.0)


@kernel
def uniform_fast(amplitude, first, second, out):
    """float32 uniforms in [-amplitude, amplitude)."""
    for i in range(out.size):
        out[i] = (np.float32(hashed(np.uint32(i), first, second)) * SPREAD - np.float32(1)) * amplitude


@kernel
def normal_fast(table, first, second, out):
    """float32 values of a table of 65,536 quantiles, one word each."""
    for i in range(out.size):
        out[i] = table[hashed(np.uint32(i), first, second) >> np.uint32(16)]


@kernel
def plasma(draws, decay, heights):
    """Diamond-square map, toroidal, float32 (n, n); draws float64 (n * n - 1) in -1..1, in the reference's order.

    Sums in float32, noise in float64, as the reference stores them. Returns (lowest, highest).
    """
    size = heights.shape[0]
    heights[0, 0] = 0
    low, high = np.float32(0), np.float32(0)
    step, wobble, draw = size, 100.0, 0
    while step >= 2:
        half, count, amplitude = step // 2, size // step, wobble * wobble
        for turn in range(3):
            for i in range(count):
                y = i * step
                own, below = heights[y], heights[(y + step) % size]
                middle, above = heights[y + half], heights[(y - half) % size]
                for j in range(count):
                    x = j * step
                    right = (x + step) & (size - 1)
                    if turn == 0:
                        total = (own[x] + below[x]) + (own[right] + below[right])
                    elif turn == 1:
                        total = (middle[x + half] + above[x + half]) + (own[x] + own[right])
                    else:
                        total = (middle[x + half] + middle[(x - half) & (size - 1)]) + (own[x] + below[x])
                    value = np.float32(np.float64(total / np.float32(4)) + amplitude * draws[draw])
                    draw += 1
                    low, high = min(low, value), max(high, value)
                    if turn == 0:
                        middle[x + half] = value
                    elif turn == 1:
                        own[x + half] = value
                    else:
                        middle[x] = value
        step, wobble = half, wobble / decay
    return low, high


@kernel
def plasma_fast(decay, first, second, heights):
    """The same with hashed draws, a row of draws at a time, everything in float32."""
    size = heights.shape[0]
    heights[0, 0] = 0
    low, high = np.float32(0), np.float32(0)
    step, wobble, counter = size, 100.0, np.uint32(0)
    noise = np.empty(size, np.float32)
    quarter = np.float32(0.25)
    while step >= 2:
        half, count, amplitude = step // 2, size // step, np.float32(wobble * wobble)
        for turn in range(3):
            for i in range(count):
                for j in range(count):
                    noise[j] = (np.float32(hashed(counter + np.uint32(j), first, second)) * SPREAD - np.float32(1)) * amplitude
                counter += np.uint32(count)
                y, last = i * step, (count - 1) * step
                own, below = heights[y], heights[(y + step) & (size - 1)]
                middle, above = heights[y + half], heights[(y - half) & (size - 1)]
                if turn == 0:
                    for j in range(count - 1):
                        x = j * step
                        value = (own[x] + below[x] + own[x + step] + below[x + step]) * quarter + noise[j]
                        middle[x + half] = value
                        low, high = min(low, value), max(high, value)
                    value = (own[last] + below[last] + own[0] + below[0]) * quarter + noise[count - 1]
                    middle[last + half] = value
                elif turn == 1:
                    for j in range(count - 1):
                        x = j * step
                        value = (middle[x + half] + above[x + half] + own[x] + own[x + step]) * quarter + noise[j]
                        own[x + half] = value
                        low, high = min(low, value), max(high, value)
                    value = (middle[last + half] + above[last + half] + own[last] + own[0]) * quarter + noise[count - 1]
                    own[last + half] = value
                else:
                    for j in range(1, count):
                        x = j * step
                        value = (middle[x + half] + middle[x - half] + own[x] + below[x]) * quarter + noise[j]
                        middle[x] = value
                        low, high = min(low, value), max(high, value)
                    value = (middle[half] + middle[size - half] + own[0] + below[0]) * quarter + noise[0]
                    middle[0] = value
                low, high = min(low, value), max(high, value)
        step, wobble = half, wobble / decay
    return low, high


@kernel
def fog(image, heights, lowest, amount, scale, hair, out):
    """(image + amount * (height - lowest)) * scale, truncated; uint8 (H, W * 3)."""
    thrice = np.empty(image.shape[1], np.float32)
    for y in range(image.shape[0]):
        source, target, field = image[y], out[y], heights[y]
        for x in range(len(source) // 3):
            value = amount * (field[x] - lowest)
            thrice[3 * x], thrice[3 * x + 1], thrice[3 * x + 2] = value, value, value
        for x in range(thrice.size):
            target[x] = np.uint8(np.int32((np.float32(source[x]) + thrice[x]) * scale + hair))


@kernel
def snow(image, flakes, mix, hair, out):
    """Whiten, then add the layer of flakes and the layer turned by half a turn; uint8 (H, W * 3), flakes uint8 (H, W)."""
    height, width = flakes.shape
    white, fallen = np.empty(3 * width, np.float32), np.empty(3 * width, np.float32)
    rest = np.float32(1) - mix
    red, green, blue = np.float32(0.299 * 1.5), np.float32(0.587 * 1.5), np.float32(0.114 * 1.5)
    for y in range(height):
        source, target, layer, turned = image[y], out[y], flakes[y], flakes[height - 1 - y]
        for x in range(width):
            grey = red * np.float32(source[3 * x]) + green * np.float32(source[3 * x + 1]) + blue * np.float32(source[3 * x + 2])
            grey += np.float32(127.5)
            white[3 * x], white[3 * x + 1], white[3 * x + 2] = grey, grey, grey
            both = np.float32(np.int32(layer[x]) + np.int32(turned[width - 1 - x])) + hair
            fallen[3 * x], fallen[3 * x + 1], fallen[3 * x + 2] = both, both, both
        for x in range(white.size):
            own = np.float32(source[x])
            value = mix * own + rest * max(own, white[x]) + fallen[x]
            target[x] = np.uint8(np.int32(min(value, np.float32(255))))


@kernel
def blend(image, layer, top, left, own, other, out):
    """own * image + other * layer in float64, truncated; uint8 (H, W * 3); the layer's crop begins at (top, left), in samples."""
    for y in range(image.shape[0]):
        a, target = image[y], out[y]
        b = layer[top + y][left : left + target.size]
        for x in range(target.size):
            target[x] = np.uint8(np.int32(min(own * a[x] + other * b[x], 255.0)))


@kernel
def by_largest(image, table, out):
    """table[largest channel, channel]; uint8 (N * 3)."""
    for i in range(image.size // 3):
        red, green, blue = image[3 * i], image[3 * i + 1], image[3 * i + 2]
        row = table[max(red, max(green, blue))]
        out[3 * i], out[3 * i + 1], out[3 * i + 2] = row[red], row[green], row[blue]


@kernel
def saturate(image, ratio, offset, hair, out):
    """V - (V - c) * ratio[V, smallest]; greys get the hue red, as in the reference; uint8 (N * 3)."""
    zero = np.float32(0)
    for i in range(image.size // 3):
        red, green, blue = image[3 * i], image[3 * i + 1], image[3 * i + 2]
        largest, smallest = max(red, max(green, blue)), min(red, min(green, blue))
        value = np.float32(largest)
        if largest == smallest:
            out[3 * i] = largest
            out[3 * i + 1] = out[3 * i + 2] = np.uint8(np.int32(value * (np.float32(1) - offset) + hair))
        else:
            scale = ratio[largest, smallest]
            out[3 * i] = np.uint8(np.int32(max(value - (value - np.float32(red)) * scale + hair, zero)))
            out[3 * i + 1] = np.uint8(np.int32(max(value - (value - np.float32(green)) * scale + hair, zero)))
            out[3 * i + 2] = np.uint8(np.int32(max(value - (value - np.float32(blue)) * scale + hair, zero)))
