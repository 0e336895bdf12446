"""JPEG compression and decompression without the file: baseline, 4:2:0, libjpeg's "islow" DCT.

Entropy coding is lossless, so it is omitted. libjpeg (T. G. Lane, 1991 to 1998) defines the rest to
the bit, and libjpeg-turbo's vector code follows it: colours (jccolor.c, jdcolor.c), halved chroma
and its triangle filter (jcsample.c, jdsample.c), and transforms after Loeffler, Ligtenberg and
Moschytz (1989; jfdctint.c, jidctint.c). Constants are in units of 2**-13 (transforms) and 2**-16
(colours).
"""

# mypy: ignore-errors

import numpy as np

from stillrobust.corruptions.kernels.jit import inline_kernel, kernel

BLOCKS = 8  # blocks side by side that are transformed together, so that each step is one vector
# samples of one column of all these blocks: place ``j * LINE + i * BLOCKS + block`` holds row i,
# column j
LINE = 64
HALF = np.int32(32768)

# numba widens 32-bit sums and products to 64 bits; ``i32`` keeps them narrow, which doubles what
# fits into a vector.
i32 = np.int32


@inline_kernel
def _descale(value, bits):
    return i32(i32(value + i32(1 << (bits - 1))) >> i32(bits))


@inline_kernel
def _odd_half(a, b, c, d):
    """The odd half, which both directions share: tmp4..tmp7 forward, tmp0..tmp3 backward."""
    z1, z2, z3, z4 = i32(a + d), i32(b + c), i32(a + c), i32(b + d)
    z5 = i32(i32(z3 + z4) * i32(9633))
    z1, z2 = i32(z1 * i32(-7373)), i32(z2 * i32(-20995))
    z3, z4 = i32(i32(z3 * i32(-16069)) + z5), i32(i32(z4 * i32(-3196)) + z5)
    a, b = i32(i32(a * i32(2446)) + i32(z1 + z3)), i32(i32(b * i32(16819)) + i32(z2 + z4))
    c, d = i32(i32(c * i32(25172)) + i32(z2 + z3)), i32(i32(d * i32(12299)) + i32(z1 + z4))
    return a, b, c, d


@inline_kernel
def _forward(s0, s1, s2, s3, s4, s5, s6, s7, down):
    """Eight samples to eight frequencies, rounded by ``down`` bits."""
    t0, t7, t1, t6 = i32(s0 + s7), i32(s0 - s7), i32(s1 + s6), i32(s1 - s6)
    t2, t5, t3, t4 = i32(s2 + s5), i32(s2 - s5), i32(s3 + s4), i32(s3 - s4)
    a, d, b, c = i32(t0 + t3), i32(t0 - t3), i32(t1 + t2), i32(t1 - t2)
    f0, f4 = i32(i32(a + b) << i32(13)), i32(i32(a - b) << i32(13))
    z = i32(i32(c + d) * i32(4433))
    f2, f6 = i32(z + i32(d * i32(6270))), i32(z + i32(c * i32(-15137)))
    f7, f5, f3, f1 = _odd_half(t4, t5, t6, t7)
    return (
        _descale(f0, down), _descale(f1, down), _descale(f2, down), _descale(f3, down),
        _descale(f4, down), _descale(f5, down), _descale(f6, down), _descale(f7, down),
    )  # fmt: skip


@inline_kernel
def _backward(f0, f1, f2, f3, f4, f5, f6, f7, down):
    """Eight frequencies to eight samples, rounded by ``down`` bits."""
    z = i32(i32(f2 + f6) * i32(4433))
    t2, t3 = i32(z + i32(f6 * i32(-15137))), i32(z + i32(f2 * i32(6270)))
    t0, t1 = i32(i32(f0 + f4) << i32(13)), i32(i32(f0 - f4) << i32(13))
    a, d, b, c = i32(t0 + t3), i32(t0 - t3), i32(t1 + t2), i32(t1 - t2)
    o0, o1, o2, o3 = _odd_half(f7, f5, f3, f1)
    return (
        _descale(i32(a + o3), down), _descale(i32(b + o2), down),
        _descale(i32(c + o1), down), _descale(i32(d + o0), down),
        _descale(i32(d - o0), down), _descale(i32(c - o1), down),
        _descale(i32(b - o2), down), _descale(i32(a - o3), down),
    )  # fmt: skip


@inline_kernel
def _quantise(value, step, inverse):
    """Round a frequency times eight to a multiple of ``step``, halves away from 0."""
    # adding 0.5 keeps the quotient away from whole numbers, where float32 could round wrongly
    size = i32(i32(abs(value)) + i32(step << i32(2)))
    count = i32((np.float32(size) + np.float32(0.5)) * inverse)
    count = count * step
    return i32(-count) if value < 0 else i32(count)


