"""The format ``coco``: a JSON file with boxes and masks, and a folder of images.

The layouts of the tools that export it are recognised by the name of the JSON file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stillrobust.data.formats import Format
from stillrobust.data.formats.checks import FileChecker, PartCheck, run_check
from stillrobust.data.formats.coco_checks import ParsedCoco, parse_coco
from stillrobust.data.formats.coco_files import MissingImagesError
from stillrobust.data.formats.detection import (
    DETECTION_OPTIONS,
    DetectionDataset,
    build_detection,
)
from stillrobust.data.formats.options import ANNOTATIONS, IMAGES, OpenOptions
from stillrobust.data.formats.splits import (
    UNNAMED,
    choose_split,
    inside_root,
    order_splits,
)
from stillrobust.data.official import coco_2017
from stillrobust.data.official.layout import COUNTS
from stillrobust.data.reading import subfolders
from stillrobust.errors import UserError
from stillrobust.names import format_count, lookup

# Other annotation files of COCO's downloads, which are not splits.
OTHER_KINDS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
ROBOFLOW = "_annotations.coco.json"
WHOLE_SETS = {"labels.json": "data", "result.json": "images", "annotations.json": "JPEGImages"}
"""JSON file of a set without splits -> folder of its images: FiftyOne, Label Studio, and labelme's
example converter.
"""


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split.

    Attributes:
        annotations: JSON file.
        images: Folders that may hold the images, the most usual first.
    """

    annotations: Path
    images: tuple[Path, ...]


def find_splits(root: Path, options: OpenOptions) -> dict[str, SplitFiles]:
    """The splits of a folder, by the first layout that is there.

    Args:
        root: Folder of the dataset.
        options: ``annotations`` and ``images`` apply.

    Returns:
        Name -> files. ``UNNAMED`` is the split of a set without splits.
    """
    given = options.value("annotations")
    if given:
        files = _given_files(root, given)
    else:
        files = _files_in_annotations(root) or _files_beside_images(root)
        whole = next((name for name in WHOLE_SETS if (root / name).is_file()), None)
        if whole and not files:
            files = {UNNAMED: root / whole}
    return {
        name: SplitFiles(path, _folders(root, name, path, options)) for name, path in files.items()
    }


def _given_files(root: Path, pattern: str) -> dict[str, Path]:
    if "{split}" not in pattern:
        return {UNNAMED: inside_root(root, pattern, "")}
    before, _, after = pattern.partition("{split}")
    paths = sorted(root.glob(f"{before}*{after}"))
    names = [path.relative_to(root).as_posix() for path in paths]
    return {
        name[len(before) : len(name) - len(after)]: inside_root(root, name, "") for name in names
    }


def _files_in_annotations(root: Path) -> dict[str, Path]:
    """``annotations/instances_<split>2017.json``, or without ``instances_`` or ``2017``."""
    paths = [
        path
        for path in sorted((root / "annotations").glob("*.json"))
        if not path.name.startswith((".", *OTHER_KINDS))
    ]
    paths.sort(key=lambda path: not path.stem.startswith("instances_"))
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(path.stem.removeprefix("instances_").removesuffix("2017"), path)
    return found


def _files_beside_images(root: Path) -> dict[str, Path]:
    """Roboflow's ``<split>/_annotations.coco.json``, and FiftyOne's ``<split>/labels.json``."""
    return {
        split: root / split / name
        for name in (ROBOFLOW, "labels.json")
        for split in subfolders(root)
        if (root / split / name).is_file()
    }


def _folders(root: Path, split: str, path: Path, options: OpenOptions) -> tuple[Path, ...]:
    """Folders that may hold the images of a split."""
    given = options.value("images")
    if given:
        return (inside_root(root, given, split),)
    home = path.parent
    if home != root and home.name != "annotations":
        return (home / "data", home, root)
    names = (split, f"{split}2017")
    own = tuple(place / name for place in (root, root / "images") for name in names)
    usual = tuple(root / name for name in dict.fromkeys(("images", *WHOLE_SETS.values())))
    first = WHOLE_SETS.get(path.name)
    return (*((root / first,) if first else ()), *own, *usual, root)


def coco_splits(root: Path, options: OpenOptions) -> list[str]:
    """Names of the splits with annotations, sorted."""
    return sorted(find_splits(root, options))


