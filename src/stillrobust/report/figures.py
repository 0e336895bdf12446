"""The charts of the page. Each has the numbers of its rows, and a table of the same numbers."""

from collections.abc import Mapping, Sequence

from stillrobust.analysis.intervals import LEVEL, SCORE_RANGE, interval
from stillrobust.grid import COMMON
from stillrobust.report.charts import (
    LONGEST_NAME,
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
    series_colour,
)
from stillrobust.report.labels import corruption_name, figure_label, mean_name, metric_name
from stillrobust.report.rows import Row
from stillrobust.report.table import Column, Interval, Percent, Table, TableRow, percent

MOST_LINES = 10  # shown at first; beyond it the best and the worst, and the legend shows others
BEST, WORST = 5, 3
MOST_BANDS = 4  # lines up to which bands do not hide each other
MOST_BARS = 12  # models in the chart of bars
ROW_HEIGHT, WIDE_ROW_HEIGHT, CROWDED_ROW_HEIGHT = 46, 76, 36  # pixels of a bar with its label
FEW_BARS = 4
INTERVALS = f"{LEVEL:.0%} intervals over images"


def score(row: Row, quantity: str, value: float) -> Percent:
    """A score of a row with its interval, which lies within 0 and 100 %.

    Args:
        row: The row.
        quantity: Key of :attr:`Row.resampled`, such as ``clean`` or ``severity.3``.
        value: The score as a fraction.
    """
    draws = row.resampled.get(quantity)
    if draws is None:
        return Percent(value)
    return Percent(value, interval(draws, value, SCORE_RANGE, freedom=row.freedom))


def clean_score(row: Row) -> Percent:
    """The clean score of a row with its interval."""
    return score(row, "clean", row.robustness.clean)


def corrupted_score(row: Row) -> Percent:
    """The mean score of a row under corruption with its interval."""
    return score(row, "corrupted", row.robustness.mpc)


def severity_scores(row: Row) -> dict[int, Percent]:
    """The clean score (at 0), and the mean score at each severity."""
    found = {0: clean_score(row)}
    for level, part in sorted(row.robustness.by_severity.items()):
        found[level] = score(row, f"severity.{level}", part.mpc)
    return found


# ---- bars of scores ------------------------------------------------------------------------------


def score_bars(rows: Sequence[Row], names: Sequence[Row]) -> Chart:
    """Draw a bar from 0 to the clean score of each model, and one to its score under corruption.

    Args:
        rows: Comparable rows, the most robust first. Of many the first and the last are drawn.
        names: All rows among which names are unique.
    """
    drawn = list(rows)
    if len(rows) > MOST_BARS:
        drawn = [*rows[: MOST_BARS - WORST], *rows[-WORST:]]
    metric, mean = metric_name(rows[0].robustness.metric), mean_name(rows[0].robustness)
    labels = [figure_label(row, names) for row in drawn]
    scores = {
        "Clean": [clean_score(row) for row in drawn],
        "Corrupted": [corrupted_score(row) for row in drawn],
    }
    texts = [
        hover(
            label,
            ("clean", clean),
            (f"corrupted, {mean}", corrupted),
            ("drop", Percent(row.robustness.drop, row.interval)),
        )
        for row, label, clean, corrupted in zip(drawn, labels, *scores.values(), strict=True)
    ]
    notes = [
        (label, f"{percent(row.robustness.drop)} % lost")
        for row, label in zip(drawn, labels, strict=True)
    ]
    left_out = len(rows) - len(drawn)
    caption = [
        f"Pale: clean {metric} in %. Solid: under corruption, {mean}.",
        f"Lines: {INTERVALS}." if any(one.interval for one in scores["Clean"]) else "",
        f"The {left_out} models between the first and the last are in the table."
        if left_out
        else "",
    ]
    columns = [
        Column(heading="Model", is_text=True),
        *(Column(heading=name) for name in (f"Clean {metric}", "Corrupted", "Drop")),
    ]
    lines = [
        TableRow((label, clean, corrupted, Percent(row.robustness.drop, row.interval)))
        for row, label, clean, corrupted in zip(drawn, labels, *scores.values(), strict=True)
    ]
    title = f"{metric}, clean and under corruption"
    return _bars(title, _sentences(caption), scores, texts, notes, columns, lines)


