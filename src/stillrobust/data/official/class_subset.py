"""The option ``classes`` of official sets for classification: images of some classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from stillrobust.data.formats.class_names import chosen_indices
from stillrobust.data.formats.options import OpenOptions
from stillrobust.data.reading import derived_fingerprint
from stillrobust.data.views import StoredCorruptions
from stillrobust.errors import UserError
from stillrobust.samples import Dataset, DatasetInfo, Sample, Target


@dataclass(frozen=True)
class ClassSubset:
    """The images of some classes, with labels in their order.

    Attributes:
        dataset: The whole dataset.
        kept: Labels of the chosen classes in ``dataset``.
        indices: The images of these classes in ``dataset``.
        notes: What was left out.
    """

    dataset: Dataset
    kept: tuple[int, ...]
    indices: tuple[int, ...]
    notes: tuple[str, ...]

    @cached_property
    def info(self) -> DatasetInfo:
        """The dataset's info with the classes, size and fingerprint of the subset."""
        base = self.dataset.info
        return replace(
            base,
            classes=tuple(base.classes[label] for label in self.kept),
            size=len(self.indices),
            fingerprint=derived_fingerprint(base.fingerprint, "classes", self.kept),
            notes=(*base.notes, *self.notes),
        )

    def __len__(self) -> int:
        return len(self.indices)

    def image_id(self, index: int) -> str:
        """The id of the image in the whole dataset."""
        return self.dataset.image_id(self.indices[index])

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.dataset[self.indices[index]]
        return Sample(sample.image, self._relabel(sample.target))

    def _relabel(self, target: Target) -> Target:
        assert target.label is not None
        return replace(target, label=self.kept.index(target.label))


class StoredClassSubset(ClassSubset):
    """The same of a dataset with stored corruptions."""

    def corrupted(self, corruption: str, severity: int) -> Dataset:
        """Open the stored images of one corruption at one severity."""
        assert isinstance(self.dataset, StoredCorruptions)
        return ClassSubset(
            self.dataset.corrupted(corruption, severity), self.kept, self.indices, self.notes
        )


def choose_images(dataset: Dataset, labels: Sequence[int], options: OpenOptions) -> Dataset:
    """Apply the option ``classes``.

    Args:
        dataset: The whole dataset.
        labels: Label of every image.
        options: ``classes`` applies.

    Returns:
        The images of these classes; ``dataset`` itself without the option.

    Raises:
        UserError: If a class does not exist, or no image has one.
    """
    kept = chosen_indices(dataset.info.classes, options, "images of the others are left out")
    if kept is None:
        return dataset
    wanted = set(kept)
    indices = tuple(index for index, label in enumerate(labels) if label in wanted)
    if not indices:
        raise UserError(
            f"Expected images of the chosen classes in {options.path}, but there are none; choose"
            " other classes"
        )
    kind = StoredClassSubset if isinstance(dataset, StoredCorruptions) else ClassSubset
    return kind(dataset, tuple(kept), indices, options.notes.sentences())


def require_test_split(dataset: str, options: OpenOptions) -> None:
    """Refuse the option ``split`` with anything but the test set of a set that has no other.

    Args:
        dataset: Name of the dataset.
        options: ``split`` applies.

    Raises:
        UserError: If another split is given.
    """
    split = options.value("split", "val")
    if split not in ("val", "test"):
        raise UserError(
            f"Expected split='val' for {dataset}, whose corruptions are stored for the test images"
            f" only, but got {split!r}; leave split out, or train on {dataset.removesuffix('_c')}"
        )
