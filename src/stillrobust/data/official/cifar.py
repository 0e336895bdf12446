"""CIFAR-10 (Krizhevsky 2009) and CIFAR-10-C (Hendrycks & Dietterich 2019)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from stillrobust.data.formats import Format
from stillrobust.data.formats.checks import FileChecker, PartCheck, run_check
from stillrobust.data.formats.options import CLASSES, PART, SPLIT, OpenOptions
from stillrobust.data.official.class_subset import choose_images, require_test_split
from stillrobust.data.official.layout import (
    CIFAR10_C_FOLDER,
    CIFAR10_FOLDER,
    COUNTS,
    require_layout,
    require_stored,
    require_whole,
)
from stillrobust.data.official.pickles import read_pickle
from stillrobust.data.official.sources import fetch_advice
from stillrobust.data.reading import array_fingerprint, derived_fingerprint
from stillrobust.errors import UserError
from stillrobust.grid import COMMON, SEVERITIES
from stillrobust.samples import Array, Dataset, DatasetInfo, Sample, Target

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "val": ("test_batch",)}
SIDE = 32  # pixels


@dataclass(frozen=True)
class CifarDataset:
    """Images of 32 × 32 pixels.

    The image ids are the places in the files, from ``00000``. CIFAR-10-C has the same order.

    Attributes:
        images: uint8 (N, 32, 32, 3) RGB.
        labels: int64 (N,), in the order of ``CLASS_NAMES``.
        name: Name in reports.
    """

    images: Array
    labels: Array
    name: str

    @cached_property
    def info(self) -> DatasetInfo:
        """Facts about the dataset. The regime has the severities for 32 pixels."""
        digest = array_fingerprint(CLASS_NAMES, self.images, self.labels)
        return DatasetInfo(
            self.name, "classification", CLASS_NAMES, len(self), digest, regime="cifar"
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Sample:
        return cifar_sample(self.images[index], self.labels[index], self.image_id(index))

    def image_id(self, index: int) -> str:
        """The place of the image in its file, such as ``00042``."""
        return f"{index:05d}"


def cifar_sample(image: Array, label: int, image_id: str) -> Sample:
    """One image with its label. The image is a copy, so the array of the set is never changed."""
    return Sample(np.array(image), Target(image_id, (SIDE, SIDE), label=int(label)))


def cifar10_folder(root: Path) -> Path:
    """The folder of the batches: ``root`` or its ``cifar-10-batches-py``."""
    return root / CIFAR10_FOLDER if (root / CIFAR10_FOLDER).is_dir() else root


def open_cifar10(root: Path, split: str, options: OpenOptions) -> Dataset:
    """Open ``cifar-10-batches-py``, in ``root`` or as ``root`` itself; ``val`` is the test set."""
    given = options.value("split")
    whole = read_cifar10(root, "val" if given == "test" else given or split, options)
    return choose_images(whole, whole.labels.tolist(), options)


def read_cifar10(root: Path, split: str, options: OpenOptions) -> CifarDataset:
    """Read a split of CIFAR-10 with all its classes.

    Args:
        root: Folder of the dataset.
        split: ``train`` or ``val``.
        options: ``part`` applies.

    Returns:
        The split.

    Raises:
        UserError: If the split is missing or incomplete.
    """
    folder = cifar10_folder(root)
    require_layout(
        "cifar10",
        root,
        split,
        [name for name, files in BATCHES.items() if (folder / files[0]).is_file()],
    )
    parts = [read_batch(folder / name) for name in BATCHES[split]]
    images = np.concatenate([images for images, _ in parts])
    require_whole("cifar10", split, root, len(images), options.value("part", False))
    return CifarDataset(
        images, np.concatenate([labels for _, labels in parts]), f"CIFAR-10/{split}"
    )


def read_batch(path: Path) -> tuple[Array, Array]:
    """Read a batch file.

    Args:
        path: A file such as ``data_batch_1``.

    Returns:
        Images uint8 (N, 32, 32, 3) RGB and labels int64 (N,).

    Raises:
        UserError: If the file is damaged or of another dataset.
    """
    batch = read_pickle(path)
    rows, labels = batch.get("data"), batch.get("labels")
    wanted = (
        isinstance(rows, np.ndarray)
        and rows.ndim == 2
        and rows.shape[1] == 3 * SIDE * SIDE
        and isinstance(labels, list)
    )
    if not wanted or len(rows) != len(labels):  # type: ignore[arg-type]
        raise UserError(
            f"Expected rows of {3 * SIDE * SIDE} bytes and as many labels in {path}; download the"
            " set again"
        )
    if not all(type(label) is int and 0 <= label < len(CLASS_NAMES) for label in labels):  # type: ignore[union-attr]
        raise UserError(
            f"Expected labels 0..{len(CLASS_NAMES) - 1} in {path}, as CIFAR-10 has; CIFAR-100 is"
            " another set"
        )
    planes: Array = rows.reshape(-1, 3, SIDE, SIDE)  # type: ignore[union-attr]
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, np.int64)


@dataclass(frozen=True)
class Cifar10C:
    """The test set of CIFAR-10 with stored corruptions.

    ``<corruption>.npy`` has the images of severity 1 to 5, one after another.

    Attributes:
        clean: The test set.
        labels: int64 (N,), labels of the test set.
        folder: Folder of the arrays.
    """

    clean: Dataset
    labels: Array
    folder: Path

    @cached_property
    def info(self) -> DatasetInfo:
        """The clean dataset's info; the stage is ``stored``."""
        return replace(self.clean.info, name="CIFAR-10-C", stage="stored")

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int, /) -> Sample:
        return self.clean[index]

    def image_id(self, index: int) -> str:
        """The place of the image in its file, such as ``00042``."""
        return self.clean.image_id(index)

    def corrupted(self, corruption: str, severity: int) -> Dataset:
        """Open the stored images of one corruption at one severity."""
        require_stored(corruption, severity)
        path = self.folder / f"{corruption}.npy"
        open_corruption_array(path, len(self))
        return _Stored(self, path, severity)


