"""The figures of every report for a paper, as PDF and PNG in the sizes of CVPR's columns.

Curves by severity, clean against corrupted, drops by corruption group, and gains from upstream to
downstream. Only figures that have something to show are made. Runs that differ only in their seed
are shown as their mean.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from stillrobust.names import format_count
from stillrobust.report.figure_style import (
    COLOURS,
    COLUMN_WIDTH,
    DASHES,
    GREY,
    HATCHES,
    MARKERS,
    PAGE_WIDTH,
    draw_figure,
    short_name,
)
from stillrobust.report.labels import (
    corruption_name,
    figure_label,
    mean_name,
    metric_name,
    task_name,
)
from stillrobust.report.protocol_groups import protocol_groups
from stillrobust.report.results_table import GROUP_ORDER
from stillrobust.report.rows import Row, Summary
from stillrobust.report.seed_means import merge_seeds
from stillrobust.report.transfer_gain import Gain, TransferGain, transfer_gain
from stillrobust.storage.store import Run

FOLDER = "figures"
FOREMOST = len(COLOURS)  # models with a colour; of others only curves and points are shown, in grey
PLOT_HEIGHT, LEGEND_LINE = 2.1, 0.14  # inches
LETTERS_PER_INCH = 19  # of a legend
HIGHEST = 102  # end of an axis of scores in %, so that a line at 100 is whole
LONGEST_PART = 40  # characters of a dataset in the name of a file


@dataclass(frozen=True)
class PaperFigure:
    """A figure that is drawn when its files are written."""

    name: str
    """Path in the folder of the report, without its ending."""
    description: str
    width: float
    """Inches."""
    height: float
    """Inches."""
    draw: Callable[[Any], None]
    """Fills an empty matplotlib figure."""

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The content of the figure's files by path."""
        drawn = draw_figure(self.width, self.height, self.draw)
        return {f"{self.name}.{kind}": content for kind, content in drawn.items()}

    @property
    def paths(self) -> list[str]:
        """The paths of the figure's files, without drawing it."""
        return [f"{self.name}.pdf", f"{self.name}.png"]


def list_paper_figures(runs: Iterable[Run], summary: Summary) -> list[PaperFigure]:
    """List the figures of a report.

    Args:
        runs: All runs of the store.
        summary: Rows of the store.

    Returns:
        Figures that have something to show; none is drawn yet.
    """
    figures = []
    for group in [*protocol_groups(summary.rows), *protocol_groups(summary.partial_rows)]:
        rows = sorted(merge_seeds(group), key=lambda row: row.robustness.drop)
        for kind in (_severity_curves, _clean_against_corrupted, _drop_by_part):
            figures += kind(rows)
    figures += _transfer_gains(transfer_gain(runs, summary.rows))
    return _with_unique_names(figures)


def _with_unique_names(figures: Sequence[PaperFigure]) -> list[PaperFigure]:
    """Number the figures of one kind and subject under several protocols."""
    counts: dict[str, int] = {}
    found = []
    for one in figures:
        counts[one.name] = counts.get(one.name, 0) + 1
        number = counts[one.name]
        name = one.name if number == 1 else f"{one.name}-{number}"
        found.append(PaperFigure(name, one.description, one.width, one.height, one.draw))
    return found


