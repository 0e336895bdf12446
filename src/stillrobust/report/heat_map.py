"""Heat maps: tables of drops with a number in every cell and a colour behind it."""

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from stillrobust.grid import COMMON, GROUPS, Place
from stillrobust.report.labels import figure_label
from stillrobust.report.renderers import HEAT_STEPS, render_html
from stillrobust.report.rows import Row
from stillrobust.report.table import Column, Percent, Table, TableBlock, TableRow

# From no drop to a score of zero, in one hue and even in lightness, so that every kind of colour
# vision sees the same order. No drop has the colour of the page, in light and in dark.
LIGHT = ("#f6f7f8", "#fbe3c9", "#f8c48f", "#ef9d55", "#d9752a", "#b45015", "#8a330d", "#5c1d0a")
DARK = ("#1d2227", "#3b2a1d", "#63391a", "#934c16", "#c4661c", "#e78a3c", "#f6b478", "#ffe2c2")

BLACK_FROM = 0.179  # luminance at which black and white text have the same contrast (WCAG 2.2)

ColumnGroups = Iterable[tuple[str, Sequence[str]]]  # (heading of the group, its columns)
Drops = Sequence[Sequence[float | None]]  # (rows, columns), fractions


def heat_colour(drop: float, stops: Sequence[str] = LIGHT) -> tuple[str, str]:
    """The colours of a cell and of its text, for a drop from 0 (the page's colour) to 1."""
    position = min(max(drop, 0.0), 1.0) * (len(stops) - 1)
    below = min(int(position), len(stops) - 2)
    low, high = (_rgb(stops[index]) for index in (below, below + 1))
    mixed = [round(a + (b - a) * (position - below)) for a, b in zip(low, high, strict=True)]
    background = "#" + "".join(f"{channel:02x}" for channel in mixed)
    return background, "#000" if _luminance(mixed) > BLACK_FROM else "#fff"


def heat_style() -> str:
    """The style rules of the cells: ``h0`` for no drop to ``h20`` for a score of zero."""

    def rules(before: str, stops: Sequence[str]) -> str:
        colours = (heat_colour(step / HEAT_STEPS, stops) for step in range(HEAT_STEPS + 1))
        return "\n".join(
            f"{before}.h{step} {{ background: {back}; color: {text}; }}"
            for step, (back, text) in enumerate(colours)
        )

    dark = rules(":root:not(.printing) ", DARK)
    return f"{rules('', LIGHT)}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"


def _luminance(channels: Sequence[int]) -> float:
    """Relative luminance (WCAG 2.2) of 8-bit sRGB."""
    parts = [channel / 255 for channel in channels]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def heat_table(
    title: str, groups: ColumnGroups, rows: Sequence[Row], blocks: Mapping[str, Drops]
) -> Table:
    """Tabulate drops of models (down), in a block for each title.

    Args:
        title: Caption of the table.
        groups: Columns, by the heading above them.
        rows: Models, in the order of the drops.
        blocks: By title; ``None`` leaves a cell empty.
    """
    columns = [Column("model", "Model", is_text=True)]
    columns += [
        Column(name, name.replace("_", " "), group=group)
        for group, names in groups
        for name in names
    ]
    return Table(
        title,
        tuple(columns),
        tuple(TableBlock(name, tuple(_lines(rows, drops))) for name, drops in blocks.items()),
    )


def _lines(rows: Sequence[Row], drops: Drops) -> Iterable[TableRow]:
    for row, line in zip(rows, drops, strict=True):
        cells = (None if drop is None else Percent(drop, digits=0) for drop in line)
        yield TableRow((figure_label(row, rows), *cells), row.run.name)


def corruption_heat_table(
    rows: Sequence[Row], values: Mapping[str, Mapping[Place, float]]
) -> Table:
    """Tabulate the drop of each model on each corruption, for each severity and their mean.

    Args:
        rows: Comparable rows.
        values: Scores by run and place.
    """

    def drops(levels: Sequence[int]) -> list[list[float | None]]:
        def drop(row: Row, name: str) -> float:
            scores = [values[row.run.name][name, level] for level in levels]
            return 1 - sum(scores) / len(scores) / row.robustness.clean

        return [[drop(row, name) for name in COMMON] for row in rows]

    severities = rows[0].robustness.severities
    blocks: dict[str, Drops] = {f"severity {level}": drops([level]) for level in severities}
    if len(severities) > 1:
        blocks = {"mean of the severities": drops(severities), **blocks}
    return heat_table("Drop in % of the clean score.", GROUPS.items(), rows, blocks)


def heat_map(table: Table) -> Markup:
    """Render a table of drops as HTML; empty without rows."""
    return render_html("heat_map.html", table=table)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
