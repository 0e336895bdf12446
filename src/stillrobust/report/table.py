"""A report table as one value: typed cells under columns that have a key and a heading.

``renderers`` turns it into terminal text, CSV, JSON records, Markdown, LaTeX and HTML.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from stillrobust.analysis.rounding import decimals

Interval = tuple[float, float]


def percent(fraction: float, digits: int = 1) -> str:
    """Format a fraction as a percentage without the sign: ``0.2229`` -> ``22.3``."""
    text = f"{100 * fraction:.{digits}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Percent:
    """A fraction that readers see as a percentage; files get the fraction."""

    value: float
    interval: Interval | None = None
    digits: int | None = None
    """Decimals; by default as many as the interval allows."""
    best: bool = False
    """Whether it is the best of its column; printed in bold on the page."""
    letters: str = ""
    """After the number, for readers: values that share a letter are not distinguishable."""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.number, self.letters, self.bounds]))

    @property
    def number(self) -> str:
        """The text of the value alone."""
        return percent(self.value, self._decimals)

    @property
    def bounds(self) -> str:
        """The text of the interval: ``[21.8, 22.8]``; empty without one."""
        if self.interval is None:
            return ""
        low, high = (percent(end, self._decimals) for end in self.interval)
        return f"[{low}, {high}]"

    @property
    def _decimals(self) -> int:
        return decimals(self.interval) if self.digits is None else self.digits


@dataclass(frozen=True)
class Label:
    """A value of the files, with the text that readers see instead."""

    value: str
    text: str

    def __str__(self) -> str:
        return self.text


Cell = str | int | float | Percent | Label | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: Name in CSV and JSON; empty if the column is not in files.
        heading: Heading for readers; ``None`` if the column is in files only.
        is_text: Whether cells are text, which is aligned to the left.
        has_interval: Whether files get ``{key}_low`` and ``{key}_high`` as well.
        is_row_header: Whether the cells name their row. The first column does by default.
        group: Heading above several columns.
    """

    key: str = ""
    heading: str | None = None
    is_text: bool = False
    has_interval: bool = False
    is_row_header: bool = False
    group: str = ""


@dataclass(frozen=True)
class TableRow:
    """The cells of a row, one for each column."""

    cells: tuple[Cell, ...]
    run: str = ""
    """Name of the run; the page's filters hide rows by it."""
    filters: Mapping[str, str] = field(default_factory=dict)
    """Name of a filter on the page -> the row's value."""


@dataclass(frozen=True)
class TableBlock:
    """Rows that may be compared with each other."""

    title: str
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Table:
    """A table for every output format."""

    title: str
    columns: tuple[Column, ...]
    blocks: tuple[TableBlock, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def from_rows(
        cls,
        title: str,
        columns: Iterable[Column],
        rows: Iterable[TableRow | Iterable[Cell]],
        notes: Iterable[str] = (),
    ) -> "Table":
        """Make a table of a single block without a title."""
        listed = tuple(row if isinstance(row, TableRow) else TableRow(tuple(row)) for row in rows)
        return cls(title, tuple(columns), (TableBlock("", listed),), tuple(filter(None, notes)))

    @property
    def rows(self) -> list[TableRow]:
        """The rows of all blocks."""
        return [row for block in self.blocks for row in block.rows]

    @property
    def visible(self) -> list[tuple[int, Column]]:
        """Index and column of what readers see."""
        return [pair for pair in enumerate(self.columns) if pair[1].heading is not None]

    @property
    def headings(self) -> list[str]:
        """The headings that readers see."""
        return [column.heading or "" for _, column in self.visible]

    @property
    def row_header(self) -> int:
        """Index of the column that names the rows."""
        marked = (index for index, column in self.visible if column.is_row_header)
        return next(marked, self.visible[0][0])

    @property
    def column_groups(self) -> list[tuple[str, int]]:
        """(heading, number of columns) of consecutive columns in a group."""
        grouped = groupby(
            column.group for index, column in self.visible if index != self.row_header
        )
        return [(title, len(list(members))) for title, members in grouped]

    @property
    def group_starts(self) -> set[int]:
        """Indices of the columns at which a group other than the first begins."""
        columns = [pair for pair in self.visible if pair[0] != self.row_header]
        return {
            index
            for (index, column), (_, before) in zip(columns[1:], columns, strict=False)
            if column.group != before.group
        }

    def cell_texts(self, row: TableRow) -> list[str]:
        """The texts of a row's visible cells."""
        return [cell_text(row.cells[index]) for index, _ in self.visible]


def cell_text(cell: Cell) -> str:
    """The text of a cell for readers; empty for ``None``."""
    return "" if cell is None else str(cell)
