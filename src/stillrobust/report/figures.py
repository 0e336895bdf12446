"""The figures of the page: scores by severity, and runs as points, drawn as SVG.

They need no script, and every name in them is escaped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from stillrobust.analysis.intervals import LEVEL, SCORE_RANGE, interval
from stillrobust.report.labels import backbone_name, figure_label, metric_name
from stillrobust.report.rows import Row
from stillrobust.report.table import Interval, percent

# Okabe and Ito's colours (2008, Color Universal Design), distinct with every kind of colour vision;
# dashes and markers tell the lines apart without colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "7 3", "2 3", "9 3 2 3")
FOREMOST = len(COLOURS)  # lines or points that get a colour; the others are grey

WIDTH, HEIGHT = 640, 330
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 14, 42
CROWDED = 20  # from this many numbered points on, the numbers are smaller


@dataclass(frozen=True)
class LegendEntry:
    """A run in a legend or list."""

    run: str
    text: str
    key: Markup | None = None
    """The line and mark of the run, if it has one."""


@dataclass(frozen=True)
class Figure:
    """A figure with its caption; without a drawing, the caption states the reason."""

    caption: str
    label: str = ""
    """For screen readers."""
    drawing: Markup | None = None
    """What is inside the ``svg``."""
    legend: tuple[LegendEntry, ...] = ()
    """Above the caption."""
    points: tuple[LegendEntry, ...] = ()
    """A numbered list below the caption."""

    @property
    def is_crowded(self) -> bool:
        """Whether the numbers of points are smaller."""
        return len(self.points) > CROWDED


@dataclass(frozen=True)
class Point:
    """One run at (x, y), fractions, with its intervals."""

    run: str
    name: str
    x: float
    y: float
    x_interval: Interval | None = None
    y_interval: Interval | None = None

    def __str__(self) -> str:
        return f"{self.name}: {percent(self.x)} → {percent(self.y)}"


def severity_curves(rows: Sequence[Row]) -> Figure:
    """Draw the mean score over the 15 corruptions by severity, one line per model.

    Severity 0 is clean. The six models with the smallest drop have colours and, with per-image
    statistics, bands; the others are grey.
    """
    metric = metric_name(rows[0].robustness.metric)
    top = axis_end(max(max(_points(row).values()) for row in rows))
    levels = sorted(_points(rows[0]))
    span = max(levels)

    def x(severity: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * severity / span

    def y(score: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(score, 0.0), top) / top

    parts = _score_axis(top, y)
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
            _line(
                index,
                places,
                f"{figure_label(row, rows)}: {metric} {_scores_text(row)}",
                row.run.name,
            )
        )
        if index < FOREMOST:
            ends = [
                (x(level), y(low), y(high)) for level, (low, high) in sorted(_bounds(row).items())
            ]
            bands.append(_band(index, ends, row.run.name) if ends else "")
    parts += [*bands, *reversed(lines)]  # grey below colour
    legend = tuple(
        LegendEntry(row.run.name, figure_label(row, rows), _key(index))
        for index, row in enumerate(ranked[:FOREMOST])
    )
    rest = len(ranked) - FOREMOST
    grey = f"; grey: the {rest} models with larger drops" if rest > 0 else ""
    band = f"; bands: {LEVEL:.0%} intervals over images" if any(bands) else ""
    caption = f"{metric} in %, mean over the 15 corruptions, by severity{grey}{band}."
    return Figure(caption, f"{metric} against severity", Markup("".join(parts)), legend)


def clean_against_corrupted(rows: Sequence[Row]) -> Figure:
    """Draw the clean score (across) and mPC (up), with the Pareto front."""
    metric = metric_name(rows[0].robustness.metric)
    points = [
        Point(
            row.run.name,
            figure_label(row, rows),
            row.robustness.clean,
            row.robustness.mpc,
            _score_interval(row, "clean"),
            _score_interval(row, "corrupted"),
        )
        for row in rows
    ]
    front = pareto_front([(one.x, one.y) for one in points])
    order = [points[index] for index in front] + [
        one for index, one in enumerate(points) if index not in front
    ]
    note = (
        "Numbered: the Pareto front, which no other model beats in both. Dashed diagonal: no drop."
    )
    return _scatter(
        order,
        len(front),
        f"{metric}, clean, %",
        f"{metric} under corruption (mPC), %",
        note,
        joined=True,
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other dominates, from right to left."""
    order = sorted(range(len(points)), key=lambda index: (-points[index][0], -points[index][1]))
    front: list[int] = []
    for index in order:
        if (
            not front
            or points[index][1] > points[front[-1]][1]
            or points[index] == points[front[-1]]
        ):
            front.append(index)
    return front


def upstream_against_downstream(rows: Sequence[Row], every: Sequence[Row]) -> Figure | None:
    """Draw the drop of a backbone's own classifier (across) and of a transferred model (up).

    A pair has the same backbone and severities. A backbone with several upstream runs, on other
    data or under another protocol, is left out and named in the caption.

    Args:
        rows: The transferred models.
        every: All rows, among them those upstream.

    Returns:
        The figure; ``None`` without pairs.
    """
    upstream: dict[tuple[str, tuple[int, ...]], list[Row]] = {}
    for row in every:
        if row.run.is_upstream and row.robustness.metric == "top1":
            upstream.setdefault((row.run.backbone, row.robustness.severities), []).append(row)
    points, several = [], set()
    for row in rows:
        before = upstream.get((row.run.backbone, row.robustness.severities), [])
        if row.run.is_upstream or not before:
            continue
        if len(before) > 1:
            several.add(backbone_name(row.run))
            continue
        drops = before[0].robustness.drop, row.robustness.drop
        points.append(
            Point(row.run.name, figure_label(row, rows), *drops, before[0].interval, row.interval)
        )
    left_out = (
        f"Left out, with more than one run upstream: {', '.join(sorted(several))}."
        if several
        else ""
    )
    if not points:
        return Figure(left_out) if several else None
    points.sort(key=lambda one: (one.x, one.y, one.name))
    note = "Above the dashed diagonal the drop is larger downstream than upstream."
    note = f"{note} {left_out}".strip()
    across, up = "upstream drop, %", "downstream drop, %"
    return _scatter(points, len(points), across, up, note, joined=False)


