"""Results of runs with fewer than the 15 common corruptions. Their mean is never called mPC."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stillrobust.analysis.intervals import (
    DROP_RANGE,
    LEVEL,
    SCORE_RANGE,
    interval,
    robustness_replicates,
)
from stillrobust.report.labels import (
    corruption_name,
    mean_name,
    metric_name,
    model_name,
    severities_name,
    task_name,
)
from stillrobust.report.protocol_groups import protocol_groups
from stillrobust.report.results_table import (
    compact_letters,
    grouping_notes,
    left_out_notes,
    warning_notes,
)
from stillrobust.report.rows import Row
from stillrobust.report.table import Cell, Column, Label, Percent, Table, TableBlock, TableRow

COLUMNS = (
    Column("task"),
    Column("dataset"),
    Column("run"),
    Column("model", "Model", is_text=True, is_row_header=True),
    Column("metric", "Metric", is_text=True),
    Column("severities"),
    Column("images"),
    Column("corruption", "Corruption", is_text=True),
    Column("clean", "Clean", has_interval=True),
    Column("score", "Score", has_interval=True),
    Column("drop", "Drop", has_interval=True),
    Column("alike"),
)


def partial_results_table(rows: Sequence[Row]) -> Table:
    """Tabulate runs with fewer than the 15 corruptions: their mean, then each corruption.

    Args:
        rows: ``Summary.partial_rows``.
    """
    blocks = []
    for group in protocol_groups(rows):
        run, numbers = group[0].run, group[0].robustness
        title = (
            f"{task_name(run)} on {run.dataset}, {metric_name(numbers.metric)}:"
            f" {mean_name(numbers)}, {severities_name(numbers.severities)}"
        )
        lines = [line for row in group for line in _lines(row, group)]
        blocks.append(TableBlock(title, tuple(lines)))
    notes = (
        f"In %. [ ]: {LEVEL:.0%} interval for the population that the images are a sample of.",
        "A mean over fewer corruptions is not mPC, which covers all 15.",
        "Letters: drops of means that share one are not distinguishable.",
        *grouping_notes(rows),
        *warning_notes(rows),
        *left_out_notes(rows),
    )
    return Table("Fewer than the 15 corruptions", COLUMNS, tuple(blocks), notes if rows else ())


def partial_results_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as JSON values, as fractions; the mean has the key ``mean``."""
    return [
        {
            "run": row.run.name,
            "task": row.run.task,
            "dataset": row.run.dataset,
            "metric": row.robustness.metric,
            "corruptions": row.robustness.corruptions,
            "severities": row.robustness.severities,
            "images": row.images,
            "clean": row.robustness.clean,
            "mean": row.robustness.mpc,
            "drop": row.robustness.drop,
            "drop_interval": row.interval,
            "by_corruption": {
                name: part.mpc for name, part in row.robustness.by_corruption.items()
            },
            "alike": row.alike,
            "warnings": row.warnings,
            "protocol": row.protocol,
        }
        for row in rows
    ]


def _lines(row: Row, rows: Sequence[Row]) -> list[TableRow]:
    """The mean over the corruptions, and a line per corruption."""
    numbers, drawn = row.robustness, row.resampled
    parts = {f"mean of {len(numbers.corruptions)}": ("corrupted", numbers.mpc)}
    for name, part in numbers.by_corruption.items():
        parts[corruption_name(name)] = f"corruption.{name}", part.mpc
    if len(numbers.corruptions) == 1:
        del parts["mean of 1"]
    lines = []
    for index, (name, (quantity, score)) in enumerate(parts.items()):
        drop = Percent(1 - score / numbers.clean)
        clean, value = Percent(numbers.clean), Percent(score)
        if drawn:
            drops = robustness_replicates(drawn["clean"], drawn[quantity][None])["drop"]
            clean = Percent(
                clean.value, interval(drawn["clean"], clean.value, SCORE_RANGE, freedom=row.freedom)
            )
            value = Percent(
                score, interval(drawn[quantity], score, SCORE_RANGE, freedom=row.freedom)
            )
            drop = Percent(drop.value, interval(drops, drop.value, DROP_RANGE, freedom=row.freedom))
        letters = row.alike if index == 0 else ""
        drop = replace(drop, letters=compact_letters(letters))
        cells: tuple[Cell, ...] = (
            row.run.task,
            row.run.dataset,
            row.run.name,
            Label(row.run.backbone, model_name(row, rows)),
            Label(numbers.metric, metric_name(numbers.metric)),
            " ".join(map(str, numbers.severities)),
            row.images,
            name,
            clean,
            value,
            drop,
            letters,
        )
        lines.append(TableRow(cells, row.run.name))
    return lines
