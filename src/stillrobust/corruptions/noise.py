"""Noise: gaussian, shot, impulse and speckle. Each draws first, then applies; every sample of every channel by itself."""

import numpy as np

from stillrobust.corruptions.filters import truncate
from stillrobust.corruptions.severity import parameters
from stillrobust.samples import Image

Rng = np.random.RandomState


def gaussian_noise(image: Image, severity: int, rng: Rng) -> Image:
    """Add normal noise. Draws: one normal per sample."""
    return truncate(image / 255.0 + rng.normal(size=image.shape, scale=parameters("gaussian_noise", severity)))


def shot_noise(image: Image, severity: int, rng: Rng) -> Image:
    """Count photons: Poisson with the sample's brightness as mean. Draws: one Poisson per sample."""
    photons = parameters("shot_noise", severity)
    return truncate(rng.poisson(image / 255.0 * photons) / float(photons))


def impulse_noise(image: Image, severity: int, rng: Rng) -> Image:
    """Salt and pepper per sample. Draws: one uniform per sample that says where, then one that says which."""
    hit = rng.random_sample(image.shape) <= parameters("impulse_noise", severity)
    white = rng.random_sample(image.shape) <= 0.5
    return np.where(hit, np.where(white, 255, 0), image).astype(np.uint8)


def speckle_noise(image: Image, severity: int, rng: Rng) -> Image:
    """Multiply by normal noise. Draws: one normal per sample."""
    fractions = image / 255.0
    return truncate(fractions + fractions * rng.normal(size=image.shape, scale=parameters("speckle_noise", severity)))
