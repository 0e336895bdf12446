"""mPC from part of the cells, replayed on published models: how many cells are needed, how far off,
how often inside the interval.

    python benchmarks/budget.py SEMSEGBENCH.csv [--coco COCO_C.json] [--write
    src/stillrobust/analysis/budget_table.json]

The CSV has one line a model: architecture, mIoU_clean and mIoU_2d_<corruption>, in percent, at
severity 3 (SemSegBench, Agnihotri et al. 2025, arXiv 2505.18015: 76 models on Cityscapes, ADE20K
and Pascal VOC). Every architecture is left out in
turn: order, coefficients and interval are made anew from the others alone and tried on it.
``--write`` makes the table of the package from all models. The JSON has the AP of one detector in
all 76 cells (Michaelis et al. 2019); there the sampling of cells that is used for everything but
mIoU at severity 3 is tried with a thousand other orders.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from stillrobust.analysis.budget import cell_order, estimate_mpc
from stillrobust.grid import COMMON, SEVERITIES

# variance in points² that every cell is taken to have beside what models share: keeps coefficients
# small
CELL_NOISE = 1.0
LEVEL = 0.95
SOURCE = (
    "SemSegBench (Agnihotri et al. 2025, arXiv 2505.18015), 76 models, severity 3; regression"
    " coefficients only"
)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Architectures (M,), and scores (M, 16) in points: clean, then the 15 corruptions."""
    rows = list(csv.DictReader(path.open()))
    columns = ["mIoU_clean", *(f"mIoU_2d_{name}" for name in COMMON)]
    return np.array([row["architecture"] for row in rows]), np.array(
        [[float(row[c]) for c in columns] for row in rows]
    )


def fit(scores: np.ndarray, chosen: list[int]) -> tuple[float, np.ndarray]:
    """Intercept and weights of clean and the chosen cells (1..15) for the mean of the 15: the mean
    of a normal given these.
    """
    centre = scores.mean(0)
    shared = np.cov(scores.T) + CELL_NOISE * np.eye(scores.shape[1])
    target = np.r_[0, np.full(len(COMMON), 1 / len(COMMON))]
    given = [0, *chosen]
    weights = np.linalg.solve(shared[np.ix_(given, given)], shared[given] @ target)
    return float(target @ centre - weights @ centre[given]), weights


def errors(architectures: np.ndarray, scores: np.ndarray, chosen: list[int]) -> np.ndarray:
    """Estimate less truth of every model (M,), each from the models of other architectures."""
    result = np.empty(len(scores))
    for name in np.unique(architectures):
        left = architectures == name
        result[left] = missed(scores[~left], scores[left], chosen)
    return result


def missed(known: np.ndarray, tried: np.ndarray, chosen: list[int]) -> np.ndarray:
    """Estimate less truth of the models ``tried``, from those ``known``."""
    intercept, weights = fit(known, chosen)
    return intercept + tried[:, [0, *chosen]] @ weights - tried[:, 1:].mean(1)


def order(architectures: np.ndarray, scores: np.ndarray, count: int) -> list[int]:
    """The cells one by one, each the one that leaves the smallest mean error on left-out
    architectures.
    """
    chosen: list[int] = []
    while len(chosen) < count:
        rest = [cell for cell in range(1, len(COMMON) + 1) if cell not in chosen]
        chosen.append(
            min(
                rest, key=lambda cell: np.abs(errors(architectures, scores, [*chosen, cell])).mean()
            )
        )
    return chosen


def reaches(architectures: np.ndarray, scores: np.ndarray, most: int) -> list[float]:
    """Half of the interval for 1..most cells: the quantile of the errors on left-out architectures,
    order chosen without them.

    One rank up for the number of errors (split conformal, Vovk et al. 2005), grouped by
    architecture.
    """
    off = np.empty((most, len(scores)))
    for name in np.unique(architectures):
        left = architectures == name
        chosen = order(architectures[~left], scores[~left], most)
        for count in range(1, most + 1):
            off[count - 1, left] = np.abs(missed(scores[~left], scores[left], chosen[:count]))
    place = min(int(np.ceil((len(scores) + 1) * LEVEL)), len(scores)) - 1
    return np.sort(off)[:, place].tolist()


