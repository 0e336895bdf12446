"""The data loader of an evaluation: each image is read once for all severities of a corruption."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from stillrobust.data.contract import read_checked
from stillrobust.data.views import CorruptedView
from stillrobust.errors import UserError, unwrap_worker_error
from stillrobust.predictors.outputs import default_device
from stillrobust.runtime import capacity
from stillrobust.samples import Dataset, Image, Sample
from stillrobust.training.batches import single_threaded_opencv

# per GPU process; with more, the process that collects their batches is the bottleneck
MOST_WORKERS = 16
PREFETCH = 4  # batches that each worker prepares
# has a folder per GPU of the machine, whatever CUDA_VISIBLE_DEVICES is
DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class SeverityViews(torch.utils.data.Dataset[list[Sample]]):
    """A dataset whose item is one image at several severities of a corruption.

    The image is decoded once, unless the severities are stored as files.
    """

    dataset: Dataset
    views: tuple[Dataset, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> list[Sample]:
        if index >= len(self.dataset):
            raise IndexError(index)
        if not any(isinstance(view, CorruptedView) for view in self.views):
            return [read_checked(view, index) for view in self.views]
        sample = read_checked(self.dataset, index)
        return [
            view.corrupt_sample(sample)
            if isinstance(view, CorruptedView)
            else read_checked(view, index)
            for view in self.views
        ]


@dataclass(frozen=True)
class LoadedBatch:
    """A batch of images at their severities. The loader calls ``pin_memory`` for a GPU."""

    samples: Sequence[Sequence[Sample]]

    def pin_memory(self) -> "LoadedBatch":
        """Return the batch in page-locked memory, from which a GPU copies asynchronously."""
        return LoadedBatch(
            [[replace(one, image=_pin(one.image)) for one in image] for image in self.samples]
        )


def _pin(image: Image) -> Image:
    pixels: Image = (
        torch.from_numpy(np.require(image, requirements=("C", "W"))).pin_memory().numpy()
    )
    return pixels


def loader_settings(default_device: torch.device, workers: int | None = None) -> dict[str, Any]:
    """Return the worker and memory settings of ``DataLoader``.

    For a GPU, worker processes read and corrupt images ahead of the model. For a CPU the default is
    no worker: the model uses the cores, and a study has a process on each.

    Args:
        device: Device of the model.
        workers: Number of worker processes (default: by device).
    """
    gpu = default_device.type == "cuda"
    if workers is None:
        workers = _default_gpu_workers() if gpu else 0
    settings: dict[str, Any] = {"num_workers": workers, "pin_memory": gpu}
    return {**settings, "prefetch_factor": PREFETCH} if workers else settings


def _default_gpu_workers() -> int:
    """Return this process's share of the cores, minus one that feeds the model.

    Every GPU of the machine is assumed to have a process, because a study hides all GPUs but one.
    """
    gpus = len(list(DRIVER.iterdir())) if DRIVER.is_dir() else 0
    return max(
        1, min(MOST_WORKERS, capacity.cores() // max(1, gpus, torch.cuda.device_count()) - 1)
    )


def load_severity_batches(
    views: torch.utils.data.Dataset[list[Sample]], batch_size: int, workers: int | None = None
) -> Iterator[Sequence[Sequence[Sample]]]:
    """Load all images in order.

    Args:
        views: Dataset of one image at several severities per item.
        batch_size: Images per batch.
        workers: Number of worker processes (default: by device).

    Yields:
        Samples by image and severity.

    Raises:
        UserError: If an image cannot be read.
    """
    loader: DataLoader[list[Sample]] = DataLoader(
        views,
        batch_size=batch_size,
        collate_fn=LoadedBatch,
        **loader_settings(default_device(), workers),
    )
    try:
        with single_threaded_opencv(loader.num_workers):
            for loaded in loader:
                yield loaded.samples
    except UserError as error:
        raise unwrap_worker_error(error) from None
