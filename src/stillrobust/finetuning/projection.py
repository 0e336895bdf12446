"""Selective projection decay: undo a part of a step that only moves away from theta_0."""

from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from stillrobust.finetuning.method import Fit, Method, MethodCard, MethodEntry, checked_arguments
from stillrobust.robustify.technique import require_between
from stillrobust.tasks.recipes import Recipe

SPD_CARD = MethodCard(
    name="spd",
    title="Selective projection decay",
    paper="Tian, Huang & Kira, NeurIPS 2024, arXiv 2411.01713",
    formula="where -g (theta - theta_0) < 0: theta' - strength r (theta' - theta_0), with"
    " r = clip((|theta' - theta_0| - |theta - theta_0|) / |theta' - theta_0|, 0, 1) and theta' the"
    " optimizer's new weights",
    parameters={"strength": "1 projects back to the former distance (1: the paper's range is 0-2)"},
    differences=("without momentum SGD never meets the condition, so that spd does nothing",),
    cost="1.0-1.1 x the time of a plain step; a copy of the backbone's weights",
)


class SelectiveProjectionDecay(Method):
    """See the card."""

    @checked_arguments
    def __init__(self, strength: float = 1.0) -> None:
        require_between("strength", strength, 0.0, 10.0)
        self.strength = strength
        self._former: list[Tensor] = []
        self._moves_away: list[Tensor] = []

    @override
    def change_recipe(self, recipe: Recipe) -> Recipe:
        return replace(recipe, weight_decay=0.0)

    @override
    @torch.no_grad()
    def before_step(self, fit: Fit) -> None:
        distances = list(fit.distances().values())
        self._former = list(torch._foreach_norm(distances)) if distances else []
        products = [
            torch.zeros(()) if (grad := fit.parameters[name].grad) is None else (grad * one).sum()
            for name, one in zip(fit.distances(), distances, strict=True)
        ]
        # -g (theta - theta_0) < 0: the loss would have the weights go back
        self._moves_away = [product > 0 for product in products]

    @override
    @torch.no_grad()
    def after_step(self, fit: Fit) -> None:
        distances = fit.distances()
        if not distances or not self.strength:
            return
        norms = torch._foreach_norm(list(distances.values()))
        for (name, distance), norm, former, moves_away in zip(
            distances.items(), norms, self._former, self._moves_away, strict=True
        ):
            share = ((norm - former) / norm.clamp(min=1e-30)).clamp(0, 1)
            share = torch.where(moves_away.to(share.device), share * self.strength, 0.0)
            fit.parameters[name].sub_(distance * share)


SPD = MethodEntry(SelectiveProjectionDecay, SPD_CARD)
