"""The one training loop: transfer to a task, or upstream training that makes a backbone robust;
stopped and resumed at any moment.

Nothing depends on the moment a run was stopped: the order of the data, every augmentation and
torch's own draws come from generators keyed by (seed, step), so that a resumed run ends in the same
bits as an undisturbed one on the same machine.
"""

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import nn

from stillrobust.backbones import (
    Backbone,
    build_backbone,
    made,
    maker_of,
    published_preprocessing,
    shown,
    upstream_digest,
)
from stillrobust.backbones.reader import digest, load_strictly
from stillrobust.errors import UserError
from stillrobust.names import format_spec, lookup, parse_spec
from stillrobust.robustify import build_technique
from stillrobust.robustify.technique import require_photometric
from stillrobust.runtime.run_log import RUN_LOG, note
from stillrobust.samples import Dataset, DatasetInfo
from stillrobust.storage.leases import Lease, lease
from stillrobust.tasks import Classification, Task, make_task
from stillrobust.tasks.classification import classes_of
from stillrobust.tasks.heads import backbone_of, initialise_head
from stillrobust.tasks.processes import synchronise
from stillrobust.tasks.recipes import Recipe
from stillrobust.training.batches import Augmented, batches, fresh_epoch, number, order
from stillrobust.training.launch import Progress, launch, leads
from stillrobust.training.optimizer import make_optimiser, set_rates
from stillrobust.training.run_files import (
    checked,
    finish,
    finished,
    read_description,
    resume,
    save,
    tidy,
    untidy,
)
from stillrobust.training.technique_hooks import InTransfer, Upstream, Work
from stillrobust.training.training_monitor import Watched
from stillrobust.user_files import keyed, pinned
from stillrobust.user_files import shown as shown_spec

__all__ = ["TRANSFERS", "Plan", "Recipe", "identity", "load_model", "train"]

Transfer = Literal["fixed_feature", "full_network", "released_freeze", "upstream", "robustify"]
TRANSFERS: dict[str, str] = {
    "fixed_feature": "the backbone frozen: no gradient, BatchNorm statistics and DropPath included",
    "full_network": "everything trains",
    "released_freeze": (
        "the paper's released fixed-feature: rate 0 in the backbone, with the leaks that it has"
        " (docs/training.md)"
    ),
    "upstream": "nothing trains: the backbone's own ImageNet classifier is evaluated",
    "robustify": (
        "everything trains, with the backbone's own classifier: no transfer, but what makes a"
        " backbone"
    ),
}
TRAINING_VERSION = 3  # raised when the loop changes what comes out of it
IN_TRANSFER_VERSION = 2  # raised when a technique acts in a transfer in another way

# Of a recipe, what does not decide the weights.
RUNNING = ("checkpoint_seconds", "workers", "accelerator", "devices", "nodes", "settings", "source")


@dataclass(frozen=True)
class Plan:
    """One run: what is trained on what, and how."""

    task: str
    backbone: str
    transfer: Transfer
    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of the task that differ from the recipe's and from its defaults."""
    technique: str = ""
    """The technique that acts on the images in training, such as ``prime(geometry=False)``; empty
    for none.
    """

    def __post_init__(self) -> None:
        # one training, one content of a file of your own
        object.__setattr__(self, "technique", pinned(self.technique))

    def make_task(self) -> Task:
        """The task with the recipe's settings and, before those, the plan's own."""
        return make_task(self.task, {**self.recipe.settings, **self.settings})