@dataclass(frozen=True)
class _Stored:
    """One severity of an array, which is mapped into memory."""

    whole: Cifar10C
    path: Path
    severity: int

    @cached_property
    def info(self) -> DatasetInfo:
        """The info of the whole set, with a fingerprint that includes the stored images."""
        base = self.whole.info
        first = (self.severity - 1) * len(self)
        images = open_corruption_array(self.path, len(self))[first : first + len(self)]
        stored = array_fingerprint((), images, self.whole.labels)
        name = f"{base.name} {self.path.stem} {self.severity}"
        return replace(
            base, name=name, fingerprint=derived_fingerprint(base.fingerprint, "stored", stored)
        )

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        array = open_corruption_array(self.path, len(self))
        image = array[(self.severity - 1) * len(self) + index]
        return cifar_sample(image, self.whole.labels[index], self.image_id(index))

    def image_id(self, index: int) -> str:
        """The place of the image in its file, such as ``00042``."""
        return self.whole.image_id(index)


@lru_cache(maxsize=4)
def open_corruption_array(path: Path, images: int) -> Any:
    """Open the array of a corruption, mapped into memory.

    Args:
        path: A ``.npy`` file. Python objects in it are refused.
        images: Number of images of one severity.

    Returns:
        uint8 (5 × ``images``, 32, 32, 3).

    Raises:
        UserError: If the file is missing, damaged or of another shape.
    """
    stack = load_array(path)
    if stack.dtype != np.uint8 or stack.shape != (len(SEVERITIES) * images, SIDE, SIDE, 3):
        raise UserError(
            f"Expected uint8 of {(len(SEVERITIES) * images, SIDE, SIDE, 3)} in {path}, but got"
            f" {stack.dtype} of {stack.shape}; download CIFAR-10-C again"
        )
    return stack