def _figure(
    kind: str, rows: Sequence[Row], about: str, wide: bool, draw: Callable[[Any], None]
) -> PaperFigure:
    """A figure of comparable rows; its name and description name the data and the metric."""
    run, metric = rows[0].run, rows[0].robustness.metric
    width = PAGE_WIDTH if wide else COLUMN_WIDTH
    labels = _labels(rows)
    lines = -(-len(labels) // _legend_columns(labels, width))
    return PaperFigure(
        f"{FOLDER}/{kind}-{'-'.join(map(_path_part, (run.task, run.dataset, metric)))}",
        f"{about}, {task_name(run)} on {run.dataset}, {metric_name(metric)};"
        f" {'both columns' if wide else 'one column'}",
        width,
        PLOT_HEIGHT + LEGEND_LINE * lines,
        draw,
    )


def _path_part(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")[:LONGEST_PART]


def _labels(rows: Sequence[Row], others: bool = True) -> list[str]:
    """The labels of the foremost rows, and of the others together."""
    labels = [short_name(figure_label(row, rows)) for row in rows[:FOREMOST]]
    left = len(rows) - FOREMOST
    return [*labels, f"{left} models with larger drops"] if left > 0 and others else labels


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """As many columns as fit, and no more than the lines need."""
    longest = max(map(len, labels)) + 6  # the line or mark before a label
    fitting = max(1, int(width * LETTERS_PER_INCH / longest))
    lines = -(-len(labels) // fitting)
    return -(-len(labels) // lines)


def _add_legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    columns = _legend_columns(labels, figure.get_figwidth())
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, borderpad=0.1)


# ---- curves by severity --------------------------------------------------------------------------


def _severity_curves(rows: Sequence[Row]) -> list[PaperFigure]:
    if len(rows[0].robustness.severities) < 2:
        return []
    draw = partial(_draw_severity_curves, rows=rows)
    return [_figure("severity_curves", rows, "Score by severity", False, draw)]


def _draw_severity_curves(figure: Any, rows: Sequence[Row]) -> None:
    place = figure.subplots()
    levels = [0, *sorted(rows[0].robustness.severities)]
    quantities = [f"severity.{level}" if level else "clean" for level in levels]
    scores = [[100 * row.value(quantity) for quantity in quantities] for row in rows]
    others = list(zip(*scores[FOREMOST:], strict=True))
    grey = place.plot(levels, others, color=GREY, linewidth=0.5)[:1] if others else []
    handles = []
    for row, own, colour, marker, dash in zip(rows, scores, COLOURS, MARKERS, DASHES, strict=False):
        handles += place.plot(levels, own, color=colour, marker=marker, linestyle=dash)
        bounds = [bound for quantity in quantities if (bound := row.interval_of(quantity))]
        if len(bounds) == len(quantities):
            low, high = ([100 * bound[end] for bound in bounds] for end in (0, 1))
            place.fill_between(levels, low, high, color=colour, alpha=0.15, linewidth=0)
    numbers = rows[0].robustness
    place.set_xticks(levels, [str(level) if level else "clean" for level in levels])
    place.set_xlabel(f"severity (mean over {format_count(len(numbers.corruptions), 'corruption')})")
    place.set_ylabel(f"{metric_name(numbers.metric)} (%)")
    place.grid(axis="y")
    place.set_ylim(0, min(place.get_ylim()[1], HIGHEST))
    _add_legend(figure, [*handles, *grey], _labels(rows))


# ---- clean against corrupted ---------------------------------------------------------------------


def _clean_against_corrupted(rows: Sequence[Row]) -> list[PaperFigure]:
    if len(rows) < 2:
        return []
    draw = partial(_draw_clean_against_corrupted, rows=rows)
    return [_figure("clean_against_corrupted", rows, "Clean against corrupted score", False, draw)]


def _draw_clean_against_corrupted(figure: Any, rows: Sequence[Row]) -> None:
    place = figure.subplots()
    places = [[100 * row.value(quantity) for row in rows] for quantity in ("clean", "corrupted")]
    handles = []
    for row, x, y, colour, marker in zip(rows, *places, COLOURS, MARKERS, strict=False):
        handle = place.errorbar(
            x,
            y,
            xerr=_reach(row, "clean"),
            yerr=_reach(row, "corrupted"),
            color=colour,
            marker=marker,
            linestyle="",
            elinewidth=0.8,
        )
        handles.append(handle)
    if len(rows) > FOREMOST:
        grey = place.scatter(*(one[FOREMOST:] for one in places), s=6, color=GREY, zorder=1)
        handles.append(grey)
    numbers = rows[0].robustness
    place.locator_params(nbins=6, steps=[1, 2, 5, 10])
    place.grid()
    place.set_xlabel(f"clean {metric_name(numbers.metric)} (%)")
    place.set_ylabel(f"{metric_name(numbers.metric)}, {mean_name(numbers)} (%)")
    _add_legend(figure, handles, _labels(rows))


def _reach(row: Row, quantity: str) -> list[list[float]] | None:
    """How far the interval of a quantity reaches below and above it, in points."""
    bounds = row.interval_of(quantity)
    if bounds is None:
        return None
    value = row.value(quantity)
    return [[100 * max(value - bounds[0], 0.0)], [100 * max(bounds[1] - value, 0.0)]]


# ---- drops ---------------------------------------------------------------------------------------


def _drop_by_part(rows: Sequence[Row]) -> list[PaperFigure]:
    """Drops by group, or for fewer than the 15 corruptions by corruption."""
    part = "group" if rows[0].robustness.is_complete else "type"
    about = f"Drop by corruption {part}"
    if len(rows) > FOREMOST:
        about += f" of the {FOREMOST} of {len(rows)} models with the smallest mean drop"
    draw = partial(_draw_drops, rows=rows[:FOREMOST], every=rows)
    return [_figure(f"drop_by_{part}", rows, about, True, draw)]


def _draw_drops(figure: Any, rows: Sequence[Row], every: Sequence[Row]) -> None:
    place = figure.subplots()
    if rows[0].robustness.is_complete:
        parts = {f"drop.{group}": group for group in GROUP_ORDER} | {"drop": "mean of all 15"}
    else:
        names = rows[0].robustness.corruptions
        parts = {f"drop.{name}": corruption_name(name) for name in names}
    width = 0.82 / len(rows)
    handles = []
    for index, row in enumerate(rows):
        for number, quantity in enumerate(parts):
            x = number + (index - (len(rows) - 1) / 2) * width
            handle = place.bar(
                x,
                100 * row.value(quantity),
                0.9 * width,
                yerr=_reach(row, quantity),
                color=COLOURS[index],
                hatch=HATCHES[index],
                edgecolor="white",
                linewidth=0,
                error_kw={"elinewidth": 0.8, "ecolor": "black"},
            )
        handles.append(handle)
    place.axhline(0, color="black", linewidth=0.6)
    place.set_xticks(range(len(parts)), list(parts.values()))
    place.set_xlim(-0.55, len(parts) - 0.45)
    place.grid(axis="y")
    place.set_ylabel(f"drop of {metric_name(rows[0].robustness.metric)} (%)")
    _add_legend(figure, handles, _labels(every, others=False))


# ---- from upstream to downstream -----------------------------------------------------------------


def _transfer_gains(lines: Sequence[TransferGain]) -> list[PaperFigure]:
    compared = [line for line in lines if line.upstream and line.downstream]
    if not compared:
        return []
    subjects = list(dict.fromkeys((line.task, line.dataset) for line in compared))
    series = list(dict.fromkeys((line.backbone, line.technique) for line in compared))[:FOREMOST]
    wide = len(subjects) > 1
    height = PLOT_HEIGHT + LEGEND_LINE * (1 + len(series) // (3 if wide else 1))
    return [
        PaperFigure(
            f"{FOLDER}/transfer_gain",
            f"Gain of each technique upstream and after each transfer;"
            f" {'both columns' if wide else 'one column'}",
            PAGE_WIDTH if wide else COLUMN_WIDTH,
            height,
            partial(_draw_transfer_gains, lines=compared, subjects=subjects, series=series),
        )
    ]


def _draw_transfer_gains(
    figure: Any,
    lines: Sequence[TransferGain],
    subjects: Sequence[tuple[str, str]],
    series: Sequence[tuple[str, str]],
) -> None:
    axes = figure.subplots(1, len(subjects), squeeze=False, sharey=True)[0]
    several = len({backbone for backbone, _ in series}) > 1
    labels = [
        short_name(f"{technique} ({backbone})" if several else technique)
        for backbone, technique in series
    ]
    handles: dict[int, Any] = {}
    for place, (task, dataset) in zip(axes, subjects, strict=True):
        here = [line for line in lines if (line.task, line.dataset) == (task, dataset)]
        transfers = list(dict.fromkeys(line.transfer for line in here))
        for index, key in enumerate(series):
            own = {line.transfer: line for line in here if (line.backbone, line.technique) == key}
            gains = [(0, next(iter(own.values())).upstream)] if own else []
            gains += [
                (1 + number, own[name].downstream)
                for number, name in enumerate(transfers)
                if name in own
            ]
            if gains:
                shift = (index - (len(series) - 1) / 2) * min(0.12, 0.6 / len(series))
                handles[index] = _gain_line(place, index, shift, gains)
        place.axhline(0, color="black", linewidth=0.6)
        place.set_xticks(
            range(1 + len(transfers)),
            ["upstream", *(one.replace(" ", "\n", 1) for one in transfers)],
        )
        place.set_xlim(-0.4, len(transfers) + 0.4)
        place.grid(axis="y")
        if len(subjects) > 1:
            place.set_title(short_name(f"{task}, {dataset}"))
    axes[0].set_ylabel("gain: reduction of\nthe mean drop (points)")
    _add_legend(figure, [handles[index] for index in sorted(handles)], labels)


def _gain_line(
    place: Any, index: int, shift: float, gains: Sequence[tuple[int, Gain | None]]
) -> Any:
    """Points with intervals, joined from upstream to the transfers."""
    known = [(x + shift, gain) for x, gain in gains if gain is not None]
    for x, gain in known:
        if gain.interval is not None:
            low, high = (100 * end for end in gain.interval)
            place.vlines(x, low, high, color=COLOURS[index], linewidth=0.8)
    (handle,) = place.plot(
        [x for x, _ in known],
        [100 * gain.value for _, gain in known],
        color=COLOURS[index],
        marker=MARKERS[index],
        linestyle=DASHES[index],
        linewidth=0.8,
    )
    return handle
