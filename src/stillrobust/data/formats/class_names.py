"""Class names: lists in files, colours of classes, and the option ``classes``."""

import csv
from collections.abc import Sequence
from pathlib import Path

from stillrobust.data.formats.label_files import Colour
from stillrobust.data.formats.options import OpenOptions
from stillrobust.data.reading import is_text
from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.samples import IGNORE
from stillrobust.untrusted import read_user_text

COLOUR_FILES = ("class_dict.csv", "label_colors.txt", "labelmap.txt")
"""Files that list the colours of classes: ``name,r,g,b``, ``r g b name`` and ``name:r,g,b::``."""


LARGEST = 1 << 30  # bytes of a text file: ten million rows of 100 characters


def chosen_indices(classes: Sequence[str], options: OpenOptions, others: str) -> list[int] | None:
    """The indices of the classes that the option ``classes`` names, in its order.

    Args:
        classes: All classes of the dataset.
        options: ``classes`` and ``notes`` apply.
        others: What happens to the other classes, for the note.

    Returns:
        The indices, or ``None`` without the option or if it names all classes in their order.

    Raises:
        UserError: If a name is unknown, or cannot be written as UTF-8, as records are.
    """
    broken = [name for name in classes if not is_text(name)]
    if broken:
        raise UserError(
            f"Expected class names that can be written as UTF-8 in {options.path}, but got"
            f" {broken[0]!r:.80}; rename the class"
        )
    names = options.value("classes")
    if names is None or list(names) == list(classes):
        return None
    table = {name: index for index, name in enumerate(classes)}
    kept = [lookup("class", name, table) for name in names]
    options.notes.say(f"{len(kept)} of {len(classes)} classes are used; {others}")
    return kept


def read_names(path: Path) -> list[str]:
    """Read a list of class names, one a line.

    Args:
        path: A text file such as ``classes.txt``.

    Returns:
        One name per class.

    Raises:
        UserError: If the file is not UTF-8, or names are missing, duplicate or too many.
    """
    names = [line.strip() for line in read_lines(path) if line.strip()]
    if not 1 <= len(names) <= IGNORE or len(set(names)) != len(names):
        raise UserError(
            f"Expected 1 to {IGNORE} distinct class names in {path}, one a line, "
            f"but got {len(names)} of which {len(set(names))} differ; correct the list"
        )
    return names


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, with or without byte order mark."""
    return read_user_text(path, "a text file", LARGEST).splitlines()


def read_class_colours(path: Path) -> dict[str, Colour]:
    """Read the colours of classes.

    Args:
        path: A file like one of ``COLOUR_FILES``. Its content decides, not its name.

    Returns:
        Class name -> colour, in the order of the file.

    Raises:
        UserError: If a line has no name and colour.
    """
    found: dict[str, Colour] = {}
    for number, line in enumerate(read_lines(path)):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        row = _colour_row(line) or _default_colour(line, len(found))
        if row is None and number == 0:  # a header
            continue
        if row is None or row[0] in found:
            raise UserError(
                f"Expected a class name of its own and three numbers 0 to 255 in each line of"
                f" {path}, but got {line!r:.80}; correct the line"
            )
        found[row[0]] = row[1]
    return require_colours(found, str(path))


def require_colours(colours: dict[str, Colour], where: str) -> dict[str, Colour]:
    """Require 1 to 255 classes of different colours."""
    if not 1 <= len(colours) <= IGNORE or len(set(colours.values())) < len(colours):
        raise UserError(
            f"Expected 1 to {IGNORE} classes of different colours in {where}, but got"
            f" {len(colours)} classes with {len(set(colours.values()))} colours; correct the list"
        )
    return colours


def _colour_row(line: str) -> tuple[str, Colour] | None:
    """Parse ``name,r,g,b``, ``r g b name`` or ``name:r,g,b:parts:actions``."""
    if line.count(":") >= 2:
        name, colour = line.split(":")[:2]
        cells = [name, *colour.split(",")]
    elif "," in line:
        cells = next(csv.reader([line]))
    else:
        *_, name = [line.split(maxsplit=3)[-1]]
        cells = [name, *line.split()[:3]]
    numbers = [cell.strip() for cell in cells[1:4]]
    if len(numbers) < 3 or not all(cell.isdecimal() and int(cell) <= 255 for cell in numbers):
        return None
    red, green, blue = map(int, numbers)
    return cells[0].strip(), (red, green, blue)


def _default_colour(line: str, number: int) -> tuple[str, Colour] | None:
    """The class of a line ``name:::`` without a colour, with its colour in Pascal VOC's palette.

    The palette spreads the bits of the number over the channels, the lowest three first.
    """
    name, colon, rest = line.partition(":")
    if not colon or rest.strip(":") or not name.strip():
        return None
    red, green, blue = (
        sum(((number >> (3 * place + channel)) & 1) << (7 - place) for place in range(3))
        for channel in range(3)
    )
    return name.strip(), (red, green, blue)


def is_colour_table(value: object) -> bool:
    """Whether this is ``{'name': (r, g, b), ...}``."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(name, str)
            and isinstance(colour, list | tuple)
            and len(colour) == 3
            and all(type(part) is int and 0 <= part <= 255 for part in colour)
            for name, colour in value.items()
        )
    )
