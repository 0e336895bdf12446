r"""Renders a :class:`~stillrobust.report.table.Table` as text, CSV, records, Markdown, LaTeX, HTML.

Text from data is escaped in each format. LaTeX needs ``booktabs``: ``\input`` it anywhere.
"""

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import jinja2
from markupsafe import Markup

from stillrobust.report.table import Cell, Column, Label, Percent, Table, cell_text
from stillrobust.untrusted import printable

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # begins of cells that spreadsheets compute
TERMINAL_WIDTH = 100  # columns
WIDEST_TEXT, NARROW_TEXT = 34, 18  # columns of a wrapped text; narrower ones if nothing else fits
HEAT_STEPS = 20  # colours of a drop from 0 to 1; the number is in the cell as well


# ---- terminal ------------------------------------------------------------------------------------


def to_text(table: Table, width: int = TERMINAL_WIDTH, limit: int | None = None) -> str:
    """Render a table for a terminal.

    If a table is too wide, its first text columns become headings above the rows that share them,
    long texts are wrapped, and intervals are put below their numbers, as far as needed.

    Args:
        table: What to render.
        width: Columns of the terminal.
        limit: Largest number of rows; the number of the others is stated.

    Returns:
        Title, rows and notes; the notes alone if there are no rows.
    """
    notes = [line for note in table.notes for line in textwrap.wrap(note, width)]
    if not table.rows:
        return "\n".join(notes)
    columns = [column for _, column in table.visible]
    blocks = [(block.title, list(map(table.cell_texts, block.rows))) for block in table.blocks]
    names = [index for index, column in enumerate(columns) if column.is_row_header]
    texts = [index for index, column in enumerate(columns) if column.is_text]
    raised = [index for index in texts if index not in (names or texts[-1:])]
    layouts: list[tuple[int, int | None, bool]] = [(0, None, False)]
    layouts += [
        (many, WIDEST_TEXT, split) for split in (False, True) for many in range(len(raised) + 1)
    ]
    narrower = range(WIDEST_TEXT - 1, NARROW_TEXT - 1, -1)
    layouts += [(len(raised), wrap, True) for wrap in narrower]
    for many, wrap, split in layouts:
        kept = [index for index in range(len(columns)) if index not in raised[:many]]

        def lines_of(
            cells: Sequence[str],
            kept: Sequence[int] = kept,
            wrap: int | None = wrap,
            split: bool = split,
        ) -> list[list[str]]:
            return [_cell_lines(cells[index], columns[index], wrap, split) for index in kept]

        every = [table.headings, *(cells for _, rows in blocks for cells in rows)]
        widths = [
            max(len(line) for cell in column for line in cell)
            for column in zip(*map(lines_of, every), strict=True)
        ]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            break

    def aligned(cells: Sequence[str]) -> list[str]:
        padded = [
            [line.ljust(size) if columns[index].is_text else line.rjust(size) for line in lines]
            for index, size, lines in zip(kept, widths, lines_of(cells), strict=True)
        ]
        blank = [" " * size for size in widths]
        return [
            "  ".join(
                lines[number] if number < len(lines) else empty
                for lines, empty in zip(padded, blank, strict=True)
            ).rstrip()
            for number in range(max(map(len, padded)))
        ]

    head = aligned(table.headings)
    body = [*head, "-" * max(map(len, head))]
    left = len(table.rows) if limit is None else limit
    for title, rows in blocks:
        body += ["", *textwrap.wrap(title, width)] if title else []
        shared: list[str] = []
        for cells in rows[:left]:
            values = [cells[index] for index in raised[:many]]
            if values != shared:
                body += ["", *textwrap.wrap(", ".join(filter(None, values)), width)]
                shared = values
            body += aligned(cells)
        left -= min(left, len(rows))
    hidden = len(table.rows) - (len(table.rows) if limit is None else limit)
    body += [f"... and {hidden} more rows, on the page"] if hidden > 0 else []
    title_lines = [*textwrap.wrap(table.title, width), ""] if table.title else []
    return "\n".join([*title_lines, *body, *([""] if notes else []), *notes])


def _cell_lines(text: str, column: Column, wrap: int | None, split: bool) -> list[str]:
    text = printable(text)
    if column.is_text:
        return (textwrap.wrap(text, wrap) if wrap else [text]) or [""]
    return text.replace(" [", "\n[").split("\n") if split else [text]


# ---- files ---------------------------------------------------------------------------------------


def to_records(table: Table) -> list[dict[str, Any]]:
    """Return a dict of plain values for each row; percentages as fractions with full precision."""
    records = []
    for row in table.rows:
        record: dict[str, Any] = {}
        for column, cell in zip(table.columns, row.cells, strict=True):
            if not column.key:
                continue
            record[column.key] = _plain(cell)
            if column.has_interval:
                low, high = (isinstance(cell, Percent) and cell.interval) or (None, None)
                record |= {f"{column.key}_low": low, f"{column.key}_high": high}
        records.append(record)
    return records


def _plain(cell: Cell) -> str | int | float | None:
    return cell.value if isinstance(cell, Percent | Label) else cell


