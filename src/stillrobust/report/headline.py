"""The answer of a report: one sentence, and the charts that show it.

A study of techniques asks how much robustness survives the transfer; finished models ask which one
is more robust, and whether that is certain. Whatever else a store answers is a table.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stillrobust.analysis.sample_size import FEWEST_IMAGES
from stillrobust.metrics import HEADLINE_METRIC
from stillrobust.names import format_count
from stillrobust.report.charts import ChartGroup
from stillrobust.report.figures import corruption_bars, score_bars
from stillrobust.report.labels import (
    TASKS,
    corruption_name,
    figure_label,
    mean_name,
    metric_name,
    severities_name,
    task_name,
    technique_name,
)
from stillrobust.report.protocol_groups import protocol_difference, protocol_groups
from stillrobust.report.rows import Row, Summary
from stillrobust.report.table import Column, Interval, Percent, Table, TableRow, percent
from stillrobust.report.transfer_charts import transfer_charts
from stillrobust.report.transfer_gain import (
    LEAST_CLEAN,
    Gain,
    TransferGain,
    difference_interval,
    transfer_gain,
)
from stillrobust.storage.store import Run

NOTHING = "No run has a mean drop yet."
MOSTLY = 0.5  # share of the gain from which robustness mostly survives
TRANSFER_PHRASES = {
    "fixed feature": "with a frozen backbone",
    "full network": "after full fine-tuning",
    "released freeze": "with the frozen stages of the paper's code",
}


@dataclass(frozen=True)
class Headline:
    """The answer of a report."""

    sentence: str
    context: str = ""
    """What was measured: task, data, metric, corruptions, images."""
    charts: tuple[ChartGroup, ...] = ()
    """The picture; of several, a reader chooses one."""


def headline(runs: Sequence[Run], summary: Summary) -> Headline:
    """Answer the question of a store.

    Args:
        runs: All runs of the store.
        summary: Its rows.

    Returns:
        The answer of a study of techniques if one can be compared, otherwise that of the largest
        group of comparable models, otherwise that of a partial evaluation.
    """
    every = transfer_gain(runs, summary.rows)
    lines = [line for line in every if line.upstream is not None]
    if lines:
        tasks = dict.fromkeys(f"{TASKS[line.task]} on {line.dataset}" for line in lines)
        context = f"{'; '.join(tasks)}. Gain: by how much a technique reduces the mean drop."
        if len(lines) < len(every):
            context += (
                f" {len(every) - len(lines)} of {len(every)} transfers cannot be compared; the"
                " table has the reason."
            )
        return Headline(transfer_sentence(lines), context, transfer_charts(lines))
    for rows in (summary.rows, summary.partial_rows):
        groups = protocol_groups(_headline_rows(rows))
        if groups:
            return _group_headline(max(groups, key=len), groups)
    reason = "What each run lacks is below." if summary.incomplete else "Evaluate a model first."
    return Headline(NOTHING, reason)


def answers_table(summary: Summary) -> Table:
    """Tabulate the answer of each group of comparable models: task, data and protocol.

    Args:
        summary: Rows of a store.

    Returns:
        The table; without rows if there is a single group, whose answer is the headline.
    """
    rows = _headline_rows(summary.rows)
    groups = protocol_groups(rows)
    lines = [_answer(group, rows) for group in groups if len(group) > 1]
    columns = [
        Column(heading="Task and data", is_text=True),
        Column(heading="Smallest drop", is_text=True),
        Column(heading="Drop"),
        Column(heading="Next", is_text=True),
        Column(heading="Its drop"),
        Column(heading="Difference"),
        Column(heading="Certain", is_text=True),
    ]
    return Table.from_rows(
        "Most robust model by task and data",
        columns,
        lines if len(groups) > 1 else [],
        ["Certain: the interval of the paired difference excludes 0, and no letter is shared."],
    )


def mean_drop(row: Row) -> Percent:
    """The mean drop of a row with its interval."""
    return Percent(row.robustness.drop, row.interval)


def _headline_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows in the headline metric of their task, or in all metrics if none has it."""
    measured = {(row.run.task, row.robustness.metric) for row in rows}
    return [
        row
        for row in rows
        if (metric := HEADLINE_METRIC.get(row.run.task)) == row.robustness.metric
        or (row.run.task, metric) not in measured
    ]


# ---- studies of techniques -----------------------------------------------------------------------


def transfer_sentence(lines: Sequence[TransferGain]) -> str:
    """State how much of the best technique's gain survives each transfer.

    Args:
        lines: Compared lines of :func:`transfer_gain.transfer_gain`.

    Returns:
        The sentence about the technique with the largest gain downstream, of those that gain
        significantly upstream.
    """
    names = list(dict.fromkeys(line.technique for line in lines))
    gained = [line for line in lines if line.retained is not None]
    if not gained:
        return _no_gain(lines, names)

    def gain_after(name: str) -> float:
        gains = [
            line.downstream.value for line in gained if line.technique == name and line.downstream
        ]
        return sum(gains) / len(gains)

    best = max(dict.fromkeys(line.technique for line in gained), key=gain_after)
    own = [line for line in gained if line.technique == best]
    label = technique_name(best)
    among = (
        f"Of {len(names)} techniques, {label} keeps the largest gain: its"
        if len(names) > 1
        else f"{label}'s"
    )
    return f"{among} robustness {_survival(own)}: {_shares(own)}"


