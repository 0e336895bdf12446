"""What a report is made of: a row a run and metric, what is missing, and what a row's one number
hides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stillrobust.analysis.robustness import Robustness
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
    """Of the mean drop, if the per-image statistics are there."""
    resampled: Mapping[str, Array] = field(default_factory=dict)
    """Each of :data:`summary.QUANTITIES`, and the score at each severity (``severity.3``), in every
    resample.

    The same images are in the same resample of every run: differences are paired.
    """
    drawn_from: tuple[str, ...] = ()
    """The ids of the images that were resampled."""
    alike: str = ""
    """Letters: rows of one table and the same images that share one are not distinguishable by
    their mean drop.
    """
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    """The protocol of its cells, without what the model is: rows of two are never put into one
    table.
    """

    @cached_property
    def table(self) -> tuple[object, ...]:
        """The same for rows that may stand in one table."""
        numbers = self.robustness
        return (
            self.run.task,
            self.run.dataset,
            numbers.metric,
            numbers.severities,
            content_key(self.circumstances),
        )

    @property
    def left_out(self) -> Mapping[str, int]:
        """What could not be used of the data and was left out on purpose: fault -> how many."""
        found: Mapping[str, int] = self.circumstances.get("left_out", {})
        return found

    @property
    def drops(self) -> Array | None:
        """The mean drop in every resample."""
        return self.resampled.get("drop")

    def value(self, quantity: str) -> float:
        """One of :data:`summary.QUANTITIES`, as a fraction."""
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
    """A run, or one metric of it, that has no row, and why."""

    run: str
    reason: str


@dataclass(frozen=True)
class Against:
    """A row against others, fractions; ``None`` where that means nothing."""

    mce: float | None = None
    relative_mce: float | None = None
    reference: str = ""
    """What the two are relative to."""
    effective: float | None = None
    """mPC above what the clean score lets expect of the standard models."""


@dataclass(frozen=True)
class Inside:
    """What a row hides, fractions; empty where the store does not tell it."""

    worst: str
    """The corruption that leaves least."""
    left: float
    """What it leaves."""
    others: Against
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    """``ece``, ``ap_small``, ``ap_medium``, ``ap_large``."""
    classes: Mapping[str, Pair] = field(default_factory=dict)
    """The metric of each class that is there."""


@dataclass(frozen=True)
class Summary:
    """Everything the report shows, except the pictures."""

    rows: tuple[Row, ...]
    incomplete: tuple[Incomplete, ...]
    measurements: tuple[Measurement, ...]
    replicates: int
    inside: Mapping[tuple[str, str], Inside] = field(default_factory=dict)
    """By run and metric, where :func:`stillrobust.report.inside.with_inside` was asked."""
