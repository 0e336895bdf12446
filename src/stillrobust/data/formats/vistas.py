"""Classes of Mapillary Vistas: ``config.json`` lists names, colours and what is scored."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillrobust.data.formats.label_files import Colour
from stillrobust.errors import UserError
from stillrobust.samples import IGNORE
from stillrobust.untrusted import parse_json, read_regular_file

VERSION = re.compile(r"v\d+(\.\d+)*")
"""Folder of the labels of one version of the classes, such as ``v2.0``."""


@dataclass(frozen=True)
class VistasClasses:
    """The classes of a configuration, by label id.

    Attributes:
        file: Name of the configuration.
        names: Class names, as people read them.
        colours: Colours of the classes.
        scored: Ids of the classes that are evaluated; all others are ignored.
    """

    file: str
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    scored: tuple[int, ...]


def find_vistas_classes(root: Path, labels: str) -> VistasClasses | None:
    """Read the configuration beside the splits.

    Args:
        root: Folder of the dataset.
        labels: Folder of the label maps below it; a version in it chooses the configuration.

    Returns:
        The classes; ``None`` if there is no configuration of this kind.

    Raises:
        UserError: If the configuration is damaged.
    """
    version = next((part for part in Path(labels).parts if VERSION.fullmatch(part)), "")
    names = (
        [f"config_{version}.json"]
        if version
        else sorted(path.name for path in root.glob("config_v*.json"))
    )
    names = [name for name in (*names, "config.json") if (root / name).is_file()]
    if not names:
        return None
    if len(names) > 1 and not version:
        raise UserError(
            f"Expected one list of classes in {root}, but found {' and '.join(names)}; move all but"
            " that of the label maps away"
        )
    return _read(root / names[0])


def _read(path: Path) -> VistasClasses | None:
    try:
        content = parse_json(read_regular_file(path))
    except (OSError, ValueError, RecursionError):
        return None  # a file of another tool
    entries = content.get("labels") if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(one, Mapping) for one in entries):
        return None
    if not any("color" in one for one in entries):
        return None
    wrong = next((one for one in entries if not _is_label(one)), None)
    if wrong is not None or len(entries) > IGNORE:
        raise UserError(
            f"Expected at most {IGNORE} labels with name and color in {path}, but got"
            f" {str(wrong or len(entries))[:80]}; correct the file, or list the names in a"
            " classes.txt"
        )
    readable = [str(one.get("readable", one["name"])) for one in entries]
    names = readable if len(set(readable)) == len(readable) else [one["name"] for one in entries]
    return VistasClasses(
        path.name,
        tuple(names),
        tuple((red, green, blue) for red, green, blue in (one["color"] for one in entries)),
        tuple(n for n, one in enumerate(entries) if one.get("evaluate", True)),
    )


def _is_label(entry: Mapping[str, Any]) -> bool:
    colour = entry.get("color")
    return (
        isinstance(entry.get("name"), str)
        and isinstance(colour, list)
        and len(colour) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in colour)
    )
