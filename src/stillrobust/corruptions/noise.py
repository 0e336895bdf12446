"""Noise: gaussian, shot, impulse and speckle. Samples of all channels are independent."""

import math
from functools import lru_cache

import numpy as np

from stillrobust.corruptions import draws, elementary
from stillrobust.corruptions.compiled import Kernels
from stillrobust.corruptions.corruption import Corruption
from stillrobust.corruptions.draws import Key, Rng, quantiles
from stillrobust.samples import Array, Image

kernels = Kernels("noise")


@lru_cache(maxsize=32)
def _noise_steps(sigma: float) -> Array:
    """Grey levels that noise adds.

    The reference truncates v + 255 sigma z, which is v + floor(255 sigma z) from 0 up.
    """
    steps: Array = np.floor(quantiles() * sigma * 255).astype(np.int16)
    return steps


def gaussian_noise(image: Image, rng: Rng, sigma: float) -> Image:
    """Add normal noise. Draws: one normal per sample."""
    out = np.empty_like(image)
    if isinstance(rng, Key):
        kernels.add_table(image.reshape(-1), _noise_steps(sigma), *rng.stream(0), out.reshape(-1))
    else:
        samples, target = image.reshape(-1), out.reshape(-1)
        for place, normals in draws.normal_parts(rng, image.size):
            kernels.add(samples[place], normals, float(sigma), target[place])
    return out


def _photon_levels(photons: int) -> Array:
    """Grey levels of 0, 1, 2, ... photons; ``photons`` and more are white."""
    levels: Array = (np.clip(np.arange(photons + 1) / float(photons), 0, 1) * 255).astype(np.uint8)
    return levels


@lru_cache(maxsize=32)
def _poisson_rows(photons: int) -> tuple[Array, Array]:
    """Constants of numpy's legacy Poisson for every grey level.

    Returns:
        float64 (256, 6) as the kernel needs them, and the probabilities, (256, K).
    """
    mean = np.arange(256) / 255.0 * photons
    b = 0.931 + 2.53 * np.sqrt(mean)
    a = -0.059 + 0.02483 * b
    with np.errstate(all="ignore"):  # the last two are used from a mean of 10 on
        # numpy's Poisson calls C's exp, whose last bits differ from np.exp
        smallest = np.array([math.exp(-value) for value in mean])
        columns = mean, smallest, b, a, 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
    count = np.arange(2 * photons + 64)  # beyond it the chance is less than 1e-18
    chances = np.exp(
        count * np.log(np.maximum(mean, 1e-9))[:, None]
        - mean[:, None]
        - _log_factorials()[: len(count)]
    )
    return np.ascontiguousarray(np.stack(columns, axis=1)), chances


@lru_cache(maxsize=1)
def _log_factorials() -> Array:
    return np.array([math.lgamma(count + 1.0) for count in range(1200)])


@lru_cache(maxsize=32)
def _poisson_aliases(photons: int) -> tuple[Array, int]:
    """Alias tables (Walker 1977) of the resulting grey levels, for each grey level.

    Returns:
        (uint32 (256 * 2**bits,), bits).
    """
    bits = photons.bit_length()
    size, levels = 1 << bits, _photon_levels(photons)
    table = np.empty((256, size), np.uint32)
    for value in range(256):
        mean = value / 255.0 * photons
        chance = np.zeros(size)
        # probabilities exp(-mean) mean**k / k!, each from the previous one
        ratios = np.empty(photons)
        ratios[0], ratios[1:] = elementary.exp(np.array(-mean)), mean / np.arange(1, photons)
        chance[:photons] = np.cumprod(ratios)
        chance[photons] = max(0.0, 1 - math.fsum(chance))
        share, alias = chance / math.fsum(chance) * size, np.arange(size)
        poor, rich = (
            [i for i in range(size) if share[i] < 1],
            [i for i in range(size) if share[i] >= 1],
        )
        while poor and rich:
            taker, giver = poor.pop(), rich.pop()
            alias[taker] = giver
            share[giver] -= 1 - share[taker]
            (poor if share[giver] < 1 else rich).append(giver)
        threshold = np.minimum(share * 65536, 65535).astype(np.uint32)
        own, other = (
            levels[np.minimum(place, photons)].astype(np.uint32)
            for place in (np.arange(size), alias)
        )
        table[value] = threshold << 16 | own << 8 | other
    return table.reshape(-1), bits


