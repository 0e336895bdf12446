"""Read label maps: PNG, TIFF, BMP and npy files of indices or colours, converted to classes."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from stillrobust.data.image_headers import MAX_PIXELS, UNREADABLE
from stillrobust.data.reading import ImageFile, read_image_bytes, read_label_map
from stillrobust.errors import BadImageError
from stillrobust.samples import IGNORE, Array
from stillrobust.untrusted import open_regular_file

LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".npy")
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")
NO_CLASS = -1
"""Entry of a table for stored values that are not allowed."""
UNKNOWN_CLASS = "a label map with an unknown class"
DAMAGED, DEEP = "a label map that cannot be decoded", "a label map that is not of 8 bits"

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


@dataclass(frozen=True)
class LabelReader:
    """Reads a file of labels as class indices.

    Attributes:
        table: 256 entries: stored value -> class index, ``IGNORE`` or ``NO_CLASS``.
        colours: Colours in the order of stored values, for colour-coded maps; else empty.
        divisor: Stored values are divided by it first; 256 leaves out instance ids in the low byte.
    """

    table: tuple[int, ...]
    colours: tuple[Colour, ...] = ()
    divisor: int = 1

    def read(self, path: ImageFile) -> Array:
        """Read a label map.

        Args:
            path: A file of one of ``LABEL_SUFFIXES``.

        Returns:
            uint8 (H, W) of class indices and ``IGNORE``.

        Raises:
            BadImageError: If the file cannot be used or has a value that is not a class.
        """
        stored = self.read_stored(path)
        converted = np.array(self.table, np.int16)[stored]
        wrong = stored[converted == NO_CLASS]
        if wrong.size:
            allowed = format_ranges(n for n, label in enumerate(self.table) if label != NO_CLASS)
            raise BadImageError(
                f"Expected labels {allowed} in {path}, but got {int(wrong.min())}"
                f" ({wrong.size:,} pixels have no class); add the class to classes.txt or correct"
                " the map",
                UNKNOWN_CLASS,
            )
        return converted.astype(np.uint8)

    def read_stored(self, path: ImageFile) -> Array:
        """Read the stored values, or the indices of colours, as uint8 (H, W)."""
        if self.colours:
            return index_colours(read_colours(path), self.colours, path)
        if self.divisor > 1:
            values = read_deep(path) // self.divisor
            if values.size and values.max() > IGNORE:
                raise BadImageError(
                    f"Expected at most {IGNORE} after division by {self.divisor} in {path}, but got"
                    f" {int(values.max())}; choose another divisor",
                    UNKNOWN_CLASS,
                )
            return values.astype(np.uint8)
        return read_indices(path)


def index_table(classes: int) -> tuple[int, ...]:
    """The table for files that store class indices and ``IGNORE``."""
    return tuple(n if n < classes or n == IGNORE else NO_CLASS for n in range(256))


def reduced_table(classes: int) -> tuple[int, ...]:
    """The table of mmsegmentation's ``reduce_zero_label``: 0 is ignored, k is class k - 1."""
    found = [n - 1 if 0 < n <= classes else NO_CLASS for n in range(256)]
    found[0] = found[IGNORE] = IGNORE
    return tuple(found)


def foreground_table(value: int) -> tuple[int, ...]:
    """The table of masks with 0 for background and ``value`` for foreground."""
    found = [NO_CLASS] * 256
    found[IGNORE] = IGNORE
    found[0], found[value] = 0, 1
    return tuple(found)


def choose_classes(table: Sequence[int], kept: Sequence[int]) -> tuple[int, ...]:
    """The same table with the classes ``kept``, in this order; all others are ignored."""
    new = {old: place for place, old in enumerate(kept)}
    return tuple(label if label == NO_CLASS else new.get(label, IGNORE) for label in table)