def corruption_bars(row: Row, names: Sequence[Row]) -> Chart:
    """Draw a bar from 0 to the clean score for each corruption, and one to the score under it.

    Args:
        row: The only model.
        names: All rows among which names are unique.
    """
    numbers = row.robustness
    parts = sorted(numbers.by_corruption.items(), key=lambda part: part[1].mpc)
    metric, clean = metric_name(numbers.metric), clean_score(row)
    under = [score(row, f"corruption.{name}", part.mpc) for name, part in parts]
    labels = [corruption_name(name) for name, _ in parts]
    drops = [Percent(1 - one.value / numbers.clean) for one in under]
    scores = {"Clean": [clean] * len(parts), "Corrupted": under}
    texts = [
        hover(label, ("clean", clean), ("corrupted", one), ("drop", drop))
        for label, one, drop in zip(labels, under, drops, strict=True)
    ]
    notes = [(label, f"{drop} % lost") for label, drop in zip(labels, drops, strict=True)]
    caption = [
        f"Pale: clean {metric} of {figure_label(row, names)} in %.",
        "Solid: under each corruption, mean over the severities, lowest first.",
        f"Lines: {INTERVALS}." if clean.interval else "",
    ]
    columns = [
        Column(heading="Corruption", is_text=True),
        *(Column(heading=name) for name in (f"Clean {metric}", "Corrupted", "Drop")),
    ]
    lines = [
        TableRow((label, clean, one, drop))
        for label, one, drop in zip(labels, under, drops, strict=True)
    ]
    title = f"{metric} under each corruption"
    return _bars(title, _sentences(caption), scores, texts, notes, columns, lines)


def _bars(
    title: str,
    caption: str,
    scores: Mapping[str, Sequence[Percent]],
    texts: Sequence[str],
    notes: Sequence[tuple[str, str]],
    columns: Sequence[Column],
    lines: Sequence[TableRow],
) -> Chart:
    """Overlaid horizontal bars from top to bottom, each with its name and a note above it."""
    places = list(range(len(texts)))
    per_row = (
        WIDE_ROW_HEIGHT
        if len(places) <= FEW_BARS
        else ROW_HEIGHT
        if len(places) <= MOST_BARS
        else CROWDED_ROW_HEIGHT
    )
    traces: list[Trace] = []
    for (name, values), opacity in zip(scores.items(), (0.28, 1.0), strict=True):
        lengths = [in_percent(one.value) for one in values]
        bounds = [bounds_in_percent(one.interval) for one in values]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "x": lengths,
                "y": places,
                "width": 0.46,
                "marker": {"color": series_colour(0, opacity), "line": {"width": 0}},
                "error_x": error_bars(lengths, bounds) or {"visible": False},
                "hovertext": list(texts),
                "hoverinfo": "text",
            }
        )
    annotations = []
    for place, (left, right) in zip(places, notes, strict=True):
        for text, position, anchor in ((left, 0, "left"), (right, 1, "right")):
            annotations.append(
                {
                    "xref": "paper",
                    "x": position,
                    "xanchor": anchor,
                    "y": place - 0.24,
                    "yanchor": "bottom",
                    "text": chart_text(text, LONGEST_NAME),
                    "showarrow": False,
                    "borderpad": 0,
                    "font": {"color": "--ink" if anchor == "left" else "--soft", "size": 13},
                }
            )
    found = layout(
        per_row * len(places) + 48,
        barmode="overlay",
        annotations=annotations,
        xaxis={"range": [0, 100], "ticksuffix": " %", "dtick": 20},
        yaxis={"range": [len(places) - 0.6, -0.75], "visible": False},
    )
    table = Table.from_rows(f"{title}, in %", columns, lines)
    return Chart(title, caption, tuple(traces), found, table)


# ---- curves and points ---------------------------------------------------------------------------


def score_charts(rows: Sequence[Row]) -> ChartGroup:
    """Draw scores by severity and, of several models, clean score against mPC, with one legend.

    Of many models the ones with the smallest and the largest drops are shown at first.

    Args:
        rows: Comparable rows.
    """
    ranked = sorted(rows, key=lambda row: (row.robustness.drop, row.run.name))
    first = {*range(BEST), *range(len(ranked) - WORST, len(ranked))}
    series = [
        Series(
            figure_label(row, rows),
            index,
            row.run.name,
            len(ranked) <= MOST_LINES or index in first,
        )
        for index, row in enumerate(ranked)
    ]
    charts = [severity_chart(ranked, series)]
    if len(ranked) > 1:
        charts.append(clean_against_corrupted(ranked, series))
    return ChartGroup(tuple(charts), tuple(series) if len(series) > 1 else ())


