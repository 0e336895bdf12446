"""Parse and check a COCO JSON file once, so that later code can rely on its content."""

import gc
import itertools
import sys
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillrobust.data.bad_images import LISTED_BUT_MISSING, Faults, record_fault
from stillrobust.data.formats.coco_files import ImageFiles, locate_images
from stillrobust.data.formats.coco_repair import outline_area, outline_box, repair_document
from stillrobust.data.formats.coco_table import (
    NOT_POLYGONS,
    NUMBERS,
    CocoTable,
    Outlines,
    build_table,
)
from stillrobust.data.formats.image_sizes import read_sizes
from stillrobust.data.formats.options import Notes
from stillrobust.data.image_headers import MAX_PIXELS
from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import Array
from stillrobust.untrusted import JsonError, parse_json, read_user_file

# Pixels that a box may exceed its image by, from rounding and padding in tools; it is clipped.
OVERSHOOT = 5.0
ROUNDING = 0.01  # pixels; a smaller excess is not counted
LARGEST = 8 << 30  # bytes of an annotation file; those of Objects365 have 6 GB
NO_SEGMENTATION = 0, NOT_POLYGONS


@dataclass(frozen=True)
class ParsedCoco:
    """The content of a COCO file.

    Attributes:
        classes: Class names in the order of category ids.
        table: Images and objects.
        files: Where the images are.
        rows: The row of each image in the file, in the order of ``files.names``.
    """

    classes: list[str]
    table: CocoTable
    files: ImageFiles
    rows: Collection[Mapping[str, Any]]


def parse_coco(
    folders: Sequence[Path],
    annotations: Path,
    root: Path,
    notes: Notes,
    faults: Faults | None = None,
    exif: bool = True,
) -> ParsedCoco:
    """Parse, repair and check a COCO file.

    Args:
        folders: Folders that may hold the images.
        annotations: JSON file.
        root: Folder of the dataset.
        notes: Collects what was assumed and repaired.
        faults: Collects images with unusable annotations, and annotations without an image.
            ``None`` makes them an error.
        exif: Whether the EXIF orientation of images is applied.

    Returns:
        Classes, images and objects.

    Raises:
        UserError: If the file is wrong.
        MissingImagesError: If image files are missing.
    """
    outlines = Outlines()
    document = read_document(annotations, outlines)
    repair_document(document, notes)
    if faults is not None:
        drop_faulty_rows(document, faults)
    classes, label_of = parse_categories(document, annotations)
    entries = unique_by_id(document["images"], "image", annotations)
    if not entries:
        raise UserError(
            f"Expected at least one image in {annotations}, but it lists none that can be used; add"
            " some"
        )
    files = locate_images(folders, root, entries, annotations, notes, faults is not None)
    complete_sizes(entries, files, notes, faults, exif)
    sizes = np.array([image_size(entry, annotations) for entry in entries.values()], np.int64)
    bad: dict[int, str] | None = None if faults is None else {}
    index_of = {identity: index for index, identity in enumerate(entries)}
    rows = ObjectRows(sizes, index_of, label_of, outlines, annotations, notes)
    objects = rows.parse(document, bad)
    table = build_table(
        files.names,
        sizes,
        outlines=outlines,
        image_ids=list(entries),
        category_ids=sorted(label_of, key=label_of.__getitem__),
        **objects,
    )
    if faults is not None and bad is not None:
        faults |= {
            **dict.fromkeys(files.absent, LISTED_BUT_MISSING),
            **{files.names[index]: fault for index, fault in bad.items()},
        }
        table = table.without(faults)
    for former, latter in itertools.pairwise(table.file_names):
        if former == latter:
            raise UserError(
                f"Expected each file once in {annotations}, but got {latter!r} twice; remove one"
            )
    return ParsedCoco(classes, table, files, entries.values())


