"""Instance masks of COCO annotations: run lengths and polygons, to and from bool arrays."""

from typing import Any

import hotcoco.mask
import numpy as np

from stillrobust.errors import UserError
from stillrobust.samples import Array

# Pixels. The rasteriser's time and memory grow with the outline, also outside the image.
FARTHEST = 1e5


def encode_mask(mask: Array) -> dict[str, Any]:
    """Encode a mask as COCO's compressed run lengths.

    Args:
        mask: bool (H, W).

    Returns:
        ``{"size": [H, W], "counts": "..."}``, ready for JSON.
    """
    encoded = hotcoco.mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "size": [int(side) for side in encoded["size"]],
        "counts": encoded["counts"].decode("ascii"),
    }


def decode_mask(segmentation: object, size: tuple[int, int], where: str) -> Array:
    """Decode the ``segmentation`` of a COCO annotation.

    Args:
        segmentation: Polygons or run lengths.
        size: (H, W) of the image.
        where: Name of the annotation, for messages.

    Returns:
        bool (H, W).

    Raises:
        UserError: If the segmentation is damaged.
    """
    if isinstance(segmentation, dict):
        return decode_run_lengths(segmentation, size, where)
    if isinstance(segmentation, list):
        return fill_polygons(segmentation, size, where)
    raise UserError(
        f"Expected polygons or run lengths as the segmentation of {where}, but got"
        f" {segmentation!r:.60}; fix it"
    )


def decode_run_lengths(segmentation: dict[str, Any], size: tuple[int, int], where: str) -> Array:
    """Decode ``{"size": [H, W], "counts": ...}`` to bool (H, W); see ``decode_mask``.

    ``counts`` is a string or a list of run lengths.
    """
    stated, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(stated, list) or stated != list(size):
        raise UserError(
            f"Expected run lengths of size {list(size)} in {where}, but got size {stated!r}; fix"
            " the file"
        )
    runs: Any = unpack_run_lengths(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not whole or sum(runs) != size[0] * size[1]:
        raise UserError(
            f"Expected run lengths in {where} that are counts >= 0 and add up to"
            f" {size[0] * size[1]} pixels, but they are not or do not; encode the mask again"
        )
    values = np.arange(len(runs)) % 2 == 1  # runs alternate, beginning with background
    # COCO's order is column by column.
    return np.ascontiguousarray(np.repeat(values, runs).reshape(size[1], size[0]).T)


def unpack_run_lengths(text: str) -> list[int] | None:
    """Unpack COCO's string of run lengths.

    Each number is written in groups of five bits, plus 48 to be printable. The sixth bit means that
    more groups follow. From the fourth number on, a number is the difference from the one two
    places before.

    Args:
        text: The string.

    Returns:
        Run lengths, or ``None`` if the string is damaged.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 60:
            return None
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:  # the sign bit of the last group
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return runs if shift == 0 else None


def fill_polygons(polygons: list[Any], size: tuple[int, int], where: str) -> Array:
    """Rasterise the union of polygons ``[[x1, y1, ...], ...]`` by COCO's rule: bool (H, W)."""
    for polygon in polygons:
        if not is_polygon(polygon):
            raise UserError(
                f"Expected polygons of at least three x, y pairs in {where}, but got"
                f" {polygon!r:.60}; fix the outline"
            )
    if not polygons:
        return np.zeros(size, bool)
    encoded = hotcoco.mask.frPyObjects(polygons, size[0], size[1])
    return np.asarray(np.any(hotcoco.mask.decode(encoded), axis=2))


def is_polygon(polygon: object) -> bool:
    """Whether this is a flat list of at least three pairs of numbers within ``FARTHEST``."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    return all(type(value) in (int, float) and abs(value) <= FARTHEST for value in polygon)
