"""The data of a report: a row per run and metric, incomplete runs, and breakdowns of rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stillrobust.analysis.groups import Grouping, effective_groups
from stillrobust.analysis.intervals import INDEPENDENT
from stillrobust.analysis.robustness import Robustness
from stillrobust.analysis.sample_size import sample_size_warnings
from stillrobust.samples import Array
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Measurement, Run

Pair = tuple[float, float]  # on the clean data, and the mean over the corrupted cells


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
            self.run.dataset,
            numbers.metric,
            numbers.severities,
            numbers.corruptions,
            content_key(self.protocol),
        )

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
        """Return one of :data:`summary.QUANTITIES` as a fraction."""
        kind, _, group = quantity.partition(".")
        if group:
            return self.robustness.by_group[group].drop
        return {
            "clean": self.robustness.clean,
            "corrupted": self.robustness.mpc,
            "drop": self.robustness.drop,
        }[kind]


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
