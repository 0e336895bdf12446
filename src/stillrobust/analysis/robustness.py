"""Robustness: the share of a score that remains on corrupted data.

``mPC`` is the mean over the 15 common corruptions and the severities. Every cell has the same
weight, so it is not the mean of the group means. ``rPC = mPC / P`` with the clean score ``P``, and
the drop is ``1 - rPC``.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import CLEAN, COMMON, GROUPS, SEVERITIES, Place
from stillrobust.storage.store import Measurement


class SubsetScore(NamedTuple):
    """Mean score over a subset of the corrupted cells, and its drop (negative for a gain)."""

    mpc: float
    drop: float


@dataclass(frozen=True)
class Robustness:
    """Robustness of one run in one metric, 0..1."""

    run: str
    metric: str
    severities: tuple[int, ...]
    clean: float
    """P, the score on the clean data."""
    mpc: float
    """mPC, or the mean over fewer corruptions, which is not mPC; see ``corruptions``."""
    rpc: float
    """mpc / P, 0..1."""
    drop: float
    """1 - rPC."""
    by_group: dict[str, SubsetScore]
    by_severity: dict[int, SubsetScore]
    by_corruption: dict[str, SubsetScore]
    corruptions: tuple[str, ...] = COMMON
    """The corruptions that the mean covers."""

    @property
    def places(self) -> tuple[Place, ...]:
        """The corrupted cells that the mean covers."""
        return tuple((name, level) for name in self.corruptions for level in self.severities)

    @property
    def is_complete(self) -> bool:
        """Whether the mean covers all 15 corruptions, so that it is mPC."""
        return self.corruptions == COMMON


def missing_places(
    measurements: Iterable[Measurement],
    severities: Sequence[int] = SEVERITIES,
    corruptions: Sequence[str] = COMMON,
) -> tuple[Place, ...]:
    """Return the cells that robustness needs and the measurements lack, the clean one first."""
    there = {(measurement.corruption, measurement.severity) for measurement in measurements}
    needed = (CLEAN, *((name, level) for name in corruptions for level in severities))
    return tuple(place for place in needed if place not in there)


def complete_corruptions(
    measurements: Iterable[Measurement], severities: Sequence[int]
) -> tuple[str, ...]:
    """Return the common corruptions that are measured at all of the severities."""
    there = {(one.corruption, one.severity) for one in measurements}
    return tuple(name for name in COMMON if all((name, level) in there for level in severities))


def covered_cells(
    measurements: Iterable[Measurement], severities: Sequence[int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the severities and corruptions that the mean of a run covers.

    Args:
        measurements: Measurements of the run in one metric.
        severities: Severities of the mean over all 15 corruptions.

    Returns:
        These severities and the 15 corruptions. If the run has fewer corruptions, each at the same
        severities, then those.
    """
    listed = list(measurements)
    places = {(one.corruption, one.severity) for one in listed if one.corruption in COMMON}
    levels = tuple(sorted({level for _, level in places}))
    names = complete_corruptions(listed, levels)
    is_finished = 0 < len(names) < len(COMMON) and len(places) == len(names) * len(levels)
    return (levels, names) if is_finished else (tuple(severities), COMMON)


def robustness(
    measurements: Iterable[Measurement],
    severities: Sequence[int] = SEVERITIES,
    corruptions: Sequence[str] = COMMON,
) -> Robustness:
    """Compute the robustness of one run in one metric.

    Args:
        measurements: Measurements of the run. Other severities and extra corruptions are ignored.
        severities: Severities that the mean covers.
        corruptions: Corruptions that the mean covers. It is mPC only if these are all 15.

    Raises:
        MissingCellsError: If a cell is missing.
        UserError: If the measurements are not of one run, metric and protocol, or a cell is given
            twice.
    """
    severities = _validated_severities(severities)
    given = list(measurements)
    if not all(isinstance(measurement, Measurement) for measurement in given):
        raise UserError(
            "Expected measurements, but got an estimate from part of the cells: evaluate the rest"
        )
    needed = {CLEAN, *((name, level) for name in corruptions for level in severities)}
    used = [
        measurement
        for measurement in given
        if (measurement.corruption, measurement.severity) in needed
    ]
    run = _only("run", (measurement.run for measurement in given))
    metric = _only("metric", (measurement.metric for measurement in given))
    _check_cells(used, run, metric, missing_places(used, severities, corruptions))
    _check_protocols(used, run)
    values = {
        (measurement.corruption, measurement.severity): measurement.value for measurement in used
    }
    clean = values.pop(CLEAN)
    if not clean > 0:
        raise UserError(
            f"Expected a clean {metric} above 0 for {run}, but got {clean:g}: robustness is"
            " undefined; train the model first or check the ground truth"
        )

    def part(names: Sequence[str] = corruptions, levels: Sequence[int] = severities) -> SubsetScore:
        mpc = fmean(values[name, level] for name in names for level in levels)
        return SubsetScore(mpc, 1 - mpc / clean)

    everything = part()
    return Robustness(
        run=run,
        metric=metric,
        severities=severities,
        clean=clean,
        mpc=everything.mpc,
        rpc=everything.mpc / clean,
        drop=everything.drop,
        by_group={
            name: part(members)
            for name, members in GROUPS.items()
            if set(members) <= set(corruptions)
        },
        by_severity={level: part(levels=[level]) for level in severities},
        by_corruption={name: part([name]) for name in corruptions},
        corruptions=tuple(corruptions),
    )


