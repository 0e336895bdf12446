"""Batches of training data whose order and augmentations depend on the seed alone."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch

from stillrobust.data.contract import read_checked
from stillrobust.errors import UserError, unwrap_worker_error
from stillrobust.samples import Dataset, Sample
from stillrobust.tasks import Task

MakeViews = Callable[[Sample, np.random.Generator], list[Sample]]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any values that print, the same on every machine."""
    return (
        int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1
    )


class AugmentedDataset(torch.utils.data.Dataset[list[Sample]]):
    """``augmented[(epoch, index)]``: the views of sample ``index`` in ``epoch``.

    Args:
        task: Its ``augment`` is applied first.
        dataset: Images with ground truth. One with ``at_epoch`` shows other images every epoch.
        seed: Seed of the run.
        make_views: Makes the views of an augmented sample.
        stream: Name of the random stream; another name gives other augmentations.
        first_epoch: Epoch of ``dataset`` that epoch 0 shows.
    """

    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        seed: int,
        make_views: MakeViews,
        stream: str = "augment",
        first_epoch: int = 0,
    ) -> None:
        self.task, self.dataset, self.seed, self.make_views = task, dataset, seed, make_views
        self.stream, self.first_epoch = stream, first_epoch

    def __getitem__(self, key: tuple[int, int]) -> list[Sample]:
        epoch, index = key
        rng = np.random.default_rng(derive_seed(self.seed, self.stream, epoch, index))
        at_epoch = getattr(self.dataset, "at_epoch", lambda _: self.dataset)
        sample = read_checked(at_epoch(self.first_epoch + epoch), index)
        return self.make_views(self.task.augment(sample, rng), rng)


def batch_indices(
    seed: int, size: int, batch_size: int, steps: int, first: int = 0, stream: str = "order"
) -> Iterator[list[tuple[int, int]]]:
    """Yield the batches of a training as (epoch, index) pairs.

    Every epoch is a fresh permutation; batches run across epochs.

    Args:
        seed: Seed of the run.
        size: Number of images.
        batch_size: Images in a batch.
        steps: Batches in the whole training.
        first: Step to start from.
        stream: Name of the random stream; another name gives another order.
    """
    permutations: dict[int, np.ndarray] = {}
    for step in range(first, steps):
        batch = []
        for position in range(step * batch_size, (step + 1) * batch_size):
            epoch, place = divmod(position, size)
            if epoch not in permutations:
                permutations = {
                    key: value for key, value in permutations.items() if key == epoch - 1
                }
                rng = np.random.default_rng(derive_seed(seed, stream, epoch))
                permutations[epoch] = rng.permutation(size)
            batch.append((epoch, int(permutations[epoch][place])))
        yield batch


def load_batches(
    examples: AugmentedDataset,
    indices: Iterable[list[tuple[int, int]]],
    workers: int,
    rank: int,
    world_size: int,
) -> Iterator[list[list[Sample]]]:
    """Load this process's part of every batch.

    Args:
        examples: The augmented data.
        indices: Whole batches of (epoch, index), from ``batch_indices``.
        workers: Loader processes; 0 loads in this process.
        rank: Number of this process.
        world_size: Number of processes that train together.

    Raises:
        UserError: If a worker raised one.
    """
    loader = torch.utils.data.DataLoader(
        examples,
        batch_sampler=(batch[rank::world_size] for batch in indices),
        num_workers=workers,
        collate_fn=list,
        persistent_workers=False,
    )
    try:
        with single_threaded_opencv(workers):
            yield from loader
    except UserError as error:
        raise unwrap_worker_error(error) from None


@contextmanager
def single_threaded_opencv(workers: int) -> Iterator[None]:
    """Limit OpenCV to one thread while ``workers`` loader processes are forked and run.

    The workers inherit the limit. To set it in a worker would deadlock: a fork does not copy the
    threads that OpenCV would wait for.
    """
    threads = cv2.getNumThreads()
    if workers:
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def companion_batches(
    examples: AugmentedDataset,
    batch_size: int,
    workers: int,
    rank: int,
    world_size: int,
    epoch: int,
) -> Iterator[list[list[Sample]]]:
    """Load the images of ``epoch`` once more, in another order and with other augmentations.

    A network that trains beside the model takes them. Arguments are those of ``load_batches``.
    """
    size, stream = len(examples.dataset), f"fresh {epoch}"
    other = AugmentedDataset(
        examples.task, examples.dataset, examples.seed, examples.make_views, stream, epoch
    )
    indices = batch_indices(
        examples.seed, size, batch_size, max(1, size // batch_size), stream=stream
    )
    yield from load_batches(other, indices, workers, rank, world_size)
