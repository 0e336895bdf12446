"""timm's architectures as backbones, and EfficientNet-Lite, whose files have other key names."""

from typing import Any

import timm
import torch
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from stillrobust.backbones.attention_windows import restrict_attention
from stillrobust.backbones.base import LEVELS, Backbone, Output
from stillrobust.backbones.layouts import Layout, lite_to_timm
from stillrobust.backbones.reader import State
from stillrobust.backbones.timm_layouts import timm_layouts
from stillrobust.backbones.timm_sizes import (
    allow_any_size,
    find_size_limits,
    pad_to_multiple,
    size_options,
    stage_maps,
)
from stillrobust.errors import UserError


class TimmBackbone(Backbone):
    """A timm model.

    Images (B, 3, H, W) -> four maps (B, C_i, ceil(H/s_i), ceil(W/s_i)), with the channels and
    strides that timm's ``feature_info`` states: the last four stages, or four blocks of a plain
    ViT. Images are padded where the model needs whole patches or windows (see ``timm_sizes``).

    Args:
        name: Name of the architecture.
        model: timm's model.
        mean: Normalization of the model: red, green and blue of images in 0..1.
        std: The same.
    """

    def __init__(
        self, name: str, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        stages: list[dict[str, Any]] = list(getattr(model, "feature_info", []))
        indices = _map_indices([int(stage["reduction"]) for stage in stages])
        super().__init__(
            name,
            model,
            channels=tuple(int(stages[i]["num_chs"]) for i in indices),
            strides=tuple(int(stages[i]["reduction"]) for i in indices),
            embed_dim=int(getattr(model, "head_hidden_size", 0) or model.num_features),  # type: ignore[arg-type]
            layouts=timm_layouts(model),
            classifier=_names(model.pretrained_cfg.get("classifier")),  # type: ignore[union-attr, operator]
        )
        self.indices = indices
        self.normed = False
        """Whether the model's last norm is applied to the maps."""
        self.limits = find_size_limits(name, model, indices, self.strides)
        self.native_size = self.limits.fixed or self.native_size
        self.set_preprocessing(mean, std)

    def maps_of(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps of four stages or blocks, (B, C_i, ceil(H/s_i), ceil(W/s_i))."""
        height, width = x.shape[-2:]
        self._refuse_other_than_fixed((height, width))
        options = {"norm": True} if self.normed else {}
        maps = stage_maps(
            self.model, pad_to_multiple(x, self.limits.map_multiple), self.indices, **options
        )
        return [
            one[..., : -(-height // stride), : -(-width // stride)]
            for one, stride in zip(maps, self.strides, strict=True)
        ]

    def embedding_of(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> timm's features before the classifier, (B, embed_dim)."""
        features = self.model.forward_features(self._padded(x))  # type: ignore[operator]
        return self.model.forward_head(features, pre_logits=True)  # type: ignore[operator, no-any-return]

    def logits_of(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> timm's logits, (B, classes)."""
        return self.model(self._padded(x))  # type: ignore[no-any-return]

    def _padded(self, x: Tensor) -> Tensor:
        self._refuse_other_than_fixed((x.shape[-2], x.shape[-1]))
        return pad_to_multiple(x, self.limits.multiple)

    def require_size(self, size: tuple[int, int] | None) -> None:
        """See ``Backbone.require_size``; a size is tried."""
        self._refuse_other_than_fixed(size)
        if size is None:
            if self.limits.uncovered:
                raise UserError(
                    "Detection and segmentation need maps of the whole image, but those of"
                    f" {self.name} leave out its border (its convolutions do not pad); take"
                    " resnet50 or convnext_tiny"
                )
            return
        training = self.training
        try:
            with torch.no_grad():
                self.eval().embedding_of(torch.zeros(1, 3, *size, device=self.pixel_mean.device))
        except Exception as error:  # each of timm's architectures fails in its own way
            height, width = self.model.pretrained_cfg["input_size"][1:]  # type: ignore[index]
            raise UserError(
                f"{self.name} cannot compute images of {size[0]} × {size[1]}; take larger"
                f" ones, such as {height} × {width} (resize={height}, crop={height})"
            ) from error
        finally:
            self.train(training)

    def _refuse_other_than_fixed(self, size: tuple[int, int] | None) -> None:
        fixed = self.limits.fixed
        if fixed and size != fixed:
            wanted = "images of any size" if size is None else f"{size[0]} × {size[1]}"
            raise UserError(
                f"{self.name} computes images of {fixed[0]} × {fixed[1]} only, but {wanted}"
                " are needed; take vit_small_patch16_224, swin_t or resnet50, or classify at"
                f" resize={fixed[0]}, crop={fixed[0]}"
            )

    def set_drop_path(self, rate: float) -> None:
        """Rates rise linearly over the blocks that have a drop path, from 0 to ``rate``."""
        places = [
            (module, names)
            for module in self.model.modules()
            if (names := [name for name in _DROP_PATHS if _may_drop(module, name)])
        ]
        if not places:
            super().set_drop_path(rate)
        for index, (module, names) in enumerate(places):
            share = rate * index / max(len(places) - 1, 1)
            for name in names:
                setattr(module, name, DropPath(share) if share else nn.Identity())

    def set_windows(self, side: int) -> None:
        """See ``Backbone.set_windows``."""
        if not isinstance(self.model, VisionTransformer):
            super().set_windows(side)
        restrict_attention(self.model, side)

    def reset_classifier(self, classes: int) -> None:
        """Replace the classifier by timm's own method."""
        self.model.reset_classifier(classes)  # type: ignore[operator]

    def keep_only(self, output: Output) -> None:
        """Drop the classifier, and for maps everything after the last stage."""
        if output == "embedding":
            self.model.reset_classifier(0)  # type: ignore[operator]
            return
        norm = getattr(self.model, "norm", nn.Identity())
        self.model.prune_intermediate_layers(self.indices, prune_norm=True)  # type: ignore[operator]
        for name in self.classifier:  # a norm in the head stays otherwise
            setattr(self.model, name.split(".")[0], nn.Identity())
        if output == "normed_maps" and len(set(self.strides)) == 1:
            self.model.norm = norm
            self.normed = True


# names of the modules that timm's blocks have for stochastic depth, identities at rate 0
_DROP_PATHS = ("drop_path", "drop_path1", "drop_path2")


def _may_drop(module: nn.Module, name: str) -> bool:
    """Whether a block has a place for drop path of a name; ResNets have ``None`` there."""
    return isinstance(getattr(module, name, 0), DropPath | nn.Identity | None)


def _map_indices(strides: list[int]) -> list[int]:
    """The stages or blocks whose maps are returned.

    The last four stages of a hierarchy up to stride 32. A plain ViT has one stride; its blocks are
    those of BEiT and MAE in mmsegmentation, 3, 5, 7 and 11 of 12, or 7, 11, 15 and 23 of 24.
    """
    count = sum(stride <= 32 for stride in strides) or len(strides)
    if count > LEVELS and len(set(strides)) == 1:
        return [round(count * part) - 1 for part in (1 / 3, 1 / 2, 2 / 3, 1)]
    return list(range(max(count - LEVELS, 0), count))


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


# Blocks per stage: depth coefficients 1.0, 1.1, 1.1; the first and the last stage are not scaled
# (the builder in tensorflow/tpu, models/official/efficientnet/lite).
LITE_REPEATS = {
    "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}


def build_lite(name: str) -> TimmBackbone:
    """Build one of ``LITE_REPEATS`` with random weights; it loads published files and timm's."""
    backbone = build_timm(f"tf_{name}")
    backbone.name = name

    def convert(state: State) -> State:
        return lite_to_timm(state, LITE_REPEATS[name])

    backbone.layouts = (
        *backbone.layouts,
        Layout("EfficientNet-Lite", "_conv_stem.weight", convert=convert),
    )
    return backbone


def create_timm_model(name: str, weights: State | None = None, **options: Any) -> nn.Module:
    """Create a timm model without a connection.

    Args:
        name: timm's name.
        weights: The tensors of timm's own weight file; random weights by default.
        **options: Further arguments of ``timm.create_model``.
    """
    if weights is None:
        return timm.create_model(name, pretrained=False, **options)  # type: ignore[no-any-return]
    model = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"state_dict": weights}, **options
    )
    model.pretrained_cfg["state_dict"] = None  # else it keeps the tensors in memory
    return model  # type: ignore[no-any-return]


def build_timm(name: str, weights: State | None = None) -> TimmBackbone:
    """Build a timm architecture.

    Args:
        name: timm's name.
        weights: The tensors of timm's own weight file; random weights by default.

    Raises:
        UserError: If the architecture returns no maps.
    """
    model = create_timm_model(name, weights, **size_options(name))
    if not hasattr(model, "forward_intermediates"):
        raise UserError(
            f"timm's {name} cannot return the maps of its stages; take another backbone"
        )
    allow_any_size(model)
    cfg: Any = model.pretrained_cfg
    return TimmBackbone(name, model, tuple(cfg["mean"]), tuple(cfg["std"]))
