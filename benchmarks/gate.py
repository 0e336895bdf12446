"""How often a gate passes a candidate that is worse by its whole margin, and one that is equal.

    python benchmarks/gate.py [--trials 1000] [--replicates 200] [--seed 0]
                              [--scenarios top1-500,...]

The worlds are those of ``interval_coverage.py``, where run a is worse than run b under corruptions.
The margin is a's true loss, so that every pass is false. ``rare`` is a world in which the candidate
is wrong, in every cell, in one image of a hundred, and otherwise the same; ``clusters`` has the
images of ``cluster_coverage.py`` and a loss. The last column is the share of passes of a candidate
that is as good as the baseline, at a margin of two points; there, more is better.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from cluster_coverage import correct_images
from interval_coverage import WORLDS, World, drawn_set, quantities, size_of, weights
from stillrobust.analysis.gate import GateRule, decide, gain_interval
from stillrobust.analysis.groups import Grouping
from stillrobust.analysis.intervals import INDEPENDENT, bootstrap_weights

SCENARIOS = (
    "top1-100", "top1-500", "top1-2000", "top1-close-500", "miou-20-500", "ap-5-500",
    "rare-100", "rare-500", "rare-2000", "clusters-500", "clusters-100",
)  # fmt: skip
EQUAL_MARGIN = 0.02
Gain = tuple[np.ndarray, float, float, float]  # replicates, gain, largest effect, freedom


def pooled_trials(
    world: World, images: int, metric: str, count: int, rng: np.random.Generator
) -> Iterator[Gain]:
    """Gains of run a over run b in sets from the pool; ``metric`` is ``mPC`` or ``drop``."""
    name, sign = f"b - a {metric}", 1 if metric == "drop" else -1
    while True:
        part, times = drawn_set(world, rng, images)
        whole = quantities(part, times[None])
        values = sign * quantities(part, weights(rng, times, count, "halves"))[name]
        unit = 1 / images / (float(whole["P"][0]) if metric == "drop" else 1)
        yield values, sign * float(whole[name][0]), unit, INDEPENDENT


def rare_trials(images: int, count: int, rng: np.random.Generator) -> Iterator[Gain]:
    """One image of a hundred is lost in every cell."""
    drawn = bootstrap_weights([str(index) for index in range(images)], count)
    while True:
        gains = -(rng.random(images) < 0.01).astype(float)
        yield drawn @ gains / drawn.sum(1), float(gains.mean()), 1 / images, INDEPENDENT


def cluster_trials(
    images: int, loss: float, count: int, rng: np.random.Generator
) -> Iterator[Gain]:
    """Clusters of ten; run a loses ``loss`` of the images that it had right, at random."""
    labels = tuple(str(index // 10) for index in range(images))
    drawn = bootstrap_weights(labels, count, groups=labels)
    while True:
        correct = correct_images(np.full(images // 10, 10), rng).astype(float)
        correct[0] *= rng.random(correct[0].shape) >= loss
        gains = (correct[0] - correct[1])[1:].mean(0)
        unit, freedom = 1 / images, Grouping("folder", labels).freedom
        yield drawn @ gains / drawn.sum(1), float(gains.mean()), unit, freedom


def passes(trials: Iterator[Gain], margin: float, number: int) -> float:
    """Share of the trials that a gate of this margin passes."""
    rule, found = GateRule("mpc", margin), 0
    for _ in range(number):
        values, gain, unit, freedom = next(trials)
        low, high = gain_interval(values, gain, unit, freedom)
        found += decide(gain, low, high, rule)[0] == "pass"
    return found / number


def measure(scenario: str, number: int, count: int, seed: int) -> dict[str, tuple[float, float]]:
    """False passes and passes of equal models, by metric."""
    rng = np.random.default_rng([seed, *scenario.encode()])
    name, _, size = scenario.rpartition("-")
    images = int(size)
    if name == "rare":
        return {"clean": (passes(rare_trials(images, count, rng), 0.01, number), float("nan"))}
    if name == "clusters":
        whole = correct_images(np.full(40_000, 10), rng)[0][1:].mean()
        loss = 0.05
        worse = passes(cluster_trials(images, loss, count, rng), float(loss * whole), number)
        return {"mpc": (worse, passes(cluster_trials(images, 0, count, rng), 0.1, number))}
    world = WORLDS[name](rng, 20_000)
    truth = quantities(world, np.ones((1, size_of(world["a"][0]))))
    same = {"a": world["b"], "b": world["b"]}
    found = {}
    for metric in ("mPC", "drop"):
        margin = abs(float(truth[f"b - a {metric}"][0]))
        worse = passes(pooled_trials(world, images, metric, count, rng), margin, number)
        equal = passes(pooled_trials(same, images, metric, count, rng), EQUAL_MARGIN, number // 10)
        found[f"{metric}, margin {100 * margin:.1f}"] = worse, equal
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    given = parser.parse_args()
    print("scenario, metric: false passes, passes of equal models, in %")
    for scenario in given.scenarios.split(","):
        number = given.trials // (5 if scenario.startswith(("ap", "miou")) else 1)
        for metric, (worse, equal) in measure(
            scenario, number, given.replicates, given.seed
        ).items():
            print(f"{scenario}, {metric}: {100 * worse:.1f} {100 * equal:.0f}", flush=True)


if __name__ == "__main__":
    main()
