"""Images that cannot be used: refused when they are met, or found beforehand, left out and counted.

What is left out goes into ``DatasetInfo.left_out``, and from there into the protocol and the key of
every number.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from stillrobust.data.reading import derived_fingerprint
from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import Dataset, DatasetInfo, Sample

LeftOut = dict[str, str]
"""Image id, or what else was left out -> the fault, in the words of ``BadImageError.fault``."""
BATCH = 1000  # images handed to the threads at once, so that a million is not


def leave_out(left_out: LeftOut | None, name: str, error: BadImageError) -> None:
    """Put ``name`` down, or raise ``error`` where nothing may be left out."""
    if left_out is None:
        raise error
    left_out[name] = error.fault


@dataclass(frozen=True)
class WithoutBad:
    """The images of a dataset that can be used, in its order."""

    dataset: Dataset
    indices: tuple[int, ...]
    left_out: tuple[tuple[str, str], ...]
    """(name, fault), sorted."""

    @cached_property
    def info(self) -> DatasetInfo:
        """The dataset's own, with what was left out, and the size and fingerprint of what is left."""
        base = self.dataset.info
        digest = derived_fingerprint(base.fingerprint, "left out", self.left_out)
        return replace(base, size=len(self.indices), fingerprint=digest, left_out=self.left_out)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.dataset[self.indices[index]]


def without_bad(dataset: Any, left_out: LeftOut) -> Dataset:
    """``dataset`` without the images that cannot be read: every one is read once, which takes as
    long as decoding the set.

    ``dataset`` has ``image_id(index)``; ``left_out`` is what it left out when it was opened. Where
    nothing is wrong it comes back as it is. Raises ``UserError`` where nothing is left.
    """
    faults = dict(enumerate(_faults(dataset)))
    left_out |= {dataset.image_id(index): fault for index, fault in faults.items() if fault}
    if not left_out:
        return dataset  # type: ignore[no-any-return]
    kept = tuple(index for index, fault in faults.items() if not fault)
    if not kept:
        raise UserError(
            "Expected images that can be used, but all are bad:"
            f" {counted(tuple(left_out.items()))}; replace them"
        )
    return WithoutBad(dataset, kept, tuple(sorted(left_out.items())))


def _faults(dataset: Dataset) -> Iterator[str]:
    """The fault of every image, empty where there is none."""

    def fault(index: int) -> str:
        try:
            dataset[index]
        except BadImageError as error:
            return error.fault
        return ""

    with ThreadPoolExecutor() as threads:  # decoders leave the interpreter alone
        for start in range(0, len(dataset), BATCH):
            yield from threads.map(fault, range(start, min(start + BATCH, len(dataset))))


def counts_of(left_out: tuple[tuple[str, str], ...]) -> dict[str, int]:
    """Fault -> how many have it, sorted by the fault."""
    faults = [fault for _, fault in left_out]
    return {fault: faults.count(fault) for fault in sorted(set(faults))}


def counted(left_out: tuple[tuple[str, str], ...]) -> str:
    """``2 cut off or empty, 1 not there``."""
    return ", ".join(f"{count:,} {fault}" for fault, count in counts_of(left_out).items())
