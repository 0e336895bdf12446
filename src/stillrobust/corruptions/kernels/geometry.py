"""Kernels that move pixels: zoom layers, displacement, shuffle, nearest neighbour."""

# mypy: ignore-errors

import math

import numpy as np

from stillrobust.corruptions.kernels.filters import correlate_line
from stillrobust.corruptions.kernels.jit import inline_kernel, kernel
from stillrobust.corruptions.kernels.streams import hash_counter
from stillrobust.corruptions.kernels.truncation import truncate, truncate_near, truncation_buffers

# unsigned indices spare numba the check for negative ones
ONE, TWO, THREE, FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
f32 = np.float32
# pixels: float32 displacement fields were off by up to 5e-6 at 1080p, in each direction
FIELD_ERROR = 1e-5


@kernel
def _count_changes(samples):
    """Integral image of changes: uint8 (H, W * 3) -> int32 (H + 1, (W + 1) * 3).

    For each channel, the number of samples above and left of (y, x) that differ from their left or
    upper neighbour.
    """
    counts, unlike = (
        np.zeros((samples.shape[0] + 1, samples.shape[1] + 3), np.int32),
        np.zeros(samples.shape[1] + 3, np.int32),
    )
    for y in range(samples.shape[0]):
        own, above, line, before = samples[y], samples[max(y - 1, 0)], counts[y + 1], counts[y]
        for x in range(own.size):
            unlike[x + 3] = np.int32((own[x] ^ above[x]) != 0)
        for x in range(3, own.size):
            unlike[x + 3] |= np.int32((own[x] ^ own[x - 3]) != 0)
        red, green, blue = np.int32(0), np.int32(0), np.int32(0)
        for x in range(3, line.size, 3):
            red, green, blue = red + unlike[x], green + unlike[x + 1], blue + unlike[x + 2]
            line[x], line[x + 1], line[x + 2] = (
                before[x] + red,
                before[x + 1] + green,
                before[x + 2] + blue,
            )
    return counts


@inline_kernel
def _is_flat(samples, counts, channel, top, left, bottom, right):
    """Whether all samples of a window are equal and it spans two pixels or more each way."""
    a, b, c, d = top + 1, 3 * left + 3 + channel, bottom + 1, 3 * right + 3 + channel
    # the counts do not include the first corner, so the corners are compared below
    alike = counts[c, d] - counts[a, d] - counts[c, b] + counts[a, b] == 0
    return (
        alike
        & (a < c)
        & (b < d)
        & (samples[top, 3 * left + channel] == samples[bottom, 3 * right + channel])
    )


