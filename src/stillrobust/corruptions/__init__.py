"""The 15 common and 4 extra corruptions of Hendrycks & Dietterich (ICLR 2019), the ten of
ImageNet-C-bar, and user files.

Contract: ``CORRUPTIONS[name](image uint8 (H, W, 3) RGB, severity 1..5, rng, regime) -> uint8 (H, W,
3)``, for images of any size. The input is not changed.

The type of ``rng`` selects the draws. *Exact*, with a ``np.random.RandomState``: the pixels of the
library imagecorruptions (repository head) or of the authors of ImageNet-C-bar, quirks included.
*Fast*, with a ``Key``: the same distributions from cheaper draws, and the same pixels on every
processor.

To add a corruption, write its function in one of the family modules and add one entry to the dict
at its end.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from stillrobust.corruptions import c_bar, textures
from stillrobust.corruptions.blur import BLUR
from stillrobust.corruptions.corruption import REGIMES, Corruption
from stillrobust.corruptions.digital import DIGITAL
from stillrobust.corruptions.draws import Key, Rng, image_key
from stillrobust.corruptions.noise import NOISE
from stillrobust.corruptions.user_corruptions import check_user_corruption, load_user_corruption
from stillrobust.corruptions.weather import WEATHER
from stillrobust.errors import UserError
from stillrobust.grid import (
    C_BAR,
    CLEAN,
    COMMON,
    CORRUPTION_SETS,
    EXTRA,
    GROUPS,
    SEVERITIES,
)
from stillrobust.names import lookup
from stillrobust.samples import Array, Image
from stillrobust.user_files import display_name, is_user_file, require_free, resolve_user_file

__all__ = [
    "CHANNEL_ORDERS",
    "COMMON",
    "CORRUPTIONS",
    "CORRUPTION_SETS",
    "C_BAR",
    "DETERMINISTIC",
    "DRAWS",
    "EXTRA",
    "GEOMETRIC",
    "GROUPS",
    "REFERENCE",
    "REGIMES",
    "SEVERITIES",
    "VERSION",
    "Corruption",
    "corrupt",
    "corruption_protocol",
    "displacement",
    "get_corruption",
    "get_corruption_names",
    "image_key",
    "resolve_corruptions",
]

_FAMILIES: dict[str, Corruption] = {**NOISE, **BLUR, **WEATHER, **DIGITAL, **c_bar.C_BAR}
CORRUPTIONS: dict[str, Corruption] = {
    name: _FAMILIES[name] for members in CORRUPTION_SETS.values() for name in members
}
"""The 15 common ones first, then the extra ones and further sets."""
REFERENCE = (*COMMON, *EXTRA)
"""The 19 of the library imagecorruptions, in its order."""
DETERMINISTIC = frozenset(name for name, entry in CORRUPTIONS.items() if entry.deterministic)
"""Corruptions that draw no random numbers."""
GEOMETRIC = tuple(name for name, entry in CORRUPTIONS.items() if entry.displacement)
"""Corruptions that move pixels, see :func:`displacement`."""
DRAWS = {
    "exact": "the reference's draws and pixels",
    "fast": "the same distributions from cheaper draws",
}
CHANNEL_ORDERS = {
    "rgb": "as the reference assumes",
    "bgr": "reversed, as in tools that pass on what OpenCV reads",
}
VERSION = 4
"""Raised when pixels change."""

RandomState = np.random.RandomState | np.random.Generator


def get_corruption(name: str) -> Callable[[Image, int, Rng, str], Image]:
    """Look up a corruption.

    Args:
        name: A name of ``CORRUPTIONS``, or the path of a user file.

    Raises:
        UserError: If the name is unknown, or the file has a built-in name or no ``corrupt``.
    """
    name = resolve_user_file(name)
    if not is_user_file(name):
        return lookup("corruption", name, CORRUPTIONS)
    require_free(name, "corruption", {*CORRUPTIONS, *CORRUPTION_SETS, CLEAN[0], "all"})
    return load_user_corruption(name.strip())


def resolve_corruptions(names: Iterable[str]) -> tuple[str, ...]:
    """Expand and check the corruptions of an evaluation.

    Args:
        names: Names of ``CORRUPTIONS`` or of ``CORRUPTION_SETS`` (``common`` is the 15), or paths
            of user files.

    Returns:
        Each corruption once. User files are tried, and their paths are pinned to their content.

    Raises:
        UserError: If a name is unknown, a user file does not work, or two files share a name.
    """
    expanded = [one for name in names for one in CORRUPTION_SETS.get(name.strip(), (name,))]
    resolved = tuple(dict.fromkeys(resolve_user_file(name.strip()) for name in expanded))
    for name in resolved:
        get_corruption(name)
        if is_user_file(name):
            check_user_corruption(name)
    if len({display_name(name) for name in resolved}) < len(resolved):
        raise UserError(
            "Expected corruptions of different names, but got"
            f" {', '.join(map(display_name, resolved))}; rename a file"
        )
    return resolved


def corrupt(
    image: Array,
    corruption: str | int | None = None,
    severity: Any = 1,
    *,
    rng: RandomState | None = None,
    seed: int | None = None,
    image_id: str | None = None,
    draws: str | None = None,
    regime: str = "imagenet",
    channel_order: str = "rgb",
    corruption_name: str | None = None,
    corruption_number: int | None = None,
) -> Image:
    """Corrupt one image.

    The reference's own calls work too: ``corrupt(image, corruption_name="fog", severity=3)`` or
    ``corruption_number=9``. Like there, they draw from numpy's global generator if no ``rng`` is
    given.

    Args:
        image: uint8 (H, W, 3) RGB, or grey (H, W) or (H, W, 1), which becomes RGB.
        corruption: A name of ``CORRUPTIONS``, or the path of a user file. ``draws`` and ``regime``
            do not affect user files.
        severity: 1..5; 0 returns a copy.
        rng: Source of the draws; or pass ``seed`` and ``image_id``.
        seed: Draws are keyed by (seed, corruption, severity, image_id).
        image_id: See ``seed``.
        draws: ``exact`` (default with a ``np.random.RandomState``) or ``fast`` (default otherwise).
        regime: A name of ``REGIMES``: which severity table.
        channel_order: ``bgr`` corrupts the image with its channels reversed, as detection tools did
            that read images with OpenCV.
        corruption_name: The reference's name for ``corruption``.
        corruption_number: The corruption's number in the reference, from 0.

    Returns:
        uint8 (H, W, 3).

    Raises:
        UserError: For any other argument. It is a ``ValueError``.
    """
    if isinstance(severity, str):  # the reference's order of arguments
        corruption_name = severity
        severity, corruption = corruption if isinstance(corruption, int) else 1, None
    called_as_reference = corruption_name is not None or corruption_number is not None
    name = resolve_user_file(_select_name(corruption, corruption_name, corruption_number))
    function = get_corruption(name)
    lookup("regime", regime, REGIMES)
    lookup("channel order", channel_order, CHANNEL_ORDERS)
    image = _as_rgb(image)
    whole = isinstance(severity, int | np.integer) and not isinstance(severity, bool)
    if not whole or not 0 <= severity <= 5:
        raise UserError(
            f"Expected a severity among 0 (clean), 1, 2, 3, 4, 5, but got {severity!r}; give one of"
            " these"
        )
    if severity == 0:
        return image.copy()
    if called_as_reference and rng is None and seed is None:
        rng = np.random.mtrand._rand
    source = _draw_source(
        display_name(name),
        int(severity),
        rng,
        seed,
        image_id,
        "fast" if is_user_file(name) else draws,
    )
    if channel_order == "bgr":
        image = np.ascontiguousarray(image[..., ::-1])
        return np.ascontiguousarray(function(image, int(severity), source, regime)[..., ::-1])
    return function(image, int(severity), source, regime)


def _select_name(corruption: str | int | None, name: str | None, number: int | None) -> str:
    """The corruption's name, given in exactly one of the three ways."""
    given = [value for value in (corruption, name, number) if value is not None]
    if len(given) != 1:
        raise UserError(
            f"Expected one corruption, by name or by number, but got {given!r}; give one of the two"
        )
    value = given[0]
    if isinstance(value, str):
        return value
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 0 <= value < len(REFERENCE):
        raise UserError(
            f"Expected a corruption's name, or its number from 0 to {len(REFERENCE) - 1}, but got"
            f" {value!r}; give one of these"
        )
    return REFERENCE[value]


