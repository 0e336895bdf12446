"""Comparison of two runs, corruption by corruption, on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillrobust.analysis.intervals import (
    LEVEL,
    REPLICATES,
    paired_interval,
    simultaneous_intervals,
)
from stillrobust.analysis.resampling import resample_cells
from stillrobust.analysis.robustness import Robustness, robustness
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import CLEAN, COMMON, corrupted_places
from stillrobust.metrics import HEADLINE_METRIC
from stillrobust.names import lookup
from stillrobust.report.labels import metric_name
from stillrobust.report.protocol_groups import comparable_protocol, short_value
from stillrobust.report.renderers import to_text
from stillrobust.report.summary import SEED, report_metrics, severities_of
from stillrobust.report.table import Column, Percent, Table
from stillrobust.samples import Array
from stillrobust.storage.store import Measurement, Run, Store

CLEAN_LINE, MEAN_LINE = "clean", "mean of all 15"
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
    images: int
    score: dict[str, Change]
    drop: dict[str, Change]


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
        The comparison. The intervals of the 15 corruptions are simultaneous; those of the clean
        score and of the mean hold individually.

    Raises:
        UserError: If the protocols differ; the message names the keys.
        MissingCellsError: If cells are missing.
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
            raise MissingCellsError(f"{run.name} has no measurement: run the study first")
    _check_protocols(pair, own)
    metric = _metric(pair[0], own, metric)
    severities = severities_of(pair[0], pair, [*own[0], *own[1]])
    kept = [[one for one in measured if one.metric == metric] for measured in own]
    numbers = [robustness(measured, severities) for measured in kept]
    scores, drops = zip(*(_lines(one) for one in numbers), strict=True)
    draws = [_draws(store, run.name, metric, severities, replicates) for run in pair]
    paired = draws[0] is not None and draws[1] is not None and draws[0][0] == draws[1][0]
    inner = [(draw[1], draw[2]) for draw in draws if paired and draw is not None]
    score = _changes(scores, [one[0] for one in inner])
    drop = _changes(drops, [one[1] for one in inner])
    order = [CLEAN_LINE, MEAN_LINE, *sorted(COMMON, key=lambda name: -abs(drop[name].difference))]
    images = next(one.images for one in kept[0] if (one.corruption, one.severity) == CLEAN)
    return Comparison(
        pair[0].name,
        pair[1].name,
        metric,
        severities,
        images,
        {name: score[name] for name in order},
        {name: drop[name] for name in order if name in drop},
    )


def comparison_table(comparison: Comparison) -> Table:
    """Tabulate a comparison, in percent and points."""
    lines = []
    for name, score in comparison.score.items():
        drop = comparison.drop.get(name)
        cells = [*_cells(score), *(_cells(drop) if drop else [None] * 3)]
        lines.append([name.replace("_", " "), *cells])
    levels = ", ".join(map(str, comparison.severities))
    title = (
        f"{metric_name(comparison.metric)} in %, {comparison.images} images, severities {levels};"
        " largest change first"
    )
    notes = [
        "Significance unknown: at least one run has no per-image statistics of the same images."
    ]
    if any(change.interval for change in comparison.score.values()):
        alike = [name.replace("_", " ") for name, one in comparison.drop.items() if one.alike]
        notes = [
            f"[ ]: paired {LEVEL:.0%} intervals over images, simultaneous for the 15 corruptions.",
            f"Not distinguishable by their drop: {', '.join(alike) or 'nothing'}.",
        ]
    columns = [Column(heading=text, is_text=not index) for index, text in enumerate(HEADINGS)]
    return Table.from_rows(title, columns, lines, notes)


def comparison_text(comparison: Comparison) -> str:
    """Render a comparison for a terminal."""
    names = f"A  {comparison.first}\nB  {comparison.second}"
    return f"{names}\n{to_text(comparison_table(comparison))}"


def _check_protocols(pair: Sequence[Run], own: Sequence[Sequence[Measurement]]) -> None:
    """Reject runs of two protocols; ``robustness`` checks the cells of each run."""
    one, other = (
        {"task": run.task, **comparable_protocol(measured[0].protocol)}
        for run, measured in zip(pair, own, strict=True)
    )
    differ = [
        f"{key} ({short_value(one.get(key))} and {short_value(other.get(key))})"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]
    if differ:
        raise UserError(
            f"Expected two runs under one protocol, but {pair[0].name} and {pair[1].name} differ in"
            f" {', '.join(differ)}: measure one of them again"
        )


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


def _lines(numbers: Robustness) -> tuple[dict[str, float], dict[str, float]]:
    """Scores and drops by line."""
    scores = {
        CLEAN_LINE: numbers.clean,
        MEAN_LINE: numbers.mpc,
        **{name: numbers.by_corruption[name].mpc for name in COMMON},
    }
    return scores, {
        MEAN_LINE: numbers.drop,
        **{name: numbers.by_corruption[name].drop for name in COMMON},
    }


def _draws(
    store: Store, run: str, metric: str, severities: Sequence[int], replicates: int
) -> tuple[tuple[str, ...], dict[str, Array], dict[str, Array]] | None:
    """The images, then scores and drops by line in every resample, each (R,)."""
    places = corrupted_places(severities)
    drawn = resample_cells(store, run, (CLEAN, *places), replicates, SEED)
    if drawn is None or metric not in drawn.values:
        return None
    cells = drawn.values[metric][:, 1:]
    scores = {CLEAN_LINE: cells[0], MEAN_LINE: cells[1:].mean(0)}
    for name in COMMON:
        scores[name] = cells[1:][[place[0] == name for place in places]].mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            drawn.image_ids,
            scores,
            {name: 1 - one / cells[0] for name, one in scores.items() if name != CLEAN_LINE},
        )


def _changes(
    values: Sequence[dict[str, float]], draws: Sequence[dict[str, Array]]
) -> dict[str, Change]:
    sizes = {name: values[1][name] - values[0][name] for name in values[0]}
    around: dict[str, tuple[float, float]] = {}
    if draws:
        paired = {name: draws[1][name] - draws[0][name] for name in values[0]}
        # a clean score of 0 in a resample leaves no drop
        if all(np.isfinite(one).all() for one in paired.values()):
            around = {
                name: paired_interval(paired[name], sizes[name])
                for name in sizes
                if name not in COMMON
            }
            together = simultaneous_intervals(
                [sizes[name] for name in COMMON], np.stack([paired[name] for name in COMMON])
            )
            around |= {
                name: (float(low), float(high))
                for name, (low, high) in zip(COMMON, together, strict=True)
            }
    return {name: Change(values[0][name], values[1][name], around.get(name)) for name in sizes}


def _cells(change: Change) -> list[Percent]:
    difference = Percent(change.difference, change.interval)
    return [Percent(change.first), Percent(change.second), difference]
