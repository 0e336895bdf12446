"""Views of a dataset: with corrupted images, and with a part of the images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stillrobust.data.image_cache import ImageCache
from stillrobust.data.reading import derived_fingerprint
from stillrobust.errors import UserError
from stillrobust.samples import Array, Dataset, DatasetInfo, Image, Sample, Target
from stillrobust.user_files import display_name, with_content_hash


@runtime_checkable
class StoredCorruptions(Dataset, Protocol):
    """A dataset whose corrupted images come from files, such as ImageNet-C.

    Seed, draws, regime and channel order were chosen by the maker of the files.
    """

    def corrupted(self, corruption: str, severity: int) -> Dataset:
        """Open the images of one corruption at one severity.

        Args:
            corruption: Name of a stored corruption.
            severity: 1 to 5.

        Returns:
            A dataset with the image ids of the clean dataset, in its order.

        Raises:
            UserError: If images are missing.
        """
        ...


def has_stored_corruptions(dataset: Dataset) -> bool:
    """Whether the dataset, or the dataset that it is a subset of, has stored corruptions."""
    return isinstance(
        dataset.dataset if isinstance(dataset, Subset) else dataset, StoredCorruptions
    )


def corrupted_view(dataset: Dataset, corruption: str, severity: int, **how: Any) -> Dataset:
    """A dataset under one corruption at one severity.

    Args:
        dataset: The clean dataset.
        corruption: Name of a corruption.
        severity: 0 (clean) to 5.
        **how: Further arguments of ``CorruptedView``; unused for stored corruptions.

    Returns:
        ``dataset`` itself at severity 0, its stored images if it has any, else a ``CorruptedView``.
    """
    if severity == 0:
        return dataset
    if isinstance(dataset, Subset) and isinstance(dataset.dataset, StoredCorruptions):
        return Subset(dataset.dataset.corrupted(corruption, severity), dataset.indices)
    if isinstance(dataset, StoredCorruptions):
        return dataset.corrupted(corruption, severity)
    return CorruptedView(dataset, corruption, severity, **how)


def read_target(dataset: Dataset, index: int) -> Target:
    """The ground truth of an image. The image is only read if the format requires it.

    Args:
        dataset: A dataset, a subset or a corrupted view.
        index: Index in ``dataset``.
    """
    target: Callable[[int], Target] | None = getattr(dataset, "target", None)
    return dataset[index].target if target is None else target(index)


@dataclass(frozen=True)
class CorruptedView:
    """The samples of a dataset with corrupted images.

    Random draws depend on the seed, the corruption, the severity and the image id only, never on
    the order in which images are read.

    Attributes:
        dataset: The clean dataset.
        corruption: Name of a corruption.
        severity: 0 to 5; at 0 the images stay clean.
        seed: Seed of the draws.
        draws: ``exact`` or ``fast``.
        regime: Severity table.
        channel_order: ``rgb`` or ``bgr``.
        warp_truth: Move the ground truth with corruptions that move pixels. As published, it stays.
        shared: Cache of corrupted images for other models. It does not change any pixel.
    """

    dataset: Dataset
    corruption: str
    severity: int
    seed: int = 0
    draws: str = "fast"
    regime: str = "imagenet"
    channel_order: str = "rgb"
    warp_truth: bool = False
    shared: ImageCache | None = None

    @cached_property
    def info(self) -> DatasetInfo:
        """The dataset's info; name and fingerprint differ unless the severity is 0."""
        base = self.dataset.info
        if self.severity == 0:
            return base
        how = (
            with_content_hash(self.corruption),
            self.severity,
            self.seed,
            self.draws,
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
        return self.corrupt_sample(self.dataset[index])

    def image_id(self, index: int) -> str:
        """The id of the image in the underlying dataset."""
        return self.dataset.image_id(index)

    def corrupt_sample(self, sample: Sample) -> Sample:
        """Corrupt a sample of the dataset.

        Args:
            sample: A clean sample.

        Returns:
            The sample with a corrupted image and, with ``warp_truth``, a warped target.
        """
        if self.severity == 0:
            return sample
        # Imported here, because reading data does not need the dependencies of corruptions.
        from stillrobust.corruptions import corrupt, corruption_protocol

        drawn = self._draws(sample.target.image_id)

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
            how = corruption_protocol(self.draws, self.regime, self.channel_order)
            how |= {
                "corruption": with_content_hash(self.corruption),
                "severity": self.severity,
                **drawn,
            }
            image = self.shared.image(sample.image, how, corrupted)
        return Sample(image, self._warped(sample.target))

    def target(self, index: int) -> Target:
        """The ground truth of an image, warped with ``warp_truth``. Nothing is corrupted."""
        return self._warped(read_target(self.dataset, index))

    def _warped(self, target: Target) -> Target:
        from stillrobust.corruptions import GEOMETRIC, displacement

        if not self.warp_truth or self.severity == 0 or self.corruption not in GEOMETRIC:
            return target
        drawn = self._draws(target.image_id)
        return warp_target(
            target, displacement(target.size, self.corruption, self.severity, **drawn)
        )

    def _draws(self, image_id: str) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "image_id": image_id,
            "draws": self.draws,
            "regime": self.regime,
        }


def warp_target(target: Target, field: Array) -> Target:
    """Warp boxes, masks and label maps by a displacement field.

    Args:
        target: Ground truth of an image of size (H, W).
        field: float (H, W, 2), in pixels.

    Returns:
        The warped target, without objects that are no longer visible.
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

    warped = replace(target, boxes=boxes[seen], masks=visible(masks), areas=visible(areas))
    return replace(warped, labels=visible(target.labels), crowd=visible(target.crowd))


@dataclass(frozen=True)
class Subset:
    """Some samples of a dataset.

    Attributes:
        dataset: The whole dataset.
        chosen: A number n for the first n samples, or indices in their order.
        indices: The indices in ``dataset``.
    """

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
        """The dataset's info with the size and fingerprint of the subset."""
        base = self.dataset.info
        if self.indices == tuple(range(base.size)):
            return base
        digest = derived_fingerprint(base.fingerprint, "subset", self.indices)
        return replace(base, size=len(self.indices), fingerprint=digest)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.dataset[self.indices[index]]

    def image_id(self, index: int) -> str:
        """The id of the image in the underlying dataset."""
        return self.dataset.image_id(self.indices[index])

    def target(self, index: int) -> Target:
        """The ground truth of an image, by ``read_target``."""
        return read_target(self.dataset, self.indices[index])