def format_ranges(values: Iterable[int]) -> str:
    """Whole numbers as text, such as ``0..2, 7 or 255``."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    texts = [
        f"{first}..{last}" if last > first or not first else str(first) for first, last in runs
    ]
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def read_indices(path: ImageFile) -> Array:
    """Read stored indices as uint8 (H, W)."""
    suffix = path.suffix.lower()
    if suffix == ".png":
        try:
            return read_label_map(path)
        except BadImageError as error:
            if error.fault != DEEP:
                raise
            raise BadImageError(
                f"{error}, or read colours with the option colors='FILE' and 16-bit ids of class"
                " times 256 with divide=256",
                DEEP,
            ) from None
    values = _read_npy(path) if suffix == ".npy" else _read_with_pillow(path, ("1", "L", "P"))
    if values.size and (values.min() < 0 or values.max() > IGNORE):
        raise BadImageError(
            f"Expected class indices 0..{IGNORE} in {path}, but got {int(values.min())} to"
            f" {int(values.max())}; save class indices",
            DEEP,
        )
    return values.astype(np.uint8)


def read_deep(path: ImageFile) -> Array:
    """Read indices of up to 16 bits as int64 (H, W)."""
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    return _read_with_pillow(path, ("1", "L", "P", "I", "I;16", "I;16B"))


def read_colours(path: ImageFile) -> Array:
    """Read a colour-coded label map as uint8 (H, W, 3) RGB; alpha must be opaque."""
    try:
        with _open(path) as opened:
            pixels = np.array(opened.convert("RGBA"), np.uint8)
    except (*UNREADABLE, PillowImage.DecompressionBombError):
        raise _damaged(path) from None
    if pixels.size and pixels[..., 3].min() < IGNORE:
        sentence = f"Expected opaque colours in {path}, but some pixels are not; save it without"
        raise BadImageError(f"{sentence} an alpha channel", "a label map with transparent pixels")
    return pixels[..., :3]


def is_colour_map(path: ImageFile) -> bool:
    """Whether a label map has colours in place of indices; False if it cannot be decoded."""
    try:
        with _open(path) as opened:
            return opened.mode in ("RGB", "RGBA")
    except (*UNREADABLE, PillowImage.DecompressionBombError):
        return False


def index_colours(pixels: Array, colours: Sequence[Colour], path: ImageFile) -> Array:
    """Look up colours.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        colours: Colours in the order of their indices.
        path: The file, for messages.

    Returns:
        uint8 (H, W).

    Raises:
        BadImageError: If a colour is not listed.
    """
    packed = pack_colours(pixels)
    codes = pack_colours(np.array(colours, np.uint8))
    order = np.argsort(codes)
    places = np.searchsorted(codes, packed, sorter=order).clip(max=len(codes) - 1)
    indices = order[places]
    other = packed[codes[indices] != packed]
    if other.size:
        code = int(other[0])
        colour = code >> 16, code >> 8 & 255, code & 255
        raise BadImageError(
            f"Expected the {len(colours)} listed colours in {path}, but {other.size:,} pixels have"
            f" others, such as {colour}; list the colour or correct the map",
            "a label map with a colour that is not listed",
        )
    return np.asarray(indices, np.uint8)


def pack_colours(pixels: Array) -> Array:
    """RGB uint8 (..., 3) as one int64 each."""
    red, green, blue = np.moveaxis(pixels.astype(np.int64), -1, 0)
    return np.asarray(red << 16 | green << 8 | blue)


def _open(path: ImageFile) -> PillowImage.Image:
    return PillowImage.open(io.BytesIO(read_image_bytes(path)), formats=("PNG", "TIFF", "BMP"))


def _read_with_pillow(path: ImageFile, modes: Sequence[str]) -> Array:
    try:
        with _open(path) as opened:
            mode = opened.mode
            values = np.array(opened, np.int64) if mode in modes else None
    except (*UNREADABLE, PillowImage.DecompressionBombError):
        raise _damaged(path) from None
    if values is None:
        raise BadImageError(
            f"Expected one channel of class indices in {path}, but got mode {mode!r}; save the"
            " indices as a grey or palette PNG of 8 bits",
            DEEP,
        )
    return values


def _read_npy(path: ImageFile) -> Array:
    try:
        if isinstance(path, Path):
            open_regular_file(path).close()
        mapped = np.load(str(path), mmap_mode="r", allow_pickle=False)  # reads the header only
    except (OSError, ValueError, EOFError):
        raise _damaged(path) from None
    whole = isinstance(mapped, np.ndarray) and mapped.dtype.kind in "iub"
    if not whole or mapped.ndim != 2 or mapped.size > MAX_PIXELS:
        raise BadImageError(
            f"Expected an array (H, W) of whole numbers in {path}, but got"
            f" {mapped.dtype} {mapped.shape}; save class indices",
            DEEP,
        )
    return np.array(mapped, np.int64)


def _damaged(path: ImageFile) -> BadImageError:
    sentence = f"Expected a label map at {path}, but it cannot be decoded; replace the file"
    return BadImageError(sentence, DAMAGED)
