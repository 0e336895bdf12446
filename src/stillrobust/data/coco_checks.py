"""A COCO JSON file read and checked once, so that what follows can rely on it."""

import itertools
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillrobust.data.reading import resolve_inside
from stillrobust.errors import UserError

SMALLEST_SIDE = 32  # pixels of an image in training: mmdetection's CustomDataset._filter_imgs
SMALLEST_OBJECT = 1.0  # pixels of an object's width and height in training: mmdetection's CocoDataset._parse_ann_info
OVERSHOOT = 1.0  # pixels a box may reach beyond its image: rounding in annotation tools, and clipped without a word


@dataclass(frozen=True)
class CocoObject:
    """One annotation: its box as xyxy inside the image, its label from 0, and its outline still encoded."""

    id: int
    box: tuple[float, float, float, float]
    label: int
    area: float
    crowd: bool
    segmentation: Any

    def sides(self) -> tuple[float, float]:
        """Width and height of the box in pixels."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]


@dataclass(frozen=True)
class CocoImage:
    """One image with its annotations, in the order of the file."""

    file_name: str
    path: Path
    size: tuple[int, int]
    objects: tuple[CocoObject, ...]

    def trainable(self) -> "CocoImage | None":
        """The same without objects that no detector can learn from, or ``None`` where nothing is left to learn."""
        kept = tuple(one for one in self.objects if one.area > 0 and min(one.sides()) >= SMALLEST_OBJECT)
        learnable = min(self.size) >= SMALLEST_SIDE and any(not one.crowd for one in kept)
        return replace(self, objects=kept) if learnable else None

    def content(self) -> list[Any]:
        """What decides a score, ready for JSON: the fingerprint is taken over it."""
        return [self.file_name, self.size, [[o.box, o.label, o.area, o.crowd, o.segmentation] for o in self.objects]]


def parse_coco(images: Path, annotations: Path) -> tuple[list[str], list[CocoImage]]:
    """The class names in the order of category ids, and the images sorted by file name, or ``UserError``."""
    document = read_document(annotations)
    classes, label_of = parse_categories(document, annotations)
    if not images.is_dir():
        raise UserError(f"Expected the image folder {images}, but there is no such folder; check the dataset's layout")
    folder = images.resolve()
    entries = unique_by_id(document["images"], "image", annotations)
    if not entries:
        raise UserError(f"Expected at least one image in {annotations}, but its list 'images' is empty; add some")
    sizes = {identity: image_size(entry, annotations) for identity, entry in entries.items()}
    objects: dict[Any, list[CocoObject]] = {identity: [] for identity in entries}
    for number, entry in unique_by_id(document["annotations"], "annotation", annotations).items():
        where = f"annotation {number} of {annotations}"
        image = entry.get("image_id")
        if not hashable(image) or image not in entries:
            raise UserError(f"Expected an image id from the list 'images' in {where}, but got {image!r}; declare the image")
        objects[image].append(parse_object(number, entry, sizes[image], label_of, where))
    records = []
    for identity, entry in entries.items():
        path = existing_image(folder, entry.get("file_name"), f"image {identity} of {annotations}")
        records.append(CocoImage(entry["file_name"], path, sizes[identity], tuple(objects[identity])))
    records.sort(key=lambda record: record.file_name)
    for former, latter in itertools.pairwise(records):
        if former.file_name == latter.file_name:
            raise UserError(f"Expected each file once in {annotations}, but got {latter.file_name!r} twice; remove one")
    return classes, records


def read_document(annotations: Path) -> dict[str, Any]:
    """The parsed file with its three lists."""
    try:
        document = json.loads(annotations.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Expected a COCO JSON file at {annotations}, but got: {error.strerror}; check the path") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"Expected valid JSON in {annotations}, but got: {reason}; repair or export the file again") from None
    for key in ("images", "annotations", "categories"):
        rows = document.get(key) if isinstance(document, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(
                f"Expected {annotations} to be an object with a list of objects {key!r}, but it is not; "
                "use an 'instances' file in COCO's format"
            )
    return dict(document)


def parse_categories(document: dict[str, Any], annotations: Path) -> tuple[list[str], dict[Any, int]]:
    """Names in the order of category ids, and category id -> label."""
    categories = unique_by_id(document["categories"], "category", annotations)
    if not categories:
        raise UserError(f"Expected at least one category in {annotations}, but there is none; declare the classes")
    ordered = sorted(categories)
    names = [categories[identity].get("name") for identity in ordered]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise UserError(f"Expected distinct category names in {annotations}, but got {names!r:.200}; rename them")
    return [str(name) for name in names], {identity: label for label, identity in enumerate(ordered)}


def unique_by_id(rows: list[dict[str, Any]], kind: str, annotations: Path) -> dict[int, dict[str, Any]]:
    """id -> row; ids are whole numbers and appear once."""
    table: dict[int, dict[str, Any]] = {}
    for row in rows:
        identity = row.get("id")
        if type(identity) is not int:
            raise UserError(f"Expected a whole number as {kind} id in {annotations}, but got {identity!r}; renumber them")
        if identity in table:
            raise UserError(f"Expected each {kind} id once in {annotations}, but got {identity} twice; renumber them")
        table[identity] = row
    return table


def image_size(entry: dict[str, Any], annotations: Path) -> tuple[int, int]:
    """(H, W) as the file states it."""
    height, width = entry.get("height"), entry.get("width")
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        raise UserError(
            f"Expected height and width in pixels in image {entry['id']} of {annotations}, "
            f"but got {height!r} and {width!r}; write the image's size"
        )
    return height, width


def parse_object(number: int, entry: dict[str, Any], size: tuple[int, int], label_of: dict[Any, int], where: str) -> CocoObject:
    """One annotation, checked."""
    category = entry.get("category_id")
    if not hashable(category) or category not in label_of:
        known = ", ".join(map(str, sorted(label_of)[:20]))
        raise UserError(f"Expected a declared category in {where}, but got {category!r}; declare it or use one of: {known}")
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise UserError(f"Expected iscrowd 0 or 1 in {where}, but got {crowd!r}; write 0 for single objects")
    box = clipped_box(entry.get("bbox"), size, where)
    area = entry.get("area", (box[2] - box[0]) * (box[3] - box[1]))
    if not is_number(area) or area < 0:
        raise UserError(f"Expected an area >= 0 in {where}, but got {area!r}; write the pixels it covers")
    return CocoObject(number, box, label_of[category], float(area), bool(crowd), entry.get("segmentation"))


def clipped_box(box: object, size: tuple[int, int], where: str) -> tuple[float, float, float, float]:
    """COCO's ``[x, y, width, height]`` -> xyxy, cut off at the border where it reaches at most one pixel beyond."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)) or box[2] < 0 or box[3] < 0:
        raise UserError(f"Expected a box [x, y, width, height] of numbers >= 0 in {where}, but got {box!r:.80}; fix it")
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    height, width = size
    if min(left, top) < -OVERSHOOT or right > width + OVERSHOOT or bottom > height + OVERSHOOT:
        raise UserError(
            f"Expected a box inside its image of {width}x{height} pixels in {where}, but got [x, y, width, height] = "
            f"{box}; correct the box or the image's size"
        )
    return (
        float(min(max(left, 0), width)),
        float(min(max(top, 0), height)),
        float(max(min(right, width), 0)),
        float(max(min(bottom, height), 0)),
    )


def existing_image(folder: Path, name: object, where: str) -> Path:
    """The file of an image entry, inside the folder and there."""
    path = resolve_inside(folder, name, where)
    if not path.is_file():
        raise UserError(f"Expected the file {path} of {where}, but it is missing; download it or remove the entry")
    return path


def is_number(value: object) -> bool:
    """A finite int or float, and no bool."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def hashable(value: object) -> bool:
    """Whether a JSON value can be an id at all."""
    return type(value) in (int, str)
