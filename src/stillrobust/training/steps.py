"""The steps of a training in one process: phases, batches, losses, and the state to resume from."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stillrobust.backbones import Backbone
from stillrobust.errors import UserError
from stillrobust.finetuning import Fit, Methods, Phase
from stillrobust.samples import Dataset
from stillrobust.storage.leases import Lease
from stillrobust.tasks import Task
from stillrobust.tasks.heads import backbone_of
from stillrobust.tasks.recipes import Recipe
from stillrobust.training.batches import (
    AugmentedDataset,
    batch_indices,
    companion_batches,
    derive_seed,
    load_batches,
)
from stillrobust.training.launch import Progress
from stillrobust.training.optimizer import set_learning_rates
from stillrobust.training.plan import Plan
from stillrobust.training.run_files import load_resume_state, save_resume_state
from stillrobust.training.technique_hooks import TrainingHooks, Views
from stillrobust.training.training_monitor import TrainingMonitor


def freeze_modules(backbone: Backbone, names: tuple[str, ...]) -> None:
    """Freeze modules of a backbone: no gradient, and evaluation mode until ``train()`` is called.

    Args:
        backbone: The backbone to change.
        names: Names of modules inside ``backbone.model``.

    Raises:
        UserError: If the backbone has no module of a name.
    """
    modules = dict(backbone.model.named_modules())
    for name in names:
        if name not in modules:
            raise UserError(
                f"The recipe freezes {', '.join(names)} of the backbone, but {backbone.name} has no"
                f" {name}; take a recipe that was made for it, or set frozen: []"
            )
        modules[name].requires_grad_(False).eval()


@dataclass
class TrainingProcess:
    """One process of a training: its part of each batch, and the same step as all others."""

    plan: Plan
    recipe: Recipe
    """The plan's, as the fine-tuning methods change it."""
    methods: Methods
    task: Task
    hooks: TrainingHooks
    model: nn.Module
    """On the device of ``fabric``."""
    optimizer: torch.optim.Optimizer
    dataset: Dataset
    folder: Path
    log: Path
    identity: dict[str, Any]
    held: Lease | None
    """In the main process, which writes files."""
    fabric: Fabric
    progress: Progress
    """Called after every step."""

    def take_steps(self) -> None:
        """Train from the first step, or from the state of an unfinished training.

        Raises:
            UserError: If the loss stops being finite, or the folder cannot be written.
        """
        self.examples = AugmentedDataset(
            self.task, self.dataset, self.recipe.seed, self.hooks.make_views
        )
        self.share = self.recipe.workers, self.fabric.global_rank, self.fabric.world_size
        self.steps = self.recipe.total_steps(len(self.dataset))
        self.saved = time.monotonic()
        fit = Fit.begin(self.model, self.optimizer)
        self.methods.begin(fit)
        self.step, state = load_resume_state(
            self.folder, self.identity, self.model, self.optimizer, self.fabric.strategy.precision
        )
        self.hooks.load_state(_of(state, "technique."))
        self.methods.load_state(_of(state, "method."), self.fabric.device)
        with (
            closing(
                TrainingMonitor(
                    self.folder, self.log, self.step, self.steps, self.recipe.batch_size
                )
            )
            if self.held
            else nullcontext()
        ) as monitor:
            for index, phase in enumerate(self.methods.phases(self.steps)):
                if self.step < phase.end:
                    self._train_phase(index, phase, fit, monitor)
        self.methods.finish(fit)

    def _train_phase(
        self, index: int, phase: Phase, fit: Fit, monitor: TrainingMonitor | None
    ) -> None:
        wrapped, optimizer = self._set_up(phase, fit)
        if self.step == 0 and self.methods.probe_steps:
            self._probe(wrapped, optimizer, fit)
        if self.step == phase.start:
            self.optimizer.state.clear()
            self.methods.begin_phase(fit, index)
        for batch in self._batches(self.step, phase.end):
            set_learning_rates(
                optimizer, self.recipe, self.step - phase.start, phase.end - phase.start
            )
            losses = self._losses(wrapped, batch, self.step)
            losses |= self.methods.penalties(fit)
            loss = torch.stack(list(losses.values())).sum()
            self._require_finite(loss.item())
            optimizer.zero_grad()
            self.fabric.backward(loss)
            if self.recipe.clip is not None:
                self.fabric.clip_gradients(wrapped, optimizer, max_norm=self.recipe.clip)
            self.methods.before_step(fit)
            optimizer.step()
            self.methods.after_step(fit)
            self.step += 1
            if monitor:
                rates = [group["lr"] for group in optimizer.param_groups]
                monitor.record(self.step, losses, rates)
            self.progress(self.step, self.steps, f"loss {loss.item():.3f}")
            self._save_sometimes()
        optimizer.zero_grad()

    def _set_up(self, phase: Phase, fit: Fit) -> tuple[Any, Any]:
        """Freeze what the phase freezes; wrap model and optimizer for the processes."""
        backbone = backbone_of(self.model)
        for parameter in fit.parameters.values():
            parameter.requires_grad_(True)
        backbone.frozen = phase.freezes_backbone or self.plan.transfer == "fixed_feature"
        if phase.freezes_backbone:
            backbone.requires_grad_(False)
        wrapped, optimizer = self.fabric.setup(self.model, self.optimizer)
        wrapped.train()
        freeze_modules(backbone, self.recipe.frozen)
        self.methods.freeze(backbone)
        return wrapped, optimizer

    def _batches(self, start: int, end: int) -> Iterator[list[Views]]:
        indices = batch_indices(
            self.recipe.seed, len(self.dataset), self.recipe.batch_size, end, start
        )
        return load_batches(self.examples, indices, *self.share)

    def _losses(self, wrapped: nn.Module, batch: Sequence[Views], step: int) -> dict[str, Tensor]:
        recipe, rank = self.recipe, self.fabric.global_rank
        torch.manual_seed(derive_seed(recipe.seed, "step", step, rank))
        # a generator of its own: draws of the model do not change those of the technique
        draws = torch.Generator(self.fabric.device).manual_seed(
            derive_seed(recipe.seed, "technique", step, rank)
        )
        extra = partial(companion_batches, self.examples, recipe.batch_size, *self.share)
        epoch = step * recipe.batch_size // len(self.dataset)
        self.hooks.begin_epoch(epoch, wrapped, extra, draws)
        return self.hooks.loss(wrapped, batch, draws)

    def _probe(self, wrapped: nn.Module, optimizer: Any, fit: Fit) -> None:
        """Let methods read the gradients of the first batches; nothing changes."""
        count = self.methods.probe_steps
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        for index, batch in enumerate(self._batches(0, count)):
            loss = torch.stack(list(self._losses(wrapped, batch, index).values())).sum()
            self._require_finite(loss.item())
            optimizer.zero_grad()
            self.fabric.backward(loss)
            if scaler is not None:
                for parameter in fit.parameters.values():
                    if parameter.grad is not None:
                        parameter.grad.div_(scaler.get_scale())
            self.methods.probe(fit)
            self.progress(0, self.steps, f"gradients {index + 1}/{count}")
        optimizer.zero_grad()
        with torch.no_grad():
            for name, value in self.model.named_buffers():
                value.copy_(buffers[name])

    def _save_sometimes(self) -> None:
        due = time.monotonic() - self.saved > self.recipe.checkpoint_seconds
        if not self.held or not due or self.step == self.steps:
            return
        self.held.check()
        save_resume_state(
            self.folder,
            self.identity,
            self.model,
            self.optimizer,
            self.fabric.strategy.precision,
            self.step,
            {
                **{f"technique.{name}": one for name, one in self.hooks.state().items()},
                **{f"method.{name}": one for name, one in self.methods.state().items()},
            },
        )
        self.saved = time.monotonic()

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise UserError(
                f"The loss of {self.plan.task} on {self.plan.backbone} became {loss} at step"
                f" {self.step} of {self.steps}; lower the learning rate (now {self.recipe.lr:g});"
                " what was finished before stays"
            )


def _of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
