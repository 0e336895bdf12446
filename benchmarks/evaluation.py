"""What an evaluation costs beside its model's forward passes and the corruption of its images; on
generated scenes.

    python benchmarks/evaluation.py [ratio] [memory] [sharing] [scheduling] [listing] [--images 48]
    [--rounds 4]

- ratio: two processes of one thread each, as `study run` has them on two cores. Each takes turns
  between `evaluate` and the bare
  parts: corrupting decoded images, and the model's `predict` on what comes out, in the same
  batches. CPU time and wall time.
- memory: the highest resident memory and the time an image of evaluations of 1,000 and 10,000
  images, each in a new process.
- sharing: three models on the same corrupted images, with `--share-corrupted` and without.
- scheduling: many jobs that do nothing through `run_jobs`.
- listing: a store of 100,000 records.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillrobust.corruptions import COMMON, SEVERITIES
from stillrobust.corruptions.compilation import warm_up
from stillrobust.data import Subset, open_dataset
from stillrobust.data.generated.scene_files import SceneCounts, write_scenes
from stillrobust.data.image_cache import ImageCache
from stillrobust.data.views import corrupted_view
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.evaluation.loader import SeverityViews, load_severity_batches
from stillrobust.execution import Job, ProgressCallback, run_jobs
from stillrobust.grid import Cell
from stillrobust.predictors import Predictor, load_run_predictor
from stillrobust.samples import Prediction
from stillrobust.storage.store import Store
from stillrobust.training import Plan, Recipe, train

SCENE, CROP = 256, 224  # pixels
# the dearest of each group but the cheapest too
PARTS = ("gaussian_noise", "glass_blur", "fog", "pixelate")
SPECS = {"classification": "folders", "detection": "coco", "segmentation": "maps"}
MODELS = {  # small ones: the smaller the model, the more is seen of what stands beside it
    "classification": ("resnet18(weights='random')", {}),
    "detection": ("resnet18(weights='random')", {"image_size": (256, 256)}),
    "segmentation": ("resnet18(weights='random')", {"crop": (128, 128), "test_size": None}),
}


def data_of(root: Path, task: str, split: str = "val") -> Any:
    return open_dataset(f"{SPECS[task]}:{root / 'data' / task}", split)


def prepare(root: Path, images: int) -> None:
    """Scenes, and a model for each task after two steps: what it says is wrong, which costs no
    less.
    """
    counts = SceneCounts(train=8, val=images, train_crops=20, val_crops=images)
    write_scenes(root / "data", counts=counts, scene_size=SCENE, crop_size=CROP)
    for task, (backbone, settings) in MODELS.items():
        data = data_of(root, task, "train")
        plan = Plan(task, backbone, "full_network", Recipe(steps=2, batch_size=2), settings)
        train(plan, data, root / "runs" / task)
    warm_up(COMMON)


def clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def since(begun: tuple[float, float]) -> tuple[float, float]:
    cpu, wall = clocks()
    return cpu - begun[0], wall - begun[1]


# ---- ratio
# ------------------------------------------------------------------------------


def bare_parts(
    predict: Callable[[Any], Any], data: Any, corruption: str, protocol: Protocol
) -> tuple[float, float]:
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


@dataclass(frozen=True, kw_only=True)
class MeasureJob(Job):
    """In a process of one thread: rounds of both, and the time of each."""

    root: Path
    task: str
    process: int
    rounds: int
    output: Path

    def run(self, progress: ProgressCallback) -> None:
        data, predictor = (
            data_of(self.root, self.task),
            load_run_predictor(self.root / "runs" / self.task),
        )
        data.info  # noqa: B018  read once by a study too: the fingerprint of all files
        lines = []
        # the first is not counted: memory is taken, threads are started
        for number in range(self.rounds + 1):
            corruption = PARTS[(number + self.process) % len(PARTS)]
            protocol = Protocol((corruption,), clean=False)
            bare = bare_parts(predictor.predict, data, corruption, protocol)
            with tempfile.TemporaryDirectory(dir=self.root) as results:
                begun = clocks()
                evaluate(predictor, data, Path(results), protocol)
                whole = since(begun)
            if number:
                lines.append(f"{corruption} {bare[0]} {bare[1]} {whole[0]} {whole[1]}")
            progress(number, self.rounds, corruption)
        self.output.write_text("\n".join(lines))


def ratio(root: Path, tasks: list[str], images: int, rounds: int) -> None:
    for task in tasks:
        told = [root / f"{task}-{process}.txt" for process in range(2)]
        run_jobs(
            [
                MeasureJob(
                    name=f"{task} {n}", root=root, task=task, process=n, rounds=rounds, output=path
                )
                for n, path in enumerate(told)
            ],
            2,
        )
        rows = [
            [float(number) for number in line.split()[1:]]
            for path in told
            for line in path.read_text().splitlines()
        ]
        cpu, wall = (statistics.median(row[2 + k] / row[k] for row in rows) for k in (0, 1))
        sums = [sum(row[2 + k] for row in rows) / sum(row[k] for row in rows) for k in (0, 1)]
        each = 1000 * sum(row[2] for row in rows) / len(rows) / 5 / images
        print(
            f"{task:15s} {each:7.1f} ms of CPU an image and severity; evaluation / bare parts: CPU"
            f" {sums[0]:.3f} (median of {len(rows)} rounds {cpu:.3f}), wall {sums[1]:.3f} (median"
            f" {wall:.3f})",
            flush=True,
        )


# ---- memory
# ------------------------------------------------------------------------------


class Repeated:
    """A dataset said again and again under other ids: 10,000 images from few files, each decoded as
    any other.
    """

    def __init__(self, dataset: Any, size: int) -> None:
        self.dataset, self.size = dataset, size
        self.info = replace(
            dataset.info, size=size, fingerprint=f"{dataset.info.fingerprint} {size}"
        )

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> Any:
        sample = self.dataset[index % len(self.dataset)]
        return replace(sample, target=replace(sample.target, image_id=f"{index:06}.png"))


def answer_of(task: str, image: Any) -> Prediction:
    """What a model might say, at no cost: ten objects, or one class everywhere."""
    size = image.shape[:2]
    if task == "classification":
        return Prediction(probabilities=np.eye(10, dtype=np.float32)[0])
    if task == "segmentation":
        return Prediction(
            label_map=np.zeros(size, np.uint8), confidence=np.full(size, 0.5, np.float32)
        )
    masks = np.zeros((10, *size), bool)
    masks[:, 20:60, 30:80] = True
    boxes = np.tile(np.array([30, 20, 80, 60], np.float32), (10, 1))
    return Prediction(
        boxes=boxes, labels=np.arange(10) % 2, scores=np.linspace(0.9, 0.1, 10), masks=masks
    )


@dataclass(frozen=True, kw_only=True)
class PeakMemoryJob(Job):
    """Evaluate a number of images: highest resident memory, memory before, and time.

    The model costs nothing, so that all of it is the evaluation's.
    """

    root: Path
    task: str
    images: int
    output: Path

    def run(self, progress: ProgressCallback) -> None:
        data = data_of(self.root, self.task)
        predictor = Predictor(
            self.task,
            "answers",
            lambda some: [answer_of(self.task, image) for image in some],
            "none",
        )
        few = Subset(data, 16)
        with tempfile.TemporaryDirectory(dir=self.root) as results:
            evaluate(predictor, few, Path(results), Protocol(("fog",), (1,), clean=False))
            # the highest resident memory counts from here
            Path("/proc/self/clear_refs").write_text("5")
            before = resident("VmRSS")
            begun = clocks()
            evaluate(
                predictor,
                Repeated(data, self.images),
                Path(results),
                Protocol(("fog",), (1,), clean=False),
                run="many",
            )
            cpu, _ = since(begun)
            highest = resident("VmHWM")
        self.output.write_text(f"{before} {highest} {1000 * cpu / self.images}")


def resident(key: str) -> float:
    """MB of this process. Not ``ru_maxrss``: a new process has it from the one that started it."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) / 1024


