"""Did the robustness come along? What a technique takes off the drop of a backbone, beside what is
left of that after a transfer.

A gain is the mean drop of the regular backbone less that of the technique's, on the same images;
downstream, of what starts from either. The two were made and transferred in one way: their records
differ in the technique alone, and in seeds seed by seed.
"""

import json
import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillrobust.analysis.estimates import HEADLINE_METRIC
from stillrobust.analysis.intervals import LEVEL, mean_over_seeds
from stillrobust.names import parse_spec
from stillrobust.report.answers import LEAST_CLEAN, difference
from stillrobust.report.rows import Row
from stillrobust.report.seeds import without_seeds
from stillrobust.report.summary import METRICS, MODES, TASKS, overlaps_test
from stillrobust.report.tables import aligned, as_csv, percent
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Run

REGULAR = "regular"
HEADINGS = (
    "Backbone",
    "Technique",
    "Task",
    "Mode",
    "Seeds",
    "Gain upstream",
    "Gain downstream",
    "Kept",
    "What is seen",
)
TEXT_COLUMNS = (0, 1, 2, 3, 8)  # the others are numbers
WIDTH = 132  # of text in a terminal
PARTS = (
    "the regular backbone upstream",
    "the technique upstream",
    "the regular one's transfer",
    "the technique's transfer",
)
NOTE = (
    f"Gain: the drop of the regular one less that of the technique, in points; [ ]: {LEVEL:.0%}"
    " interval, paired over images, and over seeds where there are several; each holds by itself."
    " Kept: the gain downstream in % of that upstream, where the latter is above 0 for sure."
)


@dataclass(frozen=True)
class Gain:
    """What a technique takes off the drop, a fraction."""

    value: float
    interval: tuple[float, float] | None
    """None where no per-image statistics are kept."""

    @property
    def sure(self) -> bool:
        """Whether the interval lies above 0."""
        return self.interval is not None and self.interval[0] > 0


@dataclass(frozen=True)
class Along:
    """One technique on one backbone, after one transfer to one task."""

    backbone: str
    technique: str
    task: str
    dataset: str
    mode: str
    """Of the transfer, with the technique that acts during it, if one does."""
    metric: str
    overlaps: tuple[str, ...] = ()
    """Corruptions of the test that its techniques showed it in training."""
    seeds: int = 0
    """How many are compared."""
    upstream: Gain | None = None
    downstream: Gain | None = None
    lacking: str = ""
    """Why it is not compared, or what is left out of it."""

    @property
    def kept(self) -> float | None:
        """The share of the gain that is there downstream; None where no gain upstream is sure."""
        if self.upstream is None or self.downstream is None or not self.upstream.sure:
            return None
        return self.downstream.value / self.upstream.value

    @property
    def seen(self) -> str:
        """The verdict in a few words."""
        if self.upstream is None or self.downstream is None:
            return self.lacking
        overlaps = f"saw {', '.join(self.overlaps)} in training" if self.overlaps else ""
        return "; ".join(filter(None, [self._verdict(), overlaps, self.lacking]))

    def _verdict(self) -> str:
        assert self.upstream
        assert self.downstream
        if self.upstream.interval is None or self.downstream.interval is None:
            return "how surely cannot be said without per-image statistics"
        if not self.upstream.sure:
            return "no gain upstream to keep"
        if self.downstream.sure:
            return "came along"
        return (
            "turned into a loss" if self.downstream.interval[1] < 0 else "no gain seen downstream"
        )


# ---- which runs belong together
# -------------------------------------------------------------------------------------------

_Group = Mapping[str, Mapping[int, Run]]
"""Transfers that differ in nothing but where their backbone comes from, by technique and seed."""


@dataclass(frozen=True)
class Origin:
    """Where a run's backbone comes from."""

    family: str
    """The same for backbones that differ in technique and seed alone."""
    name: str
    technique: str
    key: str
    """The same for a backbone upstream and all that starts from it."""


