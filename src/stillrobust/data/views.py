"""Datasets made from other datasets: a corrupted one, and a part of one."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from stillrobust.data.reading import derived_fingerprint
from stillrobust.errors import UserError
from stillrobust.samples import Dataset, DatasetInfo, Sample


@dataclass(frozen=True)
class CorruptedView:
    """The same samples with corrupted images; severity 0 leaves them clean.

    What is drawn at random depends on the seed, the corruption, the severity and the image's id alone, never on the
    order in which images are read.
    """

    dataset: Dataset
    corruption: str
    severity: int
    seed: int = 0
    mode: str = "fast"
    regime: str = "imagenet"
    channel_order: str = "rgb"

    @cached_property
    def info(self) -> DatasetInfo:
        """The dataset's own, with a fingerprint of its own unless the severity is 0."""
        base = self.dataset.info
        if self.severity == 0:
            return base
        how = self.corruption, self.severity, self.seed, self.mode, self.regime, self.channel_order
        digest = derived_fingerprint(base.fingerprint, "corrupted", *how)
        return replace(base, name=f"{base.name} + {self.corruption} {self.severity}", fingerprint=digest)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.dataset[index]
        if self.severity == 0:
            return sample
        # Imported here: reading data must not need the corruptions' dependencies.
        from stillrobust.corruptions import corrupt

        image = corrupt(
            sample.image,
            self.corruption,
            self.severity,
            seed=self.seed,
            image_id=sample.target.image_id,
            mode=self.mode,
            regime=self.regime,
            channel_order=self.channel_order,
        )
        return Sample(image, sample.target)


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
            raise UserError(f"Expected at least one index in 0..{size - 1} for a subset, but got {self.chosen!r:.60}")

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
