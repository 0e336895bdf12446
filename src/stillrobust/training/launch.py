"""Processes of a training: on the devices of this machine, or as torchrun or srun started them."""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import active_children, get_context
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
"""``progress(done, total, text)``, counted in steps."""
TrainFunction = Callable[[Fabric, Progress], None]


def launch(recipe: Recipe, function: TrainFunction, progress: Progress) -> None:
    """Call ``function(fabric, progress)`` in each of the recipe's processes.

    Args:
        recipe: Says how many processes train, and on which devices.
        function: Runs in each process. It is pickled if ``spawns_processes(recipe)``.
        progress: Receives the reports of the first process.

    Raises:
        UserError: If the processes do not fit the recipe, or ``function`` raised one in any of
            them.
    """
    started = launched_processes()
    if started:
        recipe = _with_launched_processes(recipe, *started)
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
    if not spawns_processes(recipe):
        fabric.launch()
        function(fabric, progress if fabric.is_global_zero else lambda done, total, text: None)
        return
    channel = get_context("spawn").SimpleQueue()
    errors: list[str] = []
    listener = threading.Thread(
        target=_forward_reports, args=(channel, progress, errors), daemon=True
    )
    listener.start()
    try:
        fabric.launch(_run_in_child, function, channel)  # type: ignore[arg-type]
    except ProcessRaisedException:
        channel.put(None)
        listener.join()
        if not errors:
            raise
        raise UserError(errors[0]) from None
    except KeyboardInterrupt:  # SIGTERM, unlike Ctrl-C, reaches this process alone
        for child in active_children():
            child.terminate()
        raise
    channel.put(None)
    listener.join()


def launched_processes() -> tuple[int, int] | None:
    """The processes that torchrun or srun started together with this one.

    Returns:
        (processes on each node, nodes); ``None`` if this process was started alone.
    """
    if TorchElasticEnvironment.detect():
        return int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ.get("GROUP_WORLD_SIZE", 1))
    tasks, nodes = (int(os.environ.get(f"SLURM_STEP_NUM_{name}", 1)) for name in ("TASKS", "NODES"))
    # alone in its step, a process starts others as anywhere else
    return (tasks // nodes, nodes) if tasks > 1 else None


def spawns_processes(recipe: Recipe) -> bool:
    """Whether ``launch`` starts child processes, instead of training in this one."""
    return launched_processes() is None and recipe.devices * recipe.nodes > 1


def is_main_process() -> bool:
    """Whether this process writes files and prints: rank 0, or any that was started alone."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    return not launched_processes() or rank == "0"


def _with_launched_processes(recipe: Recipe, devices: int, nodes: int) -> Recipe:
    """The recipe with the launcher's number of processes; another number in it is a mistake."""
    expected = recipe.devices * recipe.nodes
    if expected not in (1, devices * nodes):
        raise UserError(
            f"Expected the {devices * nodes} processes that were started, but the recipe asks for"
            f" {recipe.devices} devices on {recipe.nodes} nodes; leave both out, or start"
            f" {expected}"
        )
    return replace(recipe, devices=devices, nodes=nodes)


class AutocastPrecision(MixedPrecision):
    """Half precision inside autocast, with inputs in full precision.

    Fabric would convert the inputs too, which rounds boxes at 1333 pixels to multiples of 8.
    """

    def convert_input(self, data: Any) -> Any:
        """Return the inputs unchanged."""
        return data


def make_fabric(recipe: Recipe, start_method: Literal["popen", "spawn"] = "spawn") -> Fabric:
    """Lightning Fabric for the recipe, with DDP for several processes.

    Args:
        recipe: Accelerator, devices, nodes and precision.
        start_method: ``popen`` if torchrun or srun started the processes, ``spawn`` otherwise.
    """
    on_gpu = recipe.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    precision = Precision()
    if recipe.precision != "32-true":
        precision = AutocastPrecision(recipe.precision, "cuda" if on_gpu else "cpu")
    # Fabric takes any process in a Slurm job for one of several; `launched_processes` decides here
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


def _run_in_child(fabric: Fabric, function: TrainFunction, channel: Any) -> None:
    def progress(done: int, total: int, text: str) -> None:
        if fabric.is_global_zero:
            channel.put((done, total, text))

    try:
        function(fabric, progress)
    except UserError as error:
        channel.put(str(error))
        raise


def _forward_reports(channel: Any, progress: Progress, errors: list[str]) -> None:
    """Pass reports of the first process to ``progress``, and collect user errors of all."""
    while (report := channel.get()) is not None:
        if isinstance(report, str):
            errors.append(report)
        else:
            progress(*report)
