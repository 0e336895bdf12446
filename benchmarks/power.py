"""How often an evaluation of the planned size shows the difference that it was planned for.

    python benchmarks/power.py [--trials 400] [--replicates 200] [--seed 0]

A pilot of 300 images plans an evaluation of another size; the true difference of two models is set
to the smallest one that the plan promises to show with 80 %. A second, third and fourth line have
groups of images, seeds, and no pilot. The numbers are medians over pilots.
"""

import argparse
from statistics import fmean, median

import numpy as np

from interval_coverage import logistic
from stillrobust.analysis.groups import Grouping
from stillrobust.analysis.intervals import (
    INDEPENDENT,
    bootstrap_weights,
    mean_over_seeds,
    paired_interval,
)
from stillrobust.analysis.power import Pilot, planned_pilot, smallest_difference

CELLS, PILOT, SEEDS, SEED_DEVIATION = 15, 300, 5, 0.006


def correct_cells(
    groups: np.ndarray, shift: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (images,) of two models, each the mean over cells; the second is ``shift`` better.

    Images share their difficulty between models and cells, and groups theirs between images.
    """
    count = groups.max() + 1
    hard = rng.normal(0, 1.2, count)[groups] + rng.normal(0, 0.8, len(groups))
    own = [rng.normal(0, 0.6, count)[groups] + rng.normal(0, 0.6, len(groups)) for _ in range(2)]
    logits = np.linspace(1.5, -1, CELLS)[:, None] - hard
    chances = [logistic(logits + one) for one in own]
    scores = [(rng.random(one.shape) < one).mean(0) for one in chances]
    return scores[0], scores[1] + shift


def difference_draws(
    groups: np.ndarray, shift: float, grouped: bool, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, float, float]:
    """Replicates and estimate of the difference of mPC, and the groups' degrees of freedom."""
    first, second = correct_cells(groups, shift, rng)
    labels = tuple(map(str, groups))
    ids = [str(index) for index in range(len(groups))]
    weights = bootstrap_weights(ids, count, groups=labels if grouped else None)
    values = weights @ (second - first) / weights.sum(1)
    freedom = Grouping("folder", labels).freedom if grouped else INDEPENDENT
    return values, float((second - first).mean()), freedom


def power_of_plan(
    size: int, images: int, trials: int, count: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The promised difference in points, and how often it is shown, with groups of ``size``."""
    grouped, promised, shown = size > 1, [], []
    for _ in range(20):
        values, _, freedom = difference_draws(np.arange(PILOT) // size, 0.0, grouped, count, rng)
        plan = Pilot(PILOT, float(values.std(ddof=1)), freedom + 1)
        promised.append(smallest_difference(plan, images))
        for _ in range(trials // 20):
            drawn = difference_draws(np.arange(images) // size, promised[-1], grouped, count, rng)
            shown.append(paired_interval(drawn[0], drawn[1], freedom=drawn[2])[0] > 0)
    return 100 * median(promised), fmean(shown)


def power_over_seeds(
    images: int, trials: int, count: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The same with ``SEEDS`` trainings of both models."""
    values, _, _ = difference_draws(np.arange(PILOT), 0.0, False, count, rng)
    plan = Pilot(PILOT, float(values.std(ddof=1)), seed_deviation=SEED_DEVIATION)
    true, shown = smallest_difference(plan, images, SEEDS), []
    for _ in range(trials):
        values, estimate, _ = difference_draws(np.arange(images), true, False, count, rng)
        luck = rng.normal(0, SEED_DEVIATION * 2**0.5, SEEDS)
        found = mean_over_seeds(estimate + luck, values[None] + luck[:, None])
        shown.append(found.low > 0)
    return 100 * true, fmean(shown)


def power_without_pilot(
    images: int, discordant: float, trials: int, count: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The same for a clean score, where one model alone is right in a share of the images."""
    true, shown = smallest_difference(planned_pilot(discordant), images), []
    weights = bootstrap_weights([str(index) for index in range(images)], count)
    better = (discordant + true) / 2
    for _ in range(trials):
        luck = rng.random(images)
        gains = (luck < better).astype(float) - (luck > 1 - discordant + better)
        low, _ = paired_interval(weights @ gains / weights.sum(1), float(gains.mean()))
        shown.append(low > 0)
    return 100 * true, fmean(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    count = given.trials, given.replicates, rng
    found = {
        "mPC, 1,000 images": power_of_plan(1, 1000, *count),
        "mPC, 200 images": power_of_plan(1, 200, *count),
        "mPC, 1,000 images in groups of 10": power_of_plan(10, 1000, *count),
        "mPC, 500 images, 5 seeds": power_over_seeds(500, *count),
        "clean, 1,000 images, 10 % discordant, no pilot": power_without_pilot(1000, 0.1, *count),
    }
    for name, (points, share) in found.items():
        print(f"{name}: {points:.2f} points, shown in {100 * share:.1f} %", flush=True)


if __name__ == "__main__":
    main()
