"""The format ``csv``: tables of image files and labels."""

import csv
import itertools
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stillrobust.data.bad_images import LISTED_BUT_MISSING, record_fault
from stillrobust.data.formats import Format
from stillrobust.data.formats.class_names import read_lines, read_names
from stillrobust.data.formats.image_lists import (
    ImageListDataset,
    LabelledImage,
    build_image_list,
)
from stillrobust.data.formats.options import (
    ANNOTATIONS,
    CLASSES,
    IMAGES,
    LEAVE_OUT_BAD,
    READING_OPTIONS,
    SPLIT,
    SUFFIX,
    OpenOptions,
)
from stillrobust.data.formats.splits import (
    SPLIT_NAMES,
    UNNAMED,
    choose_split,
    inside_root,
    splits_check,
)
from stillrobust.data.reading import resolve_inside
from stillrobust.errors import BadImageError, UserError
from stillrobust.names import lookup

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "image_path", "filepath", "id")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
SPLIT_COLUMNS = ("split", "set", "subset")
USUAL = ("labels.csv", "annotations.csv", "data.csv")
"""Tables of all splits."""


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    file: str
    label: str
    split: str
    cells: Mapping[str, str]
    """All cells by their column, in small letters."""


def tables(root: Path, options: OpenOptions) -> dict[str, Path]:
    """Split -> its table; ``UNNAMED`` for a table of all splits."""
    given = options.value("annotations")
    if given:
        if "{split}" not in given:
            return {UNNAMED: inside_root(root, given, "")}
        names = [name for name in SPLIT_NAMES if inside_root(root, given, name).is_file()]
        return {name: inside_root(root, given, name) for name in names}
    found = {name: root / f"{name}.csv" for name in SPLIT_NAMES if (root / f"{name}.csv").is_file()}
    whole = [root / name for name in USUAL if (root / name).is_file()]
    return {UNNAMED: whole[0]} if whole and not found else found


def read_table(path: Path) -> list[Row]:
    """Read a table with the columns of a file, a label and, optionally, a split.

    Args:
        path: A CSV file with a header. Commas, semicolons or tabs separate the columns.

    Returns:
        Its rows.

    Raises:
        UserError: If a column is missing or a cell is empty.
    """
    lines = [line for line in read_lines(path) if line.strip()]
    head = lines[0] if lines else ""
    separator = max(",;\t", key=head.count)
    try:
        rows = list(csv.reader(lines, delimiter=separator))
    except csv.Error as error:
        raise UserError(f"Expected a CSV file at {path}, but got: {error}; repair it") from None
    columns = [cell.strip().lower() for cell in rows[0]] if rows else []
    places = [
        next((columns.index(name) for name in names if name in columns), None)
        for names in (FILE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)
    ]
    file, label, split = places
    if file is None or label is None:
        raise UserError(
            f"Expected a header with the columns file and label in {path}, but got {head!r:.100};"
            " add it"
        )
    found = []
    for number, cells in enumerate(rows[1:], 2):
        if len(cells) <= max(file, label) or not cells[file].strip() or not cells[label].strip():
            raise UserError(
                f"Expected a file and a label in row {number} of {path}, but got {cells!r:.100};"
                " complete the row"
            )
        part = "" if split is None or len(cells) <= split else cells[split].strip()
        named = {column: cell.strip() for column, cell in zip(columns, cells, strict=False)}
        found.append(Row(cells[file].strip().replace("\\", "/"), cells[label].strip(), part, named))
    return found


def rows_by_split(root: Path, options: OpenOptions) -> dict[str, list[Row]]:
    """Split -> its rows."""
    found: dict[str, list[Row]] = {}
    for name, path in tables(root, options).items():
        rows = read_table(path)
        divided = name == UNNAMED and any(row.split for row in rows)
        for row in rows:
            found.setdefault((row.split or UNNAMED) if divided else name, []).append(row)
    return found


def csv_splits(root: Path, options: OpenOptions) -> Collection[str]:
    """Names of the splits."""
    return list(rows_by_split(root, options))


