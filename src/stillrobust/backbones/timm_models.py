"""Any architecture that timm has, as a backbone: four maps for dense tasks, one embedding for classification."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from stillrobust.errors import UserError
from stillrobust.names import unknown

LEVELS = 4  # Mask R-CNN's FPN and UPerNet both take the last four stages, strides 4 to 32


class TimmBackbone(nn.Module):
    """A whole timm model, its ImageNet classifier included, that normalises its own input.

    ``forward``: float (B, 3, H, W) RGB 0..1 -> the maps of the last four stages, (B, C_i, H/s_i, W/s_i).
    ``embed``: the same input -> (B, D), what the upstream classifier sees. ``classify``: -> (B, classes) logits.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, name: str, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.name = name
        self.model = model
        stages: list[dict[str, Any]] = list(getattr(model, "feature_info", []))
        self.indices = list(range(max(len(stages) - LEVELS, 0), len(stages)))
        self.channels = tuple(int(stages[i]["num_chs"]) for i in self.indices)
        self.strides = tuple(int(stages[i]["reduction"]) for i in self.indices)
        self.embed_dim = int(getattr(model, "head_hidden_size", 0) or model.num_features)  # type: ignore[arg-type]
        self.frozen = False
        self.norm_eval = False
        self.register_buffer("pixel_mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def freeze(self) -> None:
        """Fixed-feature transfer: no gradient, and statistics, dropout and drop-path in evaluation mode for good."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "TimmBackbone":
        """As ``nn.Module.train``, but a frozen backbone stays in evaluation mode, and so do norms with ``norm_eval``."""
        super().train(mode and not self.frozen)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def normalise(self, images: Tensor) -> Tensor:
        """(x - mean) / std, per channel."""
        return (images - self.pixel_mean) / self.pixel_std

    def forward(self, images: Tensor) -> list[Tensor]:
        """Float (B, 3, H, W) RGB 0..1 -> four maps (B, C_i, H/s_i, W/s_i), finest first."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps: list[Tensor] = self.model.forward_intermediates(  # type: ignore[operator]
                self.normalise(images), indices=self.indices, output_fmt="NCHW", intermediates_only=True
            )
        return maps

    def embed(self, images: Tensor) -> Tensor:
        """Float (B, 3, H, W) RGB 0..1 -> (B, embed_dim): pooled features before the upstream classifier."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.model.forward_features(self.normalise(images))  # type: ignore[operator]
            return self.model.forward_head(features, pre_logits=True)  # type: ignore[operator, no-any-return]

    def classify(self, images: Tensor) -> Tensor:
        """Float (B, 3, H, W) RGB 0..1 -> (B, classes): the logits of the upstream classifier."""
        return self.model(self.normalise(images))  # type: ignore[no-any-return]


def require_pyramid(backbone: TimmBackbone) -> None:
    """Dense tasks need maps at growing strides; a plain ViT has them all at one."""
    if len(backbone.strides) != LEVELS or list(backbone.strides) != sorted(set(backbone.strides)):
        raise UserError(
            f"Detection and segmentation need a backbone with four maps at growing strides, but {backbone.name} has "
            f"strides {backbone.strides}; take a hierarchical one, such as resnet50, convnext_tiny or efficientnet_lite0"
        )


def build_timm(name: str, *, pretrained: bool = False) -> TimmBackbone:
    """The architecture ``name`` with random weights, or with timm's own (``pretrained``, from its hub)."""
    if not timm.is_model(name.split(".")[0]):
        raise unknown("backbone", name, timm.list_models())
    options: dict[str, Any] = {"strict_img_size": False} if name.startswith("swin") else {}
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise
        raise UserError(
            f"timm's weights for {name} could not be had ({str(error).splitlines()[0][:150]}); give weights='FILE' for "
            "a local file, or weights='random'"
        ) from None
    if not hasattr(model, "forward_intermediates"):
        raise UserError(f"timm's {name} cannot return the maps of its stages; take another backbone")
    cfg = model.pretrained_cfg
    return TimmBackbone(name, model, tuple(cfg["mean"]), tuple(cfg["std"]))
