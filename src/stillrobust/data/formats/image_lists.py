"""The dataset of all classification formats: images with one label each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from stillrobust.data.decoding import DEFAULT_READING, ImageReading
from stillrobust.data.formats.class_names import chosen_indices
from stillrobust.data.formats.image_sizes import read_size
from stillrobust.data.formats.options import OpenOptions
from stillrobust.data.reading import ImageFile, fingerprint, read_image, with_reading
from stillrobust.errors import UserError
from stillrobust.samples import DatasetInfo, Sample, Target


@dataclass(frozen=True)
class LabelledImage:
    """One image: its id, its file and its label."""

    image_id: str
    image: ImageFile
    label: int


@dataclass(frozen=True)
class ImageListDataset:
    """Images with one label each.

    Attributes:
        name: Name in reports.
        classes: Class names.
        items: The images, sorted by id.
        folder: Folder of the images, for the note on files that are not read.
        reading: How image files are read.
        notes: What was assumed and repaired.
        image_field: Reads a column of a table: image id -> text. ``None`` if the format has none.
    """

    name: str
    classes: tuple[str, ...]
    items: tuple[LabelledImage, ...] = field(repr=False)
    folder: Path | None = None
    reading: ImageReading = DEFAULT_READING
    notes: tuple[str, ...] = ()
    image_field: Callable[[str], Mapping[str, str]] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def files(self) -> list[ImageFile]:
        """The file of every image."""
        return [item.image for item in self.items]

    def image_id(self, index: int) -> str:
        """The path of the image below the split, such as ``<class>/<file>``."""
        return self.items[index].image_id

    @cached_property
    def info(self) -> DatasetInfo:
        """Facts about the dataset. For the fingerprint, all files of a small set are read."""
        ids = [item.image_id for item in self.items]
        labels = ",".join(str(item.label) for item in self.items).encode()
        info = DatasetInfo(
            self.name,
            "classification",
            self.classes,
            len(ids),
            fingerprint(self.classes, ids, self.files, labels),
            notes=self.notes,
        )
        return with_reading(info, self.reading)

    def __len__(self) -> int:
        return len(self.items)

    def target(self, index: int) -> Target:
        """The ground truth of an image. Of the image, the header is read."""
        item = self.items[index]
        return Target(item.image_id, read_size(item.image, self.reading.exif), label=item.label)

    def __getitem__(self, index: int, /) -> Sample:
        item = self.items[index]
        image = read_image(item.image, self.reading)
        size = image.shape[0], image.shape[1]
        return Sample(image, Target(item.image_id, size, label=item.label))


def build_image_list(
    name: str,
    classes: Sequence[str],
    items: Sequence[LabelledImage],
    options: OpenOptions,
    folder: Path | None = None,
) -> ImageListDataset:
    """Build the dataset of a split, with the option ``classes`` applied.

    Args:
        name: Name in reports.
        classes: All classes of the files.
        items: The images, with labels that are indices of ``classes``.
        options: How the dataset is opened.
        folder: Folder of the images.

    Returns:
        The dataset.

    Raises:
        UserError: If a chosen class does not exist, or no image has one.
    """
    kept = chosen_indices(classes, options, "images of the others are left out")
    if kept is not None:
        new = {old: place for place, old in enumerate(kept)}
        items = [replace(item, label=new[item.label]) for item in items if item.label in new]
        classes = [classes[index] for index in kept]
        if not items:
            raise UserError(
                f"Expected images of the classes {', '.join(classes)} in {options.path}, but there"
                " are none; choose other classes"
            )
    without = len(classes) - len({item.label for item in items})
    if without:
        options.notes.say(f"{without:,} of the {len(classes):,} classes are without images")
    ordered = tuple(sorted(items, key=lambda item: item.image_id))
    return ImageListDataset(
        name, tuple(classes), ordered, folder, options.reading, options.notes.sentences()
    )
