"""The figures of the page, written by hand as HTML and SVG: small, and no script is needed to see them."""

from collections.abc import Sequence
from html import escape

from stillrobust.report.summary import METRICS, Row, model_name
from stillrobust.report.tables import percent
from stillrobust.robustness import GROUPS, Place

# Okabe and Ito's colours, told apart with every kind of colour vision; dashes and markers tell the lines apart without.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "7 3", "2 3", "9 3 2 3")
# Nine stops of cividis: even in lightness, the same to red-green blind eyes.
CIVIDIS = ("#00224e", "#173b6d", "#3f4f6e", "#5b6570", "#757a76", "#8f8f77", "#b0a56f", "#d4be5c", "#fee838")

WIDTH, HEIGHT = 640, 330  # of the curves
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 14, 42


def heat_colour(drop: float) -> tuple[str, str]:
    """The colours of a cell and of the text on it, for a drop of 0 (dark) to 1 (bright); gains are as 0."""
    position = min(max(drop, 0.0), 1.0) * (len(CIVIDIS) - 1)
    below = min(int(position), len(CIVIDIS) - 2)
    low, high = (_rgb(CIVIDIS[index]) for index in (below, below + 1))
    mixed = [round(a + (b - a) * (position - below)) for a, b in zip(low, high, strict=True)]
    luminance = 0.2126 * mixed[0] + 0.7152 * mixed[1] + 0.0722 * mixed[2]
    return "#" + "".join(f"{channel:02x}" for channel in mixed), "#000" if luminance > 120 else "#fff"


def heat_map(rows: Sequence[Row], values: dict[str, dict[Place, float]]) -> str:
    """Corruption (down) × model and severity (across); every cell tells its drop in percent."""
    severities = rows[0].robustness.severities
    models = "".join(f'<th colspan="{len(severities)}" scope="colgroup">{escape(label(row, rows))}</th>' for row in rows)
    levels = "".join(
        f'<th scope="col"{edge}>{severity}</th>'
        for _ in rows
        for severity, edge in zip(severities, [' class="edge"'] + [""] * len(severities), strict=False)
    )
    lines = []
    for group, corruptions in GROUPS.items():
        lines.append(f'<tr class="group"><th scope="rowgroup">{group}</th><td colspan="{len(rows) * len(severities)}">')
        lines.append("</td></tr>")
        for corruption in corruptions:
            cells = "".join(_heat_cells(row, values[row.run.name], corruption) for row in rows)
            lines.append(f'<tr><th scope="row">{corruption.replace("_", " ")}</th>{cells}</tr>')
    return (
        '<div class="scroll"><table class="heat"><caption>Drop in % of the clean score; '
        f"columns are severities. {_scale()}</caption>"
        f'<thead><tr><th rowspan="2"></th>{models}</tr><tr>{levels}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def curves(rows: Sequence[Row]) -> str:
    """The mean score over the 15 corruptions against the severity, one line per model; severity 0 is clean."""
    metric = METRICS.get(rows[0].robustness.metric, rows[0].robustness.metric)
    top = _nice(max(max(_points(row).values()) for row in rows))
    levels = sorted(_points(rows[0]))
    span = max(levels)

    def x(severity: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * severity / span

    def y(score: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * max(score, 0.0) / top

    parts = []
    for step in range(5):
        score = top * step / 4
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(score):.1f}" y2="{y(score):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(score) + 4:.1f}" text-anchor="end">{percent(score, 0)}</text>')
    for level in levels:
        name = str(level) if level else "clean"
        parts.append(f'<text x="{x(level):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{name}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">severity</text>')
    for index, row in enumerate(rows):
        places = [(x(level), y(score)) for level, score in sorted(_points(row).items())]
        parts.append(_line(index, places, f"{label(row, rows)}: {metric} {_told(row)}"))
    legend = "".join(f"<li>{_key(index)}{escape(label(row, rows))}</li>" for index, row in enumerate(rows))
    return (
        f'<figure><svg class="curves" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(metric)} against severity">{"".join(parts)}</svg>'
        f'<ul class="legend">{legend}</ul><figcaption>{escape(metric)} in %, mean over the 15 corruptions, '
        "by severity.</figcaption></figure>"
    )


def label(row: Row, rows: Sequence[Row]) -> str:
    """The model, with the mode where the figure shows both modes."""
    modes = {other.run.transfer for other in rows}
    name = model_name(row, rows)
    return name if len(modes) == 1 else f"{name}, {row.run.transfer.split('_')[0]}"


def _heat_cells(row: Row, values: dict[Place, float], corruption: str) -> str:
    cells = []
    for index, severity in enumerate(row.robustness.severities):
        drop = 1 - values[corruption, severity] / row.robustness.clean
        back, text = heat_colour(drop)
        edge = ' class="edge"' if not index else ""
        cells.append(f'<td{edge} style="background:{back};color:{text}">{percent(drop, 0)}</td>')
    return "".join(cells)


def _scale() -> str:
    steps = "".join(f'<i style="background:{colour}"></i>' for colour in CIVIDIS)
    return f'<span class="scale">0 {steps} 100</span>'


def _points(row: Row) -> dict[int, float]:
    return {0: row.robustness.clean, **{level: part.mpc for level, part in row.robustness.by_severity.items()}}


def _told(row: Row) -> str:
    return ", ".join(f"{percent(score)} at {level or 'clean'}" for level, score in _points(row).items())


def _style(index: int) -> str:
    colour = COLOURS[index % len(COLOURS)]
    dash = DASHES[(index // len(COLOURS) + index) % len(DASHES)]
    return f'stroke="{colour}" stroke-width="2.2" fill="none"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _line(index: int, places: Sequence[tuple[float, float]], told: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = "".join(_mark(index, x, y) for x, y in places)
    return f"<g><title>{escape(told)}</title><polyline {_style(index)} points='{points}'/>{marks}</g>"


def _mark(index: int, x: float, y: float) -> str:
    fill = f'fill="{COLOURS[index % len(COLOURS)]}"'
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {fill}/>',
        f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" {fill}/>',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" {fill}/>',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 5-5 5-5-5z" {fill}/>',
    )
    return shapes[index % len(shapes)]


def _key(index: int) -> str:
    line = f"<polyline {_style(index)} points='0,7 34,7'/>"
    return f'<svg class="key" viewBox="0 0 34 14" aria-hidden="true">{line}{_mark(index, 17, 7)}</svg>'


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _nice(highest: float) -> float:
    """The end of the axis: the next multiple of 0.2 up to 1, so that quarters of it are round."""
    for end in (0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        if highest <= end:
            return end
    return highest
