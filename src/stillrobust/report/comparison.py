"""Two runs beside each other, corruption by corruption, on the same images: what differs, by how
much, how surely.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillrobust.analysis.intervals import LEVEL, REPLICATES, interval, simultaneous_intervals
from stillrobust.analysis.resampling import resample_cells
from stillrobust.analysis.robustness import Robustness, robustness
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import CLEAN, COMMON, corrupted_places
from stillrobust.names import lookup
from stillrobust.report.answers import HEADLINE
from stillrobust.report.blocks import comparable, short
from stillrobust.report.summary import METRICS, SEED, severities_of, shown_metrics
from stillrobust.report.tables import aligned, percent
from stillrobust.samples import Array
from stillrobust.storage.store import Measurement, Run, Store

CLEAN_LINE, MEAN_LINE = "clean", "mean of all 15"


@dataclass(frozen=True)
class Change:
    """A number of two runs, fractions, and the interval of the second less the first where
    statistics are kept.
    """

    first: float
    second: float
    interval: tuple[float, float] | None

    @property
    def size(self) -> float:
        """The second less the first."""
        return self.second - self.first

    @property
    def alike(self) -> bool:
        """Whether the interval holds 0."""
        return self.interval is not None and self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Comparison:
    """``score`` and ``drop`` by line: the clean data (score alone), the mean, the corruptions by
    their change of drop.
    """

    first: str
    second: str
    metric: str
    severities: tuple[int, ...]
    images: int
    score: dict[str, Change]
    drop: dict[str, Change]


def compare(
    store: Store, first: str, second: str, metric: str | None = None, replicates: int = REPLICATES
) -> Comparison:
    """Compare two runs of a store in one metric, by default the task's first.

    The intervals of the 15 corruptions hold all together; those of the clean score and the mean
    hold each by itself. Raises ``UserError`` for two protocols, naming the fields, and
    ``MissingCellsError`` for missing cells.
    """
    runs = {run.name: run for run in store.runs()}
    if not runs:
        raise UserError(
            f"Expected a folder of results (with runs/ and cells/) at {store.root}, but there is"
            " none; check the path or measure something first"
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
    order = [CLEAN_LINE, MEAN_LINE, *sorted(COMMON, key=lambda name: -abs(drop[name].size))]
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


def comparison_text(found: Comparison) -> str:
    """The comparison for a terminal, in percent and points."""
    lines = [["", "score A", "score B", "B - A", "drop A", "drop B", "B - A"]]
    for name, score in found.score.items():
        texts = [name.replace("_", " "), *_texts(score)]
        lines.append([*texts, *(_texts(found.drop[name]) if name in found.drop else [""] * 3)])
    rows = aligned(lines, range(1)).split("\n")
    sure = any(change.interval for change in found.score.values())
    alike = [name.replace("_", " ") for name, change in found.drop.items() if change.alike]
    note = (
        f"[ ]: paired {LEVEL:.0%} intervals over images; those of the 15 corruptions hold all"
        " together."
        if sure
        else (
            "How surely they differ cannot be said: not both runs keep per-image statistics of the"
            " same images."
        )
    )
    said = f"Not distinguishable by their drop: {', '.join(alike) or 'nothing'}." if sure else ""
    levels = ", ".join(map(str, found.severities))
    head = (
        f"{METRICS.get(found.metric, found.metric)} in %, {found.images} images, severities"
        f" {levels}; largest change first"
    )
    return "\n".join(
        [
            f"A  {found.first}",
            f"B  {found.second}",
            head,
            "",
            rows[0],
            "-" * len(rows[0]),
            *rows[1:],
            "",
            note,
            said,
        ]
    ).rstrip()


def _check_protocols(pair: Sequence[Run], own: Sequence[Sequence[Measurement]]) -> None:
    """Numbers of two protocols are not compared; within a run ``robustness`` sees to it."""
    one, other = (
        {"task": run.task, **comparable(measured[0].protocol)}
        for run, measured in zip(pair, own, strict=True)
    )
    differ = [
        f"{key} ({short(one.get(key))} and {short(other.get(key))})"
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
            "Expected two runs with a metric in common, but there is none; choose two runs of one"
            " task"
        )
    if asked is not None:
        return lookup("metric", asked, {name: name for name in sorted(both)})
    shown = [one for one in shown_metrics([*own[0], *own[1]]) if one in both] or sorted(both)
    return HEADLINE.get(run.task, shown[0]) if HEADLINE.get(run.task) in both else shown[0]


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
                name: interval(paired[name], sizes[name]) for name in sizes if name not in COMMON
            }
            together = simultaneous_intervals(
                [sizes[name] for name in COMMON], np.stack([paired[name] for name in COMMON])
            )
            around |= {
                name: (float(low), float(high))
                for name, (low, high) in zip(COMMON, together, strict=True)
            }
    return {name: Change(values[0][name], values[1][name], around.get(name)) for name in sizes}


def _texts(change: Change) -> list[str]:
    size = percent(change.size)
    if change.interval is not None:
        size += f" [{percent(change.interval[0])}, {percent(change.interval[1])}]"
    return [percent(change.first), percent(change.second), size]
