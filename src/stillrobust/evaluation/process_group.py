"""Several processes, started by torchrun or srun, evaluate together: each has a part of the images,
the first keeps the numbers.

Parts are whole batches, one after another: put together in the order of the processes they are what
one process measures, bit by bit, and every image is in one part.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from stillrobust.training.launch import launched_processes

PATIENCE = timedelta(days=1)  # with the slowest; of one that died the launcher ends the others


@dataclass(frozen=True)
class Group:
    """Process ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def part(self, images: int, batch_size: int) -> range:
        """The images of this process, of so many in batches of ``batch_size``; may be none."""
        batches = -(-images // batch_size)
        start, end = (batches * rank // self.size for rank in (self.rank, self.rank + 1))
        return range(start * batch_size, min(end * batch_size, images))

    def gathered(self, value: Any) -> list[Any]:
        """In the first process everybody's ``value``, in order; nothing in the others."""
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.first else None
        dist.gather_object(value, values)
        return values or []

    def same(self, value: Any) -> Any:
        """The first process's ``value``."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]


ALONE = Group()


def join() -> Group:
    """The group that this process was started in, each on its own GPU where there are any;
    :data:`ALONE` if it was not.
    """
    started = launched_processes()
    if started is None or started == (1, 1):
        return ALONE
    environment = (
        TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment()
    )
    rank, size = environment.global_rank(), environment.world_size()
    os.environ.setdefault("MASTER_ADDR", environment.main_address)
    os.environ.setdefault("MASTER_PORT", str(environment.main_port))
    if torch.cuda.is_available():
        torch.cuda.set_device(environment.local_rank() % torch.cuda.device_count())
    dist.init_process_group("gloo", rank=rank, world_size=size, timeout=PATIENCE)
    return Group(rank, size)
