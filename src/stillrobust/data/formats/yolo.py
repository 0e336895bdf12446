"""The format ``yolo``: Ultralytics' ``data.yaml``, or Darknet's ``obj.data``, with a text file of
boxes or polygons per image.

A line is ``class cx cy w h`` or ``class x1 y1 x2 y2 ...``, in fractions of the image's size. Pixels
are rounded to a hundredth, because six decimals carry no more.
"""

import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillrobust.data.bad_images import record_fault
from stillrobust.data.formats import Format
from stillrobust.data.formats.class_names import read_lines, read_names
from stillrobust.data.formats.darknet import DARKNET, find_listed, read_darknet
from stillrobust.data.formats.detection import (
    DETECTION_OPTIONS,
    DetectionDataset,
    build_detection,
)
from stillrobust.data.formats.image_sizes import read_sizes
from stillrobust.data.formats.label_files import format_ranges
from stillrobust.data.formats.options import ANNOTATIONS, OpenOptions, flag_option
from stillrobust.data.formats.splits import UNNAMED, choose_split, splits_check
from stillrobust.data.formats.table_builder import TableBuilder
from stillrobust.data.image_headers import IMAGE_SUFFIXES
from stillrobust.data.reading import image_files
from stillrobust.errors import BadImageError, UserError
from stillrobust.strict_yaml import YamlError, load_yaml
from stillrobust.untrusted import read_user_text

SPLIT_KEYS = ("train", "val", "valid", "validation", "test")
NAMES = "classes.txt"
MAX_YAML = 5_000_000  # bytes
OBB_NUMBERS = 9  # of a line with a rotated box, and of a polygon with four corners
DECIMALS = 2  # of a pixel
EXCESS = 0.02  # by which a fraction may leave 0..1; it is clipped
Yaml = Mapping[str, Any]


def find_yaml(root: Path, options: OpenOptions) -> Path:
    """The file of keys: the option, ``data.yaml``, ``obj.data``, the only YAML with names, or Label
    Studio's list of names.
    """
    given = options.value("annotations")
    if given:
        return root / str(given)
    for name in ("data.yaml", DARKNET):
        if (root / name).is_file():
            return root / name
    found = [path for path in sorted((*root.glob("*.yaml"), *root.glob("*.yml"))) if _fits(path)]
    if len(found) == 1:
        options.notes.say(f"{found[0].name} describes the dataset")
        return found[0]
    labelled = next((root / "labels").rglob("*.txt"), None)
    if not found and labelled and _fits(root / NAMES):
        options.notes.say(f"{NAMES} lists the classes in the order of their numbers")
        return root / NAMES
    raise UserError(
        f"Expected data.yaml with names and train or val in {root}, but found"
        f" {', '.join(path.name for path in found) or 'none'}; name the file:"
        f" {options.spec(annotations='FILE.yaml')}"
    )


def _fits(path: Path) -> bool:
    try:
        content = read_yaml(path)
    except UserError:
        return False
    return "names" in content and bool(split_entries(content, path))


def read_yaml(path: Path) -> Yaml:
    """Read a YAML file of keys, without running tags, or Darknet's ``obj.data``.

    Args:
        path: A file of at most ``MAX_YAML`` bytes.

    Returns:
        Its content.

    Raises:
        UserError: If it cannot be read or is no mapping.
    """
    if path.name == DARKNET:
        return read_darknet(path)
    if path.name == NAMES:
        return {"names": read_names(path)}
    text = read_user_text(path, "YAML", MAX_YAML)
    try:
        content = load_yaml(text)
    except YamlError as error:
        raise UserError(f"Expected valid YAML in {path}, but {error}; repair it") from None
    if not isinstance(content, dict):
        raise UserError(f"Expected keys such as names and val in {path}, but it has none; add them")
    return content


def class_names(content: Yaml, path: Path) -> dict[int, str]:
    """Number -> class name of ``names``, a list or id -> name. ``nc`` must agree if it is there."""
    names, numbers = content.get("names"), None
    if isinstance(names, dict) and all(type(number) is int and number >= 0 for number in names):
        numbers = sorted(names)
        names = [names[number] for number in numbers]
    found = list(map(str, names)) if isinstance(names, list) else []
    plain = isinstance(names, list) and all(type(name) in (str, int) for name in names)
    if not plain or not found or len(set(found)) < len(found):
        raise UserError(
            f"Expected names in {path}: different class names, as a list or numbered, but"
            f" got {names!r:.100}; correct them"
        )
    count = content.get("nc", len(found))
    if count != len(found):
        raise UserError(
            f"Expected as many names as nc in {path}, but got {len(found)} names and nc {count!r};"
            " correct one of them"
        )
    if "kpt_shape" in content:
        raise UserError(
            f"Expected boxes or polygons, but {path} has kpt_shape, which is for key points; pose"
            " estimation is not supported, use the detection labels of the set"
        )
    return dict(zip(range(len(found)) if numbers is None else numbers, found, strict=True))


