"""What moves pixels: zoom layers, displacement fields, the shuffle of glass_blur, nearest neighbours."""

# mypy: ignore-errors

import math

import numpy as np

from stillrobust.corruptions.kernels.jit import inlined, kernel
from stillrobust.corruptions.kernels.streams import hashed

ONE, TWO, THREE, FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)  # unsigned: no check for negative indices


@kernel
def to_four(image, out):
    """uint8 (H, W * 3) -> float32 (H, W * 4): a pixel is one vector of four."""
    for y in range(image.shape[0]):
        source, target = image[y], out[y]
        for x in range(len(source) // 3):
            target[4 * x], target[4 * x + 1], target[4 * x + 2] = source[3 * x], source[3 * x + 1], source[3 * x + 2]
            target[4 * x + 3] = 0


@kernel
def zoom_mean(image, y0, y1, wy0, wy1, x0, wx0, wx1, hair, out):
    """Mean of the image, twice, and its enlarged layers: (layers, H) and (layers, W) maps, ``x0`` times four.

    image float32 (H, W * 4) -> uint8 (H, W * 3). A row is first mixed of two, then stretched.
    """
    height, width = image.shape[0], np.uint64(image.shape[1] // 4)
    line, mixed = np.empty(image.shape[1], np.float32), np.zeros(image.shape[1] + 8, np.float32)
    share = np.float32(1.0 / (len(y0) + 2))
    for y in range(height):
        own = image[y]
        for x in range(line.size):
            line[x] = own[x] * np.float32(2)
        for layer in range(len(y0)):
            first, last = int(x0[layer, 0]), min(int(x0[layer, -1]) + 8, line.size)
            a, b, target = image[y0[layer, y]][first:last], image[y1[layer, y]][first:last], mixed[first:last]
            upper, lower = wy0[layer, y], wy1[layer, y]
            for x in range(target.size):
                target[x] = upper * a[x] + lower * b[x]
            places, lefts, rights = x0[layer], wx0[layer], wx1[layer]
            for x in range(width):
                i, p, q, o = places[x], lefts[x], rights[x], x * FOUR
                u0, u1, u2, u3 = mixed[i], mixed[i + ONE], mixed[i + TWO], mixed[i + THREE]
                i = i + FOUR
                v0, v1, v2, v3 = mixed[i], mixed[i + ONE], mixed[i + TWO], mixed[i + THREE]
                s0, s1, s2, s3 = line[o], line[o + ONE], line[o + TWO], line[o + THREE]
                s0, s1, s2, s3 = s0 + p * u0 + q * v0, s1 + p * u1 + q * v1, s2 + p * u2 + q * v2, s3 + p * u3 + q * v3
                line[o], line[o + ONE], line[o + TWO], line[o + THREE] = s0, s1, s2, s3
        target8 = out[y]
        for x in range(width):
            for c in range(3):
                value = line[4 * x + c] * share + hair
                target8[3 * x + c] = np.uint8(np.int32(min(value, np.float32(255))))


@kernel
def enlarge_flakes(field, y0, y1, wy0, wy1, x0, x1, wx0, wx1, threshold, out):
    """Bilinear enlargement of a float64 field; what is below the threshold is 0, the rest 0..1; float32 out.

    float64 up to the threshold, since a sample on the other side of it would change by more than a grey level.
    """
    for y in range(out.shape[0]):
        upper, lower, target = field[y0[y]], field[y1[y]], out[y]
        for x in range(out.shape[1]):
            total = upper[x0[x]] * wy0[y] * wx0[x]
            total += upper[x1[x]] * wy0[y] * wx1[x]
            total += lower[x0[x]] * wy1[y] * wx0[x]
            total += lower[x1[x]] * wy1[y] * wx1[x]
            target[x] = np.float32(0) if total < threshold else np.float32(min(max(total, 0.0), 1.0))


@kernel
def enlarge_flakes_fast(field, y0, y1, wy0, wy1, x0, x1, wx0, wx1, threshold, out):
    """The same in float32: where draws are ours, nobody's threshold has to be met."""
    mixed = np.empty(field.shape[1], np.float32)
    for y in range(out.shape[0]):
        a, b, target, upper, lower = field[y0[y]], field[y1[y]], out[y], wy0[y], wy1[y]
        for x in range(mixed.size):
            mixed[x] = upper * a[x] + lower * b[x]
        for x in range(target.size):
            value = wx0[x] * mixed[x0[x]] + wx1[x] * mixed[x1[x]]
            value = np.float32(0) if value < threshold else value
            target[x] = min(max(value, np.float32(0)), np.float32(1))


@inlined
def _reflect(index, size):
    """Half-sample reflection: -1 -> 0, size -> size - 1, however far out."""
    if 0 <= index < size:
        return index
    index %= 2 * size
    return index if index < size else 2 * size - 1 - index


@kernel
def displace(image, width, down, across, hair, out):
    """out(y, x) = image at (y + down, x + across), bilinear, edges reflected; float32 (H * W * 4) -> uint8 (H, W * 3)."""
    height = out.shape[0]
    for y in range(height):
        rows, columns, target = down[y], across[y], out[y]
        for x in range(width):
            top, left = math.floor(rows[x]), math.floor(columns[x])
            wy, wx = rows[x] - np.float32(top), columns[x] - np.float32(left)
            y0, x0 = y + np.int64(top), x + np.int64(left)
            y1, x1 = y0 + 1, x0 + 1
            if y0 < 0 or y1 >= height:
                y0, y1 = _reflect(y0, height), _reflect(y1, height)
            if x0 < 0 or x1 >= width:
                x0, x1 = _reflect(x0, width), _reflect(x1, width)
            a, b = np.uint64((y0 * width + x0) * 4), np.uint64((y0 * width + x1) * 4)
            c, d = np.uint64((y1 * width + x0) * 4), np.uint64((y1 * width + x1) * 4)
            a0, a1, a2, a3 = image[a], image[a + ONE], image[a + TWO], image[a + THREE]
            b0, b1, b2, b3 = image[b], image[b + ONE], image[b + TWO], image[b + THREE]
            c0, c1, c2, c3 = image[c], image[c + ONE], image[c + TWO], image[c + THREE]
            d0, d1, d2, d3 = image[d], image[d + ONE], image[d + TWO], image[d + THREE]
            a0, a1, a2, a3 = a0 + wx * (b0 - a0), a1 + wx * (b1 - a1), a2 + wx * (b2 - a2), a3 + wx * (b3 - a3)
            c0, c1, c2, c3 = c0 + wx * (d0 - c0), c1 + wx * (d1 - c1), c2 + wx * (d2 - c2), c3 + wx * (d3 - c3)
            target[3 * x] = np.uint8(np.int32(a0 + wy * (c0 - a0) + hair))
            target[3 * x + 1] = np.uint8(np.int32(a1 + wy * (c1 - a1) + hair))
            target[3 * x + 2] = np.uint8(np.int32(a2 + wy * (c2 - a2) + hair))


@kernel
def pack(image, out):
    """uint8 (N * 3) -> uint32 (N): a pixel is copied as one word."""
    for i in range(out.size):
        out[i] = (
            np.uint32(image[3 * i]) | np.uint32(image[3 * i + 1]) << np.uint32(8) | np.uint32(image[3 * i + 2]) << np.uint32(16)
        )


@kernel
def unpack(pixels, out):
    """The reverse of :func:`pack`."""
    for i in range(pixels.size):
        word = pixels[i]
        out[3 * i], out[3 * i + 1], out[3 * i + 2] = (
            word & np.uint32(255),
            (word >> np.uint32(8)) & np.uint32(255),
            word >> np.uint32(16),
        )


@kernel
def shuffle(pixels, height, width, reach, iterations, draws):
    """Copy each pixel from a near one, bottom right to top left. One way: the reference's swap of views copies only.

    ``draws`` int32 (N): 0..2 reach - 1, pairs of (across, down), less ``reach`` each.
    """
    draw = 0
    for _ in range(iterations):
        for y in range(height - reach, reach, -1):
            base = y * width
            for x in range(width - reach, reach, -1):
                shift = (draws[draw + 1] - reach) * width + draws[draw] - reach
                draw += 2
                pixels[np.uint64(base + x)] = pixels[np.uint64(base + x + shift)]


@kernel
def shuffle_fast(pixels, height, width, reach, iterations, shifts, first, second):
    """The same with one hashed word a pixel, which picks among the (2 reach)**2 ``shifts``."""
    picked = np.empty(width, np.int32)
    counter, choices = np.uint32(0), np.uint32(shifts.size)
    for _ in range(iterations):
        for y in range(height - reach, reach, -1):
            for x in range(width):
                word = hashed(counter + np.uint32(x), first, second) >> np.uint32(16)
                picked[x] = shifts[np.uint64((word * choices) >> np.uint32(16))]
            counter += np.uint32(width)
            base = y * width
            for x in range(width - reach, reach, -1):
                pixels[np.uint64(base + x)] = pixels[np.uint64(base + x + picked[x])]


@kernel
def nearest(small, rows, columns, out):
    """out(y, x) = small(rows[y], columns[x]); a row like the last one is copied."""
    for y in range(out.shape[0]):
        if y and rows[y] == rows[y - 1]:
            out[y] = out[y - 1]
            continue
        source, target = small[rows[y]], out[y]
        for x in range(len(columns)):
            i = np.uint64(columns[x] * 3)
            target[3 * x], target[3 * x + 1], target[3 * x + 2] = source[i], source[i + ONE], source[i + TWO]
