"""Scores under corruptions outside the 15 common ones: extra ones, further sets, user files.

If no run is complete, the table has every measurement of the report's metrics.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from statistics import fmean

from stillrobust.grid import CLEAN, COMMON, CORRUPTION_SETS, SEVERITIES
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


def set_means(entries: Iterable[CorruptionScores]) -> list[CorruptionScores]:
    """Average each further set of corruptions that a run was evaluated under completely.

    For ImageNet-C-bar, one minus this mean of ``top1`` is the published number.

    Args:
        entries: Scores of single corruptions.

    Returns:
        An entry per run, metric and set. A set with several protocols, or with other severities for
        some corruptions, has none.
    """
    found: dict[tuple[str, str], dict[str, list[CorruptionScores]]] = {}
    for one in entries:
        found.setdefault((one.run, one.metric), {}).setdefault(one.corruption, []).append(one)
    means = []
    further = {name: members for name, members in CORRUPTION_SETS.items() if name != "common"}
    for name, members in further.items():
        for (run, metric), own in found.items():
            parts = [one for member in members for one in own.get(member, ())]
            severities = {tuple(sorted(one.scores)) for one in parts}
            if {len(own.get(member, ())) for member in members} != {1} or len(severities) > 1:
                continue
            scores = {
                level: fmean(one.scores[level] for one in parts) for level in severities.pop()
            }
            label = f"mean of {name} ({len(members)})"
            means.append(CorruptionScores(run, metric, label, parts[0].clean, scores))
    return means


def extra_corruptions_table(summary: Summary) -> Table:
    """Tabulate the extra corruptions, or all corruptions if no run is complete."""
    title = "Further corruptions: scores and drops in %; they are no part of mPC"
    is_finished = summary.rows or summary.partial_rows
    if not is_finished:
        title = "Measured so far: scores and drops in %"
    lines: list[list[Cell]] = []
    entries = extra_corruptions(summary.measurements, COMMON if is_finished else ())
    for one in [*entries, *set_means(entries)]:
        drop = 1 - fmean(one.scores.values()) / one.clean if one.clean else None
        scores = [one.clean, *(one.scores.get(level) for level in SEVERITIES), drop]
        cells = [None if score is None else Percent(score) for score in scores]
        lines.append([one.run, one.corruption, metric_name(one.metric), *cells])
    return Table.from_rows(title, COLUMNS, lines)
