"""How often a 95 % interval holds the truth where images come in clusters, and how often two equal
models are called different, with groups resampled and with images resampled.

    python benchmarks/cluster_coverage.py [--trials 1000] [--replicates 400] [--seed 0]
                                          [--scenarios 50x10,...]

A world has clusters, such as videos, whose images share their difficulty and, for each run, luck.
A trial draws clusters with all their images, makes the intervals of P, mPC, drop and of two runs'
differences, and their mean over three seeds. The truth is that of 400,000 other images. ``50x10``
is 50 clusters of 10 images; ``50x~10`` has sizes from a geometric distribution with mean 10. Models
are equal: the true differences are 0, so what is not covered in a difference is a false call.
"""

import argparse

import numpy as np

from stillrobust.analysis.groups import Grouping
from stillrobust.analysis.intervals import (
    INDEPENDENT,
    SCORE_RANGE,
    UNBOUNDED,
    bootstrap_weights,
    interval,
    mean_over_seeds,
    paired_interval,
    rank_groups,
    robustness_replicates,
)

HARDNESS = (0.0, 0.5, 0.9, 1.3, 1.8)  # of the clean cell and of four corrupted ones
SEEDS, SPREAD = 3, 0.15  # standard deviation of a training's skill, in logits
SCENARIOS = ("50x10", "30x10", "20x10", "10x10", "5x40", "200x5", "50x~10", "20x~10")


def cluster_sizes(scenario: str, rng: np.random.Generator) -> np.ndarray:
    """The number of images in each cluster of ``GROUPSxIMAGES`` or ``GROUPSx~MEAN``."""
    groups, _, images = scenario.partition("x")
    if images[0] == "~":
        return rng.geometric(1 / float(images[1:]), int(groups))
    return np.full(int(groups), int(images))


def correct_images(sizes: np.ndarray, rng: np.random.Generator, skill: float = 0.0) -> np.ndarray:
    """Whether each image is right in each cell for two equal runs: bool (2, cells, images).

    Difficulty and a run's luck are shared by the images of a cluster, as they are in videos.
    """
    groups, of = len(sizes), np.repeat(np.arange(len(sizes)), sizes)
    easy = rng.normal(0, 1.2, groups)[of] + rng.normal(0, 0.6, len(of))
    cells = []
    for _ in range(2):
        luck = rng.normal(0, 1.2, groups)[of] + rng.normal(0, 0.5, len(of))
        logits = 1.3 + skill + easy + luck - np.array(HARDNESS)[:, None]
        cells.append(logits + rng.logistic(0, 0.3, logits.shape) > 0)
    return np.stack(cells)


