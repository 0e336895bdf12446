"""What an evaluation costs beside its model's forward passes and the corruption of its images; on generated scenes.

    python benchmarks/evaluation.py [ratio] [memory] [sharing] [scheduling] [listing] [--images 48] [--rounds 4]

- ratio: two processes of one thread each, as `study run` has them on two cores. Each takes turns between `evaluate` and the bare
  parts: corrupting decoded images, and the model's `predict` on what comes out, in the same batches. CPU time and wall time.
- memory: the highest resident memory and the time an image of evaluations of 1,000 and 10,000 images, each in a new process.
- sharing: three models on the same corrupted images, with `--share-corrupted` and without.
- scheduling: many jobs that do nothing through `run_jobs`.
- listing: a store of 100,000 records.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillrobust.corruptions import COMMON, warm_up
from stillrobust.data import Subset, open_dataset
from stillrobust.data.scene_files import SceneCounts, write_scenes
from stillrobust.data.shared import SharedImages
from stillrobust.data.views import corrupted_view
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.execution import Job, run_jobs
from stillrobust.predictors import Predictor, predictor_of_run
from stillrobust.samples import Prediction
from stillrobust.store import Cell, Store
from stillrobust.training import Plan, Recipe, train

SCENE, CROP = 256, 224  # pixels
PARTS = ("gaussian_noise", "glass_blur", "fog", "pixelate")  # the dearest of each group but the cheapest too
SPECS = {"classification": "folders", "detection": "coco", "segmentation": "maps"}
MODELS = {  # small ones: the smaller the model, the more is seen of what stands beside it
    "classification": ("resnet18(weights='random')", {}),
    "detection": ("resnet18(weights='random')", {"image_size": (256, 256)}),
    "segmentation": ("resnet18(weights='random')", {"crop": (128, 128), "test_size": None}),
}


def data_of(root: Path, task: str, split: str = "val") -> Any:
    return open_dataset(f"{SPECS[task]}:{root / 'data' / task}", split)


def prepare(root: Path, images: int) -> None:
    """Scenes, and a model for each task after two steps: what it says is wrong, which costs no less."""
    counts = SceneCounts(train=8, val=images, train_crops=20, val_crops=images)
    write_scenes(root / "data", counts=counts, scene_size=SCENE, crop_size=CROP)
    for task, (backbone, settings) in MODELS.items():
        data = data_of(root, task, "train")
        plan = Plan(task, backbone, "full_network", Recipe(steps=2, batch_size=2), settings)
        train(plan, data, root / "runs" / task)
    warm_up()


def clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def since(begun: tuple[float, float]) -> tuple[float, float]:
    cpu, wall = clocks()
    return cpu - begun[0], wall - begun[1]


# ---- ratio ---------------------------------------------------------------------------------------------------------------


def bare_parts(predict: Callable[[Any], Any], data: Any, corruption: str, protocol: Protocol) -> tuple[float, float]:
    """Corruption and forward passes alone: nothing is decoded, checked, counted or written."""
    samples = [data[index] for index in range(len(data))]
    views = [corrupted_view(data, corruption, severity) for severity in protocol.severities]
    begun = clocks()
    for start in range(0, len(samples), protocol.batch_size):
        batch = samples[start : start + protocol.batch_size]
        for view in views:
            with torch.inference_mode():
                predict([view.applied_to(sample).image for sample in batch])
    return since(begun)


def measured(root: Path, task: str, process: int, rounds: int, told: Path, progress: Callable[[int, int, str], None]) -> None:
    """In a process of one thread: rounds of both, and what they took."""
    data, predictor = data_of(root, task), predictor_of_run(root / "runs" / task)
    data.info  # noqa: B018  read once by a study too: the fingerprint of all files
    lines = []
    for number in range(rounds + 1):  # the first is not counted: memory is taken, threads are started
        corruption = PARTS[(number + process) % len(PARTS)]
        protocol = Protocol((corruption,), clean=False)
        bare = bare_parts(predictor.predict, data, corruption, protocol)
        with tempfile.TemporaryDirectory(dir=root) as results:
            begun = clocks()
            evaluate(predictor, data, Path(results), protocol)
            whole = since(begun)
        if number:
            lines.append(f"{corruption} {bare[0]} {bare[1]} {whole[0]} {whole[1]}")
        progress(number, rounds, corruption)
    told.write_text("\n".join(lines))


def ratio(root: Path, tasks: list[str], images: int, rounds: int) -> None:
    for task in tasks:
        told = [root / f"{task}-{process}.txt" for process in range(2)]
        run_jobs([Job(f"{task} {n}", measured, (root, task, n, rounds, path)) for n, path in enumerate(told)], 2)
        rows = [[float(number) for number in line.split()[1:]] for path in told for line in path.read_text().splitlines()]
        cpu, wall = (statistics.median(row[2 + k] / row[k] for row in rows) for k in (0, 1))
        sums = [sum(row[2 + k] for row in rows) / sum(row[k] for row in rows) for k in (0, 1)]
        each = 1000 * sum(row[2] for row in rows) / len(rows) / 5 / images
        print(
            f"{task:15s} {each:7.1f} ms of CPU an image and severity; evaluation / bare parts: CPU {sums[0]:.3f} (median of "
            f"{len(rows)} rounds {cpu:.3f}), wall {sums[1]:.3f} (median {wall:.3f})",
            flush=True,
        )


# ---- memory --------------------------------------------------------------------------------------------------------------


class Repeated:
    """A dataset said again and again under other ids: 10,000 images from few files, each decoded as any other."""

    def __init__(self, dataset: Any, size: int) -> None:
        from dataclasses import replace

        self.dataset, self.size = dataset, size
        self.info = replace(dataset.info, size=size, fingerprint=f"{dataset.info.fingerprint} {size}")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> Any:
        from dataclasses import replace

        sample = self.dataset[index % len(self.dataset)]
        return replace(sample, target=replace(sample.target, image_id=f"{index:06}.png"))


def peak(root: Path, task: str, images: int, told: Path, progress: Callable[[int, int, str], None]) -> None:
    """An evaluation of so many images: its highest resident memory, what was there before, and its time."""
    data, predictor = data_of(root, task), predictor_of_run(root / "runs" / task)
    few = Subset(data, 16)
    with tempfile.TemporaryDirectory(dir=root) as results:
        evaluate(predictor, few, Path(results), Protocol(("fog",), (1,), clean=False))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = clocks()
        evaluate(predictor, Repeated(data, images), Path(results), Protocol(("fog",), (1,), clean=False), run="many")
        cpu, _ = since(begun)
    told.write_text(f"{before / 1024} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024} {1000 * cpu / images}")


def memory(root: Path, tasks: list[str], few: int, many: int) -> None:
    for task in tasks:
        rows = []
        for images in (few, many):
            told = root / f"{task}-{images}.txt"
            run_jobs([Job(f"{task} {images}", peak, (root, task, images, told))], 1)
            rows.append([float(number) for number in told.read_text().split()])
            print(
                f"{task:15s} {images:6,} images: at most {rows[-1][1]:7.1f} MB ({rows[-1][0]:.1f} MB before), "
                f"{rows[-1][2]:.2f} ms an image",
                flush=True,
            )
        print(f"{task:15s} {many:,} / {few:,}: memory {rows[1][1] / rows[0][1]:.3f}, time an image {rows[1][2] / rows[0][2]:.3f}")


# ---- sharing -------------------------------------------------------------------------------------------------------------


def sharing(root: Path, images: int) -> None:
    """Three models that cost nothing on the same images: what is left is reading, corrupting, and taking from the folder."""
    data = Subset(data_of(root, "classification"), images)
    answer = Prediction(probabilities=np.full(len(data.info.classes), 1 / len(data.info.classes)))
    for mode in ("fast", "exact"):
        times: dict[bool, list[float]] = {False: [], True: []}
        kept = root / f"shared-{mode}"
        for model in range(3):
            predictor = Predictor("classification", f"model {model}", lambda some: [answer for _ in some], f"{model}")
            for shared in times:
                protocol = Protocol(clean=False, mode=mode, shared=SharedImages(kept, 10**10) if shared else None)
                with tempfile.TemporaryDirectory(dir=root) as results:
                    begun = clocks()
                    evaluate(predictor, data, Path(results), protocol)
                    times[shared].append(since(begun)[0])
        each = {shared: " ".join(f"{1000 * one / images / 75:.2f}" for one in found) for shared, found in times.items()}
        size = sum(path.stat().st_size for path in kept.glob("??/*")) / images / 75
        print(
            f"{mode}: three models after each other, ms of CPU an image and severity: {each[False]}; shared: {each[True]}; in all "
            f"{sum(times[False]) / sum(times[True]):.2f} times as fast; {size / 1000:.0f} kB an image"
        )


# ---- scheduling and listing ------------------------------------------------------------------------------------------------


def nothing(progress: Callable[[int, int, str], None]) -> None:
    """A job of no work."""


def scheduling(root: Path, cells: int) -> None:
    times = {}
    for count in (2, cells + 2):  # the first starts the processes and imports what they need
        begun = time.perf_counter()
        run_jobs([Job(f"job {number}", nothing, ()) for number in range(count)], 2)
        times[count] = time.perf_counter() - begun
    print(f"run_jobs: {1000 * (times[cells + 2] - times[2]) / cells:.2f} ms a job ({cells} jobs that do nothing, 2 processes)")


def listing(root: Path, records: int) -> None:
    store = Store(root / "listed")
    each = len(COMMON) * 5
    for number in range(records):
        run, place = divmod(number, each)
        cell = Cell(f"run{run}", COMMON[place // 5], place % 5 + 1)
        store.write_cell(cell, "key", {"top1": 0.5}, {"seed": 0, "data": "x" * 64}, 4, 1.0, {})
    for _ in range(3):
        begun = time.process_time()
        count = len(store.measurements())
        print(f"a store of {count:,} records is listed in {time.process_time() - begun:.2f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["ratio", "memory", "sharing", "scheduling", "listing"])
    parser.add_argument("--tasks", nargs="+", choices=list(SPECS), default=list(SPECS))
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=4, help="of each of the two processes")
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--work", type=Path, help="A folder to keep; by default a temporary one.")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.work or Path(temporary)
        if {"ratio", "memory", "sharing"}.intersection(arguments.what):
            prepare(root, arguments.images)
        if "ratio" in arguments.what:
            ratio(root, arguments.tasks, arguments.images, arguments.rounds)
        if "sharing" in arguments.what:
            sharing(root, min(arguments.images, 16))
        if "memory" in arguments.what:
            memory(root, arguments.tasks, arguments.many // 10, arguments.many)
        if "scheduling" in arguments.what:
            scheduling(root, arguments.cells)
        if "listing" in arguments.what:
            listing(root, arguments.records)


if __name__ == "__main__":
    main()
