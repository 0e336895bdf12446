"""Imported runs: their cells, and their protocol as far as the source documents it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, Place
from stillrobust.storage.store import RunKind

UNKNOWN = "unknown"


@dataclass(frozen=True)
class ImportedTable:
    """One model on one dataset, as another tool evaluated it."""

    model: str
    task: str
    dataset: str
    backbone: str
    kind: RunKind
    images: int
    """Number of images; 0 if unknown."""
    cells: Mapping[Place, Mapping[str, float]]
    """Scores 0..1, by cell and metric."""
    protocol: Mapping[str, Any]
    """Circumstances as in the store; undocumented ones are ``unknown``."""
    notes: tuple[str, ...] = field(default=())
    """What a reader must know: what was left out, and contradictions in the source."""
    classes: tuple[str, ...] = ()
    """Classes of the dataset, if the source documents them."""
    file: Path | None = None
    """The file of this run, if the source has a file for each."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the record of the run keeps besides."""


def score(value: Any, where: str, scale: float = 1.0) -> float:
    """Convert a score of a file to a fraction.

    Args:
        value: The value in the file.
        where: Its place in the file, for errors.
        scale: The value of a perfect score.

    Raises:
        UserError: If the value is not a number from 0 to ``scale``.
    """
    wrong = (
        f"Expected a score from 0 to {scale:g} for {where}, but got {str(value)!r:.60}; check the"
        " file"
    )
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(wrong) from None
    if isinstance(value, bool) or not math.isfinite(number) or not 0 <= number <= scale:
        raise UserError(wrong)
    return number / scale


def require_same_clean(clean: Mapping[str, float], metric: str, value: float, where: str) -> None:
    """Check that a file that repeats the clean score has the same value everywhere.

    Args:
        clean: Clean scores so far, by metric.
        metric: The metric.
        value: The repeated score.
        where: The file, for errors.

    Raises:
        UserError: If the values differ.
    """
    if clean.get(metric, value) != value:
        raise UserError(
            f"Expected one clean {metric} of {where}, but got {clean[metric]:g} and {value:g}; it"
            " mixes two runs, so write a file of each"
        )


def without_empty_severities(
    cells: Mapping[Place, Mapping[str, float]],
) -> tuple[dict[Place, dict[str, float]], tuple[int, ...]]:
    """Remove severities whose scores are all exactly 0: they were never evaluated.

    mmdetection's robustness_eval.py starts from an array of zeros.

    Returns:
        The remaining cells, and the removed severities.
    """
    levels = {severity for _, severity in cells}
    empty = tuple(
        sorted(
            level
            for level in levels
            if all(
                value == 0
                for (_, severity), scores in cells.items()
                if severity == level
                for value in scores.values()
            )
        )
    )
    return {place: dict(scores) for place, scores in cells.items() if place[1] not in empty}, empty


def empty_severity_notes(empty: tuple[int, ...]) -> tuple[str, ...]:
    """Return a note about severities that were removed as not evaluated."""
    if not empty:
        return ()
    named = ", ".join(
        "the clean data" if level == CLEAN[1] else f"severity {level}" for level in empty
    )
    return (f"every score of {named} is exactly 0: treated as not evaluated",)