def identity(plan: Plan, info: DatasetInfo) -> dict[str, Any]:
    """Everything that decides what a run's weights will be, as plain data."""
    recipe = {
        key: value for key, value in dataclasses.asdict(plan.recipe).items() if key not in RUNNING
    }
    name, arguments = parse_spec(plan.backbone)
    lookup("transfer", plan.transfer, TRANSFERS)
    trains = plan.transfer != "upstream"
    technique = build_technique(plan.technique).spec if plan.technique else ""
    return {
        "task": plan.task,
        "settings": dataclasses.asdict(plan.make_task()),  # type: ignore[call-overload]
        "backbone": name if arguments.get("weights") != "random" else plan.backbone,
        "upstream_weights": upstream_digest(plan.backbone),
        "preprocessing": published_preprocessing(plan.backbone),
        "transfer": plan.transfer,
        "technique": shown_spec(technique),
        **(
            {"in_transfer_version": IN_TRANSFER_VERSION}
            if technique and plan.transfer != "robustify"
            else {}
        ),
        **({"technique_files": keyed(technique)} if keyed(technique) != technique else {}),
        "training_data": info.fingerprint if trains else "none",
        "classes": list(info.classes),
        "has_masks": info.has_masks,
        "recipe": recipe if trains else {"seed": plan.recipe.seed},
        "training_version": TRAINING_VERSION,
    }


# ---- the loop
# ----------------------------------------------------------------------------------------------------------


def train(
    plan: Plan,
    dataset: Dataset,
    folder: Path | str,
    progress: Progress = lambda done, total, text: None,
    log: Path | None = None,
) -> Path:
    """Train ``plan`` on ``dataset``; the finished model is ``folder/model.safetensors`` with
    ``folder/model.json``.

    A finished run with the same identity is left as it is, an unfinished one goes on where it was.
    ``log`` is by default ``folder/run.log``; curves for TensorBoard lie beside it. Raises
    ``UserError`` if the loss stops being a number or the folder cannot be written, ``Held`` while
    another process trains in the folder.
    """
    folder = Path(folder)
    if len(dataset) == 0:
        raise UserError(
            "Expected at least one image to train on, but the dataset is empty; check its train"
            " split"
        )
    dataset = _extended(plan, dataset)
    described = json.loads(json.dumps(identity(plan, dataset.info)))
    if finished(folder, described) and not untidy(folder):
        return folder
    # here already: what does not fit is said before anything starts
    _, model, loaded = build(plan, dataset.info)
    _require_fit(plan)
    _require_same_start(plan, described)
    # Of several processes that were started together, the first holds it for all.
    with lease(folder) if leads() else nullcontext() as held:
        done = finished(folder, described)
        if held:
            tidy(folder, done)
        if done:
            return folder
        if plan.transfer == "upstream":
            if held:
                finish(folder, described, _described(plan, model), loaded, model, dataset.info)
            return folder
        log = log or folder / RUN_LOG
        if held:
            note(log, f"training: {plan}; data: {dataset.info.name}; {loaded}")
        launch(plan.recipe, partial(_loop, plan, dataset, folder, log, described, held), progress)
        if held:
            note(log, "training finished")
    return folder


def _require_fit(plan: Plan) -> None:
    """Raise ``UserError`` for a technique or a batch that the task cannot be trained with."""
    if plan.technique and plan.transfer != "robustify":
        require_photometric(build_technique(plan.technique), plan.task)
    if plan.task == "segmentation" and plan.recipe.batch_size == 1 and plan.transfer != "upstream":
        raise UserError(
            "Expected at least two images a step in training for segmentation, but batch_size is 1;"
            " give 2 or more: UPerNet pools an image to one pixel, which alone has no spread to"
            " normalise by"
        )


def _extended(plan: Plan, dataset: Dataset) -> Dataset:
    """The set that is trained on: upstream a technique may add images, of which none may be
    missing.
    """
    extend = (
        build_technique(plan.technique).extend_dataset
        if plan.technique and plan.transfer == "robustify"
        else None
    )
    return extend(dataset, plan.recipe.seed) if extend else dataset


