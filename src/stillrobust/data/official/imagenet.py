"""ImageNet-1k (ILSVRC 2012) and ImageNet-C (Hendrycks & Dietterich 2019), as in their archives.

Images of ``val`` are resized to 256 and cropped to 224 pixels before they are corrupted, because
ImageNet-C was made so (hendrycks/robustness, make_imagenet_c.py). A model must therefore accept
images of 224 × 224. Pillow reads them and ignores the EXIF orientation, as it did for ImageNet-C
and for the published accuracies.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from stillrobust.data.formats import Format
from stillrobust.data.formats.checks import FileChecker, PartCheck, read_by_index, run_check
from stillrobust.data.formats.options import CLASSES, LEAVE_OUT_BAD, PART, SPLIT, OpenOptions
from stillrobust.data.image_headers import IMAGE_SUFFIXES
from stillrobust.data.official.class_subset import choose_images, require_test_split
from stillrobust.data.official.layout import (
    COUNTS,
    STORED,
    require_layout,
    require_stored,
    require_whole,
)
from stillrobust.data.official.sources import IMAGENET_ADVICE, fetch_advice
from stillrobust.data.reading import (
    derived_fingerprint,
    fingerprint,
    read_unrotated,
    subfolders,
)
from stillrobust.errors import UserError
from stillrobust.grid import COMMON, GROUPS, SEVERITIES
from stillrobust.samples import Dataset, DatasetInfo, Image, Sample, Target
from stillrobust.untrusted import read_user_text

RESIZE, CROP = 256, 224  # pixels: the test transform of torchvision's and Hendrycks' models
STAGE = f"after resize to {RESIZE} and centre crop to {CROP}"
KAGGLE = Path("ILSVRC/Data/CLS-LOC")  # where Kaggle's copy of the challenge has train/ and val/
SOLUTION = "LOC_val_solution.csv"  # Kaggle's labels of the flat val folder
GROUP_NAMES = (*GROUPS, "extra")


@cache
def wordnet_ids() -> tuple[str, ...]:
    """The WordNet ids of the 1,000 classes, sorted: the order of every model's outputs."""
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text(encoding="ascii").split())


@dataclass(frozen=True)
class ImageNetDataset:
    """One split. Images of ``train`` are as stored; those of ``val`` are resized and cropped.

    Attributes:
        folder: Folder of the split.
        ids: ``<wnid>/<file>`` of every image, sorted, also if ``flat``.
        flat: Whether the files are in ``folder`` itself instead of class folders.
        split: ``train`` or ``val``.
    """

    folder: Path
    ids: tuple[str, ...]
    flat: bool
    split: str

    @cached_property
    def info(self) -> DatasetInfo:
        """Facts about the dataset."""
        stage = STAGE if self.split == "val" else "before resize"
        digest = fingerprint(
            wordnet_ids(), self.ids, (self.path(image_id) for image_id in self.ids), stage.encode()
        )
        name = f"ImageNet/{self.split}"
        return DatasetInfo(
            name,
            "classification",
            wordnet_ids(),
            len(self),
            digest,
            stage=stage,
            regime="imagenet-c",
        )

    def image_id(self, index: int) -> str:
        """``<wnid>/<file>``."""
        return self.ids[index]

    def labels(self) -> list[int]:
        """The label of every image."""
        return [label_by_wordnet_id()[image_id.partition("/")[0]] for image_id in self.ids]

    def path(self, image_id: str) -> Path:
        """The file of an image."""
        return self.folder / (image_id.partition("/")[2] if self.flat else image_id)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int, /) -> Sample:
        image = read_unrotated(self.path(self.ids[index]))
        return imagenet_sample(
            resize_and_crop(image) if self.split == "val" else np.asarray(image), self.ids[index]
        )


def imagenet_sample(image: Image, image_id: str) -> Sample:
    """An image with the label of the class in its id."""
    size = (image.shape[0], image.shape[1])
    return Sample(
        image, Target(image_id, size, label=label_by_wordnet_id()[image_id.partition("/")[0]])
    )


