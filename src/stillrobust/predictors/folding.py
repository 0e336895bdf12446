"""Fold BatchNorm into convolutions before a model is evaluated: the same numbers in less time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from stillrobust.samples import Image, Prediction

EXAMPLE = (128, 160)  # (H, W) of the image that shows which layers follow each other
# Largest change of an output of a folded layer, in units of its largest value. Rounding to float32
# gives some 1e-6; a wrong pair of layers gives 1e-1.
TOLERANCE = 1e-3
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # others may change their weights in each call

_REPLACEMENTS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.BatchNorm2d: lambda norm: nn.Identity(),
    FrozenBatchNorm2d: lambda norm: nn.Identity(),
    BatchNormAct2d: lambda norm: nn.Sequential(norm.drop, norm.act),
}
"""What is left of a BatchNorm layer, by its exact type."""


def fold_batch_norm(model: nn.Module, predict: Callable[[list[Image]], list[Prediction]]) -> int:
    """Fold each BatchNorm that directly follows a convolution into its weights.

    ``predict`` runs once on an image of noise, which shows what follows what. It runs again after
    folding. If a layer's output then differs by more than float32 rounds, or ``predict`` fails,
    the model is left as it was.

    Args:
        model: In evaluation mode. Changed in place: BatchNorm layers are replaced.
        predict: Predicts images, uint8 (H, W, 3), with the model.

    Returns:
        The number of folded layers.
    """
    image = np.random.default_rng(0).integers(0, 256, (*EXAMPLE, 3), np.uint8)
    norms = [
        module
        for module in model.modules()
        if type(module) in _REPLACEMENTS
        and module.running_mean is not None  # otherwise it normalizes by the batch
        and not module.training
    ]
    if not norms:
        return 0
    try:
        with torch.inference_mode():
            pairs, before = _watch(model, norms, lambda: predict([image]))
    except Exception:  # evaluation reports it, with the name of an image
        return 0
    if not pairs:
        return 0
    kept = {conv: (conv.weight, conv.bias) for conv in pairs.values()}
    names = [
        (name, module)
        for name, module in model.named_modules(remove_duplicate=False)
        if module in pairs
    ]
    replaced = {norm: _REPLACEMENTS[type(norm)](norm) for norm in pairs}
    for norm, conv in pairs.items():
        _fold(conv, norm)
    for name, norm in names:
        model.set_submodule(name, replaced[norm])
    with torch.inference_mode():
        after = _outputs(list(replaced.values()), lambda: predict([image]))
    if not all(_are_close(before[norm], after[replaced[norm]]) for norm in pairs):
        for conv, (weight, bias) in kept.items():
            conv.weight, conv.bias = weight, bias
        for name, norm in names:
            model.set_submodule(name, norm)
        return 0
    return len(pairs)


def _watch(
    model: nn.Module, norms: list[nn.Module], run: Callable[[], Any]
) -> tuple[dict[nn.Module, nn.Conv2d], dict[nn.Module, list[Tensor]]]:
    """Find the convolution before each norm, and the norms' outputs, while ``run`` runs.

    A pair counts if neither of the two runs without the other.
    """
    makers: dict[int, nn.Module] = {}
    results: list[Tensor] = []  # kept, so that no two tensors have the same id
    found: dict[nn.Module, list[nn.Module | None]] = {norm: [] for norm in norms}
    calls: dict[nn.Module, int] = {}

    def after_convolution(conv: nn.Module, inputs: Any, output: Tensor) -> None:
        makers[id(output)] = conv
        results.append(output)
        calls[conv] = calls.get(conv, 0) + 1

    def before_norm(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[norm].append(makers.get(id(inputs[0])))

    convolutions = [module for module in model.modules() if type(module) in CONVOLUTIONS]
    hooks = [conv.register_forward_hook(after_convolution) for conv in convolutions]
    hooks += [norm.register_forward_pre_hook(before_norm) for norm in norms]
    try:
        outputs = _outputs(norms, run)
    finally:
        for hook in hooks:
            hook.remove()
    norms_of: dict[nn.Module | None, set[nn.Module]] = {}
    for norm, convs in found.items():
        for conv in convs:
            norms_of.setdefault(conv, set()).add(norm)
    pairs: dict[nn.Module, nn.Conv2d] = {}
    for norm, convs in found.items():
        first = convs[0] if convs else None
        if (
            isinstance(first, nn.Conv2d)
            and set(convs) == {first}
            and norms_of[first] == {norm}
            and calls[first] == len(convs)
        ):
            pairs[norm] = first
    return pairs, outputs


def _outputs(modules: list[nn.Module], run: Callable[[], Any]) -> dict[nn.Module, list[Tensor]]:
    """The outputs of modules while ``run`` runs, in the order of their calls."""
    outputs: dict[nn.Module, list[Tensor]] = {module: [] for module in modules}
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output: outputs[module].append(output.clone())
        )
        for module in modules
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    """Scale and shift a convolution as the norm does, computed in float64 and rounded once."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.weight is not None:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double()
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    weight = (conv.weight.double() * scale.view(-1, 1, 1, 1)).to(conv.weight)
    conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(weight).detach(), requires_grad=False)


def _are_close(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether outputs agree up to rounding."""
    return len(first) == len(second) and all(
        one.shape == other.shape
        and float((one - other).abs().max()) <= TOLERANCE * max(1.0, float(one.abs().max()))
        for one, other in zip(first, second, strict=True)
        if one.numel()
    )
