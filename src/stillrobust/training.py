"""The one training loop: fixed-feature or full-network transfer, stopped and resumed at any moment.

Nothing depends on the moment a run was stopped: the order of the data, every augmentation and torch's own draws come from
generators keyed by (seed, step), so that a resumed run ends in the same bits as an undisturbed one on the same machine.
"""

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillrobust.backbones import build_backbone, upstream_digest
from stillrobust.backbones.reader import digest, load_strictly
from stillrobust.errors import UserError
from stillrobust.names import format_spec, lookup, parse_spec
from stillrobust.samples import Dataset, DatasetInfo, Sample
from stillrobust.store import content_key
from stillrobust.tasks import Task, make_task
from stillrobust.tasks.heads import backbone_of, initialise_head

Progress = Callable[[int, int, str], None]
Transfer = Literal["fixed_feature", "full_network"]
TRANSFERS = ("fixed_feature", "full_network")
TRAINING_VERSION = 1  # raised when the loop changes what comes out of it
CLIP_NORM = 5.0  # gradients of a fresh head on a small batch can be large; far above what a running training shows


@dataclass(frozen=True)
class Recipe:
    """How a run is trained. Everything here decides the result but the last block."""

    steps: int = 1000
    batch_size: int = 16
    """Over all processes."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: float = 2e-3
    backbone_lr_factor: float = 0.2
    """The backbone's learning rate in full-network transfer, relative to the head's."""
    weight_decay: float = 0.02
    momentum: float = 0.9
    """SGD's."""
    schedule: Literal["cosine", "step", "poly"] = "cosine"
    warmup: float = 0.15
    """Fraction of the steps over which the learning rate rises linearly from nothing."""
    milestones: tuple[float, ...] = (2 / 3, 11 / 12)
    """``step``: where the rate is divided by ten, as fractions (mmdetection's 1x: epochs 8 and 11 of 12)."""
    norm_eval: bool = True
    """Full-network: BatchNorm of the backbone keeps its ImageNet statistics (the convention of detection)."""
    seed: int = 0
    # How it is run, not what comes out:
    checkpoint_seconds: float = 20.0
    workers: int = 0
    """Processes that read and augment images."""
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"


RUNNING = ("checkpoint_seconds", "workers", "accelerator", "devices", "nodes")


@dataclass(frozen=True)
class Plan:
    """One run: what is trained on what, and how."""

    task: str
    backbone: str
    transfer: Transfer
    recipe: Recipe = Recipe()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of the task that differ from its defaults."""


def identity(plan: Plan, info: DatasetInfo) -> dict[str, Any]:
    """Everything that decides what a run's weights will be, as plain data."""
    recipe = {key: value for key, value in dataclasses.asdict(plan.recipe).items() if key not in RUNNING}
    name, arguments = parse_spec(plan.backbone)
    return {
        "task": plan.task,
        "settings": dataclasses.asdict(make_task(plan.task, plan.settings)),  # type: ignore[call-overload]
        "backbone": name if arguments.get("weights") != "random" else plan.backbone,
        "upstream_weights": upstream_digest(plan.backbone),
        "transfer": lookup("transfer", plan.transfer, {name: name for name in TRANSFERS}),
        "training_data": info.fingerprint,
        "classes": list(info.classes),
        "has_masks": info.has_masks,
        "recipe": recipe,
        "training_version": TRAINING_VERSION,
    }


# ---- the loop ----------------------------------------------------------------------------------------------------------