@cache
def label_by_wordnet_id() -> dict[str, int]:
    """WordNet id -> label."""
    return {wnid: label for label, wnid in enumerate(wordnet_ids())}


def resize_and_crop(image: Pillow.Image) -> Image:
    """Apply torchvision's ``Resize(256)`` and ``CenterCrop(224)``, with identical pixels.

    Args:
        image: A Pillow image in RGB.

    Returns:
        uint8 (224, 224, 3) RGB.
    """
    width, height = image.size
    size = (
        (RESIZE, RESIZE * height // width)
        if width <= height
        else (RESIZE * width // height, RESIZE)
    )
    resized = image.resize(size, Pillow.Resampling.BILINEAR)
    left, top = round((size[0] - CROP) / 2), round((size[1] - CROP) / 2)
    return np.array(resized.crop((left, top, left + CROP, top + CROP)))


def open_imagenet(root: Path, split: str, options: OpenOptions) -> Dataset:
    """Open ``<split>/<wnid>/*.JPEG``, or Kaggle's copy with its flat ``val`` folder."""
    whole = open_split(root, options.value("split", split), options.value("part", False))
    return choose_images(whole, whole.labels(), options)


def imagenet_folder(root: Path) -> Path:
    """The folder with ``train`` and ``val``: ``root``, or that of Kaggle's copy in it."""
    return root / KAGGLE if (root / KAGGLE).is_dir() else root


def open_split(root: Path, split: str, part: bool) -> ImageNetDataset:
    """Open a split of ImageNet.

    Args:
        root: Folder of the dataset.
        split: ``train`` or ``val``.
        part: Accept fewer classes and images than published.

    Returns:
        The split.

    Raises:
        UserError: If folders or images are missing, or a folder is not a class of ImageNet.
    """
    home = imagenet_folder(root)
    require_layout(
        "imagenet", root, split, [name for name in subfolders(home) if name in ("train", "val")]
    )
    folder = home / split
    flat = split == "val" and not subfolders(folder)
    ids = _flat_ids(folder, root) if flat else list_class_images(folder, part)
    require_whole("imagenet", split, root, len(ids), part)
    if not ids:
        raise UserError(
            f"Expected images in class folders in {folder}, but found none; unpack ImageNet's"
            " archives there"
        )
    return ImageNetDataset(folder, tuple(ids), flat, split)


def list_class_images(folder: Path, part: bool) -> list[str]:
    """List ``<wnid>/<file>`` of every image in class folders, sorted.

    Args:
        folder: Folder of the split.
        part: Accept missing classes.

    Returns:
        The image ids.

    Raises:
        UserError: If classes are missing, or a folder is not a class of ImageNet.
    """
    classes = subfolders(folder)
    foreign = [name for name in classes if name not in label_by_wordnet_id()]
    if foreign:
        raise UserError(
            f"Expected ImageNet's WordNet ids, such as n01440764, as class folders in {folder}, but"
            f" got {foreign[0]!r}; check the path, or use folders:{folder.parent} for classes of"
            " your own"
        )
    missing = [wnid for wnid in wordnet_ids() if wnid not in set(classes)]
    if missing and not part:
        raise UserError(
            f"Expected ImageNet's 1,000 class folders in {folder}, but {len(missing)} are missing,"
            f" the first {missing[0]}: the set is half there; `stillrobust data check"
            f" imagenet:{folder.parent}` says what is missing, imagenet(part=True):{folder.parent}"
            " accepts the incomplete set"
        )
    return [f"{wnid}/{name}" for wnid in classes for name in list_image_names(folder / wnid)]


def list_image_names(folder: Path) -> list[str]:
    """Names of the visible images directly inside a folder, sorted; fast for a million files."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    return sorted(
        name
        for name in names
        if name[name.rfind(".") :].lower() in IMAGE_SUFFIXES and not name.startswith(".")
    )


def _flat_ids(folder: Path, root: Path) -> list[str]:
    """Image ids of a flat folder, with the labels of Kaggle's table."""
    tables = [place / SOLUTION for place in (root, folder, folder.parent)]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        raise UserError(
            f"Expected class folders in {folder}, or Kaggle's {SOLUTION} in {root} for a flat"
            " folder, but found neither; sort the images into class folders, as"
            " torchvision.datasets.ImageNet or valprep.sh does"
        )
    text = read_user_text(table, "Kaggle's table")
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if len(row) == 2]
    except csv.Error as error:
        raise UserError(
            f"Expected Kaggle's table at {table}, but {error}; download it again"
        ) from None
    wnid_of = {image: boxes.split(" ")[0] for image, boxes in rows}
    ids = []
    for name in list_image_names(folder):
        wnid = wnid_of.get(name.rpartition(".")[0], "")
        if wnid not in label_by_wordnet_id():
            raise UserError(
                f"Expected the class of {name} in {table}, but got {wnid!r}; download the table"
                " again"
            )
        ids.append(f"{wnid}/{name}")
    return sorted(ids)


@dataclass(frozen=True)
class ImageNetC:
    """The validation set with stored corruptions of 224 × 224 pixels.

    The files are ``<corruption>/<severity>/<wnid>/*.JPEG``.
    """

    clean: ImageNetDataset
    root: Path

    @cached_property
    def info(self) -> DatasetInfo:
        """The clean dataset's info; the stage is ``stored``."""
        return replace(self.clean.info, name="ImageNet-C", stage="stored")

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int, /) -> Sample:
        return self.clean[index]

    def image_id(self, index: int) -> str:
        """``<wnid>/<file>``."""
        return self.clean.ids[index]

    def corrupted(self, corruption: str, severity: int) -> Dataset:
        """Open the stored images of one corruption at one severity."""
        require_stored(corruption, severity)
        folder = stored_folder(self.root, corruption) / str(severity)
        found = list_stored_ids(folder)
        if tuple(found) != self.clean.ids:
            missing = len(set(self.clean.ids) - set(found))
            raise UserError(
                f"Expected the {len(self):,} images of the clean set in {folder}, but {missing:,}"
                f" are missing and {len(found) - len(self) + missing:,} are others: `stillrobust"
                f" data check imagenet_c:{self.root}` says more; `stillrobust data fetch imagenet_c"
                f" {self.root}` gets the set"
            )
        return _Stored(self, folder)


