"""Evaluation by several processes that torchrun or srun started.

Each process evaluates a shard of the images, and the main process writes. Shards are consecutive
whole batches, so the merged result equals that of a single process bit by bit.
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

TIMEOUT = timedelta(days=1)  # the launcher ends all processes if one dies


@dataclass(frozen=True)
class ProcessGroup:
    """Process ``rank`` of ``size`` processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def shard(self, images: int, batch_size: int) -> range:
        """Return the indices of this process's images; may be empty.

        Args:
            images: Number of images of the dataset.
            batch_size: Images per batch. Batches are not split.
        """
        batches = -(-images // batch_size)
        start, end = (batches * rank // self.size for rank in (self.rank, self.rank + 1))
        return range(start * batch_size, min(end * batch_size, images))

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes in the main process, by rank; empty in the others."""
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.is_main_process else None
        dist.gather_object(value, values)
        return values or []

    def broadcast(self, value: Any) -> Any:
        """Return the main process's ``value`` in all processes."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]


SINGLE_PROCESS = ProcessGroup()


def join_process_group() -> ProcessGroup:
    """Join the processes that torchrun or srun started, each on its own GPU if there are GPUs.

    Returns:
        The group, or :data:`SINGLE_PROCESS` if this process was started alone.
    """
    started = launched_processes()
    if started is None or started == (1, 1):
        return SINGLE_PROCESS
    environment = (
        TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment()
    )
    rank, size = environment.global_rank(), environment.world_size()
    os.environ.setdefault("MASTER_ADDR", environment.main_address)
    os.environ.setdefault("MASTER_PORT", str(environment.main_port))
    if torch.cuda.is_available():
        torch.cuda.set_device(environment.local_rank() % torch.cuda.device_count())
    dist.init_process_group("gloo", rank=rank, world_size=size, timeout=TIMEOUT)
    return ProcessGroup(rank, size)
