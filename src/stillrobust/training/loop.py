"""The one training loop: transfer to a task, or upstream training that makes a backbone robust.

A training can be stopped and resumed at any moment. The order of the data, every augmentation and
torch's own draws come from generators keyed by (seed, step). A resumed run therefore ends in the
same bits as an undisturbed one on the same machine.
"""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from stillrobust.backbones import (
    Backbone,
    ResolvedBackbone,
    build_backbone,
    resolve_backbone,
    robustified_name,
)
from stillrobust.backbones.reader import digest, read_weights
from stillrobust.backbones.strict_loading import load_strictly
from stillrobust.data.contract import require_dataset
from stillrobust.errors import UserError
from stillrobust.names import format_spec, parse_spec
from stillrobust.robustify import build_technique
from stillrobust.robustify.technique import require_photometric
from stillrobust.runtime.run_log import RUN_LOG, note
from stillrobust.samples import Dataset, DatasetInfo
from stillrobust.storage.files import file_matches, output_folder
from stillrobust.storage.leases import Lease, lease
from stillrobust.storage.store import RunKind
from stillrobust.tasks import Classification, Task, make_task
from stillrobust.tasks.classification import class_count
from stillrobust.tasks.distributed import synchronize_batch_norm
from stillrobust.tasks.heads import backbone_of, initialize_head
from stillrobust.training.launch import Progress, is_main_process, launch, spawns_processes
from stillrobust.training.optimizer import make_optimizer
from stillrobust.training.plan import TRAINING_VERSION, Plan, identity
from stillrobust.training.run_files import (
    has_leftovers,
    is_finished,
    read_description,
    remove_leftovers,
    write_finished_model,
)
from stillrobust.training.steps import TrainingProcess, freeze_modules
from stillrobust.training.technique_hooks import TrainingHooks, TransferHooks, UpstreamHooks
from stillrobust.user_files import display_name


@dataclass(frozen=True)
class _Training:
    """What every process of a training receives."""

    plan: Plan
    backbone: ResolvedBackbone
    dataset: Dataset
    folder: Path
    log: Path
    identity: dict[str, Any]
    lease: Lease | None
    """Held by the main process for all."""


def train(
    plan: Plan,
    dataset: Dataset,
    folder: Path | str,
    progress: Progress = lambda done, total, text: None,
    log: Path | None = None,
) -> Path:
    """Train a plan; the result is ``folder/model.safetensors`` with ``folder/model.json``.

    A finished run of the same identity is left alone, and an unfinished one is resumed. Curves for
    TensorBoard are written into the folder.

    Args:
        plan: What is trained, and how.
        dataset: Training images with ground truth.
        folder: Folder of the run. Created if missing.
        progress: ``progress(done, total, text)`` is called after every step.
        log: Log file (default: ``folder/run.log``).

    Returns:
        The folder.

    Raises:
        UserError: If the parts of the plan do not fit each other, the loss stops being finite, or
            the folder cannot be written.
        LeaseHeldError: If another process trains in the folder.
    """
    folder = Path(folder)
    require_dataset(dataset)
    if len(dataset) == 0:
        raise UserError(
            "Expected at least one image to train on, but the dataset is empty; check its train"
            " split"
        )
    dataset = _extend_dataset(plan, dataset)
    torch.manual_seed(plan.recipe.seed)  # the digest of timm's weights builds their model
    backbone = resolve_backbone(plan.backbone)
    run_identity = json.loads(json.dumps(identity(plan, backbone, dataset.info)))
    if is_finished(folder, run_identity) and not has_leftovers(folder):
        return folder
    # built before anything is written: parts that do not fit leave no folder
    model: nn.Module | None
    model, loaded = build_model(plan, backbone, dataset.info)
    _require_fit(plan, len(dataset))
    # of several launched processes, the first holds the lease for all
    with lease(folder) if is_main_process() else nullcontext() as held:
        finished = is_finished(folder, run_identity)
        if held:
            remove_leftovers(folder, finished)
        if finished:
            return folder
        if plan.kind == "upstream":
            if held:
                description = _plan_description(plan, backbone, model)
                write_finished_model(folder, run_identity, description, loaded, model, dataset.info)
            return folder
        log = log or folder / RUN_LOG
        if held:
            note(log, f"training: {plan}; data: {dataset.info.name}; {loaded}")
        if spawns_processes(plan.recipe):
            model = None  # each child builds its own
        training = _Training(plan, backbone, dataset, folder, log, run_identity, held)
        with output_folder(folder):
            launch(plan.recipe, partial(_train_in_process, training, model, loaded), progress)
            if held:
                note(log, "training finished")
    return folder