def measure_runs(correct: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """P, mPC and drop of run a, and b less a, under weights (R, images)."""
    found = []
    for run in correct:
        scores = (run @ weights.T) / weights.sum(1)
        found.append(robustness_replicates(scores[0], scores[1:]))
    first, second = found
    names = ("P", "mPC", "drop")
    return {name: first[name] for name in names} | {
        f"b - a {name}": second[name] - first[name] for name in names
    }


def trial_intervals(
    correct: np.ndarray, weights: np.ndarray, freedom: float
) -> tuple[dict[str, tuple[float, float]], dict[str, np.ndarray], dict[str, float]]:
    """The interval, replicates and estimate of every quantity."""
    whole = np.ones((1, correct.shape[-1]))
    estimates = {name: float(one[0]) for name, one in measure_runs(correct, whole).items()}
    draws, bounds = measure_runs(correct, weights), {}
    for name, values in draws.items():
        if name.startswith("b - a"):
            bounds[name] = paired_interval(values, estimates[name], freedom=freedom)
        else:
            within = SCORE_RANGE if name != "drop" else UNBOUNDED
            bounds[name] = interval(values, estimates[name], within, freedom=freedom)
    return bounds, draws, estimates


def coverage(scenario: str, trials: int, replicates: int, seed: int) -> dict[str, dict[str, float]]:
    """Share of the intervals that hold the truth, by what is resampled and by quantity."""
    rng = np.random.default_rng([seed, *scenario.encode()])
    sizes = cluster_sizes(scenario.replace(scenario.partition("x")[0], "40000", 1), rng)
    everything = correct_images(sizes, rng)
    truth = {
        name: float(one[0])
        for name, one in measure_runs(everything, np.ones((1, everything.shape[-1]))).items()
    }
    truth |= {name: 0.0 for name in truth if name.startswith("b - a")}
    inside: dict[str, dict[str, int]] = {"groups": {}, "images": {}}
    for _ in range(trials):
        sizes = cluster_sizes(scenario, rng)
        labels = tuple(str(one) for one in np.repeat(np.arange(len(sizes)), sizes))
        ids = [str(index) for index in range(len(labels))]
        correct = correct_images(sizes, rng)
        for kind, counts in inside.items():
            grouped = kind == "groups"
            freedom = Grouping("folder", labels).freedom if grouped else INDEPENDENT
            weights = bootstrap_weights(ids, replicates, groups=labels if grouped else None)
            bounds, draws, estimates = trial_intervals(correct, weights, freedom)
            for name, (low, high) in bounds.items():
                counts[name] = counts.get(name, 0) + (low <= truth[name] <= high)
            drops = [draws["drop"], draws["drop"] + draws["b - a drop"]]
            both = [estimates["drop"], estimates["drop"] + estimates["b - a drop"]]
            same = len(set(rank_groups(both, drops, freedom=freedom))) == 1
            counts["letters"] = counts.get("letters", 0) + same
    return {
        kind: {name: count / trials for name, count in counts.items()}
        for kind, counts in inside.items()
    }


def seed_coverage(scenario: str, trials: int, replicates: int, seed: int) -> float:
    """Share of the intervals of the mean mPC over three seeds that hold the truth."""
    rng = np.random.default_rng([seed, 7, *scenario.encode()])
    skills = rng.normal(0, SPREAD, 60)
    pool = cluster_sizes("4000x10", rng)
    truth = np.mean([_mpc(correct_images(pool, rng, skill)[0]) for skill in skills])
    inside = 0
    for _ in range(trials):
        sizes = cluster_sizes(scenario, rng)
        of = np.repeat(np.arange(len(sizes)), sizes)
        labels = tuple(map(str, of))
        weights = bootstrap_weights(labels, replicates, groups=labels)
        state = rng.integers(2**32)
        runs = [
            correct_images(sizes, np.random.default_rng(state), skill)[0]
            for skill in rng.choice(skills, SEEDS)
        ]
        draws = [(run @ weights.T / weights.sum(1))[1:].mean(0) for run in runs]
        found = mean_over_seeds(
            [_mpc(run) for run in runs], draws, freedom=Grouping("folder", labels).freedom
        )
        inside += found.low <= truth <= found.high
    return inside / trials


def _mpc(correct: np.ndarray) -> float:
    return float(correct[1:].mean())


def false_calls(trials: int, replicates: int, seed: int) -> dict[str, float]:
    """How often equal models are called different: 50 clusters of 10, intraclass correlation .71 of
    the difference of two scores.
    """
    rng = np.random.default_rng([seed, 71])
    labels = [str(index // 10) for index in range(500)]
    ids = [str(index) for index in range(500)]
    weights = {
        "images": (bootstrap_weights(ids, replicates), INDEPENDENT),
        "groups": (bootstrap_weights(ids, replicates, groups=labels), 49.0),
    }
    wrong = dict.fromkeys(weights, 0)
    for _ in range(trials):
        shared = np.repeat(rng.normal(0, 0.71**0.5, 50), 10)
        difference = shared + rng.normal(0, 0.29**0.5, 500)
        for kind, (drawn, freedom) in weights.items():
            values = drawn @ difference / drawn.sum(1)
            low, high = paired_interval(values, float(difference.mean()), freedom=freedom)
            wrong[kind] += low > 0 or high < 0
    return {kind: count / trials for kind, count in wrong.items()}


def print_line(title: str, values: dict[str, float]) -> None:
    print(f"{title:24}", *(f"{name} {100 * value:.1f}" for name, value in values.items()), sep="  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    given = parser.parse_args()
    count = given.trials, given.replicates, given.seed
    print_line("false calls, 50x10, .71", false_calls(*count))

    for scenario in given.scenarios.split(","):
        for kind, values in coverage(scenario, *count).items():
            print_line(f"{scenario}, {kind}", values)
        print_line(f"{scenario}, seeds", {"mPC": seed_coverage(scenario, *count)})


if __name__ == "__main__":
    main()
