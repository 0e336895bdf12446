"""Random numbers: numpy's legacy Mersenne Twister, many words at a time, and a hash of a counter.

The Twister's state is ``key`` (624 words, changed in place) and ``place`` (0..624, the next word),
as in ``RandomState``, so a stream continues exactly where numpy's would. The constants are those of
Matsumoto & Nishimura 1998.
"""

# mypy: ignore-errors

import math

import numpy as np

from stillrobust.corruptions.kernels.jit import inline_kernel, kernel

WORDS = 624
UPPER, LOWER, TWIST = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x9908B0DF)
UNIT = 1.0 / 9007199254740992.0  # 2**-53
# ln 2 in two parts (fdlibm)
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
SQRT2 = math.sqrt(2)


@inline_kernel
def _twist(ahead, own, following):
    mixed = (own & UPPER) | (following & LOWER)
    return ahead ^ (mixed >> np.uint32(1)) ^ ((np.uint32(0) - (mixed & np.uint32(1))) & TWIST)


@kernel
def temper(key, out):
    """Write the 624 output words of a state to ``out``."""
    for i in range(WORDS):
        word = key[i]
        word ^= word >> np.uint32(11)
        word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
        word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
        out[i] = word ^ (word >> np.uint32(18))


@kernel
def advance(key, out):
    """Advance the state and write its 624 output words.

    In three spans, because within each span no word depends on another one.
    """
    old = key.copy()
    ahead, own, following, new = old[397:624], old[0:227], old[1:228], key[0:227]
    for i in range(227):
        new[i] = _twist(ahead[i], own[i], following[i])
    ahead, own, following, new = key[0:227], old[227:454], old[228:455], key[227:454]
    for i in range(227):
        new[i] = _twist(ahead[i], own[i], following[i])
    ahead, own, following, new = key[227:396], old[454:623], old[455:624], key[454:623]
    for i in range(169):
        new[i] = _twist(ahead[i], own[i], following[i])
    key[623] = _twist(key[396], old[623], key[0])
    temper(key, out)


@kernel
def open_block(key, place, words):
    """Write the unread words of the block to the front of ``words``; return their number."""
    block = np.empty(WORDS, np.uint32)
    temper(key, block)
    for i in range(place, WORDS):
        words[i - place] = block[i]
    return WORDS - place


@kernel
def refill(key, words, read, held):
    """Move the ``held - read`` unread words to the front and append the next block.

    Returns the number of words now held.
    """
    left = held - read
    for i in range(left):
        words[i] = words[read + i]
    advance(key, words[left : left + WORDS])
    return left + WORDS


@inline_kernel
def fraction(high, low):
    """Two words -> one of 2**53 values in [0, 1)."""
    return (np.float64(high >> np.uint32(5)) * 67108864.0 + np.float64(low >> np.uint32(6))) * UNIT


