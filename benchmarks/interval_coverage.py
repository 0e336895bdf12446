"""How often a 95 % interval holds the truth, measured where the truth is known; and how much narrower paired ones are.

    python benchmarks/interval_coverage.py [--trials 400] [--images 500] [--replicates 400] [--scenarios top1,miou,ap] [--seed 0]

A pool of images stands for the world: its own number is the truth. A trial draws a set of images from the pool and makes
intervals from that set alone. Two runs are simulated, clean and under corruptions, with what makes an image hard, rare
classes and the runs' errors shared between cells, as they are in real sets. Every method of :data:`METHODS` is counted.
"""

import argparse
from collections.abc import Callable, Mapping
from statistics import NormalDist

import numpy as np

from stillrobust.intervals import LEVEL, interval, robustness_replicates
from stillrobust.metrics.recompute import replicates

Arrays = dict[str, np.ndarray]
World = dict[str, list[Arrays]]  # run -> the statistics of its cells, the clean one first
HARDNESS = (0.0, 0.5, 0.9, 1.3, 1.8)  # of the clean cell and of four corrupted ones
POOL = 20_000
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def logistic(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


# ---- worlds -----------------------------------------------------------------------------------------------------------------


def top1_world(rng: np.random.Generator, pool: int = POOL) -> World:
    """An image's difficulty and a third of the chance are shared by the cells and the runs."""
    difficulty, shared = rng.normal(0, 1.5, pool), rng.random((len(HARDNESS), pool))
    world: World = {}
    for run, gain in (("a", 0.0), ("b", 0.3)):
        cells = []
        for index, hardness in enumerate(HARDNESS):
            luck = np.where(rng.random(pool) < 0.67, shared[index], rng.random(pool))
            cells.append({"correct": luck < logistic(1.5 + gain * (hardness > 0) - difficulty - hardness)})
        world[run] = cells
    return world


def miou_world(rng: np.random.Generator, pool: int = POOL, classes: int = 40) -> World:
    """Some eight classes an image, of long-tailed frequency; areas are lognormal, overlaps depend on image and class."""
    frequency = 1 / np.arange(1, classes + 1)
    present = rng.random((pool, classes)) < np.clip(8 * frequency / frequency.sum(), 0, 0.95)
    area = np.where(present, np.exp(rng.normal(7, 1, (pool, classes))), 0)
    difficulty, skill = rng.normal(0, 0.7, (pool, 1)), rng.normal(0, 0.7, classes)
    shared = rng.normal(0, 0.5, (pool, classes))
    world: World = {}
    for run, gain in (("a", 0.0), ("b", 0.2)):
        cells = []
        for hardness in HARDNESS:
            noise = shared + rng.normal(0, 0.3, (pool, classes))
            share = logistic(1.5 + skill + gain * (hardness > 0) - difficulty - hardness + noise)
            hit = area * share
            lost = (area - hit).sum(1, keepdims=True)
            taken = rng.dirichlet(20 * frequency / frequency.sum(), pool) * lost  # pixels given to other classes
            cells.append({"intersections": hit.astype(np.int32), "unions": (area + taken).astype(np.int32)})
        world[run] = cells
    return world


def ap_world(rng: np.random.Generator, pool: int = POOL, classes: int = 20) -> World:
    """Some four objects an image, of long-tailed class; the overlap of a detection and its score depend on image and object."""
    frequency = 1 / np.arange(1, classes + 1)
    image = np.repeat(np.arange(pool, dtype=np.int32), rng.poisson(4, pool))
    label = rng.choice(classes, len(image), p=frequency / frequency.sum()).astype(np.int16)
    order = np.argsort(label, kind="stable")
    image, label = image[order], label[order]
    ease = rng.normal(0, 1, len(image)) - rng.normal(0, 0.7, pool)[image] + rng.normal(0, 0.5, classes)[label]
    world: World = {}
    for run, gain in (("a", 0.0), ("b", 0.3)):
        cells = []
        for hardness in HARDNESS:
            quality = 1.2 + ease + gain * (hardness > 0) - hardness + rng.normal(0, 0.5, len(image))
            overlap, score = logistic(quality), logistic(0.8 * quality + rng.normal(0, 1, len(image)))
            seen = rng.random(len(image)) < logistic(1.5 + quality)
            wrong = rng.poisson(6, pool)
            wrong_label = rng.choice(classes, wrong.sum(), p=frequency / frequency.sum()).astype(np.int16)
            levels = (overlap[seen, None] >= np.linspace(0.5, 0.95, 10)) @ (1 << np.arange(10))
            matched = np.concatenate([levels, np.zeros(wrong.sum(), int)]).astype(np.uint16)
            labels = np.concatenate([label[seen], wrong_label])
            scores = np.concatenate([score[seen], rng.beta(1.2, 3, wrong.sum())])
            images = np.concatenate([image[seen], np.repeat(np.arange(pool, dtype=np.int32), wrong)])
            ranked = np.lexsort((-scores, labels))
            cells.append(
                {
                    "classes": np.array(classes),
                    "object_image": image,
                    "object_label": label,
                    "object_sizes": np.ones(len(image), np.uint8),
                    "box_image": images[ranked],
                    "box_label": labels[ranked],
                    "box_matched": matched[ranked, None],
                    "box_ignored": np.zeros((len(ranked), 1), np.uint16),
                }
            )
        world[run] = cells
    return world


WORLDS: dict[str, Callable[[np.random.Generator, int], World]] = {"top1": top1_world, "miou": miou_world, "ap": ap_world}


def size_of(statistics: Arrays) -> int:
    """The number of images in a world's statistics."""
    if "classes" in statistics:
        return int(max(statistics["object_image"].max(), statistics["box_image"].max())) + 1
    return len(next(iter(statistics.values())))


def drawn(statistics: Arrays, chosen: np.ndarray, pool: int) -> Arrays:
    """The statistics of the chosen images (distinct, sorted) alone."""
    if "classes" not in statistics:
        return {name: array[chosen] for name, array in statistics.items()}
    place = np.full(pool, -1, np.int32)
    place[chosen] = np.arange(len(chosen))
    part = dict(statistics)
    for owner in ("object", "box"):
        kept = place[statistics[f"{owner}_image"]] >= 0
        part |= {name: array[kept] for name, array in statistics.items() if name.startswith(f"{owner}_")}
        part[f"{owner}_image"] = place[part[f"{owner}_image"]]
    return part


# ---- what is asked ----------------------------------------------------------------------------------------------------------


def quantities(world: World, weights: np.ndarray, other: np.ndarray | None = None) -> Arrays:
    """P, mPC, rPC and drop of run a, and run b's drop less run a's, under weights (R, N); ``other`` re-weights run b on its own."""
    found = {}
    for run, cells in world.items():
        use = weights if run == "a" or other is None else other
        values = [next(iter(replicates(cell, use).values())) for cell in cells]
        found[run] = robustness_replicates(values[0], np.stack(values[1:]))
    return {**found["a"], "difference": found["b"]["drop"] - found["a"]["drop"]}


# ---- how intervals may be made (Davison & Hinkley 1997, ch. 5) --------------------------------------------------------------


def percentile(values: np.ndarray, estimate: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def basic(values: np.ndarray, estimate: float) -> tuple[float, float]:
    low, high = percentile(values, estimate)
    return 2 * estimate - high, 2 * estimate - low


def normal(values: np.ndarray, estimate: float) -> tuple[float, float]:
    deviation = float(values.std(ddof=1))
    return estimate - Z * deviation, estimate + Z * deviation


def corrected_normal(values: np.ndarray, estimate: float) -> tuple[float, float]:
    return normal(values, 2 * estimate - float(values.mean()))


def corrected_percentile(values: np.ndarray, estimate: float) -> tuple[float, float]:
    """Efron's BC: the percentiles shifted by the median's bias."""
    below = np.clip((values < estimate).mean() + (values == estimate).mean() / 2, 1e-3, 1 - 1e-3)
    shift = 2 * NormalDist().inv_cdf(float(below))
    low, high = np.quantile(values, [NormalDist().cdf(shift - Z), NormalDist().cdf(shift + Z)])
    return float(low), float(high)


METHODS = {
    "ours": interval,
    "percentile": percentile,
    "basic": basic,
    "normal": normal,
    "corrected normal": corrected_normal,
    "BC": corrected_percentile,
}


# ---- trials -----------------------------------------------------------------------------------------------------------------


def trial(world: World, rng: np.random.Generator, images: int, count: int) -> tuple[Arrays, Arrays, Arrays, World]:
    """One set of ``images``: estimates, paired replicates, replicates with the runs re-drawn apart, and the set itself."""
    pool = size_of(world["a"][0])
    chosen, times = np.unique(rng.integers(0, pool, images), return_counts=True)
    part = {run: [drawn(cell, chosen, pool) for cell in cells] for run, cells in world.items()}
    estimate = quantities(part, times[None])
    paired = rng.multinomial(images, times / images, count)
    apart = quantities(part, paired, rng.multinomial(images, times / images, count))
    return estimate, quantities(part, paired), apart, part


def measure(
    name: str, trials: int, images: int, count: int, seed: int, pool: int = POOL
) -> tuple[dict[str, dict[str, float]], float]:
    """Coverage by method and quantity, and how many times wider the unpaired interval of the difference is (median)."""
    rng = np.random.default_rng([seed, *name.encode()])
    world = WORLDS[name](rng, pool)
    truth = quantities(world, np.ones((1, size_of(world["a"][0]))))
    inside = {method: dict.fromkeys(truth, 0) for method in METHODS}
    ratios = []
    for _ in range(trials):
        estimate, paired, apart, _ = trial(world, rng, images, count)
        for method, make in METHODS.items():
            for quantity, value in truth.items():
                low, high = make(paired[quantity], float(estimate[quantity][0]))
                inside[method][quantity] += bool(low <= value[0] <= high)
        ratios.append(float(apart["difference"].std() / paired["difference"].std()))
    return {method: {q: n / trials for q, n in counts.items()} for method, counts in inside.items()}, float(np.median(ratios))


def table(name: str, found: Mapping[str, Mapping[str, float]], ratio: float) -> str:
    quantity_names = list(next(iter(found.values())))
    lines = [f"{name}: unpaired intervals of the difference are {ratio:.1f} times wider"]
    lines.append(f"{'method':18}" + "".join(f"{quantity:>12}" for quantity in quantity_names))
    lines += [f"{method:18}" + "".join(f"{100 * found[method][q]:12.1f}" for q in quantity_names) for method in found]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--scenarios", default=",".join(WORLDS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.scenarios.split(","):
        found = measure(name, arguments.trials, arguments.images, arguments.replicates, arguments.seed)
        print(table(name, *found), "\n", flush=True)


if __name__ == "__main__":
    main()
