"""Noise on flat arrays of samples: exact from given draws, fast from tables indexed by hashes."""

# mypy: ignore-errors

import math

import numpy as np

from stillrobust.corruptions.kernels.jit import kernel
from stillrobust.corruptions.kernels.streams import (
    WORDS,
    fill_hashes,
    fraction,
    hash_counter,
    open_block,
    refill,
)

# unsigned indices spare numba the check for negative ones
ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN = (np.uint64(i) for i in range(1, 8))
CHUNK = 4096  # words hashed at a time; they fit into the first-level cache


@kernel
def add(samples, normals, sigma, out):
    """uint8 out = samples + 255 * sigma * normals, in the reference's order of operations."""
    for i in range(samples.size):
        out[i] = np.uint8(
            np.int32(min(max(samples[i] / 255.0 + sigma * normals[i], 0.0), 1.0) * 255)
        )


@kernel
def multiply(samples, normals, sigma, out):
    """uint8 out = samples * (1 + sigma * normals), in the reference's order of operations."""
    for i in range(samples.size):
        fraction = samples[i] / 255.0
        out[i] = np.uint8(
            np.int32(min(max(fraction + fraction * (sigma * normals[i]), 0.0), 1.0) * 255)
        )


@kernel
def salt_and_pepper(samples, where, which, amount, out):
    """0 or 255 (``which``) where ``where <= amount``; both uniforms."""
    for i in range(samples.size):
        extreme = np.uint8(255) if which[i] <= 0.5 else np.uint8(0)
        out[i] = extreme if where[i] <= amount else samples[i]


@kernel
def _refill_uniforms(key, before, words, place, draws, used, count):
    """Move the unread uniforms to the front and append the next block's.

    ``before`` receives the previous block's state. Returns (words read, words held, uniforms held).
    """
    for j in range(count - used):
        draws[j] = draws[used + j]
    read, held = place
    if held - read < 2:
        before[:] = key
        held, read = refill(key, words, read, held), 0
    pairs = (held - read) // 2
    block, target = words[read : read + 2 * pairs], draws[count - used : count - used + pairs]
    for j in range(pairs):
        target[j] = fraction(block[2 * j], block[2 * j + 1])
    return read + 2 * pairs, held, count - used + pairs


@kernel
def poisson(samples, rows, chances, grey, key, place, out):
    """numpy's legacy Poisson per sample -> its grey level, uint8.

    For means below 10, uniforms are multiplied until the product is small enough. Products only
    decrease, so eight are compared at once without branches.

    Args:
        samples: uint8 (N,).
        rows: (256, 6): for each grey level the mean, exp(-mean), and PTRS's b, a, 1/alpha and v_r
            (Hormann 1993, as in numpy).
        chances: (256, K): the Poisson probabilities, which save PTRS its logarithms.
        grey: uint8: grey level of each count; larger counts have the last one.
        key: The Twister's state, changed in place.
        place: The stream's place.
        out: Result.

    Returns:
        The new place of the stream.
    """
    words, draws, before = (
        np.empty(2 * WORDS, np.uint32),
        np.empty(2 * WORDS),
        np.empty(WORDS, np.uint32),
    )
    held, read = open_block(key, place, words), 0
    count, used, top, furthest = 0, 0, grey.size - 1, chances.shape[1] - 1
    for i in range(samples.size):
        level = np.uint64(samples[i])
        mean, smallest = rows[level, 0], rows[level, 1]
        photons, product = np.int64(0), 1.0
        while mean > 0:
            if count - used < 8:
                read, held, count = _refill_uniforms(
                    key, before, words, (read, held), draws, used, count
                )
                used = 0
                continue
            u = np.uint64(used)
            if mean < 10:
                p0 = product * draws[u]
                p1 = p0 * draws[u + ONE]
                pair = draws[u + TWO] * draws[u + THREE]
                p2, p3 = p1 * draws[u + TWO], p1 * pair
                pair = draws[u + FOUR] * draws[u + FIVE]
                p4, p5 = p3 * draws[u + FOUR], p3 * pair
                p6 = p5 * draws[u + SIX]
                p7 = p5 * (draws[u + SIX] * draws[u + SEVEN])
                more = (
                    np.int64(p0 > smallest)
                    + np.int64(p1 > smallest)
                    + np.int64(p2 > smallest)
                    + np.int64(p3 > smallest)
                )
                more += (
                    np.int64(p4 > smallest)
                    + np.int64(p5 > smallest)
                    + np.int64(p6 > smallest)
                    + np.int64(p7 > smallest)
                )
                photons += more
                if more < 8:
                    used += more + 1
                    break
                used += 8
                product = p7
                continue
            x, v = draws[u] - 0.5, draws[u + ONE]
            used += 2
            b, a, margin = rows[level, 2], rows[level, 3], 0.5 - abs(x)
            photons = np.int64(math.floor((2 * a / margin + b) * x + mean + 0.43))
            chance = chances[level, np.uint64(min(max(photons, 0), furthest))]
            at_once = (margin >= 0.07) & (v <= rows[level, 5])
            likely = (photons >= 0) & ((margin >= 0.013) | (v <= margin))
            if at_once | (likely & (v * rows[level, 4] <= chance * (a / (margin * margin) + b))):
                break
        out[i] = grey[min(photons, top)]
    unread = held - read + 2 * (count - used)
    if unread > WORDS:  # some of them belong to the previous block
        key[:] = before
        unread -= WORDS
    return WORDS - unread


