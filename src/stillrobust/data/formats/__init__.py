"""The contract of a dataset format: how to open a dataset on disk, and how to check it.

A format is a ``Format`` in a file of its own and one entry in ``stillrobust.data.FORMATS``. Nothing
else in the package knows its name. This folder has the formats of users' own data; the formats of
published sets are in ``stillrobust.data.official``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stillrobust.data.bad_images import Faults
from stillrobust.data.formats.checks import FileChecker, PartCheck
from stillrobust.samples import Dataset, TaskName


@dataclass(frozen=True)
class OpenOptions:
    """How a dataset is opened. A format ignores the options that do not apply to it."""

    training: bool = False
    """Drop images without objects to learn from, as mmdetection does (``coco``)."""
    part: bool = False
    """Accept an official set with fewer images than published."""
    faults: Faults | None = None
    """Collects images that cannot be used. ``None`` makes the first of them an error."""


def correct_parts(root: Path) -> str:
    """The advice for users' own data."""
    return "Correct or complete the parts that are named."


@dataclass(frozen=True)
class Format:
    """One layout of a dataset on disk.

    Attributes:
        task: Task that the ground truth is for.
        open: ``open(root, split, options)`` returns the dataset of a split, ``"train"`` or
            ``"val"``. It raises ``UserError`` if the folder does not have this layout.
        check: ``check(root, checker)`` yields one result per part, in the order of display.
            ``root`` exists.
        spec_options: Keys that a user may set in a spec: ``part``, ``leave_out_bad``.
        advice: ``advice(root)`` returns one or two sentences on how to get or repair the data.
    """

    task: TaskName
    open: Callable[[Path, str, OpenOptions], Dataset]
    check: Callable[[Path, FileChecker], Iterator[PartCheck]]
    spec_options: tuple[str, ...] = ()
    advice: Callable[[Path], str] = correct_parts
