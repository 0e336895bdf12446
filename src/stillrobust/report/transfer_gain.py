"""How much of a technique's robustness survives the transfer.

A gain is the mean drop of the regular backbone less that of the technique's backbone, on the same
images. Downstream it is the same difference between the models that start from the two backbones.
The two differ in the technique only. With several seeds they are compared seed by seed.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stillrobust.analysis.intervals import DROP_RANGE, LEVEL, mean_over_seeds, paired_interval
from stillrobust.metrics import HEADLINE_METRIC
from stillrobust.names import parse_spec
from stillrobust.report.labels import TASKS, TRANSFERS, metric_name
from stillrobust.report.rows import Row
from stillrobust.report.seed_means import without_seeds
from stillrobust.report.summary import overlaps_test
from stillrobust.report.table import Cell, Column, Interval, Label, Percent, Table, percent
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Run

REGULAR = "regular"
LEAST_CLEAN = 0.05  # a lower clean score may be chance, and its drop means nothing
TITLE = "Gain upstream and after each transfer"
COLUMNS = (
    Column("backbone", "Backbone", is_text=True),
    Column("technique", "Technique", is_text=True),
    Column("task", "Task", is_text=True),
    Column("dataset"),
    Column("transfer", "Transfer", is_text=True),
    Column("metric"),
    Column("seeds", "Seeds"),
    Column("upstream_gain", "Gain upstream", has_interval=True),
    Column("downstream_gain", "Gain downstream", has_interval=True),
    Column("retained", "Retained"),
    Column("verdict", "Verdict", is_text=True),
    Column("overlaps_test"),
)
PARTS = (
    "the regular backbone upstream",
    "the technique upstream",
    "the regular backbone's transfer",
    "the technique's transfer",
)
NOTE = (
    f"Gain: drop of the regular backbone less that of the technique, in points. [ ]: {LEVEL:.0%}"
    " interval, paired over images, and over seeds if there are several; each interval holds"
    " individually. Retained: gain downstream in % of the gain upstream, if the latter is"
    " significant."
)


@dataclass(frozen=True)
class Gain:
    """By how much a technique reduces the drop, as a fraction."""

    value: float
    interval: tuple[float, float] | None
    """``None`` without per-image statistics."""

    @property
    def is_significant(self) -> bool:
        """Whether the interval lies above 0."""
        return self.interval is not None and self.interval[0] > 0


@dataclass(frozen=True)
class TransferGain:
    """One technique on one backbone, after one transfer to one task."""

    backbone: str
    technique: str
    task: str
    dataset: str
    transfer: str
    """For readers; with the technique that acts during the transfer, if any."""
    metric: str
    overlaps: tuple[str, ...] = ()
    """Corruptions of the test that it saw in training."""
    seeds: int = 0
    """Number of seeds that are compared."""
    upstream: Gain | None = None
    downstream: Gain | None = None
    drops: tuple[Percent, ...] = ()
    """Mean drop of each of :data:`PARTS`, over the seeds; empty if nothing is compared."""
    missing: str = ""
    """Why it is not compared, or which seeds are left out."""

    @property
    def retained(self) -> float | None:
        """The share of the gain left downstream; ``None`` without a significant gain upstream."""
        if self.upstream is None or self.downstream is None or not self.upstream.is_significant:
            return None
        return self.downstream.value / self.upstream.value

    @property
    def verdict(self) -> str:
        """The verdict in a few words."""
        if self.upstream is None or self.downstream is None:
            return self.missing
        overlaps = f"saw {', '.join(self.overlaps)} in training" if self.overlaps else ""
        return "; ".join(filter(None, [self._verdict(), overlaps, self.missing]))

    def _verdict(self) -> str:
        assert self.upstream
        assert self.downstream
        if self.upstream.interval is None or self.downstream.interval is None:
            return "significance unknown: no per-image statistics"
        if not self.upstream.is_significant:
            return "no significant gain upstream"
        if self.downstream.is_significant:
            return "transferred"
        lost = self.downstream.interval[1] < 0
        return "turned into a loss" if lost else "no significant gain downstream"


_Group = Mapping[str, Mapping[int, Run]]
"""Transfers that differ only in the origin of their backbone, by technique and seed."""


@dataclass(frozen=True)
class Origin:
    """The origin of a run's backbone."""

    family: str
    """The same for backbones that differ only in technique and seed."""
    name: str
    technique: str
    key: str
    """The same for a backbone upstream and all models that start from it."""


def origin_of(run: Run) -> Origin | None:
    """Return the origin of a backbone that was trained here, or published with named weights.

    Returns:
        The origin; ``None`` for a run without a training recipe, or without named weights.
    """
    if run.protocol.get("training", {}).get("recipe", {}).get("seed") is None:
        return None
    protocol, trains_backbone = without_seeds(run.protocol), run.kind == "robustify"
    maker, exact = (
        one["training"] if trains_backbone else one.get("made_by")
        for one in (protocol, run.protocol)
    )
    if maker and exact:
        before = (protocol if trains_backbone else maker).get("made_by")
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


