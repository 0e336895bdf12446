"""ADE20K of the SceneParse150 benchmark (ADEChallengeData2016; Zhou et al. 2017)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillrobust.data.formats import Format
from stillrobust.data.formats.checks import (
    FileChecker,
    PartCheck,
    join_names,
    read_by_index,
    run_check,
)
from stillrobust.data.formats.label_files import LabelReader, reduced_table
from stillrobust.data.formats.map_dataset import (
    NO_IMAGE,
    build_map_dataset,
    pair_files,
    read_image_and_labels,
)
from stillrobust.data.formats.options import CLASSES as CLASSES_OPTION
from stillrobust.data.formats.options import LEAVE_OUT_BAD, PART, SPLIT, OpenOptions
from stillrobust.data.official.layout import ADE20K_FOLDER, COUNTS, require_layout, require_whole
from stillrobust.data.official.sources import fetch_advice
from stillrobust.data.reading import image_files
from stillrobust.samples import Dataset
from stillrobust.untrusted import read_user_file

SPLIT_FOLDERS = {"train": "training", "val": "validation"}

# In the order of the label values 1 to 150, with the names of mmsegmentation. Each is a word of its
# row in objectInfo150.txt. The names are in the code so that they never depend on that file.
CLASSES = tuple(
    """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
    person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa,
    shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp,
    bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand,
    sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool
    table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet,
    flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair,
    boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning,
    streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land,
    bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer
    belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag,
    minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle,
    lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
    ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass,
    clock, flag
    """.replace("\n    ", " ")
    .strip()
    .split(", ")
)


LABELS = LabelReader(reduced_table(len(CLASSES)))
"""0 (nothing) is ignored; k is class k - 1 of 150."""


def ade20k_folder(root: Path) -> Path:
    """The folder with ``images`` and ``annotations``: ``root`` or its ``ADEChallengeData2016``."""
    return root / ADE20K_FOLDER if (root / ADE20K_FOLDER).is_dir() else root


def open_ade20k(root: Path, split: str, options: OpenOptions) -> Dataset:
    """Open a split of ``ADEChallengeData2016``, in ``root`` or as ``root`` itself."""
    home, split = ade20k_folder(root), options.value("split", split)
    existing = [
        name for name, folder in SPLIT_FOLDERS.items() if (home / "images" / folder).is_dir()
    ]
    require_layout("ade20k", root, split, existing)
    folder = SPLIT_FOLDERS[split]
    items = pair_files(home / "images" / folder, home / "annotations" / folder, options.faults)
    images = len(items) + sum(fault != NO_IMAGE for fault in (options.faults or {}).values())
    require_whole("ade20k", split, root, images, options.value("part", False))
    return build_map_dataset(f"ADE20K/{split}", CLASSES, items, LABELS, options)


def detect_ade20k(root: Path) -> dict[str, Any] | None:
    """Recognise the folders of the benchmark."""
    home = ade20k_folder(root)
    folders = [home / kind / "validation" for kind in ("images", "annotations")]
    there = all(folder.is_dir() for folder in folders) and (
        home != root or (home / "objectInfo150.txt").is_file()
    )
    return {} if there else None


def names_agree(table: str) -> bool:
    """Whether an ``objectInfo150.txt`` lists the classes in this order.

    Args:
        table: Text of the file.

    Returns:
        True if every class is among the words of its row.
    """
    rows = [row.rpartition("\t")[2].split(",") for row in table.splitlines()[1:] if row.strip()]
    words = [{word.strip() for word in row} for row in rows]
    return len(words) == len(CLASSES) and all(
        name in row for name, row in zip(CLASSES, words, strict=True)
    )


def check_ade20k(root: Path, checker: FileChecker, options: OpenOptions) -> Iterator[PartCheck]:
    """Check both splits, and the list of classes if the file exists."""
    home = ade20k_folder(root)
    for split, folder in SPLIT_FOLDERS.items():
        images, labels = home / "images" / folder, home / "annotations" / folder
        absent = next((path for path in (images, labels) if not path.is_dir()), None)
        if absent:
            yield PartCheck(split, "missing", f"there is no folder {absent}")
        else:
            yield run_check(split, _check_split, split, images, labels, checker)
    table = home / "objectInfo150.txt"
    if table.is_file():
        if names_agree(read_user_file(table, "names of classes").decode(errors="replace")):
            yield PartCheck(table.name, "whole", "the 150 classes in their order")
        else:
            text = "the classes are others, or in another order"
            yield PartCheck(table.name, "damaged", text)


def _check_split(split: str, images: Path, labels: Path, checker: FileChecker) -> PartCheck:
    files = image_files(images)
    without = [path for path in files if not (labels / f"{path.stem}.png").is_file()]
    if without:
        text = f"{len(without):,} of {len(files):,} images have no label map"
        return PartCheck(split, "missing", f"{text}: {join_names(without)}")

    def read(path: Path) -> None:
        label_path = labels / f"{path.stem}.png"
        read_image_and_labels(path, label_path, LABELS.read)

    expected = COUNTS["ade20k"][split]
    return checker.check_files(split, files, expected, read_by_index(read, files))


ADE20K = Format(
    "segmentation",
    open_ade20k,
    check_ade20k,
    detect_ade20k,
    (SPLIT, PART, CLASSES_OPTION, LEAVE_OUT_BAD),
    fetch_advice("ade20k"),
)