def open_coco(root: Path, split: str, options: OpenOptions) -> DetectionDataset:
    """Open a split of a folder with COCO annotations.

    Args:
        root: Folder of the dataset.
        split: Name of the split, also without ``instances_`` and ``2017``.
        options: How the dataset is opened.

    Returns:
        The checked dataset.

    Raises:
        UserError: If annotations are missing or wrong.
        MissingImagesError: If image files are missing.
    """
    found = find_splits(root, options)
    if root.is_dir() and not found:
        raise UserError(
            f"Expected COCO annotations in {root}, such as annotations/instances_val.json or"
            f" val/{ROBOFLOW}, but there are none; name the files:"
            f" {options.spec(annotations='FILE.json', images='FOLDER')}"
        )
    chosen = choose_split(split, list(found), root, options)
    files = found[chosen]
    parsed = _parse(files, root, options)
    name = root.name if chosen == UNNAMED else f"{root.name}/{chosen}"
    return build_detection(
        name,
        parsed.classes,
        parsed.table,
        parsed.files.folder,
        files.annotations.name,
        options,
        parsed.files.paths,
        partial(_read_image_field, files, root, options.renewed()),
    )


def _parse(files: SplitFiles, root: Path, options: OpenOptions) -> ParsedCoco:
    return parse_coco(
        files.images,
        files.annotations,
        root,
        options.notes,
        options.faults,
        options.reading.exif,
    )


def _read_image_field(
    files: SplitFiles, root: Path, options: OpenOptions, name: str
) -> dict[str, str]:
    """Read a field of the rows of images, such as ``video_id``: image id -> text.

    The file is read again: only groups of images need the fields, which take memory in large sets.
    """
    parsed = _parse(files, root, options)
    known = dict.fromkeys(key for row in parsed.rows for key in row)
    lookup(f"field of images in {files.annotations.name}", name, known)
    return {
        image: str(value)
        for image, row in zip(parsed.files.names, parsed.rows, strict=True)
        if type(value := row.get(name)) in (str, int)
    }


def detect_coco(root: Path) -> dict[str, Any] | None:
    """Recognise COCO's annotations by the names of their files, and COCO 2017 without them."""
    if find_splits(root, OpenOptions(path=root)):
        return {}
    return {} if any(root.iterdir()) and coco_2017.is_coco_2017(root) else None


def check_coco(root: Path, checker: FileChecker, options: OpenOptions) -> Iterator[PartCheck]:
    """Check every split with annotations; COCO 2017 needs train and val."""
    given = options.value("split")
    splits = [given] if given else order_splits(coco_splits(root, options))
    official = not options.given and coco_2017.is_coco_2017(root)
    required = ["train", "val"] if official else []
    if not splits and not required:
        try:
            open_coco(root, "val", options.renewed())
        except UserError as error:
            yield PartCheck("annotations", "missing", str(error))
    for split in dict.fromkeys([*required, *splits]):
        if split in splits:
            yield run_check(split, _check_split, root, split, checker, options)
        else:
            path = root / "annotations" / f"instances_{split}2017.json"
            yield PartCheck(split, "missing", f"there is no {path}")


def _check_split(root: Path, split: str, checker: FileChecker, options: OpenOptions) -> PartCheck:
    checker.progress(f"parse {split}", 0, 1, "annotations")
    options = options.renewed(split=split)
    try:
        data = open_coco(root, split, options)
    except MissingImagesError as error:
        return PartCheck(split, "missing", str(error))
    expected = COUNTS["coco"].get(split) if data.source.endswith("2017.json") else None
    note = ""
    if split == "train":
        trainable = len(data.table.trainable().file_names)
        note = f", {trainable:,} with something to learn"
        if len(data) == expected and trainable != coco_2017.TRAINABLE_IMAGES:
            text = (
                f"{format_count(trainable, 'image')} with something to learn, not"
                f" {coco_2017.TRAINABLE_IMAGES:,}: the annotations are others"
            )
            return PartCheck(split, "damaged", text)
    name = root.name if split == UNNAMED else split
    part = checker.check_files(name, data.files, expected, data.__getitem__, note)
    return part.with_notes(options.notes.sentences())


COCO = Format(
    "detection",
    open_coco,
    check_coco,
    detect_coco,
    (*DETECTION_OPTIONS, ANNOTATIONS, IMAGES),
    coco_2017.coco_advice,
)
