"""What an importer hands over: the runs of a file with their cells, and what the source documents
of how they were measured.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, Place
from stillrobust.storage.store import RunKind

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Table:
    """One model on one dataset, as someone else measured it."""

    model: str
    task: str
    dataset: str
    backbone: str
    kind: RunKind
    images: int
    """0: unknown."""
    cells: Mapping[Place, Mapping[str, float]]
    """Scores by metric, fractions 0..1."""
    protocol: Mapping[str, Any]
    """In the words of our own protocols; what the source does not say is ``unknown``."""
    notes: tuple[str, ...] = field(default=())
    """What a reader must know: what was left out, what does not agree with itself."""


def score(value: Any, where: str, scale: float = 1.0) -> float:
    """A number of a file as a fraction; raises ``UserError`` for what is none."""
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


def agree(clean: Mapping[str, float], metric: str, value: float, where: str) -> None:
    """The clean score, which some files repeat for every corruption, must be one number."""
    if clean.get(metric, value) != value:
        raise UserError(
            f"Expected one clean {metric} of {where}, but got {clean[metric]:g} and {value:g}; two"
            " runs are mixed in it, so write one of each"
        )


def filled(
    cells: Mapping[Place, Mapping[str, float]],
) -> tuple[dict[Place, dict[str, float]], tuple[int, ...]]:
    """The cells without severities that are exactly 0 under every corruption, which are these.

    mmdetection's robustness_eval.py begins with an array of zeros, so that what was never measured
    reads as a score of 0.
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


def hole_notes(empty: tuple[int, ...]) -> tuple[str, ...]:
    """What is said of them."""
    if not empty:
        return ()
    named = ", ".join(
        "the clean data" if level == CLEAN[1] else f"severity {level}" for level in empty
    )
    return (f"every score of {named} is exactly 0: taken as not measured, not as a score",)
