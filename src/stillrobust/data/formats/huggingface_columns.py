"""Columns of a Hugging Face dataset: what they hold, and images as files."""

import errno
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillrobust.data.formats.options import OpenOptions
from stillrobust.errors import UserError
from stillrobust.names import lookup

IMAGE_COLUMNS = ("image", "img", "pixel_values")
MASK_COLUMNS = ("annotation", "label", "labels", "mask", "segmentation_mask", "segmentation")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target")
OBJECT_COLUMNS = ("objects",)
ID_COLUMNS = ("file_name", "filename", "image_id", "id")
BATCH = 1000  # rows read at once


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An encoded image in a row of a Hugging Face dataset, read like a file.

    Attributes:
        rows: The ``datasets.Dataset``, with this column alone, not decoded.
        row: Number of the row.
        column: Name of the column.
        name: Name of the file that the image was read from; empty if unknown.
        where: Name of the dataset, for messages.
    """

    rows: Any = field(repr=False)
    row: int
    column: str
    name: str
    where: str

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column!r} of {self.where}"

    @property
    def suffix(self) -> str:
        """The end of the name; ``.png`` if it is unknown."""
        return Path(self.name).suffix or ".png"

    def read_bytes(self) -> bytes:
        """Read the content: from the row, or from the local file that it names."""
        cell = self.rows[self.row][self.column] or {}
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        if cell.get("path"):
            return Path(cell["path"]).read_bytes()
        raise FileNotFoundError(errno.ENOENT, "there is no image in this row")

    def stat(self) -> "StoredSize":
        """Return the size of the content."""
        return StoredSize(len(self.read_bytes()))


@dataclass(frozen=True)
class StoredSize:
    """The size of a stored image."""

    st_size: int


def is_image(feature: Any) -> bool:
    """Whether a column holds images, or their bytes and paths as parquet stores them."""
    return type(feature).__name__ == "Image" or (
        isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    )


def inner_feature(feature: Any) -> Any:
    """The feature of the values of a list."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", feature)


def object_fields(feature: Any) -> dict[str, Any]:
    """Name -> feature of the fields of objects: a list of structs, or a struct of lists."""
    if isinstance(feature, dict):
        fields = {name: inner_feature(values) for name, values in feature.items()}
        return {name: inner for name, inner in fields.items() if inner is not feature[name]}
    found = inner_feature(feature)
    return dict(found) if isinstance(found, dict) else {}


def read_column(dataset: Any, column: str) -> list[Any]:
    """All values of a column as Python values."""
    table = dataset.select_columns([column]).with_format("arrow")[:]  # decodes no images
    return list(table[column].to_pylist())


def stored_images(dataset: Any, column: str, where: str) -> list[StoredImage]:
    """The images of a column. Their bytes are not read.

    Args:
        dataset: A ``datasets.Dataset``.
        column: Name of a column of images.
        where: Name of the dataset, for messages.

    Returns:
        One image per row.
    """
    import datasets

    rows = dataset.select_columns([column]).with_format(None)
    rows = rows.cast_column(column, datasets.Image(decode=False))
    return [
        StoredImage(rows, row, column, name, where) for row, name in enumerate(_names(rows, column))
    ]


def _names(rows: Any, column: str) -> Iterator[str]:
    """The file name of every image, without its folder, which differs between machines."""
    import pyarrow.compute as compute

    for batch in rows.with_format("arrow").iter(batch_size=BATCH):
        for path in compute.struct_field(batch[column], "path").to_pylist():
            yield (path or "").replace("\\", "/").rpartition("/")[2]


def image_ids(dataset: Any, images: Sequence[StoredImage], options: OpenOptions) -> list[str]:
    """The id of every image: a column of names, else the names of the files, else row numbers.

    Args:
        dataset: A ``datasets.Dataset``.
        images: Its images.
        options: ``ids`` and ``notes`` apply.

    Returns:
        Different texts, one per row.

    Raises:
        UserError: If values of the column ``ids`` are empty or twice there.
    """
    given = options.value("ids")
    columns = [name for name in ID_COLUMNS if name in dataset.column_names]
    for column in [named_column(dataset, given)] if given else columns:
        ids = [
            "" if value is None else unicodedata.normalize("NFC", str(value))
            for value in read_column(dataset, column)
        ]
        if all(ids) and len(set(ids)) == len(ids):
            options.notes.say(f"image ids are the column {column!r}")
            return ids
        if given:
            raise UserError(
                f"Expected a different id in every row of the column {column!r}, but"
                f" {len(ids) - len(set(filter(None, ids))):,} are empty or twice there; choose"
                " another column"
            )
    names = [unicodedata.normalize("NFC", image.name) for image in images]
    if all(names) and len(set(names)) == len(names):
        return names
    options.notes.say("image ids are the numbers of the rows; ids='COLUMN' chooses a column")
    return [str(row) for row in range(len(images))]


def named_column(dataset: Any, name: str) -> str:
    """``name``, which must be a column."""
    columns: dict[str, str] = {column: column for column in dataset.column_names}
    return lookup("column", name, columns)


def find_column(
    dataset: Any, option: str, usual: Sequence[str], fits: Any, options: OpenOptions
) -> str | None:
    """The column that an option names, else the first usual one that fits.

    Args:
        dataset: A ``datasets.Dataset``.
        option: Name of the option.
        usual: Usual names of the column.
        fits: Whether a feature can be used.
        options: The option applies.

    Returns:
        The name of the column; ``None`` if there is none.

    Raises:
        UserError: If the option names no column.
    """
    given = options.value(option)
    if given is not None:
        column = named_column(dataset, given)
        return column if fits(dataset.features[column]) else None
    there = (name for name in usual if name in dataset.column_names)
    return next((name for name in there if fits(dataset.features[name])), None)


def class_numbers(
    feature: Any, values: Sequence[Any], every: Sequence[Any], column: str, options: OpenOptions
) -> tuple[list[str], list[int]]:
    """Class names, and the index of the class of every value.

    Args:
        feature: Feature of the values: a ``ClassLabel``, whole numbers or texts.
        values: The values of the split.
        every: The values of all splits, for classes without names.
        column: Where the values are, for messages.
        options: ``names`` and ``notes`` apply.

    Returns:
        The names and the indices.

    Raises:
        UserError: If a value is no class.
    """
    names = list(options.value("names") or getattr(feature, "names", None) or ())
    if any(isinstance(value, str) for value in values):
        names = names or sorted({str(value) for value in every})
        index_of: Mapping[Any, int] = {name: index for index, name in enumerate(names)}
    else:
        if not names:
            numbers = [value for value in every if isinstance(value, int)]
            names = [f"class {number}" for number in range(max(numbers, default=-1) + 1)]
            options.notes.say(
                f"the classes of {column!r} have no names and are numbered; names=['a', 'b', ...]"
                " gives them names"
            )
        index_of = {index: index for index in range(len(names))}
    wrong = [value for value in values if value not in index_of]
    if wrong:
        allowed = f"0 to {len(names) - 1}" if 0 in index_of else f"one of {names!r:.60}"
        raise UserError(
            f"Expected {allowed} in the column {column!r}, but got {wrong[0]!r}"
            f" ({len(wrong):,} times); choose a split with labels or correct them"
        )
    return names, [index_of[value] for value in values]
