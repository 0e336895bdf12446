"""The answer at the top of the page: who keeps most of the clean score, and whether that is sure."""

from collections.abc import Sequence
from itertools import groupby

from stillrobust.analysis.intervals import interval
from stillrobust.report.blocks import apart, sections
from stillrobust.report.rows import Row
from stillrobust.report.summary import METRICS, MODES, TASKS, model_name
from stillrobust.report.tables import drop_text, percent

LEAST_CLEAN = 0.05  # below, a score is chance or noise, and what is kept of it says nothing
HEADLINE = {"detection": "box_ap"}  # where a task has two metrics, the one that answers


def answers(rows: Sequence[Row]) -> list[str]:
    """One sentence for each task, dataset, protocol and mode of transfer."""
    headlines = [
        row
        for row in rows
        if HEADLINE.get(row.run.task, row.robustness.metric) == row.robustness.metric
    ]
    told = []
    for section in sections(headlines):
        for _, group in groupby(section, key=lambda row: row.run.setting):
            told.append(_sentence(list(group), section, apart(section, headlines)))
    return told


def difference(first: Row, second: Row, quantity: str = "drop") -> tuple[float, float] | None:
    """The interval of the difference of two mean drops on the same resamples, if both saw the same
    images.

    Or of another of :data:`QUANTITIES`.
    """
    if first.drops is None or second.drops is None or first.drawn_from != second.drawn_from:
        return None
    return interval(
        second.resampled[quantity] - first.resampled[quantity],
        second.value(quantity) - first.value(quantity),
    )


def _sentence(rows: list[Row], section: Sequence[Row], of_protocol: str) -> str:
    about = f"{TASKS.get(rows[0].run.task, rows[0].run.task)} on {rows[0].run.dataset}"
    about += f" ({of_protocol})" if of_protocol else ""
    learned = [row for row in rows if row.robustness.clean >= LEAST_CLEAN]
    if not learned:
        return (
            f"{about}: no clean score reaches {percent(LEAST_CLEAN)} %, so that there is nothing to"
            " keep."
        )
    rows = learned
    ranked = sorted(rows, key=lambda row: row.robustness.drop)
    best, numbers = ranked[0], ranked[0].robustness
    metric = METRICS.get(numbers.metric, numbers.metric)
    mode = MODES.get(best.run.setting, best.run.setting)
    severity = "severity" if len(numbers.severities) == 1 else "severities"
    text = (
        f"{about}, {mode}: {model_name(best, section)} keeps {percent(numbers.rpc)} % of its"
        f" {metric} ({percent(numbers.clean)} clean, {percent(numbers.mpc)} under the 15"
        f" corruptions at {severity} {', '.join(map(str, numbers.severities))}), a drop of"
        f" {drop_text(best)} %"
    )
    if len(ranked) == 1:
        return f"{text}; there is no other run to compare it with."
    second = ranked[1]
    others = "the other" if len(ranked) == 2 else f"the next of {len(ranked)}"
    text += f"; {others}, {model_name(second, section)}, drops {drop_text(second)} %, "
    return text + _certainty(best, second) + "."


def _certainty(best: Row, second: Row) -> str:
    apart = percent(second.robustness.drop - best.robustness.drop)
    apart_by = difference(best, second)
    if apart_by is None:
        return f"{apart} points more, how surely cannot be said without their per-image statistics"
    low, high = apart_by
    sure = "a difference beyond chance" if low > 0 else "which may be chance"
    return f"{apart} points [{percent(low)}, {percent(high)}] more, {sure}"
