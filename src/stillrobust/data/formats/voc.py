"""The format ``voc``: an XML file of boxes per image, as in Pascal VOC.

Coordinates are 1-based and inclusive. Difficult objects are ignored in evaluation, as crowds are.
"""

import math
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from stillrobust.data.bad_images import LISTED_BUT_MISSING, record_fault
from stillrobust.data.formats import Format
from stillrobust.data.formats.class_names import read_lines, read_names
from stillrobust.data.formats.detection import (
    DETECTION_OPTIONS,
    DetectionDataset,
    build_detection,
)
from stillrobust.data.formats.image_sizes import read_sizes
from stillrobust.data.formats.options import ANNOTATIONS, IMAGES, OpenOptions, Option
from stillrobust.data.formats.splits import UNNAMED, choose_split, inside_root, splits_check
from stillrobust.data.formats.table_builder import TableBuilder
from stillrobust.data.image_headers import IMAGE_SUFFIXES
from stillrobust.data.reading import image_files, subfolders
from stillrobust.errors import BadImageError, UserError
from stillrobust.untrusted import NotAFileError, read_regular_file

MAX_XML = 5_000_000  # bytes
LISTS = "ImageSets/Main"
CORNERS = {"inclusive": (1, 0), "from_0": (0, 0), "from_1": (1, 1)}
"""Way to count -> what is taken from left and top, and from right and bottom. Pascal VOC counts
from 1 and includes the last pixel; datumaro counts from 0, supervision from 1 without the last one.
"""
SIDES = ("xmin", "ymin", "xmax", "ymax")


class _NoDoctype(ElementTree.TreeBuilder):
    """Builds a tree and refuses document types, the only place where entities are declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a DOCTYPE, which annotations do not need")


@dataclass(frozen=True)
class VocObject:
    """One object of an XML file: its class, its coordinates as written, and ``difficult``."""

    name: str
    corners: tuple[float, ...]
    difficult: bool


def read_objects(path: Path) -> list[VocObject]:
    """Read an XML file of annotations. Entities are not expanded.

    Args:
        path: A file of at most ``MAX_XML`` bytes.

    Returns:
        Its objects.

    Raises:
        UserError: If the file is damaged or an object is incomplete.
    """
    try:
        content = read_regular_file(path, MAX_XML)
        root = ElementTree.fromstring(content, ElementTree.XMLParser(target=_NoDoctype()))
    except NotAFileError:
        raise
    except (OSError, ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise UserError(
            f"Expected an XML file of annotations at {path}, but got: {error}; export it again"
        ) from None
    if root.tag != "annotation":
        raise UserError(
            f"Expected <annotation> in {path}, but got <{root.tag:.40}>; export Pascal VOC's XML"
        )
    return [_parse_object(node, path) for node in root.iter("object")]


def _parse_object(node: ElementTree.Element, path: Path) -> VocObject:
    name = (node.findtext("name") or "").strip()
    texts = [node.findtext(f"bndbox/{side}") for side in SIDES]
    try:
        corners = tuple(float(text or "") for text in texts)
    except ValueError:
        corners = (math.nan,)
    if not name or not all(map(math.isfinite, corners)):
        raise UserError(
            f"Expected a name and a bndbox of four numbers for every object in {path}, but got"
            f" {name!r} with {texts!r:.100}; correct it"
        )
    return VocObject(name, corners, (node.findtext("difficult") or "0").strip() in ("1", "true"))


IMAGE_FOLDERS = ("JPEGImages", "images")
"""Folders of the images: Pascal VOC's, and that of Label Studio and CVAT."""


@dataclass(frozen=True)
class VocFiles:
    """The files of one split.

    Attributes:
        images: Folder of the images.
        annotations: Folder of the XML files.
        stems: Paths of images below ``images``, without suffix; ``None`` for all.
    """

    images: Path
    annotations: Path
    stems: tuple[str, ...] | None = None


def find_splits(root: Path, options: OpenOptions) -> dict[str, VocFiles]:
    """The splits: lists in ``ImageSets/Main``, or folders with the XML beside the images."""
    usual = next((name for name in IMAGE_FOLDERS if (root / name).is_dir()), IMAGE_FOLDERS[0])
    images = inside_root(root, options.value("images", usual), "")
    annotations = inside_root(root, options.value("annotations", "Annotations"), "")
    if annotations.is_dir():
        lists = [path for path in sorted((root / LISTS).glob("*.txt")) if "_" not in path.stem]
        files = {path.stem: VocFiles(images, annotations, tuple(_listed(path))) for path in lists}
        return files or {UNNAMED: VocFiles(images, annotations)}
    beside = {
        name: VocFiles(root / name, root / name)
        for name in subfolders(root)
        if next((root / name).glob("*.xml"), None)
    }
    if not beside and root.is_dir() and next(root.glob("*.xml"), None):
        return {UNNAMED: VocFiles(root, root)}
    return beside


def _listed(path: Path) -> list[str]:
    """The names in a list of images; the lists of one class have a second column."""
    return [line.split()[0] for line in read_lines(path) if line.strip()]


def voc_splits(root: Path, options: OpenOptions) -> list[str]:
    """Names of the splits."""
    return list(find_splits(root, options))