def _loop(
    plan: Plan,
    dataset: Dataset,
    folder: Path,
    log: Path,
    described: dict[str, Any],
    held: Lease | None,
    fabric: Fabric,
    progress: Progress,
) -> None:
    """In every process that trains: its part of each batch, the same step on the same weights."""
    recipe, lead = plan.recipe, held if fabric.is_global_zero else None
    task, model, loaded = build(plan, dataset.info)
    _require_same_start(plan, described)
    before = digest(backbone_of(model).state_dict()) if plan.transfer == "fixed_feature" else ""
    upstream = plan.transfer == "robustify"
    work: Work = (
        Upstream(plan.technique, fabric.device) if upstream else InTransfer(task, plan.technique)
    )
    steps = recipe.total_steps(len(dataset))
    model = model.to(memory_format=torch.channels_last)
    if fabric.world_size > 1:
        synchronise(model)
    wrapped, optimiser = fabric.setup(model, make_optimiser(recipe, plan.transfer, model))
    precision = fabric.strategy.precision
    step, state = resume(folder, described, model, optimiser, precision)
    work.go_on(state)
    wrapped.train()
    hold_still(backbone_of(model), recipe.frozen)
    watched = Watched(folder, log, step, steps, recipe.batch_size) if lead else None
    saved = time.monotonic()
    examples = Augmented(task, dataset, recipe.seed, work.views_of)
    share = recipe.workers, fabric.global_rank, fabric.world_size
    fresh = partial(fresh_epoch, examples, recipe.batch_size, *share)
    for batch in batches(
        examples, order(recipe.seed, len(dataset), recipe.batch_size, steps, step), *share
    ):
        torch.manual_seed(number(recipe.seed, "step", step, fabric.global_rank))
        set_rates(optimiser, recipe, step, steps)
        # On the model's device, from a seed of its own: what is drawn before or after does not move
        # it.
        draws = torch.Generator(fabric.device).manual_seed(
            number(recipe.seed, "technique", step, fabric.global_rank)
        )
        work.begin_epoch(step * recipe.batch_size // len(dataset), wrapped, fresh, draws)
        losses = work.loss(wrapped, batch, draws)
        loss = torch.stack(list(losses.values())).sum()
        _require_finite(loss.item(), plan, f"step {step} of {steps}")
        optimiser.zero_grad()
        fabric.backward(loss)
        if recipe.clip is not None:
            fabric.clip_gradients(wrapped, optimiser, max_norm=recipe.clip)
        optimiser.step()
        step += 1
        if watched:
            watched.step(step, losses, [group["lr"] for group in optimiser.param_groups])
        progress(step, steps, f"loss {loss.item():.3f}")
        if lead and step < steps and time.monotonic() - saved > recipe.checkpoint_seconds:
            lead.check()
            save(folder, described, model, optimiser, precision, step, work.state())
            saved = time.monotonic()
    if before and digest(backbone_of(model).state_dict()) != before:
        # what fixed-feature means; never to be published
        raise AssertionError("the frozen backbone changed in training")
    if lead:
        lead.check()
        finish(folder, described, _described(plan, model), loaded, model, dataset.info)
    fabric.barrier()


def _require_finite(loss: float, plan: Plan, where: str) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"The loss of {plan.task} on {plan.backbone} became {loss} at {where}; "
            f"lower the learning rate (now {plan.recipe.lr:g}); what was finished before stays"
        )


def _require_same_start(plan: Plan, described: dict[str, Any]) -> None:
    """The file of weights is read once for the identity and once to be loaded; in between somebody
    may replace it.
    """
    if upstream_digest(plan.backbone) != described["upstream_weights"]:
        raise UserError(
            f"The weights of {plan.backbone} changed while a training began from them; start again,"
            " once they stay as they are"
        )


def build(plan: Plan, info: DatasetInfo) -> tuple[Task, nn.Module, str]:
    """Task, model as training starts with it, and one line on the weights.

    What does not fit is a ``UserError``.
    """
    torch.manual_seed(plan.recipe.seed)  # a backbone of random weights draws from it
    task = plan.make_task()
    if info.task != plan.task:
        raise UserError(
            f"The task {plan.task} needs {plan.task} data, but {info.name} is for {info.task}; give"
            " other data or another task"
        )
    backbone, loaded = build_backbone(plan.backbone)
    model = _model(plan.transfer, task, backbone, info)
    if plan.transfer == "upstream":
        return task, model, loaded
    initialise_head(model, plan.recipe.seed)
    backbone.norm_eval = plan.recipe.norm_eval
    if plan.transfer == "fixed_feature":
        backbone.freeze()
    hold_still(backbone, plan.recipe.frozen)
    if plan.recipe.drop_path is not None:
        backbone.set_drop_path(plan.recipe.drop_path)
    return task, model, loaded


