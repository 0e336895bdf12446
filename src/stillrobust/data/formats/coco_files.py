"""Find the image files that a COCO file lists, also under the names that other systems write."""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stillrobust.data.formats.options import Notes
from stillrobust.data.image_headers import IMAGE_SUFFIXES
from stillrobust.data.reading import is_text, resolve_inside
from stillrobust.errors import UserError

# Separators of folders and drives on Windows; ``resolve_inside`` decides on such names.
UNSAFE = frozenset("\\:")
ABSOLUTE = re.compile(r"/|[A-Za-z]:[/\\]")
MAX_LISTED = 3  # file names in an error message
TRIED = 20  # images that are looked for to find out what file names are relative to


class MissingImagesError(UserError):
    """Image files that a COCO file lists do not exist."""


@dataclass
class ImageFiles:
    """The image files of a COCO file.

    Attributes:
        folder: Folder of the images, resolved.
        names: Image id of every entry: its path below ``folder``, normalised.
        paths: Image id -> path below ``folder``, where they differ.
        absent: Names of missing files.
    """

    folder: Path
    names: list[str] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)


def locate_images(
    folders: Sequence[Path],
    root: Path,
    entries: dict[int, dict[str, Any]],
    annotations: Path,
    notes: Notes,
    tolerant: bool = False,
) -> ImageFiles:
    """Find every image file. Each folder is listed once.

    Args:
        folders: Folders that may hold the images. The first that has one of them is used.
        root: Folder of the dataset, which names may be relative to.
        entries: Image id -> row of the file.
        annotations: The JSON file, for messages.
        notes: Collects what was assumed.
        tolerant: Return missing files instead of raising an error.

    Returns:
        The files.

    Raises:
        UserError: If a name leaves the folder.
        MissingImagesError: If files are missing and ``tolerant`` is false.
    """
    folder, prefix = _require_base(folders, root, entries, annotations)
    if prefix:
        notes.say(f"file names of {annotations.name} begin with {prefix}")
    found = ImageFiles(folder.resolve())
    names_in: dict[str, _Names] = {}
    for identity, entry in entries.items():
        stated = entry.get("file_name")
        text = stated.removeprefix(prefix) if isinstance(stated, str) else stated
        if isinstance(text, str) and (end := _end_of_absolute(found.folder, text)):
            text = end
            notes.count("absolute file names, found by their end")
        name = text if isinstance(text, str) else ""
        parent, _, base = name.rpartition("/")
        if parent not in names_in:
            names_in[parent] = _Names(_plain_files(found.folder, parent))
        safe = name and not UNSAFE.intersection(name) and name[0] != "/" and is_text(name)
        if not (safe and base in names_in[parent].plain):
            path = resolve_inside(found.folder, text, f"image {identity} of {annotations}")
            if not path.is_file():
                match = names_in[parent].only_match(base)
                notes.count("file names with another case, suffix or form of accents", bool(match))
                found.absent += [] if match else [name]
                name = f"{parent}/{match}".lstrip("/") if match else name
        image_id = unicodedata.normalize("NFC", name)
        found.names.append(image_id)
        if image_id != name:
            found.paths[image_id] = name
    if found.absent and not tolerant:
        listed = ", ".join(found.absent[:MAX_LISTED])
        more = ", ..." if len(found.absent) > MAX_LISTED else ""
        raise MissingImagesError(
            f"Expected the images of {annotations} in {folder}, but {len(found.absent):,} of"
            f" {len(entries):,} images are missing: {listed}{more}; download them or remove their"
            " entries"
        )
    return found


def _require_base(
    folders: Sequence[Path], root: Path, entries: dict[int, dict[str, Any]], annotations: Path
) -> tuple[Path, str]:
    """The folder of the images, and the prefix of file names that is not part of their path."""
    existing = [folder for folder in folders if folder.is_dir()]
    found = _find_base(existing, root, entries)
    if found is None and existing in ([], [root]):
        listed = ", ".join(str(one) for one in folders if one != root)
        raise MissingImagesError(
            f"Expected the images of {annotations} in one of {listed or root}, but none exists;"
            " move them there, or name their folder with the option images"
        )
    return found or (existing[0], "")


def _find_base(
    folders: Sequence[Path], root: Path, entries: dict[int, dict[str, Any]]
) -> tuple[Path, str] | None:
    """The first folder that has one of the first images, and the prefix that their names lose."""
    names = [entry.get("file_name") for entry in list(entries.values())[:TRIED]]
    for folder in folders:
        below = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else ""
        absolute = f"{folder.resolve().as_posix()}/"
        prefixes = ("", f"{below}/", f"{folder.name}/", f"../{below}/", absolute)
        for prefix in dict.fromkeys(prefixes):
            for name in names:
                if not isinstance(name, str) or not name.startswith(prefix) or "\0" in name:
                    continue
                rest = name[len(prefix) :]
                place = folder / rest
                if rest.startswith("/"):
                    continue
                if is_text(name) and ".." not in place.parts and place.is_file():
                    return folder, prefix
    return None


def _end_of_absolute(folder: Path, name: str) -> str:
    """The longest end of an absolute name that is a file below ``folder``; empty without one."""
    if not ABSOLUTE.match(name) or not is_text(name):
        return ""
    parts = [part for part in re.split(r"[/\\]", name) if part]
    if ".." in parts:
        return ""
    ends = ("/".join(parts[first:]) for first in range(len(parts)))
    return next((end for end in ends if (folder / end).is_file()), "")


def _plain_files(folder: Path, parent: str) -> set[str]:
    """Names of the files in ``folder / parent`` without links; empty if it cannot be listed."""
    try:
        place = resolve_inside(folder, parent, "") if parent else folder
        with os.scandir(place) as found:
            return {entry.name for entry in found if entry.is_file(follow_symlinks=False)}
    except (OSError, UserError):
        return set()


class _Names:
    """The names of the files in a folder.

    Attributes:
        plain: The names.
    """

    def __init__(self, plain: set[str]) -> None:
        self.plain = plain

    @cached_property
    def _loose(self) -> dict[str, list[str]]:
        """Name in one case and form, with and without the suffix of an image -> names."""
        found: dict[str, list[str]] = {}
        for name in self.plain:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                for key in {_loose(name), _loose(Path(name).stem)}:
                    found.setdefault(key, []).append(name)
        return found

    def only_match(self, name: str) -> str:
        """The only image that a name can mean in another case, form or without suffix, or ""."""
        found = self._loose.get(_loose(name), [])
        return found[0] if len(found) == 1 else ""


def _loose(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