def origin_of(run: Run) -> Origin | None:
    """Of a backbone made here, or of a published one with named weights; None for what was not
    trained or evaluated here.
    """
    if "seed" not in run.protocol.get("training", {}).get("recipe", {}):
        return None
    about, makes = without_seeds(run.protocol), run.kind == "robustify"
    maker, exact = (
        one["training"] if makes else one.get("made_by") for one in (about, run.protocol)
    )
    if maker and exact:
        before = (about if makes else maker).get("made_by")
        family = {key: value for key, value in maker.items() if key not in ("technique", "made_by")}
        key = content_key({name: value for name, value in exact.items() if name != "made_by"})
        return Origin(
            _text([family, before]), str(maker["backbone"]), str(maker["technique"]) or REGULAR, key
        )
    architecture, arguments = parse_spec(run.backbone)
    return (
        Origin(architecture, architecture, str(arguments["weights"]), run.backbone)
        if "weights" in arguments
        else None
    )


def _way(run: Run) -> str:
    """Everything about a transfer but where its backbone comes from."""
    about = without_seeds(run.protocol)
    for name in ("made_by", "overlaps_test"):
        about.pop(name, None)
    for name in ("upstream_weights", "preprocessing"):
        about["training"].pop(name, None)
    return _text([about, run.task, run.dataset, run.setting])


def seed_of(run: Run) -> int:
    """The seed of a run that has an origin."""
    return int(run.protocol["training"]["recipe"]["seed"])


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def came_along(runs: Iterable[Run], rows: Sequence[Row]) -> list[Along]:
    """A line for each backbone, technique, transfer and task in a store; ``rows`` are those of its
    runs that are complete.

    In one metric a task (:data:`HEADLINE`). A line that lacks a run, or has one that learnt
    nothing, says so and compares nothing; seeds that lack one are left out and named.
    """
    measured = {
        row.run.name: row
        for row in rows
        if row.robustness.metric == HEADLINE_METRIC.get(row.run.task)
    }
    known = [(run, origin) for run in runs if (origin := origin_of(run))]
    upstream: dict[str, list[Row]] = {}
    wanted: dict[str, dict[str, None]] = {}
    groups: dict[tuple[str, str], dict[str, dict[int, Run]]] = {}
    for run, origin in known:
        if run.is_upstream:
            wanted.setdefault(origin.family, {})[origin.technique] = None
            upstream.setdefault(origin.key, []).extend(
                [measured[run.name]] if run.name in measured else []
            )
        else:
            groups.setdefault((origin.family, _way(run)), {}).setdefault(origin.technique, {})[
                seed_of(run)
            ] = run
    lines = []
    for (family, _), group in groups.items():
        made = next(iter(next(iter(group.values())).values())).protocol.get("made_by")
        # Published backbones are chosen run by run; of those made here, every one is meant to be
        # transferred in every way.
        names = dict.fromkeys(
            [*wanted.get(family, {}), *group] if made else group if REGULAR in group else []
        )
        lines += [
            _line(name, group, upstream, measured)
            for name in names
            if family in wanted and name != REGULAR
        ]
    tasks = list(TASKS)
    return sorted(
        lines, key=lambda one: (one.backbone, one.technique, tasks.index(one.task), one.mode)
    )


def _line(
    technique: str, group: _Group, upstream: Mapping[str, list[Row]], measured: Mapping[str, Row]
) -> Along:
    """One line from the transfers of a group."""
    any_run = next(run for runs in group.values() for run in runs.values())
    origin = origin_of(any_run)
    assert origin is not None
    during = any_run.protocol["training"].get("technique")
    mode = MODES.get(any_run.setting, any_run.setting) + (f" + {during}" if during else "")
    overlaps = next((overlaps_test(run) for run in group.get(technique, {}).values()), ())
    about = (
        origin.name,
        technique,
        any_run.task,
        any_run.dataset,
        mode,
        HEADLINE_METRIC[any_run.task],
        overlaps,
    )
    seeds = sorted({seed for runs in group.values() for seed in runs})
    every = {seed: _four(technique, group, seed, upstream, measured) for seed in seeds}
    complete = {
        seed: [row for row in rows if row is not None] for seed, rows in every.items() if all(rows)
    }
    if not complete:
        missing = [
            part
            for index, part in enumerate(PARTS)
            if any(rows[index] is None for rows in every.values())
        ]
        return Along(*about, lacking=f"not complete: {', '.join(missing)}")
    for rows in complete.values():
        if nothing := learnt_nothing(PARTS, rows):
            return Along(*about, lacking=nothing)
    lacking = left_out(seeds, complete)
    before, after = (
        gain_of([(rows[first], rows[first + 1]) for rows in complete.values()]) for first in (0, 2)
    )
    return Along(*about, len(complete), before, after, lacking)


