"""The dataset of all segmentation formats: images with label maps."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from stillrobust.data.bad_images import Faults, record_fault
from stillrobust.data.decoding import DEFAULT_READING, ImageReading
from stillrobust.data.formats.class_names import chosen_indices
from stillrobust.data.formats.image_sizes import read_size
from stillrobust.data.formats.label_files import LABEL_SUFFIXES, LabelReader, choose_classes
from stillrobust.data.formats.options import OpenOptions
from stillrobust.data.image_headers import IMAGE_KINDS
from stillrobust.data.reading import (
    FULL_DIGEST_LIMIT,
    ImageFile,
    fingerprint,
    image_files,
    read_image,
    read_image_bytes,
    visible_files,
    with_reading,
)
from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import IGNORE, Array, DatasetInfo, Image, Sample, Target

NO_IMAGE = "label map without an image"  # the only fault that is not of an image
LOOKED_AT = 8  # label maps that are looked at first for values of 0 and 255 only


@dataclass(frozen=True)
class MapItem:
    """One image: its id, its file and the file of its label map."""

    image_id: str
    image: ImageFile
    labels: ImageFile


@dataclass(frozen=True)
class MapDataset:
    """Images with label maps.

    Attributes:
        name: Name in reports.
        classes: Class names.
        items: The images, sorted by id.
        labels: Reads label maps.
        folder: Folder of the images, for the note on files that are not read.
        reading: How image files are read.
        notes: What was assumed and repaired.
    """

    name: str
    classes: tuple[str, ...]
    items: tuple[MapItem, ...] = field(repr=False)
    labels: LabelReader = field(repr=False)
    folder: Path | None = None
    reading: ImageReading = DEFAULT_READING
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> list[ImageFile]:
        """The file of every image."""
        return [item.image for item in self.items]

    def image_id(self, index: int) -> str:
        """The path of the image below the folder of the split."""
        return self.items[index].image_id

    @cached_property
    def info(self) -> DatasetInfo:
        """Facts about the dataset. For the fingerprint, all files of a small set are read."""
        ids = [item.image_id for item in self.items]
        if len(ids) <= FULL_DIGEST_LIMIT:
            files, content = self.files, self._label_digest()
        else:
            files, content = [*self.files, *(item.labels for item in self.items)], b""
        info = DatasetInfo(
            self.name,
            "segmentation",
            self.classes,
            len(ids),
            fingerprint(self.classes, ids, files, content),
            notes=self.notes,
        )
        return with_reading(info, self.reading)

    def _label_digest(self) -> bytes:
        """SHA-256 of the decoded label maps, which are equal in every format."""

        def digest(item: MapItem) -> bytes:
            try:
                labels = self.labels.read(item.labels)
            except BadImageError:  # reported, or left out, when the image is read
                return hashlib.sha256(read_image_bytes(item.labels)).digest()
            return hashlib.sha256(f"{labels.shape}".encode() + labels.tobytes()).digest()

        with ThreadPoolExecutor() as threads:  # decoders release the interpreter lock
            return b"".join(threads.map(digest, self.items))

    def __len__(self) -> int:
        return len(self.items)

    def target(self, index: int) -> Target:
        """The ground truth of an image. Of the image, the header is read."""
        item = self.items[index]
        size, label_map = read_size(item.image, self.reading.exif), self.labels.read(item.labels)
        _require_size(label_map, size, item.labels)
        return Target(item.image_id, size, label_map=label_map)

    def __getitem__(self, index: int, /) -> Sample:
        item = self.items[index]
        image, label_map = read_image_and_labels(
            item.image, item.labels, self.labels.read, self.reading
        )
        size = image.shape[0], image.shape[1]
        return Sample(image, Target(item.image_id, size, label_map=label_map))


def read_image_and_labels(
    image_path: ImageFile,
    label_path: ImageFile,
    read_labels: Callable[[ImageFile], Array],
    reading: ImageReading = DEFAULT_READING,
) -> tuple[Image, Array]:
    """Read an image and its label map.

    Args:
        image_path: File of the image.
        label_path: File of the label map.
        read_labels: Reads label maps.
        reading: How the image file is read.

    Returns:
        uint8 (H, W, 3) RGB and uint8 (H, W).

    Raises:
        BadImageError: If a file cannot be used, or sizes differ.
    """
    image, labels = read_image(image_path, reading), read_labels(label_path)
    _require_size(labels, (image.shape[0], image.shape[1]), label_path)
    return image, labels


def _require_size(labels: Array, size: tuple[int, int], label_path: ImageFile) -> None:
    """Require that a label map (H, W) has the size (H, W) of its image."""
    if labels.shape != size:
        raise BadImageError(
            f"Expected {label_path} to have the size of its image, {size[1]}x{size[0]}, but it is"
            f" {labels.shape[1]}x{labels.shape[0]}; write the labels at the image's size",
            "a label map of another size",
        )


def build_map_dataset(
    name: str,
    classes: Sequence[str],
    items: Sequence[MapItem],
    labels: LabelReader,
    options: OpenOptions,
    folder: Path | None = None,
) -> MapDataset:
    """Build the dataset of a split, with the option ``classes`` applied.

    Args:
        name: Name in reports.
        classes: All classes of the files.
        items: The images.
        labels: Reads label maps as indices of ``classes``.
        options: How the dataset is opened.
        folder: Folder of the images.

    Returns:
        The dataset.
    """
    kept = chosen_indices(classes, options, "pixels of the others are ignored")
    if kept is not None:
        table = choose_classes(labels.table, kept)
        labels = LabelReader(table, labels.colours, labels.divisor)
        classes = [classes[index] for index in kept]
    ordered = tuple(sorted(items, key=lambda item: item.image_id))
    return MapDataset(
        name, tuple(classes), ordered, labels, folder, options.reading, options.notes.sentences()
    )


def pair_files(
    images: Path, labels: Path, faults: Faults | None = None, suffix: str | None = None
) -> list[MapItem]:
    """Find the label map of every image.

    Args:
        images: Folder of the images.
        labels: Folder of the label maps; it may be the same.
        faults: Collects files without counterpart. ``None`` makes them an error.
        suffix: End of the label files after the image's name without suffix. By default the name
            is that of the image, with any of ``LABEL_SUFFIXES``.

    Returns:
        The images with their label maps, sorted by image.

    Raises:
        UserError: If there is no image, or a counterpart is missing.
    """
    maps = label_files_by_stem(labels, suffix)
    taken = set(maps.values())
    found = [path for path in image_files(images) if path not in taken or images != labels]
    if not found:
        raise UserError(f"Expected {IMAGE_KINDS} images in {images}, but it holds none; add some")
    stems = Counter(image.relative_to(images).with_suffix("").as_posix() for image in found)
    items: list[MapItem] = []
    for image in found:
        name = image.relative_to(images)
        stem = name.with_suffix("").as_posix()
        fault = None
        if stems[stem] > 1:
            fault = BadImageError(
                f"Expected one image for each label map, but {images / stem} has several;"
                " remove one",
                "two images for one label map",
            )
        elif stem not in maps:
            fault = BadImageError(
                f"Expected the label map {labels / stem}{suffix or '.png'} of {image}, but it is"
                " missing; add it",
                "no label map",
            )
        if fault:
            record_fault(faults, name.as_posix(), fault)
        else:
            image_id = unicodedata.normalize("NFC", name.as_posix())
            items.append(MapItem(image_id, image, maps[stem]))
    for stem, path in maps.items():
        if stem not in stems:
            sentence = (
                f"Expected an image in {images} for the label map {path}, but it is missing; add or"
                " remove one"
            )
            record_fault(
                faults, path.relative_to(labels).as_posix(), BadImageError(sentence, NO_IMAGE)
            )
    return items


def label_files_by_stem(folder: Path, suffix: str | None = None) -> dict[str, Path]:
    """Path below ``folder`` without the suffix -> label file, sorted."""
    paths = label_files(folder)
    if suffix is None:
        return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
    found = ((path.relative_to(folder).as_posix(), path) for path in paths)
    return {
        name[: -len(suffix)]: path for name, path in found if name.lower().endswith(suffix.lower())
    }


def label_files(folder: Path) -> list[Path]:
    """All visible files below ``folder`` that may be label maps, sorted."""
    return [path for path in visible_files(folder) if path.suffix.lower() in LABEL_SUFFIXES]


def stored_values(paths: Iterable[ImageFile], reader: LabelReader) -> set[int]:
    """All values that are stored in some label maps."""
    values: set[int] = set()
    with ThreadPoolExecutor() as threads:
        for found in threads.map(lambda path: np.unique(reader.read_stored(path)), paths):
            values.update(found.tolist())
    return values


def is_binary(paths: Sequence[ImageFile], reader: LabelReader) -> bool:
    """Whether label maps hold 0 and 255 only, both of them. A few are looked at first."""
    step = max(1, len(paths) // LOOKED_AT)
    for chosen in (paths[::step], paths):
        try:
            if stored_values(chosen, reader) != {0, IGNORE}:
                return False
        except BadImageError:  # reported when the image is read
            return False
    return bool(paths)
