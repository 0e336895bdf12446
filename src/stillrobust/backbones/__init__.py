"""Backbones: specs such as ``resnet50(weights='ant')``, ``swin_t``, ``efficientnet_lite0``,
``convnext_tiny(weights='FILE')``.

Contract: ``.channels``, ``.strides`` (four each); ``forward(x)`` for x float (B, 3, H, W) RGB 0..1
gives four maps (B, C_i, H/s_i, W/s_i); ``embed(x)`` gives (B, embed_dim); ``classify(x)`` gives the
upstream classifier's logits; the backbone normalizes by itself (``pixel_mean``, ``pixel_std``).
"""

from stillrobust.extras import require_extra

require_extra("torch")

from stillrobust.backbones.base import Backbone, require_pyramid
from stillrobust.backbones.checkpoint_facts import Checkpoint
from stillrobust.backbones.checkpoints import CHECKPOINTS
from stillrobust.backbones.specs import (
    ARCHITECTURES,
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
    "Backbone",
    "Checkpoint",
    "ResolvedBackbone",
    "build_backbone",
    "missing_weights",
    "require_pyramid",
    "resolve_backbone",
    "robustified_name",
    "weights_file",
    "write_folder",
]
