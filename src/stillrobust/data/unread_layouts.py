"""Layouts of annotation tools that no format reads, and what to export in their place."""

from itertools import chain, islice
from pathlib import Path

HEAD = 4096  # bytes of a file that are looked at
TRIED = 5  # files of a kind
LAYOUTS = (
    (".json", b'"shapes"', "JSON files of labelme; convert them with its labelme2coco.py to COCO"),
    (".xml", b"<annotation>", "XML files that are no Pascal VOC; export the set as COCO"),
    (".xml", b"<annotations>", "an XML file of CVAT; export the task there as 'COCO 1.0'"),
    (
        ".json",
        b'"dm_format_version"',
        "datumaro's own JSON; export it with `datum convert -f coco`",
    ),
)
"""Suffix, a piece of the file's head, and what it is."""


def unread_layout(root: Path) -> str:
    """Name the layout of a folder that no format reads.

    Args:
        root: A folder.

    Returns:
        What it holds and what to do, or "" if it is not known.
    """
    if (root / "images").is_dir() and next((root / "labels").rglob("*.txt"), None):
        return (
            "images/ and text files in labels/ without the names of classes; write"
            f" {root / 'data.yaml'} with the line 'names: [first, second]', in the order of the"
            " class numbers"
        )
    for suffix, piece, sentence in LAYOUTS:
        places = chain.from_iterable(
            root.glob(f"{folders}*{suffix}") for folders in ("", "*/", "*/*/")
        )
        files = (path for path in places if path.is_file())
        if any(piece in _head(path) for path in islice(files, TRIED)):
            return sentence
    return ""


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""
