"""The tables of all runs: results in the layout of the paper's Tables 1 and 2, and measurements."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from stillrobust.analysis.groups import effective_groups
from stillrobust.analysis.intervals import LEVEL
from stillrobust.analysis.robustness import falls_by_clean_score_only
from stillrobust.analysis.rounding import decimals
from stillrobust.analysis.sample_size import sample_size_warnings
from stillrobust.names import format_count
from stillrobust.report.labels import (
    backbone_name,
    figure_label,
    metric_name,
    model_name,
    task_name,
    transfer_name,
)
from stillrobust.report.protocol_groups import protocol_difference, protocol_groups
from stillrobust.report.rows import Row
from stillrobust.report.seed_means import merge_seeds, with_seed_means
from stillrobust.report.summary import overlaps_test
from stillrobust.report.table import Cell, Column, Label, Percent, Table, TableBlock, TableRow
from stillrobust.report.transfer_gain import difference_interval
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Measurement, Run

GROUP_ORDER = ("noise", "blur", "digital", "weather")  # the paper's order of columns
DROPS = (*(f"drop.{group}" for group in GROUP_ORDER), "drop")
ALIKE = (
    "Alike: runs that share a letter are not distinguishable by their mean drop (all pairs compared"
    " together); a\N{EN DASH}d: a, b, c, d."
)
"""Note on a column of letters."""
LETTERS = (
    "Letters: values of a column that share one are not distinguishable (all pairs compared"
    " together); a\N{EN DASH}d: a, b, c, d."
)
"""Note on letters beside numbers."""
CORRECTED = (
    "Corrected drop: share of the score above chance that is lost, 1 - (mPC - chance) / (clean -"
    " chance); empty where chance is unknown or not exceeded."
)
MOST_CLEAN_NOTES = 5  # of a protocol
OVERLAP_MARK = "\N{DAGGER}"
NO_COMPLETE_RUN = "No run has a mean drop yet. What each run lacks:"
FILTERS = ("Task", "Backbone", "Transfer", "Metric")
COLUMNS = (
    Column("task", "Task", is_text=True),
    Column("dataset"),
    Column("run"),
    Column("model", "Model", is_text=True, is_row_header=True),
    Column("transfer", "Transfer", is_text=True),
    Column("metric", "Metric", is_text=True),
    *(Column(key) for key in ("severities", "images", "left_out")),
    Column("clean", "Clean", has_interval=True),
    Column("mpc", "mPC", has_interval=True),
    Column("rpc", has_interval=True),
    *(Column(f"{group}_drop", group.capitalize()) for group in GROUP_ORDER),
    Column("mean_drop", "Mean drop", has_interval=True),
    Column("corrected_drop", has_interval=True),
    Column("alike"),
    Column("alike_mpc"),
    *(Column(key) for key in ("protocol", "overlaps_test")),
)


def results_table(
    rows: Sequence[Row], replicates: int = 0, chance_corrected: bool = False
) -> Table:
    """Tabulate rows, and the means of their seeds, in a block for each protocol.

    Args:
        rows: Of a summary.
        replicates: Number of bootstrap resamples, for the note on the intervals.
        chance_corrected: Whether readers see the drop that is corrected for chance as well; files
            always have it.
    """
    columns = [
        replace(column, heading="Corrected drop")
        if chance_corrected and column.key == "corrected_drop"
        else column
        for column in COLUMNS
    ]
    several = {
        row.run.task
        for row in rows
        if any(
            (row.run.task == one.run.task) and row.run.dataset != one.run.dataset for one in rows
        )
    }
    blocks = []
    for group in protocol_groups(rows):
        run, metric = group[0].run, group[0].robustness.metric
        title = protocol_difference(group, rows)
        if title:
            title = (
                f"{task_name(run)} on {run.dataset}, {metric_name(metric)}, measured with {title}"
            )
        shown = with_seed_means(group)
        best = {quantity: min(row.value(quantity) for row in shown) for quantity in DROPS}
        lines = tuple(_line(row, shown, best, run.task in several) for row in shown)
        blocks.append(TableBlock(title, lines))
    if not rows:
        return Table("All complete runs", COLUMNS, (), (NO_COMPLETE_RUN,))
    resamples = f" ({replicates} resamples)" if replicates else ""
    note = (
        f"Scores and drops in %, mean over the 15 corruptions at severity {_severities(rows)};"
        f" lower drops are better. [ ]: {LEVEL:.0%} interval{resamples} for the population that the"
        " images are a sample of, in a mean of seeds for both; it does not cover the variation"
        " between trainings."
    )
    warnings = warning_notes(rows)
    notes = (
        note,
        *([CORRECTED] if chance_corrected else []),
        LETTERS,
        *clean_score_notes(rows),
        *grouping_notes(rows),
        *warnings,
        *overlap_notes(rows),
        *left_out_notes(rows),
    )
    return Table("All complete runs", tuple(columns), tuple(blocks), notes)


def _severities(rows: Sequence[Row]) -> str:
    levels = sorted({row.robustness.severities for row in rows})
    return " or ".join(", ".join(map(str, severities)) for severities in levels)


def _line(row: Row, rows: Sequence[Row], best: dict[str, float], name_dataset: bool) -> TableRow:
    run, numbers = row.run, row.robustness
    overlaps = overlaps_test(run)
    labels = {
        "Task": task_name(run) + (f", {run.dataset}" if name_dataset else ""),
        "Backbone": backbone_name(run),
        "Transfer": transfer_name(run),
        "Metric": metric_name(numbers.metric),
    }
    several = len(rows) > 1  # a single one is not compared
    model = model_name(row, rows) + (f" {OVERLAP_MARK}" if overlaps else "")
    drops = [
        Percent(
            row.value(drop),
            digits=decimals(row.interval_of(drop)),
            best=several and row.value(drop) <= best[drop],
        )
        for drop in DROPS[:-1]
    ]
    kept = row.interval and (1 - row.interval[1], 1 - row.interval[0])
    cells: tuple[Cell, ...] = (
        Label(run.task, labels["Task"]),
        run.dataset,
        run.name,
        Label(run.backbone, model),
        Label(run.setting, labels["Transfer"]),
        Label(numbers.metric, labels["Metric"]),
        " ".join(map(str, numbers.severities)),
        row.images,
        sum(row.left_out.values()),
        Percent(numbers.clean, row.interval_of("clean")),
        Percent(
            numbers.mpc,
            row.interval_of("corrupted"),
            letters=compact_letters(row.alike_mpc if several else ""),
        ),
        Percent(numbers.rpc, kept),
        *drops,
        Percent(
            numbers.drop,
            row.interval,
            best=several and numbers.drop <= best["drop"],
            letters=compact_letters(row.alike if several else ""),
        ),
        None
        if row.corrected_drop is None
        else Percent(row.corrected_drop, row.corrected_drop_interval),
        row.alike,
        row.alike_mpc,
        content_key(row.protocol),
        " ".join(overlaps),
    )
    return TableRow(cells, run.name, labels)


def compact_letters(letters: str) -> str:
    """Write three or more consecutive letters as a range: ``abcdf`` -> ``a–d f``."""
    tokens = re.findall(r"[a-z]\d*", letters)
    places = [26 * int(token[1:] or 0) + ord(token[0]) - ord("a") for token in tokens]
    runs: list[list[int]] = []
    for index, place in enumerate(places):
        if runs and places[runs[-1][-1]] + 1 == place:
            runs[-1].append(index)
        else:
            runs.append([index])
    return " ".join(
        f"{tokens[run[0]]}\N{EN DASH}{tokens[run[-1]]}"
        if len(run) > 2
        else " ".join(tokens[index] for index in run)
        for run in runs
    )


def clean_score_notes(rows: Sequence[Row]) -> list[str]:
    """Name the models whose drop is smaller than another's only because their clean score is lower.

    Each is compared with the most robust such model by mPC. With per-image statistics the drop must
    be significantly smaller. Models of several seeds count with their mean.
    """
    notes = []
    for group in protocol_groups(rows):
        shown = merge_seeds(group)
        found = [
            (row, max(higher, key=lambda one: one.robustness.mpc))
            for row in shown
            if (higher := [one for one in shown if _drops_less_by_clean_score(row, one)])
        ]
        notes += [_clean_score_note(*pair, shown) for pair in found[:MOST_CLEAN_NOTES]]
        left = len(found) - MOST_CLEAN_NOTES
        if left > 0:
            notes.append(
                f"The same holds for {format_count(left, 'other model')} on {group[0].run.dataset}."
            )
    return notes


def _drops_less_by_clean_score(row: Row, other: Row) -> bool:
    numbers = other.robustness, row.robustness
    if not falls_by_clean_score_only([one.clean for one in numbers], [one.mpc for one in numbers]):
        return False
    bounds = difference_interval(other, row)
    return bounds is None or bounds[1] < 0


def _clean_score_note(row: Row, other: Row, rows: Sequence[Row]) -> str:
    drops, clean, mpc = (
        " against ".join(
            Percent(one.value(quantity), digits=decimals(one.interval_of(quantity))).number
            for one in (row, other)
        )
        for quantity in ("drop", "clean", "corrupted")
    )
    return (
        f"{figure_label(row, rows)} drops less than {figure_label(other, rows)} ({drops} %) only"
        f" because its clean {metric_name(row.robustness.metric)} is lower ({clean}); its mPC is"
        f" not higher ({mpc})."
    )


def overlap_notes(rows: Sequence[Row]) -> list[str]:
    """Name the models that are known to have seen corruptions of the test in training."""
    seen = {
        model_name(row, rows): ", ".join(names) for row in rows if (names := overlaps_test(row.run))
    }
    models = "; ".join(f"{model} ({names})" for model, names in seen.items())
    note = (
        f"{OVERLAP_MARK} Saw corruptions of the test in training, so the result is not about unseen"
        f" ones: {models}."
    )
    return [note] if seen else []


def warning_notes(rows: Sequence[Row]) -> list[str]:
    """State for each dataset and metric why intervals may be too narrow, if they may be."""
    notes = []
    for group in protocol_groups(rows):
        counted = [row.images_per_class for row in group if row.images_per_class]
        fewest = [min(counts) for counts in zip(*counted, strict=True)]
        name = f"{group[0].run.dataset}, {metric_name(group[0].robustness.metric)}"
        images = min(row.images for row in group)
        groups = min(effective_groups(row.grouping) for row in group)
        notes += [f"{name}: {text}" for text in sample_size_warnings(images, fewest, groups)]
    return list(dict.fromkeys(notes))


def grouping_notes(rows: Sequence[Row]) -> list[str]:
    """State for each dataset which groups of images were resampled, if any."""
    notes = [
        f"Groups of images of {row.run.dataset} are resampled: {row.grouping.protocol}."
        for row in rows
        if row.grouping is not None
    ]
    return list(dict.fromkeys(notes))


def left_out_notes(rows: Sequence[Row]) -> list[str]:
    """State for each dataset which images were left out because they are unusable."""
    notes = []
    for row in rows:
        faults = ", ".join(f"{count:,} {fault}" for fault, count in row.left_out.items())
        note = f"Left out of {row.run.dataset}, {row.images:,} images are left: {faults}."
        notes += [note] if faults else []
    return list(dict.fromkeys(notes))


MEASUREMENT_KEYS = (
    "task", "dataset", "run", "model", "transfer", "metric", "corruption", "severity", "value",
    "images", "left_out", "seconds", "protocol",
)  # fmt: skip


def measurements_table(runs: Iterable[Run], measurements: Iterable[Measurement]) -> Table:
    """Tabulate every measurement with the key of its protocol, for files."""
    known = {run.name: run for run in runs}
    lines: list[list[Cell]] = []
    for one in measurements:
        run = known.get(one.run)
        subject: list[Cell] = (
            [run.task, run.dataset, run.name, run.backbone, run.setting]
            if run
            else ["", "", one.run, "", ""]
        )
        left_out = sum(one.protocol.get("left_out", {}).values())
        numbers = [one.metric, one.corruption, one.severity, one.value, one.images, left_out]
        lines.append([*subject, *numbers, one.seconds, content_key(one.protocol)])
    return Table.from_rows("Measurements", map(Column, MEASUREMENT_KEYS), lines)