def _draw_source(
    name: str,
    severity: int,
    rng: RandomState | None,
    seed: int | None,
    image_id: str | None,
    draws: str | None,
) -> Rng:
    """The source of draws for one image: a ``RandomState`` for exact, a :class:`Key` for fast."""
    if draws is not None:
        lookup("draws", draws, DRAWS)
    if rng is not None and (seed is not None or image_id is not None):
        raise UserError(
            "Expected either rng, or seed and image_id, but got both; leave one of them out"
        )
    if isinstance(rng, np.random.RandomState):
        return Key(tuple(rng.randint(0, 2**32, 8, np.uint64).tolist())) if draws == "fast" else rng
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise UserError(
            "Expected rng as np.random.RandomState or np.random.Generator, but got"
            f" {type(rng).__name__}; give one of them, or seed and image_id"
        )
    if rng is not None:
        key = Key(tuple(rng.integers(0, 2**32, 8).tolist()))
    elif seed is not None and image_id is not None:
        key = image_key(seed, name, severity, image_id)
    elif name in DETERMINISTIC:
        key = Key((0,) * 8)
    else:
        raise UserError(
            f"{name} draws random numbers: pass rng=np.random.RandomState(...), or seed=... and"
            " image_id=..."
        )
    return np.random.RandomState(np.array(key.words, np.uint32)) if draws == "exact" else key


