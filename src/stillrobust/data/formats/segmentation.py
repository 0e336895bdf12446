"""Segmentation data: a folder of images and a folder of label PNGs with the same names."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from stillrobust.data.bad_images import LeftOut, leave_out
from stillrobust.data.reading import (
    IMAGE_KINDS,
    fingerprint,
    image_files,
    read_image,
    read_label_map,
    require_split,
    subfolders,
)
from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import IGNORE, Array, DatasetInfo, Image, Sample, Target

NO_IMAGE = "label map without an image"  # the one fault that is of no image


@dataclass(frozen=True)
class MapDataset:
    """Images in ``images/<split>/`` and ``labels/<split>/*.png``: at most 8 bits, index = class,
    255 = does not count.

    Class names come from ``classes.txt``, one a line; without it the label maps of all splits are
    scanned for the highest index.
    """

    root: Path
    split: str
    name: str = ""
    """Shown in reports; folder and split where it is empty."""
    left_out: LeftOut | None = field(default=None, repr=False, compare=False)
    """Takes what has no counterpart; ``None``: it is refused."""
    classes: tuple[str, ...] = field(init=False, default=())
    pairs: tuple[tuple[Path, Path], ...] = field(init=False, default=(), repr=False)

    def __post_init__(self) -> None:
        require_split("segmentation", self.root, self.split, subfolders(self.root / "images"))
        folders = self.root / "images" / self.split, self.root / "labels" / self.split
        object.__setattr__(self, "pairs", tuple(paired_files(*folders, self.left_out)))
        object.__setattr__(self, "classes", tuple(read_classes(self.root)))

    def image_id(self, index: int) -> str:
        """The image's path below ``images/<split>``."""
        return self.pairs[index][0].relative_to(self.root / "images" / self.split).as_posix()

    @cached_property
    def info(self) -> DatasetInfo:
        """What this dataset says of itself; the fingerprint reads all files once where the set is
        small.
        """
        ids = [self.image_id(index) for index in range(len(self))]
        files = [image for image, _ in self.pairs] + [labels for _, labels in self.pairs]
        digest = fingerprint(self.classes, ids, files, b"")
        return DatasetInfo(
            self.name or f"{self.root.name}/{self.split}",
            "segmentation",
            self.classes,
            len(ids),
            digest,
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int, /) -> Sample:
        image, label_map = read_pair(*self.pairs[index], len(self.classes))
        return Sample(
            image,
            Target(self.image_id(index), (image.shape[0], image.shape[1]), label_map=label_map),
        )


def read_pair(
    image_path: Path,
    label_path: Path,
    classes: int,
    reduce: Callable[[Array], Array] = lambda stored: stored,
) -> tuple[Image, Array]:
    """uint8 (H, W, 3) and uint8 (H, W) of one size; ``reduce`` turns stored label values into
    0..``classes`` - 1 and 255.
    """
    image, stored = read_image(image_path), read_label_map(label_path)
    if image.shape[:2] != stored.shape:
        raise BadImageError(
            f"Expected {label_path} to have the size of its image,"
            f" {image.shape[1]}x{image.shape[0]}, but it is {stored.shape[1]}x{stored.shape[0]};"
            " write the labels at the image's size",
            "a label map of another size",
        )
    labels = reduce(stored)
    wrong = labels[(labels >= classes) & (labels != IGNORE)]
    if wrong.size:
        raise BadImageError(
            f"Expected labels 0..{classes - 1} or {IGNORE} in {label_path}, but got"
            f" {int(wrong.min())}; add the class to classes.txt or correct the map",
            "a label map with a class that there is not",
        )
    return image, labels


def paired_files(
    images: Path, labels: Path, left_out: LeftOut | None = None
) -> list[tuple[Path, Path]]:
    """(image, label map) of every image in two folders; one without counterpart goes to
    ``left_out``, or is a ``UserError``.
    """
    found = image_files(images)
    if not found:
        raise UserError(f"Expected {IMAGE_KINDS} images in {images}, but it holds none; add some")
    maps = {path.relative_to(labels).with_suffix(""): path for path in label_files(labels)}
    stems = Counter(image.relative_to(images).with_suffix("") for image in found)
    pairs: list[tuple[Path, Path]] = []
    for image in found:
        name = image.relative_to(images)
        stem = name.with_suffix("")
        if stems[stem] > 1:
            sentence = (
                f"Expected one image for each label map, but {images / stem} is there twice;"
                " remove one"
            )
            leave_out(
                left_out, name.as_posix(), BadImageError(sentence, "two images for one label map")
            )
        elif stem not in maps:
            sentence = (
                f"Expected the label map {labels / stem}.png of {image}, but it is missing; add it"
            )
            leave_out(left_out, name.as_posix(), BadImageError(sentence, "no label map"))
        else:
            pairs.append((image, maps[stem]))
    for stem, path in maps.items():
        if stem not in stems:
            sentence = (
                f"Expected an image in {images} for the label map {path}, but it is missing; add or"
                " remove one"
            )
            leave_out(
                left_out, path.relative_to(labels).as_posix(), BadImageError(sentence, NO_IMAGE)
            )
    return pairs


def label_files(folder: Path) -> list[Path]:
    """All visible label maps below ``folder``, sorted."""
    return [path for path in image_files(folder) if path.suffix == ".png"]


def read_classes(root: Path) -> list[str]:
    """The class names from ``classes.txt``, or numbered ones from a scan of every label map."""
    path = root / "classes.txt"
    if not path.is_file():
        return scan_classes(root)
    try:
        names = [
            line.strip()
            for line in path.read_text(encoding="utf-8-sig").splitlines()
            if line.strip()
        ]
    except UnicodeDecodeError:
        raise UserError(f"Expected UTF-8 text in {path}, but it is not; save it as UTF-8") from None
    if not 1 <= len(names) <= IGNORE or len(set(names)) != len(names):
        raise UserError(
            f"Expected 1 to {IGNORE} distinct class names in {path}, one a line, "
            f"but got {len(names)} of which {len(set(names))} differ; correct the list"
        )
    return names


def scan_classes(root: Path) -> list[str]:
    """Numbered names up to the highest label in any split, so that train and val agree on the
    number of classes.
    """
    highest = -1
    for path in label_files(root / "labels"):
        values = np.unique(read_label_map(path))
        highest = max([highest, *values[values != IGNORE].tolist()])
    if highest < 0:
        raise UserError(
            f"Expected label maps with at least one class in {root / 'labels'}, but found none; add"
            " some"
        )
    return [f"class {number}" for number in range(highest + 1)]