def _require_fit(plan: Plan, size: int) -> None:
    """Raise ``UserError`` for a technique, method or batch that the task cannot be trained with."""
    if plan.technique and plan.kind != "robustify":
        require_photometric(build_technique(plan.technique), plan.task)
    plan.make_methods().phases(plan.recipe.total_steps(size))
    if plan.task == "segmentation" and plan.recipe.batch_size == 1 and plan.kind != "upstream":
        raise UserError(
            "Expected at least two images a step in training for segmentation, but batch_size is 1;"
            " give 2 or more: UPerNet pools an image to one pixel, which alone has no spread to"
            " normalize by"
        )


def _extend_dataset(plan: Plan, dataset: Dataset) -> Dataset:
    """The data with the images that a technique adds in upstream training."""
    extend = (
        build_technique(plan.technique).extend_dataset
        if plan.technique and plan.kind == "robustify"
        else None
    )
    return extend(dataset, plan.recipe.seed) if extend else dataset


def _train_in_process(
    training: _Training, model: nn.Module | None, loaded: str, fabric: Fabric, progress: Progress
) -> None:
    """Train in one process, which may be a child of the one that holds the lease."""
    with output_folder(training.folder):
        _take_steps(training, model, loaded, fabric, progress)


def _take_steps(
    training: _Training, model: nn.Module | None, loaded: str, fabric: Fabric, progress: Progress
) -> None:
    """Train in one process: its part of each batch, and the same step as all others.

    Args:
        training: What is trained.
        model: The model as training starts with it; ``None`` to build it here.
        loaded: What was loaded into it.
        fabric: Device and processes.
        progress: Called after every step.
    """
    plan = training.plan
    methods = plan.make_methods()
    recipe = methods.change_recipe(plan.recipe)
    if model is None:
        model, loaded = build_model(plan, training.backbone, training.dataset.info)
    task, backbone = plan.make_task(), backbone_of(model)
    before = digest(backbone.state_dict()) if plan.transfer == "fixed_feature" else ""
    hooks: TrainingHooks = (
        UpstreamHooks(plan.technique, fabric.device)
        if plan.kind == "robustify"
        else TransferHooks(task, plan.technique)
    )
    model = model.to(fabric.device).to(memory_format=torch.channels_last)
    if fabric.world_size > 1:
        synchronize_batch_norm(model)
    optimizer = make_optimizer(recipe, plan.transfer, model)
    held = training.lease if fabric.is_global_zero else None
    process = TrainingProcess(
        plan,
        recipe,
        methods,
        task,
        hooks,
        model,
        optimizer,
        training.dataset,
        training.folder,
        training.log,
        training.identity,
        held,
        fabric,
        progress,
    )
    process.take_steps()
    if before and digest(backbone.state_dict()) != before:
        # such a model must never be published
        raise AssertionError("the frozen backbone changed in training")
    if held:
        held.check()
        write_finished_model(
            training.folder,
            training.identity,
            _plan_description(plan, training.backbone, model),
            loaded,
            model,
            training.dataset.info,
        )
    fabric.barrier()


