"""The table of the report as text and as CSV, laid out as Tables 1 and 2 of the paper."""

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from stillrobust.analysis.intervals import LEVEL, interval
from stillrobust.report.blocks import apart, sections
from stillrobust.report.rows import Row
from stillrobust.report.seeds import with_seed_means
from stillrobust.report.summary import METRICS, MODES, TASKS, model_name, overlaps_test
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Measurement, Run

GROUP_ORDER = ("noise", "blur", "digital", "weather")  # the paper's order of columns
HEADINGS = (
    "Task",
    "Model",
    "Mode",
    "Metric",
    "Clean",
    "Noise",
    "Blur",
    "Digital",
    "Weather",
    "Mean drop",
    "Alike",
)
ALIKE = (
    "Alike: runs that share a letter are not distinguishable (all pairs compared together);"
    " a\N{EN DASH}d: a, b, c, d."
)
SEEN = "\N{DAGGER}"  # a model whose technique showed it corruptions of the test
TEXT_COLUMNS = 4  # the others are numbers


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction as the text of a percentage, without the sign: ``0.2229`` -> ``22.3``."""
    text = f"{100 * fraction:.{digits}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "\N{MINUS SIGN}")


def drop_text(row: Row) -> str:
    """The mean drop in percent, with its interval where there is one."""
    text = percent(row.robustness.drop)
    if row.interval is None:
        return text
    low, high = row.interval
    return f"{text} [{percent(low)}, {percent(high)}]"


def cells(row: Row, rows: Sequence[Row]) -> list[str]:
    """One row as the text of its columns."""
    numbers = row.robustness
    return [
        TASKS.get(row.run.task, row.run.task),
        model_name(row, rows) + (f" {SEEN}" if overlaps_test(row.run) else ""),
        MODES.get(row.run.setting, row.run.setting),
        METRICS.get(numbers.metric, numbers.metric),
        percent(numbers.clean),
        *(percent(numbers.by_group[group].drop) for group in GROUP_ORDER),
        drop_text(row),
        compact(row.alike),
    ]


def compact(letters: str) -> str:
    """Letters of ``rank_groups`` with three or more in a row as a range: ``abcdf`` -> ``a–d f``."""
    tokens = re.findall(r"[a-z]\d*", letters)
    places = [26 * int(token[1:] or 0) + ord(token[0]) - ord("a") for token in tokens]
    runs: list[list[int]] = []
    for index, place in enumerate(places):
        if runs and places[runs[-1][-1]] + 1 == place:
            runs[-1].append(index)
        else:
            runs.append([index])
    said = [
        (
            f"{tokens[run[0]]}\N{EN DASH}{tokens[run[-1]]}"
            if len(run) > 2
            else " ".join(tokens[index] for index in run)
        )
        for run in runs
    ]
    return " ".join(said)


@dataclass(frozen=True)
class Block:
    """Lines of a table that may be compared with each other."""

    title: str
    """What keeps it from the others of its task, dataset and metric; empty where there are none."""
    lines: tuple[tuple[Row, list[str]], ...]


def blocks(rows: Sequence[Row]) -> list[Block]:
    """The table, for every reader: rows with their texts, means of seeds after their runs, one
    protocol a block.
    """
    datasets = {(row.run.task, row.run.dataset) for row in rows}
    found = []
    for section in sections(rows):
        run, metric = section[0].run, section[0].robustness.metric
        title = apart(section, rows)
        if title:
            title = (
                f"{TASKS.get(run.task, run.task)} on {run.dataset}, {METRICS.get(metric, metric)},"
                f" measured with {title}"
            )
        several = sum(task == run.task for task, _ in datasets) > 1
        shown = with_seed_means(section)
        lines = [(row, cells(row, shown)) for row in shown]
        for _, texts in lines:
            texts[0] += f", {run.dataset}" if several else ""
        found.append(Block(title, tuple(lines)))
    return found


def aligned(lines: Sequence[Sequence[str]], text_columns: Collection[int]) -> str:
    """Cells in columns of one width; ``text_columns`` to the left, the others, which are numbers,
    to the right.
    """
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in text_columns else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def text_table(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    if not rows:
        return (
            "No run is complete yet: measure what is missing, then report again; the page says what"
            " that is."
        )
    shown = blocks(rows)
    texts = aligned(
        [list(HEADINGS), *(texts for block in shown for _, texts in block.lines)],
        range(TEXT_COLUMNS),
    ).split("\n")
    lines = iter(texts[1:])
    body = []
    for block in shown:
        body += ["", block.title] if block.title else []
        body += [next(lines) for _ in block.lines]
    note = (
        f"Clean score and drops in %; [ ]: {LEVEL:.0%} interval over images, in a mean of seeds"
        f" over both. {ALIKE}"
    )
    return "\n".join(
        [
            texts[0],
            "-" * len(texts[0]),
            *body,
            "",
            note,
            *overlap_lines(rows),
            *left_out_lines(rows),
        ]
    )


def overlap_lines(rows: Sequence[Row]) -> list[str]:
    """One sentence on the models that saw corruptions of the test in training, as far as it is
    known; none where none did.
    """
    seen = {
        model_name(row, rows): ", ".join(names) for row in rows if (names := overlaps_test(row.run))
    }
    told = "; ".join(f"{model} ({names})" for model, names in seen.items())
    return (
        [
            f"{SEEN} Saw corruptions of the test in training, and is no result about unseen ones:"
            f" {told}."
        ]
        if seen
        else []
    )


def left_out_lines(rows: Sequence[Row]) -> list[str]:
    """A sentence for each dataset of which images were left out because they could not be used."""
    said = []
    for row in rows:
        faults = ", ".join(f"{count:,} {fault}" for fault, count in row.left_out.items())
        said += (
            [f"Left out of {row.run.dataset}, {row.images:,} images are left: {faults}."]
            if faults
            else []
        )
    return list(dict.fromkeys(said))


def table_csv(rows: Sequence[Row]) -> str:
    """The table with full precision; scores and drops as fractions, at the end of a line the other
    intervals.
    """
    headings = [
        "task",
        "dataset",
        "run",
        "model",
        "mode",
        "metric",
        "severities",
        "images",
        "left_out",
        "clean",
        "mpc",
        "rpc",
    ]
    headings += [f"{group}_drop" for group in GROUP_ORDER] + [
        "mean_drop",
        "mean_drop_low",
        "mean_drop_high",
        "alike",
        "protocol",
    ]
    headings += [f"{name}_{end}" for name in ("clean", "mpc", "rpc") for end in ("low", "high")] + [
        "overlaps_test"
    ]
    lines = []
    for row in with_seed_means(rows):
        run, numbers = row.run, row.robustness
        low, high = row.interval or ("", "")
        lines.append(
            [run.task, run.dataset, run.name, run.backbone, run.setting, numbers.metric]
            + [" ".join(map(str, numbers.severities)), row.images, sum(row.left_out.values())]
            + [numbers.clean, numbers.mpc, numbers.rpc]
            + [numbers.by_group[group].drop for group in GROUP_ORDER]
            + [
                numbers.drop,
                low,
                high,
                row.alike,
                row.table[-1],
                *_intervals_of_scores(row),
                " ".join(overlaps_test(run)),
            ]
        )
    return as_csv(headings, lines)


def _intervals_of_scores(row: Row) -> list[object]:
    """Of P, mPC and rPC; empty where the row has none, as a mean of seeds."""
    if not row.resampled:
        return [""] * 6
    numbers, drawn = row.robustness, row.resampled
    kept = (
        (drawn["clean"], numbers.clean),
        (drawn["corrupted"], numbers.mpc),
        (1 - drawn["drop"], numbers.rpc),
    )
    return [end for values, value in kept for end in interval(values, value)]


def measurements_csv(runs: Iterable[Run], measurements: Iterable[Measurement]) -> str:
    """Every number with its circumstances, one a line."""
    headings = ["task", "dataset", "run", "model", "mode", "metric", "corruption", "severity"]
    headings += ["value", "images", "left_out", "seconds", "protocol"]
    known = {run.name: run for run in runs}
    lines = []
    for one in measurements:
        run = known.get(one.run)
        about = (
            [run.task, run.dataset, run.name, run.backbone, run.setting]
            if run
            else ["", "", one.run, "", ""]
        )
        left_out = sum(one.protocol.get("left_out", {}).values())
        numbers = [
            one.metric,
            one.corruption,
            one.severity,
            one.value,
            one.images,
            left_out,
            one.seconds,
        ]
        lines.append([*about, *numbers, content_key(one.protocol)])
    return as_csv(headings, lines)


def as_csv(headings: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Headings and lines as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(lines)
    return buffer.getvalue()
