"""Runs as points: clean score against mPC, and the upstream drop against the downstream drop."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from stillrobust.analysis.intervals import LEVEL, interval
from stillrobust.report.figures import (
    BOTTOM,
    FOREMOST,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    label,
    mark,
    nice,
    score_axis,
)
from stillrobust.report.rows import Row
from stillrobust.report.summary import METRICS, backbone_name
from stillrobust.report.tables import percent

Bounds = tuple[float, float] | None
CROWDED = 20  # numbers beside points, from where on they are smaller


@dataclass(frozen=True)
class Point:
    """One run at (x, y), fractions, with its intervals."""

    run: str
    name: str
    x: float
    y: float
    x_interval: Bounds = None
    y_interval: Bounds = None


def clean_against_corrupted(rows: Sequence[Row]) -> str:
    """Clean score (across) and mPC (up); the models that no other beats in both are joined: the
    Pareto front.
    """
    metric = METRICS.get(rows[0].robustness.metric, rows[0].robustness.metric)
    points = [
        Point(
            row.run.name,
            label(row, rows),
            row.robustness.clean,
            row.robustness.mpc,
            _around(row, "clean"),
            _around(row, "corrupted"),
        )
        for row in rows
    ]
    front = pareto_front([(one.x, one.y) for one in points])
    order = [points[index] for index in front] + [
        one for index, one in enumerate(points) if index not in front
    ]
    told = (
        "Numbered: the Pareto front, which no other model beats in both. Dashed diagonal: nothing"
        " lost."
    )
    return _scatter(
        order,
        len(front),
        f"{metric}, clean, %",
        f"{metric} under corruption (mPC), %",
        told,
        joined=True,
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that none equals or exceeds in both coordinates and exceeds in one,
    from right to left.
    """
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


def upstream_against_downstream(rows: Sequence[Row], every: Sequence[Row]) -> str:
    """The drop of a backbone's own classifier (across) and of what it was transferred to (up);
    empty without such pairs.

    A pair is the same backbone, once with its own classifier, and the same severities. A backbone
    that was measured upstream in more than one way, on other data or under another protocol, has no
    pair, which the caption says.
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
            Point(row.run.name, label(row, rows), *drops, before[0].interval, row.interval)
        )
    left_out = (
        f" Left out, for upstream there is more than one run of it: {', '.join(sorted(several))}."
        if several
        else ""
    )
    if not points:
        return f"<p class=soft>{escape(left_out.strip())}</p>" if several else ""
    points.sort(key=lambda one: (one.x, one.y, one.name))
    told = (
        "Above the dashed diagonal more is lost downstream than upstream; a rising row of points:"
        " robustness is passed on."
    )
    told += escape(left_out)
    return _scatter(
        points, len(points), "upstream drop, %", "downstream drop, %", told, joined=False
    )


def _around(row: Row, quantity: str) -> Bounds:
    draws = row.resampled.get(quantity)
    return None if draws is None else interval(draws, row.value(quantity))


def _scatter(
    points: Sequence[Point], numbered: int, across: str, up: str, told: str, joined: bool
) -> str:
    """The first ``numbered`` points have a number that the list below explains; the others tell
    their name on the spot.
    """
    high = nice(max(max(one.x, one.y) for one in points))
    low = min(0.0, *(min(one.x, one.y) for one in points))

    def scaled(value: float) -> float:
        return (min(max(value, low), high) - low) / (high - low)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * scaled(value)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * scaled(value)

    parts = score_axis(high, y, low)
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
        drawn += mark(style, x(one.x), y(one.y))
        if index < numbered:
            drawn += (
                f'<text class="number" x="{x(one.x) + 7:.1f}"'
                f' y="{y(one.y) - 6:.1f}">{index + 1}</text>'
            )
        parts.append(
            f'<g data-run="{escape(one.run)}"><title>{escape(_said(one))}</title>{drawn}</g>'
        )
    names = "".join(
        f'<li data-run="{escape(one.run)}">{escape(_said(one))}</li>' for one in points[:numbered]
    )
    bars_are = (
        f" Bars: {LEVEL:.0%} intervals over images."
        if any(one.y_interval for one in points)
        else ""
    )
    return (
        f'<figure><svg class="curves{" many" if numbered > CROWDED else ""}" viewBox="0 0 {WIDTH}'
        f' {HEIGHT}" role="img" '
        f'aria-label="{escape(up)}, against {escape(across)}">'
        f"{''.join(parts)}</svg><figcaption>Up: {escape(up)}. {told}{bars_are}</figcaption>"
        f'<ol class="points">{names}</ol></figure>'
    )


def _said(one: Point) -> str:
    return f"{one.name}: {percent(one.x)} → {percent(one.y)}"
