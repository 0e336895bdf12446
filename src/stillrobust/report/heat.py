"""Heat maps as HTML tables: a number in every cell and its colour beside it, so that neither eye
nor ear misses anything.
"""

from collections.abc import Mapping, Sequence
from html import escape

from stillrobust.grid import COMMON, GROUPS, Place
from stillrobust.report.figures import FRAME, label
from stillrobust.report.rows import Row
from stillrobust.report.tables import percent

# Nine stops of cividis (Nuñez, Anderton & Renslow 2018): even in lightness, the same to red-green
# blind eyes.
CIVIDIS = (
    "#00224e",
    "#173b6d",
    "#3f4f6e",
    "#5b6570",
    "#757a76",
    "#8f8f77",
    "#b0a56f",
    "#d4be5c",
    "#fee838",
)
STEPS = 20  # colours of a drop from 0 to 1; the cell itself says the number

Groups = Sequence[tuple[str, Sequence[str]]]  # (title of some columns, the columns)
CORRUPTIONS: Groups = tuple(GROUPS.items())


def heat_colour(drop: float) -> tuple[str, str]:
    """The colours of a cell and of the text on it, for a drop of 0 (dark) to 1 (bright); gains are
    as 0.
    """
    position = min(max(drop, 0.0), 1.0) * (len(CIVIDIS) - 1)
    below = min(int(position), len(CIVIDIS) - 2)
    low, high = (_rgb(CIVIDIS[index]) for index in (below, below + 1))
    mixed = [round(a + (b - a) * (position - below)) for a, b in zip(low, high, strict=True)]
    luminance = 0.2126 * mixed[0] + 0.7152 * mixed[1] + 0.0722 * mixed[2]
    return "#" + "".join(f"{channel:02x}" for channel in mixed), (
        "#000" if luminance > 120 else "#fff"
    )


def heat_style() -> str:
    """The rules of the cells' classes, ``h0`` for no drop to ``h20`` for all lost."""
    colours = (heat_colour(step / STEPS) for step in range(STEPS + 1))
    return "\n".join(
        f".h{step} {{ background: {back}; color: {text}; }}"
        for step, (back, text) in enumerate(colours)
    )


def heat_map(rows: Sequence[Row], values: Mapping[str, Mapping[Place, float]]) -> str:
    """Model (down) × corruption (across), a block for each severity and first one for their mean;
    cells tell drops in percent.
    """
    severities = rows[0].robustness.severities
    blocks = {f"severity {level}": _drops(rows, values, [level]) for level in severities}
    if len(severities) > 1:
        blocks = {"mean of the severities": _drops(rows, values, severities), **blocks}
    return heat_table("Drop in % of the clean score.", CORRUPTIONS, rows, blocks)


def heat_table(
    caption: str,
    groups: Groups,
    rows: Sequence[Row],
    blocks: Mapping[str, Sequence[Sequence[float | None]]],
) -> str:
    """Blocks of (rows, columns) drops; a reader with a script sees one block at a time.

    ``None`` leaves a cell empty.
    """
    several = any(title for title, _ in groups)
    titles = "".join(
        f'<th scope="colgroup" colspan="{len(names)}"'
        f' style="--span:{len(names)}">{escape(title)}</th>'
        for title, names in groups
    )
    names = "".join(
        f'<th scope="col">{escape(name.replace("_", " "))}</th>'
        for _, names in groups
        for name in names
    )
    edges = {sum(len(names) for _, names in groups[:index]) for index in range(1, len(groups))}
    bodies = []
    for title, drops in blocks.items():
        head = f'<tr class="group"><th scope="rowgroup">{escape(title)}</th></tr>'
        lines = "".join(
            f'<tr data-run="{escape(row.run.name)}"><th scope="row">{escape(label(row, rows))}</th>'
            + "".join(_cell(drop, index in edges) for index, drop in enumerate(line))
            + "</tr>"
            for row, line in zip(rows, drops, strict=True)
        )
        bodies.append(f'<tbody data-block="{escape(title)}">{head}{lines}</tbody>')
    top = f"<tr><td></td>{titles}</tr>" if several else ""
    columns = sum(len(names) for _, names in groups)
    return (
        f'<div {FRAME} aria-label="{escape(caption)}"><table class="heat sortable"'
        f' style="--columns:{columns}"><caption>'
        f'{escape(caption)} {_scale()}</caption><thead>{top}<tr class="heads"><th'
        f' scope="col">Model</th>{names}</tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )


def _drops(
    rows: Sequence[Row], values: Mapping[str, Mapping[Place, float]], levels: Sequence[int]
) -> list[list[float | None]]:
    def drop(row: Row, name: str) -> float:
        scores = [values[row.run.name][name, level] for level in levels]
        return 1 - sum(scores) / len(scores) / row.robustness.clean

    return [[drop(row, name) for name in COMMON] for row in rows]


def _cell(drop: float | None, edge: bool) -> str:
    if drop is None:
        return "<td></td>"
    step = round(min(max(drop, 0.0), 1.0) * STEPS)
    return f'<td class="h{step}{" edge" if edge else ""}">{percent(drop, 0)}</td>'


def _scale() -> str:
    steps = "".join(f'<i class="h{step}"></i>' for step in range(0, STEPS + 1, 2))
    return f'<span class="scale" aria-hidden="true">0 {steps} 100</span>'


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
