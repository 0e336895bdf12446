"""The paper's figures and tables as PDF and PNG.

Fonts are embedded as TrueType, so that text stays text.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from stillrobust.report.figure_style import PAGE_WIDTH, draw_figure
from stillrobust.report.labels import metric_name
from stillrobust.report.paper_exhibits import Exhibit, ExhibitEntry, ExhibitPanel, panel_table

# drops are blue as in the paper; hatches are for print in grey
COLOURS = {"drop": "#0072b2", "clean": "#e69f00", "corrupted": "#999999"}
HATCHES = {"drop": "", "clean": "//", "corrupted": ".."}
BAR_LABELS = {
    "drop": "performance drop, %",
    "clean": "clean score, %",
    "corrupted": "score under corruption, %",
}
PANEL_WIDTH, PANEL_HEIGHT = PAGE_WIDTH / 2, 2.3  # inches; two side by side fill the width of a page
LONGEST_LABELS = 34  # letters of all labels of a panel; above, they are slanted


def draw_exhibit(exhibit: Exhibit, note: str = "") -> dict[str, bytes]:
    """Draw an exhibit; the same numbers give the same bytes.

    Args:
        exhibit: A table or figure.
        note: Small text at the bottom.

    Returns:
        ``{"pdf": ..., "png": ...}``.
    """
    is_figure = exhibit.layout == "bars"
    columns = min(2, len(exhibit.panels)) if is_figure else 2
    if is_figure:
        height = PANEL_HEIGHT * -(-len(exhibit.panels) // columns) + 0.4
    else:
        lines = [_table_lines(panel, exhibit.layout) for panel in exhibit.panels]
        height = sum(0.55 + 0.22 * len(texts) for texts in lines)
    draw = partial(_bars if is_figure else _tables, exhibit=exhibit, note=note)
    return draw_figure(PANEL_WIDTH * columns, height, draw)


def _bars(figure: Any, exhibit: Exhibit, note: str) -> None:
    columns = min(2, len(exhibit.panels))
    lines = -(-len(exhibit.panels) // columns)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for place, panel in zip(axes, exhibit.panels, strict=False):
        _panel(place, panel, exhibit.bars)
    for place in axes[len(exhibit.panels) :]:
        place.axis("off")
    handles = [_patch(bar) for bar in exhibit.bars]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    _add_note(figure, note)


def _add_note(figure: Any, note: str) -> None:
    if note:
        figure.supxlabel(note, x=0.99, ha="right", fontsize=6, color="#555555")


def _patch(bar: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(
        facecolor=COLOURS[bar], hatch=HATCHES[bar], edgecolor="white", label=BAR_LABELS[bar]
    )


def _panel(place: Any, panel: ExhibitPanel, bars: Sequence[str]) -> None:
    """Groups of bars, one for each model; an incomplete run leaves its place empty."""
    width = 0.8 / len(bars)
    for index, entry in enumerate(panel.entries):
        if entry.row is None:
            place.text(
                index, 0, "not\nmeasured", ha="center", va="bottom", fontsize=6, color="#777777"
            )
            continue
        for number, bar in enumerate(bars):
            _bar(place, index + (number - (len(bars) - 1) / 2) * width, width, bar, entry)
    labels = [entry.label for entry in panel.entries]
    slanted = sum(map(len, labels)) > LONGEST_LABELS
    place.set_xticks(
        range(len(labels)),
        labels,
        rotation=30 if slanted else 0,
        ha="right" if slanted else "center",
    )
    place.set_xlim(-0.6, len(labels) - 0.4)
    place.set_title(f"{panel.title} ({metric_name(panel.metric)})", fontsize=8)
    place.set_ylabel("%")
    place.axhline(0, color="black", linewidth=0.6)
    low, high = place.get_ylim()
    place.set_ylim(low, high + 0.08 * (high - low))


def _bar(place: Any, x: float, width: float, bar: str, entry: ExhibitEntry) -> None:
    assert entry.row is not None
    value = 100 * entry.row.value(bar)
    place.bar(
        x,
        value,
        0.92 * width,
        color=COLOURS[bar],
        hatch=HATCHES[bar],
        edgecolor="white",
        linewidth=0,
    )
    top = value
    if bar == "drop" and entry.row.interval is not None:
        low, high = (100 * end for end in entry.row.interval)
        place.vlines(x, low, high, color="black", linewidth=0.8)
        top = max(value, high)
    place.annotate(
        f"{value:.1f}",
        (x, max(top, 0)),
        (0, 1.5),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=5.5,
    )


def _tables(figure: Any, exhibit: Exhibit, note: str) -> None:
    every = [_table_lines(panel, exhibit.layout) for panel in exhibit.panels]
    axes = figure.subplots(
        len(every), 1, squeeze=False, height_ratios=[2.5 + len(lines) for lines in every]
    ).flat
    for place, panel, lines in zip(axes, exhibit.panels, every, strict=True):
        place.axis("off")
        place.set_title(panel.title, fontsize=8)
        table = place.table(
            cellText=lines[1:],
            colLabels=lines[0],
            loc="center",
            cellLoc="right",
            edges="horizontal",
        )
        table.auto_set_font_size(False)
        table.set_fontsize(8)
        table.auto_set_column_width(range(len(lines[0])))
        for (line, column), cell in table.get_celld().items():
            cell.visible_edges = "TB" if line == 0 else "B" if line == len(lines) - 1 else ""
            if column == 0:
                cell.set_text_props(ha="left")
    _add_note(figure, note)


def _table_lines(panel: ExhibitPanel, layout: str) -> list[list[str]]:
    """The texts of a panel's table, its headings first."""
    table = panel_table(panel, layout)
    return [table.headings, *map(table.cell_texts, table.rows)]
