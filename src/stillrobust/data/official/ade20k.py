"""ADE20K of the SceneParse150 benchmark (ADEChallengeData2016; Zhou et al. 2017)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from stillrobust.data.bad_images import Faults
from stillrobust.data.formats import Format, OpenOptions
from stillrobust.data.formats.checks import (
    FileChecker,
    PartCheck,
    join_names,
    read_by_index,
    run_check,
)
from stillrobust.data.formats.maps import NO_IMAGE, pair_files, read_image_and_labels
from stillrobust.data.official.layout import ADE20K_FOLDER, COUNTS, require_layout, require_whole
from stillrobust.data.official.sources import fetch_advice
from stillrobust.data.reading import fingerprint, image_files
from stillrobust.samples import Array, Dataset, DatasetInfo, Sample, Target

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


@dataclass(frozen=True)
class Ade20kDataset:
    """Images with label maps: classes from 0, and 255 for pixels without annotation.

    Attributes:
        images: Folder of the images.
        labels: Folder of the label maps.
        name: Name in reports.
        faults: Collects images and label maps without counterpart. ``None`` makes them an error.
        pairs: (image, label map) of every image.
    """

    images: Path
    labels: Path
    name: str
    faults: Faults | None = field(default=None, repr=False, compare=False)
    pairs: tuple[tuple[Path, Path], ...] = field(init=False, default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple(pair_files(self.images, self.labels, self.faults)))

    def image_id(self, index: int) -> str:
        """The file name of the image."""
        return self.pairs[index][0].relative_to(self.images).as_posix()

    @cached_property
    def info(self) -> DatasetInfo:
        """Facts about the dataset."""
        ids = [self.image_id(index) for index in range(len(self))]
        files = [image for image, _ in self.pairs] + [labels for _, labels in self.pairs]
        return DatasetInfo(
            self.name,
            "segmentation",
            CLASSES,
            len(ids),
            fingerprint(CLASSES, ids, files, b"reduce zero label"),
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int, /) -> Sample:
        image, label_map = read_image_and_labels(
            *self.pairs[index], len(CLASSES), reduce_zero_label
        )
        return Sample(
            image,
            Target(self.image_id(index), (image.shape[0], image.shape[1]), label_map=label_map),
        )


def reduce_zero_label(stored: Array) -> Array:
    """Convert stored values as mmsegmentation's ``reduce_zero_label`` does.

    Args:
        stored: uint8, 0 for pixels without annotation and k for class k of 150.

    Returns:
        uint8, 255 and k - 1.
    """
    return stored - np.uint8(1)  # 0 goes to 255


def ade20k_folder(root: Path) -> Path:
    """The folder with ``images`` and ``annotations``: ``root`` or its ``ADEChallengeData2016``."""
    return root / ADE20K_FOLDER if (root / ADE20K_FOLDER).is_dir() else root


def open_ade20k(root: Path, split: str, options: OpenOptions) -> Dataset:
    """Open a split of ``ADEChallengeData2016``, in ``root`` or as ``root`` itself."""
    home = ade20k_folder(root)
    existing = [
        name for name, folder in SPLIT_FOLDERS.items() if (home / "images" / folder).is_dir()
    ]
    require_layout("ade20k", root, split, existing)
    folder = SPLIT_FOLDERS[split]
    dataset = Ade20kDataset(
        home / "images" / folder, home / "annotations" / folder, f"ADE20K/{split}", options.faults
    )
    images = len(dataset) + sum(fault != NO_IMAGE for fault in (options.faults or {}).values())
    require_whole("ade20k", split, root, images, options.part)
    return dataset


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


def check_ade20k(root: Path, checker: FileChecker) -> Iterator[PartCheck]:
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
        if names_agree(table.read_text(encoding="utf-8", errors="replace")):
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
        read_image_and_labels(path, label_path, len(CLASSES), reduce_zero_label)

    expected = COUNTS["ade20k"][split]
    return checker.check_files(split, files, expected, read_by_index(read, files))


ADE20K = Format(
    "segmentation", open_ade20k, check_ade20k, ("part", "leave_out_bad"), fetch_advice("ade20k")
)