def build_model(plan: Plan, backbone: ResolvedBackbone, info: DatasetInfo) -> tuple[nn.Module, str]:
    """Build the model as training starts with it.

    Args:
        plan: The training.
        backbone: The resolved ``plan.backbone``.
        info: Description of the training data.

    Returns:
        The model, and one line that says which weights were loaded.

    Raises:
        UserError: If weights, task, recipe and data do not fit each other.
    """
    torch.manual_seed(plan.recipe.seed)  # random weights are drawn from torch's generator
    task = plan.make_task()
    if info.task != plan.task:
        raise UserError(
            f"The task {plan.task} needs {plan.task} data, but {info.name} is for {info.task}; give"
            " other data or another task"
        )
    inner, loaded = backbone.build()
    model = _assemble(plan.kind, task, inner, info)
    if plan.kind == "upstream":
        return model, loaded
    initialize_head(model, plan.recipe.seed)
    inner.norm_eval = plan.recipe.norm_eval
    if plan.transfer == "fixed_feature":
        inner.freeze()
    freeze_modules(inner, plan.recipe.frozen)
    plan.make_methods().freeze(inner)
    if plan.recipe.drop_path is not None:
        inner.set_drop_path(plan.recipe.drop_path)
    return model, loaded


def _assemble(kind: RunKind, task: Task, backbone: Backbone, info: DatasetInfo) -> nn.Module:
    if kind == "transfer":
        return task.build_model(backbone, info)
    if not isinstance(task, Classification):
        raise UserError(
            f"A run of kind {kind} has a backbone's own classes, but the task is {task.name};"
            " use classification"
        )
    if kind == "robustify" and class_count(backbone) != len(info.classes):
        backbone.reset_classifier(len(info.classes))
    return task.build_upstream(backbone, info)


def _plan_description(plan: Plan, backbone: ResolvedBackbone, model: nn.Module) -> dict[str, Any]:
    """What ``load_model`` builds the model from."""
    technique = display_name(plan.technique)
    maker = read_description(backbone.folder) if backbone.folder else None
    return {
        "task": plan.task,
        "backbone": plan.backbone,
        "preprocessing": backbone_of(model).preprocessing(),
        "display_name": (
            robustified_name(backbone.architecture, technique)
            if plan.kind == "robustify"
            else backbone.display_name
        ),
        "kind": plan.kind,
        "transfer": plan.transfer,
        "settings": {**plan.recipe.settings, **plan.settings},
        "technique": technique,
        "method": plan.make_methods().spec,
        # the identity of the training that made the upstream weights: two backbones that differ in
        # the seed alone are recognized by it
        "made_by": {**maker["identity"], "made_by": maker["plan"]["made_by"]} if maker else None,
        "overlaps_test": _overlaps_test(plan, maker),
    }


def _overlaps_test(plan: Plan, maker: Mapping[str, Any] | None) -> list[str]:
    """Corruptions of the test that the model or its backbone has seen in training, sorted."""
    seen = set(maker["plan"]["overlaps_test"]) if maker else set()
    if plan.technique and plan.kind != "upstream":
        seen |= set(build_technique(plan.technique).overlaps_test)
    return sorted(seen)


def load_model(folder: Path) -> tuple[Task, nn.Module, dict[str, Any]]:
    """Load a finished run.

    Args:
        folder: Folder of the run.

    Returns:
        The task, the model in evaluation mode, and the description in ``model.json``.

    Raises:
        UserError: If the folder holds no finished run, or one that is damaged or of another
            training version.
    """
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
    expected = description["sha256"]
    # the cached hash first: it says at once that a file is missing or damaged
    if not file_matches(path, expected) or (weights := read_weights(path)).sha256 != expected:
        raise UserError(
            f"The weights in {path} are not those that were written (checksum differs); train the"
            " run again"
        )
    plan = description["plan"]
    info = DatasetInfo(**{**description["info"], "classes": tuple(description["info"]["classes"])})
    task = make_task(plan["task"], plan["settings"])
    name, _ = parse_spec(plan["backbone"])
    backbone, _ = build_backbone(format_spec(name, {"weights": "random"}))
    # an upstream run may have other classes than its architecture, as after robustify
    model = _assemble(
        "robustify" if plan["kind"] == "upstream" else plan["kind"], task, backbone, info
    )
    load_strictly(model, weights.tensors, str(path))
    # of its weights, not of the architecture
    backbone_of(model).set_preprocessing(**plan["preprocessing"])
    return task, model.eval().to(memory_format=torch.channels_last), description
