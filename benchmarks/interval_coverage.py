"""How often a 95 % interval holds the truth, measured where the truth is known; and how much
narrower paired ones are.

    python benchmarks/interval_coverage.py [--trials 400] [--images 500] [--replicates 400]
    [--scenarios top1,miou,ap] [--seed 0]
                                           [--methods ours]

A pool of images stands for the world: its own number is the truth. A trial draws a set of images
from the pool and makes intervals from that set alone. Two runs are simulated, clean and under
corruptions, with what makes an image hard, rare classes and the runs' errors shared between cells,
as they are in real sets. Every method of :data:`METHODS` is counted; "ours, set's size" is how
often our interval holds the mean of all sets of that size, which AP differs from in small ones.
"""

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from statistics import NormalDist

import numpy as np

from stillrobust.analysis.intervals import (
    LEVEL,
    UNBOUNDED,
    interval,
    paired_interval,
    robustness_replicates,
)
from stillrobust.metrics.recompute import recompute_metrics

Arrays = dict[str, np.ndarray]
World = dict[str, list[Arrays]]  # run -> the statistics of its cells, the clean one first
HARDNESS = (0.0, 0.5, 0.9, 1.3, 1.8)  # of the clean cell and of four corrupted ones
POOL = 20_000
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def logistic(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


# ---- worlds
# ------------------------------------------------------------------------------


def top1_world(rng: np.random.Generator, pool: int = POOL, kin: float = 0.67) -> World:
    """An image's difficulty is shared by the cells and the runs, and in a share ``kin`` of the
    images the runs' luck.

    With 0.67 one run is right and the other wrong in 16 to 22 % of the images, as two models are;
    with 0.9 in 5 to 11 %.
    """
    difficulty, shared = rng.normal(0, 1.5, pool), rng.random((len(HARDNESS), pool))
    world: World = {}
    for run, gain in (("a", 0.0), ("b", 0.3)):
        cells = []
        for index, hardness in enumerate(HARDNESS):
            luck = np.where(rng.random(pool) < kin, shared[index], rng.random(pool))
            cells.append(
                {"correct": luck < logistic(1.5 + gain * (hardness > 0) - difficulty - hardness)}
            )
        world[run] = cells
    return world


def miou_world(
    rng: np.random.Generator, pool: int = POOL, classes: int = 40, rarest: float | None = None
) -> World:
    """Some eight classes an image, of long-tailed frequency; areas are lognormal, overlaps depend
    on image and class.

    With ``rarest``, the share of images with a class falls from 0.6 to that, as a power of its
    rank.
    """
    rank = np.arange(1, classes + 1)
    if rarest is None:
        frequency = 1 / rank
        share_of_images = np.clip(8 * frequency / frequency.sum(), 0, 0.95)
    else:
        frequency = share_of_images = 0.6 * rank ** (np.log(rarest / 0.6) / np.log(classes))
    present = rng.random((pool, classes)) < share_of_images
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
            # pixels given to other classes
            taken = rng.dirichlet(20 * frequency / frequency.sum(), pool) * lost
            cells.append(
                {"intersections": hit.astype(np.int32), "unions": (area + taken).astype(np.int32)}
            )
        world[run] = cells
    return world


def ap_world(rng: np.random.Generator, pool: int = POOL, classes: int = 20) -> World:
    """Some four objects an image, of long-tailed class; the overlap of a detection and its score
    depend on image and object.
    """
    frequency = 1 / np.arange(1, classes + 1)
    image = np.repeat(np.arange(pool, dtype=np.int32), rng.poisson(4, pool))
    label = rng.choice(classes, len(image), p=frequency / frequency.sum()).astype(np.int16)
    order = np.argsort(label, kind="stable")
    image, label = image[order], label[order]
    ease = (
        rng.normal(0, 1, len(image))
        - rng.normal(0, 0.7, pool)[image]
        + rng.normal(0, 0.5, classes)[label]
    )
    world: World = {}
    for run, gain in (("a", 0.0), ("b", 0.3)):
        cells = []
        for hardness in HARDNESS:
            quality = 1.2 + ease + gain * (hardness > 0) - hardness + rng.normal(0, 0.5, len(image))
            overlap, score = (
                logistic(quality),
                logistic(0.8 * quality + rng.normal(0, 1, len(image))),
            )
            seen = rng.random(len(image)) < logistic(1.5 + quality)
            wrong = rng.poisson(6, pool)
            wrong_label = rng.choice(classes, wrong.sum(), p=frequency / frequency.sum()).astype(
                np.int16
            )
            levels = (overlap[seen, None] >= np.linspace(0.5, 0.95, 10)) @ (1 << np.arange(10))
            matched = np.concatenate([levels, np.zeros(wrong.sum(), int)]).astype(np.uint16)
            labels = np.concatenate([label[seen], wrong_label])
            scores = np.concatenate([score[seen], rng.beta(1.2, 3, wrong.sum())])
            images = np.concatenate(
                [image[seen], np.repeat(np.arange(pool, dtype=np.int32), wrong)]
            )
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


WORLDS: dict[str, Callable[[np.random.Generator, int], World]] = {
    "top1": top1_world,
    "top1-close": partial(top1_world, kin=0.9),
    "miou": miou_world,
    "miou-20": partial(miou_world, classes=20),
    "miou-150": partial(miou_world, classes=150, rarest=20 / 2000),
    "miou-150-rare": partial(miou_world, classes=150, rarest=5 / 2000),
    "ap": ap_world,
    "ap-5": partial(ap_world, classes=5),
    "ap-80": partial(ap_world, classes=80),
}


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
        part |= {
            name: array[kept] for name, array in statistics.items() if name.startswith(f"{owner}_")
        }
        part[f"{owner}_image"] = place[part[f"{owner}_image"]]
    return part


# ---- what is asked
# ------------------------------------------------------------------------------


def quantities(world: World, weights: np.ndarray, other: np.ndarray | None = None) -> Arrays:
    """P, mPC, rPC and drop of run a, and run b's mPC and drop less run a's, under weights (R, N).

    ``other`` re-weights run b on its own.
    """
    found = {}
    for run, cells in world.items():
        use = weights if run == "a" or other is None else other
        values = [next(iter(recompute_metrics(cell, use).values())) for cell in cells]
        found[run] = robustness_replicates(values[0], np.stack(values[1:]))
    return {
        **found["a"],
        **{f"b - a {name}": found["b"][name] - found["a"][name] for name in ("mPC", "drop")},
    }


# ---- how intervals may be made (Davison & Hinkley 1997, ch. 5)
# ------------------------------------------------------------------------------


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


def corrected(values: np.ndarray, estimate: float) -> tuple[float, float]:
    return interval(values, estimate, UNBOUNDED)


Make = Callable[[np.ndarray, float], tuple[float, float]]
# resamples, interval of a score or drop, interval of a difference
METHODS: dict[str, tuple[str, Make, Make]] = {
    "ours": ("halves", corrected, paired_interval),
    "halves, corrected": ("halves", corrected, corrected),
    "halves, percentile": ("halves", percentile, percentile),
    "percentile": ("bootstrap", percentile, percentile),
    "basic": ("bootstrap", basic, basic),
    "normal": ("bootstrap", normal, normal),
    "corrected normal": ("bootstrap", corrected_normal, corrected_normal),
    "BC": ("bootstrap", corrected_percentile, corrected_percentile),
}


# ---- trials
# ------------------------------------------------------------------------------


def weights(rng: np.random.Generator, times: np.ndarray, count: int, draw: str) -> np.ndarray:
    """(R, images) of the set that holds each image ``times`` often: halves as
    ``intervals.bootstrap_weights``, or a bootstrap.
    """
    if draw == "bootstrap":
        return rng.multinomial(times.sum(), times / times.sum(), count)
    sizes = (times.sum() + np.arange(2)) // 2
    parts = [
        rng.multivariate_hypergeometric(times, size, -(-count // 2), method="marginals")
        for size in sizes
    ]
    return np.concatenate(parts)[:count]


def drawn_set(world: World, rng: np.random.Generator, images: int) -> tuple[World, np.ndarray]:
    """A set of ``images`` from the pool: its distinct images, and how often it holds each."""
    pool = size_of(world["a"][0])
    chosen, times = np.unique(rng.integers(0, pool, images), return_counts=True)
    return {
        run: [drawn(cell, chosen, pool) for cell in cells] for run, cells in world.items()
    }, times


def wider(part: World, times: np.ndarray, rng: np.random.Generator, count: int) -> dict[str, float]:
    """How many times wider the interval of each difference is if the runs are resampled apart."""
    first, second = weights(rng, times, count, "halves"), weights(rng, times, count, "halves")
    paired, apart = quantities(part, first), quantities(part, first, second)
    return {
        name: float(apart[name].std() / paired[name].std())
        for name in paired
        if name.startswith("b - a")
    }


def measure(
    name: str,
    trials: int,
    images: int,
    count: int,
    seed: int,
    pool: int = POOL,
    methods: Collection[str] = tuple(METHODS),
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Coverage by method and quantity, and how many times wider the unpaired interval of a
    difference is (median of 20).
    """
    rng = np.random.default_rng([seed, *name.encode()])
    world = WORLDS[name](rng, pool)
    truth = quantities(world, np.ones((1, size_of(world["a"][0]))))
    bounds: dict[str, list[list[tuple[float, float]]]] = {method: [] for method in methods}
    estimates, ratios = [], []
    for index in range(trials):
        part, times = drawn_set(world, rng, images)
        estimate = quantities(part, times[None])
        draws = {
            d: quantities(part, weights(rng, times, count, d))
            for d in dict.fromkeys(METHODS[m][0] for m in methods)
        }
        estimates.append([float(estimate[quantity][0]) for quantity in truth])
        for method in methods:
            draw, *makes = METHODS[method]
            bounds[method].append(
                [
                    makes[quantity.startswith("b - a")](
                        draws[draw][quantity], float(estimate[quantity][0])
                    )
                    for quantity in truth
                ]
            )
        if index < 20:
            ratios.append(wider(part, times, rng, count))
    true, mean = np.array([float(value[0]) for value in truth.values()]), np.mean(estimates, axis=0)
    found = {method: held(bounds[method], true, truth) for method in methods}
    if "ours" in methods:
        found["ours, set's size"] = held(bounds["ours"], mean, truth)
    return found, {name: float(np.median([ratio[name] for ratio in ratios])) for name in ratios[0]}


def held(
    bounds: list[list[tuple[float, float]]], true: np.ndarray, names: Iterable[str]
) -> dict[str, float]:
    """The share of the trials whose interval holds the true value, by quantity."""
    low, high = np.moveaxis(np.array(bounds), 2, 0)
    return dict(zip(names, ((low <= true) & (true <= high)).mean(0).tolist(), strict=True))


def table(name: str, found: Mapping[str, Mapping[str, float]], ratios: Mapping[str, float]) -> str:
    quantity_names = list(next(iter(found.values())))
    lines = [
        f"{name}: unpaired intervals are wider by "
        + ", ".join(f"{ratio:.1f} ({what})" for what, ratio in ratios.items())
    ]
    lines.append(f"{'method':20}" + "".join(f"{quantity:>12}" for quantity in quantity_names))
    lines += [
        f"{method:20}" + "".join(f"{100 * found[method][q]:12.1f}" for q in quantity_names)
        for method in found
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--scenarios", default=",".join(WORLDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=";".join(METHODS), help="with semicolons")
    arguments = parser.parse_args()
    for name in arguments.scenarios.split(","):
        numbers = arguments.trials, arguments.images, arguments.replicates, arguments.seed
        found = measure(name, *numbers, methods=arguments.methods.split(";"))
        print(table(name, *found), "\n", flush=True)


if __name__ == "__main__":
    main()
