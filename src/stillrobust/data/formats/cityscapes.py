"""The format ``cityscapes``: street scenes with 34 label ids, of which 19 are classes."""

from collections import Counter
from pathlib import Path
from typing import Any

from stillrobust.data.bad_images import record_fault
from stillrobust.data.formats import Format
from stillrobust.data.formats.label_files import NO_CLASS, LabelReader, index_table
from stillrobust.data.formats.map_dataset import MapDataset, MapItem, build_map_dataset
from stillrobust.data.formats.options import (
    CLASSES,
    LEAVE_OUT_BAD,
    READING_OPTIONS,
    SPLIT,
    OpenOptions,
    Option,
)
from stillrobust.data.formats.splits import choose_split, splits_check
from stillrobust.data.reading import image_files, subfolders
from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import IGNORE

IMAGES, LABELS = "leftImg8bit", "gtFine"
# train id -> (name, label id); cityscapesScripts, helpers/labels.py
TRAIN_CLASSES = (
    ("road", 7),
    ("sidewalk", 8),
    ("building", 11),
    ("wall", 12),
    ("fence", 13),
    ("pole", 17),
    ("traffic light", 19),
    ("traffic sign", 20),
    ("vegetation", 21),
    ("terrain", 22),
    ("sky", 23),
    ("person", 24),
    ("rider", 25),
    ("car", 26),
    ("truck", 27),
    ("bus", 28),
    ("train", 31),
    ("motorcycle", 32),
    ("bicycle", 33),
)
NAMES = tuple(name for name, _ in TRAIN_CLASSES)
LABEL_IDS = 34  # ids 0 to 33
KINDS = ("labelTrainIds", "labelIds")
"""Endings of label files; the first that is there is read."""


def label_id_table() -> tuple[int, ...]:
    """The table of ``labelIds``: 19 of 34 are classes, and the rest is ignored."""
    classes = {label: index for index, (_, label) in enumerate(TRAIN_CLASSES)}
    ids = [classes.get(value, IGNORE) for value in range(LABEL_IDS)]
    # the licence plate, -1, is stored as 255
    return (*ids, *[NO_CLASS] * (IGNORE - LABEL_IDS), IGNORE)


def cityscapes_splits(root: Path, options: OpenOptions) -> list[str]:
    """Names of the splits with images and label maps."""
    return [name for name in subfolders(root / IMAGES) if (root / LABELS / name).is_dir()]


def open_cityscapes(root: Path, split: str, options: OpenOptions) -> MapDataset:
    """Open a split of ``leftImg8bit/<split>/<city>/`` and ``gtFine/<split>/<city>/``."""
    chosen = choose_split(split, cityscapes_splits(root, options), root, options)
    folder = root / IMAGES / chosen
    images = image_files(folder)
    kind = choose_kind(root / LABELS / chosen, images, options)
    items = []
    for image in images:
        name = image.relative_to(folder)
        stem = image.stem.removesuffix("_leftImg8bit")
        labels = root / LABELS / chosen / name.parent / f"{stem}_gtFine_{kind}.png"
        if labels.is_file():
            items.append(MapItem(name.as_posix(), image, labels))
        else:
            sentence = f"Expected the label map {labels} of {image}, but it is missing; add it"
            record_fault(options.faults, name.as_posix(), BadImageError(sentence, "no label map"))
    if not items:
        raise UserError(f"Expected images with label maps in {folder}, but found none; add some")
    table = index_table(len(NAMES)) if kind == "labelTrainIds" else label_id_table()
    return build_map_dataset(f"{root.name}/{chosen}", NAMES, items, LabelReader(table), options)


def choose_kind(folder: Path, images: list[Path], options: OpenOptions) -> str:
    """The kind of label files: the option ``ids``, else the one that most images have."""
    given = options.value("ids")
    if given:
        return str(given)
    counts = Counter(kind for kind in KINDS for _ in folder.rglob(f"*_gtFine_{kind}.png"))
    kind = max(KINDS, key=lambda kind: counts[kind])
    options.notes.say(f"label maps are the files *_gtFine_{kind}.png, read as the 19 train ids")
    return kind


def detect_cityscapes(root: Path) -> dict[str, Any] | None:
    """Recognise the two folders."""
    return {} if (root / IMAGES).is_dir() and (root / LABELS).is_dir() else None


CITYSCAPES = Format(
    "segmentation",
    open_cityscapes,
    splits_check(open_cityscapes, cityscapes_splits),
    detect_cityscapes,
    (
        SPLIT,
        CLASSES,
        LEAVE_OUT_BAD,
        *READING_OPTIONS,
        Option("ids", f"one of {KINDS}", lambda value: value in KINDS, "Read these label files."),
    ),
)
