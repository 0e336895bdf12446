"""Training in one process or in several: on the devices of this machine, or wherever torchrun or
srun started us.
"""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessRaisedException

from stillrobust.errors import UserError
from stillrobust.tasks.recipes import Recipe

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every process

Progress = Callable[[int, int, str], None]
Work = Callable[[Fabric, Progress], None]


def launch(recipe: Recipe, work: Work, progress: Progress) -> None:
    """``work(fabric, progress)`` in each of the recipe's processes; ``progress`` hears of the first
    one.

    ``work`` can be pickled where there are several, such as a ``partial``. Raises the ``UserError``
    of any of them.
    """
    started = launched()
    if started:
        recipe = _as_started(recipe, *started)
    processes = recipe.devices * recipe.nodes
    if recipe.batch_size < processes:
        raise UserError(
            f"Expected an image or more for each of {processes} processes, but batch_size is"
            f" {recipe.batch_size}; raise it"
        )
    if recipe.nodes > 1 and not started:
        raise UserError(
            f"Expected torchrun or srun to start the processes of {recipe.nodes} nodes; use one, or"
            " set nodes: 1"
        )
    fabric = make_fabric(recipe, "popen" if started else "spawn")
    if processes == 1 or started:
        fabric.launch()
        work(fabric, progress if fabric.is_global_zero else lambda done, total, text: None)
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


def launched() -> tuple[int, int] | None:
    """(processes on each node, nodes) where torchrun or srun started this process as one of them;
    else ``None``.
    """
    if TorchElasticEnvironment.detect():
        return int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ.get("GROUP_WORLD_SIZE", 1))
    tasks, nodes = (int(os.environ.get(f"SLURM_STEP_NUM_{name}", 1)) for name in ("TASKS", "NODES"))
    # alone in its step, a process starts others as anywhere else
    return (tasks // nodes, nodes) if tasks > 1 else None


def leads() -> bool:
    """Whether this process is the one that writes and speaks: any that was not launched, and the
    first of those that were.
    """
    return not launched() or os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _as_started(recipe: Recipe, devices: int, nodes: int) -> Recipe:
    """The launcher says how many processes there are; a recipe that says something else is a
    mistake of one of them.
    """
    asked = recipe.devices * recipe.nodes
    if asked not in (1, devices * nodes):
        raise UserError(
            f"Expected the {devices * nodes} processes that were started, but the recipe asks for"
            f" {recipe.devices} devices on {recipe.nodes} nodes; leave both out, or start {asked}"
        )
    return replace(recipe, devices=devices, nodes=nodes)


class Mixed(MixedPrecision):
    """Half precision where autocast takes it.

    Inputs stay whole: Fabric would round boxes of 1333 pixels to multiples of 8.
    """

    def convert_input(self, data: Any) -> Any:
        """As it is."""
        return data


def make_fabric(recipe: Recipe, start_method: Literal["popen", "spawn"] = "spawn") -> Fabric:
    """Lightning Fabric for the recipe; DDP where it has several processes."""
    on_gpu = recipe.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    precision = Precision()
    if recipe.precision != "32-true":
        precision = Mixed(recipe.precision, "cuda" if on_gpu else "cpu")
    # Fabric would take any process in a job of Slurm for one of several; whether it is, `launched`
    # says.
    environment: list[Any] = [] if start_method == "popen" else [LightningEnvironment()]
    return Fabric(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        plugins=[precision, *environment],
        strategy=(
            DDPStrategy(start_method=start_method) if recipe.devices * recipe.nodes > 1 else "auto"
        ),
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