def _score_interval(row: Row, quantity: str) -> Interval | None:
    draws = row.resampled.get(quantity)
    return (
        None
        if draws is None
        else interval(draws, row.value(quantity), SCORE_RANGE, freedom=row.freedom)
    )


def _scatter(
    points: Sequence[Point], numbered: int, across: str, up: str, note: str, joined: bool
) -> Figure:
    """The first ``numbered`` points have a number that the list below the figure explains."""
    high = axis_end(max(max(one.x, one.y) for one in points))
    low = min(0.0, *(min(one.x, one.y) for one in points))

    def scaled(value: float) -> float:
        return (min(max(value, low), high) - low) / (high - low)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * scaled(value)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * scaled(value)

    parts = _score_axis(high, y, low)
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(
            f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 18}"'
            f' text-anchor="middle">{percent(value, 0)}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}"'
        f' text-anchor="middle">{escape(across)}</text>'
    )
    parts.append(
        f'<line class="diagonal" x1="{x(low):.1f}" y1="{y(low):.1f}" x2="{x(high):.1f}"'
        f' y2="{y(high):.1f}"/>'
    )
    if joined:
        line = " ".join(f"{x(one.x):.1f},{y(one.y):.1f}" for one in points[:numbered])
        parts.append(f'<polyline class="front" points="{line}"/>')
    for index, one in reversed(list(enumerate(points))):
        style = index if index < numbered else FOREMOST
        drawn = ""
        if one.x_interval:
            drawn += (
                f'<path class="bar" d="M{x(one.x_interval[0]):.1f}'
                f' {y(one.y):.1f}H{x(one.x_interval[1]):.1f}"/>'
            )
        if one.y_interval:
            drawn += (
                f'<path class="bar" d="M{x(one.x):.1f}'
                f' {y(one.y_interval[0]):.1f}V{y(one.y_interval[1]):.1f}"/>'
            )
        drawn += _mark(style, x(one.x), y(one.y))
        if index < numbered:
            drawn += (
                f'<text class="number" x="{x(one.x) + 7:.1f}"'
                f' y="{y(one.y) - 6:.1f}">{index + 1}</text>'
            )
        parts.append(
            f'<g data-run="{escape(one.run)}"><title>{escape(str(one))}</title>{drawn}</g>'
        )
    bars = any(one.y_interval for one in points)
    note += f" Bars: {LEVEL:.0%} intervals over images." if bars else ""
    return Figure(
        f"Up: {up}. {note}",
        f"{up}, against {across}",
        Markup("".join(parts)),
        points=tuple(LegendEntry(one.run, str(one)) for one in points[:numbered]),
    )


def _score_axis(top: float, y: Callable[[float], float], bottom: float = 0.0) -> list[str]:
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


def _points(row: Row) -> dict[int, float]:
    return {
        0: row.robustness.clean,
        **{level: part.mpc for level, part in row.robustness.by_severity.items()},
    }


def _scores_text(row: Row) -> str:
    return ", ".join(
        f"{percent(score)} at {level or 'clean'}" for level, score in _points(row).items()
    )


def _bounds(row: Row) -> dict[int, tuple[float, float]]:
    """The interval of the score at each severity that has statistics."""
    found = {}
    for level, score in _points(row).items():
        draws = row.resampled.get(f"severity.{level}" if level else "clean")
        if draws is not None:
            found[level] = interval(draws, score, SCORE_RANGE, freedom=row.freedom)
    return found


def _style(index: int) -> str:
    if index >= FOREMOST:
        return 'class="rest"'
    dash = DASHES[index % len(DASHES)]
    return f'stroke="{COLOURS[index]}" stroke-width="2.2" fill="none"' + (
        f' stroke-dasharray="{dash}"' if dash else ""
    )


def _line(index: int, places: Sequence[tuple[float, float]], title: str, run: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = "".join(_mark(index, x, y) for x, y in places) if index < FOREMOST else ""
    line = f"<polyline {_style(index)} points='{points}'/>"
    return f'<g data-run="{escape(run)}"><title>{escape(title)}</title>{line}{marks}</g>'


def _band(index: int, ends: Sequence[tuple[float, float, float]], run: str) -> str:
    around = [*((x, low) for x, low, _ in ends), *((x, high) for x, _, high in reversed(ends))]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
    return (
        f'<polygon data-run="{escape(run)}" points="{points}" fill="{COLOURS[index]}"'
        ' fill-opacity=".13"/>'
    )


def _mark(index: int, x: float, y: float) -> str:
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


def _key(index: int) -> Markup:
    """A line with its mark, for a legend."""
    line = f"<polyline {_style(index)} points='0,7 34,7'/>"
    return Markup(
        f'<svg class="key" viewBox="0 0 34 14" aria-hidden="true">{line}{_mark(index, 17, 7)}</svg>'
    )


def axis_end(highest: float) -> float:
    """The end of the axis: the next multiple of 0.2 up to 1, so that quarters of it are round."""
    for end in (0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        if highest <= end:
            return end
    return highest