def yolo_splits(root: Path, options: OpenOptions) -> list[str]:
    """Names of the splits that the YAML file has and that have images."""
    path = find_yaml(root, options.renewed())
    content = read_yaml(path)
    return [
        key
        for key in split_entries(content, path)
        if any(place.exists() for place in split_places(content, key, path))
    ]


def split_entries(content: Yaml, path: Path) -> dict[str, Any]:
    """Split -> its entry in the YAML file. Without any, as supervision writes it, the usual folders
    that exist, or ``images/`` with label files in ``labels/`` as a set without splits.
    """
    stated = {key: content[key] for key in SPLIT_KEYS if content.get(key)}
    usual = {
        key: place
        for key in SPLIT_KEYS
        for place in (f"images/{key}", f"{key}/images")
        if (path.parent / place).is_dir()
    }
    flat = (path.parent / "images").is_dir() and any((path.parent / "labels").rglob("*.txt"))
    return stated or usual or ({UNNAMED: "images"} if flat else {})


def split_places(content: Yaml, split: str, path: Path) -> list[Path]:
    """Folders and text files of a split.

    ``path`` is relative to the YAML file. If it is not there, as on another computer, the folder of
    the YAML file takes its place. Roboflow's ``../train/images`` is tried without ``../``, too.
    """
    entries = split_entries(content, path)[split]
    entries = entries if isinstance(entries, list) else [entries]
    if not all(isinstance(entry, str) and entry for entry in entries):
        raise UserError(
            f"Expected a folder, a text file or a list of them as {split} in {path}, but got"
            f" {entries!r:.100}; correct it"
        )
    stated = content.get("path")
    bases = [path.parent / str(stated)] if stated else []
    bases.append(path.parent)
    found = []
    for entry in entries:
        inner = entry
        while inner.startswith("../"):
            inner = inner[3:]
        places = [base / name for name in dict.fromkeys((entry, inner)) for base in bases]
        found.append(next((place for place in places if place.exists()), places[-1]))
    return found


def list_images(places: Sequence[Path]) -> list[Path]:
    """All images of folders and of text files that list images, each once."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += image_files(place)
            continue
        if place.suffix.lower() in IMAGE_SUFFIXES:
            raise UserError(f"Expected a folder or a text file, but got {place}; name its folder")
        for line in read_lines(place):
            name = line.strip().replace("\\", "/")
            if name:
                found.append(find_listed(place.parent, name))
    return list(dict.fromkeys(found))


def label_path(image: Path, beside: bool) -> Path:
    """The label file of an image: its path with the last ``/images/`` as ``/labels/``.

    Args:
        image: An image file.
        beside: Whether the label file lies beside the image, as in Darknet.

    Returns:
        The path, which need not exist.
    """
    if beside:
        return image.with_suffix(".txt")
    before, images, after = image.as_posix().rpartition("/images/")
    return (Path(f"{before}/labels/{after}") if images else image).with_suffix(".txt")


def open_yolo(root: Path, split: str, options: OpenOptions) -> DetectionDataset:
    """Open a split of a ``data.yaml``."""
    if not root.is_dir():
        choose_split(split, (), root, options)
    path = find_yaml(root, options)
    content = read_yaml(path)
    names = class_names(content, path)
    classes = list(names.values())
    if list(names) != list(range(len(names))):
        options.notes.say(f"classes have the numbers {', '.join(map(str, names))} in {path.name}")
    chosen = choose_split(split, yolo_splits(root, options), root, options)
    places = split_places(content, chosen, path)
    images = list_images(places)
    if not images:
        raise UserError(
            f"Expected images for {chosen} of {path} in {places[0]}, but found none; add some"
        )
    home = common_folder(places, images)
    labels = {image: label_path(image, path.name == DARKNET) for image in images}
    _require_label_files(labels, options)
    reader = LineReader(list(names), options)
    builder = TableBuilder(options.notes)
    paths = {}
    for image, size in zip(images, read_sizes(images, options.reading.exif), strict=True):
        name = image.relative_to(home).as_posix()
        image_id = unicodedata.normalize("NFC", name)
        try:
            if isinstance(size, BadImageError):
                raise size
            objects = reader.read(labels[image], size)
        except UserError as error:
            bad = error if isinstance(error, BadImageError) else None
            record_fault(
                options.faults, image_id, bad or BadImageError(str(error), "a damaged annotation")
            )
            continue
        paths[image_id] = name
        builder.add_image(image_id, size)
        for box, label, polygon in objects:
            builder.add_object(box, label, str(labels[image]), polygon=polygon)
    reader.finish(path)
    different = {image_id: name for image_id, name in paths.items() if image_id != name}
    return build_detection(
        root.name if chosen == UNNAMED else f"{root.name}/{chosen}",
        classes,
        builder.build(len(classes)),
        home,
        path.name,
        options,
        different,
    )


def common_folder(places: Sequence[Path], images: Sequence[Path]) -> Path:
    """The folder that image ids are relative to: the split's, or the deepest that has all."""
    if len(places) == 1 and places[0].is_dir():
        return places[0]
    folders = {os.path.normpath(image.parent) for image in images}
    return Path(os.path.commonpath(sorted(folders)))