def shot_noise(image: Image, rng: Rng, photons: int) -> Image:
    """Count photons: Poisson with the sample's brightness as mean.

    Draws: one Poisson per sample.
    """
    out = np.empty_like(image)
    if isinstance(rng, Key):
        kernels.alias_table(
            image.reshape(-1), *_poisson_aliases(photons), *rng.stream(0), out.reshape(-1)
        )
        return out
    tables = *_poisson_rows(photons), _photon_levels(photons)
    with draws.stream_of(rng) as state:
        inner = state["state"]
        inner["pos"] = kernels.poisson(
            image.reshape(-1), *tables, inner["key"], inner["pos"], out.reshape(-1)
        )
    return out


def impulse_noise(image: Image, rng: Rng, amount: float) -> Image:
    """Replace samples by black or white.

    Draws: one uniform per sample that decides where, then one that decides which.
    """
    out = np.empty_like(image)
    if isinstance(rng, Key):
        black, either = np.uint32(amount / 2 * 2**32), np.uint32(amount * 2**32)
        kernels.salt_and_pepper_fast(
            image.reshape(-1), black, either, *rng.stream(0), out.reshape(-1)
        )
    else:
        drawn = draws.uniforms(rng, 2 * image.size)
        kernels.salt_and_pepper(
            image.reshape(-1), drawn[: image.size], drawn[image.size :], amount, out.reshape(-1)
        )
    return out


@lru_cache(maxsize=32)
def _noise_factors(sigma: float) -> Array:
    factors: Array = (1 + quantiles() * sigma).astype(np.float32)
    return factors


def speckle_noise(image: Image, rng: Rng, sigma: float) -> Image:
    """Multiply by normal noise. Draws: one normal per sample."""
    out = np.empty_like(image)
    if isinstance(rng, Key):
        kernels.multiply_table(
            image.reshape(-1), _noise_factors(sigma), *rng.stream(0), out.reshape(-1)
        )
    else:
        samples, target = image.reshape(-1), out.reshape(-1)
        for place, normals in draws.normal_parts(rng, image.size):
            kernels.multiply(samples[place], normals, float(sigma), target[place])
    return out


NOISE = {
    "gaussian_noise": Corruption(
        gaussian_noise,
        {
            "imagenet": (0.08, 0.12, 0.18, 0.26, 0.38),
            "cifar": (0.04, 0.06, 0.08, 0.09, 0.10),
            "tiny-imagenet": (0.04, 0.08, 0.12, 0.15, 0.18),
        },
    ),
    "shot_noise": Corruption(
        shot_noise,
        {
            "imagenet": (60, 25, 12, 5, 3),
            "cifar": (500, 250, 100, 75, 50),
            "tiny-imagenet": (250, 100, 50, 30, 15),
        },
    ),
    "impulse_noise": Corruption(
        impulse_noise,
        {
            "imagenet": (0.03, 0.06, 0.09, 0.17, 0.27),
            "cifar": (0.01, 0.02, 0.03, 0.05, 0.07),
            "tiny-imagenet": (0.01, 0.02, 0.05, 0.08, 0.14),
        },
    ),
    "speckle_noise": Corruption(
        speckle_noise,
        {
            "imagenet": (0.15, 0.2, 0.35, 0.45, 0.6),
            "cifar": (0.06, 0.1, 0.12, 0.16, 0.2),
            "tiny-imagenet": (0.15, 0.2, 0.25, 0.3, 0.35),
        },
    ),
}
