"""Layer decay: learning rates that fall from the head to the first layer (Clark et al. 2020).

A parameter of layer i of a backbone with last layer n trains at decay^(n + 1 - i) of the head's
rate. Layer 0 is the stem: patch embedding, positions, class and register tokens. What is in none of
the layers, such as the last norm, trains as the head.
"""

import re
from collections.abc import Callable
from typing import Any

from timm.models import group_parameters
from torch import nn

from stillrobust.backbones.architectures import LayerUnit
from stillrobust.backbones.base import Backbone
from stillrobust.errors import UserError


def layer_rates(backbone: Backbone, decay: float, unit: LayerUnit = "block") -> dict[str, float]:
    """The learning rate of every parameter of a backbone, relative to the head's.

    Args:
        backbone: Of any family.
        decay: Ratio of the rates of neighbouring layers, above 0 and at most 1.
        unit: What a layer is, see ``layers_of``.

    Returns:
        Factors by the names of ``backbone.named_parameters()``.

    Raises:
        UserError: If the backbone has no such layers.
    """
    layers, count = layers_of(backbone, unit)
    return {
        name: decay ** (count - layers.get(name.removeprefix("model."), count))
        for name, _ in backbone.named_parameters()
    }


def layers_of(backbone: Backbone, unit: LayerUnit = "block") -> tuple[dict[str, int], int]:
    """The layer of every parameter of a backbone.

    A block is one of a ViT, a Swin or a ResNet. ConvNeXt's are those of its authors: stages 1, 2
    and 4, and every three blocks of stage 3. Other architectures of timm have the layers that timm
    states. With ``stage``, all blocks of a stage are one layer, and ConvNeXt's downsampling layers
    belong to the stem, as in mmsegmentation.

    Args:
        backbone: Of any family.
        unit: ``block`` or ``stage``.

    Returns:
        Layers from 0 by parameter names of ``backbone.model``, without the parameters that train as
        the head; and the number of layers, which is the head's.

    Raises:
        UserError: If the backbone has no such layers.
    """
    names = [name for name, _ in backbone.model.named_parameters()]
    family = next(
        (known for pattern, known in _FAMILIES.items() if any(re.match(pattern, n) for n in names)),
        None,
    )
    found = family(names, unit) if family else _by_timm(backbone.model, unit)
    if found is None:
        raise UserError(
            f"{backbone.name} has no {unit}s that layer decay could count; set layer_decay: 1.0, or"
            " take a ViT, Swin, ResNet or ConvNeXt"
        )
    return found


Found = tuple[dict[str, int], int] | None


def _number(places: dict[str, tuple[int, int]], stem: list[str], unit: LayerUnit) -> Found:
    """Layers from 1 in the order of the (stage, block) of each name; the stem is layer 0."""
    keys = [(place[0], 0 if unit == "stage" else place[1]) for place in places.values()]
    order = {key: number for number, key in enumerate(sorted(set(keys)), 1)}
    layers = {name: order[key] for name, key in zip(places, keys, strict=True)}
    return {**dict.fromkeys(stem, 0), **layers}, len(order) + 1


def _vit(names: list[str], unit: LayerUnit) -> Found:
    """detectron2's get_vit_lr_decay_rate; tokens belong to the positions, as in BEiT."""
    if unit == "stage":
        return None
    places = {n: (0, int(m[1])) for n in names if (m := re.match(r"blocks\.(\d+)\.", n))}
    stem = [n for n in names if re.match(r"(pos_embed|\w+_token|patch_embed|norm_pre|rope)", n)]
    return _number(places, stem, unit)


def _resnet(names: list[str], unit: LayerUnit) -> Found:
    found = {n: re.match(r"layer(\d)\.(\d+)\.", n) for n in names}
    places = {n: (int(m[1]), int(m[2])) for n, m in found.items() if m}
    return _number(places, [n for n in names if re.match(r"(conv1|bn1)\.", n)], unit)


def _swin(names: list[str], unit: LayerUnit) -> Found:
    """SimMIM's: a merging belongs to the last block of the stage before it."""
    places = {
        n: (int(m[1]), int(m[2]))
        for n in names
        if (m := re.match(r"features\.(\d*[13579])\.(\d+)\.", n))
    }
    for n in names:
        if (m := re.match(r"features\.(\d*[2468])\.", n)) and int(m[1]) > 0:
            places[n] = max(place for place in places.values() if place[0] == int(m[1]) - 1)
    return _number(places, [n for n in names if n.startswith("features.0.")], unit)


def _convnext(names: list[str], unit: LayerUnit) -> Found:
    """get_num_layer_layer_wise and _stage_wise of facebookresearch/ConvNeXt and mmsegmentation."""
    found = {n: re.match(r"stages\.(\d)\.(?:blocks\.(\d+)|downsample)\.", n) for n in names}
    blocks = {n: (int(m[1]), int(m[2] or 0)) for n, m in found.items() if m}
    groups = 1 + max(block for stage, block in blocks.values() if stage == 2) // 3
    layers = dict.fromkeys([n for n in names if n.startswith("stem.")], 0)
    for n, (stage, block) in blocks.items():
        if unit == "stage":
            layers[n] = 0 if ".downsample." in n else stage + 1
        else:
            layers[n] = (1, 2, 3 + block // 3, 3 + groups)[stage]
    return layers, 4 + groups


def _by_timm(model: nn.Module, unit: LayerUnit) -> Found:
    """The groups of timm's ``group_matcher``, coarse ones for stages."""
    if not hasattr(model, "group_matcher"):
        return None
    matcher: dict[str, Any] = model.group_matcher(coarse=unit == "stage")  # type: ignore[operator]
    patterns = [
        entry[0]
        for value in matcher.values()
        for entry in ([(value, None)] if isinstance(value, str) else value or [])
    ]
    layers: dict[str, int] = group_parameters(model, matcher, reverse=True)
    layers = {n: i for n, i in layers.items() if any(re.match(p, n) for p in patterns)}
    return layers, max(layers.values()) + 1


# by a parameter that only the family has
_FAMILIES: dict[str, Callable[[list[str], LayerUnit], Found]] = {
    r"layer1\.0\.": _resnet,
    r"features\.1\.0\.attn\.": _swin,
    r"stages\.0\.blocks\.0\.conv_dw\.": _convnext,
    r"blocks\.0\.(attn|norm1)\.": _vit,
}