@kernel
def quantise_plane(plane, table):
    """Transform, quantise and transform back: uint8 (H, W) in place; ``table`` is int32 (64,).

    H must be a multiple of 8, W of 64.
    """
    u = np.uint64
    work = np.empty(8 * LINE, np.int32)
    inverse = np.empty(64, np.float32)
    for i in range(64):
        inverse[i] = np.float32(0.125) / np.float32(table[i])
    for top in range(0, plane.shape[0], 8):
        for left in range(0, plane.shape[1], 8 * BLOCKS):
            for i in range(8):
                row = plane[top + i, left : left + 8 * BLOCKS]
                for b in range(BLOCKS):
                    for j in range(8):
                        work[u(j * LINE + i * BLOCKS + b)] = i32(row[u(8 * b + j)]) - i32(128)
            for k in range(u(LINE)):
                f = _forward(
                    work[k], work[k + u(LINE)],
                    work[k + u(2 * LINE)], work[k + u(3 * LINE)],
                    work[k + u(4 * LINE)], work[k + u(5 * LINE)],
                    work[k + u(6 * LINE)], work[k + u(7 * LINE)], 11,
                )  # fmt: skip
                work[k], work[k + u(LINE)] = f[0], f[1]
                work[k + u(2 * LINE)], work[k + u(3 * LINE)] = f[2], f[3]
                work[k + u(4 * LINE)], work[k + u(5 * LINE)] = f[4], f[5]
                work[k + u(6 * LINE)], work[k + u(7 * LINE)] = f[6], f[7]
            for j in range(u(8)):
                start = j * u(LINE)
                for k in range(start, start + u(BLOCKS)):
                    f = _forward(
                        work[k], work[k + u(BLOCKS)],
                        work[k + u(2 * BLOCKS)], work[k + u(3 * BLOCKS)],
                        work[k + u(4 * BLOCKS)], work[k + u(5 * BLOCKS)],
                        work[k + u(6 * BLOCKS)], work[k + u(7 * BLOCKS)], 15,
                    )  # fmt: skip
                    work[k], work[k + u(BLOCKS)] = f[0], f[1]
                    work[k + u(2 * BLOCKS)], work[k + u(3 * BLOCKS)] = f[2], f[3]
                    work[k + u(4 * BLOCKS)], work[k + u(5 * BLOCKS)] = f[4], f[5]
                    work[k + u(6 * BLOCKS)], work[k + u(7 * BLOCKS)] = f[6], f[7]
                for i in range(u(8)):
                    step, share = table[u(8) * i + j], inverse[u(8) * i + j]
                    for k in range(start + i * u(BLOCKS), start + (i + u(1)) * u(BLOCKS)):
                        work[k] = _quantise(work[k], step, share)
                for k in range(start, start + u(BLOCKS)):
                    s = _backward(
                        work[k], work[k + u(BLOCKS)],
                        work[k + u(2 * BLOCKS)], work[k + u(3 * BLOCKS)],
                        work[k + u(4 * BLOCKS)], work[k + u(5 * BLOCKS)],
                        work[k + u(6 * BLOCKS)], work[k + u(7 * BLOCKS)], 11,
                    )  # fmt: skip
                    work[k], work[k + u(BLOCKS)] = s[0], s[1]
                    work[k + u(2 * BLOCKS)], work[k + u(3 * BLOCKS)] = s[2], s[3]
                    work[k + u(4 * BLOCKS)], work[k + u(5 * BLOCKS)] = s[4], s[5]
                    work[k + u(6 * BLOCKS)], work[k + u(7 * BLOCKS)] = s[6], s[7]
            for k in range(u(LINE)):
                s = _backward(
                    work[k], work[k + u(LINE)],
                    work[k + u(2 * LINE)], work[k + u(3 * LINE)],
                    work[k + u(4 * LINE)], work[k + u(5 * LINE)],
                    work[k + u(6 * LINE)], work[k + u(7 * LINE)], 18,
                )  # fmt: skip
                work[k], work[k + u(LINE)] = s[0], s[1]
                work[k + u(2 * LINE)], work[k + u(3 * LINE)] = s[2], s[3]
                work[k + u(4 * LINE)], work[k + u(5 * LINE)] = s[4], s[5]
                work[k + u(6 * LINE)], work[k + u(7 * LINE)] = s[6], s[7]
            for i in range(8):
                row = plane[top + i, left : left + 8 * BLOCKS]
                for b in range(BLOCKS):
                    for j in range(8):
                        value = work[u(j * LINE + i * BLOCKS + b)] + i32(128)
                        row[u(8 * b + j)] = np.uint8(min(max(value, i32(0)), i32(255)))


