"""Charts as plain values for the embedded charting library, Plotly.

A chart is JSON: traces, a layout, and a table of the same numbers. Text from data is escaped,
because the library reads tags and entities in every text. Colours are names of style variables,
such as ``--series-1`` or ``--series-1/0.2`` with an opacity, which the page's script resolves for
light and dark.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from stillrobust.report.table import Interval, Percent, Table
from stillrobust.untrusted import printable

Trace = dict[str, Any]
"""One trace of the library: a line, marks, or bars."""

SERIES_COLOURS = 6  # style variables --series-1 to --series-6
DASHES = ("solid", "dash", "dot", "dashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
LONGEST_NAME = 40  # characters of a name within a chart; hover text and tables have all of it


@dataclass(frozen=True)
class Series:
    """One entry of a legend, which shows and hides its traces."""

    label: str
    style: int
    """Number of its colour, dash and mark."""
    run: str = ""
    """Name of the run; the page's filters hide the series by it."""
    shown: bool = True
    """Whether it is visible at first."""
    is_reference: bool = False
    """Whether the others are compared with it; it is grey and dotted."""

    @property
    def colour(self) -> str:
        """The style variable of its colour."""
        return "--soft" if self.is_reference else series_colour(self.style)

    @property
    def dash(self) -> str:
        """The dash of its line."""
        return "dot" if self.is_reference else DASHES[self.style // SERIES_COLOURS % len(DASHES)]

    @property
    def marker(self) -> str:
        """The shape of its mark."""
        return MARKERS[self.style % len(MARKERS)]


@dataclass(frozen=True)
class Chart:
    """A chart, the numbers behind it, and its caption."""

    title: str
    caption: str
    traces: tuple[Trace, ...]
    layout: Mapping[str, Any]
    table: Table
    """The numbers of the chart, for screen readers and for whoever wants them."""

    @property
    def json(self) -> Markup:
        """Traces and layout for a ``script`` element."""
        return Markup(
            safe_json({"title": self.title, "traces": self.traces, "layout": self.layout})
        )

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.layout["height"])


@dataclass(frozen=True)
class ChartGroup:
    """Charts of the same series, under one legend."""

    charts: tuple[Chart, ...]
    legend: tuple[Series, ...] = ()


def series_colour(style: int, opacity: float = 1.0) -> str:
    """The style variable of a series' colour, as the script reads it."""
    name = f"--series-{style % SERIES_COLOURS + 1}"
    return name if opacity == 1 else f"{name}/{opacity:g}"


def safe_json(value: Any) -> str:
    """Render a value as JSON that cannot end its ``script`` element or attribute.

    Control characters and bidirectional marks in texts become visible escapes. NaN and infinity
    become ``null``.
    """
    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&'":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {printable(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return round(float(value), 6) if math.isfinite(value) else None
    return value


def chart_text(text: str, longest: int | None = None) -> str:
    """Escape text for the library, which reads tags and entities.

    Args:
        text: Any text.
        longest: Number of characters to shorten it to (default: all).
    """
    if longest is not None and len(text) > longest:
        text = f"{text[: longest - 1]}…"
    escaped = printable(text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def layout(height: int, across: str = "", up: str = "", **others: Any) -> dict[str, Any]:
    """A layout in the style of the page.

    Args:
        height: In pixels; the width is that of the page.
        across: Title of the horizontal axis.
        up: Title of the vertical axis.
        others: Further keys. ``xaxis`` and ``yaxis`` are merged with the style of axes.
    """
    found: dict[str, Any] = {
        "height": height,
        "margin": {"l": 24, "r": 24, "t": 12, "b": 8},
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "paper_bgcolor": "--clear",
        "plot_bgcolor": "--clear",
        "font": {"size": 13, "color": "--soft"},
        "hoverlabel": {
            "bgcolor": "--paper",
            "bordercolor": "--soft",
            "align": "left",
            "font": {"color": "--ink", "size": 13},
            "namelength": -1,
        },
        **{key: value for key, value in others.items() if key not in ("xaxis", "yaxis")},
    }
    for name, title in (("xaxis", across), ("yaxis", up)):
        found[name] = {
            "title": {"text": title, "font": {"size": 13}, "standoff": 12},
            "gridcolor": "--line",
            "linecolor": "--line",
            "zeroline": False,
            "fixedrange": True,
            "automargin": True,
            "ticks": "",
            "ticklabeloverflow": "allow",
            **others.get(name, {}),
        }
    return found


def error_bars(values: Sequence[float], bounds: Sequence[Interval | None]) -> dict[str, Any] | None:
    """Error bars from values to their bounds, all in percent; ``None`` without any bounds."""
    if all(one is None for one in bounds):
        return None
    ends = [one or (value, value) for value, one in zip(values, bounds, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, (_, high) in zip(values, ends, strict=True)],
        "arrayminus": [value - low for value, (low, _) in zip(values, ends, strict=True)],
        "thickness": 1.5,
        "width": 4,
        "color": "--ink",
    }


def in_percent(fraction: float) -> float:
    """A fraction as the number that a chart shows."""
    return 100 * fraction


def bounds_in_percent(bounds: Interval | None) -> Interval | None:
    """An interval as numbers that a chart shows."""
    return None if bounds is None else (100 * bounds[0], 100 * bounds[1])


def hover(name: str, *lines: tuple[str, Percent]) -> str:
    """The text of a hover box: a name, and values with their intervals."""
    rows = [f"{chart_text(title)}: {value} %" for title, value in lines]
    return "<br>".join([f"<b>{chart_text(name)}</b>", *rows])
