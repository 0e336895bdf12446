"""How an evaluation gets its images: each read once for all severities of a corruption, by workers
ahead of the model on a GPU.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from stillrobust.data.views import CorruptedView
from stillrobust.errors import UserError, from_worker
from stillrobust.predictors.outputs import device
from stillrobust.runtime import capacity
from stillrobust.samples import Dataset, Image, Sample
from stillrobust.training.batches import single_threaded_opencv

# of one process with a GPU; beyond that the process that takes their batches is what limits
MOST_WORKERS = 16
AHEAD = 4  # batches that each worker has ready
# a folder for each GPU of the machine, whatever CUDA_VISIBLE_DEVICES says
DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class AtSeverities(torch.utils.data.Dataset[list[Sample]]):
    """``views[index]``: one image under one corruption at several severities; decoded once, unless
    the severities are files.
    """

    dataset: Dataset
    views: tuple[Dataset, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> list[Sample]:
        if index >= len(self.dataset):
            raise IndexError(index)
        if not any(isinstance(view, CorruptedView) for view in self.views):
            return [view[index] for view in self.views]
        sample = self.dataset[index]
        return [
            view.applied_to(sample) if isinstance(view, CorruptedView) else view[index]
            for view in self.views
        ]


@dataclass(frozen=True)
class Loaded:
    """Some images at their severities on the way to the model; the loader calls ``pin_memory``
    where a GPU waits.
    """

    samples: Sequence[Sequence[Sample]]

    def pin_memory(self) -> "Loaded":
        """The same with pixels in memory that a GPU copies from by itself, while the processor does
        something else.
        """
        return Loaded(
            [[replace(one, image=_pinned(one.image)) for one in image] for image in self.samples]
        )


def _pinned(image: Image) -> Image:
    pixels: Image = (
        torch.from_numpy(np.require(image, requirements=("C", "W"))).pin_memory().numpy()
    )
    return pixels


def loader_settings(device: torch.device, workers: int | None = None) -> dict[str, Any]:
    """What ``DataLoader`` is told for a model on ``device``; ``workers`` where it shall not be the
    default.

    Beside a GPU, workers read and corrupt images, some batches ahead, and a thread pins them. On a
    CPU the default is none: the model has the cores, and a study has a process on each.
    """
    gpu = device.type == "cuda"
    if workers is None:
        workers = _cores_for_a_gpu() if gpu else 0
    settings: dict[str, Any] = {"num_workers": workers, "pin_memory": gpu}
    return {**settings, "prefetch_factor": AHEAD} if workers else settings


def _cores_for_a_gpu() -> int:
    """A process's share of the cores where each GPU has one process, less the core that feeds the
    model.

    All the machine's GPUs count: the worker of a study sees its own alone.
    """
    gpus = len(list(DRIVER.iterdir())) if DRIVER.is_dir() else 0
    return max(
        1, min(MOST_WORKERS, capacity.cores() // max(1, gpus, torch.cuda.device_count()) - 1)
    )


def batches(
    views: torch.utils.data.Dataset[list[Sample]], batch_size: int, workers: int | None = None
) -> Iterator[Sequence[Sequence[Sample]]]:
    """All images in their order, ``batch_size`` at a time: by image, by severity."""
    loader: DataLoader[list[Sample]] = DataLoader(
        views, batch_size=batch_size, collate_fn=Loaded, **loader_settings(device(), workers)
    )
    try:
        with single_threaded_opencv(loader.num_workers):
            for loaded in loader:
                yield loaded.samples
    except UserError as error:
        raise from_worker(error) from None