def memory(root: Path, tasks: list[str], few: int, many: int) -> None:
    for task in tasks:
        rows = []
        for images in (few, many):
            told = root / f"{task}-{images}.txt"
            job = PeakMemoryJob(
                name=f"{task} {images}", root=root, task=task, images=images, output=told
            )
            run_jobs([job], 1)
            rows.append([float(number) for number in told.read_text().split()])
            print(
                f"{task:15s} {images:6,} images: at most {rows[-1][1]:7.1f} MB ({rows[-1][0]:.1f}"
                f" MB before), {rows[-1][2]:.2f} ms an image",
                flush=True,
            )
        print(
            f"{task:15s} {many:,} / {few:,}: memory {rows[1][1] / rows[0][1]:.3f}, time an image"
            f" {rows[1][2] / rows[0][2]:.3f}"
        )


# ---- sharing
# ------------------------------------------------------------------------------


def sharing(root: Path, images: int) -> None:
    """What three models wait for, one after the other: images read once a corruption, and corrupted
    or taken from the folder.
    """
    data = Subset(data_of(root, "classification"), images)
    for mode in ("fast", "exact"):
        times: dict[bool, list[float]] = {False: [], True: []}
        kept = root / f"shared-{mode}"
        for _ in range(3):
            for shared in times:
                images_of = ImageCache(kept, 10**10) if shared else None
                begun = clocks()
                for corruption in COMMON:
                    views = [
                        corrupted_view(data, corruption, severity, mode=mode, shared=images_of)
                        for severity in SEVERITIES
                    ]
                    for _ in load_severity_batches(SeverityViews(data, tuple(views)), 8):
                        pass
                times[shared].append(since(begun)[0])
        each = {
            shared: " ".join(f"{1000 * one / images / 75:.2f}" for one in found)
            for shared, found in times.items()
        }
        size = sum(path.stat().st_size for path in kept.glob("??/*")) / images / 75
        print(
            f"{mode}: three models after each other, ms of CPU an image and severity:"
            f" {each[False]}; shared: {each[True]}; in all"
            f" {sum(times[False]) / sum(times[True]):.2f} times as fast, from the second on"
            f" {sum(times[False][1:]) / sum(times[True][1:]):.2f}; {size / 1000:.0f} kB an image",
            flush=True,
        )


