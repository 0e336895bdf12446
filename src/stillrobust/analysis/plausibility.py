"""Plausibility of scores: values that are possible but usually mean a mistake."""

from collections.abc import Sequence

from stillrobust.grid import CLEAN
from stillrobust.metrics import METRIC_NAMES
from stillrobust.names import format_count
from stillrobust.storage.store import Measurement, Run

# The clean score must exceed chance by two standard errors of a share, at most 1 / (2 sqrt(n)).
STANDARD_ERRORS = 2.0
NOTHING = 0.005  # a detector's AP below this is no detection: half a point of 100
# A corrupted score above the clean one by more than 10 points, or one standard error of few images
FAR_ABOVE = 0.1

PLAUSIBILITY = "plausibility"
"""Key in ``Run.protocol``: what was found before the run was scored."""


def run_warnings(run: Run, measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """Return the stored warnings of a run and those about its scores.

    Args:
        run: A run.
        measurements: Its measurements, of any metric.

    Returns:
        One or two sentences each.
    """
    found = run.protocol.get(PLAUSIBILITY)
    stored = found if isinstance(found, dict) else {}
    chance = stored.get("chance")
    return (
        *map(str, stored.get("warnings", ())),
        *score_warnings(measurements, chance if isinstance(chance, float) else None),
    )


def score_warnings(
    measurements: Sequence[Measurement], chance: float | None = None
) -> tuple[str, ...]:
    """Return warnings about the scores of one run.

    Args:
        measurements: Measurements of one run, of any metric and cell.
        chance: Score of a model that always returns the same, 0..1; ``None`` if unknown.

    Returns:
        A warning for a clean score that is no better than chance, and one for corrupted scores
        far above the clean score, per metric.
    """
    warnings: list[str] = []
    for metric in METRIC_NAMES:
        cells = {
            (one.corruption, one.severity): one for one in measurements if one.metric == metric
        }
        clean = cells.pop(CLEAN, None)
        if clean is None:
            continue
        name = METRIC_NAMES[metric]
        warnings += filter(None, [_chance_warning(clean, name, chance)])
        margin = max(FAR_ABOVE, max(clean.images, 1) ** -0.5)
        above = [one for one in cells.values() if one.value > clean.value + margin]
        if above:
            worst = max(above, key=lambda one: one.value)
            warnings.append(
                f"The {name} on {worst.corruption} at severity {worst.severity} is"
                f" {100 * worst.value:.1f}, far above the clean {100 * clean.value:.1f}, in"
                f" {format_count(len(above), 'cell')}. Check that the model receives the"
                " input it expects and that the ground truth means what it should."
            )
    return tuple(warnings)


def no_better_than_chance(score: float, chance: float | None) -> bool:
    """Whether a clean score is so low that an evaluation is of no use.

    Args:
        score: Clean score of a run, 0..1.
        chance: Score of a model that always returns the same; ``None`` if unknown.
    """
    return score <= max(NOTHING, chance or 0.0)


def _chance_warning(clean: Measurement, name: str, chance: float | None) -> str:
    """The warning for a clean score that is no better than chance; empty if it is."""
    score, advice = clean.value, "Check the order of the classes, the input range and the weights."
    if score <= NOTHING:
        return f"The clean {name} is {100 * score:.1f}. {advice}"
    error = STANDARD_ERRORS / (2 * max(clean.images, 1) ** 0.5) if clean.metric == "top1" else 0.0
    if chance is None or score > chance + min(error, 0.5 * chance):
        return ""
    return (
        f"The clean {name} of {100 * score:.1f} is no better than the same answer for every image"
        f" ({100 * chance:.1f}). {advice}"
    )