def open_voc(root: Path, split: str, options: OpenOptions) -> DetectionDataset:
    """Open a split of XML files."""
    found = find_splits(root, options)
    if root.is_dir() and not found:
        raise UserError(
            f"Expected Annotations/*.xml, or folders with XML files beside the images, in {root},"
            f" but there are none; name the folders:"
            f" {options.spec(annotations='FOLDER', images='FOLDER')}"
        )
    chosen = choose_split(split, list(found), root, options)
    classes = list_classes(root, found)
    files = found[chosen]
    images = images_of(files, options)
    reader = BoxReader(options)
    builder = TableBuilder(options.notes)
    paths = {}
    for (stem, image), size in zip(
        images.items(), read_sizes(list(images.values()), options.reading.exif), strict=True
    ):
        name = image.relative_to(files.images).as_posix()
        image_id = unicodedata.normalize("NFC", name)
        xml = files.annotations / f"{stem}.xml"
        try:
            if isinstance(size, BadImageError):
                raise size
            objects = read_objects(xml) if os.path.lexists(xml) else []
        except UserError as error:
            bad = error if isinstance(error, BadImageError) else None
            record_fault(
                options.faults, image_id, bad or BadImageError(str(error), "a damaged annotation")
            )
            continue
        options.notes.count(
            "images without an XML file, which are background", not os.path.lexists(xml)
        )
        paths[image_id] = name
        builder.add_image(image_id, size)
        for one in objects:
            builder.add_object(
                reader.box(one, size), classes.index(one.name), str(xml), crowd=one.difficult
            )
    reader.finish()
    different = {image_id: name for image_id, name in paths.items() if image_id != name}
    name = root.name if chosen == UNNAMED else f"{root.name}/{chosen}"
    return build_detection(
        name,
        classes,
        builder.build(len(classes)),
        files.images,
        files.annotations.name,
        options,
        different,
    )


def list_classes(root: Path, found: Mapping[str, VocFiles]) -> list[str]:
    """Class names: those of ``classes.txt``, else all names in all splits, sorted."""
    paths = {path for files in found.values() for path in files.annotations.glob("*.xml")}
    names: set[str] = set()
    for path in sorted(paths):
        try:
            names.update(one.name for one in read_objects(path))
        except UserError:  # reported, or left out, when its image is read
            continue
    listed = root / "classes.txt"
    if not listed.is_file():
        return sorted(names)
    classes = read_names(listed)
    unknown = sorted(names - set(classes))
    if unknown:
        raise UserError(
            f"Expected the classes of {listed} in the XML files, but got {unknown[0]!r} as well;"
            " add it or correct the files"
        )
    return classes


def images_of(files: VocFiles, options: OpenOptions) -> dict[str, Path]:
    """Path without suffix -> image file.

    Raises:
        UserError: If a listed image, or the image of an XML file, is missing.
    """
    there = {
        path.relative_to(files.images).with_suffix("").as_posix(): path
        for path in image_files(files.images)
    }
    wanted = files.stems
    if wanted is None:
        wanted = tuple(sorted({*there, *(path.stem for path in files.annotations.glob("*.xml"))}))
    found = {}
    for name in wanted:
        has_suffix = Path(name).suffix.lower() in IMAGE_SUFFIXES
        stem = Path(name).with_suffix("").as_posix() if has_suffix else name
        if stem in there:
            found[stem] = there[stem]
            continue
        sentence = (
            f"Expected the image {files.images / stem} with a suffix such as .jpg, but it is not"
            " there; add it or remove its name"
        )
        record_fault(options.faults, stem, BadImageError(sentence, LISTED_BUT_MISSING))
    if not found:
        raise UserError(f"Expected images in {files.images}, but found none; add some")
    return found


class BoxReader:
    """Converts boxes to pixels from 0.

    Args:
        options: ``corners`` and ``notes`` apply.
    """

    def __init__(self, options: OpenOptions) -> None:
        self._options = options
        self._shifts = CORNERS[options.value("corners", "inclusive")]
        self._zeros = self._beyond = 0

    def box(self, one: VocObject, size: tuple[int, int]) -> tuple[float, ...]:
        """left, top, right, bottom of an object in an image of ``size`` (H, W); right and bottom
        are exclusive.
        """
        first, last = self._shifts
        left, top, right, bottom = one.corners
        self._zeros += bool(first and min(left, top) == 0)
        self._beyond += bool(last == 0 and (right == size[1] + 1 or bottom == size[0] + 1))
        return left - first, top - first, right - last, bottom - last

    def finish(self) -> None:
        """Note how boxes are counted, and boxes that show that the files count in another way."""
        if "corners" not in self._options.given and not self._zeros and not self._beyond:
            self._options.notes.say(
                "boxes count from 1 and include the last pixel, as in Pascal VOC; files of"
                f" datumaro, globox, labelformat and pylabel need"
                f" {self._options.spec(corners='from_0')}, those"
                f" of supervision {self._options.spec(corners='from_1')}"
            )
        if self._zeros:
            self._options.notes.say(
                f"{self._zeros:,} boxes begin at pixel 0, although Pascal VOC counts from 1;"
                f" {self._options.spec(corners='from_0')} counts from 0"
            )
        if self._beyond:
            self._options.notes.say(
                f"{self._beyond:,} boxes end one pixel outside their image;"
                f" {self._options.spec(corners='from_1')} takes 1 from every side, for files of"
                " supervision"
            )


def detect_voc(root: Path) -> dict[str, Any] | None:
    """Recognise XML files with ``<annotation>``."""
    for files in find_splits(root, OpenOptions(path=root)).values():
        path = next(files.annotations.glob("*.xml"), None)
        try:
            if path:
                read_objects(path)
                return {}
        except UserError:
            continue
    return None


VOC = Format(
    "detection",
    open_voc,
    splits_check(open_voc, voc_splits),
    detect_voc,
    (
        *DETECTION_OPTIONS,
        ANNOTATIONS,
        IMAGES,
        Option(
            "corners",
            "'inclusive', 'from_0' or 'from_1'",
            lambda value: isinstance(value, str) and value in CORNERS,
            "Count from 1 and include the last pixel; or from 0, or from 1, and exclude it.",
        ),
    ),
)
