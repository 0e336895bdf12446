"""Time and memory of backbones in a task, as ratios measured in one run.

    python benchmarks/architectures.py [--task detection] [--size 512] [--batch 2] [--rounds 5]
    [--models resnet50 vit_small_patch16_224 ...]

A training step in full, one of a frozen backbone, and a prediction, of every model against the
first one. CPU time of this process, rounds interleaved, of each the median; on a GPU the time of
the clock. Memory is what a training step in full needs above what the process had: on a GPU the
peak of allocations, on a CPU the tensors that autograd keeps, each storage once, with the
parameters' gradients.
"""

import argparse
import copy
import statistics
import time

import numpy as np
import torch
from torch import nn

from stillrobust.backbones import build_backbone
from stillrobust.samples import DatasetInfo, Sample, Target
from stillrobust.tasks import Task, make_task
from stillrobust.tasks.heads import backbone_of

MODELS = ["resnet50", "vit_small_patch16_224", "vit_small_patch14_dinov2", "convnext_tiny"]
MEGABYTE = 2**20


def samples(count: int, size: int) -> list[Sample]:
    """Noise with a few boxes, masks and a label map."""
    rng = np.random.default_rng(0)
    found = []
    for place in range(count):
        left, top = rng.integers(0, size // 2, (2, 5))
        boxes = np.stack([left, top, left + size // 4, top + size // 4], 1).astype(np.float32)
        masks = np.zeros((5, size, size), bool)
        for mask, (x, y, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[y:bottom, x:right] = True
        target = Target(
            str(place),
            (size, size),
            label=place,
            boxes=boxes,
            labels=np.arange(5),
            masks=masks,
            label_map=rng.integers(0, 10, (size, size)).astype(np.uint8),
        )
        found.append(Sample(rng.integers(0, 256, (size, size, 3), dtype=np.uint8), target))
    return found


def settings(task: str, size: int) -> dict[str, object]:
    if task == "classification":
        return {"resize": size, "crop": size}
    if task == "detection":
        return {"image_size": (size, size)}
    return {"crop": (size, size), "test_size": None}


def step(task: Task, model: nn.Module, batch: list[Sample]) -> None:
    model.zero_grad()
    torch.stack(list(task.loss(model.train(), batch).values())).sum().backward()


def predict(task: Task, model: nn.Module, batch: list[Sample]) -> None:
    with torch.inference_mode():
        task.predict(model.eval(), [sample.image for sample in batch])


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def step_memory(task: Task, model: nn.Module, batch: list[Sample], device: torch.device) -> float:
    """MB, see the head of this file."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(task, model, batch)
        return (torch.cuda.max_memory_allocated() - before) / MEGABYTE
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = task.loss(model.train(), batch)
        torch.stack(list(losses.values())).sum().backward()
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    return (sum(kept.values()) + gradients) / MEGABYTE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="detection")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = make_task(options.task, settings(options.task, options.size))
    info = DatasetInfo("x", options.task, tuple(map(str, range(10))), 1, "", has_masks=True)
    batch = samples(options.batch, options.size)
    whole, frozen = {}, {}
    for name in options.models:
        torch.manual_seed(0)
        model = task.build_model(build_backbone(f"{name}(weights='random')")[0], info).to(device)
        whole[name], frozen[name] = model, copy.deepcopy(model)
        backbone_of(frozen[name]).freeze()
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(options.rounds + 1):
        for name in options.models:
            for kind, run, model in (
                ("full", step, whole[name]),
                ("frozen", step, frozen[name]),
                ("predict", predict, whole[name]),
            ):
                begun = clock(device)
                run(task, model, batch)
                if number:  # the first round does not count
                    times.setdefault((name, kind), []).append(clock(device) - begun)
    first = options.models[0]
    print(f"{options.task}, {options.batch} images of {options.size} px, {device.type}")
    print(f"{'':32} {'full':>12} {'frozen':>12} {'predict':>12} {'memory':>14}")
    base_memory = step_memory(task, whole[first], batch, device)
    for name in options.models:
        cells = []
        for kind in ("full", "frozen", "predict"):
            seconds, base = (statistics.median(times[one, kind]) for one in (name, first))
            cells.append(f"{seconds:6.2f}s {seconds / base:4.2f}")
        memory = step_memory(task, whole[name], batch, device)
        print(f"{name:32} {' '.join(cells)} {memory:7.0f}MB {memory / base_memory:4.2f}")


if __name__ == "__main__":
    main()
