"""Frost textures: the reference's photographs if installed, otherwise a generated set.

The protocol records which. The photographs' origin and licence are unknown, so this package does
not ship them.
"""

import hashlib
import importlib.util
import os
import warnings
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from stillrobust.corruptions import resampling
from stillrobust.errors import UserError
from stillrobust.samples import Array

FROST_VARIABLE = "STILLROBUST_FROST"
# Five of the six files: the reference draws randint(5), so that frost6.jpg is never used.
FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
PACKAGES = ("imagecorruptions", "imagecorruptions_imaug")


def find_frost_folder() -> Path | None:
    """Find the photographs' folder: ``STILLROBUST_FROST``, or an installed package's.

    The package is not imported.

    Raises:
        UserError: If the named folder lacks a file.
    """
    if named := os.environ.get(FROST_VARIABLE):
        folder = Path(named)
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise UserError(
                f"{FROST_VARIABLE} names {folder}, but it lacks {', '.join(missing)};"
                " put the six frost files there"
            )
        return folder
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            if all((Path(place) / "frost" / name).is_file() for name in FILES):
                return Path(place) / "frost"
    return None


@lru_cache(maxsize=1)
def load_textures() -> tuple[str, tuple[Array, ...]]:
    """Load the textures.

    Returns:
        Their identity, which is the source and a hash of the pixels; and five uint8 (H, W, 3) RGB
        textures.
    """
    folder = find_frost_folder()
    if folder is None:
        warnings.warn(
            "no frost photographs found (pip install --no-deps imagecorruptions-imaug, or set"
            " STILLROBUST_FROST): frost uses generated textures, and its numbers are not comparable"
            " with published ones",
            stacklevel=3,
        )
        found, source = tuple(generate_texture(index) for index in range(len(FILES))), "generated"
    else:
        found = tuple(_read(folder / name) for name in FILES)
        source = "reference"
    digest = hashlib.sha256(
        b"".join(np.ascontiguousarray(texture).tobytes() for texture in found)
    ).hexdigest()
    return f"{source}:{digest[:12]}", found


def _read(path: Path) -> Array:
    texture = cv2.imread(str(path))  # alpha dropped, as in the reference
    if texture is None:
        raise UserError(
            f"Expected an image at {path}, but it cannot be read; restore the frost files"
        )
    rgb: Array = texture[..., ::-1]
    return rgb


def generate_texture(index: int) -> Array:
    """Generate an ice-like texture: ridged noise over six octaves, bluish white.

    Returns:
        uint8 (600, 900, 3), the same on every processor.
    """
    rng = np.random.RandomState(index)
    ridges = np.zeros((600, 900), np.float32)
    for octave, share in enumerate((1, 0.6, 0.36, 0.216, 0.1296, 0.07776)):  # powers of 0.6
        coarse = rng.randint(0, 256, (5 * 2**octave, 8 * 2**octave, 3)).astype(np.uint8)
        # three channels: levels finer than a byte's
        fine = resampling.resize(coarse, (600, 900)).sum(axis=2) / np.float32(765)
        ridges += (1 - np.abs(2 * fine - 1)) * np.float32(share)
    ridges = (ridges - ridges.min()) / (ridges.max() - ridges.min())
    colour = np.array([205, 220, 235], np.float32)
    texture: Array = (ridges[..., None] ** 2 * colour).astype(np.uint8)
    return texture


@lru_cache(maxsize=16)
def enlarged_texture(index: int, height: int, width: int, exact: bool) -> Array:
    """Enlarge texture ``index`` to 1.1 times what a crop of (height, width) needs, bicubic."""
    texture = load_textures()[1][index]
    own_height, own_width = texture.shape[:2]
    factor = 1.0
    if own_height < height and own_width >= width:
        factor = height / own_height
    elif own_height >= height and own_width < width:
        factor = width / own_width
    elif own_height < height and own_width < width:
        factor = max(height / own_height, width / own_width)
    factor *= 1.1
    return _resize(
        texture, (int(np.ceil(own_height * factor)), int(np.ceil(own_width * factor))), True, exact
    )


def _resize(texture: Array, size: tuple[int, int], cubic: bool, exact: bool) -> Array:
    """Resize to ``size`` (H, W); ``exact`` uses OpenCV, as the reference."""
    if not exact:
        return resampling.resize(texture, size, cubic)
    interpolation = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    resized = cv2.resize(
        np.ascontiguousarray(texture[..., ::-1]), dsize=size[::-1], interpolation=interpolation
    )
    return np.ascontiguousarray(resized[..., ::-1])


@lru_cache(maxsize=16)
def shrunk_texture(index: int, factor: float, exact: bool) -> Array:
    """Shrink texture ``index`` for small images, bilinear, as the authors of CIFAR-10-C do."""
    texture = load_textures()[1][index]
    return _resize(
        texture, (round(texture.shape[0] * factor), round(texture.shape[1] * factor)), False, exact
    )


def frost_layer(index: int, height: int, width: int, shrink: float | None, exact: bool) -> Array:
    """Return the texture that a crop is taken from.

    Textures that are large enough are scaled once for all image sizes.

    Args:
        index: 0..4.
        height: Of the image, like ``width``.
        width: See ``height``.
        shrink: Shrinks the texture by this factor instead, if the image then still fits into it.
        exact: Whether OpenCV resizes it, as in the reference.
    """
    if shrink is not None:
        small = shrunk_texture(index, shrink, exact)
        if small.shape[0] > height and small.shape[1] > width:
            return small
    own_height, own_width = load_textures()[1][index].shape[:2]
    return enlarged_texture(
        index, *((0, 0) if own_height >= height and own_width >= width else (height, width)), exact
    )