def complete_sizes(
    entries: dict[int, dict[str, Any]],
    files: ImageFiles,
    notes: Notes,
    faults: Faults | None,
    exif: bool,
) -> None:
    """Read the sizes of images whose rows have none. Sizes of 1 stand in for bad files."""
    rows = [
        (entry, name)
        for entry, name in zip(entries.values(), files.names, strict=True)
        if entry.get("height") is None and entry.get("width") is None
    ]
    paths = [files.folder / files.paths.get(name, name) for _, name in rows]
    for (entry, name), size in zip(rows, read_sizes(paths, exif), strict=True):
        if isinstance(size, BadImageError):
            record_fault(faults, name, size)
            size = 1, 1
        entry["height"], entry["width"] = size
        notes.count("images without height and width, which were read from their files")


def read_document(annotations: Path, outlines: Outlines) -> dict[str, Any]:
    """Read the JSON file and check its three lists. Segmentations are moved to ``outlines``."""
    content = read_user_file(annotations, "a COCO JSON file", LARGEST)
    try:
        with _garbage_collection_off():
            document = parse_json(content, outlines.take_out, allow_nan=True)
    except JsonError as error:
        raise UserError(
            f"Expected valid JSON in {annotations}, but {error}; repair or export the file again"
        ) from None
    for key in ("images", "annotations", "categories"):
        rows = document.get(key) if isinstance(document, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(
                f"Expected {annotations} to be an object with a list of objects {key!r}, but it is"
                " not; use an 'instances' file in COCO's format"
            )
    return dict(document)


def drop_faulty_rows(document: dict[str, Any], faults: Faults) -> None:
    """Remove ambiguous rows from the lists and record them in ``faults``.

    These are images with a duplicate id, file or annotation id, images without a size, and
    annotations of images that are not listed. Ids that are no integers stay and raise errors later.
    """
    images, annotations = document["images"], document["annotations"]
    ids, files, objects = (
        _counts(images, "id"),
        _counts(images, "file_name"),
        _counts(annotations, "id"),
    )
    twice = {
        _key(entry.get("image_id")) for entry in annotations if objects[_key(entry.get("id"))] > 1
    }
    gone = set()
    for entry in images:
        identity, name = _key(entry.get("id")), entry.get("file_name")
        conditions = {
            "a duplicate image id": ids[identity] > 1,
            "a file that is listed twice": files[_key(name)] > 1,
            "a duplicate annotation id": identity in twice,
            "no size, or one that cannot be": not _has_size(entry) and _states_size(entry),
        }
        fault = next((fault for fault, holds in conditions.items() if holds), None)
        if fault and isinstance(name, str):
            faults[name] = fault
            gone.add(identity)
    for entry in annotations:
        image = _key(entry.get("image_id"))
        if type(image) is int and image not in ids:
            faults[f"annotation {entry.get('id')}"] = "annotation of an image that is not listed"
            gone.add(image)
    document["images"] = [entry for entry in images if _key(entry.get("id")) not in gone]
    document["annotations"] = [
        entry for entry in annotations if _key(entry.get("image_id")) not in gone
    ]


def _counts(rows: list[dict[str, Any]], key: str) -> Counter[Any]:
    return Counter(_key(row.get(key)) for row in rows)


def _key(value: Any) -> Any:
    """The value, or its text if it is a list or object and cannot be a key."""
    return repr(value) if isinstance(value, list | dict) else value


def _states_size(entry: dict[str, Any]) -> bool:
    return entry.get("height") is not None or entry.get("width") is not None


def _has_size(entry: dict[str, Any]) -> bool:
    height, width = entry.get("height"), entry.get("width")
    return (
        type(height) is int
        and type(width) is int
        and height > 0
        and width > 0
        and height * width <= MAX_PIXELS
    )


def parse_categories(
    document: dict[str, Any], annotations: Path
) -> tuple[list[str], dict[Any, int]]:
    """Class names in the order of category ids, and category id -> label."""
    categories = unique_by_id(document["categories"], "category", annotations)
    if not categories:
        raise UserError(
            f"Expected at least one category in {annotations}, but there is none; declare the"
            " classes"
        )
    ordered = sorted(categories)
    names = [categories[identity].get("name") for identity in ordered]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise UserError(
            f"Expected distinct category names in {annotations}, but got {names!r:.200}; rename"
            " them"
        )
    return [str(name) for name in names], {
        identity: label for label, identity in enumerate(ordered)
    }


def unique_by_id(
    rows: list[dict[str, Any]], kind: str, annotations: Path
) -> dict[int, dict[str, Any]]:
    """Id -> row. Ids must be integers and appear once."""
    table: dict[int, dict[str, Any]] = {}
    for row in rows:
        identity = row.get("id")
        if type(identity) is not int:
            raise UserError(
                f"Expected a whole number as {kind} id in {annotations}, but got {identity!r};"
                " renumber them"
            )
        if identity in table:
            raise UserError(
                f"Expected each {kind} id once in {annotations}, but got {identity} twice; renumber"
                " them"
            )
        table[identity] = row
    return table


def image_size(entry: dict[str, Any], annotations: Path) -> tuple[int, int]:
    """(H, W) of an image, as stated in the file."""
    height, width = entry.get("height"), entry.get("width")
    if not _has_size(entry):
        raise UserError(
            f"Expected height and width in pixels in image {entry['id']} of {annotations}, "
            f"but got {height!r} and {width!r}; write the image's size"
        )
    return height, width  # type: ignore[return-value]


@dataclass(frozen=True)
class ObjectRows:
    """Checks the annotations of a file.

    Attributes:
        sizes: int64 (images, 2), H and W.
        index_of: Image id -> index in ``sizes``.
        label_of: Category id -> label.
        outlines: All segmentations.
        annotations: The JSON file, for messages.
        notes: Counts what was repaired.
    """

    sizes: Array
    index_of: dict[int, int]
    label_of: dict[int, int]
    outlines: Outlines
    annotations: Path
    notes: Notes

    def parse(
        self, document: dict[str, Any], bad: dict[int, str] | None = None
    ) -> dict[str, Array]:
        """Check every annotation and return them as columns of ``CocoTable``, in their order.

        Args:
            document: The parsed file.
            bad: Collects image index -> fault of wrong annotations. ``None`` makes them an error.

        Returns:
            The columns by name, and ``image_of``, int64 (objects,): the index of each object's
            image.
        """
        rows = unique_by_id(document["annotations"], "annotation", self.annotations)
        image_of, labels, places = array("q"), array("q"), array("q")
        boxes, areas, crowd = array("d"), array("d"), array("b")
        numbers: list[int] = []
        image_sizes = self.sizes.tolist()  # Python numbers compare faster one by one
        for number, entry in rows.items():
            where = f"annotation {number} of {self.annotations}"
            place = entry.get("segmentation") or NO_SEGMENTATION
            index = self._index(entry.get("image_id"), where)
            size = image_sizes[index]
            try:
                label = self._label(entry.get("category_id"), where)
                stated = entry.get("bbox") or self._outline_box(place, size)
                box = parse_box(stated, size, where)
                area = entry.get("area")
                if area is None:
                    area = self._missing_area(place, size, box)
                area = parse_area(area, where)
                alone = parse_crowd(entry.get("iscrowd", 0), where)
            except UserError:
                if bad is None:
                    raise
                bad[index] = "a damaged annotation"
                continue
            numbers.append(number)
            image_of.append(index)
            labels.append(label)
            boxes.extend(box)
            areas.append(area)
            crowd.append(alone)
            places.extend(place)
        owners = np.array(image_of, np.int64)
        stated_boxes = np.array(boxes).reshape(-1, 4)
        inside = clip_boxes(stated_boxes, self.sizes[owners])
        outside = np.abs(inside - stated_boxes).max(1, initial=0) > ROUNDING
        self.notes.count("boxes that exceed their image and were clipped", int(outside.sum()))
        return {
            "image_of": owners,
            "ids": np.array(numbers, object),  # integers of any size
            "boxes": inside,
            "labels": np.array(labels, np.int64),
            "areas": np.array(areas, np.float64),
            "crowd": np.array(crowd, bool),
            "places": np.array(places, np.int64).reshape(-1, 2),
        }

    def _index(self, image: Any, where: str) -> int:
        if type(image) is not int or image not in self.index_of:
            raise UserError(
                f"Expected an image id from the list 'images' in {where}, but got {image!r};"
                " declare the image"
            )
        return self.index_of[image]

    def _label(self, category: Any, where: str) -> int:
        if type(category) is not int or category not in self.label_of:
            known = ", ".join(map(str, sorted(self.label_of)[:20]))
            raise UserError(
                f"Expected a declared category in {where}, but got {category!r}; declare it or"
                f" use one of: {known}"
            )
        return self.label_of[category]

    def _outline_box(self, place: Any, size: list[int]) -> list[float] | None:
        """The box of an object that has an outline only."""
        box = outline_box(self.outlines.segmentation(*place), (size[0], size[1]))
        if box:
            self.notes.count("annotations without a box, which their outline gave")
        return box

    def _missing_area(self, place: Any, size: list[int], box: Sequence[float]) -> float:
        """The area of the outline, or of the box without one."""
        segmentation = self.outlines.segmentation(*place)
        area = outline_area(segmentation, (size[0], size[1])) if segmentation else None
        self.notes.count("annotations without an area, which their outline or box gave")
        return (box[2] - box[0]) * (box[3] - box[1]) if area is None else area


def parse_box(box: object, size: list[int], where: str) -> tuple[float, float, float, float]:
    """Convert COCO's ``[x, y, width, height]`` to xyxy and check that it is inside the image."""
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all_finite_numbers(box)
        or box[2] < 0
        or box[3] < 0
    ):
        raise UserError(
            f"Expected a box [x, y, width, height] of numbers >= 0 in {where}, but got {box!r:.80};"
            " fix it"
        )
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    height, width = size
    if (
        left < -OVERSHOOT
        or top < -OVERSHOOT
        or right > width + OVERSHOOT
        or bottom > height + OVERSHOOT
    ):
        raise UserError(
            f"Expected a box inside its image of {width}x{height} pixels in {where}, but got [x, y,"
            f" width, height] = {box}; correct the box or the image's size"
        )
    return left, top, right, bottom