def replay(
    architectures: np.ndarray, scores: np.ndarray, most: int = 6
) -> list[tuple[int, float, float, float, float]]:
    """(cells beside clean, mean error, largest error, coverage, half interval), of left-out
    architectures.
    """
    off, half = np.empty((most, len(scores))), np.empty((most, len(scores)))
    for name in np.unique(architectures):
        left = architectures == name
        chosen = order(architectures[~left], scores[~left], most)
        half[:, left] = np.array(reaches(architectures[~left], scores[~left], most))[:, None]
        for count in range(1, most + 1):
            off[count - 1, left] = np.abs(missed(scores[~left], scores[left], chosen[:count]))
    return [
        (k + 1, off[k].mean(), off[k].max(), (off[k] <= half[k]).mean(), half[k].mean())
        for k in range(most)
    ]


def package_table(architectures: np.ndarray, scores: np.ndarray) -> dict[str, object]:
    """What ``stillrobust.analysis.budget`` reads: order, and per number of cells intercept, weights
    and reach, as fractions.
    """
    most, rules = len(COMMON) - 1, []
    chosen, half = order(architectures, scores, len(COMMON)), reaches(architectures, scores, most)
    for count in range(1, most + 1):
        intercept, weights = fit(scores, chosen[:count])
        reach = round(half[count - 1] / 100, 5)
        rules.append(
            {
                "intercept": round(intercept / 100, 6),
                "weights": weights.round(5).tolist(),
                "reach": reach,
            }
        )
    return {"source": SOURCE, "order": [COMMON[cell - 1] for cell in chosen], "rules": rules}


def sampled(path: Path, orders: int = 1000) -> list[str]:
    """The sampled estimate on the detector's cells, over random orders: the corruptions change
    their names at random.
    """
    lines = []
    for kind, scores in json.loads(path.read_text())["AP"].items():
        truth = np.mean([scores[name][severity] for name in COMMON for severity in SEVERITIES])
        for count in (10, 15, 20, 25, 30):
            found = []
            for seed in range(orders):
                names = dict(
                    zip(COMMON, np.random.default_rng(seed).permutation(COMMON), strict=True)
                )
                places = cell_order("box_ap")[1 : count + 1]
                found.append(
                    estimate_mpc(
                        scores["fog"][0], {(c, s): scores[names[c]][s] for c, s in places}, "box_ap"
                    )
                )
            off = 100 * np.array([abs(one.value - truth) for one in found])
            inside = float(np.mean([one.low <= truth <= one.high for one in found]))
            half = 50 * float(np.mean([one.high - one.low for one in found]))
            lines.append(line(kind, count + 1, 76, off.mean(), off.max(), inside, half))
    return lines


def line(
    kind: str, cells: int, of: int, mean: float, largest: float, inside: float, half: float
) -> str:
    counts = f"{kind:5}{cells:6}{of / cells:8.1f}x"
    return f"{counts}{mean:12.2f}{largest:9.2f}{100 * inside:10.1f}{half:9.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--coco", type=Path)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    architectures, scores = read(arguments.csv)
    heading = (
        f"{'':5}{'cells':>6}{'fewer':>9}{'mean error':>12}{'largest':>9}{'inside %':>10}{'half':>9}"
    )
    print(
        "mIoU at severity 3, left-out architectures, the clean cell included; errors in points",
        heading,
        sep="\n",
    )
    for count, mean, largest, inside, half in replay(architectures, scores):
        print(line("miou", count + 1, scores.shape[1], mean, largest, inside, half))
    if arguments.coco:
        print("\nAP in 76 cells, sampled cells", *sampled(arguments.coco), sep="\n")
    if arguments.write:
        arguments.write.write_text(
            json.dumps(package_table(architectures, scores), indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
