"""Check a dataset: which parts are whole, which are missing or damaged, and how to get them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stillrobust.data import FORMATS
from stillrobust.data.formats.checks import MAX_LISTED, FileChecker, PartCheck, ProgressCallback
from stillrobust.data.official.sources import ARCHIVES
from stillrobust.errors import UserError
from stillrobust.names import lookup


@dataclass(frozen=True)
class CheckReport:
    """The results of all parts of a dataset."""

    dataset: str
    """Name of the format."""
    root: Path
    parts: tuple[PartCheck, ...]

    @property
    def whole(self) -> bool:
        """Whether every part is whole."""
        return all(part.state == "whole" for part in self.parts)

    def text(self) -> str:
        """One line per part, then a summary and, if needed, how to get what is missing."""
        lines = [f"{part.state:8s} {part.name}: {part.text}" for part in self.parts]
        bad = [part.name for part in self.parts if part.state != "whole"]
        if not bad:
            return "\n".join([*lines, f"{self.dataset} in {self.root} is whole."])
        listed = ", ".join(bad[:MAX_LISTED]) + (", ..." if len(bad) > MAX_LISTED else "")
        advice = repair_advice(self.dataset, self.root)
        return "\n".join(
            [*lines, f"{self.dataset} in {self.root} is not whole ({listed}). {advice}"]
        )


def repair_advice(dataset: str, root: Path) -> str:
    """One or two sentences on how to get or repair a dataset.

    Args:
        dataset: Name of a format.
        root: Folder of the dataset, which need not exist.

    Returns:
        The advice.
    """
    return lookup("dataset format", dataset, FORMATS).advice(root)


def check_dataset(
    dataset: str,
    root: Path,
    full: bool = False,
    progress: ProgressCallback = lambda name, done, total, unit: None,
) -> CheckReport:
    """Check a dataset: counts, empty files, incomplete archives, and whether images decode.

    Args:
        dataset: Name of a format.
        root: Folder of the dataset.
        full: Decode every image instead of 200 images per part.
        progress: Called as files are read.

    Returns:
        The result of every part.

    Raises:
        UserError: If the format is unknown or the folder does not exist.
    """
    check = lookup("dataset format", dataset, FORMATS).check
    if not root.is_dir():
        command = f"`stillrobust data fetch {dataset} {root}`"
        fetch = f", or get the set: {command}" if dataset in ARCHIVES else ""
        raise UserError(
            f"Expected a folder with {dataset} at {root}, but there is none; check the path{fetch}"
        )
    parts = check(root, FileChecker(full, progress))
    return CheckReport(dataset, root, (*parts, *_check_archives(dataset, root)))


def _check_archives(dataset: str, root: Path) -> Iterator[PartCheck]:
    """Archives that are incomplete or not unpacked yet."""
    for archive in ARCHIVES.get(dataset, ()):
        if all((root / archive.folder / name).exists() for name in archive.contents):
            continue
        expected = "" if archive.size is None else f" of {archive.size:,}"
        for path in (root / archive.name, root / archive.folder / archive.name):
            if path.is_file() and archive.size not in (None, path.stat().st_size):
                size = f"{path.stat().st_size:,}{expected} bytes"
                text = f"the archive is cut off or another one: {size}"
                yield PartCheck(archive.name, "damaged", text)
            elif path.is_file():
                yield PartCheck(archive.name, "missing", "the archive is not unpacked")
        partial = root / f".{archive.name}.part"
        if partial.is_file():
            size = f"{partial.stat().st_size:,}{expected} bytes"
            yield PartCheck(archive.name, "missing", f"its download is incomplete: {size}")
