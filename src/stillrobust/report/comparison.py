"""Comparison of two runs, corruption by corruption, on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillrobust.analysis.groups import Grouping, effective_groups
from stillrobust.analysis.intervals import (
    INDEPENDENT,
    LEVEL,
    REPLICATES,
    paired_interval,
    simultaneous_intervals,
)
from stillrobust.analysis.protocols import require_same_protocol
from stillrobust.analysis.resampling import (
    CellReplicates,
    require_same_grouping,
    resample_cells,
)
from stillrobust.analysis.robustness import Robustness, complete_corruptions, robustness
from stillrobust.analysis.sample_size import sample_size_warnings
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import CLEAN, COMMON, SEVERITIES
from stillrobust.metrics import HEADLINE_METRIC
from stillrobust.names import format_count, lookup
from stillrobust.report.labels import metric_name, severities_name
from stillrobust.report.renderers import to_text
from stillrobust.report.summary import SEED, report_metrics
from stillrobust.report.table import Column, Percent, Table
from stillrobust.samples import Array
from stillrobust.storage.store import Measurement, Run, Store

CLEAN_LINE = "clean"
HEADINGS = ("", "score A", "score B", "B - A", "drop A", "drop B", "B - A")


@dataclass(frozen=True)
class Change:
    """A number of two runs, as fractions.

    The interval is of the second less the first; ``None`` without per-image statistics.
    """

    first: float
    second: float
    interval: tuple[float, float] | None

    @property
    def difference(self) -> float:
        """The second less the first."""
        return self.second - self.first

    @property
    def alike(self) -> bool:
        """Whether the interval contains 0."""
        return self.interval is not None and self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Comparison:
    """Scores and drops of two runs, by line of the table.

    The lines are the clean data (score only), the mean, and the corruptions, largest change first.
    """

    first: str
    second: str
    metric: str
    severities: tuple[int, ...]
    corruptions: tuple[str, ...]
    images: int
    images_per_class: tuple[int, ...]
    """As :attr:`CellReplicates.images_per_class`, the fewer of both runs."""
    score: dict[str, Change]
    drop: dict[str, Change]
    grouping: Grouping | None = None
    """The groups that were resampled; ``None`` if the images were."""


def compare_runs(
    store: Store, first: str, second: str, metric: str | None = None, replicates: int = REPLICATES
) -> Comparison:
    """Compare two runs of a store.

    Args:
        store: The results store.
        first: Name of a run.
        second: Name of another run.
        metric: What to compare (default: the task's first metric).
        replicates: Number of bootstrap resamples.

    Returns:
        The comparison, over the corruptions that both runs have. The intervals of the corruptions
        are simultaneous; those of the clean score and of the mean hold individually.

    Raises:
        UserError: If the protocols differ; the message names the keys.
        MissingCellsError: If the runs have no corruption in common at all their severities.
    """
    runs = {run.name: run for run in store.runs()}
    if not runs:
        raise UserError(
            f"Expected a folder of results (with runs/ and cells/) at {store.root}, but there is"
            " none; check the path or evaluate a model first"
        )
    pair = [lookup("run", name, runs) for name in (first, second)]
    places = {CLEAN[0], *COMMON}
    own = [
        [one for one in store.measurements(run.name) if one.corruption in places] for run in pair
    ]
    for run, measured in zip(pair, own, strict=True):
        if not measured:
            raise MissingCellsError(f"{run.name} has no measurement: evaluate it first")
    require_same_protocol(
        {run.name: {"task": run.task, **m[0].protocol} for run, m in zip(pair, own, strict=True)}
    )
    metric = _metric(pair[0], own, metric)
    kept = [[one for one in measured if one.metric == metric] for measured in own]
    severities, corruptions = _common_cells(kept)
    numbers = [robustness(measured, severities, corruptions) for measured in kept]
    scores, drops = zip(*(_lines(one) for one in numbers), strict=True)
    drawn = [
        resample_cells(store, one.run, (CLEAN, *one.places), replicates, SEED) for one in numbers
    ]
    found = [one for one in drawn if one is not None and metric in one.values]
    paired = len(found) == 2 and found[0].image_ids == found[1].image_ids
    if paired:
        require_same_grouping({run.name: one for run, one in zip(pair, found, strict=True)})
    inner = [_draws(*both) for both in zip(found, numbers, strict=True)] if paired else []
    per_class = [one.images_per_class for one in found if one.images_per_class]
    grouping = found[0].grouping if paired else None
    freedom = found[0].freedom if paired else INDEPENDENT
    score = _changes(scores, [one[0] for one in inner], freedom)
    drop = _changes(drops, [one[1] for one in inner], freedom)
    ranked = sorted(corruptions, key=lambda name: -abs(drop[name].difference))
    order = [CLEAN_LINE, mean_line(corruptions), *ranked]
    images = next(one.images for one in kept[0] if (one.corruption, one.severity) == CLEAN)
    return Comparison(
        pair[0].name,
        pair[1].name,
        metric,
        severities,
        corruptions,
        images,
        tuple(min(counts) for counts in zip(*per_class, strict=True)),
        {name: score[name] for name in order},
        {name: drop[name] for name in order if name in drop},
        grouping,
    )


def comparison_table(comparison: Comparison) -> Table:
    """Tabulate a comparison, in percent and points."""
    lines = []
    for name, score in comparison.score.items():
        drop = comparison.drop.get(name)
        cells = [*_cells(score), *(_cells(drop) if drop else [None] * 3)]
        lines.append([name.replace("_", " "), *cells])
    count = len(comparison.corruptions)
    title = (
        f"{metric_name(comparison.metric)} in %, {format_count(comparison.images, 'image')},"
        f" {severities_name(comparison.severities)}; largest change first"
    )
    notes = [
        "Significance unknown: at least one run has no per-image statistics of the same images."
    ]
    if any(change.interval for change in comparison.score.values()):
        alike = [name.replace("_", " ") for name, one in comparison.drop.items() if one.alike]
        notes = [
            f"[ ]: paired {LEVEL:.0%} intervals for the population that the images are from.",
            f"Those of the {count} corruptions are simultaneous, so any of them may be picked.",
            f"Not distinguishable by their drop: {', '.join(alike) or 'nothing'}.",
        ]
    if count < len(COMMON):
        notes.append(
            f"Both runs have {count} of the 15 corruptions at these severities; their mean is not"
            " mPC."
        )
    grouping = comparison.grouping
    notes += [] if grouping is None else [f"Groups of images are resampled: {grouping.protocol}."]
    groups = effective_groups(grouping)
    notes += sample_size_warnings(comparison.images, comparison.images_per_class, groups)
    columns = [Column(heading=text, is_text=not index) for index, text in enumerate(HEADINGS)]
    return Table.from_rows(title, columns, lines, notes)


def mean_line(corruptions: Sequence[str]) -> str:
    """The name of the line with the mean over these corruptions."""
    if len(corruptions) == len(COMMON):
        return "mean of all 15"
    return f"mean of {len(corruptions)} of 15"


def comparison_text(comparison: Comparison) -> str:
    """Render a comparison for a terminal."""
    names = f"A  {comparison.first}\nB  {comparison.second}"
    return f"{names}\n{to_text(comparison_table(comparison))}"


def _metric(run: Run, own: Sequence[Sequence[Measurement]], asked: str | None) -> str:
    both = {one.metric for one in own[0]} & {one.metric for one in own[1]}
    if not both:
        raise UserError(
            "Expected two runs with a metric in common, but they have none; choose two runs of one"
            " task"
        )
    if asked is not None:
        return lookup("metric", asked, {name: name for name in sorted(both)})
    common = [one for one in report_metrics([*own[0], *own[1]]) if one in both] or sorted(both)
    primary = HEADLINE_METRIC.get(run.task)
    return primary if primary in both else common[0]


def _common_cells(
    measured: Sequence[Sequence[Measurement]],
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The severities of both runs, and the corruptions that both have at all of these."""
    levels = [{one.severity for one in own if one.severity} for own in measured]
    severities = tuple(sorted(set.intersection(*levels))) or tuple(sorted(set.union(*levels)))
    found = [complete_corruptions(own, severities) for own in measured]
    common = tuple(name for name in found[0] if name in found[1])
    # without a corruption in common, `robustness` names what is missing
    return severities or SEVERITIES, common or COMMON


def _lines(numbers: Robustness) -> tuple[dict[str, float], dict[str, float]]:
    """Scores and drops by line."""
    mean, parts = mean_line(numbers.corruptions), numbers.by_corruption
    scores = {
        CLEAN_LINE: numbers.clean,
        mean: numbers.mpc,
        **{name: part.mpc for name, part in parts.items()},
    }
    return scores, {mean: numbers.drop, **{name: part.drop for name, part in parts.items()}}


def _draws(drawn: CellReplicates, numbers: Robustness) -> tuple[dict[str, Array], dict[str, Array]]:
    """The scores and drops by line in every resample, each (R,)."""
    cells = drawn.values[numbers.metric][:, 1:]
    scores = {CLEAN_LINE: cells[0], mean_line(numbers.corruptions): cells[1:].mean(0)}
    for name in numbers.corruptions:
        scores[name] = cells[1:][[place[0] == name for place in numbers.places]].mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            scores,
            {name: 1 - one / cells[0] for name, one in scores.items() if name != CLEAN_LINE},
        )


def _changes(
    values: Sequence[dict[str, float]], draws: Sequence[dict[str, Array]], freedom: float
) -> dict[str, Change]:
    sizes = {name: values[1][name] - values[0][name] for name in values[0]}
    around: dict[str, tuple[float, float]] = {}
    if draws:
        paired = {name: draws[1][name] - draws[0][name] for name in values[0]}
        # a clean score of 0 in a resample leaves no drop
        if all(np.isfinite(one).all() for one in paired.values()):
            around = {
                name: paired_interval(paired[name], sizes[name], freedom=freedom)
                for name in sizes
                if name not in COMMON
            }
            names = [name for name in sizes if name in COMMON]
            together = simultaneous_intervals(
                [sizes[name] for name in names],
                np.stack([paired[name] for name in names]),
                freedom=freedom,
            )
            around |= {
                name: (float(low), float(high))
                for name, (low, high) in zip(names, together, strict=True)
            }
    return {name: Change(values[0][name], values[1][name], around.get(name)) for name in sizes}


def _cells(change: Change) -> list[Percent]:
    difference = Percent(change.difference, change.interval)
    return [Percent(change.first), Percent(change.second), difference]
