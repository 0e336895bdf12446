"""Scores under corruptions outside the 15 common ones: the four extra ones and user corruptions.

If no run is complete, the table has every measurement of the report's metrics.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from statistics import fmean

from stillrobust.grid import CLEAN, COMMON, SEVERITIES
from stillrobust.report.labels import metric_name
from stillrobust.report.rows import Summary
from stillrobust.report.summary import report_metrics
from stillrobust.report.table import Cell, Column, Percent, Table
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Measurement

COLUMNS = (
    Column("run", "Run", is_text=True),
    Column("corruption", "Corruption", is_text=True),
    Column("metric", "Metric", is_text=True),
    Column("clean", "Clean"),
    *(Column(f"severity_{level}", f"Severity {level}") for level in SEVERITIES),
    Column("drop", "Drop"),
)


@dataclass(frozen=True)
class CorruptionScores:
    """One run in one metric under one corruption."""

    run: str
    metric: str
    corruption: str
    clean: float | None
    scores: dict[int, float]
    """By severity."""


def extra_corruptions(
    measurements: Iterable[Measurement], without: Collection[str] = COMMON
) -> list[CorruptionScores]:
    """Collect the scores of every run under every corruption in the report's metrics.

    Args:
        measurements: Of a store.
        without: Corruptions to leave out (default: the 15 common ones).

    Returns:
        Sorted scores. Several protocols of one run and corruption have an entry each, with the
        clean score of the same protocol, if there is one.
    """
    listed = list(measurements)
    metrics = set(report_metrics(listed))
    clean = {
        (one.run, one.metric, content_key(one.circumstances)): one.value
        for one in listed
        if (one.corruption, one.severity) == CLEAN
    }
    found: dict[tuple[str, str, str, str], CorruptionScores] = {}
    for one in listed:
        if one.corruption not in without and one.corruption != CLEAN[0] and one.metric in metrics:
            clean_score = clean.get((one.run, one.metric, content_key(one.circumstances)))
            key = (one.corruption, one.metric, one.run, content_key(one.protocol))
            entry = CorruptionScores(one.run, one.metric, one.corruption, clean_score, {})
            found.setdefault(key, entry).scores[one.severity] = one.value
    return [found[key] for key in sorted(found)]


def extra_corruptions_table(summary: Summary) -> Table:
    """Tabulate the extra corruptions, or all corruptions if no run is complete."""
    title = "Extra corruptions: scores and drops in %; they are in no mean"
    is_finished = summary.rows or summary.partial_rows
    if not is_finished:
        title = "Measured so far: scores and drops in %"
    lines: list[list[Cell]] = []
    for one in extra_corruptions(summary.measurements, COMMON if is_finished else ()):
        drop = 1 - fmean(one.scores.values()) / one.clean if one.clean else None
        scores = [one.clean, *(one.scores.get(level) for level in SEVERITIES), drop]
        cells = [None if score is None else Percent(score) for score in scores]
        lines.append([one.run, one.corruption, metric_name(one.metric), *cells])
    return Table.from_rows(title, COLUMNS, lines)