def train(plan: Plan, dataset: Dataset, folder: Path, progress: Progress = lambda done, total, text: None) -> Path:
    """Train ``plan`` on ``dataset``; the finished model is ``folder/model.safetensors`` with ``folder/model.json``.

    A finished run with the same identity is left as it is, an unfinished one goes on where it was. Raises ``UserError``
    if the loss stops being a number or the folder cannot be written.
    """
    described = json.loads(json.dumps(identity(plan, dataset.info)))
    finished = read_description(folder)
    if finished and finished["identity"] == described and _checked(folder / "model.safetensors", finished["sha256"]):
        return folder
    recipe = plan.recipe
    # A process of one thread each is fastest on CPUs, and repeatable; a GPU has no use for more either.
    fabric = Fabric(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        precision=recipe.precision,  # type: ignore[arg-type]
    )
    if recipe.devices * recipe.nodes > 1:
        fabric.launch()
    task, model, loaded = _build(plan, dataset.info)
    before = digest(backbone_of(model).state_dict()) if plan.transfer == "fixed_feature" else ""
    inside = {id(parameter) for parameter in backbone_of(model).parameters()}
    model = model.to(memory_format=torch.channels_last)
    optimiser = _optimiser(recipe, model, inside)
    base = [group["lr"] for group in optimiser.param_groups]
    step = resume(folder, described, model, optimiser)
    wrapped, optimiser = fabric.setup(model, optimiser)
    wrapped.train()
    saved = time.monotonic()
    for batch in _batches(recipe, task, dataset, step, fabric.global_rank, fabric.world_size):
        torch.manual_seed(_number(recipe.seed, "step", step, fabric.global_rank))
        for group, lr in zip(optimiser.param_groups, base, strict=True):
            group["lr"] = lr * rate(recipe, step)
        losses = task.loss(wrapped, batch)
        loss = torch.stack(list(losses.values())).sum()
        if not math.isfinite(loss.item()):
            raise UserError(
                f"The loss of {plan.task} on {plan.backbone} became {loss.item()} at step {step} of {recipe.steps}; "
                f"lower the learning rate (now {recipe.lr:g}); what was finished before stays"
            )
        optimiser.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(wrapped, optimiser, max_norm=CLIP_NORM)
        optimiser.step()
        step += 1
        progress(step, recipe.steps, f"loss {loss.item():.3f}")
        if fabric.is_global_zero and step < recipe.steps and time.monotonic() - saved > recipe.checkpoint_seconds:
            save(folder, described, model, optimiser, step)
            saved = time.monotonic()
    if before and digest(backbone_of(model).state_dict()) != before:
        raise AssertionError("the frozen backbone changed in training")  # what fixed-feature means; never to be published
    if fabric.is_global_zero:
        finish(folder, described, plan, loaded, model, dataset.info)
    fabric.barrier()
    return folder


def _build(plan: Plan, info: DatasetInfo) -> tuple[Task, nn.Module, str]:
    torch.manual_seed(plan.recipe.seed)  # a backbone of random weights draws from it
    task = make_task(plan.task, plan.settings)
    if info.task != plan.task:
        raise UserError(f"The task {plan.task} needs {plan.task} data, but {info.name} is for {info.task}")
    backbone, loaded = build_backbone(plan.backbone)
    model = task.build_model(backbone, info)
    initialise_head(model, plan.recipe.seed)
    if plan.transfer == "fixed_feature":
        backbone.freeze()
    backbone.norm_eval = plan.recipe.norm_eval
    return task, model, loaded


def _optimiser(recipe: Recipe, model: nn.Module, inside: set[int]) -> torch.optim.Optimizer:
    head = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in inside]
    body = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) in inside]
    groups = [{"params": head, "lr": recipe.lr}]
    if body:
        groups.append({"params": body, "lr": recipe.lr * recipe.backbone_lr_factor})
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)


def rate(recipe: Recipe, step: int) -> float:
    """The learning rate at ``step``, relative to its highest."""
    warmup = round(recipe.steps * recipe.warmup)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, recipe.steps - warmup)
    if recipe.schedule == "step":
        return float(0.1 ** sum(step >= round(recipe.steps * milestone) for milestone in recipe.milestones))
    if recipe.schedule == "poly":
        return float((1 - done) ** 0.9)  # power 0.9: mmsegmentation's schedule_80k
    return 0.5 * (1 + math.cos(math.pi * done))


