"""The 15 common and 4 extra corruptions of Hendrycks & Dietterich (ICLR 2019), for images of any
size; and files of your own.

Contract: ``CORRUPTIONS[name](image uint8 (H, W, 3) RGB, severity 1..5, rng, regime) -> uint8 (H, W,
3)``; the input is not changed. *Exact*, with a ``np.random.RandomState``: the pixels of the library
imagecorruptions (repository head), whose quirks are kept and named where they are. *Fast*, with a
``Key``: the same distributions from cheaper draws.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from stillrobust.corruptions import textures
from stillrobust.corruptions.blur import (
    defocus_blur,
    gaussian_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
)
from stillrobust.corruptions.digital import (
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
    saturate,
)
from stillrobust.corruptions.displacement import FIELDS
from stillrobust.corruptions.draws import Key, Rng, keyed
from stillrobust.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from stillrobust.corruptions.own import own_corruption, require_sound
from stillrobust.corruptions.severity import REGIMES
from stillrobust.corruptions.weather import brightness, fog, frost, snow, spatter
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, COMMON, GROUPS, SEVERITIES
from stillrobust.names import lookup
from stillrobust.samples import Array, Image
from stillrobust.user_files import display_name, is_user_file, require_free, resolve_user_file

__all__ = [
    "CHANNEL_ORDERS",
    "COMMON",
    "CORRUPTIONS",
    "DETERMINISTIC",
    "EXTRA",
    "FIELDS",
    "GROUPS",
    "MODES",
    "REGIMES",
    "SEVERITIES",
    "VERSION",
    "Corruption",
    "chosen",
    "corrupt",
    "corruption_of",
    "displacement",
    "get_corruption_names",
    "keyed",
    "protocol",
    "warm_up",
]

Corruption = Callable[[Image, int, Rng, str], Image]

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
    {
        "defocus_blur",
        "zoom_blur",
        "brightness",
        "contrast",
        "pixelate",
        "jpeg_compression",
        "gaussian_blur",
        "saturate",
    }
)
"""These draw nothing."""
MODES = {
    "exact": "the reference's draws and pixels",
    "fast": "the same distributions from cheaper draws",
}
CHANNEL_ORDERS = {
    "rgb": "as the reference assumes",
    "bgr": "reversed, as tools that read with OpenCV handed images over",
}
VERSION = 4
"""Raised when pixels change."""


def corruption_of(name: str) -> Corruption:
    """A corruption by its name or, of your own, by the path of its file.

    Raises ``UserError`` for any other.
    """
    name = resolve_user_file(name)
    if not is_user_file(name):
        return lookup("corruption", name, CORRUPTIONS)
    require_free(name, "corruption", {*CORRUPTIONS, CLEAN[0], "common", "all"})
    return own_corruption(name.strip())


def chosen(names: Iterable[str]) -> tuple[str, ...]:
    """Names for a whole evaluation: each is known, ``common`` is the 15, and a file of your own is
    tried and pinned.
    """
    plain = [name.strip() for name in names]
    found = dict.fromkeys(
        one
        for name in plain
        for one in (COMMON if name == "common" else (resolve_user_file(name),))
    )
    for name in found:
        corruption_of(name)
        if is_user_file(name):
            require_sound(name)
    if len({display_name(name) for name in found}) < len(found):
        raise UserError(
            f"Expected corruptions of different names, but got {', '.join(map(display_name, found))};"
            " rename a file"
        )
    return tuple(found)


def corrupt(
    image: Array,
    corruption: str | int | None = None,
    severity: Any = 1,
    *,
    rng: np.random.RandomState | np.random.Generator | None = None,
    seed: int | None = None,
    image_id: str | None = None,
    mode: str | None = None,
    regime: str = "imagenet",
    channel_order: str = "rgb",
    corruption_name: str | None = None,
    corruption_number: int | None = None,
) -> Image:
    """Corrupt one image: uint8 (H, W, 3) RGB, or grey (H, W) or (H, W, 1), which becomes RGB ->
    uint8 (H, W, 3).

    ``corruption`` is a name of ``CORRUPTIONS`` or the path of a file of your own, to which ``mode``
    and ``regime`` say nothing.
    severity: 1..5; 0 returns a copy. Randomness is an argument: ``rng``, or ``seed`` and
    ``image_id``. ``mode`` is ``exact`` (the reference's draws; the default with a
    ``np.random.RandomState``) or ``fast`` (the same distributions; the default otherwise).
    ``regime`` is a name of ``REGIMES``; ``channel_order="bgr"`` corrupts the image with its
    channels reversed, as tools did that read with OpenCV. Raises ``UserError``, a ``ValueError``,
    for anything else.

    The reference's own calls work: ``corrupt(image, corruption_name="fog", severity=3)``,
    ``corruption_number=9``; without ``rng`` they draw from numpy's global stream, as there.
    """
    if isinstance(severity, str):  # the reference's order of arguments
        corruption_name = severity
        severity, corruption = corruption if isinstance(corruption, int) else 1, None
    called_as_reference = corruption_name is not None or corruption_number is not None
    name = resolve_user_file(_name(corruption, corruption_name, corruption_number))
    function = corruption_of(name)
    lookup("regime", regime, REGIMES)
    lookup("channel order", channel_order, CHANNEL_ORDERS)
    image = _checked(image)
    if (
        isinstance(severity, bool)
        or not isinstance(severity, int | np.integer)
        or not 0 <= severity <= 5
    ):
        raise UserError(
            f"Expected a severity among 0 (clean), 1, 2, 3, 4, 5, but got {severity!r}; give one of"
            " these"
        )
    if severity == 0:
        return image.copy()
    if called_as_reference and rng is None and seed is None:
        rng = np.random.mtrand._rand
    source = _randomness(
        display_name(name),
        int(severity),
        rng,
        seed,
        image_id,
        "fast" if is_user_file(name) else mode,
    )
    if channel_order == "bgr":
        reversed_image = np.ascontiguousarray(image[..., ::-1])
        return np.ascontiguousarray(
            function(reversed_image, int(severity), source, regime)[..., ::-1]
        )
    return function(image, int(severity), source, regime)


def _name(corruption: str | int | None, name: str | None, number: int | None) -> str:
    """One of the three ways to say which corruption."""
    given = [value for value in (corruption, name, number) if value is not None]
    if len(given) != 1:
        raise UserError(
            f"Expected one corruption, by name or by number, but got {given!r}; give one of the two"
        )
    if isinstance(given[0], str):
        return given[0]
    if (
        isinstance(given[0], bool)
        or not isinstance(given[0], int | np.integer)
        or not 0 <= given[0] < len(CORRUPTIONS)
    ):
        raise UserError(
            f"Expected a corruption's name, or its number from 0 to {len(CORRUPTIONS) - 1}, but got"
            f" {given[0]!r}; give one of these"
        )
    return list(CORRUPTIONS)[given[0]]


def _randomness(
    name: str,
    severity: int,
    rng: np.random.RandomState | np.random.Generator | None,
    seed: int | None,
    image_id: str | None,
    mode: str | None,
) -> Rng:
    """The source of draws for one image: a ``RandomState`` makes it exact, a :class:`Key` fast."""
    if mode is not None:
        lookup("mode", mode, MODES)
    if rng is not None and (seed is not None or image_id is not None):
        raise UserError(
            "Pass either rng or seed and image_id to corrupt, not both; leave one of them out"
        )
    if isinstance(rng, np.random.RandomState):
        return Key(tuple(rng.randint(0, 2**32, 8, np.uint64).tolist())) if mode == "fast" else rng
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise UserError(
            "Expected rng as np.random.RandomState or np.random.Generator, but got"
            f" {type(rng).__name__}; give one of them, or seed and image_id"
        )
    if rng is not None:
        key = Key(tuple(rng.integers(0, 2**32, 8).tolist()))
    elif seed is not None and image_id is not None:
        key = keyed(seed, name, severity, image_id)
    elif name in DETERMINISTIC:
        key = Key((0,) * 8)
    else:
        raise UserError(
            f"{name} draws random numbers: pass rng=np.random.RandomState(...), or seed=... and"
            " image_id=..."
        )
    return np.random.RandomState(np.array(key.words, np.uint32)) if mode == "exact" else key


def displacement(
    size: tuple[int, int],
    corruption: str,
    severity: int,
    *,
    rng: np.random.RandomState | np.random.Generator | None = None,
    seed: int | None = None,
    image_id: str | None = None,
    mode: str | None = None,
    regime: str = "imagenet",
) -> Array:
    """What :func:`corrupt` with the same arguments moves on an image of ``size`` (H, W): float32
    (H, W, 2), (down, across).

    Pixel (y, x) of the corrupted image shows the clean one at (y + down, x + across). Of zoom_blur
    it is the middle of the smear, of pixelate the middle of the block. Raises ``UserError`` for a
    corruption that moves nothing.
    """
    field = lookup("corruption that moves pixels", corruption, FIELDS)
    lookup("regime", regime, REGIMES)
    if severity not in SEVERITIES:
        raise UserError(
            f"Expected a severity among 1, 2, 3, 4, 5, but got {severity!r}; give one of these"
        )
    return field(
        size, severity, _randomness(corruption, severity, rng, seed, image_id, mode), regime
    )


def get_corruption_names(subset: str = "common") -> list[str]:
    """Names in the reference's order: ``common`` (15), ``validation`` (the 4 extra ones), ``all``,
    or a group.
    """
    subsets = {"common": COMMON, "validation": EXTRA, "all": tuple(CORRUPTIONS), **GROUPS}
    return list(lookup("subset of the corruptions", subset, subsets))


def _checked(image: Array) -> Image:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(
            f"Expected an image as a numpy array of uint8, but got {got}; convert it first (0..255)"
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise UserError(
            f"Expected an image of shape (H, W, 3) or (H, W), but got {image.shape}; drop alpha,"
            " keep RGB"
        )
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    image = np.ascontiguousarray(image)
    # compiled code would be compiled again for the other kind
    return image if image.flags.writeable else image.copy()


def protocol(
    mode: str = "fast", regime: str = "imagenet", channel_order: str = "rgb"
) -> dict[str, Any]:
    """What of the corruptions decides a number, besides seed, name and severity."""
    return {
        "regime": regime,
        "channel_order": channel_order,
        "draws": mode,
        "frost_textures": textures.textures()[0],
        "corruptions_version": VERSION,
    }


def warm_up() -> None:
    """Compile every kernel (or read it from the disk cache), so that workers started later find it
    there.
    """
    image = np.random.RandomState(0).randint(0, 256, (40, 48, 3)).astype(np.uint8)
    for name in CORRUPTIONS:
        for severity in (1, 5):
            for mode in ("exact", "fast"):
                corrupt(image, name, severity, seed=0, image_id="warm up", mode=mode)