def _model(transfer: str, task: Task, backbone: Backbone, info: DatasetInfo) -> nn.Module:
    if transfer not in ("upstream", "robustify"):
        return task.build_model(backbone, info)
    if not isinstance(task, Classification):
        raise UserError(
            f"The transfer {transfer} has a backbone's own classes, but the task is {task.name};"
            " use classification"
        )
    if transfer == "robustify" and classes_of(backbone) != len(info.classes):
        backbone.reset_classifier(len(info.classes))
    return task.build_upstream(backbone, info)


def hold_still(backbone: Backbone, parts: tuple[str, ...]) -> None:
    """Freeze parts of a backbone: no gradient, evaluation mode (until ``train()`` is called again)."""
    children = dict(backbone.model.named_modules())
    for part in parts:
        if part not in children:
            raise UserError(
                f"The recipe freezes {', '.join(parts)} of the backbone, but {backbone.name} has no"
                f" {part}; take a recipe that was made for it, or set frozen: []"
            )
        children[part].requires_grad_(False).eval()


def _described(plan: Plan, model: nn.Module) -> dict[str, Any]:
    """What :func:`load_model` builds the model from."""
    technique = shown_spec(plan.technique)
    folder = maker_of(plan.backbone)
    maker = read_description(folder) if folder else None
    return {
        "task": plan.task,
        "backbone": plan.backbone,
        "preprocessing": backbone_of(model).preprocessing(),
        "shown": (
            made(parse_spec(plan.backbone)[0], technique)
            if plan.transfer == "robustify"
            else shown(plan.backbone)
        ),
        "transfer": plan.transfer,
        "settings": {**plan.recipe.settings, **plan.settings},
        "technique": technique,
        # A digest of the weights shows that two backbones differ. The identity of the training that
        # made them shows in what, such as the seed alone.
        "made_by": {**maker["identity"], "made_by": maker["plan"]["made_by"]} if maker else None,
        "overlaps_test": _overlaps_test(plan, maker),
    }


def _overlaps_test(plan: Plan, maker: Mapping[str, Any] | None) -> list[str]:
    """Corruptions of the test that the model or its backbone has seen in training, sorted."""
    seen = set(maker["plan"]["overlaps_test"]) if maker else set()
    if plan.technique and plan.transfer != "upstream":
        seen |= set(build_technique(plan.technique).overlaps_test)
    return sorted(seen)


def load_model(folder: Path) -> tuple[Task, nn.Module, dict[str, Any]]:
    """The finished model in ``folder``, in evaluation mode, with its task and its description."""
    description = read_description(folder)
    if description is None:
        raise UserError(
            f"Expected a finished run (model.json, model.safetensors) in {folder}, but there is"
            " none; train it first or check the path"
        )
    version = description["identity"].get("training_version")
    if version != TRAINING_VERSION:
        raise UserError(
            f"Expected a run of training version {TRAINING_VERSION} in {folder}, but got {version};"
            " train the run again"
        )
    path = folder / "model.safetensors"
    if not checked(path, description["sha256"]):
        raise UserError(
            f"The weights in {path} are not those that were written (checksum differs); train the"
            " run again"
        )
    plan = description["plan"]
    info = DatasetInfo(**{**description["info"], "classes": tuple(description["info"]["classes"])})
    task = make_task(plan["task"], plan["settings"])
    name, _ = parse_spec(plan["backbone"])
    backbone, _ = build_backbone(format_spec(name, {"weights": "random"}))
    # What an upstream run evaluates may have other classes than the architecture comes with, as
    # after robustify.
    model = _model(
        "robustify" if plan["transfer"] == "upstream" else plan["transfer"], task, backbone, info
    )
    load_strictly(model, load_file(path), str(path))
    # that of its weights, which the architecture does not know
    backbone_of(model).set_preprocessing(**plan["preprocessing"])
    return task, model.eval().to(memory_format=torch.channels_last), description