@kernel
def add_table(samples, table, first, second, out):
    """out = samples + table[16 random bits], int16 table of 65,536 grey-level steps; two samples a
    word.
    """
    words = np.empty(CHUNK, np.uint32)
    for start in range(0, samples.size, 2 * CHUNK):
        count = min(2 * CHUNK, samples.size - start)
        fill_hashes(start // 2, first, second, words[: (count + 1) // 2])
        own, target = samples[start : start + count], out[start : start + count]
        for i in range(count // 2):
            word = words[i]
            low = np.int32(own[2 * i]) + np.int32(table[word & np.uint32(0xFFFF)])
            high = np.int32(own[2 * i + 1]) + np.int32(table[word >> np.uint32(16)])
            target[2 * i] = np.uint8(min(max(low, 0), 255))
            target[2 * i + 1] = np.uint8(min(max(high, 0), 255))
        if count % 2:
            low = np.int32(own[count - 1]) + np.int32(table[words[count // 2] & np.uint32(0xFFFF)])
            target[count - 1] = np.uint8(min(max(low, 0), 255))


@kernel
def multiply_table(samples, table, first, second, out):
    """out = samples * table[16 random bits], float32 table of factors; two samples a word."""
    words = np.empty(CHUNK, np.uint32)
    for start in range(0, samples.size, 2 * CHUNK):
        count = min(2 * CHUNK, samples.size - start)
        fill_hashes(start // 2, first, second, words[: (count + 1) // 2])
        for i in range(count):
            word = (words[i >> 1] >> np.uint32(16 * (i & 1))) & np.uint32(0xFFFF)
            value = np.float32(samples[start + i]) * table[word]
            out[start + i] = np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(255))))


@kernel
def alias_table(samples, table, bits, first, second, out):
    """One of 2**bits outcomes per grey level (Walker's alias method); an entry packs threshold
    (16), outcome, alias (8, 8).
    """
    words = np.empty(CHUNK, np.uint32)
    row, column, fine = np.uint32(bits), np.uint32(32 - bits), np.uint32(16 - bits)
    for start in range(0, samples.size, CHUNK):
        count = min(CHUNK, samples.size - start)
        fill_hashes(start, first, second, words[:count])
        own, target = samples[start : start + count], out[start : start + count]
        for i in range(count):
            word = words[i]
            entry = table[(np.uint32(own[i]) << row) + (word >> column)]
            below = ((word >> fine) & np.uint32(0xFFFF)) < (entry >> np.uint32(16))
            target[i] = (
                np.uint8((entry >> np.uint32(8)) & np.uint32(0xFF))
                if below
                else np.uint8(entry & np.uint32(0xFF))
            )


@kernel
def salt_and_pepper_fast(samples, black, either, first, second, out):
    """0 below the 32-bit threshold ``black``, 255 between it and ``either``."""
    for i in range(samples.size):
        word = hash_counter(np.uint32(i), first, second)
        value = np.uint8(255) if word < either else samples[i]
        out[i] = np.uint8(0) if word < black else value
