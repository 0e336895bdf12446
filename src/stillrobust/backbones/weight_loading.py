"""Putting the tensors of a file into a model, strictly: every tensor fits by name and shape, or an
error names it.
"""

from collections.abc import Mapping

import torch

from stillrobust.backbones.base import Backbone
from stillrobust.backbones.checkpoints import OPENMMLAB, WRAPPERS
from stillrobust.backbones.layouts import (
    OUTPUT_NORMS,
    PREFIXES,
    RESNET_LAYOUTS,
    SWIN_LAYOUTS,
    Layout,
    renamed,
)
from stillrobust.backbones.reader import State, load_strictly, shown
from stillrobust.errors import UserError

# what official and OpenMMLab files keep beside the weights
RECOMPUTED = ("relative_position_index", "attn_mask")
FAMILIES = {"ResNet": RESNET_LAYOUTS, "Swin": SWIN_LAYOUTS}
HEAD_KEYS = (*WRAPPERS, *OPENMMLAB)
"""Keys that a file of the user's own may hold beside a backbone."""


def load_weights(
    backbone: Backbone, state: State, source: str, may_differ: tuple[str, ...] = HEAD_KEYS
) -> str:
    """Load a file's tensors, in whatever layout, into ``backbone``; returns what was loaded in a
    few words.

    All tensors of the trunk must be there. The upstream classifier may be missing, and ``backbone``
    then refuses to classify; where it has another number of classes, ``backbone`` takes it over. A
    Swin's output norms may be missing: they then stay at identity. ``may_differ``: beginnings of
    further keys that the file may hold.
    """
    prefix, layout = _find_layout(backbone, state, source)
    inside = {
        renamed(key.removeprefix(prefix), layout.rules): value
        for key, value in state.items()
        if key.startswith(prefix)
    }
    if prefix:
        outside = {key: renamed(key, layout.beside) for key in state if not key.startswith(prefix)}
        inside |= {
            new: state[key]
            for key, new in outside.items()
            if new != key or not key.startswith(may_differ)
        }
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
    count = load_strictly(backbone, named, source, may_lack=tuple(optional))
    lacking = f", without {' and '.join(backbone.absent)}" if backbone.absent else ""
    return f"{count} tensors from {source} ({layout.name} layout{lacking})"


def _find_layout(backbone: Backbone, state: State, source: str) -> tuple[str, Layout]:
    for prefix in PREFIXES:
        for layout in backbone.layouts:
            if prefix + layout.signature in state:
                return prefix, layout
    of_another = [
        family
        for family, layouts in FAMILIES.items()
        if any(prefix + layout.signature in state for prefix in PREFIXES for layout in layouts)
    ]
    seems = (
        f"it seems to be a {of_another[0]}'s"
        if of_another
        else f"its keys are such as {shown(list(state))}"
    )
    known = " and ".join(layout.name for layout in backbone.layouts)
    raise UserError(
        f"Expected weights of {backbone.name} in {source} (layouts: {known}), but {seems}; "
        "name the architecture that the file belongs to"
    )


def _take_over_classes(backbone: Backbone, state: State) -> None:
    """Give ``backbone`` a classifier of the file's number of classes."""
    if not backbone.classifier:
        return
    name = f"{backbone.classifier[-1]}.weight"
    theirs, own = state.get(name), backbone.model.state_dict().get(name)
    if theirs is None or own is None or theirs.shape[1:] != own.shape[1:]:
        return  # the strict load says what is wrong
    if len(theirs) != len(own):
        backbone.reset_classifier(len(theirs))


def _has(state: Mapping[str, torch.Tensor], beginning: str) -> bool:
    return any(key.startswith(beginning) for key in state)