def _require_label_files(labels: Mapping[Path, Path], options: OpenOptions) -> None:
    """Count images without a label file. If no image has one, the folder is wrong."""
    missing = sum(not os.path.lexists(path) for path in labels.values())
    if missing == len(labels):
        raise UserError(
            f"Expected label files such as {next(iter(labels.values()))}, but no image has one;"
            " put them there"
        )
    options.notes.count("images without a label file, which are background", missing)


class LineReader:
    """Reads label files and collects what is odd about them.

    Args:
        numbers: Numbers of the classes in label files, in their order.
        options: ``polygons`` and ``notes`` apply.
    """

    def __init__(self, numbers: Sequence[int], options: OpenOptions) -> None:
        self._labels = {number: label for label, number in enumerate(numbers)}
        self._options = options
        self._lengths: set[int] = set()

    def read(
        self, path: Path, size: tuple[int, int]
    ) -> list[tuple[list[float], int, list[float] | None]]:
        """Read the label file of an image.

        Args:
            path: The file; a missing one has no objects.
            size: (H, W) of the image.

        Returns:
            Box (left, top, right, bottom in pixels), class and polygon of every object.

        Raises:
            UserError: If a line is no box and no polygon.
        """
        if not os.path.lexists(path):
            return []
        lines = [line.strip() for line in read_lines(path) if line.strip()]
        different = list(dict.fromkeys(lines))
        self._options.notes.count(
            "lines that are twice in a label file, used once", len(lines) - len(different)
        )
        return [self._object(line, size, path) for line in different]

    def _object(
        self, line: str, size: tuple[int, int], path: Path
    ) -> tuple[list[float], int, list[float] | None]:
        try:
            numbers = [float(cell) for cell in line.split()]
        except ValueError:
            numbers = []
        count = len(numbers)
        shaped = count == 5 or (count >= 7 and count % 2)
        if not shaped or not all(map(math.isfinite, numbers)):
            raise UserError(
                f"Expected a class with four numbers, or with three or more x, y pairs, in {path},"
                f" but got {line!r:.80}; correct the line"
            )
        label = self._labels.get(int(numbers[0])) if numbers[0].is_integer() else None
        if label is None:
            raise UserError(
                f"Expected a class {format_ranges(self._labels)} in {path}, but got {line!r:.80};"
                " correct the line or the names"
            )
        values = numbers[1:]
        if min(values) < -EXCESS or max(values) > 1 + EXCESS:
            raise UserError(
                f"Expected fractions 0..1 of the image's size in {path}, but got {line!r:.80};"
                " divide pixels by width and height"
            )
        self._lengths.add(count)
        height, width = size
        scale = (width, height)
        if count == 5:
            x, y, w, h = (value * scale[place % 2] for place, value in enumerate(values))
            corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            return [round(corner, DECIMALS) for corner in corners], label, None
        points = [
            round(min(max(value, 0.0), 1.0) * scale[place % 2], DECIMALS)
            for place, value in enumerate(values)
        ]
        xs, ys = points[0::2], points[1::2]
        return [min(xs), min(ys), max(xs), max(ys)], label, points

    def finish(self, path: Path) -> None:
        """Refuse rotated boxes, which look like polygons of four corners."""
        if self._lengths == {OBB_NUMBERS} and not self._options.value("polygons"):
            raise UserError(
                f"Expected boxes or polygons in the labels of {path}, but every line has"
                f" {OBB_NUMBERS} numbers, as rotated boxes (OBB) have, which are not supported;"
                f" {self._options.spec(polygons=True)} reads them as polygons of four corners"
            )


def detect_yolo(root: Path) -> dict[str, Any] | None:
    """Recognise the YAML file or ``obj.data``."""
    try:
        path = find_yaml(root, OpenOptions(path=root))
    except UserError:
        return None
    return {} if _fits(path) else None


YOLO = Format(
    "detection",
    open_yolo,
    splits_check(open_yolo, yolo_splits),
    detect_yolo,
    (
        *DETECTION_OPTIONS,
        ANNOTATIONS,
        flag_option("polygons", "Read lines of nine numbers as polygons, not as rotated boxes."),
    ),
)