def severity_chart(rows: Sequence[Row], series: Sequence[Series]) -> Chart:
    """Draw the mean score over the corruptions by severity, a line per model; 0 is clean.

    Args:
        rows: Comparable rows.
        series: The legend entry of each.
    """
    metric = metric_name(rows[0].robustness.metric)
    with_bands = len(rows) <= MOST_BANDS
    traces: list[Trace] = []
    lines = []
    for index, (row, one) in enumerate(zip(rows, series, strict=True)):
        scores = severity_scores(row)
        levels = [_severity_name(level) for level in scores]
        if with_bands and all(value.interval for value in scores.values()):
            traces.append(_band(index, one, list(scores), list(scores.values())))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": chart_text(one.label),
                "x": list(scores),
                "y": [in_percent(value.value) for value in scores.values()],
                "line": {"color": one.colour, "width": 2.2, "dash": one.dash},
                "marker": {"color": one.colour, "symbol": one.marker, "size": 7},
                "hovertext": [
                    hover(one.label, (level, value))
                    for level, value in zip(levels, scores.values(), strict=True)
                ],
                "hoverinfo": "text",
                "meta": index,
                "visible": one.shown,
            }
        )
        lines.append(TableRow((one.label, *scores.values()), row.run.name))
    levels_of_all = list(severity_scores(rows[0]))
    names = [_severity_name(level) for level in levels_of_all]
    found = layout(
        380,
        "Severity",
        f"{metric}, %",
        xaxis={"tickvals": levels_of_all, "ticktext": [name.split()[-1] for name in names]},
        yaxis={"rangemode": "tozero"},
    )
    bands = any(trace.get("fill") for trace in traces)
    caption = [
        f"Mean {metric} over the {_corruptions(rows[0])} in %; severity 0 is clean.",
        f"Bands: {INTERVALS}." if bands else "",
        _shown_note(series),
    ]
    columns = [Column(heading="Model", is_text=True), *(Column(heading=name) for name in names)]
    title = f"{metric} by severity"
    table = Table.from_rows(f"{title}, in %", columns, lines)
    return Chart(title, _sentences(caption), tuple(traces), found, table)


def clean_against_corrupted(rows: Sequence[Row], series: Sequence[Series]) -> Chart:
    """Draw the clean score (across) and the score under corruption (up), a point per model.

    Args:
        rows: Comparable rows.
        series: The legend entry of each.
    """
    metric, mean = metric_name(rows[0].robustness.metric), mean_name(rows[0].robustness)
    traces: list[Trace] = []
    lines = []
    for index, (row, one) in enumerate(zip(rows, series, strict=True)):
        clean, corrupted = clean_score(row), corrupted_score(row)
        x, y = in_percent(clean.value), in_percent(corrupted.value)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": chart_text(one.label),
                "x": [x],
                "y": [y],
                "error_x": _cross(x, clean.interval, one),
                "error_y": _cross(y, corrupted.interval, one),
                "marker": {"color": one.colour, "symbol": one.marker, "size": 10},
                "hovertext": [hover(one.label, ("clean", clean), (mean, corrupted))],
                "hoverinfo": "text",
                "meta": index,
                "visible": one.shown,
            }
        )
        lines.append(TableRow((one.label, clean, corrupted), row.run.name))
    ends = [in_percent(row.robustness.clean) for row in rows]
    ends += [in_percent(row.robustness.mpc) for row in rows]
    low, high = min(ends), max(ends)
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "no drop",
            "x": [low, high],
            "y": [low, high],
            "line": {"color": "--soft", "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        }
    )
    caption = [
        f"Each mark is a model. Up: {metric} under corruption; right: clean.",
        "On the dotted line nothing is lost.",
        f"Bars: {INTERVALS}." if any(row.resampled for row in rows) else "",
        _shown_note(series),
    ]
    columns = [Column(heading="Model", is_text=True), Column(heading="Clean"), Column(heading=mean)]
    title = f"{metric}, clean against corrupted"
    table = Table.from_rows(f"{title}, in %", columns, lines)
    found = layout(380, f"Clean {metric}, %", f"{metric} under corruption, %")
    return Chart(title, _sentences(caption), tuple(traces), found, table)


def _band(index: int, one: Series, levels: Sequence[int], scores: Sequence[Percent]) -> Trace:
    """The area between the bounds of intervals."""
    bounds = [bounds_in_percent(value.interval) or (0.0, 0.0) for value in scores]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": chart_text(one.label),
        "x": [*levels, *reversed(levels)],
        "y": [*(low for low, _ in bounds), *(high for _, high in reversed(bounds))],
        "fill": "toself",
        "fillcolor": series_colour(one.style, 0.16),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": index,
        "visible": one.shown,
    }


def _cross(value: float, bounds: Interval | None, one: Series) -> Trace:
    bars = error_bars([value], [bounds_in_percent(bounds)])
    return {"visible": False} if bars is None else {**bars, "color": one.colour, "width": 0}


def _severity_name(level: int) -> str:
    return f"severity {level}" if level else "clean"


def _corruptions(row: Row) -> str:
    number = len(row.robustness.corruptions)
    return f"{number} corruptions" if number == len(COMMON) else mean_name(row.robustness)[10:]


def _shown_note(series: Sequence[Series]) -> str:
    if all(one.shown for one in series):
        return ""
    return (
        f"At first the {BEST} models with the smallest and the {WORST} with the largest drop are"
        " shown; the legend adds others."
    )


def _sentences(parts: Sequence[str]) -> str:
    return " ".join(filter(None, parts))
