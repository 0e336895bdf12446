"""Strict loading of weight files in any key layout: every tensor fits by name and shape."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from stillrobust.backbones.base import Backbone
from stillrobust.backbones.checkpoint_facts import OPENMMLAB, WRAPPERS
from stillrobust.backbones.containers import (
    Found,
    ambiguity,
    join_path,
    prefixes_before,
    strip_prefixes,
)
from stillrobust.backbones.layouts import (
    OUTPUT_NORMS,
    RESNET_LAYOUTS,
    SWIN_LAYOUTS,
    Layout,
    rename_key,
)
from stillrobust.backbones.reader import WeightFile, unreadable_error
from stillrobust.backbones.strict_loading import load_strictly, tensor_names
from stillrobust.errors import UserError

# buffers in official and OpenMMLab files that models compute themselves
RECOMPUTED = ("relative_position_index", "attn_mask")
NORMALIZATION = ("normalize.mean", "normalize.std")  # robustbench, ImageNormalizer
CHANNELS = 3
FAMILIES = {"ResNet": RESNET_LAYOUTS, "Swin": SWIN_LAYOUTS}
HEAD_KEYS = (*WRAPPERS, *OPENMMLAB)
"""Beginnings of keys besides the backbone that a user's file may hold."""


def load_weights(
    backbone: Backbone, weights: WeightFile, path: Path, may_differ: tuple[str, ...] = HEAD_KEYS
) -> str:
    """Load the tensors of a file into a backbone.

    All tensors but those of the classifier are required. Without a classifier the backbone refuses
    to classify, and one with another number of classes replaces the backbone's. Output norms of a
    Swin are optional; without them they stay identities.

    Args:
        backbone: The backbone to load into.
        weights: The file's content, in one of the backbone's layouts.
        path: The file, for messages.
        may_differ: Beginnings of further keys that the file may hold.

    Returns:
        A few words on what was loaded.

    Raises:
        UserError: If tensors are missing, left over, of another shape, or not finite, or the
            file has several sets of them.
    """
    signatures = [layout.signature for layout in backbone.layouts]
    found = strip_prefixes(Found(weights.tensors, weights.place), signatures)
    state = found.tensors
    prefix, layout = _find_layout(backbone, found, path)
    inside = {
        rename_key(name, layout.rules): value
        for name, value in _below(state, prefix).items()
        if not name.startswith(layout.unused)
    }
    if prefix:
        outside = {
            key: rename_key(key, layout.unprefixed) for key in state if not key.startswith(prefix)
        }
        inside |= {
            new: state[key]
            for key, new in outside.items()
            if new != key or not (key.startswith(may_differ) or _is_beside(key, layout))
        }
    _take_over_normalization(backbone, inside)
    converted = {
        key: value for key, value in layout.convert(inside).items() if not key.endswith(RECOMPUTED)
    }
    _take_over_classes(backbone, converted)
    backbone.absent = tuple(part for part in backbone.classifier if not _has(converted, f"{part}."))
    optional = [f"model.{part}." for part in backbone.absent]
    if not _has(converted, OUTPUT_NORMS):
        optional.append(OUTPUT_NORMS)
    named = {
        key if key.startswith(OUTPUT_NORMS) else f"model.{key}": value
        for key, value in converted.items()
    }
    count = load_strictly(backbone, named, str(path), may_lack=tuple(optional))
    lacking = f", without {' and '.join(backbone.absent)}" if backbone.absent else ""
    place = join_path(found.path, prefix.removesuffix(".")).strip(".")
    key = f", key {place!r}" if place else ""
    return f"{count} tensors from {path} ({layout.name} layout{key}{lacking})"


def _find_layout(backbone: Backbone, found: Found, path: Path) -> tuple[str, Layout]:
    """The prefix under which the backbone's tensors are, and their layout."""
    names = found.tensors
    fitting = {
        prefix: layout
        for layout in backbone.layouts
        for prefix in prefixes_before(layout.signature, names)
    }
    # transformers' Swin has the official signature within a part of it
    outer = [
        prefix
        for prefix in sorted(fitting)
        if not any(prefix.startswith(other) for other in fitting if other != prefix)
    ]
    if len(outer) > 1:
        places = [join_path(found.path, prefix.removesuffix(".")) for prefix in outer]
        raise unreadable_error(path, ambiguity(places))
    if outer:
        return outer[0], fitting[outer[0]]
    of_another = [
        family
        for family, layouts in FAMILIES.items()
        if any(True for layout in layouts for _ in prefixes_before(layout.signature, names))
    ]
    seems = (
        f"it seems to be a {of_another[0]}'s"
        if of_another
        else f"its keys are such as {tensor_names(list(names))}"
    )
    known = " and ".join(layout.name for layout in backbone.layouts)
    raise UserError(
        f"Expected weights of {backbone.name} in {path} (layouts: {known}), but {seems}; "
        "name the architecture that the file belongs to"
    )


def _below(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def _is_beside(key: str, layout: Layout) -> bool:
    return bool(layout.beside) and re.match(layout.beside, key) is not None


def _take_over_normalization(backbone: Backbone, state: dict[str, torch.Tensor]) -> None:
    """Use the mean and the deviation of a file that has them, as RobustBench's models do.

    They are removed from ``state``. Values that are no such statistics stay, so that the strict
    loading reports them.
    """
    mean, std = (state.get(name) for name in NORMALIZATION)
    if mean is None or std is None or not mean.numel() == std.numel() == CHANNELS:
        return
    if bool(mean.isfinite().all()) and bool(std.isfinite().all()) and bool((std > 0).all()):
        backbone.set_preprocessing(
            tuple(mean.flatten().tolist()), tuple(std.flatten().tolist()), backbone.clamp
        )
        for name in NORMALIZATION:
            del state[name]


def _take_over_classes(backbone: Backbone, state: Mapping[str, torch.Tensor]) -> None:
    """Give the backbone a classifier with the file's number of classes."""
    if not backbone.classifier:
        return
    name = f"{backbone.classifier[-1]}.weight"
    theirs, own = state.get(name), backbone.model.state_dict().get(name)
    if theirs is None or own is None or theirs.shape[1:] != own.shape[1:] or not len(theirs):
        return  # the strict loading reports it
    if len(theirs) != len(own):
        backbone.reset_classifier(len(theirs))


def _has(state: Mapping[str, torch.Tensor], beginning: str) -> bool:
    return any(key.startswith(beginning) for key in state)
