"""The contract of a dataset format: how to open, check and recognise a dataset on disk.

A format is a ``Format`` in a file of its own and one entry in ``stillrobust.data.FORMATS``. Nothing
else in the package knows its name. This folder has the formats of users' own data; the formats of
published sets are in ``stillrobust.data.official``.

Every reader converts its files to the tables of one of three datasets: ``DetectionDataset``,
``MapDataset`` and ``ImageListDataset``. So the same data has the same fingerprint in every format.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillrobust.data.formats.checks import FileChecker, PartCheck
from stillrobust.data.formats.options import OpenOptions, Option
from stillrobust.samples import Dataset, TaskName


def correct_parts(root: Path) -> str:
    """The advice for users' own data."""
    return "Correct or complete the parts that are named."


def check_path(root: Path) -> str:
    """What to do if a folder does not exist."""
    return "check the path"


def no_layout(root: Path) -> None:
    """Recognise nothing, for formats without a telltale."""
    return


@dataclass(frozen=True)
class Format:
    """One layout of a dataset on disk.

    Attributes:
        task: Task that the ground truth is for; ``None`` if the data says it.
        open: ``open(root, split, options)`` returns the dataset of a split, ``"train"`` or
            ``"val"``. It raises ``UserError`` if the folder does not have this layout.
        check: ``check(root, checker, options)`` yields one result per part, in the order of
            display. ``root`` exists.
        detect: ``detect(root)`` returns the options that a spec of this folder needs, ``{}`` if it
            needs none, or ``None`` if the folder does not have this layout. It reads names of
            files and no images.
        options: Options that a user may set in a spec.
        advice: ``advice(root)`` returns one or two sentences on how to get or repair the data.
        absent: ``absent(root)`` returns what to do if there is no such folder.
    """

    task: TaskName | None
    open: Callable[[Path, str, OpenOptions], Dataset]
    check: Callable[[Path, FileChecker, OpenOptions], Iterator[PartCheck]]
    detect: Callable[[Path], Mapping[str, Any] | None] = no_layout
    options: tuple[Option, ...] = ()
    advice: Callable[[Path], str] = correct_parts
    absent: Callable[[Path], str] = check_path