@dataclass(frozen=True)
class _Stored:
    """One cell of ImageNet-C."""

    whole: ImageNetC
    folder: Path

    @cached_property
    def info(self) -> DatasetInfo:
        """The info of the whole set, with a fingerprint that includes the stored files."""
        base, ids = self.whole.info, self.whole.clean.ids
        digest = fingerprint((), ids, (self.folder / image_id for image_id in ids), b"")
        name = f"{base.name} {self.folder.parent.name} {self.folder.name}"
        return replace(
            base, name=name, fingerprint=derived_fingerprint(base.fingerprint, "stored", digest)
        )

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int, /) -> Sample:
        image_id = self.image_id(index)
        return imagenet_sample(read_stored(self.folder / image_id), image_id)

    def image_id(self, index: int) -> str:
        """``<wnid>/<file>``."""
        return self.whole.clean.ids[index]


def read_stored(path: Path) -> Image:
    """Read an image of ImageNet-C: uint8 (224, 224, 3); ``UserError`` for another size."""
    image = np.asarray(read_unrotated(path))
    if image.shape != (CROP, CROP, 3):
        raise UserError(
            f"Expected {path} to be {CROP}x{CROP}, as ImageNet-C is, but it is"
            f" {image.shape[1]}x{image.shape[0]}; download the set again"
        )
    return image


def stored_folder(root: Path, corruption: str) -> Path:
    """The folder of a corruption: in ``root``, ``root/ImageNet-C`` or an archive's folder there."""
    homes = [home for home in (root / "ImageNet-C", root) if home.is_dir()]
    places: Sequence[Path] = [
        home / group / corruption for home in homes for group in ("", *GROUP_NAMES)
    ]
    return next(
        (place for place in places if place.is_dir()), places[0] if places else root / corruption
    )


