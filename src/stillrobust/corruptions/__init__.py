"""The 15 common and 4 extra corruptions of Hendrycks & Dietterich (ICLR 2019), for images of any size.

Contract: ``CORRUPTIONS[name](image uint8 (H, W, 3) RGB, severity 1..5, rng) -> uint8 (H, W, 3)``; the input is not changed.
With the same ``np.random.RandomState`` the pixels are those of the library imagecorruptions (repository head), whose quirks
are kept and named where they are.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from stillrobust.corruptions import textures
from stillrobust.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from stillrobust.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate, saturate
from stillrobust.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from stillrobust.corruptions.weather import brightness, fog, frost, snow, spatter
from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.robustness import COMMON, GROUPS, SEVERITIES
from stillrobust.samples import Array, Image

__all__ = [
    "COMMON",
    "CORRUPTIONS",
    "DETERMINISTIC",
    "EXTRA",
    "GROUPS",
    "SEVERITIES",
    "VERSION",
    "Corruption",
    "corrupt",
    "keyed_rng",
    "protocol",
    "warm_up",
]

Corruption = Callable[[Image, int, np.random.RandomState], Image]

CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise,
        defocus_blur, glass_blur, motion_blur, zoom_blur,
        snow, frost, fog, brightness,
        contrast, elastic_transform, pixelate, jpeg_compression,
        speckle_noise, gaussian_blur, spatter, saturate,
    )
}  # fmt: skip
EXTRA = tuple(name for name in CORRUPTIONS if name not in COMMON)
DETERMINISTIC = frozenset(
    {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate"}
)
"""These draw nothing."""
VERSION = 1
"""Raised when pixels change."""


def keyed_rng(seed: int, corruption: str, severity: int, image_id: str) -> np.random.RandomState:
    """The generator of one image under one corruption: the same for every model, in any order, on any machine.

    Counter-based (Philox), keyed by the SHA-256 of its arguments; ``RandomState`` on top of it, because numpy has frozen the
    streams of its distributions, which it has not for ``Generator``.
    """
    digest = hashlib.sha256(f"{seed}/{corruption}/{severity}/{image_id}".encode()).digest()
    return np.random.RandomState(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def corrupt(
    image: Array,
    corruption: str,
    severity: int,
    *,
    rng: np.random.RandomState | np.random.Generator | None = None,
    seed: int | None = None,
    image_id: str | None = None,
) -> Image:
    """Corrupt one image: uint8 (H, W, 3) RGB, or grey (H, W) or (H, W, 1), which becomes RGB -> uint8 (H, W, 3).

    severity: 1..5; 0 returns a copy. Randomness is an argument: either ``rng`` (with ``np.random.RandomState(s)`` the
    reference's stream) or ``seed`` and ``image_id``. Raises ``UserError`` for anything else.
    """
    function = lookup("corruption", corruption, CORRUPTIONS)
    image = _checked(image)
    if isinstance(severity, bool) or not isinstance(severity, int | np.integer) or not 0 <= severity <= 5:
        raise UserError(f"Expected a severity among 0 (clean), 1, 2, 3, 4, 5, but got {severity!r}")
    if severity == 0:
        return image.copy()
    if rng is None and seed is not None and image_id is not None:
        rng = keyed_rng(seed, corruption, int(severity), image_id)
    elif rng is None and corruption not in DETERMINISTIC:
        raise UserError(f"{corruption} draws random numbers: pass rng=np.random.RandomState(...), or seed=... and image_id=...")
    elif rng is None:
        rng = np.random.RandomState(0)
    elif seed is not None or image_id is not None:
        raise UserError("Pass either rng or seed and image_id to corrupt, not both")
    if isinstance(rng, np.random.Generator):
        rng = np.random.RandomState(rng.bit_generator)
    return function(image, int(severity), rng)


def _checked(image: Array) -> Image:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"Expected an image as a numpy array of uint8, but got {got}; convert it first (0..255)")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise UserError(f"Expected an image of shape (H, W, 3) or (H, W), but got {image.shape}; drop alpha, keep RGB")
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image)


def protocol() -> dict[str, Any]:
    """What of the corruptions decides a number, besides seed, name and severity."""
    return {
        "regime": "imagenet",
        "channel_order": "rgb",
        "frost_textures": textures.textures()[0],
        "corruptions_version": VERSION,
    }


def warm_up() -> None:
    """Compile every kernel (or read it from the disk cache), so that workers started later find it there."""
    image = np.random.RandomState(0).randint(0, 256, (40, 48, 3)).astype(np.uint8)
    for name in CORRUPTIONS:
        for severity in (1, 5):
            corrupt(image, name, severity, seed=0, image_id="warm up")
