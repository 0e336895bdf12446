"""The ``obj.data`` of Darknet, as datumaro and CVAT write YOLO datasets: the keys of a YAML file.

Its paths begin with ``data/``, a folder of Darknet itself that exports do not have.
"""

from pathlib import Path
from typing import Any

from stillrobust.data.formats.class_names import read_lines
from stillrobust.errors import UserError

DARKNET = "obj.data"
PREFIX = "data/"


def find_listed(folder: Path, name: str) -> Path:
    """The file that a line of a list means.

    Args:
        folder: Folder of the list.
        name: A path relative to it, with or without ``data/`` in front.

    Returns:
        The path without ``data/`` if only that exists, otherwise as it is written.
    """
    stated, inner = folder / name, folder / name.removeprefix(PREFIX)
    return inner if inner.exists() and not stated.exists() else stated


def read_darknet(path: Path) -> dict[str, Any]:
    """Read ``obj.data`` as the keys of ``data.yaml``.

    Args:
        path: The file, with a line ``key = value`` for each key.

    Returns:
        ``names``, ``nc``, and the list of images of each split.

    Raises:
        UserError: If there is no list of names.
    """
    pairs = (line.partition("=") for line in read_lines(path))
    given = {key.strip(): value.strip() for key, equals, value in pairs if equals}
    names = find_listed(path.parent, given.get("names", ""))
    if not names.is_file():
        raise UserError(
            f"Expected a line 'names = FILE' in {path} with the file of class names, but there is"
            f" no file {names}; add it"
        )
    content: dict[str, Any] = {
        "names": [line.strip() for line in read_lines(names) if line.strip()]
    }
    if given.get("classes", "").isdecimal():
        content["nc"] = int(given["classes"])
    for split in ("train", "val", "valid", "test"):
        if given.get(split):
            listed = find_listed(path.parent, given[split])
            content[split] = listed.relative_to(path.parent).as_posix()
    return content
