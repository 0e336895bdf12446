"""timm's architectures as backbones, and EfficientNet-Lite, whose files have other key names."""

from typing import Any

import timm
from torch import Tensor, nn

from stillrobust.backbones.base import LEVELS, Backbone, Output
from stillrobust.backbones.layouts import Layout, lite_to_timm
from stillrobust.backbones.reader import State
from stillrobust.backbones.timm_layouts import timm_layouts
from stillrobust.errors import UserError


class TimmBackbone(Backbone):
    """A timm model.

    Images (B, 3, H, W) -> maps of the last four stages (B, C_i, H/s_i, W/s_i), with the channels
    and strides that timm's ``feature_info`` states.

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
        indices = list(range(max(len(stages) - LEVELS, 0), len(stages)))
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
        self.set_preprocessing(mean, std)

    def maps_of(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps of the last four stages, (B, C_i, H/s_i, W/s_i)."""
        maps: list[Tensor] = self.model.forward_intermediates(  # type: ignore[operator]
            x, indices=self.indices, output_fmt="NCHW", intermediates_only=True
        )
        return maps

    def embedding_of(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> timm's features before the classifier, (B, embed_dim)."""
        features = self.model.forward_features(x)  # type: ignore[operator]
        return self.model.forward_head(features, pre_logits=True)  # type: ignore[operator, no-any-return]

    def logits_of(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> timm's logits, (B, classes)."""
        return self.model(x)  # type: ignore[no-any-return]

    def reset_classifier(self, classes: int) -> None:
        """Replace the classifier by timm's own method."""
        self.model.reset_classifier(classes)  # type: ignore[operator]

    def keep_only(self, output: Output) -> None:
        """Drop the classifier, and for maps everything after the last stage."""
        if output == "maps":
            self.model.prune_intermediate_layers(self.indices, prune_norm=True)  # type: ignore[operator]
            for name in self.classifier:  # a norm in the head stays otherwise
                setattr(self.model, name.split(".")[0], nn.Identity())
        else:
            self.model.reset_classifier(0)  # type: ignore[operator]


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


def timm_names() -> list[str]:
    """The names of timm's architectures."""
    names: list[str] = timm.list_models()
    return names


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
    options: dict[str, Any] = {"strict_img_size": False} if name.startswith("swin") else {}
    model = create_timm_model(name, weights, **options)
    if not hasattr(model, "forward_intermediates"):
        raise UserError(
            f"timm's {name} cannot return the maps of its stages; take another backbone"
        )
    cfg: Any = model.pretrained_cfg
    return TimmBackbone(name, model, tuple(cfg["mean"]), tuple(cfg["std"]))