def clip_boxes(boxes: Array, sizes: Array) -> Array:
    """Clip boxes, xyxy (N, 4), to images of ``sizes`` (N, 2), H and W."""
    corners = boxes.reshape(-1, 2, 2)
    return np.asarray(np.clip(corners, 0, sizes[:, None, ::-1]).reshape(-1, 4))


def parse_area(area: Any, where: str) -> float:
    """Check an area in pixels."""
    if not all_finite_numbers([area]) or area < 0:
        raise UserError(
            f"Expected an area >= 0 in {where}, but got {area!r}; write the pixels it covers"
        )
    return float(area)


def parse_crowd(crowd: Any, where: str) -> int:
    """Check ``iscrowd``, 0 or 1."""
    if crowd not in (0, 1):
        raise UserError(
            f"Expected iscrowd 0 or 1 in {where}, but got {crowd!r}; write 0 for single objects"
        )
    return int(crowd)


@contextmanager
def _garbage_collection_off() -> Iterator[None]:
    """Parsing creates millions of objects without cycles; the collector would double the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def all_finite_numbers(values: list[Any]) -> bool:
    """Whether all values are finite ints or floats, not bools."""
    try:
        # the sum of values with a NaN is NaN
        return NUMBERS.issuperset(map(type, values)) and abs(sum(values)) <= sys.float_info.max
    except OverflowError:  # an integer larger than every float
        return False
