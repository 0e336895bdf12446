"""The dataset of all detection formats: images with boxes, labels and, perhaps, masks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from stillrobust.data.decoding import DEFAULT_READING, ImageReading
from stillrobust.data.formats.class_names import chosen_indices
from stillrobust.data.formats.coco_table import SMALLEST_SIDE, CocoTable
from stillrobust.data.formats.options import (
    CLASSES,
    LEAVE_OUT_BAD,
    READING_OPTIONS,
    SPLIT,
    OpenOptions,
    Option,
    flag_option,
)
from stillrobust.data.reading import ImageFile, fingerprint, read_image, with_reading
from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import DatasetInfo, Sample, Target

MAX_NAMED = 3  # classes in a note
DETECTION_OPTIONS: tuple[Option, ...] = (
    SPLIT,
    CLASSES,
    LEAVE_OUT_BAD,
    *READING_OPTIONS,
    flag_option("masks", "True: a box is the outline of objects without one. False: boxes only."),
    Option(
        "crowd",
        "False",
        lambda value: value is False,
        "Read crowds and difficult objects as single objects.",
    ),
)
"""The options of every detection format."""


@dataclass(frozen=True)
class DetectionDataset:
    """Images with boxes, labels and, if every object has an outline, masks.

    Annotations are checked when the dataset is opened. Boxes are clipped to the image.

    Opened for training, objects without area or under a pixel wide or high are dropped, as in
    mmdetection's ``_parse_ann_info``. Then images with a side under 32 pixels or without an object
    are dropped, as in its ``filter_empty_gt``. Crowds alone do not count as objects, as in
    detectron2. No image of train2017 has crowds only, so both tools and this one keep 117,266 of
    its 118,287 images.

    Attributes:
        name: Name in reports.
        classes: Class names.
        table: The images and objects.
        images: Folder that image ids are relative to.
        source: Name of the annotations, for messages.
        has_masks: Whether the ground truth has masks.
        paths: Image id -> its path below ``images`` or its file, where they differ.
        reading: How image files are read.
        notes: What was assumed and repaired.
        image_field: Reads a field of the rows of images: image id -> text. ``None`` if the format
            has no fields.
    """

    name: str
    classes: tuple[str, ...]
    table: CocoTable = field(repr=False)
    images: Path
    source: str
    has_masks: bool = False
    paths: Mapping[str, str | ImageFile] = field(default_factory=dict, repr=False)
    reading: ImageReading = DEFAULT_READING
    notes: tuple[str, ...] = ()
    image_field: Callable[[str], Mapping[str, str]] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def files(self) -> list[ImageFile]:
        """The file of every image."""
        return [self._file(name) for name in self.table.file_names]

    def _file(self, image_id: str) -> ImageFile:
        found = self.paths.get(image_id, image_id)
        return self.images / found if isinstance(found, str) else found

    @cached_property
    def info(self) -> DatasetInfo:
        """Facts about the dataset. For the fingerprint, all images of a small set are read."""
        ids = self.table.file_names
        content = self.table.content() + bytes([self.has_masks])
        info = DatasetInfo(
            self.name,
            "detection",
            self.classes,
            len(ids),
            fingerprint(self.classes, ids, self.files, content),
            self.has_masks,
            notes=self.notes,
        )
        return with_reading(info, self.reading)

    def image_id(self, index: int) -> str:
        """The path of the image below the folder of the split."""
        return self.table.file_names[index]

    def __len__(self) -> int:
        return len(self.table.file_names)

    def target(self, index: int) -> Target:
        """The ground truth of an image. The image is not read."""
        try:
            return self.table.target(range(len(self))[index], self.has_masks)
        except UserError as error:
            raise BadImageError(str(error), "a damaged mask") from None

    def __getitem__(self, index: int, /) -> Sample:
        target = self.target(index)
        path = self._file(target.image_id)
        image = read_image(path, self.reading)
        if image.shape[:2] != target.size:
            raise BadImageError(
                f"Expected {path} to be {target.size[1]}x{target.size[0]} pixels as"
                f" {self.source} says, but it is {image.shape[1]}x{image.shape[0]};"
                " correct the annotations or the image (and its EXIF orientation)",
                "not of the size that its annotations say",
            )
        return Sample(image, target)


def build_detection(
    name: str,
    classes: Sequence[str],
    table: CocoTable,
    images: Path,
    source: str,
    options: OpenOptions,
    paths: Mapping[str, str | ImageFile] | None = None,
    image_field: Callable[[str], Mapping[str, str]] | None = None,
) -> DetectionDataset:
    """Build the dataset of a split, with the options of every detection format applied.

    Args:
        name: Name in reports.
        classes: All classes of the annotations.
        table: Checked images and objects.
        images: Folder that image ids are relative to.
        source: Name of the annotations, for messages.
        options: How the dataset is opened.
        paths: Image id -> its path below ``images`` or its file, where they differ.
        image_field: Reads a field of the rows of images.

    Returns:
        The dataset.

    Raises:
        UserError: If a chosen class does not exist, or no object can be found or learned from.
    """
    kept = chosen_indices(classes, options, "objects of the others are background")
    if kept is not None:
        table, classes = table.with_classes(kept), [classes[index] for index in kept]
    if not len(table.labels):
        raise UserError(
            f"Expected at least one object in {source} of {options.path}, but there is none;"
            " annotate the images or choose other classes"
        )
    table = _apply_crowd(table, source, options)
    note_empty_classes(classes, table, options)
    table, has_masks = _apply_masks(table, source, options)
    if options.training:
        table = table.trainable()
    if not table.file_names:
        raise UserError(
            f"Expected at least one image of {SMALLEST_SIDE} pixels or more with objects in"
            f" {source}, but found none; add some"
        )
    return DetectionDataset(
        name,
        tuple(classes),
        table,
        images,
        source,
        has_masks,
        paths or {},
        options.reading,
        options.notes.sentences(),
        image_field,
    )


def _apply_crowd(table: CocoTable, source: str, options: OpenOptions) -> CocoTable:
    """The table as the option ``crowd`` reads it. A set of crowds only cannot be scored."""
    crowds = int(table.crowd.sum())
    if options.value("crowd") is False:
        options.notes.count("crowds or difficult objects, read as single objects", crowds)
        return replace(table, crowd=np.zeros_like(table.crowd))
    if crowds == len(table.crowd):
        raise UserError(
            f"Expected single objects in {source}, but all {crowds:,} are marked as crowds or"
            " difficult, as CVAT marks masks drawn with SAM, and no detection of them counts;"
            f" {options.spec(crowd=False)} reads them as single objects"
        )
    return table


def note_empty_classes(classes: Sequence[str], table: CocoTable, options: OpenOptions) -> None:
    """Note the classes without an object."""
    counts = np.bincount(table.labels, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]
    if empty:
        listed = ", ".join(empty[:MAX_NAMED]) + (", ..." if len(empty) > MAX_NAMED else "")
        options.notes.say(
            f"{len(empty):,} of the {len(classes):,} classes have no object: {listed}"
        )


def _apply_masks(table: CocoTable, source: str, options: OpenOptions) -> tuple[CocoTable, bool]:
    """The table, and whether masks are used, as the option ``masks`` says.

    Without the option, masks are used if every object has an outline.
    """
    wanted = options.value("masks")
    missing = int(table.without_outline.sum())
    outlined = len(table.labels) - missing
    if wanted is False:
        if outlined:
            options.notes.say("masks are not used, because of masks=False")
        return table, False
    if not outlined and wanted:
        raise UserError(
            f"Expected outlines in {source} for masks=True, but no object has one; leave the option"
            " out"
        )
    if missing and wanted:
        options.notes.count("objects without an outline, whose box is the mask", missing)
        return table.fill_outlines(), True
    if missing and outlined:
        options.notes.say(
            f"masks are not used, because {missing:,} of {len(table.labels):,} objects have no"
            f" outline; {options.spec(masks=True)} takes their box as the outline"
        )
    return table, not missing