def chance_corrected_drop(clean: float, mpc: float, chance: float) -> float:
    """Return the share of the score above chance that is lost: 1 - (mPC - chance) / (P - chance).

    A score that falls to chance has lost everything, although its plain drop is below 1. The two
    agree if chance is 0.

    Args:
        clean: P, 0..1.
        mpc: Mean score under corruption, 0..1.
        chance: Score of a model that always returns the same, 0..1.

    Returns:
        The corrected drop; above 1 for a score below chance; NaN if P does not exceed chance.
    """
    return 1 - (mpc - chance) / (clean - chance) if clean > chance else math.nan


def falls_by_clean_score_only(clean: Sequence[float], mpc: Sequence[float]) -> bool:
    """Return whether the second of two models drops less only because its clean score is lower.

    Its drop 1 - mPC / P is then smaller although its mPC is not higher, so P must be lower.

    Args:
        clean: P of both models, 0..1, above 0.
        mpc: mPC of both models, 0..1.
    """
    return mpc[1] <= mpc[0] and mpc[1] / clean[1] > mpc[0] / clean[0]


def _validated_severities(severities: Sequence[int]) -> tuple[int, ...]:
    levels = tuple(severities)
    if not levels or len(set(levels)) != len(levels) or not set(levels) <= set(SEVERITIES):
        raise UserError(
            f"Expected different severities from 1 to 5, but got {levels}: give for example 1,3,5"
        )
    return levels


def _only(what: str, names: Iterable[str]) -> str:
    found = sorted(set(names))
    if not found:
        raise MissingCellsError("There are no measurements: evaluate the run first")
    if len(found) > 1:
        raise UserError(
            f"Expected measurements of one {what}, but got {', '.join(found)}: compute each on"
            " its own"
        )
    return found[0]


def _check_cells(used: list[Measurement], run: str, metric: str, missing: Sequence[Place]) -> None:
    counts = Counter((measurement.corruption, measurement.severity) for measurement in used)
    twice = [place for place, count in counts.items() if count > 1]
    if twice:
        raise UserError(
            f"Expected each cell of {run} ({metric}) once, but got more than one of"
            f" {_format_cells(twice)}: remove the others"
        )
    if missing:
        raise MissingCellsError(
            f"{run} ({metric}) has no measurement for {_format_cells(missing)} "
            f"({len(missing)} missing): evaluate them"
        )
    for measurement in used:
        if not math.isfinite(measurement.value):
            place = _format_cells([(measurement.corruption, measurement.severity)])
            raise UserError(
                f"Expected finite values of {metric} for {run}, but {place} is {measurement.value};"
                " evaluate it again"
            )


def _check_protocols(used: list[Measurement], run: str) -> None:
    first = used[0].protocol
    absent: Any = object()
    different = sorted(
        {
            key
            for measurement in used
            for key in first.keys() | measurement.protocol.keys()
            if first.get(key, absent) != measurement.protocol.get(key, absent)
        }
    )
    if different:
        raise UserError(
            f"Expected all cells of {run} under one protocol, but {', '.join(different)} differ"
            " between cells: evaluate them again under one protocol"
        )


def _format_cells(places: Iterable[Place]) -> str:
    """Format cells as ``fog 1, 2; snow 5``, each corruption with its severities."""
    levels: dict[str, list[int]] = {}
    for corruption, severity in places:
        levels.setdefault(corruption, []).append(severity)
    return "; ".join(
        corruption if corruption == "clean" else f"{corruption} {', '.join(map(str, severities))}"
        for corruption, severities in levels.items()
    )
