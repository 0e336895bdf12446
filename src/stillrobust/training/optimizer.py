"""The optimizer: parameter groups, and the schedules of learning rate and momentum."""

import math
from typing import Any

import torch
from torch import nn

from stillrobust.backbones.layer_decay import layer_rates
from stillrobust.tasks.heads import backbone_of
from stillrobust.tasks.recipes import Recipe

# torch.optim.lr_scheduler.OneCycleLR's defaults (Smith & Topin 2019).
DIVISOR, FINAL_DIVISOR, LOW_MOMENTUM, HIGH_MOMENTUM = 25.0, 1e4, 0.85, 0.95
# The released fixed-feature runs set the backbone's rate to 0, but mmcv lets the longest matching
# name decide, and Swin's 'relative_position_bias_table' is longer than 'backbone': these tables
# train at the head's rate.
RELEASED_LEAK = "relative_position_bias_table"


def learning_rate(recipe: Recipe, base: float, step: int, steps: int) -> float:
    """The learning rate of a parameter group at a step.

    As in mmcv's hooks, the schedule counts from step 0, and the warm-up multiplies its rate.
    ``poly`` is (base - min_lr) (1 - step/steps)^power + min_lr, which lifts a rate of 0 towards
    ``min_lr`` (see released_freeze).

    Args:
        recipe: Its schedule and warm-up.
        base: Highest rate of the group.
        step: Step, from 0.
        steps: Steps of the whole training.
    """
    done = step / steps
    if recipe.schedule == "step":
        rate = base * 0.1 ** sum(
            step >= round(steps * milestone) for milestone in recipe.milestones
        )
    elif recipe.schedule == "poly":
        rate = (base - recipe.min_lr) * (1 - done) ** recipe.power + recipe.min_lr
    elif recipe.schedule == "cosine":
        rate = (base - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * done)) + recipe.min_lr
    elif recipe.schedule == "one_cycle":
        rate = _one_cycle(recipe, step, steps, base / DIVISOR, base, base / DIVISOR / FINAL_DIVISOR)
    else:
        rate = base
    warmup = recipe.warmup if recipe.warmup >= 1 else round(steps * recipe.warmup)
    if step < warmup:
        rate *= recipe.warmup_start + (1 - recipe.warmup_start) * step / warmup
    return rate


def scheduled_momentum(recipe: Recipe, step: int, steps: int) -> float | None:
    """SGD's momentum, or AdamW's first beta, at a step of a ``one_cycle`` schedule.

    It is high where the rate is low.

    Returns:
        The momentum; ``None`` for the other schedules, which do not change it.
    """
    if recipe.schedule != "one_cycle":
        return None
    return _one_cycle(recipe, step, steps, HIGH_MOMENTUM, LOW_MOMENTUM, HIGH_MOMENTUM)


def _one_cycle(
    recipe: Recipe, step: int, steps: int, start: float, peak: float, end: float
) -> float:
    """Half a cosine from ``start`` to ``peak``, another to ``end``; the last step is at ``end``."""
    turn = recipe.rise * steps - 1
    if step <= turn:
        low, high, done = start, peak, step / turn if turn else 1.0
    else:
        low, high, done = peak, end, (step - turn) / (steps - 1 - turn)
    return high + (low - high) / 2 * (1 + math.cos(math.pi * done))


def parameter_groups(
    recipe: Recipe, transfer: str | None, model: nn.Module
) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay; each is in one group.

    ``released_freeze`` keeps every parameter in the optimizer, as the released code does: the
    backbone has rate and decay 0.

    Args:
        recipe: Rates and decay.
        transfer: One of ``TRANSFERS``.
        model: A task's model.

    Returns:
        Groups for a torch optimizer, each also with its highest rate ``base_lr`` and the ``names``
        of its parameters.
    """
    backbone = backbone_of(model)
    rates = dict.fromkeys((name for name, _ in backbone.named_parameters()), 1.0)
    if recipe.layer_decay != 1:
        rates = layer_rates(backbone, recipe.layer_decay, recipe.layer_unit)
    inside = {id(parameter): rates[name] for name, parameter in backbone.named_parameters()}
    norms = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.LayerNorm)
        for p in module.parameters()
    }
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        label = f"{name} norm" if id(parameter) in norms else name
        label = f"{label} vectors" if parameter.ndim <= 1 else label
        decays = not any(fragment in label for fragment in recipe.no_decay)
        factor = 1.0
        if id(parameter) in inside:
            factor = recipe.backbone_lr_factor * inside[id(parameter)]
        if transfer == "released_freeze" and id(parameter) in inside:
            factor, decays = (1.0 if RELEASED_LEAK in name else 0.0), False
        decay = recipe.weight_decay if decays else 0.0
        base = recipe.lr * recipe.rate_factor() * factor
        group = groups.setdefault(
            (factor, decays), {"params": [], "names": [], "base_lr": base, "weight_decay": decay}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def make_optimizer(recipe: Recipe, transfer: str | None, model: nn.Module) -> torch.optim.Optimizer:
    """Make the recipe's optimizer for the model's ``parameter_groups``."""
    groups = parameter_groups(recipe, transfer, model)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov
        )
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.betas[0], recipe.betas[1]))


def set_learning_rates(
    optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int
) -> None:
    """Set the learning rate of every group for a step, and the momentum if it is scheduled."""
    momentum = scheduled_momentum(recipe, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(recipe, group["base_lr"], step, steps)
        if momentum is not None and "momentum" in group:
            group["momentum"] = momentum
        elif momentum is not None:
            group["betas"] = (momentum, group["betas"][1])
