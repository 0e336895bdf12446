"""Methods that average weights: an exponential moving average, and weight interpolation."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from stillrobust.errors import UserError
from stillrobust.finetuning.method import Fit, Method, MethodCard, MethodEntry, checked_arguments
from stillrobust.robustify.technique import require_between

EMA_CARD = MethodCard(
    name="ema",
    title="Exponential moving average of the weights",
    paper="Polyak & Juditsky 1992; for deep networks: arXiv 2411.18704",
    formula="e <- d e + (1 - d) theta with d = min(decay, (1 + t) / (10 + t)); the finished model"
    " is e",
    parameters={"decay": "share of the average that a step keeps (0.999: usual)"},
    differences=(
        "BatchNorm's running mean and variance are averaged as the weights are",
        "with lp_ft the average starts with the second phase",
    ),
    cost="1.0-1.1 x the time of a plain step; a copy of the model",
)


def floating_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights and BatchNorm statistics of a model, by their names in the state dict."""
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}


class ExponentialMovingAverage(Method):
    """See the card."""

    changes_backbone_only = False

    @checked_arguments
    def __init__(self, decay: float = 0.999) -> None:
        require_between("decay", decay, 0.0, 1.0)
        self.decay = decay
        self._steps = 0
        self._average: dict[str, Tensor] = {}

    @override
    def begin_phase(self, fit: Fit, index: int) -> None:
        self._steps = 0
        self._average = {name: one.clone() for name, one in floating_tensors(fit.model).items()}

    @override
    @torch.no_grad()
    def after_step(self, fit: Fit) -> None:
        keep = min(self.decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        values = floating_tensors(fit.model)
        # lerp leaves equal values, such as a frozen backbone's, as they are to the bit
        torch._foreach_lerp_(
            list(self._average.values()), [values[name] for name in self._average], 1 - keep
        )

    @override
    @torch.no_grad()
    def finish(self, fit: Fit) -> None:
        for name, value in floating_tensors(fit.model).items():
            value.copy_(self._average[name])

    @override
    def state(self) -> dict[str, Tensor]:
        averages = {f"average.{name}": value for name, value in self._average.items()}
        return {"steps": torch.tensor(self._steps), **averages}

    @override
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if state:
            self._steps = int(state["steps"])
            self._average = {
                name.removeprefix("average."): value
                for name, value in state.items()
                if name != "steps"
            }


WISE_FT_CARD = MethodCard(
    name="wise_ft",
    title="WiSE-FT: interpolate between the trained head and the fine-tuned model",
    paper="Wortsman et al., CVPR 2022, arXiv 2109.01903; for detection: WiSE-OD, arXiv 2507.18925",
    formula="(1 - alpha) theta_a + alpha theta_b; theta_a after the first phase of lp_ft, theta_b"
    " the fine-tuned model",
    parameters={"alpha": "share of the fine-tuned model (0.5: the paper's recommendation)"},
    differences=(
        (
            "the paper interpolates with a zero-shot model; dense tasks have none, so that theta_a"
            " is the model whose head alone was trained (our proposal)"
        ),
        "BatchNorm's running mean and variance are interpolated as the weights are",
    ),
    cost="1.0 x the time of a plain step; a copy of the model",
)


def interpolate_weights(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Interpolate two state dicts: (1 - alpha) * first + alpha * second.

    Args:
        first: Tensors by name.
        second: Tensors of the same names and shapes.
        alpha: From 0, which returns ``first``, to 1, which returns ``second``, to the bit.

    Returns:
        Tensors by name. Those that are not floating-point are ``second``'s.

    Raises:
        UserError: If names or shapes differ.
    """
    unlike = [
        name
        for name in sorted({*first, *second})
        if name not in first or name not in second or first[name].shape != second[name].shape
    ]
    if unlike:
        raise UserError(
            f"Expected two models of one architecture and one set of classes, but {unlike[0]}"
            f" differs ({len(unlike)} of {len({*first, *second})} tensors in all); interpolate runs"
            " of the same backbone, task and classes"
        )
    # lerp returns either end, and equal values, to the bit
    return {
        name: torch.lerp(first[name], value, alpha) if value.is_floating_point() else value
        for name, value in second.items()
    }


class WeightInterpolation(Method):
    """See the card."""

    @checked_arguments
    def __init__(self, alpha: float = 0.5) -> None:
        require_between("alpha", alpha, 0.0, 1.0)
        self.alpha = alpha
        self._first: dict[str, Tensor] = {}

    @override
    def begin_phase(self, fit: Fit, index: int) -> None:
        if index == 1:
            self._first = {name: one.clone() for name, one in floating_tensors(fit.model).items()}

    @override
    @torch.no_grad()
    def finish(self, fit: Fit) -> None:
        values = floating_tensors(fit.model)
        for name, mixed in interpolate_weights(self._first, values, self.alpha).items():
            values[name].copy_(mixed)

    @override
    def state(self) -> dict[str, Tensor]:
        return dict(self._first)

    @override
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._first = dict(state)


EMA = MethodEntry(ExponentialMovingAverage, EMA_CARD)
WISE_FT = MethodEntry(WeightInterpolation, WISE_FT_CARD)