def _transfer_key(run: Run) -> str:
    """Everything about a transfer except the origin of its backbone."""
    protocol = without_seeds(run.protocol)
    for name in ("made_by", "overlaps_test"):
        protocol.pop(name, None)
    for name in ("upstream_weights", "preprocessing"):
        protocol["training"].pop(name, None)
    return _text([protocol, run.task, run.dataset, run.setting])


def seed_of(run: Run) -> int:
    """Return the training seed of a run that has an origin."""
    return int(run.protocol["training"]["recipe"]["seed"])


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def transfer_gain(runs: Iterable[Run], rows: Sequence[Row]) -> list[TransferGain]:
    """Compute the gain of each backbone, technique, transfer and task.

    Args:
        runs: All runs of a store.
        rows: Of the complete runs.

    Returns:
        A line in one metric per task (:data:`HEADLINE`). A line with a missing run, or a run at
        chance level, compares nothing and states the reason. Incomplete seeds are left out.
    """
    measured = {
        row.run.name: row
        for row in rows
        if row.robustness.metric == HEADLINE_METRIC.get(row.run.task)
    }
    known = [(run, origin) for run in runs if (origin := origin_of(run))]
    upstream: dict[str, list[Row]] = {}
    techniques: dict[str, dict[str, None]] = {}
    groups: dict[tuple[str, str], dict[str, dict[int, Run]]] = {}
    for run, origin in known:
        if run.is_upstream:
            techniques.setdefault(origin.family, {})[origin.technique] = None
            upstream.setdefault(origin.key, []).extend(
                [measured[run.name]] if run.name in measured else []
            )
        else:
            groups.setdefault((origin.family, _transfer_key(run)), {}).setdefault(
                origin.technique, {}
            )[seed_of(run)] = run
    lines = []
    for (family, _), group in groups.items():
        made = next(iter(next(iter(group.values())).values())).protocol.get("made_by")
        # Published backbones are chosen run by run. A backbone that was trained here is expected in
        # every transfer, so that a missing one is reported.
        names = dict.fromkeys(
            [*techniques.get(family, {}), *group] if made else group if REGULAR in group else []
        )
        lines += [
            _line(name, group, upstream, measured)
            for name in names
            if family in techniques and name != REGULAR
        ]
    tasks = list(TASKS)
    return sorted(
        lines, key=lambda one: (one.backbone, one.technique, tasks.index(one.task), one.transfer)
    )


def _line(
    technique: str, group: _Group, upstream: Mapping[str, list[Row]], measured: Mapping[str, Row]
) -> TransferGain:
    """One line from the transfers of a group."""
    any_run = next(run for runs in group.values() for run in runs.values())
    origin = origin_of(any_run)
    assert origin is not None
    during = any_run.protocol["training"].get("technique")
    transfer = TRANSFERS.get(any_run.setting, any_run.setting) + (f" + {during}" if during else "")
    overlaps = next((overlaps_test(run) for run in group.get(technique, {}).values()), ())
    subject = (
        origin.name,
        technique,
        any_run.task,
        any_run.dataset,
        transfer,
        HEADLINE_METRIC[any_run.task],
        overlaps,
    )
    seeds = sorted({seed for runs in group.values() for seed in runs})
    every = {seed: _four(technique, group, seed, upstream, measured) for seed in seeds}
    complete = {
        seed: [row for row in rows if row is not None] for seed, rows in every.items() if all(rows)
    }
    if not complete:
        absent = [
            part
            for index, part in enumerate(PARTS)
            if any(rows[index] is None for rows in every.values())
        ]
        return TransferGain(*subject, missing=f"not complete: {', '.join(absent)}")
    for rows in complete.values():
        if reason := chance_level_reason(PARTS, rows):
            return TransferGain(*subject, missing=reason)
    missing = left_out_seeds(seeds, complete)
    before, after = (
        gain_of([(rows[first], rows[first + 1]) for rows in complete.values()]) for first in (0, 2)
    )
    drops = tuple(_mean_drop(rows) for rows in zip(*complete.values(), strict=True))
    return TransferGain(*subject, len(complete), before, after, drops, missing)


def _four(
    technique: str,
    group: _Group,
    seed: int,
    upstream: Mapping[str, list[Row]],
    measured: Mapping[str, Row],
) -> list[Row | None]:
    """Rows of a seed in the order of :data:`PARTS`; ``None`` for an incomplete run."""
    runs = [group.get(name, {}).get(seed) for name in (REGULAR, technique)]
    after = [measured.get(run.name) if run else None for run in runs]
    before = [_before(run, row, upstream) for run, row in zip(runs, after, strict=True)]
    return [*before, *after]


