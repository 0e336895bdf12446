"""Methods that pull the weights towards theta_0 by a term in the loss: L2-SP and RGN."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from stillrobust.finetuning.method import Fit, Method, MethodCard, MethodEntry, checked_arguments
from stillrobust.robustify.technique import require_between
from stillrobust.tasks.recipes import Recipe

L2_SP_CARD = MethodCard(
    name="l2_sp",
    title="L2-SP: weight decay towards the starting point",
    paper="Li, Grandvalet & Davoine, ICML 2018, arXiv 1802.01483",
    formula="loss + alpha/2 |theta - theta_0|^2 + beta/2 |w|^2, w the head; no other weight decay",
    parameters={
        "alpha": "strength in the backbone (1e-4: the paper's for PSPNet)",
        "beta": "strength in the head (1e-3: the paper's for PSPNet)",
    },
    differences=("the paper recommends alpha 0.1 and beta 0.01 for classification",),
    cost="1.0-1.1 x the time of a plain step; a copy of the backbone's weights",
)


class StartingPointDecay(Method):
    """See the card."""

    @checked_arguments
    def __init__(self, alpha: float = 1e-4, beta: float = 1e-3) -> None:
        require_between("alpha", alpha, 0.0, 1e6)
        self.alpha = alpha
        require_between("beta", beta, 0.0, 1e6)
        self.beta = beta

    @override
    def change_recipe(self, recipe: Recipe) -> Recipe:
        return replace(recipe, weight_decay=0.0)

    @override
    def penalty(self, fit: Fit) -> Tensor | None:
        head: list[Tensor] = [
            one
            for name, one in fit.parameters.items()
            if name not in fit.anchors and one.requires_grad
        ]
        terms = [
            0.5 * strength * torch.stack(torch._foreach_norm(values)).square().sum()
            for strength, values in (
                (self.alpha, list(fit.distances().values())),
                (self.beta, head),
            )
            if strength and values
        ]
        return torch.stack(terms).sum() if terms else None


RGN_CARD = MethodCard(
    name="rgn",
    title="Pull back by the relative gradient norm (Mind the Backbone)",
    paper="Mind the Backbone: Minimizing Backbone Distortion for Robust Object Detection, "
    "arXiv 2303.14744",
    formula="g + (theta - theta_0) clip(c RGN, 0, 1/lr), RGN = mean |g| / (|theta| + 1e-8)",
    parameters={
        "c": "strength (0.1: the paper's)",
        "iterations": "batches over which RGN is averaged before the training (100: enough for the"
        " paper's analysis; it trains with up to 5,000)",
    },
    differences=(
        "the paper adds squeeze-and-excitation modules to the neck; here the model is unchanged",
        "RGN is averaged over the first batches of the training itself, without a step",
    ),
    cost="1.0-1.25 x the time of a plain step, and the iterations before; two copies of the"
    " backbone's weights",
)


class GradientNormDecay(Method):
    """See the card."""

    @checked_arguments
    def __init__(self, c: float = 0.1, iterations: int = 100) -> None:
        require_between("c", c, 0.0, 1e6)
        self.c = c
        require_between("iterations", iterations, 1, 5000)
        self.probe_steps = iterations
        self._sums: dict[str, Tensor] = {}

    @override
    def begin(self, fit: Fit) -> None:
        self._sums = {}

    @override
    def probe(self, fit: Fit) -> None:
        for name in fit.anchors:
            parameter = fit.parameters[name]
            if parameter.grad is None:
                continue
            ratio = parameter.grad.abs() / (parameter.detach().abs() + 1e-8)
            if ratio.ndim == 4:
                ratio = ratio.sum((2, 3), keepdim=True)
            self._sums[name] = self._sums[name] + ratio if name in self._sums else ratio

    @override
    def penalty(self, fit: Fit) -> Tensor | None:
        terms = []
        for name, distance in fit.distances().items():
            if name in self._sums and self.c:
                rate = fit.rate_of(name)
                weight = self._sums[name] * (self.c / self.probe_steps)
                weight = weight.clamp(max=1 / rate) if rate else weight
                terms.append(0.5 * (weight * distance.square()).sum())
        return torch.stack(terms).sum() if terms else None

    @override
    def state(self) -> dict[str, Tensor]:
        return dict(self._sums)

    @override
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._sums.update(state)


L2_SP = MethodEntry(StartingPointDecay, L2_SP_CARD)
RGN = MethodEntry(GradientNormDecay, RGN_CARD)
