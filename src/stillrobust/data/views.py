"""Datasets made from other datasets: a corrupted one, and a part of one."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stillrobust.data.reading import derived_fingerprint
from stillrobust.data.shared import SharedImages
from stillrobust.errors import UserError
from stillrobust.samples import Array, Dataset, DatasetInfo, Image, Sample, Target
from stillrobust.user_files import display_name, with_content_hash


@runtime_checkable
class StoredCorruptions(Dataset, Protocol):
    """A dataset whose corrupted images come from files, such as ImageNet-C: nothing is drawn, so
    nothing of that can be chosen.
    """

    def corrupted(self, corruption: str, severity: int) -> Dataset:
        """The images of one cell, with the clean set's ids in its order; ``UserError`` where they
        are not all there.
        """
        ...


def has_stored(dataset: Dataset) -> bool:
    """Whether the dataset, or the one it is a part of, comes with its corruptions."""
    return isinstance(
        dataset.dataset if isinstance(dataset, Subset) else dataset, StoredCorruptions
    )


def corrupted_view(dataset: Dataset, corruption: str, severity: int, **how: Any) -> Dataset:
    """One cell of a dataset: as it is at severity 0, its stored images where it has some, else
    computed (``CorruptedView``).
    """
    if severity == 0:
        return dataset
    if isinstance(dataset, Subset) and isinstance(dataset.dataset, StoredCorruptions):
        return Subset(dataset.dataset.corrupted(corruption, severity), dataset.indices)
    if isinstance(dataset, StoredCorruptions):
        return dataset.corrupted(corruption, severity)
    return CorruptedView(dataset, corruption, severity, **how)


@dataclass(frozen=True)
class CorruptedView:
    """The same samples with corrupted images; severity 0 leaves them clean.

    What is drawn at random depends on the seed, the corruption, the severity and the image's id
    alone, never on the order in which images are read.
    """

    dataset: Dataset
    corruption: str
    severity: int
    seed: int = 0
    mode: str = "fast"
    regime: str = "imagenet"
    channel_order: str = "rgb"
    warp_truth: bool = False
    """Ground truth follows the corruptions that move pixels; as published, it does not."""
    shared: SharedImages | None = None
    """Where corrupted images are kept for the next model; decides nothing."""

    @cached_property
    def info(self) -> DatasetInfo:
        """The dataset's own, with a fingerprint of its own unless the severity is 0."""
        base = self.dataset.info
        if self.severity == 0:
            return base
        how = (
            with_content_hash(self.corruption),
            self.severity,
            self.seed,
            self.mode,
            self.regime,
            self.channel_order,
            self.warp_truth,
        )
        digest = derived_fingerprint(base.fingerprint, "corrupted", *how)
        return replace(
            base,
            name=f"{base.name} + {display_name(self.corruption)} {self.severity}",
            fingerprint=digest,
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Sample:
        return self.applied_to(self.dataset[index])

    def applied_to(self, sample: Sample) -> Sample:
        """The corrupted version of a sample of the dataset."""
        if self.severity == 0:
            return sample
        # Imported here: reading data must not need the corruptions' dependencies.
        from stillrobust.corruptions import FIELDS, corrupt, displacement, protocol

        target = sample.target
        drawn: dict[str, Any] = {
            "seed": self.seed,
            "image_id": target.image_id,
            "mode": self.mode,
            "regime": self.regime,
        }

        def corrupted() -> Image:
            return corrupt(
                sample.image,
                self.corruption,
                self.severity,
                channel_order=self.channel_order,
                **drawn,
            )

        if self.shared is None:
            image = corrupted()
        else:
            how = protocol(self.mode, self.regime, self.channel_order)
            how |= {
                "corruption": with_content_hash(self.corruption),
                "severity": self.severity,
                **drawn,
            }
            image = self.shared.image(sample.image, how, corrupted)
        if self.warp_truth and self.corruption in FIELDS:
            target = warp_target(
                target, displacement(target.size, self.corruption, self.severity, **drawn)
            )
        return Sample(image, target)


def warp_target(target: Target, field: Array) -> Target:
    """Boxes, masks and label maps moved by a displacement field (H, W, 2); objects that are out of
    sight are left out.
    """
    from stillrobust.corruptions.displacement import extents, warp_boxes, warp_map

    if target.label_map is not None:
        return replace(target, label_map=warp_map(target.label_map, field))
    if target.boxes is None:
        return target
    masks = None if target.masks is None else warp_map(target.masks, field)
    boxes = (
        warp_boxes(target.boxes, field)
        if masks is None
        else np.array([extents(m) for m in masks], np.float32).reshape(-1, 4)
    )
    seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    areas = target.areas if masks is None else masks.sum(axis=(1, 2)).astype(np.float64)

    def visible(values: Array | None) -> Array | None:
        return None if values is None else values[seen]

    own = replace(target, boxes=boxes[seen], masks=visible(masks), areas=visible(areas))
    return replace(own, labels=visible(target.labels), crowd=visible(target.crowd))


@dataclass(frozen=True)
class Subset:
    """Some samples of a dataset: the first ``n``, or those at the given indices, in their order."""

    dataset: Dataset
    chosen: int | Iterable[int]
    indices: tuple[int, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        size = len(self.dataset)
        first = self.chosen if isinstance(self.chosen, int) else None
        indices = range(min(first, size)) if first is not None else self.chosen
        object.__setattr__(self, "indices", tuple(int(index) for index in indices))  # type: ignore[union-attr]
        if not self.indices or min(self.indices) < 0 or max(self.indices) >= size:
            raise UserError(
                f"Expected at least one index in 0..{size - 1} for a subset, but got"
                f" {self.chosen!r:.60}; choose indices of the dataset"
            )

    @cached_property
    def info(self) -> DatasetInfo:
        """The dataset's own, with the size and a fingerprint of the part."""
        base = self.dataset.info
        if self.indices == tuple(range(base.size)):
            return base
        digest = derived_fingerprint(base.fingerprint, "subset", self.indices)
        return replace(base, size=len(self.indices), fingerprint=digest)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.dataset[self.indices[index]]
