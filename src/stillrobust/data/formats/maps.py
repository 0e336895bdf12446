"""The format ``maps``: a folder of images and a folder of label PNGs with the same names."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from stillrobust.data.bad_images import Faults, record_fault
from stillrobust.data.formats import Format, OpenOptions
from stillrobust.data.formats.checks import (
    FileChecker,
    PartCheck,
    check_splits,
    unread_files_note,
)
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

NO_IMAGE = "label map without an image"  # the only fault that is not of an image


@dataclass(frozen=True)
class MapDataset:
    """Images in ``images/<split>/`` with label maps in ``labels/<split>/*.png``.

    Label maps have at most 8 bits. A value is the index of a class, and 255 is not scored. Class
    names are the lines of ``classes.txt``. Without that file, the label maps of all splits are
    scanned for the highest index.

    Attributes:
        root: Folder of the dataset.
        split: Name of the split.
        name: Name in reports; by default folder and split.
        faults: Collects images and label maps without counterpart. ``None`` makes them an error.
        classes: Class names.
        pairs: (image, label map) of every image.
    """

    root: Path
    split: str
    name: str = ""
    faults: Faults | None = field(default=None, repr=False, compare=False)
    classes: tuple[str, ...] = field(init=False, default=())
    pairs: tuple[tuple[Path, Path], ...] = field(init=False, default=(), repr=False)

    def __post_init__(self) -> None:
        require_split("segmentation", self.root, self.split, subfolders(self.root / "images"))
        folders = self.root / "images" / self.split, self.root / "labels" / self.split
        object.__setattr__(self, "pairs", tuple(pair_files(*folders, self.faults)))
        object.__setattr__(self, "classes", tuple(read_classes(self.root)))

    def image_id(self, index: int) -> str:
        """The path of the image below ``images/<split>``."""
        return self.pairs[index][0].relative_to(self.root / "images" / self.split).as_posix()

    @cached_property
    def info(self) -> DatasetInfo:
        """Facts about the dataset. For the fingerprint, all files of a small set are read."""
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
        image, label_map = read_image_and_labels(*self.pairs[index], len(self.classes))
        return Sample(
            image,
            Target(self.image_id(index), (image.shape[0], image.shape[1]), label_map=label_map),
        )


def read_image_and_labels(
    image_path: Path,
    label_path: Path,
    classes: int,
    reduce: Callable[[Array], Array] = lambda stored: stored,
) -> tuple[Image, Array]:
    """Read an image and its label map.

    Args:
        image_path: File of the image.
        label_path: PNG of the label map.
        classes: Number of classes.
        reduce: Converts stored values to 0..``classes`` - 1 and 255.

    Returns:
        uint8 (H, W, 3) RGB and uint8 (H, W).

    Raises:
        BadImage: If a file cannot be used, sizes differ, or a label is not a class.
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


def pair_files(images: Path, labels: Path, faults: Faults | None = None) -> list[tuple[Path, Path]]:
    """Find the label map of every image.

    Args:
        images: Folder of the images.
        labels: Folder of the label maps.
        faults: Collects files without counterpart. ``None`` makes them an error.

    Returns:
        (image, label map) pairs, sorted by image.

    Raises:
        UserError: If there is no image, or a counterpart is missing.
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
            record_fault(
                faults, name.as_posix(), BadImageError(sentence, "two images for one label map")
            )
        elif stem not in maps:
            sentence = (
                f"Expected the label map {labels / stem}.png of {image}, but it is missing; add it"
            )
            record_fault(faults, name.as_posix(), BadImageError(sentence, "no label map"))
        else:
            pairs.append((image, maps[stem]))
    for stem, path in maps.items():
        if stem not in stems:
            sentence = (
                f"Expected an image in {images} for the label map {path}, but it is missing; add or"
                " remove one"
            )
            record_fault(
                faults, path.relative_to(labels).as_posix(), BadImageError(sentence, NO_IMAGE)
            )
    return pairs


def label_files(folder: Path) -> list[Path]:
    """All visible PNG files below ``folder``, sorted."""
    return [path for path in image_files(folder) if path.suffix == ".png"]


def read_classes(root: Path) -> list[str]:
    """Class names from ``classes.txt``, or numbered names from a scan of all label maps.

    Args:
        root: Folder of the dataset.

    Returns:
        One name per class.

    Raises:
        UserError: If the file is not UTF-8, or names are missing, duplicate or too many.
    """
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
    """Numbered names up to the highest label of all splits, so that all splits have the same."""
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


def open_maps(root: Path, split: str, options: OpenOptions) -> MapDataset:
    """Open a split of a folder of images and label maps."""
    return MapDataset(root, split, faults=options.faults)


def check_maps(root: Path, checker: FileChecker) -> Iterator[PartCheck]:
    """Check every split."""

    def check(split: str) -> PartCheck:
        data = MapDataset(root, split)
        files = [image for image, _ in data.pairs]
        note = unread_files_note(root / "images" / split, files)
        return checker.check_files(split, files, None, data.__getitem__, note)

    return check_splits(root / "images", check)


MAPS = Format("segmentation", open_maps, check_maps, ("leave_out_bad",))
