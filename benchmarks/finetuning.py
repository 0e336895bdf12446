"""How long a training step with each fine-tuning method takes, relative to plain fine-tuning.

    python benchmarks/finetuning.py [--backbone resnet18] [--crop 224] [--batch 8] [--rounds 3]

Classification of random images from random weights, on this machine's device. Rounds interleave the
methods. Of each step's time the median over all rounds is taken, without the first two steps of
each. lp_ft and wise_ft are plain steps after a head that trains alone; their second phase counts.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from stillrobust.samples import DatasetInfo, Sample, Target
from stillrobust.tasks.recipes import recipe_of
from stillrobust.training import Plan, train

METHODS = {
    "plain": "",
    "l2_sp": "l2_sp",
    "rgn": "rgn(iterations=1)",
    "spd": "spd",
    "ema": "ema",
    "layer_decay": "layer_decay",
    "surgical": "surgical(stages=('layer4',))",
    "lp_ft": "lp_ft(head_steps=0.2)",
    "lp_ft + wise_ft": "lp_ft(head_steps=0.2) + wise_ft",
}
STEPS = 10


class Images:
    """Random images of two classes."""

    def __init__(self, side: int, count: int = 64) -> None:
        self.info = DatasetInfo("random", "classification", ("a", "b"), count, f"random-{side}")
        self.side = side

    def __len__(self) -> int:
        return self.info.size

    def image_id(self, index: int) -> str:
        return str(index)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        return Sample(image, Target(str(index), (self.side, self.side), label=index % 2))


def step_seconds(plan: Plan, data: Images) -> list[float]:
    """Seconds of the steps after the first two; of lp_ft, those of its second phase."""
    times: list[float] = []

    def record(done: int, total: int, text: str) -> None:
        if done:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train(plan, data, Path(folder) / "run", record)
    return np.diff(times)[3:].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    data = Images(arguments.crop)
    recipe = recipe_of("small", steps=STEPS, batch_size=arguments.batch)
    settings = {"resize": arguments.crop, "crop": arguments.crop}
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(arguments.rounds):
        for name, method in METHODS.items():
            plan = Plan(
                "classification",
                f"{arguments.backbone}(weights='random')",
                "full_network",
                recipe,
                settings,
                method=method,
            )
            found[name] += step_seconds(plan, data)
    plain = statistics.median(found["plain"])
    print(f"{arguments.backbone}, {arguments.crop} px, {arguments.batch} images a step")
    for name, values in found.items():
        middle = statistics.median(values)
        print(f"{name:16s} {1000 * middle:8.1f} ms {middle / plain:6.2f}x")


if __name__ == "__main__":
    main()
