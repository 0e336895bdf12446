"""Splits of a dataset: which exist, which one is read, and where its files are."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from stillrobust.data.formats.checks import FileChecker, PartCheck, run_check, unread_files_note
from stillrobust.data.formats.options import OpenOptions
from stillrobust.errors import UserError

ALIASES = {
    "val": ("val", "valid", "validation", "test", "testing"),
    "train": ("train", "training"),
}
"""Split -> names that it has in other layouts, in the order in which they are tried."""
SPLIT_NAMES = tuple(name for names in ALIASES.values() for name in names)
UNNAMED = "default"
"""The name of the split of a dataset without splits, as CVAT writes it."""
NOT_CLASSES = frozenset({"__MACOSX", "@eaDir", "lost+found"})  # written by systems, not by users


def choose_split(asked: str, existing: Collection[str], root: Path, options: OpenOptions) -> str:
    """The split to read. A choice other than ``asked`` becomes a note.

    Args:
        asked: ``"train"`` or ``"val"``; the option ``split`` replaces it.
        existing: Names of the existing splits. ``UNNAMED`` alone stands for a set without splits.
        root: Folder of the dataset.
        options: ``split`` and ``notes`` apply.

    Returns:
        One of ``existing``.

    Raises:
        UserError: If there is no such split; the message has a spec for each that exists.
    """
    wanted = str(options.value("split", asked))
    if not root.is_dir():
        raise UserError(
            f"Expected a folder of the format {options.format_name or 'of the dataset'} at {root},"
            " but there is no such folder; check the path"
        )
    if wanted in existing:
        return wanted
    for name in ALIASES.get(wanted, ()):
        if name in existing:
            options.notes.say(f"there is no split {wanted!r}; {name!r} is read in its place")
            return name
    if list(existing) == [UNNAMED] and wanted in ALIASES:
        options.notes.say(
            f"the set has no splits, so all of it is read as {wanted!r}; training and evaluation"
            " would share images"
        )
        return UNNAMED
    specs = " or ".join(options.spec(split=name) for name in sorted(existing))
    advice = f"choose one that exists: {specs}" if specs else "check the path and the format"
    listed = ", ".join(sorted(existing)) or "none"
    raise UserError(
        f"Expected split {wanted!r} in {root}, but it is missing (splits found: {listed}); {advice}"
    )


def order_splits(names: Collection[str]) -> list[str]:
    """Names of splits in the order train, val, others."""
    known = [name for name in ("train", "training", *ALIASES["val"]) if name in names]
    return [*known, *sorted(set(names) - set(known))]


def inside_root(root: Path, pattern: str, split: str) -> Path:
    """The place that an option names: ``{split}`` in it stands for the split.

    Args:
        root: Folder of the dataset.
        pattern: Value of an option such as ``images``.
        split: Name of the split.

    Returns:
        A path below ``root``.

    Raises:
        UserError: If the place is outside ``root``.
    """
    place = root / pattern.replace("{split}", split)
    if not place.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"Expected a place inside {root}, but got {pattern!r}; give a path relative to it"
        )
    return place


def splits_check(
    open_split: Callable[[Path, str, OpenOptions], Any],
    list_splits: Callable[[Path, OpenOptions], Collection[str]],
) -> Callable[[Path, FileChecker, OpenOptions], Iterator[PartCheck]]:
    """The check of a format: open every split as for evaluation and read its images.

    Args:
        open_split: Opens a split; the dataset has ``files``, the path of every image.
        list_splits: Returns the splits of a folder.

    Returns:
        ``Format.check``.
    """

    def check_split(root: Path, split: str, checker: FileChecker, given: OpenOptions) -> PartCheck:
        checker.progress(f"open {split}", 0, 1, "annotations")
        options = given.renewed(split=split)
        data = open_split(root, split, options)
        name = root.name if split == UNNAMED else split
        folder = getattr(data, "folder", None)
        unread = unread_files_note(folder, data.files) if folder else ""
        part = checker.check_files(name, data.files, None, data.__getitem__, unread)
        return part.with_notes(options.notes.sentences())

    def check(root: Path, checker: FileChecker, options: OpenOptions) -> Iterator[PartCheck]:
        chosen = options.value("split")
        found = order_splits(list_splits(root, options))
        for split in [chosen] if chosen else found:
            yield run_check(split, check_split, root, split, checker, options)
        if not found:
            yield PartCheck("splits", "missing", f"there is none in {root}")

    return check
