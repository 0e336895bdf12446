"""Training in one process or in several: on the devices of this machine, or wherever torchrun or SLURM started us."""

import logging
import threading
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessRaisedException

from stillrobust.errors import UserError
from stillrobust.tasks.recipes import Recipe

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every process

Progress = Callable[[int, int, str], None]
Work = Callable[[Fabric, Progress], None]


def leads() -> bool:
    """Whether this is the first of the processes that torchrun or SLURM started together, or was started alone."""
    for environment in (TorchElasticEnvironment, SLURMEnvironment):
        if environment.detect():
            return environment().global_rank() == 0
    return True


def launch(recipe: Recipe, work: Work, progress: Progress) -> None:
    """``work(fabric, progress)`` in each of the recipe's processes; ``progress`` hears of the first one.

    ``work`` can be pickled where there are several, such as a ``partial``. Raises the ``UserError`` of any of them.
    """
    processes = recipe.devices * recipe.nodes
    started = TorchElasticEnvironment.detect() or SLURMEnvironment.detect()
    if recipe.batch_size < processes:
        raise UserError(
            f"Expected an image or more for each of {processes} processes, but batch_size is {recipe.batch_size}; raise it"
        )
    if recipe.nodes > 1 and not started:
        raise UserError(f"Expected torchrun or SLURM to start the processes of {recipe.nodes} nodes; use one, or set nodes: 1")
    fabric = make_fabric(recipe, "popen" if started else "spawn")
    if processes == 1 or started:
        fabric.launch()
        work(fabric, progress)
        return
    channel = get_context("spawn").SimpleQueue()
    said: list[str] = []
    listener = threading.Thread(target=_listen, args=(channel, progress, said), daemon=True)
    listener.start()
    try:
        fabric.launch(_in_child, work, channel)  # type: ignore[arg-type]
    except ProcessRaisedException:
        channel.put(None)
        listener.join()
        if not said:
            raise
        raise UserError(said[0]) from None
    channel.put(None)
    listener.join()


class Mixed(MixedPrecision):
    """Half precision where autocast takes it. Inputs stay whole: Fabric would round boxes of 1333 pixels to multiples of 8."""

    def convert_input(self, data: Any) -> Any:
        """As it is."""
        return data


def make_fabric(recipe: Recipe, start_method: Literal["popen", "spawn"] = "spawn") -> Fabric:
    """Lightning Fabric for the recipe; DDP where it has several processes."""
    on_gpu = recipe.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    precision = Precision()
    if recipe.precision != "32-true":
        precision = Mixed(recipe.precision, "cuda" if on_gpu else "cpu")
    return Fabric(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        plugins=precision,
        strategy=DDPStrategy(start_method=start_method) if recipe.devices * recipe.nodes > 1 else "auto",
    )


def _in_child(fabric: Fabric, work: Work, channel: Any) -> None:
    def progress(done: int, total: int, text: str) -> None:
        if fabric.is_global_zero:
            channel.put((done, total, text))

    try:
        work(fabric, progress)
    except UserError as error:
        channel.put(str(error))
        raise


def _listen(channel: Any, progress: Progress, said: list[str]) -> None:
    """Hand on what the first process reports, and keep what any says of a user's mistake."""
    while (news := channel.get()) is not None:
        if isinstance(news, str):
            said.append(news)
        else:
            progress(*news)