def list_stored_ids(folder: Path) -> list[str]:
    """``<wnid>/<file>`` of every image of one cell, sorted; empty if the folder is missing."""
    return [
        f"{wnid}/{name}" for wnid in subfolders(folder) for name in list_image_names(folder / wnid)
    ]


def open_imagenet_c(root: Path, split: str, options: OpenOptions) -> Dataset:
    """Open the corruption folders in ``root`` or ``root/ImageNet-C``.

    The clean images come from ImageNet's ``val`` in ``root``.
    """
    require_test_split("imagenet_c", options)
    there = any(stored_folder(root, corruption).is_dir() for corruption in STORED)
    require_layout("imagenet_c", root, split, ["val"] if there else [])
    if not (imagenet_folder(root) / "val").is_dir():
        raise UserError(
            f"Expected ImageNet's val folder in {root} for the clean images of ImageNet-C, but it"
            " is not there; a link to it will do"
        )
    clean = open_split(root, "val", options.value("part", False))
    return choose_images(ImageNetC(clean, root), clean.labels(), options)


def check_imagenet(root: Path, checker: FileChecker, options: OpenOptions) -> Iterator[PartCheck]:
    """Check both splits."""
    for split in ("train", "val"):
        yield run_check(split, _check_split, root, split, checker)


def _check_split(root: Path, split: str, checker: FileChecker) -> PartCheck:
    if split not in subfolders(imagenet_folder(root)):
        text = f"there is no folder {imagenet_folder(root) / split}"
        return PartCheck(split, "missing", text)
    data = open_split(root, split, part=True)
    missing = set(wordnet_ids()) - {image_id.partition("/")[0] for image_id in data.ids}
    note = f", {len(missing)} of the 1,000 classes without images" if missing else ""
    files = [data.path(image_id) for image_id in data.ids]
    expected = COUNTS["imagenet"][split]
    return checker.check_files(split, files, expected, read_by_index(read_unrotated, files), note)


def check_imagenet_c(root: Path, checker: FileChecker, options: OpenOptions) -> Iterator[PartCheck]:
    """Check the clean images and the 15 common corruptions."""
    yield run_check("val", _check_split, root, "val", checker)
    expected = COUNTS["imagenet_c"]["val"]
    for corruption in COMMON:
        folder = stored_folder(root, corruption)
        cells = {severity: list_stored_ids(folder / str(severity)) for severity in SEVERITIES}
        counts = [
            f"{severity} has {len(ids):,}"
            for severity, ids in cells.items()
            if len(ids) != expected
        ]
        if not folder.is_dir():
            yield PartCheck(corruption, "missing", f"there is no folder {folder}")
        elif counts:
            text = f"expected {expected:,} images a severity, but {', '.join(counts)}"
            yield PartCheck(corruption, "missing", text)
        else:
            files = [
                folder / str(severity) / image_id
                for severity, ids in cells.items()
                for image_id in ids
            ]
            read = read_by_index(read_stored, files)
            yield checker.check_files(corruption, files, None, read)


def detect_imagenet(root: Path) -> dict[str, Any] | None:
    """Recognise folders of WordNet ids, and Kaggle's copy."""
    home = imagenet_folder(root)
    known = set(wordnet_ids())
    found = home != root or any(
        known.issuperset(names) and names
        for names in (subfolders(home / split) for split in ("train", "val"))
    )
    return {} if found and detect_imagenet_c(root) is None else None


def detect_imagenet_c(root: Path) -> dict[str, Any] | None:
    """Recognise the folder of a corruption with its severities."""
    found = any((stored_folder(root, name) / "1").is_dir() for name in STORED)
    return {} if found else None


IMAGENET = Format(
    "classification",
    open_imagenet,
    check_imagenet,
    detect_imagenet,
    (SPLIT, CLASSES, PART, LEAVE_OUT_BAD),
    lambda root: f"{IMAGENET_ADVICE}.",
)
IMAGENET_C = Format(
    "classification",
    open_imagenet_c,
    check_imagenet_c,
    detect_imagenet_c,
    (SPLIT, CLASSES, PART),
    fetch_advice(
        "imagenet_c", f" {IMAGENET_ADVICE}; a link in {{root}} to its val folder will do."
    ),
)