def _number(*parts: object) -> int:
    """A stable 63-bit number from anything that prints."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


# ---- data, in an order that only the seed decides ----------------------------------------------------------------------


class _Augmented(torch.utils.data.Dataset[Sample]):
    """``augmented[(epoch, index)]``: sample ``index`` as it looks in ``epoch``."""

    def __init__(self, task: Task, dataset: Dataset, seed: int) -> None:
        self.task, self.dataset, self.seed = task, dataset, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        rng = np.random.default_rng(_number(self.seed, "augment", epoch, index))
        return self.task.augment(self.dataset[index], rng)


def order(seed: int, size: int, batch_size: int, steps: int, first: int = 0) -> Iterator[list[tuple[int, int]]]:
    """Batches of (epoch, index) from step ``first`` on. Every epoch is a fresh permutation; batches run across epochs."""
    permutations: dict[int, np.ndarray] = {}
    for step in range(first, steps):
        batch = []
        for position in range(step * batch_size, (step + 1) * batch_size):
            epoch, place = divmod(position, size)
            if epoch not in permutations:
                permutations = {key: value for key, value in permutations.items() if key == epoch - 1}
                permutations[epoch] = np.random.default_rng(_number(seed, "order", epoch)).permutation(size)
            batch.append((epoch, int(permutations[epoch][place])))
        yield batch


def _batches(recipe: Recipe, task: Task, dataset: Dataset, first: int, rank: int, world: int) -> Iterator[list[Sample]]:
    if len(dataset) == 0:
        raise UserError("Expected at least one image to train on, but the dataset is empty")
    steps = [batch[rank::world] for batch in order(recipe.seed, len(dataset), recipe.batch_size, recipe.steps, first)]
    loader = torch.utils.data.DataLoader(
        _Augmented(task, dataset, recipe.seed),
        batch_sampler=steps,
        num_workers=recipe.workers,
        collate_fn=list,
        persistent_workers=False,
    )
    yield from loader


# ---- checkpoints: safetensors + JSON, whole or not at all ---------------------------------------------------------------


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path) == sha256


def _write_pair(folder: Path, name: str, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """``name.safetensors`` first, ``name.json`` with its checksum last: the JSON's presence means that both are whole."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights, temporary = folder / f"{name}.safetensors", folder / f".{name}.{os.getpid()}.tmp"
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary)
        description = {**description, "sha256": _sha256(temporary)}
        _sync(temporary)
        temporary.replace(weights)
        temporary.write_text(json.dumps(description, indent=1), encoding="utf-8")
        _sync(temporary)
        temporary.replace(folder / f"{name}.json")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"Cannot write {folder / name} ({reason}); free some space or choose another folder") from None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"identity", "sha256"} <= content.keys() else None


def save(folder: Path, described: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    """Write what :func:`resume` needs."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": v for key, v in values.items() if isinstance(v, Tensor)}
    _write_pair(folder, "resume", tensors, {"identity": described, "step": step})


def resume(folder: Path, described: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Load what :func:`save` wrote for the same identity; returns the step to go on from, 0 where there is nothing."""
    description = _read_json(folder / "resume.json")
    path = folder / "resume.safetensors"
    if not description or description["identity"] != described or not _checked(path, description["sha256"]):
        return 0
    tensors = load_file(path)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(description["step"])


def finish(folder: Path, described: dict[str, Any], plan: Plan, loaded: str, model: nn.Module, info: DatasetInfo) -> None:
    """Write the finished model, then drop what was kept for resuming."""
    description = {
        "identity": described,
        "key": content_key(described),
        "plan": {
            "task": plan.task,
            "backbone": plan.backbone,
            "transfer": plan.transfer,
            "settings": dict(plan.settings),
        },
        "loaded": loaded,
        "info": dataclasses.asdict(info),
    }
    _write_pair(folder, "model", model.state_dict(), description)
    for name in ("resume.json", "resume.safetensors"):
        (folder / name).unlink(missing_ok=True)


def read_description(folder: Path) -> dict[str, Any] | None:
    """The JSON of a finished run in ``folder``, or ``None`` where there is none."""
    return _read_json(folder / "model.json")


def load_model(folder: Path) -> tuple[Task, nn.Module, dict[str, Any]]:
    """The finished model in ``folder``, in evaluation mode, with its task and its description."""
    description = read_description(folder)
    if description is None:
        raise UserError(f"Expected a finished run (model.json, model.safetensors) in {folder}, but there is none")
    path = folder / "model.safetensors"
    if not _checked(path, description["sha256"]):
        raise UserError(f"The weights in {path} are not those that were written (checksum differs); train the run again")
    plan = description["plan"]
    info = DatasetInfo(**{**description["info"], "classes": tuple(description["info"]["classes"])})
    task = make_task(plan["task"], plan["settings"])
    name, _ = parse_spec(plan["backbone"])
    backbone, _ = build_backbone(format_spec(name, {"weights": "random"}))
    model = task.build_model(backbone, info)
    load_strictly(model, load_file(path), str(path))
    return task, model.eval().to(memory_format=torch.channels_last), description