@kernel
def rgb_to_planes(image, luma, blue, red):
    """RGB uint8 (H, W * 3) to planes: chroma halved each way, edges repeated as padding."""
    height, width = image.shape[0], image.shape[1] // 3
    half_height = (height + 1) // 2
    sums = np.empty((4, 2 * blue.shape[1]), np.int32)
    for y in range(half_height):
        for part in range(2):
            source, target = image[min(2 * y + part, height - 1)], luma[2 * y + part]
            u, v = sums[2 * part], sums[2 * part + 1]
            for x in range(width):
                r, g, b = i32(source[3 * x]), i32(source[3 * x + 1]), i32(source[3 * x + 2])
                target[x] = np.uint8(
                    i32(i32(19595) * r + i32(38470) * g + i32(7471) * b + HALF) >> i32(16)
                )
                u[x] = i32(i32(8421375 + 32768 * b - 11059 * r - 21709 * g) >> i32(16))
                v[x] = i32(i32(8421375 + 32768 * r - 27439 * g - 5329 * b) >> i32(16))
            target[width:] = target[width - 1]
            u[width:], v[width:] = u[width - 1], v[width - 1]
        for x in range(blue.shape[1]):
            bias = i32(1 + x % 2)
            blue[y, x] = np.uint8(
                (sums[0, 2 * x] + sums[0, 2 * x + 1] + sums[2, 2 * x] + sums[2, 2 * x + 1] + bias)
                >> 2
            )
            red[y, x] = np.uint8(
                (sums[1, 2 * x] + sums[1, 2 * x + 1] + sums[3, 2 * x] + sums[3, 2 * x + 1] + bias)
                >> 2
            )
    for y in range(height, luma.shape[0]):
        for x in range(luma.shape[1]):
            luma[y, x] = luma[height - 1, x]
    for y in range(half_height, blue.shape[0]):
        for x in range(blue.shape[1]):
            blue[y, x], red[y, x] = blue[half_height - 1, x], red[half_height - 1, x]


@kernel
def _upsample_row(plane, y, sums, out):
    """Upsample row ``y`` with a triangle filter of 3/4 and 1/4; ``plane`` (H, W) has no padding."""
    own, width = y // 2, plane.shape[1]
    other = min(max(own - 1 + 2 * (y % 2), 0), plane.shape[0] - 1)
    a, b = plane[own], plane[other]
    if width <= 2:  # libjpeg repeats samples there
        for x in range(width):
            out[2 * x], out[2 * x + 1] = a[x], a[x]
        return
    for x in range(width):
        sums[x + 1] = i32(3) * i32(a[x]) + i32(b[x])
    sums[0], sums[width + 1] = sums[1], sums[width]
    for x in range(width):
        out[2 * x] = i32(3 * sums[x + 1] + sums[x] + 8) >> i32(4)
        out[2 * x + 1] = i32(3 * sums[x + 1] + sums[x + 2] + 7) >> i32(4)


@kernel
def planes_to_rgb(luma, blue, red, out):
    """Planes of :func:`rgb_to_planes` to RGB uint8 (H, W * 3)."""
    height, width = out.shape[0], out.shape[1] // 3
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    blue, red = blue[:half_height, :half_width], red[:half_height, :half_width]
    sums = np.empty(half_width + 2, np.int32)
    wide_blue, wide_red = np.empty(2 * half_width, np.int32), np.empty(2 * half_width, np.int32)
    for y in range(height):
        _upsample_row(blue, y, sums, wide_blue)
        _upsample_row(red, y, sums, wide_red)
        source, target = luma[y], out[y]
        for x in range(width):
            light, u, v = (
                i32(source[x]),
                i32(wide_blue[x] - i32(128)),
                i32(wide_red[x] - i32(128)),
            )
            r = light + (i32(i32(91881) * v + HALF) >> i32(16))
            g = light + (i32(HALF - i32(22554) * u - i32(46802) * v) >> i32(16))
            b = light + (i32(i32(116130) * u + HALF) >> i32(16))
            target[3 * x] = np.uint8(min(max(r, i32(0)), i32(255)))
            target[3 * x + 1] = np.uint8(min(max(g, i32(0)), i32(255)))
            target[3 * x + 2] = np.uint8(min(max(b, i32(0)), i32(255)))
