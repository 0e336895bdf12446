"""Building blocks for the check of a format: reading files, and one result per part.

Formats use them in their ``check`` function; ``stillrobust.data.check`` runs it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from stillrobust.data.reading import ImageFile, subfolders, visible_files
from stillrobust.errors import UserError
from stillrobust.names import format_count

SAMPLE = 200  # images of each part that are decoded, evenly spaced; all of them with ``full``
MAX_LISTED = 3  # file names in one line
BATCH = 100  # images given to the threads at once, so that a million images stay out of memory

ProgressCallback = Callable[[str, int, int, str], None]
"""``(name, done, total, unit)``, called as work goes on."""
State = Literal["whole", "missing", "damaged"]


@dataclass(frozen=True)
class PartCheck:
    """The result of checking one part of a dataset: a split, a corruption or a file."""

    name: str
    state: State
    text: str
    """What was found, without a period."""
    notes: tuple[str, ...] = ()
    """What was assumed and repaired."""

    def with_notes(self, notes: tuple[str, ...]) -> "PartCheck":
        """The same result with notes."""
        return replace(self, notes=notes)


@dataclass(frozen=True)
class FileChecker:
    """Reads the files of a part and reports what is wrong with them.

    Attributes:
        full: Decode every image instead of ``SAMPLE`` images per part.
        progress: Called as files are read.
    """

    full: bool
    progress: ProgressCallback

    def check_files(
        self,
        name: str,
        files: Sequence[ImageFile],
        expected: int | None,
        read: Callable[[int], Any],
        note: str = "",
    ) -> PartCheck:
        """Check the files of one part.

        Args:
            name: Name of the part.
            files: Its files.
            expected: Published number of files, or ``None`` if any number is fine.
            read: Reads the file at an index and raises ``UserError`` if it is bad.
            note: Added to the text of the result.

        Returns:
            ``damaged`` if files are empty or bad, ``missing`` if there are too few, else ``whole``.
        """
        empty = [
            path
            for number, path in enumerate(files)
            if self._is_empty(name, path, number, len(files))
        ]
        if empty:
            text = f"{len(empty):,} of {len(files):,} files are empty or missing"
            return PartCheck(name, "damaged", f"{text}: {join_names(empty)}")
        count = len(files) if self.full else min(SAMPLE, len(files))
        indices = [index * len(files) // count for index in range(count)]
        problems = self._problems(name, indices, read)
        if problems:
            text = f"{len(problems):,} of the {count:,} files read are bad: {problems[0]}"
            return PartCheck(name, "damaged", text)
        if expected is not None and len(files) != expected:
            return PartCheck(name, "missing", f"{len(files):,} of {expected:,} images{note}")
        text = f"{format_count(len(files), 'image')}, {count:,} of them decoded{note}"
        return PartCheck(name, "whole" if files else "missing", text)

    def _problems(self, name: str, indices: Sequence[int], read: Callable[[int], Any]) -> list[str]:
        """The error messages of the files at these indices."""

        def problem(index: int) -> str | None:
            try:
                read(index)
            except UserError as error:
                return str(error)
            return None

        found: list[str] = []
        with ThreadPoolExecutor() as threads:  # decoders release the interpreter lock
            for start in range(0, len(indices), BATCH):
                messages = threads.map(problem, indices[start : start + BATCH])
                found += [message for message in messages if message is not None]
                done = min(start + BATCH, len(indices))
                self.progress(f"read {name}", done, len(indices), "images")
        return found

    def _is_empty(self, name: str, path: ImageFile, number: int, total: int) -> bool:
        if number % 1000 == 0:
            self.progress(f"sizes {name}", number, total, "files")
        try:
            return path.stat().st_size == 0
        except OSError:  # a broken link
            return True


def run_check(name: str, check: Callable[..., PartCheck], *arguments: Any) -> PartCheck:
    """Call ``check(*arguments)``; a ``UserError`` makes the part ``name`` damaged."""
    try:
        return check(*arguments)
    except UserError as error:
        return PartCheck(name, "damaged", str(error))


def check_splits(folder: Path, check: Callable[[str], PartCheck]) -> Iterator[PartCheck]:
    """Check every subfolder of ``folder`` as a split."""
    splits = subfolders(folder)
    if not splits:
        yield PartCheck("splits", "missing", f"there are no folders for train and val in {folder}")
    for split in splits:
        yield run_check(split, check, split)


def read_by_index(read: Callable[[Path], Any], files: Sequence[Path]) -> Callable[[int], Any]:
    """A function that reads the file at an index with ``read``."""
    return lambda index: read(files[index])


def unread_files_note(folder: Path, files: Sequence[ImageFile]) -> str:
    """A note on files in ``folder`` that are not among the images ``files``; else empty."""
    known = set(files)
    others = sorted(path for path in visible_files(folder) if path not in known)
    return f", {len(others):,} other files are not read: {join_names(others)}" if others else ""


def join_names(paths: Sequence[ImageFile]) -> str:
    """The first file names, separated by commas."""
    more = ", ..." if len(paths) > MAX_LISTED else ""
    return ", ".join(path.name for path in paths[:MAX_LISTED]) + more