# ---- scheduling and listing
# ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Nothing(Job):
    """A job of no work."""

    def run(self, progress: ProgressCallback) -> None:
        pass


def scheduling(cells: int) -> None:
    ends: list[float] = []
    jobs = [Nothing(name=f"job {number}") for number in range(cells)]
    run_jobs(jobs, 2, on_end=lambda name, reason: ends.append(time.perf_counter()))
    each = (ends[-1] - ends[9]) / (cells - 10)  # by the tenth both processes have started
    print(
        f"run_jobs: {1000 * each:.2f} ms a job ({cells} jobs that do nothing, 2 processes, wall"
        " time)",
        flush=True,
    )


def listing(root: Path, records: int) -> None:
    # what is measured is reading; 100,000 records are written three times as fast
    os.fsync = lambda descriptor: None
    store = Store(root / "listed")
    each = len(COMMON) * 5
    for number in range(records):
        run, place = divmod(number, each)
        cell = Cell(f"run{run}", COMMON[place // 5], place % 5 + 1)
        store.write_cell(cell, "key", {"top1": 0.5}, {"seed": 0, "data": "x" * 64}, 4, 1.0, {})
    for _ in range(3):
        begun = time.process_time()
        count = len(store.measurements())
        print(
            f"a store of {count:,} records is listed in {time.process_time() - begun:.2f} s of CPU"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", nargs="*", default=["ratio", "memory", "sharing", "scheduling", "listing"]
    )
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
            scheduling(arguments.cells)
        if "listing" in arguments.what:
            listing(root, arguments.records)


if __name__ == "__main__":
    main()