def _before(
    run: Run | None, transferred: Row | None, upstream: Mapping[str, list[Row]]
) -> Row | None:
    """The upstream row of a run's backbone under the same draws; of several, the most images."""
    origin = origin_of(run) if run else None
    if origin is None:
        return None
    fitting = [
        row
        for row in upstream.get(origin.key, [])
        if transferred is None or _draws(row) == _draws(transferred)
    ]
    return max(fitting, key=lambda row: row.images, default=None)


def _draws(row: Row) -> tuple[object, ...]:
    """How images are corrupted, whatever the data."""
    return row.robustness.severities, *(
        row.protocol.get(key)
        for key in ("seed", "draws", "corruptions_version", "channel_order", "scale")
    )


def _mean_drop(rows: Sequence[Row]) -> Percent:
    """The mean drop over seeds; a repeated run counts once."""
    distinct = list({row.run.name: row for row in rows}.values())
    drops = [row.robustness.drop for row in distinct]
    if len(distinct) == 1:
        return Percent(drops[0], distinct[0].interval)
    mean = sum(drops) / len(drops)
    if any(row.drops is None for row in distinct) or len({row.image_ids for row in distinct}) > 1:
        return Percent(mean)
    draws = [row.resampled["drop"] for row in distinct]
    spread = mean_over_seeds(drops, draws, freedom=distinct[0].freedom)
    return Percent(mean, (spread.low, min(spread.high, DROP_RANGE[1])))


def left_out_seeds(seeds: Iterable[int], complete: Collection[int]) -> str:
    """Name the seeds that are left out of a mean; empty if all are complete."""
    others = ", ".join(str(seed) for seed in seeds if seed not in complete)
    return f"seeds left out, not complete: {others}" if others else ""


def chance_level_reason(parts: Sequence[str], rows: Sequence[Row]) -> str:
    """Name the first part whose clean score may be chance; empty if there is none."""
    for part, row in zip(parts, rows, strict=True):
        if row.robustness.clean <= chance_limit(row):
            clean, limit = percent(row.robustness.clean), percent(chance_limit(row))
            return f"not compared: {part} is at chance level (clean {clean} %, limit {limit} %)"
    return ""


def chance_limit(row: Row) -> float:
    """Return the highest clean score of an untrained model.

    For top-1 that is two standard deviations above guessing among the classes.
    """
    classes = len(row.run.classes)
    if row.robustness.metric != "top1" or classes < 2:
        return LEAST_CLEAN
    guess = 1 / classes
    return max(LEAST_CLEAN, guess + 2 * math.sqrt(guess * (1 - guess) / row.images))


def difference_interval(first: Row, second: Row, quantity: str = "drop") -> Interval | None:
    """Return the paired interval of the second row's quantity less the first's.

    Args:
        first: A row.
        second: Another row.
        quantity: One of :data:`summary.QUANTITIES`.

    Returns:
        The interval, or ``None`` without per-image statistics of the same images and groups.
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


def gain_of(pairs: Sequence[tuple[Row, Row]], quantity: str = "drop") -> Gain:
    """Average the gain over seeds.

    Args:
        pairs: (regular, technique) of each seed. A repeated pair counts once, because published
            weights have no seed.
        quantity: The mean drop, or that of a corruption group such as ``drop.noise``.

    Returns:
        The gain, with an interval if all rows have statistics of the same images.
    """
    distinct = list({(one.run.name, other.run.name): (one, other) for one, other in pairs}.values())
    values = [one.value(quantity) - other.value(quantity) for one, other in distinct]
    value = sum(values) / len(values)
    bounds = [difference_interval(other, one, quantity) for one, other in distinct]
    if any(one is None for one in bounds) or len({one.image_ids for one, _ in distinct}) > 1:
        return Gain(value, None)
    if len(distinct) == 1:
        return Gain(value, bounds[0])
    draws = [one.resampled[quantity] - other.resampled[quantity] for one, other in distinct]
    spread = mean_over_seeds(values, draws, freedom=distinct[0][0].freedom)
    return Gain(value, (spread.low, spread.high))


def gain_cell(gain: Gain | None) -> Percent | None:
    """A gain in points with its interval."""
    return None if gain is None else Percent(gain.value, gain.interval)


def transfer_gain_table(lines: Sequence[TransferGain]) -> Table:
    """Tabulate the lines of :func:`transfer_gain`."""
    rows: list[list[Cell]] = [
        [
            line.backbone,
            line.technique,
            Label(line.task, f"{TASKS[line.task]}, {metric_name(line.metric)}"),
            line.dataset,
            line.transfer,
            line.metric,
            line.seeds or None,
            gain_cell(line.upstream),
            gain_cell(line.downstream),
            None if line.retained is None else Percent(line.retained, digits=0),
            line.verdict,
            " ".join(line.overlaps),
        ]
        for line in lines
    ]
    return Table.from_rows(TITLE, COLUMNS, rows, [NOTE])
