"""Time and memory of scoring a results JSON of a large detection set, most of it background.

    python benchmarks/prediction_scoring.py FOLDER [--images 570000] [--objects 80000] [--load]

Boxes are drawn at random, and there are no images on disk. ``--load`` measures ``json.load`` on the
same file instead. Time is CPU time, memory the peak of this process.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from stillrobust.evaluation.keys import resolve_circumstances
from stillrobust.evaluation.prediction_manifest import write_images, write_manifest
from stillrobust.evaluation.prediction_scoring import score_predictions
from stillrobust.evaluation.protocol import Protocol
from stillrobust.grid import CLEAN
from stillrobust.samples import DatasetInfo, Sample, Target

SIZE = (480, 640)
CLASSES = tuple(f"class {number}" for number in range(8))
BOXES = 20, 10  # detections of an image with objects, and of background


class Background:
    """Images of which only the first ones have objects, 3 each."""

    def __init__(self, images: int, with_objects: int) -> None:
        self.info = DatasetInfo("generated", "detection", CLASSES, images, "none")
        rng = np.random.default_rng(0)
        corners = rng.uniform(0, 300, (with_objects, 3, 2))
        sides = rng.uniform(10, 150, corners.shape)
        self.boxes = np.concatenate([corners, corners + sides], 2).astype(np.float32)

    def __len__(self) -> int:
        return self.info.size

    def image_id(self, index: int) -> str:
        return f"{index:07}.jpg"

    def target(self, index: int) -> Target:
        boxes = self.boxes[index] if index < len(self.boxes) else np.zeros((0, 4), np.float32)
        return Target(self.image_id(index), SIZE, boxes=boxes, labels=np.arange(len(boxes)))

    def __getitem__(self, index: int) -> Sample:
        return Sample(np.zeros((*SIZE, 3), np.uint8), self.target(index))


def write_inputs(folder: Path, data: Background) -> int:
    """Write the manifest and the results; return the number of detections."""
    protocol = Protocol((), ())
    circumstances = resolve_circumstances(data, protocol, "")
    del circumstances["weights"]
    numbers = range(1, len(CLASSES) + 1)
    write_manifest(folder / "export", circumstances, protocol, CLASSES, numbers, [CLEAN])
    names = [data.image_id(index) for index in range(len(data))]
    write_images(
        folder / "export", [[name, n, name, *SIZE] for n, name in enumerate(names, start=1)]
    )
    (folder / "files").mkdir(exist_ok=True)
    rng, count = np.random.default_rng(1), 0
    with (folder / "files/clean_0.json").open("w") as file:
        for index in range(len(data)):
            found = rng.uniform(0, 150, (BOXES[index >= len(data.boxes)], 6)).round(3)
            for x, y, width, height, score, label in found.tolist():
                entry = {
                    "image_id": index + 1,
                    "category_id": 1 + int(label) % len(CLASSES),
                    "bbox": [x, y, width, height],
                    "score": score / 150,
                }
                file.write(("," if count else "[") + json.dumps(entry))
                count += 1
        file.write("]")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=570_000)
    parser.add_argument("--objects", type=int, default=80_000)
    parser.add_argument("--load", action="store_true")
    arguments = parser.parse_args()
    data, path = (
        Background(arguments.images, arguments.objects),
        arguments.folder / "files/clean_0.json",
    )
    if not path.exists():
        print(f"{write_inputs(arguments.folder, data):,} detections")
    begun = time.process_time()
    if arguments.load:
        print(f"{len(json.loads(path.read_text())):,} detections")
    else:
        score_predictions(
            arguments.folder / "export",
            path.parent,
            data,
            arguments.folder / "results",
            "generated",
            replace_stale=True,
            progress=lambda done, total, text: (
                print(f"{time.process_time() - begun:.0f} s: {text}")
                if done % 256_000 == 0 or done == total
                else None
            ),
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{path.stat().st_size / 1e9:.2f} GB of JSON: {time.process_time() - begun:.0f} s of CPU"
        f" time, {peak / 1e9:.1f} GB of memory"
    )


if __name__ == "__main__":
    main()
