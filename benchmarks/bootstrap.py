"""How long a bootstrap replicate takes at COCO's size, and how much room the kept statistics take.

    python benchmarks/bootstrap.py [--images 5000] [--replicates 20]

Boxes are drawn at random: 7 objects and 100 detections an image, 80 classes; masks are stood for by
boxes, whose matches look alike. CPU time of this process.
"""

import argparse
import io
import time

import numpy as np

from stillrobust.metrics import METRICS
from stillrobust.metrics.recompute import recompute_metrics
from stillrobust.samples import DatasetInfo, Prediction, Target

CLASSES = 80


def scene(index: int) -> tuple[Prediction, Target]:
    """7 objects; as many detections near them, 93 elsewhere of low score."""
    rng = np.random.default_rng(index)
    corner, size = rng.uniform(0, 400, (7, 2)), rng.uniform(8, 200, (7, 2))
    boxes, labels = np.concatenate([corner, corner + size], 1), rng.integers(0, CLASSES, 7)
    near = boxes + rng.normal(0, 0.08, boxes.shape) * np.tile(size, 2)
    corner = rng.uniform(0, 400, (93, 2))
    wrong = np.concatenate([corner, corner + rng.uniform(8, 200, (93, 2))], 1)
    found = np.concatenate([near, wrong]).astype(np.float32)
    scores = np.concatenate([rng.beta(3, 1, 7), rng.beta(1, 6, 93)]).astype(np.float32)
    found_labels = np.concatenate([labels, rng.integers(0, CLASSES, 93)])
    target = Target(
        f"{index:06}",
        (600, 600),
        boxes=boxes.astype(np.float32),
        labels=labels,
        crowd=rng.random(7) < 0.01,
    )
    return Prediction(boxes=found, labels=found_labels, scores=scores), target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--replicates", type=int, default=20)
    arguments = parser.parse_args()
    info = DatasetInfo("random", "detection", tuple(map(str, range(CLASSES))), arguments.images, "")
    metric = METRICS["detection"](info)
    scenes = [scene(index) for index in range(arguments.images)]
    metric.update(*zip(scenes[0], strict=True))  # compiled code
    metric = METRICS["detection"](info)
    begun = time.process_time()
    metric.update(*zip(*scenes, strict=True))
    print(f"matching: {1000 * (time.process_time() - begun) / len(scenes):.2f} ms an image")
    begun = time.process_time()
    statistics = metric.statistics()
    print(f"statistics: {time.process_time() - begun:.2f} s")
    statistics |= {
        name.replace("box", "mask"): array
        for name, array in statistics.items()
        if name.startswith("box")
    }
    buffer = io.BytesIO()
    begun = time.process_time()
    np.savez_compressed(buffer, **statistics)
    bare = sum(array.nbytes for array in statistics.values())
    packing = time.process_time() - begun
    packed = len(buffer.getvalue())
    print(
        f"kept, box and mask: {bare / 1e6:.1f} MB, {packed / 1e6:.1f} MB on disk, {packing:.1f} s"
        " to pack"
    )
    weights = np.random.default_rng(0).multinomial(
        len(scenes), np.full(len(scenes), 1 / len(scenes)), arguments.replicates
    )
    recompute_metrics(statistics, weights[:1])
    begun = time.process_time()
    values = recompute_metrics(statistics, weights)
    each = 1000 * (time.process_time() - begun) / arguments.replicates
    print(
        f"a replicate, box AP and mask AP: {each:.1f} ms; box AP {values['box_ap'].mean():.3f} ±"
        f" {values['box_ap'].std():.4f}"
    )


if __name__ == "__main__":
    main()