def _survival(lines: Sequence[TransferGain]) -> str:
    gains = [line.downstream for line in lines if line.downstream is not None]
    kept = [gain.is_significant for gain in gains]
    least = min(line.retained or 0.0 for line in lines)
    if all(gain.interval and gain.interval[1] < 0 for gain in gains):
        return "turns into a loss after the transfer"
    if not any(kept):
        return "is lost in the transfer, as far as can be told"
    if not all(kept):
        return "survives only some transfers for certain"
    return "mostly survives the transfer" if least >= MOSTLY else "partly survives the transfer"


def _shares(lines: Sequence[TransferGain]) -> str:
    """``69 % of its gain with a frozen backbone, 52 % after full fine-tuning``."""
    parts: list[str] = []
    for transfer in dict.fromkeys(line.transfer for line in lines):
        here = [line for line in lines if line.transfer == transfer]
        shares = sorted(line.retained or 0.0 for line in here)
        low, high = percent(shares[0], 0), percent(shares[-1], 0)
        share = f"{high} %" if low == high else f"{low} to {high} %"
        of = "" if parts else " of its gain"
        doubt = _doubt([line.downstream for line in here if line.downstream is not None])
        parts.append(f"{share}{of} {_transfer_phrase(transfer)}{doubt}")
    return f"{', '.join(parts)}."


def _doubt(gains: Sequence[Gain]) -> str:
    """A note on a share that no gain supports."""
    if any(gain.is_significant for gain in gains):
        return ""
    is_loss = all(gain.interval and gain.interval[1] < 0 for gain in gains)
    return " (a loss)" if is_loss else " (which may be chance)"


def _transfer_phrase(transfer: str) -> str:
    name, plus, technique = transfer.partition(" + ")
    phrase = TRANSFER_PHRASES.get(name, f"with {name}")
    return f"{phrase} and {technique_name(technique)}" if plus else phrase


def _no_gain(lines: Sequence[TransferGain], names: Sequence[str]) -> str:
    """The sentence if nothing gained significantly upstream."""
    gains = [line.upstream for line in lines if line.upstream is not None]
    best = max(gains, key=lambda gain: gain.value)
    if all(gain.interval is None for gain in gains):
        return (
            "Without per-image statistics it is unknown whether a gain is chance: the largest"
            f" upstream is {percent(best.value)} points."
        )
    gain = _points(best.value, best.interval)
    if len(names) == 1:
        return (
            f"{technique_name(names[0])} gains no robustness for certain upstream ({gain}), so"
            " there is none to transfer."
        )
    return (
        f"None of {len(names)} techniques gains robustness for certain upstream (at most {gain}),"
        " so there is none to transfer."
    )


# ---- models --------------------------------------------------------------------------------------


def _group_headline(group: Sequence[Row], groups: Sequence[Sequence[Row]]) -> Headline:
    """The answer of comparable rows."""
    rows = [row for one in groups for row in one]
    first = group[0].robustness
    context = (
        f"{task_name(group[0].run)} on {group[0].run.dataset}, {metric_name(first.metric)};"
        f" {format_count(len(first.corruptions), 'corruption')} at"
        f" {severities_name(first.severities)}; {format_count(group[0].images, 'image')}"
    )
    protocol = protocol_difference(group, rows)
    context += f"; {protocol}." if protocol else "."
    ranked = _ranked(group)
    if not ranked:
        return Headline(model_sentence(group), context)
    chart = corruption_bars(ranked[0], group) if len(ranked) == 1 else score_bars(ranked, group)
    return Headline(model_sentence(group), context, (ChartGroup((chart,)),))


def _ranked(group: Sequence[Row]) -> list[Row]:
    """The rows whose clean score is above chance, smallest drop first."""
    learned = [row for row in group if row.robustness.clean >= LEAST_CLEAN]
    return sorted(learned, key=lambda row: (row.robustness.drop, row.run.name))


def model_sentence(group: Sequence[Row]) -> str:
    """State which of comparable models is the most robust, by how much, and how certain that is.

    Args:
        group: Comparable rows. A single one is described by what it keeps and where it loses most.
    """
    ranked = _ranked(group)
    metric = metric_name(group[0].robustness.metric)
    if not ranked:
        limit = percent(LEAST_CLEAN, 0)
        text = f"No model reaches a clean {metric} of {limit} %, so no drop can be measured."
    elif len(ranked) == 1:
        text = _single(ranked[0], group)
    else:
        text = _comparison(ranked, group)
    return _partial_prefix(group[0]) + text


