"""ADE20K as the SceneParse150 benchmark serves it (ADEChallengeData2016; Zhou et al. 2017)."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from stillrobust.data.bad_images import Faults
from stillrobust.data.formats.maps import NO_IMAGE, pair_files, read_image_and_labels
from stillrobust.data.official.layout import require_layout, require_whole
from stillrobust.data.reading import fingerprint
from stillrobust.samples import Array, Dataset, DatasetInfo, Sample, Target

FOLDER = "ADEChallengeData2016"
FOLDERS = {"train": "training", "val": "validation"}

# In the order of the label values 1 to 150, named as mmsegmentation names them (each is a word of
# its row in objectInfo150.txt). They stand here so that a run's class names never depend on whether
# that file is there.
CLASSES = tuple(
    """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table,
    mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat, fence,
    desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink,
    skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway,
    river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island,
    computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight,
    booth, television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet,
    poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket,
    waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake,
    dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
    monitor, bulletin board, shower, radiator, glass, clock, flag
    """.replace("\n    ", " ").strip().split(", ")
)  # fmt: skip


@dataclass(frozen=True)
class Ade20kDataset:
    """Images with label maps: classes from 0, 255 where nothing is annotated."""

    images: Path
    labels: Path
    name: str
    left_out: Faults | None = field(default=None, repr=False, compare=False)
    """Takes what has no counterpart; ``None``: it is refused."""
    pairs: tuple[tuple[Path, Path], ...] = field(init=False, default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "pairs", tuple(pair_files(self.images, self.labels, self.left_out))
        )

    def image_id(self, index: int) -> str:
        """The image's file name."""
        return self.pairs[index][0].relative_to(self.images).as_posix()

    @cached_property
    def info(self) -> DatasetInfo:
        """What this dataset says of itself."""
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
    """uint8 as stored, 0 = not annotated and k = class k -> uint8 with 255 and k - 1
    (mmsegmentation's reduce_zero_label).
    """
    return stored - np.uint8(1)  # 0 goes to 255


def ade20k_folder(root: Path) -> Path:
    """The folder of ``images`` and ``annotations``."""
    return root / FOLDER if (root / FOLDER).is_dir() else root


def open_ade20k(
    root: Path, split: str, training: bool, part: bool = False, left_out: Faults | None = None
) -> Dataset:
    """``images/training``, ``annotations/training``, ...

    in ``root`` or ``root/ADEChallengeData2016``.
    """
    home = ade20k_folder(root)
    existing = [name for name, folder in FOLDERS.items() if (home / "images" / folder).is_dir()]
    require_layout("ade20k", root, split, existing)
    folder = FOLDERS[split]
    dataset = Ade20kDataset(
        home / "images" / folder, home / "annotations" / folder, f"ADE20K/{split}", left_out
    )
    images = len(dataset) + sum(fault != NO_IMAGE for fault in (left_out or {}).values())
    require_whole("ade20k", split, root, images, part)
    return dataset


def names_agree(table: str) -> bool:
    """Whether the text of an ``objectInfo150.txt`` has these classes in this order, each among the
    words of its row.
    """
    rows = [row.rpartition("\t")[2].split(",") for row in table.splitlines()[1:] if row.strip()]
    words = [{word.strip() for word in row} for row in rows]
    return len(words) == len(CLASSES) and all(
        name in row for name, row in zip(CLASSES, words, strict=True)
    )
