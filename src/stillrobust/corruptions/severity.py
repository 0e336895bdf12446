"""Severity tables: one row per corruption, one entry per severity 1..5.

Hendrycks & Dietterich 2019, ImageNet-C/imagenet_c/imagenet_c/corruptions.py (224-px images), as kept by the library
imagecorruptions; elastic_transform is that library's variant, which has no affine part and scales with the image.
"""

from typing import Any

import numpy as np


def _zoom_factors(stop: float, step: float) -> tuple[float, ...]:
    # arange on floats, as in the source: at severity 1 its rounding adds a twelfth factor, 1.11.
    return tuple(float(factor) for factor in np.arange(1, stop, step))


Table = dict[str, tuple[Any, ...]]

IMAGENET: Table = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # sigma
    "shot_noise": (60, 25, 12, 5, 3),  # photons at white
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),  # fraction of samples
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),  # radius, alias sigma
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),  # sigma, reach, iterations
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),  # radius, sigma
    "zoom_blur": tuple(_zoom_factors(*c) for c in ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))),
    "snow": (  # mean, std, zoom, threshold, radius, sigma, mix
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),  # weight of image, of frost
    "fog": ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),  # amount, decay of the roughness
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "elastic_transform": (12.5, 16.25, 21.25, 25.0, 30.0),  # 250 x (.05 .065 .085 .1 .12)
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # size of the small image
    "jpeg_compression": (25, 18, 15, 10, 7),  # quality
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
    "gaussian_blur": (1, 2, 3, 4, 6),  # sigma
    "spatter": (  # mean, std, sigma, threshold, strength (water) or second sigma (mud), mud
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),  # factor, offset
}


def parameters(corruption: str, severity: int) -> Any:
    """The entry of the table for severity 1..5."""
    return IMAGENET[corruption][severity - 1]