def _partial_prefix(row: Row) -> str:
    numbers = row.robustness
    if numbers.is_complete:
        return ""
    few = [corruption_name(name) for name in numbers.corruptions]
    listed = f" ({', '.join(few)})" if len(few) <= 3 else ""
    mean = mean_name(numbers).removeprefix("mean over ")
    return f"Partial evaluation, {mean}{listed} at {severities_name(numbers.severities)}: "


def _single(row: Row, group: Sequence[Row]) -> str:
    numbers = row.robustness
    bounds = None if row.interval is None else (1 - row.interval[1], 1 - row.interval[0])
    kept = f"{percent(numbers.rpc)} %{_bracket(bounds)}"
    text = (
        f"{figure_label(row, group)} keeps {kept} of its clean {metric_name(numbers.metric)} under"
        " corruption"
    )
    if len(numbers.corruptions) < 2:
        return f"{text}."
    name, part = min(numbers.by_corruption.items(), key=lambda item: item[1].mpc)
    left = percent(part.mpc / numbers.clean)
    return f"{text}; it loses most under {corruption_name(name)}, which leaves {left} %."


def _comparison(ranked: Sequence[Row], group: Sequence[Row]) -> str:
    """Compare the model with the smallest drop with the next one."""
    best, second = ranked[:2]
    first, other = (figure_label(row, group) for row in (best, second))
    metric = metric_name(best.robustness.metric)
    drop, other_drop = (percent(row.robustness.drop) for row in (best, second))
    bounds = difference_interval(best, second)
    difference = _points(second.robustness.drop - best.robustness.drop, bounds)
    number = len(ranked)
    if bounds is None:
        rest = f"of {number} models" if number > 2 else f"than {other}"
        text = (
            f"{first} loses {'least' if number > 2 else 'less'} {rest}, {drop} % of its {metric}"
            f" under corruption instead of {other_drop} %; without per-image statistics it is"
            " unknown whether that is chance"
        )
    elif is_certain(best, second):
        what = f"the most robust of {number} models" if number > 2 else f"more robust than {other}"
        instead = f"the {other_drop} % of the next, {other}" if number > 2 else f"{other_drop} %"
        text = (
            f"{first} is {what}: it loses {drop} % of its {metric} under corruption instead of"
            f" {instead}, a certain difference of {difference}"
        )
    elif _scores(best) == _scores(second):
        text = (
            f"{first} and {other} have the same scores: they lose {drop} % of their {metric} under"
            " corruption"
        )
    else:
        what = (
            f"{first} loses least of {number} models, but {other} may be as robust"
            if number > 2
            else f"{first} and {other} may be equally robust"
        )
        text = (
            f"{what}: they lose {drop} % and {other_drop} % of their {metric} under corruption, a"
            f" difference of {difference} that may be chance"
        )
    highest = max(ranked, key=lambda row: row.robustness.mpc)
    if percent(highest.robustness.mpc) == percent(best.robustness.mpc):
        return f"{text}."
    scores = " against ".join(percent(row.robustness.mpc) for row in (highest, best))
    name = figure_label(highest, group)
    return f"{text}; {name} still scores higher under corruption ({scores})."


def _scores(row: Row) -> tuple[float, float]:
    return row.robustness.clean, row.robustness.mpc


def is_certain(best: Row, second: Row) -> bool:
    """Whether the first of two comparable rows has the smaller drop for certain.

    Both the interval of the paired difference and the letters of all pairs must agree, and the
    images must be enough for intervals.
    """
    bounds = difference_interval(best, second)
    letters = (set(re.findall(r"[a-z]\d*", row.alike)) for row in (best, second))
    shared = set.intersection(*letters)
    enough = min(best.images, second.images) >= FEWEST_IMAGES
    return bounds is not None and bounds[0] > 0 and not shared and enough


def _answer(group: Sequence[Row], rows: Sequence[Row]) -> TableRow:
    subject = f"{task_name(group[0].run)} on {group[0].run.dataset}"
    protocol = protocol_difference(group, rows)
    subject += f" ({protocol})" if protocol else ""
    ranked = _ranked(group)
    if len(ranked) < 2:
        return TableRow((subject, *[None] * 6))
    best, second = ranked[:2]
    bounds = difference_interval(best, second)
    difference = Percent(second.robustness.drop - best.robustness.drop, bounds)
    certain = "yes" if is_certain(best, second) else "no" if bounds else "unknown"
    cells = (
        subject,
        figure_label(best, group),
        mean_drop(best),
        figure_label(second, group),
        mean_drop(second),
        difference,
        certain,
    )
    return TableRow(cells)


def _points(value: float, bounds: Interval | None) -> str:
    return f"{percent(value)} points{_bracket(bounds)}"


def _bracket(bounds: Interval | None) -> str:
    return "" if bounds is None else f" [{percent(bounds[0])}, {percent(bounds[1])}]"
