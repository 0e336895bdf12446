"""The data of a report: a row per run and metric, incomplete runs, and breakdowns of rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stillrobust.analysis.groups import Grouping, effective_groups
from stillrobust.analysis.intervals import (
    DROP_RANGE,
    INDEPENDENT,
    SCORE_RANGE,
    UNBOUNDED,
    interval,
)
from stillrobust.analysis.plausibility import PLAUSIBILITY
from stillrobust.analysis.robustness import Robustness, chance_corrected_drop
from stillrobust.analysis.sample_size import sample_size_warnings
from stillrobust.samples import Array
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Measurement, Run

Pair = tuple[float, float]  # on the clean data, and the mean over the corrupted cells


def data_identity(run: Run, protocol: Mapping[str, Any]) -> str:
    """Return what is the same for runs on the same data, whatever its name: its fingerprint.

    Args:
        run: A run.
        protocol: Of its cells.

    Returns:
        The fingerprint; for numbers of other tools, which have none, the name of the dataset.
    """
    return str(protocol.get("data") or run.dataset)


@dataclass(frozen=True)
class Row:
    """One run in one metric."""

    run: Run
    robustness: Robustness
    images: int
    interval: tuple[float, float] | None = None
    """Of the mean drop; ``None`` without per-image statistics."""
    resampled: Mapping[str, Array] = field(default_factory=dict)
    """Each of :data:`summary.QUANTITIES`, and the score at each severity (``severity.3``), in every
    resample, each of shape (R,). Resamples hold the same images for every run, so that differences
    are paired.
    """
    image_ids: tuple[str, ...] = ()
    """Of the images that were resampled."""
    alike: str = ""
    """Letters. Comparable rows that share one are not distinguishable by their mean drop."""
    alike_mpc: str = ""
    """The same for mPC."""
    seed_intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Of a mean of seeds, which has no resamples: the interval of each quantity over seeds and
    images.
    """
    images_per_class: tuple[int, ...] = ()
    """As :attr:`CellReplicates.images_per_class`."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """Of its cells, without the keys that describe the model; with ``groups`` if groups of images
    were resampled.
    """
    grouping: Grouping | None = None
    """As :attr:`CellReplicates.grouping`."""

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the groups, for intervals; infinite without groups."""
        return INDEPENDENT if self.grouping is None else self.grouping.freedom

    @cached_property
    def comparison_key(self) -> tuple[object, ...]:
        """The same for rows that may be compared: task, data, metric, cells, protocol."""
        numbers = self.robustness
        return (
            self.run.task,
            data_identity(self.run, self.protocol),
            numbers.metric,
            numbers.severities,
            numbers.corruptions,
            content_key(self.protocol),
        )

    @property
    def chance(self) -> float | None:
        """Score of a model that always returns the same; ``None`` if it was not stored."""
        stored = self.run.protocol.get(PLAUSIBILITY)
        found = stored.get("chance") if isinstance(stored, Mapping) else None
        return None if found is None else float(found)

    @property
    def corrected_drop(self) -> float | None:
        """The mean drop corrected for chance; ``None`` if chance is unknown or not exceeded."""
        numbers = self.robustness
        if self.chance is None or numbers.clean <= self.chance:
            return None
        return chance_corrected_drop(numbers.clean, numbers.mpc, self.chance)

    @property
    def corrected_drop_interval(self) -> tuple[float, float] | None:
        """Of :attr:`corrected_drop`; ``None`` if a resample does not exceed chance."""
        chance, value = self.chance, self.corrected_drop
        if chance is None or value is None or not self.resampled:
            return None
        clean, mpc = self.resampled["clean"], self.resampled["corrupted"]
        if (clean <= chance).any():
            return None
        draws = 1 - (mpc - chance) / (clean - chance)
        return interval(draws, value, UNBOUNDED, freedom=self.freedom)

    @property
    def left_out(self) -> Mapping[str, int]:
        """Number of unusable images that were left out, by fault."""
        found: Mapping[str, int] = self.protocol.get("left_out", {})
        return found

    @property
    def warnings(self) -> list[str]:
        """Reasons why its intervals may be too narrow, as sentences."""
        return sample_size_warnings(
            self.images, self.images_per_class, effective_groups(self.grouping)
        )

    @property
    def drops(self) -> Array | None:
        """The mean drop in every resample."""
        return self.resampled.get("drop")

    def value(self, quantity: str) -> float:
        """Return a quantity as a fraction.

        Args:
            quantity: One of :data:`summary.QUANTITIES`, the mean score at a severity
                (``severity.3``) or under a corruption (``corruption.fog``), or the drop under a
                corruption (``drop.fog``).
        """
        numbers = self.robustness
        kind, _, part = quantity.partition(".")
        if kind == "severity":
            return numbers.by_severity[int(part)].mpc
        if kind == "corruption":
            return numbers.by_corruption[part].mpc
        if part:
            parts = numbers.by_group if part in numbers.by_group else numbers.by_corruption
            return parts[part].drop
        return {"clean": numbers.clean, "corrupted": numbers.mpc, "drop": numbers.drop}[kind]

    def interval_of(self, quantity: str) -> tuple[float, float] | None:
        """Return the interval of a quantity of :meth:`value`, within its possible values.

        Returns:
            Lower and upper bound as fractions; ``None`` without per-image statistics.
        """
        if quantity == "drop":
            return self.interval
        kind, _, part = quantity.partition(".")
        draws = self.resampled.get(quantity)
        if kind == "drop" and f"corruption.{part}" in self.resampled:
            draws = 1 - self.resampled[f"corruption.{part}"] / self.resampled["clean"]
        if draws is None:
            return self.seed_intervals.get(quantity)
        within = DROP_RANGE if kind == "drop" else SCORE_RANGE
        return interval(draws, self.value(quantity), within, freedom=self.freedom)


@dataclass(frozen=True)
class Incomplete:
    """A run, or one of its metrics, that has no row, and the reason."""

    run: str
    reason: str


@dataclass(frozen=True)
class RelativeScores:
    """A row relative to other models, as fractions; ``None`` if it does not apply."""

    mce: float | None = None
    relative_mce: float | None = None
    reference: str = ""
    """The model that mCE and relative mCE are relative to."""
    effective: float | None = None
    """Effective robustness: mPC above what the clean score predicts from the standard models."""


@dataclass(frozen=True)
class Breakdown:
    """A row in detail, as fractions; empty where the store has no statistics."""

    worst_corruption: str
    worst_score: float
    """The score under the worst corruption."""
    relative: RelativeScores
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    """``ece``, ``ap_small``, ``ap_medium``, ``ap_large``."""
    classes: Mapping[str, Pair] = field(default_factory=dict)
    """The metric of each class in the ground truth."""


@dataclass(frozen=True)
class Summary:
    """Everything that the report shows, except the pictures."""

    rows: tuple[Row, ...]
    incomplete: tuple[Incomplete, ...]
    measurements: tuple[Measurement, ...]
    replicates: int
    partial_rows: tuple[Row, ...] = ()
    """Of runs with fewer than the 15 corruptions. Their means have another name than mPC."""
    implausible: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Run -> what its data, first predictions or scores probably mean instead."""
    breakdowns: Mapping[tuple[str, str], Breakdown] = field(default_factory=dict)
    """By run and metric; filled by :func:`stillrobust.report.breakdown.add_breakdown`."""
    unfinished: str = ""
    """What is finished of a study that is still running; otherwise empty."""
