"""The figures of the page, written by hand as HTML and SVG: small, and no script is needed to see
them.
"""

from collections.abc import Callable, Sequence
from html import escape

from stillrobust.analysis.intervals import LEVEL, interval
from stillrobust.report.rows import Row
from stillrobust.report.summary import METRICS, model_name
from stillrobust.report.tables import percent

# Okabe and Ito's colours (2008, Color Universal Design), told apart with every kind of colour
# vision; dashes and markers tell the lines apart without.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "7 3", "2 3", "9 3 2 3")
# around what is wide: it scrolls, by keys too, and the page does not
FRAME = 'class="scroll" tabindex="0" role="region"'
FOREMOST = len(COLOURS)  # lines or points that get a colour; the others are grey

WIDTH, HEIGHT = 640, 330  # of the curves
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 14, 42


def curves(rows: Sequence[Row]) -> str:
    """The mean score over the 15 corruptions against the severity, one line per model; severity 0
    is clean.

    The models that lose least have colours and, where statistics are kept, bands; beyond six the
    others are grey.
    """
    metric = METRICS.get(rows[0].robustness.metric, rows[0].robustness.metric)
    top = nice(max(max(_points(row).values()) for row in rows))
    levels = sorted(_points(rows[0]))
    span = max(levels)

    def x(severity: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * severity / span

    def y(score: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(score, 0.0), top) / top

    parts = score_axis(top, y)
    for level in levels:
        name = str(level) if level else "clean"
        parts.append(
            f'<text x="{x(level):.1f}" y="{HEIGHT - BOTTOM + 18}"'
            f' text-anchor="middle">{name}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">severity</text>'
    )
    ranked = sorted(rows, key=lambda row: row.robustness.drop)
    lines, bands = [], []
    for index, row in enumerate(ranked):
        places = [(x(level), y(score)) for level, score in sorted(_points(row).items())]
        lines.append(
            _line(index, places, f"{label(row, rows)}: {metric} {_told(row)}", row.run.name)
        )
        if index < FOREMOST:
            ends = [
                (x(level), y(low), y(high)) for level, (low, high) in sorted(_bounds(row).items())
            ]
            bands.append(_band(index, ends, row.run.name) if ends else "")
    parts += [*bands, *reversed(lines)]  # grey below colour
    legend = "".join(
        f'<li data-run="{escape(row.run.name)}">{key(index)}{escape(label(row, rows))}</li>'
        for index, row in enumerate(ranked[:FOREMOST])
    )
    rest = len(ranked) - FOREMOST
    grey = f"; in grey the {rest} that lose more" if rest > 0 else ""
    band = f"; bands are {LEVEL:.0%} intervals over images" if any(bands) else ""
    return (
        f'<figure><svg class="curves" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(metric)} against severity">{"".join(parts)}</svg><ul'
        f' class="legend">{legend}</ul><figcaption>{escape(metric)} in %, mean over the 15'
        f" corruptions, by severity{grey}{band}.</figcaption></figure>"
    )


def score_axis(top: float, y: Callable[[float], float], bottom: float = 0.0) -> list[str]:
    """Horizontal lines with their percentages, quarters of the span from ``bottom`` to ``top``."""
    parts = []
    for step in range(5):
        score = bottom + (top - bottom) * step / 4
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(score):.1f}"'
            f' y2="{y(score):.1f}"/>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{y(score) + 4:.1f}"'
            f' text-anchor="end">{percent(score, 0)}</text>'
        )
    return parts


def label(row: Row, rows: Sequence[Row]) -> str:
    """The model, with the mode where the figure shows both modes."""
    modes = {other.run.setting for other in rows}
    name = model_name(row, rows)
    return name if len(modes) == 1 else f"{name}, {row.run.setting.split('_')[0]}"


def _points(row: Row) -> dict[int, float]:
    return {
        0: row.robustness.clean,
        **{level: part.mpc for level, part in row.robustness.by_severity.items()},
    }


def _told(row: Row) -> str:
    return ", ".join(
        f"{percent(score)} at {level or 'clean'}" for level, score in _points(row).items()
    )


def _bounds(row: Row) -> dict[int, tuple[float, float]]:
    """The interval of the score at each severity, where the statistics are kept."""
    found = {}
    for level, score in _points(row).items():
        draws = row.resampled.get(f"severity.{level}" if level else "clean")
        if draws is not None:
            found[level] = interval(draws, score)
    return found


def _style(index: int) -> str:
    if index >= FOREMOST:
        return 'class="rest"'
    dash = DASHES[index % len(DASHES)]
    return f'stroke="{COLOURS[index]}" stroke-width="2.2" fill="none"' + (
        f' stroke-dasharray="{dash}"' if dash else ""
    )


def _line(index: int, places: Sequence[tuple[float, float]], told: str, run: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = "".join(mark(index, x, y) for x, y in places) if index < FOREMOST else ""
    line = f"<polyline {_style(index)} points='{points}'/>"
    return f'<g data-run="{escape(run)}"><title>{escape(told)}</title>{line}{marks}</g>'


def _band(index: int, ends: Sequence[tuple[float, float, float]], run: str) -> str:
    around = [*((x, low) for x, low, _ in ends), *((x, high) for x, _, high in reversed(ends))]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
    return (
        f'<polygon data-run="{escape(run)}" points="{points}" fill="{COLOURS[index]}"'
        ' fill-opacity=".13"/>'
    )


def mark(index: int, x: float, y: float) -> str:
    """A mark of the index's shape and colour, grey beyond the foremost."""
    if index >= FOREMOST:
        return f'<circle class="rest" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    fill = f'class="mark" fill="{COLOURS[index]}"'
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {fill}/>',
        f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" {fill}/>',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" {fill}/>',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 5-5 5-5-5z" {fill}/>',
    )
    return shapes[index % len(shapes)]


def key(index: int) -> str:
    """A line with its mark, for a legend."""
    line = f"<polyline {_style(index)} points='0,7 34,7'/>"
    return (
        f'<svg class="key" viewBox="0 0 34 14" aria-hidden="true">{line}{mark(index, 17, 7)}</svg>'
    )


def nice(highest: float) -> float:
    """The end of the axis: the next multiple of 0.2 up to 1, so that quarters of it are round."""
    for end in (0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        if highest <= end:
            return end
    return highest
