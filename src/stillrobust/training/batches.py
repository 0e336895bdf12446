"""Training data in an order, and with augmentations, that only the seed decides."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch

from stillrobust.errors import UserError, unwrap_worker_error
from stillrobust.samples import Dataset, Sample
from stillrobust.tasks import Task

ViewsOf = Callable[[Sample, np.random.Generator], list[Sample]]


def number(*parts: object) -> int:
    """A stable 63-bit number from anything that prints."""
    return (
        int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1
    )


class Augmented(torch.utils.data.Dataset[list[Sample]]):
    """``augmented[(epoch, index)]``: the views of sample ``index`` in ``epoch``.

    Other ``use``s of an epoch see other draws; the dataset shows the images of its epoch ``first``
    in the first one.
    """

    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        seed: int,
        views_of: ViewsOf,
        use: str = "augment",
        first: int = 0,
    ) -> None:
        self.task, self.dataset, self.seed, self.views_of, self.use, self.first = (
            task,
            dataset,
            seed,
            views_of,
            use,
            first,
        )

    def __getitem__(self, key: tuple[int, int]) -> list[Sample]:
        epoch, index = key
        rng = np.random.default_rng(number(self.seed, self.use, epoch, index))
        # of one that shows other images every epoch
        at_epoch = getattr(self.dataset, "at_epoch", lambda _: self.dataset)
        return self.views_of(self.task.augment(at_epoch(self.first + epoch)[index], rng), rng)


def order(
    seed: int, size: int, batch_size: int, steps: int, first: int = 0, use: str = "order"
) -> Iterator[list[tuple[int, int]]]:
    """Batches of (epoch, index) from step ``first`` on.

    Every epoch is a fresh permutation; batches run across epochs.
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
                permutations[epoch] = np.random.default_rng(number(seed, use, epoch)).permutation(
                    size
                )
            batch.append((epoch, int(permutations[epoch][place])))
        yield batch


def batches(
    examples: Augmented,
    places: Iterable[list[tuple[int, int]]],
    workers: int,
    rank: int,
    world: int,
) -> Iterator[list[list[Sample]]]:
    """This process's part of every batch."""
    loader = torch.utils.data.DataLoader(
        examples,
        batch_sampler=(batch[rank::world] for batch in places),
        num_workers=workers,
        collate_fn=list,
        persistent_workers=False,
    )
    try:
        with one_thread_each(workers):
            yield from loader
    except UserError as error:
        raise unwrap_worker_error(error) from None


@contextmanager
def one_thread_each(workers: int) -> Iterator[None]:
    """While a loader's workers are forked and at work: OpenCV has one thread here, and so in each
    of them.

    To set it there would wait for ever for the threads that a fork does not take along.
    """
    threads = cv2.getNumThreads()
    if workers:
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def fresh_epoch(
    examples: Augmented, batch_size: int, workers: int, rank: int, world: int, epoch: int
) -> Iterator[list[list[Sample]]]:
    """The images of ``epoch`` once more, in another order and with other augmentations, for what
    trains beside the model.
    """
    size = len(examples.dataset)
    other = Augmented(
        examples.task,
        examples.dataset,
        examples.seed,
        examples.views_of,
        use=f"fresh {epoch}",
        first=epoch,
    )
    places = order(
        examples.seed, size, batch_size, max(1, size // batch_size), use=f"fresh {epoch}"
    )
    yield from batches(other, places, workers, rank, world)
