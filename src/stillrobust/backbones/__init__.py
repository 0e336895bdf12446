"""Backbones: specs such as ``resnet50(weights='ant')``, ``swin_t``, ``efficientnet_lite0``,
``convnext_tiny(weights='FILE')``.

Contract: ``.channels``, ``.strides`` (four each); ``forward(x)`` for x float (B, 3, H, W) RGB 0..1
gives four maps (B, C_i, H/s_i, W/s_i); ``embed(x)`` gives (B, embed_dim); ``classify(x)`` gives the
upstream classifier's logits; the backbone normalizes by itself (``pixel_mean``, ``pixel_std``).
"""

from typing import TYPE_CHECKING

from stillrobust.extras import lazy_exports

if TYPE_CHECKING:
    from stillrobust.backbones.architectures import ARCHITECTURES
    from stillrobust.backbones.base import LEVELS, Backbone
    from stillrobust.backbones.checkpoint_facts import Checkpoint
    from stillrobust.backbones.checkpoints import CHECKPOINTS
    from stillrobust.backbones.layer_decay import layer_rates
    from stillrobust.backbones.specs import (
        ResolvedBackbone,
        build_backbone,
        missing_weights,
        resolve_backbone,
        robustified_name,
        weights_file,
    )
    from stillrobust.backbones.weights import write_folder

__all__ = [
    "ARCHITECTURES",
    "CHECKPOINTS",
    "LEVELS",
    "Backbone",
    "Checkpoint",
    "ResolvedBackbone",
    "build_backbone",
    "layer_rates",
    "missing_weights",
    "resolve_backbone",
    "robustified_name",
    "weights_file",
    "write_folder",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "architectures": ("ARCHITECTURES",),
        "base": ("LEVELS", "Backbone"),
        "checkpoint_facts": ("Checkpoint",),
        "checkpoints": ("CHECKPOINTS",),
        "layer_decay": ("layer_rates",),
        "specs": (
            "ResolvedBackbone",
            "build_backbone",
            "missing_weights",
            "resolve_backbone",
            "robustified_name",
            "weights_file",
        ),
        "weights": ("write_folder",),
    },
)