def open_csv(root: Path, split: str, options: OpenOptions) -> ImageListDataset:
    """Open a split of images that a table lists."""
    found = rows_by_split(root, options)
    chosen = choose_split(split, list(found), root, options)
    classes = class_list(root, {row.label for rows in found.values() for row in rows})
    rows = found[chosen]
    ending = str(options.value("suffix", ""))
    folder = image_folder(root, chosen, f"{rows[0].file}{ending}", options)
    prefix = f"{chosen}/" if all(row.file.startswith(f"{chosen}/") for row in rows) else ""
    label_of = {name: label for label, name in enumerate(classes)}
    numbered = set(label_of).isdisjoint(row.label for row in rows)
    items, rows_of = [], {}
    for row in rows:
        name = f"{row.file}{ending}"
        path = resolve_inside(folder.resolve(), name, f"the table of {root}")
        label = int(row.label) if numbered else label_of.get(row.label, -1)
        if not path.is_file():
            sentence = (
                f"Expected the image {path}, which the table lists, but it is not there; add it,"
                f" or name its folder or ending: {options.spec(images='FOLDER', suffix='.jpg')}"
            )
            record_fault(options.faults, name, BadImageError(sentence, LISTED_BUT_MISSING))
            continue
        identity = unicodedata.normalize("NFC", name.removeprefix(prefix))
        items.append(LabelledImage(identity, path, label))
        rows_of[identity] = row.cells
    _require_different(items, root)
    name = root.name if chosen == UNNAMED else f"{root.name}/{chosen}"
    dataset = build_image_list(name, classes, items, options)
    return replace(dataset, image_field=partial(_read_column, rows_of))


def _read_column(rows: Mapping[str, Mapping[str, str]], name: str) -> dict[str, str]:
    """Return a column of the table: image id -> text."""
    known = {column: column for row in rows.values() for column in row}
    column = lookup("column", name.lower(), known)
    return {image: row[column] for image, row in rows.items() if row.get(column)}


def class_list(root: Path, labels: set[str]) -> Sequence[str]:
    """Class names: those of ``classes.txt``, else the labels, sorted; numbers by their value."""
    listed = root / "classes.txt"
    numbers = all(label.isdecimal() for label in labels)
    if not listed.is_file():
        return sorted(labels, key=(lambda label: (int(label), label)) if numbers else str)
    names = read_names(listed)
    unknown = sorted(labels - set(names))
    if unknown and not (numbers and all(int(label) < len(names) for label in labels)):
        raise UserError(
            f"Expected labels that {listed} lists, but got {unknown[0]!r}; add it or correct the"
            " table"
        )
    return names


def image_folder(root: Path, split: str, first: str, options: OpenOptions) -> Path:
    """The folder that file names are relative to: from the option, else where the first one is."""
    given = options.value("images")
    if given:
        return inside_root(root, given, split)
    places = (root, root / "images", root / split, root / "images" / split)
    return next((place for place in places if (place / first).is_file()), root)


def _require_different(items: Sequence[LabelledImage], root: Path) -> None:
    if not items:
        raise UserError(f"Expected images in the table of {root}, but it lists none; add some")
    names = sorted(item.image_id for item in items)
    for former, latter in itertools.pairwise(names):
        if former == latter:
            raise UserError(
                f"Expected each file once in the table of {root}, but got {latter!r} twice; remove"
                " one"
            )


def detect_csv(root: Path) -> dict[str, Any] | None:
    """Recognise a table with the columns of a file and a label."""
    for path in tables(root, OpenOptions(path=root)).values():
        try:
            read_table(path)
        except UserError:
            continue
        return {}
    return None


CSV = Format(
    "classification",
    open_csv,
    splits_check(open_csv, csv_splits),
    detect_csv,
    (SPLIT, CLASSES, ANNOTATIONS, IMAGES, SUFFIX, LEAVE_OUT_BAD, *READING_OPTIONS),
)
