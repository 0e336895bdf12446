"""The headline of the report: which model keeps most of its clean score, and is that certain."""

from collections.abc import Sequence
from itertools import groupby

from stillrobust.analysis.intervals import paired_interval
from stillrobust.metrics import HEADLINE_METRIC
from stillrobust.report.labels import (
    corruption_name,
    mean_name,
    metric_name,
    model_name,
    severities_name,
    task_name,
    transfer_name,
)
from stillrobust.report.protocol_groups import protocol_difference, protocol_groups
from stillrobust.report.rows import Row
from stillrobust.report.table import Interval, Percent, percent

LEAST_CLEAN = 0.05  # a lower clean score may be chance, and its drop means nothing


def headline(rows: Sequence[Row]) -> list[str]:
    """Write one sentence for each task, dataset, protocol and transfer."""
    measured = {(row.run.task, row.robustness.metric) for row in rows}
    primary = [
        row
        for row in rows
        if (headline_metric := HEADLINE_METRIC.get(row.run.task)) == row.robustness.metric
        or (row.run.task, headline_metric) not in measured
    ]
    return [
        _sentence(list(members), group, protocol_difference(group, primary))
        for group in protocol_groups(primary)
        for _, members in groupby(group, key=lambda row: row.run.setting)
    ]


def difference_interval(first: Row, second: Row, quantity: str = "drop") -> Interval | None:
    """Return the paired interval of the second row's quantity less the first's.

    Args:
        first: A row.
        second: Another row.
        quantity: One of :data:`summary.QUANTITIES`.

    Returns:
        The interval, or ``None`` without per-image statistics of the same images and
        groups.
    """
    if first.drops is None or second.drops is None or first.image_ids != second.image_ids:
        return None
    if first.grouping != second.grouping:
        return None
    return paired_interval(
        second.resampled[quantity] - first.resampled[quantity],
        second.value(quantity) - first.value(quantity),
        freedom=first.freedom,
    )


def mean_drop(row: Row) -> Percent:
    """The mean drop of a row with its interval."""
    return Percent(row.robustness.drop, row.interval)


def _sentence(rows: list[Row], group: Sequence[Row], protocol: str) -> str:
    subject = f"{task_name(rows[0].run)} on {rows[0].run.dataset}"
    subject += f" ({protocol})" if protocol else ""
    learned = [row for row in rows if row.robustness.clean >= LEAST_CLEAN]
    if not learned:
        return f"{subject}: no model reaches a clean score of {percent(LEAST_CLEAN)} %."
    ranked = sorted(learned, key=lambda row: row.robustness.drop)
    best, numbers = ranked[0], ranked[0].robustness
    under = (
        "under the 15 corruptions"
        if numbers.is_complete
        else f"as {mean_name(numbers)} ({', '.join(map(corruption_name, numbers.corruptions))})"
    )
    text = (
        f"{subject}, {transfer_name(best.run)}: {model_name(best, group)} keeps"
        f" {percent(numbers.rpc)} % of its {metric_name(numbers.metric)}"
        f" ({percent(numbers.clean)} clean, {percent(numbers.mpc)} {under} at"
        f" {severities_name(numbers.severities)}), a drop of {mean_drop(best)} %"
    )
    if len(ranked) == 1:
        return f"{text}. There is no other run to compare it with."
    second = ranked[1]
    rank = "the other model" if len(ranked) == 2 else f"the second of {len(ranked)}"
    difference = percent(second.robustness.drop - numbers.drop)
    bounds = difference_interval(best, second)
    if bounds is None:
        certainty = f"{difference} points more; without per-image statistics it may be chance"
    else:
        verdict = "a significant difference" if bounds[0] > 0 else "which may be chance"
        low, high = map(percent, bounds)
        certainty = f"{difference} points [{low}, {high}] more, {verdict}"
    name = model_name(second, group)
    return f"{text}; {rank}, {name}, drops {mean_drop(second)} %, {certainty}."
