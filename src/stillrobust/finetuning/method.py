"""The contract of a fine-tuning method: hooks of the training loop, and a card.

A method acts in a transfer with ``full_network``. It changes what trains, the loss, the step or the
finished weights. theta_0 stands for the backbone's weights before the transfer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from pydantic import ConfigDict, validate_call
from torch import Tensor, nn

from stillrobust.backbones import Backbone
from stillrobust.tasks.heads import backbone_of
from stillrobust.tasks.recipes import Recipe


@dataclass(frozen=True)
class MethodCard:
    """Where a method comes from, what it does, and what it costs."""

    name: str
    """The name in a spec."""
    title: str
    paper: str
    formula: str
    parameters: Mapping[str, str]
    """Every argument -> its meaning and the source of its default."""
    differences: tuple[str, ...]
    """Differences from the paper, and what the paper leaves open."""
    cost: str
    """Cost of a training step and of memory, compared with plain fine-tuning."""

    def text(self) -> str:
        """Return the card as lines of text."""
        arguments = [f"  {name}: {meaning}" for name, meaning in self.parameters.items()]
        differences = [f"  {what}" for what in self.differences] or ["  none"]
        return "\n".join(
            [
                f"{self.title} ({self.name})",
                f"Paper: {self.paper}",
                f"Formula: {self.formula}",
                "Arguments:",
                *(arguments or ["  none"]),
                "Differences:",
                *differences,
                f"Cost: {self.cost}",
            ]
        )


@dataclass(frozen=True)
class Phase:
    """A part of the training with a learning rate schedule of its own."""

    start: int
    """First step."""
    end: int
    """Step after the last one."""
    freezes_backbone: bool = False


@dataclass(frozen=True)
class Fit:
    """The model in training, as a method receives it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    anchors: Mapping[str, Tensor]
    """theta_0 of every trainable parameter of the backbone, by its name in the model."""
    parameters: Mapping[str, nn.Parameter] = field(default_factory=dict)
    """All trainable parameters, by their names in the model."""

    @classmethod
    def begin(cls, model: nn.Module, optimizer: torch.optim.Optimizer) -> "Fit":
        """Start a training: copy theta_0.

        Args:
            model: The model before its first step.
            optimizer: Its optimizer.
        """
        parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
        inside = {id(one) for one in backbone_of(model).parameters()}
        anchors = {
            name: one.detach().clone() for name, one in parameters.items() if id(one) in inside
        }
        return cls(model, optimizer, anchors, parameters)

    def distances(self) -> dict[str, Tensor]:
        """theta - theta_0 of every parameter that has an anchor and trains in this phase."""
        return {
            name: self.parameters[name] - anchor
            for name, anchor in self.anchors.items()
            if self.parameters[name].requires_grad
        }

    def rate_of(self, name: str) -> float:
        """The learning rate of a parameter at this step."""
        for group in self.optimizer.param_groups:
            if any(one is self.parameters[name] for one in group["params"]):
                return float(group["lr"])
        raise KeyError(name)


checked_arguments = validate_call(config=ConfigDict(strict=True))
"""Decorates a method's ``__init__``: a value of another type raises ``ValidationError``."""


class Method:
    """A fine-tuning method. Every hook does nothing unless a method overrides it."""

    changes_backbone_only = True
    """Whether it does nothing if the backbone is frozen."""
    probe_steps = 0
    """Steps of the training data whose gradients ``probe`` receives before the training."""

    def change_recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe that the training uses."""
        return recipe

    def freeze(self, backbone: Backbone) -> None:
        """Freeze parts of the backbone. Called before training, and after every ``train()``.

        Raises:
            UserError: If the backbone lacks a part.
        """

    def phases(self, steps: int) -> tuple[Phase, ...]:
        """Divide the training into phases."""
        return (Phase(0, steps),)

    def begin(self, fit: Fit) -> None:
        """Prepare for the first step, or for a resumed one. ``load_state`` follows."""

    def probe(self, fit: Fit) -> None:
        """Read the gradients of one batch of ``probe_steps``. No step is taken."""

    def begin_phase(self, fit: Fit, index: int) -> None:
        """Prepare for phase ``index``. Not called for a phase that is resumed."""

    def penalty(self, fit: Fit) -> Tensor | None:
        """A term that is added to the loss, a scalar."""
        return None

    def before_step(self, fit: Fit) -> None:
        """Read parameters and gradients before the optimizer's step."""

    def after_step(self, fit: Fit) -> None:
        """Change the parameters after the optimizer's step."""

    def finish(self, fit: Fit) -> None:
        """Change the weights of the finished model."""

    def state(self) -> dict[str, Tensor]:
        """Tensors that a resumed training needs."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state`` returned; empty for a training that starts."""


@dataclass(frozen=True)
class MethodEntry:
    """A method of ``METHODS``: its factory and its card."""

    build: Callable[..., Method]
    """Takes literal arguments. Raises ``UserError`` for one out of range, ``ValidationError`` for
    one of another type."""
    card: MethodCard