def load_array(path: Path) -> Any:
    """Open a ``.npy`` file, mapped into memory; ``UserError`` if it is missing or damaged."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = error.strerror or "it is no .npy file"
    except (ValueError, EOFError, SyntaxError, OverflowError):
        reason = "it is cut off or no .npy file of plain numbers"
    raise UserError(f"Expected an array of CIFAR-10-C at {path}, but {reason}; download it again")


def cifar10_c_folder(root: Path) -> Path:
    """The folder of the arrays: ``root`` or its ``CIFAR-10-C``."""
    return root / CIFAR10_C_FOLDER if (root / CIFAR10_C_FOLDER).is_dir() else root


def find_cifar10_root(root: Path) -> Path | None:
    """The folder that contains ``cifar-10-batches-py``, in or beside CIFAR-10-C; else ``None``."""
    return next(
        (
            place
            for place in (root, cifar10_c_folder(root), root.parent)
            if (place / CIFAR10_FOLDER).is_dir()
        ),
        None,
    )


def open_cifar10_c(root: Path, split: str, options: OpenOptions) -> Dataset:
    """Open the arrays of ``CIFAR-10-C``, with CIFAR-10 beside them for the clean images."""
    require_test_split("cifar10_c", options)
    folder = cifar10_c_folder(root)
    require_layout("cifar10_c", root, split, ["val"] if (folder / "labels.npy").is_file() else [])
    home = find_cifar10_root(root)
    if home is None:
        raise UserError(
            f"Expected CIFAR-10 ({CIFAR10_FOLDER}) beside CIFAR-10-C in {root} for the clean"
            f" images, but it is missing; `stillrobust data fetch cifar10 {root}` gets it"
        )
    clean = read_cifar10(home, "val", options)
    labels = load_array(folder / "labels.npy")
    if labels.shape != (len(SEVERITIES) * len(clean),) or not np.array_equal(
        labels, np.tile(clean.labels, len(SEVERITIES))
    ):
        raise UserError(
            f"Expected the test set's labels five times in {folder / 'labels.npy'}, but they differ"
            f" from those in {home}; download both sets again"
        )
    return choose_images(Cifar10C(clean, clean.labels, folder), clean.labels.tolist(), options)


def check_cifar10(root: Path, checker: FileChecker, options: OpenOptions) -> Iterator[PartCheck]:
    """Check the six batches."""
    for split, names in BATCHES.items():
        for name in names:
            images = COUNTS["cifar10"][split] // len(names)
            yield run_check(name, _check_batch, cifar10_folder(root) / name, images)


def _check_batch(path: Path, expected: int) -> PartCheck:
    if not path.is_file():
        return PartCheck(path.name, "missing", f"there is no file {path}")
    images = len(read_batch(path)[0])
    text = f"{images:,} of {expected:,} images"
    return PartCheck(path.name, "whole" if images == expected else "missing", text)


def check_cifar10_c(root: Path, checker: FileChecker, options: OpenOptions) -> Iterator[PartCheck]:
    """Check the test batch, the labels and the 15 common corruptions."""
    images = COUNTS["cifar10_c"]["val"]
    place = find_cifar10_root(root)
    if place is None:
        text = f"there is no {CIFAR10_FOLDER} beside CIFAR-10-C"
        yield PartCheck("test_batch", "missing", text)
    else:
        path = cifar10_folder(place) / "test_batch"
        yield run_check("test_batch", _check_batch, path, images)
    for name in ("labels", *COMMON):
        yield run_check(name, _check_array, cifar10_c_folder(root) / f"{name}.npy", images)


def _check_array(path: Path, images: int) -> PartCheck:
    if not path.is_file():
        return PartCheck(path.stem, "missing", f"there is no file {path}")
    if path.stem == "labels":
        labels, expected = load_array(path), len(SEVERITIES) * images
        fits = labels.shape == (expected,) and int(labels.max()) < len(CLASS_NAMES)
        text = f"{len(labels):,} of {expected:,} labels"
        return PartCheck(path.stem, "whole" if fits else "damaged", text)
    array = open_corruption_array(path, images)
    if not array[-1].any():
        text = "the last image is black: the file was not written to its end"
        return PartCheck(path.stem, "damaged", text)
    return PartCheck(path.stem, "whole", f"{len(array):,} images of 5 severities")


def detect_cifar10(root: Path) -> dict[str, Any] | None:
    """Recognise a folder with a batch file, without stored corruptions."""
    found = (cifar10_folder(root) / "test_batch").is_file() and detect_cifar10_c(root) is None
    return {} if found else None


def detect_cifar10_c(root: Path) -> dict[str, Any] | None:
    """Recognise a folder with the arrays of corruptions."""
    folder = cifar10_c_folder(root)
    found = (folder / "labels.npy").is_file() and (folder / "fog.npy").is_file()
    return {} if found else None


CIFAR10 = Format(
    "classification",
    open_cifar10,
    check_cifar10,
    detect_cifar10,
    (SPLIT, CLASSES, PART),
    fetch_advice("cifar10"),
)
CIFAR10_C = Format(
    "classification",
    open_cifar10_c,
    check_cifar10_c,
    detect_cifar10_c,
    (SPLIT, CLASSES, PART),
    fetch_advice("cifar10_c"),
)