@kernel
def uniforms(key, place, scale, offset, out):
    """``random_sample`` * scale + offset: fills float64 ``out`` (N,); returns the new place."""
    words = np.empty(2 * WORDS, np.uint32)
    held, read, done = open_block(key, place, words), 0, 0
    while done < out.size:
        if held - read < 2:
            held, read = refill(key, words, read, held), 0
        count = min(out.size - done, (held - read) // 2)
        block, target = words[read : read + 2 * count], out[done : done + count]
        for i in range(count):
            target[i] = fraction(block[2 * i], block[2 * i + 1]) * scale + offset
        done += count
        read += 2 * count
    return WORDS - (held - read)


@kernel
def bounded(key, place, largest, out):
    """``randint(0, largest + 1)`` of 64-bit integers -> uint8. Drops masked words above it."""
    mask = largest
    for shift in (1, 2, 4, 8, 16):
        mask |= mask >> shift
    words = np.empty(2 * WORDS, np.uint32)
    held, read, done = open_block(key, place, words), 0, 0
    while done < out.size:
        if held == read:
            held, read = refill(key, words, read, held), 0
        count = min(held - read, out.size - done)
        block, target, taken = words[read : read + count], out[done : done + count], np.uint64(0)
        if mask == largest:  # none is too large
            for i in range(count):
                target[i] = np.uint8(block[i] & np.uint32(mask))
            taken = np.uint64(count)
        else:
            for i in range(count):
                value = np.uint8(block[i] & np.uint32(mask))
                target[taken] = value  # overwritten by the next one if it is too large
                taken += np.uint64(value <= largest)
        read, done = read + count, done + int(taken)
    return WORDS - (held - read)


@kernel
def _polar_factors(radius, bits):
    """sqrt(-2 ln(r) / r) in place, ``bits`` being the same memory as int64.

    The logarithm is an atanh series, off by 2 units in the last place. A loop over the library's
    function would not be vectorised.
    """
    for i in range(radius.size):
        square = radius[i]
        raw = bits[i]
        power = np.float64((raw >> 52) - 1023)
        bits[i] = (raw & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000
        part = radius[i]
        large = part > SQRT2
        part = part * 0.5 if large else part
        power = power + 1.0 if large else power
        s = (part - 1.0) / (part + 1.0)
        z = s * s
        series = 1 / 21
        series = series * z + 1 / 19
        series = series * z + 1 / 17
        series = series * z + 1 / 15
        series = series * z + 1 / 13
        series = series * z + 1 / 11
        series = series * z + 1 / 9
        series = series * z + 1 / 7
        series = series * z + 1 / 5
        series = series * z + 1 / 3
        logarithm = power * LN2_HIGH + (power * LN2_LOW + (2 * s + 2 * s * z * series))
        radius[i] = math.sqrt(-2.0 * logarithm / square)


@kernel
def normals(key, place, spare, has_spare, out):
    """``standard_normal`` of the legacy generator: polar method, second of a pair first.

    Fills float64 ``out`` (N,); returns (place, spare, has_spare).
    """
    words = np.empty(2 * WORDS, np.uint32)
    held, read, done = open_block(key, place, words), 0, 0
    if has_spare and out.size > 0:
        out[0] = spare
        done, has_spare, spare = 1, False, 0.0
    first, second, radius = np.empty(WORDS // 2), np.empty(WORDS // 2), np.empty(WORDS // 2)
    square = np.empty(WORDS // 2)
    bits = radius.view(np.int64)
    while done < out.size:
        if held - read < 4:
            held, read = refill(key, words, read, held), 0
        count, wanted = (held - read) // 4, (out.size - done + 1) // 2
        block = words[read : read + 4 * count]
        for i in range(count):
            first[i] = 2.0 * fraction(block[4 * i], block[4 * i + 1]) - 1.0
            second[i] = 2.0 * fraction(block[4 * i + 2], block[4 * i + 3]) - 1.0
            square[i] = first[i] * first[i] + second[i] * second[i]
        kept = used = 0
        while used < count and kept < wanted:
            a, b, r = first[used], second[used], square[used]
            first[kept], second[kept], radius[kept] = a, b, r
            kept += (r < 1.0) & (r != 0.0)
            used += 1
        read += 4 * used
        _polar_factors(radius[:kept], bits[:kept])
        pairs = min(kept, (out.size - done) // 2)
        target = out[done : done + 2 * pairs]
        for i in range(pairs):
            target[2 * i] = radius[i] * second[i]
            target[2 * i + 1] = radius[i] * first[i]
        done += 2 * pairs
        # an odd number was asked for: the other one of the pair is kept for the next call
        if kept > pairs:
            out[done] = radius[pairs] * second[pairs]
            spare, has_spare = radius[pairs] * first[pairs], True
            done += 1
    return WORDS - (held - read), spare, has_spare


@inline_kernel
def hash_counter(counter, first, second):
    """Hash a counter with two key words to 32 bits: Wellons' "lowbias32", keyed in both rounds."""
    word = np.uint32(np.uint32(counter) * np.uint32(0x9E3779B9) + first)
    word = np.uint32((word ^ (word >> np.uint32(16))) * np.uint32(0x7FEB352D)) ^ second
    word = np.uint32((word ^ (word >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(word ^ (word >> np.uint32(16)))


@kernel
def fill_hashes(start, first, second, out):
    """uint32 words start, start + 1, ... of the stream."""
    for i in range(out.size):
        out[i] = hash_counter(np.uint32(start + i), first, second)
