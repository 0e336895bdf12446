"""The format ``voc_maps``: label maps as in Pascal VOC, and as CVAT exports them.

The classes are those of Pascal VOC, unless ``labelmap.txt`` or ``classes.txt`` lists others.
"""

from pathlib import Path
from typing import Any

from stillrobust.data.formats import Format
from stillrobust.data.formats.class_names import read_class_colours, read_lines, read_names
from stillrobust.data.formats.label_files import Colour, LabelReader, index_table, is_colour_map
from stillrobust.data.formats.map_dataset import (
    MapDataset,
    MapItem,
    build_map_dataset,
    pair_files,
)
from stillrobust.data.formats.options import (
    CLASSES,
    IMAGES,
    LABELS,
    LEAVE_OUT_BAD,
    READING_OPTIONS,
    SPLIT,
    OpenOptions,
)
from stillrobust.data.formats.splits import UNNAMED, choose_split, inside_root, splits_check
from stillrobust.errors import UserError

LISTS = "ImageSets/Segmentation"
# Everingham et al. 2010; index 0 is the background, which is scored as a class
CLASSES_OF_VOC = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def voc_map_splits(root: Path, options: OpenOptions) -> list[str]:
    """Names of the lists in ``ImageSets/Segmentation``."""
    found = [path.stem for path in sorted((root / LISTS).glob("*.txt"))]
    return found or ([UNNAMED] if (root / "SegmentationClass").is_dir() else [])


def open_voc_maps(root: Path, split: str, options: OpenOptions) -> MapDataset:
    """Open a split of ``SegmentationClass/*.png`` with ``JPEGImages``."""
    chosen = choose_split(split, voc_map_splits(root, options), root, options)
    images = inside_root(root, options.value("images", "JPEGImages"), "")
    labels = inside_root(root, options.value("labels", "SegmentationClass"), "")
    every = {
        Path(item.image_id).with_suffix("").as_posix(): item
        for item in pair_files(images, labels, faults={})
    }
    names = list(every)
    if chosen != UNNAMED:
        path = root / LISTS / f"{chosen}.txt"
        names = [line.strip() for line in read_lines(path) if line.strip()]
    missing = [name for name in names if name not in every]
    if missing or not names:
        raise UserError(
            f"Expected an image in {images} and a label map in {labels} for every name of split"
            f" {chosen!r}, but {len(missing):,} of {len(names):,} lack one, such as"
            f" {missing[:1]}; add them or correct the list"
        )
    items = [every[name] for name in names]
    classes, reader = choose_reader(root, items, options)
    name = root.name if chosen == UNNAMED else f"{root.name}/{chosen}"
    return build_map_dataset(name, classes, items, reader, options)


def choose_reader(
    root: Path, items: list[MapItem], options: OpenOptions
) -> tuple[tuple[str, ...], LabelReader]:
    """The classes, and how label maps are read: by index, or by the colours of CVAT's list."""
    colours: dict[str, Colour] = {}
    if (root / "labelmap.txt").is_file():
        colours = read_class_colours(root / "labelmap.txt")
    if colours and is_colour_map(items[0].labels):
        options.notes.say("colours are read as the classes that labelmap.txt lists")
        return tuple(colours), LabelReader(index_table(len(colours)), tuple(colours.values()))
    if colours:
        classes = tuple(colours)
    elif (root / "classes.txt").is_file():
        classes = tuple(read_names(root / "classes.txt"))
    else:
        classes = CLASSES_OF_VOC
        options.notes.say("the classes are the 21 of Pascal VOC")
    return classes, LabelReader(index_table(len(classes)))


def detect_voc_maps(root: Path) -> dict[str, Any] | None:
    """Recognise the folder of label maps."""
    folder = root / "SegmentationClass"
    return {} if folder.is_dir() and next(folder.glob("*.png"), None) else None


VOC_MAPS = Format(
    "segmentation",
    open_voc_maps,
    splits_check(open_voc_maps, voc_map_splits),
    detect_voc_maps,
    (SPLIT, CLASSES, IMAGES, LABELS, LEAVE_OUT_BAD, *READING_OPTIONS),
)