@kernel
def _stretch_two(rows, places, beyond, line):
    """line (W * 4) += two rows (2, W * 4 + 4), stretched by linear interpolation.

    Pixel x lies ``beyond[:, x]`` after the pixel at ``places[:, x]``.
    """
    rows_a, rows_b, places_a, places_b = rows[0], rows[1], places[0], places[1]
    beyond_a, beyond_b = beyond[0], beyond[1]
    for x in range(np.uint64(line.size // 4)):
        i, q, k, r, o = places_a[x], beyond_a[x], places_b[x], beyond_b[x], x * FOUR
        u0, u1, u2, u3 = rows_a[i], rows_a[i + ONE], rows_a[i + TWO], rows_a[i + THREE]
        w0, w1, w2, w3 = rows_b[k], rows_b[k + ONE], rows_b[k + TWO], rows_b[k + THREE]
        i, k = i + FOUR, k + FOUR
        v0, v1, v2, v3 = rows_a[i], rows_a[i + ONE], rows_a[i + TWO], rows_a[i + THREE]
        z0, z1, z2, z3 = rows_b[k], rows_b[k + ONE], rows_b[k + TWO], rows_b[k + THREE]
        s0, s1, s2, s3 = line[o], line[o + ONE], line[o + TWO], line[o + THREE]
        v0, v1, v2, v3 = (
            u0 + q * (v0 - u0),
            u1 + q * (v1 - u1),
            u2 + q * (v2 - u2),
            u3 + q * (v3 - u3),
        )
        z0, z1, z2, z3 = (
            w0 + r * (z0 - w0),
            w1 + r * (z1 - w1),
            w2 + r * (z2 - w2),
            w3 + r * (z3 - w3),
        )
        s0, s1, s2, s3 = s0 + (v0 + z0), s1 + (v1 + z1), s2 + (v2 + z2), s3 + (v3 + z3)
        line[o], line[o + ONE], line[o + TWO], line[o + THREE] = s0, s1, s2, s3


@kernel
def _zoom_exact(samples, y, x, c, down, across, fractions):
    """One sample as the reference computes it: layers in float64, stored and added in float32."""
    (y0, y1, wy0, wy1), (x0, x1, wx0, wx1) = down, across
    own = fractions[samples[y, 3 * x + c]]
    total = own
    for layer in range(len(y0)):
        upper, lower = samples[y0[layer, y]], samples[y1[layer, y]]
        left, right = 3 * x0[layer, x] + c, 3 * x1[layer, x] + c
        value = np.float64(fractions[upper[left]]) * wy0[layer, y] * wx0[layer, x]
        value += np.float64(fractions[upper[right]]) * wy0[layer, y] * wx1[layer, x]
        value += np.float64(fractions[lower[left]]) * wy1[layer, y] * wx0[layer, x]
        value += np.float64(fractions[lower[right]]) * wy1[layer, y] * wx1[layer, x]
        total += np.float32(value)
    mean = (own + total) / np.float32(len(y0) + 2)
    return np.uint8(np.int32(min(mean, np.float32(1)) * np.float32(255)))


@kernel
def zoom_mean(samples, four, down, across, places, beyond, fractions, levels, tolerance, out):
    """Mean of the image, counted twice, and its enlarged layers -> uint8 (H, W * 3).

    Args:
        samples: uint8 (H, W * 3).
        four: The same with four channels, (H, W * 4), so that a pixel is one vector.
        down: Two indices and two float64 weights, each (layers, H).
        across: The same, (layers, W).
        places: ``across`` in the form that :func:`_stretch_two` needs, like ``beyond``.
        beyond: See ``places``.
        fractions: float32 (256,): grey level / 255, to compute uncertain samples again; or
            ``None``, and they are not.
        levels: uint8 (256,): the result for each grey level in a flat area.
        tolerance: Of the float32 sums, in grey levels.
        out: Result.
    """
    height, width, (y0, y1, wy0, wy1), (x0, x1, _, _) = (
        four.shape[0],
        four.shape[1] // 4,
        down,
        across,
    )
    layers, line, mean = len(y0), np.empty(4 * width, np.float32), np.empty(3 * width, np.float32)
    mixed = np.zeros((2, four.shape[1] + 8), np.float32)
    near, found = truncation_buffers(3 * width)
    share, counts = np.float32(1.0 / (layers + 2)), np.zeros((0, 0), np.int32)
    for y in range(height):
        own = four[y]
        for x in range(line.size):
            line[x] = np.float32(2) * np.float32(own[x])
        for layer in range(layers):
            first, last, odd = 4 * x0[layer, 0], 4 * x1[layer, -1] + 4, layer % 2
            a, b, target = (
                four[y0[layer, y]][first:last],
                four[y1[layer, y]][first:last],
                mixed[odd][first:last],
            )
            upper, lower = np.float32(wy0[layer, y]), np.float32(wy1[layer, y])
            for x in range(target.size):
                target[x] = upper * np.float32(a[x]) + lower * np.float32(b[x])
            # the places of an odd last layer pair it with a black one
            if odd or layer == layers - 1:
                pair = slice(layer - odd, layer - odd + 2)
                _stretch_two(mixed, places[pair], beyond[pair], line)
        for x in range(width):
            mean[3 * x], mean[3 * x + 1], mean[3 * x + 2] = (
                line[4 * x] * share,
                line[4 * x + 1] * share,
                line[4 * x + 2] * share,
            )
        if fractions is None:
            truncate_near(mean, tolerance, levels, near, found, out[y])
            continue
        count = truncate(mean, tolerance, near, found, out[y])
        if 32 * count > width and not counts.size:
            counts = _count_changes(samples)
        top, bottom = min(y, y0[:, y].min()), max(y, y1[:, y].max())
        for i in range(count):
            x = found[i]
            # a mean far from the sample means that a layer ends before the image does
            if counts.size and abs(mean[x] - samples[y, x]) < 0.5:
                pixel = x // 3
                left, right = pixel, pixel
                for layer in range(layers):
                    left, right = min(left, x0[layer, pixel]), max(right, x1[layer, pixel])
                if _is_flat(samples, counts, x - 3 * pixel, top, left, bottom, right):
                    out[y, x] = levels[samples[y, x]]
                    continue
            out[y, x] = _zoom_exact(samples, y, x // 3, x % 3, down, across, fractions)


@kernel
def _flake_value(field, y, x, down, across, threshold):
    """Enlarge a float64 field at one place: 0 below the threshold, else clipped to 0..1."""
    (y0, y1, wy0, wy1), (x0, x1, wx0, wx1) = down, across
    value = field[y0[y], x0[x]] * wy0[y] * wx0[x]
    value += field[y0[y], x1[x]] * wy0[y] * wx1[x]
    value += field[y1[y], x0[x]] * wy1[y] * wx0[x]
    value += field[y1[y], x1[x]] * wy1[y] * wx1[x]
    return 0.0 if value < threshold else min(max(value, 0.0), 1.0)


@kernel
def enlarge_flakes(field, down, across, threshold, out):
    """:func:`_flake_value` at all places -> float32.

    float64 before the threshold, because a sample on its other side would be another flake.
    """
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = _flake_value(field, y, x, down, across, threshold)


@kernel
def enlarge_flakes_fast(field, down, across, threshold, out):
    """:func:`enlarge_flakes` in float32; fast draws need not meet the reference's threshold."""
    (y0, y1, wy0, wy1), (x0, x1, wx0, wx1) = down, across
    mixed = np.empty(field.shape[1], np.float32)
    for y in range(out.shape[0]):
        a, b, target, upper, lower = field[y0[y]], field[y1[y]], out[y], wy0[y], wy1[y]
        for x in range(mixed.size):
            mixed[x] = upper * a[x] + lower * b[x]
        for x in range(target.size):
            value = wx0[x] * mixed[x0[x]] + wx1[x] * mixed[x1[x]]
            value = np.float32(0) if value < threshold else value
            target[x] = min(max(value, np.float32(0)), np.float32(1))


@kernel
def blur_flakes(
    padded,
    down,
    across,
    weights32,
    corner,
    field,
    rows,
    columns,
    weights64,
    threshold,
    tolerance,
    out,
):
    """Motion blur of flakes, times 255, rounded: float32 ``padded`` -> uint8 (H, W).

    Shifts count from the corner of ``padded``; the flakes begin at its ``corner``.
    Samples near a half are blurred again in float64 from the float64 ``field``, unless it is
    ``None``.
    """
    line = np.empty(out.shape[1], np.float32)
    near, found = truncation_buffers(line.size)
    height, width = len(rows[0]), len(columns[0])
    for y in range(out.shape[0]):
        correlate_line(padded, y, down, across, weights32, line)
        for x in range(line.size):
            line[x] = line[x] * np.float32(255) + np.float32(0.5)
        count = truncate(line, tolerance, near, found, out[y])
        if field is None:
            continue
        for i in range(count):
            total = 0.0
            for tap in range(len(weights64)):
                row = min(max(y + down[tap] - corner[0], 0), height - 1)
                column = min(max(found[i] + across[tap] - corner[1], 0), width - 1)
                total += weights64[tap] * _flake_value(field, row, column, rows, columns, threshold)
            out[y, found[i]] = np.uint8(np.rint(total * 255))


@inline_kernel
def _reflect(index, size):
    """Half-sample reflection: -1 -> 0, size -> size - 1, however far out."""
    if 0 <= index < size:
        return index
    index %= 2 * size
    return index if index < size else 2 * size - 1 - index


@kernel
def _smooth_exact(drawn, y, x, down, across, part):
    """Separable Gaussian of one sample of a float64 (H, W), edges reflected.

    It adds in scipy's order: columns first; the middle, then pairs from outside in. Weights are at
    distances 0..R; ``part`` is a buffer of 2R + 1.
    """
    (height, width), radius = drawn.shape, len(across) - 1
    inside = x >= radius and x + radius < width
    for k in range(part.size):
        part[k] = drawn[y, _reflect(x - radius + k, width)] * down[0]
    for step in range(len(down) - 1, 0, -1):
        above, below, weight = (
            drawn[_reflect(y - step, height)],
            drawn[_reflect(y + step, height)],
            down[step],
        )
        if inside:
            a, b = above[x - radius : x + radius + 1], below[x - radius : x + radius + 1]
            for k in range(part.size):
                part[k] += (a[k] + b[k]) * weight
        else:
            for k in range(part.size):
                column = _reflect(x - radius + k, width)
                part[k] += (above[column] + below[column]) * weight
    total = part[radius] * across[0]
    for step in range(radius, 0, -1):
        total += (part[radius - step] + part[radius + step]) * across[step]
    return total


@kernel
def _bilinear_exact(four, margin, y, x, c, down, across, fractions):
    """One sample at (y + down, x + across), computed as scipy's map_coordinates does."""
    top, left = math.floor(y + down), math.floor(x + across)
    wy, wx = y + down - top, x + across - left
    row, column = top + margin, 4 * (left + margin) + c
    value = fractions[int(four[row, column])] * (1 - wy) * (1 - wx)
    value += fractions[int(four[row, column + 4])] * (1 - wy) * wx
    value += fractions[int(four[row + 1, column])] * wy * (1 - wx)
    value += fractions[int(four[row + 1, column + 4])] * wy * wx
    return np.uint8(np.int32(min(np.float32(value), np.float32(1)) * np.float32(255)))


@kernel
def displace(four, margin, down, across, drawn, weights, strength, fractions, tolerance, out):
    """out(y, x) = image at (y + down, x + across), bilinear -> uint8 (H, W * 3).

    Args:
        four: uint8 or float32 (H + 2 margin, (W + 2 margin) * 4).
        margin: Border of ``four``; no displacement is larger.
        down: float32 (H, W), in pixels.
        across: The same.
        drawn: float64 noise (down, across), from which uncertain samples are computed again; or
            ``None``, and they are not.
        weights: The Gaussian that smooths ``drawn`` (down, across).
        strength: Factor of the smoothed noise.
        fractions: float32 (256,): grey level / 255.
        tolerance: Of the float32 sums, in grey levels.
        out: Result.
    """
    width, stride = down.shape[1], four.shape[1] // 4
    flat = four.reshape(-1)
    places = np.empty(width, np.uint64)
    shift_down, shift_across = np.empty(width, np.float32), np.empty(width, np.float32)
    line = np.empty(3 * width + 1, np.float32)
    near, found = truncation_buffers(3 * width)
    for y in range(out.shape[0]):
        rows, columns, start = down[y], across[y], (y + margin) * stride + margin
        for x in range(width):
            top, left = np.int32(rows[x]), np.int32(columns[x])
            top -= np.int32(np.float32(top) > rows[x])
            left -= np.int32(np.float32(left) > columns[x])
            shift_down[x], shift_across[x] = (
                rows[x] - np.float32(top),
                columns[x] - np.float32(left),
            )
            places[x] = 4 * (start + x + np.int64(top) * stride + np.int64(left))
        for x in range(np.uint64(width)):
            a, wy, wx, o = places[x], shift_down[x], shift_across[x], x * THREE
            b, c = a + FOUR, a + np.uint64(4 * stride)
            d = c + FOUR
            a0, a1, a2, a3 = (
                f32(flat[a]),
                f32(flat[a + ONE]),
                f32(flat[a + TWO]),
                f32(flat[a + THREE]),
            )
            b0, b1, b2, b3 = (
                f32(flat[b]),
                f32(flat[b + ONE]),
                f32(flat[b + TWO]),
                f32(flat[b + THREE]),
            )
            c0, c1, c2, c3 = (
                f32(flat[c]),
                f32(flat[c + ONE]),
                f32(flat[c + TWO]),
                f32(flat[c + THREE]),
            )
            d0, d1, d2, d3 = (
                f32(flat[d]),
                f32(flat[d + ONE]),
                f32(flat[d + TWO]),
                f32(flat[d + THREE]),
            )
            a0, a1, a2, a3 = (
                a0 + wx * (b0 - a0),
                a1 + wx * (b1 - a1),
                a2 + wx * (b2 - a2),
                a3 + wx * (b3 - a3),
            )
            c0, c1, c2, c3 = (
                c0 + wx * (d0 - c0),
                c1 + wx * (d1 - c1),
                c2 + wx * (d2 - c2),
                c3 + wx * (d3 - c3),
            )
            a0, a1, a2, a3 = (
                a0 + wy * (c0 - a0),
                a1 + wy * (c1 - a1),
                a2 + wy * (c2 - a2),
                a3 + wy * (c3 - a3),
            )
            # the fourth value is overwritten by the next pixel's first
            line[o], line[o + ONE], line[o + TWO], line[o + THREE] = a0, a1, a2, a3
        count = truncate(line[: 3 * width], tolerance, near, found, out[y])
        if drawn is None:
            continue
        part = np.empty(2 * len(weights[1]) - 1)
        for i in range(count):
            x, c = found[i] // 3, found[i] % 3
            a = places[x] + np.uint64(c)
            below = a + np.uint64(4 * stride)
            corners = flat[a], flat[a + FOUR], flat[below], flat[below + FOUR]
            contrast = f32(max(corners)) - f32(min(corners))
            # flat areas are whole numbers in both; elsewhere the error of the fields counts in
            # proportion to the contrast
            if (
                contrast == 0
                or abs(line[found[i]] - np.rint(line[found[i]])) > 1e-4 + FIELD_ERROR * contrast
            ):
                continue
            moved_down = np.float64(
                np.float32(_smooth_exact(drawn[0], y, x, *weights, part) * strength)
            )
            moved_across = np.float64(
                np.float32(_smooth_exact(drawn[1], y, x, *weights, part) * strength)
            )
            out[y, found[i]] = _bilinear_exact(
                four, margin, y, x, c, moved_down, moved_across, fractions
            )


@kernel
def shuffle(pixels, height, width, reach, iterations, draws):
    """Copy each pixel from a near one, from bottom right to top left.

    The reference means to swap the two, but its views only copy. ``draws`` uint8 (N) holds pairs of
    (across + reach, down + reach).
    """
    draw = 0
    for _ in range(iterations):
        for y in range(height - reach, reach, -1):
            base = y * width
            for x in range(width - reach, reach, -1):
                shift = (np.int64(draws[draw + 1]) - reach) * width + np.int64(draws[draw]) - reach
                draw += 2
                pixels[np.uint64(base + x)] = pixels[np.uint64(base + x + shift)]


@kernel
def shuffle_fast(pixels, height, width, reach, iterations, shifts, first, second):
    """:func:`shuffle` with one hash per pixel, which selects one of the (2 reach)**2 ``shifts``."""
    picked = np.empty(width, np.int32)
    counter, choices = np.uint32(0), np.uint32(shifts.size)
    for _ in range(iterations):
        for y in range(height - reach, reach, -1):
            for x in range(width):
                word = hash_counter(counter + np.uint32(x), first, second) >> np.uint32(16)
                picked[x] = shifts[np.uint64((word * choices) >> np.uint32(16))]
            counter += np.uint32(width)
            base = y * width
            for x in range(width - reach, reach, -1):
                pixels[np.uint64(base + x)] = pixels[np.uint64(base + x + picked[x])]


@kernel
def gather_nearest(small, rows, columns, out):
    """out(y, x) = small(rows[y], columns[x]). A repeated row is copied."""
    for y in range(out.shape[0]):
        if y and rows[y] == rows[y - 1]:
            for x in range(out.shape[1]):
                out[y, x] = out[y - 1, x]
            continue
        source, target = small[rows[y]], out[y]
        for x in range(len(columns)):
            i = np.uint64(columns[x] * 3)
            target[3 * x], target[3 * x + 1], target[3 * x + 2] = (
                source[i],
                source[i + ONE],
                source[i + TWO],
            )
