"""Images that cannot be used: an error by default, or left out and counted.

``DatasetInfo.left_out`` lists what was left out. It becomes part of the protocol and of the key of
every measurement.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from stillrobust.data.reading import derived_fingerprint
from stillrobust.data.views import read_target
from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import Dataset, DatasetInfo, Sample, Target

Faults = dict[str, str]
"""Image id, or the name of another file or annotation -> its fault (``BadImage.fault``)."""
LISTED_BUT_MISSING = "listed, but missing"
"""Fault of an image that annotations list."""
BATCH = 1000  # images given to the threads at once, so that a million images stay out of memory


def record_fault(faults: Faults | None, name: str, error: BadImageError) -> None:
    """Record the fault of ``name``, or raise ``error`` if ``faults`` is ``None``."""
    if faults is None:
        raise error
    faults[name] = error.fault


@dataclass(frozen=True)
class UsableImages:
    """The images of a dataset that can be used, in its order."""

    dataset: Dataset
    indices: tuple[int, ...]
    """Indices in ``dataset``."""
    left_out: tuple[tuple[str, str], ...]
    """(name, fault) of everything that was left out, sorted."""

    @cached_property
    def info(self) -> DatasetInfo:
        """The dataset's info with another size and fingerprint, and with ``left_out``."""
        base = self.dataset.info
        digest = derived_fingerprint(base.fingerprint, "left out", self.left_out)
        return replace(base, size=len(self.indices), fingerprint=digest, left_out=self.left_out)

    def __len__(self) -> int:
        return len(self.indices)

    def image_id(self, index: int) -> str:
        """The id of the image in the underlying dataset."""
        return self.dataset.image_id(self.indices[index])

    def __getitem__(self, index: int, /) -> Sample:
        return self.dataset[self.indices[index]]

    def target(self, index: int) -> Target:
        """The ground truth of an image, by ``read_target``."""
        return read_target(self.dataset, self.indices[index])


def exclude_bad_images(dataset: Dataset, faults: Faults) -> Dataset:
    """Leave out the images that cannot be read.

    Every image is read once, which takes as long as decoding the whole dataset.

    Args:
        dataset: Dataset to read.
        faults: What was left out when the dataset was opened. Unreadable images are added.

    Returns:
        ``dataset`` itself if nothing is wrong, else a ``UsableImages``.

    Raises:
        UserError: If no image can be used.
    """
    fault_of = dict(enumerate(_read_faults(dataset)))
    faults |= {dataset.image_id(index): fault for index, fault in fault_of.items() if fault}
    if not faults:
        return dataset
    kept = tuple(index for index, fault in fault_of.items() if not fault)
    if not kept:
        raise UserError(
            "Expected images that can be used, but all are bad:"
            f" {format_fault_counts(tuple(faults.items()))}; replace them"
        )
    return UsableImages(dataset, kept, tuple(sorted(faults.items())))


def _read_faults(dataset: Dataset) -> Iterator[str]:
    """The fault of every image; empty for an image that can be read."""

    def fault(index: int) -> str:
        try:
            dataset[index]
        except BadImageError as error:
            return error.fault
        return ""

    with ThreadPoolExecutor() as threads:  # decoders release the interpreter lock
        for start in range(0, len(dataset), BATCH):
            yield from threads.map(fault, range(start, min(start + BATCH, len(dataset))))


def count_faults(left_out: tuple[tuple[str, str], ...]) -> dict[str, int]:
    """The number of entries with each fault, sorted by fault.

    Args:
        left_out: (name, fault) pairs, as in ``DatasetInfo.left_out``.

    Returns:
        Fault -> count.
    """
    faults = [fault for _, fault in left_out]
    return {fault: faults.count(fault) for fault in sorted(set(faults))}


def format_fault_counts(left_out: tuple[tuple[str, str], ...]) -> str:
    """The counts as text, such as ``2 cut off or empty, 1 not there``."""
    return ", ".join(f"{count:,} {fault}" for fault, count in count_faults(left_out).items())