def _four(
    technique: str,
    group: _Group,
    seed: int,
    upstream: Mapping[str, list[Row]],
    measured: Mapping[str, Row],
) -> list[Row | None]:
    """What a seed is compared by, in the order of :data:`PARTS`; None for what is not measured
    whole.
    """
    runs = [group.get(name, {}).get(seed) for name in (REGULAR, technique)]
    after = [measured.get(run.name) if run else None for run in runs]
    before = [_before(run, row, upstream) for run, row in zip(runs, after, strict=True)]
    return [*before, *after]


def _before(
    run: Run | None, transferred: Row | None, upstream: Mapping[str, list[Row]]
) -> Row | None:
    """What a run starts from, measured upstream under the same draws and, where there are several,
    on the most images.
    """
    origin = origin_of(run) if run else None
    if origin is None:
        return None
    fitting = [
        row
        for row in upstream.get(origin.key, [])
        if transferred is None or _drawn(row) == _drawn(transferred)
    ]
    return max(fitting, key=lambda row: row.images, default=None)


def _drawn(row: Row) -> tuple[object, ...]:
    """How images are corrupted, on whichever data."""
    return row.robustness.severities, *(
        row.circumstances.get(key)
        for key in ("seed", "draws", "corruptions_version", "channel_order", "scale")
    )


def left_out(seeds: Iterable[int], complete: Collection[int]) -> str:
    """Which seeds are not averaged over; empty where all are there."""
    others = ", ".join(str(seed) for seed in seeds if seed not in complete)
    return f"seeds left out, not complete: {others}" if others else ""


def learnt_nothing(parts: Sequence[str], rows: Sequence[Row]) -> str:
    """Which of the parts has a clean score that may be chance; empty where none has."""
    for part, row in zip(parts, rows, strict=True):
        if row.robustness.clean <= chance(row):
            told = (
                f"clean {percent(row.robustness.clean)} %, up to {percent(chance(row))} % may be"
                " chance"
            )
            return f"not compared: {part} learnt nothing ({told})"
    return ""


def chance(row: Row) -> float:
    """The clean score that a run which learnt nothing may have: two standard deviations above a
    guess among the classes.
    """
    classes = len(row.run.classes)
    if row.robustness.metric != "top1" or classes < 2:
        return LEAST_CLEAN
    guess = 1 / classes
    return max(LEAST_CLEAN, guess + 2 * math.sqrt(guess * (1 - guess) / row.images))


def gain_of(pairs: Sequence[tuple[Row, Row]], quantity: str = "drop") -> Gain:
    """The gain from (regular, technique) of each seed; a pair that comes again (published weights
    have no seed) counts once.

    ``quantity`` is the mean drop, or that of a group of corruptions such as ``drop.noise``.
    """
    distinct = list({(one.run.name, other.run.name): (one, other) for one, other in pairs}.values())
    values = [one.value(quantity) - other.value(quantity) for one, other in distinct]
    value = sum(values) / len(values)
    around = [difference(other, one, quantity) for one, other in distinct]
    if any(bounds is None for bounds in around) or len({one.drawn_from for one, _ in distinct}) > 1:
        return Gain(value, None)
    if len(distinct) == 1:
        return Gain(value, around[0])
    draws = [one.resampled[quantity] - other.resampled[quantity] for one, other in distinct]
    spread = mean_over_seeds(values, draws)
    return Gain(value, (spread.low, spread.high))


# ---- as text
# --------------------------------------------------------------------------------------------------------------


