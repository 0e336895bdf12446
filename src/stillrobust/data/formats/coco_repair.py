"""Repair values of a COCO file that can mean one thing only, and count the repairs.

Whatever has two meanings stays as it is, and the strict parser refuses it.
"""

import math
from collections import Counter
from typing import Any

import hotcoco.mask
import numpy as np

from stillrobust.data.formats.masks import decode_mask
from stillrobust.data.formats.options import Notes
from stillrobust.errors import UserError
from stillrobust.samples import Array

NOT_WHOLE = "ids and sizes that are text or decimal numbers, read as whole numbers"
EMPTY_NAMES = frozenset({"background", "_background_", "__background__"})


def repair_document(document: dict[str, Any], notes: Notes) -> None:
    """Repair ids, sizes, names and flags in place. Segmentations are not touched.

    Args:
        document: A COCO file with three lists of objects.
        notes: Counts the repairs.
    """
    images, annotations = document["images"], document["annotations"]
    for rows, keys in (
        (images, ("id", "height", "width")),
        (document["categories"], ("id",)),
        (annotations, ("image_id", "category_id")),
    ):
        for key in keys:
            _repair_whole_numbers(rows, key, notes)
    _repair_image_ids(images, annotations, notes)
    _repair_annotation_ids(annotations, notes)
    for entry in images:
        name = entry.get("file_name")
        if isinstance(name, str) and ("\\" in name or name.startswith("./")):
            entry["file_name"] = _repair_name(name)
            if entry["file_name"] != name:
                notes.count("file names with backslashes or a leading ./")
    for entry in annotations:
        crowd = entry.get("iscrowd")
        if type(crowd) is not int:
            _repair_crowd(entry, crowd, notes)
        box = entry.get("bbox")
        if type(box) is not list or any(type(side) is str for side in box):
            _repair_box(entry, box, notes)
    _drop_empty_category(document, notes)


def as_whole_number(value: Any) -> Any:
    """A decimal number or text that is a whole number, as int; other values as they are."""
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if type(value) is str and value.strip().isdecimal() and len(value) < 19:
        return int(value)
    return value


def _repair_whole_numbers(rows: list[dict[str, Any]], key: str, notes: Notes) -> None:
    for entry in rows:
        value = entry.get(key)
        if type(value) is not int and value is not None:
            entry[key] = as_whole_number(value)
            if entry[key] is not value:
                notes.count(NOT_WHOLE)


def _repair_image_ids(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], notes: Notes
) -> None:
    """Number image ids that are texts, if each is there once."""
    texts = [entry["id"] for entry in images if type(entry.get("id")) is str]
    if not texts or len(set(texts)) < len(texts):
        return
    first = 1 + max((entry["id"] for entry in images if type(entry.get("id")) is int), default=0)
    number_of = {text: first + place for place, text in enumerate(texts)}
    for rows, key in ((images, "id"), (annotations, "image_id")):
        for entry in rows:
            if type(entry.get(key)) is str:
                entry[key] = number_of.get(entry[key], entry[key])
    notes.count("image ids that are text, which were numbered", len(texts))


def _repair_annotation_ids(annotations: list[dict[str, Any]], notes: Notes) -> None:
    """Number annotations without an id, and ids that are used in several images: they name an
    annotation in messages and mean nothing else. An id that is used twice in one image stays.
    """
    first = 1 + max(
        (entry["id"] for entry in annotations if type(entry.get("id")) is int), default=0
    )
    ids: Counter[Any] = Counter()
    pairs: Counter[Any] = Counter()
    for entry in annotations:
        identity = entry.get("id")
        if type(identity) is int:
            ids[identity] += 1
            pairs[identity, repr(entry.get("image_id"))] += 1
    for place, entry in enumerate(annotations):
        identity = entry.get("id")
        if type(identity) is not int:
            entry["id"] = first + place
            notes.count("annotations without a whole number as id, which were numbered")
        elif ids[identity] > 1 and pairs[identity, repr(entry.get("image_id"))] == 1:
            entry["id"] = first + place
            notes.count("annotation ids that several images use, which were numbered")