def displacement(
    size: tuple[int, int],
    corruption: str,
    severity: int,
    *,
    rng: RandomState | None = None,
    seed: int | None = None,
    image_id: str | None = None,
    draws: str | None = None,
    regime: str = "imagenet",
) -> Array:
    """Return the displacement that :func:`corrupt` applies with the same arguments.

    Pixel (y, x) of the corrupted image shows the clean pixel at (y + down, x + across). For
    zoom_blur it is the middle of the smear, for pixelate the middle of the block.

    Args:
        size: (H, W) of the image.
        corruption: A name of ``GEOMETRIC``.
        severity: 1..5.
        rng: As for :func:`corrupt`, like the arguments below.
        seed: See ``rng``.
        image_id: See ``rng``.
        draws: See ``rng``.
        regime: See ``rng``.

    Returns:
        float32 (H, W, 2), (down, across) in pixels.

    Raises:
        UserError: If the corruption moves no pixels, or another argument is wrong.
    """
    lookup("corruption that moves pixels", corruption, dict.fromkeys(GEOMETRIC))
    lookup("regime", regime, REGIMES)
    if severity not in SEVERITIES:
        raise UserError(
            f"Expected a severity among 1, 2, 3, 4, 5, but got {severity!r}; give one of these"
        )
    entry = CORRUPTIONS[corruption]
    assert entry.displacement is not None
    source = _draw_source(corruption, severity, rng, seed, image_id, draws)
    return entry.displacement(size, source, *entry.parameters(severity, regime))


def get_corruption_names(subset: str = "common") -> list[str]:
    """List names in the reference's order.

    Args:
        subset: ``common`` (15), ``validation`` (the 4 extra ones), ``all`` (both), ``c-bar`` (10),
            or a group.
    """
    subsets = {
        "common": COMMON,
        "validation": EXTRA,
        "all": REFERENCE,
        "c-bar": C_BAR,
        **GROUPS,
    }
    return list(lookup("subset of the corruptions", subset, subsets))


def _as_rgb(image: Array) -> Image:
    """Check an image and return it as contiguous RGB."""
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
    # numba would compile every kernel again for read-only arrays
    return image if image.flags.writeable else image.copy()


def corruption_protocol(
    draws: str = "fast", regime: str = "imagenet", channel_order: str = "rgb"
) -> dict[str, Any]:
    """Return everything about the corruptions that decides a pixel, besides seed, name, severity.

    Args:
        draws: A name of ``DRAWS``.
        regime: A name of ``REGIMES``.
        channel_order: A name of ``CHANNEL_ORDERS``.
    """
    return {
        "regime": regime,
        "channel_order": channel_order,
        "draws": draws,
        "frost_textures": textures.load_textures()[0],
        "corruptions_version": VERSION,
    }