def sentence(lines: Sequence[Along]) -> str:
    """The answer: how many techniques gained upstream, and in how many of these the gain is seen
    after each transfer.
    """
    if not lines:
        return ""
    compared = [line for line in lines if line.upstream is not None]
    tried = {(line.backbone, line.technique) for line in compared}
    gained = {
        (line.backbone, line.technique) for line in compared if line.upstream and line.upstream.sure
    }
    parts = []
    for mode in dict.fromkeys(line.mode for line in lines):
        counts = []
        for task in TASKS:
            here = [
                line
                for line in compared
                if (line.mode, line.task) == (mode, task) and line.kept is not None
            ]
            came = sum(bool(line.downstream and line.downstream.sure) for line in here)
            counts += [f"{came} of {len(here)} ({TASKS[task].lower()})"] if here else []
        parts += [f"with {mode} in {', '.join(counts)}"] if counts else []
    text = (
        f"Did it come along? Of {len(tried)} pairs of technique and backbone, {len(gained)} gained"
        " upstream beyond chance"
    )
    text += f"; a gain beyond chance is there downstream {'; '.join(parts)}" if parts else ""
    left = len(lines) - len(compared)
    return text + (f". {left} of {len(lines)} lines could not be compared." if left else ".")


def gain_text(gain: Gain | None) -> str:
    """A gain in points with its interval; empty where there is none."""
    if gain is None:
        return ""
    text = percent(gain.value)
    return (
        text
        if gain.interval is None
        else f"{text} [{percent(gain.interval[0])}, {percent(gain.interval[1])}]"
    )


def along_cells(line: Along) -> list[str]:
    """A line as the text of its columns."""
    task = f"{TASKS[line.task]}, {METRICS[line.metric]}"
    kept = "" if line.kept is None else percent(line.kept, 0)
    gains = (gain_text(line.upstream), gain_text(line.downstream))
    return [
        line.backbone,
        line.technique,
        task,
        line.mode,
        str(line.seeds or ""),
        *gains,
        kept,
        line.seen,
    ]


def came_along_text(lines: Sequence[Along]) -> str:
    """The answer and the table for a terminal; empty where nothing was made robust and transferred."""
    if not lines:
        return ""
    body = [along_cells(line) for line in lines]
    table = aligned([HEADINGS[:-1], *(row[:-1] for row in body)], TEXT_COLUMNS).split("\n")
    wide = max(map(len, table))
    told = [
        f"{line.ljust(wide)}  {seen}"
        for line, seen in zip(table, [HEADINGS[-1], *(row[-1] for row in body)], strict=True)
    ]
    return "\n".join(
        [
            *textwrap.wrap(sentence(lines), WIDTH),
            "",
            told[0],
            "-" * wide,
            *told[1:],
            "",
            *textwrap.wrap(NOTE, WIDTH),
        ]
    )


def came_along_markdown(lines: Sequence[Along]) -> str:
    """The same for a page of documentation."""
    return (
        f"{sentence(lines)}\n\n{markdown_table(HEADINGS, map(along_cells, lines), TEXT_COLUMNS)}\n\n{NOTE}\n"
        if lines
        else ""
    )


def markdown_table(
    headings: Sequence[str], body: Iterable[Sequence[str]], text_columns: Collection[int]
) -> str:
    """A table as Markdown; columns that are not ``text_columns`` are numbers, to the right."""
    rules = ["---" if index in text_columns else "---:" for index in range(len(headings))]
    return "\n".join(
        f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |"
        for row in (headings, rules, *body)
    )


def came_along_csv(lines: Sequence[Along]) -> str:
    """The same with full precision; gains as fractions."""
    told = [flat(line) for line in lines]
    return as_csv(list(told[0]) if told else [], [list(one.values()) for one in told])


def flat(line: Along) -> dict[str, Any]:
    """A line as plain values."""
    about = {
        name: getattr(line, name)
        for name in ("backbone", "technique", "task", "dataset", "mode", "metric", "seeds")
    }
    for name, gain in (("upstream", line.upstream), ("downstream", line.downstream)):
        low, high = (gain.interval if gain else None) or (None, None)
        about |= {
            f"{name}_gain": gain.value if gain else None,
            f"{name}_low": low,
            f"{name}_high": high,
        }
    return {**about, "kept": line.kept, "seen": line.seen, "overlaps_test": " ".join(line.overlaps)}
