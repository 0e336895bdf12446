"""Instance masks of COCO annotations: run lengths (compressed or not) and polygons, to and from
bool arrays.
"""

from typing import Any

import hotcoco.mask
import numpy as np

from stillrobust.errors import UserError
from stillrobust.samples import Array

# pixels; the rasteriser's time and memory grow with the length of the outline, in the image or not
FARTHEST = 1e5


def encode_mask(mask: Array) -> dict[str, Any]:
    """bool (H, W) -> COCO's compressed run lengths, ``{"size": [H, W], "counts": "..."}``, ready
    for JSON.
    """
    encoded = hotcoco.mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "size": [int(side) for side in encoded["size"]],
        "counts": encoded["counts"].decode("ascii"),
    }


def decode_mask(segmentation: object, size: tuple[int, int], where: str) -> Array:
    """COCO ``segmentation`` -> bool (H, W) with (H, W) = ``size``; ``where`` names the annotation
    in errors.
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
    """``{"size": [H, W], "counts": ...}`` -> bool (H, W); counts are a string, or a list of run
    lengths.
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
    values = np.arange(len(runs)) % 2 == 1  # runs alternate, and the first one counts background
    # COCO goes down the columns.
    return np.ascontiguousarray(np.repeat(values, runs).reshape(size[1], size[0]).T)


def unpack_run_lengths(text: str) -> list[int] | None:
    """COCO's string form -> run lengths, or ``None`` where the string is damaged.

    Each number is written in groups of five bits (48 added to make it printable), the sixth bit
    says that more groups follow; from the fourth number on it is the difference from the number two
    places before.
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
    """``[[x1, y1, x2, y2, ...], ...]`` -> bool (H, W), the union, rasterised by COCO's own rule."""
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
    """Whether this is a flat list of at least three pairs of numbers that the rasteriser can walk
    along.
    """
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    return all(type(value) in (int, float) and abs(value) <= FARTHEST for value in polygon)
