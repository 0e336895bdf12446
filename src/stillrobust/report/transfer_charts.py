"""Charts of a study: the mean drop of each technique upstream and after each transfer."""

from collections.abc import Sequence

from stillrobust.analysis.intervals import LEVEL
from stillrobust.report.charts import (
    Chart,
    ChartGroup,
    Series,
    Trace,
    bounds_in_percent,
    chart_text,
    error_bars,
    hover,
    in_percent,
    layout,
)
from stillrobust.report.labels import TASKS, technique_name
from stillrobust.report.table import Column, Percent, Table, TableRow, percent
from stillrobust.report.transfer_gain import REGULAR, TransferGain

BEFORE = "upstream"
STEP = (
    0.05  # by which the marks of a stage are moved apart, so that intervals do not hide each other
)
MOST_SHARES = 2  # techniques whose shares are written beside their marks


def transfer_charts(lines: Sequence[TransferGain]) -> tuple[ChartGroup, ...]:
    """Draw drops from upstream to downstream: a line per technique, and one for the regular model.

    Args:
        lines: Compared lines of :func:`transfer_gain.transfer_gain`.

    Returns:
        A chart with its legend for each backbone, task and dataset.
    """
    groups: dict[tuple[str, str, str], list[TransferGain]] = {}
    for line in lines:
        groups.setdefault((line.backbone, line.task, line.dataset), []).append(line)
    return tuple(_chart(*key, group) for key, group in groups.items())


def _chart(backbone: str, task: str, dataset: str, lines: Sequence[TransferGain]) -> ChartGroup:
    stages = [BEFORE, *dict.fromkeys(line.transfer for line in lines)]
    drops: dict[str, dict[str, Percent]] = {REGULAR: {}}
    shares: dict[tuple[str, str], str] = {}
    for line in lines:
        before_regular, before, after_regular, after = line.drops
        drops[REGULAR] |= {BEFORE: before_regular, line.transfer: after_regular}
        drops.setdefault(line.technique, {}).update({BEFORE: before, line.transfer: after})
        if line.retained is not None:
            shares[line.technique, line.transfer] = f"{percent(line.retained, 0)} %"
    series = {
        name: Series(technique_name(name), max(index - 1, 0), is_reference=name == REGULAR)
        for index, name in enumerate(drops)
    }
    traces, shares_drawn = [], []
    for index, (name, own) in enumerate(drops.items()):
        shift = STEP * (index - (len(drops) - 1) / 2)
        known = [stage for stage in stages if stage in own]
        notes = [shares.get((name, stage), "") for stage in known]
        if len(drops) > 1 + MOST_SHARES:
            notes = []
        shares_drawn.append(notes)
        places = [stages.index(stage) + shift for stage in known]
        traces.append(_line(index, series[name], places, known, own, notes))
    title = f"{TASKS[task]} on {dataset}, {backbone}"
    caption = [
        f"Mean drop in %: lower is more robust. Lines: {LEVEL:.0%} intervals of each drop.",
        "The gain is a paired difference and more certain than they suggest.",
        "Fixed feature: the backbone stays frozen." if "fixed feature" in stages else "",
        "Beside a mark: the share of the gain that is kept." if any(map(any, shares_drawn)) else "",
    ]
    chart = Chart(
        title,
        " ".join(filter(None, caption)),
        tuple(traces),
        layout(
            400,
            up="Mean drop, %",
            xaxis={
                "tickvals": list(range(len(stages))),
                "ticktext": [chart_text(stage).replace(" ", "<br>", 1) for stage in stages],
                "range": [-0.3, len(stages) - 1 + 0.45],
                "tickangle": 0,
                "showgrid": False,
            },
            yaxis={"rangemode": "tozero"},
        ),
        Table.from_rows(
            f"Mean drop in %, {title}",
            [
                Column(heading="Technique", is_text=True),
                *(Column(heading=stage.capitalize()) for stage in stages),
            ],
            [
                TableRow((series[name].label, *(own.get(stage) for stage in stages)))
                for name, own in drops.items()
            ],
        ),
    )
    return ChartGroup((chart,), tuple(series.values()))


def _line(
    index: int,
    one: Series,
    places: Sequence[float],
    stages: Sequence[str],
    drops: dict[str, Percent],
    notes: Sequence[str],
) -> Trace:
    values = [in_percent(drops[stage].value) for stage in stages]
    bars = error_bars(values, [bounds_in_percent(drops[stage].interval) for stage in stages])
    return {
        "type": "scatter",
        "mode": "lines+markers+text",
        "name": chart_text(one.label),
        "x": list(places),
        "y": values,
        "text": list(notes),
        "textposition": "bottom right",
        "textfont": {"color": one.colour},
        "error_y": {"visible": False} if bars is None else {**bars, "color": one.colour},
        "line": {"color": one.colour, "width": 2.4, "dash": one.dash},
        "marker": {"color": one.colour, "symbol": one.marker, "size": 9},
        "hovertext": [
            hover(f"{one.label}, {stage}", ("mean drop", drops[stage])) for stage in stages
        ],
        "hoverinfo": "text",
        "cliponaxis": False,
        "meta": index,
    }