def to_csv(table: Table) -> str:
    """Render the values of :func:`to_records` as CSV, headed by the keys of the columns.

    Texts that a spreadsheet would take for a formula get an apostrophe before them.
    """
    names: list[str] = []
    for column in table.columns:
        names += [column.key] if column.key else []
        ends = ("low", "high") if column.key and column.has_interval else ()
        names += [f"{column.key}_{end}" for end in ends]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: _csv_cell(value) for key, value in record.items()} for record in to_records(table)
    )
    return buffer.getvalue()


def _csv_cell(value: str | int | float | None) -> str | int | float | None:
    """Neutralise a formula. Numbers, also those written as text, stay numbers."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return printable(value) if isinstance(value, str) else value
    try:
        float(value)
    except ValueError:
        return f"'{printable(value)}"
    return printable(value)


def to_markdown(table: Table) -> str:
    """Render title, rows and notes as Markdown."""
    rules = ["---" if column.is_text else "---:" for _, column in table.visible]
    lines = [table.headings, rules, *map(table.cell_texts, table.rows)]
    body = "\n".join(f"| {' | '.join(map(escape_markdown, line))} |" for line in lines)
    return "\n\n".join(filter(None, [table.title, body, *table.notes])) + "\n"


def escape_markdown(text: str) -> str:
    """Escape text for a cell of a table: no other cell, line, link or HTML begins in it."""
    for special, escaped in (("|", r"\|"), ("<", "&lt;"), ("](", r"]\(")):
        text = text.replace(special, escaped)
    return printable(text)


# ---- LaTeX ---------------------------------------------------------------------------------------

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\symbol{34}", "\N{MINUS SIGN}": "$-$", "\N{GREEK SMALL LETTER EPSILON}": r"$\epsilon$",
    "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{EN DASH}": "--", "\N{DAGGER}": r"\dag{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Escape text for LaTeX; characters that plain LaTeX lacks become question marks."""
    return "".join(
        LATEX_SPECIAL.get(letter, letter if letter.isascii() and letter.isprintable() else "?")
        for letter in text
    )


def to_latex(table: Table, caption: str = "", comments: Iterable[str] = ()) -> str:
    r"""Render a table with the rules of ``booktabs``, which CVPR's style loads.

    Text columns whose cells are all equal are left out and named in a comment. The best of a column
    is bold.

    Args:
        table: What to render.
        caption: If given, the ``tabular`` is in a ``table*`` environment, which spans both columns.
        comments: Lines of comment at the top.
    """
    kept, shared = [], []
    for index, column in table.visible:
        texts = {cell_text(row.cells[index]) for row in table.rows}
        is_constant = column.is_text and index != table.row_header and len(texts) == 1
        if is_constant:
            shared.append(f"{column.heading}: {texts.pop()}")
        else:
            kept.append((index, column))
    alignment = "".join("l" if column.is_text else "r" for _, column in kept)
    heads = [column.heading or "" for _, column in kept]
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", latex_line(heads), r"\midrule"]
    for number, block in enumerate(table.blocks):
        lines += [r"\midrule"] if number else []
        if block.title:
            title = escape_latex(block.title)
            lines.append(rf"\multicolumn{{{len(alignment)}}}{{l}}{{{title}}} \\")
        lines += [latex_line([row.cells[index] for index, _ in kept]) for row in block.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if caption:
        lines = [r"\begin{table*}[t]", r"\centering", *lines]
        lines += [rf"\caption{{{escape_latex(caption)}}}", r"\end{table*}"]
    notes = [_latex_comment(line) for line in (r"needs \usepackage{booktabs}", *comments, *shared)]
    return "\n".join([*notes, *lines, ""])


def _latex_comment(text: str) -> str:
    """A line of comment in ASCII; printable text has no line breaks, which would end it."""
    return f"% {printable(text)}".encode("ascii", "replace").decode()


def latex_line(cells: Sequence[Cell]) -> str:
    """Render one line of a ``tabular``.

    A bracket or star at its beginning would be read as an argument of the line break before it.
    """
    text = " & ".join(map(_latex_cell, cells))
    return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"


def _latex_cell(cell: Cell) -> str:
    """A cell with its number in bold if it is the best, and its interval in small type."""
    if not isinstance(cell, Percent):
        return escape_latex(cell_text(cell))
    number = escape_latex(cell.number)
    parts = [rf"\textbf{{{number}}}" if cell.best else number, escape_latex(cell.letters)]
    parts += [rf"{{\scriptsize {escape_latex(cell.bounds)}}}"] if cell.bounds else []
    return " ".join(filter(None, parts))


# ---- HTML ----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def html_environment() -> jinja2.Environment:
    """The templates of the page; values are escaped unless they are ``Markup``."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stillrobust.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell_text"] = cell_text
    environment.filters["heat_step"] = heat_step
    environment.globals["HEAT_STEPS"] = HEAT_STEPS
    return environment


def render_html(template: str, **values: Any) -> Markup:
    """Render a template of the page. Control characters of names are escaped here for all parts."""
    rendered = html_environment().get_template(template).render(**values)
    return Markup(printable(rendered, lines=True))


def to_html(table: Table, element_id: str = "") -> Markup:
    """Render a table that sorts, and is shown as cards on a phone; empty without rows."""
    return render_html("table.html", table=table, element_id=element_id)


def heat_step(cell: Percent) -> int:
    """The colour of a drop: 0 for no drop or a gain, ``HEAT_STEPS`` for a score of zero."""
    return round(min(max(cell.value, 0.0), 1.0) * HEAT_STEPS)
