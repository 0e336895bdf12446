"""Check a dataset: which parts are whole, which are missing or damaged, and how to get them."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stillrobust.data import (
    FORMATS,
    detect_formats,
    parse_dataset_spec,
    split_dataset_spec,
)
from stillrobust.data.formats.checks import MAX_LISTED, FileChecker, PartCheck, ProgressCallback
from stillrobust.data.official.sources import ARCHIVES
from stillrobust.data.plausibility import data_warnings, summarize_targets
from stillrobust.data.unread_layouts import unread_layout
from stillrobust.errors import UserError
from stillrobust.names import lookup


@dataclass(frozen=True)
class CheckReport:
    """The results of all parts of a dataset."""

    dataset: str
    """Name of the format."""
    spec: str
    """The spec to type: ``FORMAT:PATH`` with its options."""
    root: Path
    parts: tuple[PartCheck, ...]
    notes: tuple[str, ...] = ()
    """What evaluation assumes and repairs."""
    warnings: tuple[str, ...] = ()
    """What the data probably means instead; see ``stillrobust.data.plausibility``."""

    @property
    def whole(self) -> bool:
        """Whether every part is whole and evaluation can start."""
        return all(part.state == "whole" for part in self.parts)

    def text(self) -> str:
        """One line per part, notes, warnings, a summary, and how to get what is missing."""
        lines = []
        for part in self.parts:
            lines.append(f"{part.state:8s} {part.name}: {part.text}")
            lines += [f"{'note':8s} {part.name}: {note}" for note in part.notes]
        lines += [
            f"{'note':8s} {note}"
            for note in self.notes
            if all(note not in part.notes for part in self.parts)
        ]
        lines += [f"{'warning':8s} {warning}" for warning in self.warnings]
        bad = [part.name for part in self.parts if part.state != "whole"]
        if not bad:
            lines += [
                f"{self.dataset} in {self.root} is whole.",
                f"Evaluate on it with --data {quote_spec(self.spec)}",
            ]
            return "\n".join(lines)
        listed = ", ".join(bad[:MAX_LISTED]) + (", ..." if len(bad) > MAX_LISTED else "")
        advice = repair_advice(self.dataset, self.root)
        return "\n".join(
            [*lines, f"{self.dataset} in {self.root} is not whole ({listed}). {advice}"]
        )


def quote_spec(spec: str) -> str:
    """A spec as a word of a shell, in double quotes if it has single quotes only."""
    if "'" in spec and not any(letter in spec for letter in '"$`\\!'):
        return f'"{spec}"'
    return shlex.quote(spec)


def repair_advice(dataset: str, root: Path) -> str:
    """One or two sentences on how to get or repair a dataset.

    Args:
        dataset: Name of a format.
        root: Folder of the dataset, which need not exist.

    Returns:
        The advice.
    """
    return lookup("dataset format", dataset, FORMATS).advice(root)


def find_spec(text: str) -> str:
    """The spec of a dataset that a user named by its spec or its folder alone.

    Args:
        text: ``FORMAT:PATH``, or ``PATH`` of a folder whose format is recognised.

    Returns:
        The spec.

    Raises:
        UserError: If no format or several formats fit the folder.
    """
    head, _ = split_dataset_spec(text)
    path = Path(text).expanduser()
    if head and not path.exists():
        return text
    if not path.is_dir():
        raise UserError(
            f"Expected FORMAT:PATH or a folder, but got {text!r}; check the path, or write"
            f" FORMAT:PATH with FORMAT one of {', '.join(FORMATS)}"
        )
    specs = detect_formats(path)
    if len(specs) != 1:
        if not any(path.iterdir()):
            raise UserError(
                f"Expected a folder with data at {path}, but it is empty; check the path"
            )
        found = f"which may be {' or '.join(specs)}" if specs else "which fits none of them"
        known = "" if specs else unread_layout(path)
        if known:
            raise UserError(
                f"Expected a folder of one format at {path}, but got {known}; see"
                " docs/reference/data.md for"
                " all formats"
            )
        advice = "name one" if specs else "docs/reference/data.md has the layouts"
        raise UserError(
            f"Expected a folder of one format at {path}, but got one {found}; {advice}, or write"
            f" FORMAT:PATH with FORMAT one of {', '.join(FORMATS)}"
        )
    return specs[0]


def check_dataset(
    spec: str,
    full: bool = False,
    progress: ProgressCallback = lambda name, done, total, unit: None,
) -> CheckReport:
    """Check a dataset: counts, empty files, incomplete archives, and whether images decode.

    Args:
        spec: ``FORMAT:PATH``, or ``PATH`` alone.
        full: Decode every image instead of 200 images per part.
        progress: Called as files are read.

    Returns:
        The result of every part. If all are whole, evaluation can start.

    Raises:
        UserError: If the format is unknown or the folder does not exist.
    """
    spec = find_spec(spec)
    data_format, root, options = parse_dataset_spec(spec)
    name = options.format_name
    if not root.is_dir():
        command = f"`stillrobust data fetch {name} {root}`"
        fetch = f", or get the published set: {command}" if name in ARCHIVES else ""
        raise UserError(
            f"Expected a folder with {name} at {root}, but there is none;"
            f" {data_format.absent(root)}{fetch}"
        )
    found = data_format.check(root, FileChecker(full, progress), options)
    parts = [*found, *_check_archives(name, root)]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    if all(part.state == "whole" for part in parts):
        try:
            dataset = data_format.open(root, "val", options)
            notes = options.notes.sentences()
            summary = summarize_targets(dataset)
            warnings = data_warnings(summary)
            if summary.empty == len(dataset):  # of objects, opening a dataset requires one
                text = (
                    f"Expected pixels of a class in the label maps, but all of {len(dataset):,}"
                    " images are ignored; check how the classes are numbered"
                )
                parts.append(PartCheck("evaluation", "damaged", text))
        except UserError as error:
            parts.append(PartCheck("evaluation", "missing", str(error)))
    return CheckReport(name, options.spec(), root, tuple(parts), notes, warnings)


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