def _repair_name(name: str) -> str:
    """A file name with slashes. Drives and names that leave the folder stay as they are."""
    parts = [part for part in name.replace("\\", "/").split("/") if part != "."]
    return name if ".." in parts or ":" in parts[0] or not parts[0] else "/".join(parts)


def _repair_crowd(entry: dict[str, Any], crowd: Any, notes: Notes) -> None:
    if crowd is None:
        entry["iscrowd"] = 0
        notes.count("annotations without iscrowd, read as single objects")
    elif crowd in (0, 1, "0", "1") or str(crowd).lower() in ("false", "true"):
        entry["iscrowd"] = int(str(crowd).lower() in ("1", "1.0", "true"))
        notes.count("values of iscrowd that are text, decimal or boolean")


def _repair_box(entry: dict[str, Any], box: Any, notes: Notes) -> None:
    if isinstance(box, dict) and set(box) == {"x", "y", "width", "height"}:
        entry["bbox"] = [box["x"], box["y"], box["width"], box["height"]]
        notes.count("boxes as an object of x, y, width, height")
    elif isinstance(box, list):
        try:
            numbers = [_as_number(side) for side in box]
        except (TypeError, ValueError):
            return
        if all(map(math.isfinite, numbers)):
            entry["bbox"] = numbers
            notes.count("boxes of texts, read as numbers")


def _as_number(value: Any) -> float:
    if type(value) is str and "_" in value:  # Python reads 1_0 as 10
        raise ValueError
    return float(value)


def _drop_empty_category(document: dict[str, Any], notes: Notes) -> None:
    """Drop category 0 if it has no annotation and is Roboflow's root or a background."""
    categories = document["categories"]
    root = next((one for one in categories if one.get("id") == 0), None)
    others = [one for one in categories if one is not root]
    if root is None or not others or type(root.get("name")) is not str:
        return
    name = root["name"]
    is_root = all(one.get("supercategory") == name for one in others)
    used = any(entry.get("category_id") == 0 for entry in document["annotations"])
    if not used and (is_root or name.lower() in EMPTY_NAMES):
        document["categories"] = others
        reason = "the supercategory of all others" if is_root else "the background"
        notes.say(f"category 0, {name!r}, is not a class: it has no annotation and is {reason}")


def outline_area(segmentation: Any, size: tuple[int, int]) -> float | None:
    """Pixels of an outline, as COCO counts them.

    Args:
        segmentation: Polygons or run lengths.
        size: (H, W) of the image.

    Returns:
        The area, or ``None`` if the outline is damaged.
    """
    if isinstance(segmentation, list):
        try:
            encoded = hotcoco.mask.merge(hotcoco.mask.frPyObjects(segmentation, *size))
            return float(hotcoco.mask.area(encoded))
        except Exception:  # the library's own errors; the outline is refused when it is read
            return None
    mask = outline_mask(segmentation, size)
    return None if mask is None else float(mask.sum())


def outline_box(segmentation: Any, size: tuple[int, int]) -> list[float] | None:
    """The box ``[x, y, width, height]`` around an outline; ``None`` if it is damaged or empty."""
    if isinstance(segmentation, list) and segmentation:
        try:
            points = np.concatenate([np.array(one, float).reshape(-1, 2) for one in segmentation])
        except (TypeError, ValueError):
            return None
        left, top = points.min(0).tolist()
        right, bottom = points.max(0).tolist()
        return [left, top, right - left, bottom - top]
    mask = outline_mask(segmentation, size)
    if mask is None or not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [
        float(columns[0]),
        float(rows[0]),
        float(columns[-1] - columns[0] + 1),
        float(rows[-1] - rows[0] + 1),
    ]


def outline_mask(segmentation: Any, size: tuple[int, int]) -> Array | None:
    """bool (H, W), or ``None`` if the outline is damaged."""
    try:
        return decode_mask(segmentation, size, "an annotation")
    except UserError:
        return None
