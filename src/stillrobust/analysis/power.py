"""Power: the difference of two models that n images and s seeds will show, and how many it needs.

The variance of a difference over images falls with 1 / n, that over seeds with 1 / s. A pilot gives
both at its own size. ``docs/explanation/statistics.md`` has the check against simulation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from stillrobust.analysis.intervals import FREEDOM, INDEPENDENT, LEVEL, student_quantile
from stillrobust.analysis.resampling import CellReplicates, require_same_grouping
from stillrobust.analysis.sample_size import FEWEST_IMAGES
from stillrobust.errors import UserError

POWER = 0.8
MOST_IMAGES = 10**8


@dataclass(frozen=True)
class Pilot:
    """How much a difference of two models varies, as fractions.

    Raises:
        UserError: If a value is impossible.
    """

    images: int
    """Number of images of the pilot."""
    image_deviation: float
    """Standard deviation of the difference over sets of so many images."""
    groups: float = INDEPENDENT
    """Effective number of groups of images; infinite if the images are independent."""
    seed_deviation: float = 0.0
    """Standard deviation of the score of a model over seeds of its training."""

    def __post_init__(self) -> None:
        deviations = (self.image_deviation, self.seed_deviation)
        if self.images < 2 or not all(0 <= one < 1 for one in deviations) or not any(deviations):
            raise UserError(
                "Expected a pilot of two images or more, in which the difference varies, but got"
                f" {self.images} images and deviations of"
                f" {' and '.join(f'{100 * one:g}' for one in deviations)} points; give runs that"
                " differ, or more images"
            )


def pilot_of_runs(
    drawn: Sequence[CellReplicates], score: str, quantity: str, seed_deviation: float = 0.0
) -> Pilot:
    """Return the pilot that one or two runs make.

    Args:
        drawn: Replicates of the clean cell and the corrupted cells. Of one run, the difference is
            taken from another model that errs on other images, which is the worst case.
        score: Name of the score.
        quantity: ``mpc``, ``drop`` or ``clean``.
        seed_deviation: Standard deviation over seeds.

    Raises:
        UserError: If the runs are of other images or groups, or a replicate is not finite.
    """
    if len({one.image_ids for one in drawn}) > 1:
        raise UserError("Expected two runs on the same images, but they differ; evaluate one again")
    if len(drawn) == 2:
        require_same_grouping({"the first run": drawn[0], "the second run": drawn[1]})
    values = []
    for one in drawn:
        cells = one.values[score][:, 1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            drop = 1 - cells[1:].mean(0) / cells[0]
        values.append({"mpc": cells[1:].mean(0), "drop": drop, "clean": cells[0]}[quantity])
    difference = values[1] - values[0] if len(values) == 2 else values[0] * math.sqrt(2)
    deviation = float(difference.std(ddof=1))
    if not math.isfinite(deviation):
        raise UserError(
            "Expected a clean score above 0 in every resample, but it is 0 in one; take another"
            " metric or more images"
        )
    grouping = drawn[0].grouping
    groups = INDEPENDENT if grouping is None else grouping.freedom + 1
    return Pilot(len(drawn[0].image_ids), deviation, groups, seed_deviation)


def planned_pilot(discordant: float, seed_deviation: float = 0.0) -> Pilot:
    """Return the pilot of a planned evaluation, without any run.

    Args:
        discordant: Share of the images that only one of two models has right. For a mean over
            cells this is the worst case: an image has the same result in all of them.
        seed_deviation: Standard deviation over seeds.

    Raises:
        UserError: If the share is not within 0..1.
    """
    if not 0 < discordant < 1:
        raise UserError(
            f"Expected a share of images between 0 and 100 %, but got {100 * discordant:g}; two"
            " models usually disagree on 5 to 20"
        )
    images = 10_000
    return Pilot(images, math.sqrt(discordant / images), INDEPENDENT, seed_deviation)


def smallest_difference(pilot: Pilot, images: int, seeds: int = 1, power: float = POWER) -> float:
    """Return the smallest difference that an evaluation will probably show.

    A difference is shown if its 95 % interval excludes 0. With several seeds, that is the interval
    of ``mean_over_seeds`` of the differences within each seed.

    Args:
        pilot: How much the difference varies.
        images: Number of images of the evaluation, with groups of the pilot's size.
        seeds: Number of seeds of both models.
        power: Probability with which it is shown.

    Returns:
        The difference as a fraction.

    Raises:
        UserError: If a number is too small, or the power is not between one half and 1.
    """
    if images < FEWEST_IMAGES or seeds < 1:
        raise UserError(
            f"Expected at least {FEWEST_IMAGES} images and one seed, but got {images} and {seeds};"
            " plan for more"
        )
    if not 0.5 <= power < 1:
        raise UserError(
            f"Expected a power from 50 to below 100 %, but got {100 * power:g}; 80 is usual"
        )
    of_images = pilot.image_deviation**2 * pilot.images / images
    groups = max(1.0, pilot.groups * images / pilot.images - 1)
    if seeds == 1:
        # one training each: the interval, like the report's, is of these two models
        return (
            student_quantile((1 + LEVEL) / 2, min(FREEDOM, groups)) + NormalDist().inv_cdf(power)
        ) * math.sqrt(of_images)
    # the spread that is seen over seeds holds the images' share that seeds do not have in common
    of_seeds = 2 * pilot.seed_deviation**2 / seeds
    total = of_images + of_seeds
    uncertain = of_seeds + (seeds - 1) * of_images / groups
    freedom = min((seeds - 1) * total / uncertain, 1e4) if uncertain > 0 else 1e4
    return (student_quantile((1 + LEVEL) / 2, freedom) + student_quantile(power, freedom)) * (
        math.sqrt(total)
    )


def images_needed(
    pilot: Pilot, difference: float, seeds: int = 1, power: float = POWER
) -> int | None:
    """Return the number of images that will probably show a difference.

    Args:
        pilot: How much the difference varies.
        difference: The difference, a fraction above 0.
        seeds: Number of seeds of both models.
        power: Probability with which it is shown.

    Returns:
        The smallest number, or ``None`` if no number is enough: more seeds are needed.

    Raises:
        UserError: If the difference is not within 0..1, or see :func:`smallest_difference`.
    """
    if not 0 < difference < 1:
        raise UserError(
            f"Expected a difference between 0 and 100 points, but got {100 * difference:g}; give"
            " for example --difference 1.0"
        )
    low, high = FEWEST_IMAGES, MOST_IMAGES
    if smallest_difference(pilot, high, seeds, power) > difference:
        return None
    while low < high:
        middle = (low + high) // 2
        if smallest_difference(pilot, middle, seeds, power) <= difference:
            high = middle
        else:
            low = middle + 1
    return low
