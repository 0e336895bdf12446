"""Any architecture that timm has, as a backbone; and EfficientNet-Lite, whose published files have
names of their own.
"""

from typing import Any

import timm
from torch import Tensor, nn

from stillrobust.backbones.base import LEVELS, Backbone, Use
from stillrobust.backbones.layouts import Layout, lite_to_timm
from stillrobust.backbones.reader import State
from stillrobust.errors import UserError


class TimmBackbone(Backbone):
    """A timm model; its maps are those of the last four stages."""

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
            layouts=(Layout("timm", next(iter(model.state_dict()))),),
            classifier=_names(model.pretrained_cfg.get("classifier")),  # type: ignore[union-attr, operator]
        )
        self.indices = indices
        self.set_preprocessing(mean, std)

    def maps_of(self, x: Tensor) -> list[Tensor]:
        """The maps of the last four stages."""
        maps: list[Tensor] = self.model.forward_intermediates(  # type: ignore[operator]
            x, indices=self.indices, output_fmt="NCHW", intermediates_only=True
        )
        return maps

    def embedding_of(self, x: Tensor) -> Tensor:
        """Pooled features before the upstream classifier."""
        features = self.model.forward_features(x)  # type: ignore[operator]
        return self.model.forward_head(features, pre_logits=True)  # type: ignore[operator, no-any-return]

    def logits_of(self, x: Tensor) -> Tensor:
        """The upstream classifier's logits."""
        return self.model(x)  # type: ignore[no-any-return]

    def reset_classifier(self, classes: int) -> None:
        """A fresh classifier, by timm's own means."""
        self.model.reset_classifier(classes)  # type: ignore[operator]

    def keep_only(self, use: Use) -> None:
        """Drop the upstream classifier, and for maps what comes after the last stage."""
        if use == "maps":
            self.model.prune_intermediate_layers(self.indices, prune_norm=True)  # type: ignore[operator]
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
    """One of ``LITE_REPEATS``, with random weights; it reads the published files, and timm's."""
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
    """The architectures that timm has."""
    names: list[str] = timm.list_models()
    return names


def build_timm(name: str, *, pretrained: bool = False) -> TimmBackbone:
    """The architecture ``name`` with random weights, or with timm's own (``pretrained``, from its
    hub).
    """
    options: dict[str, Any] = {"strict_img_size": False} if name.startswith("swin") else {}
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise
        raise UserError(
            f"timm's weights for {name} could not be had ({str(error).splitlines()[0][:150]}); give"
            " weights='FILE' for a local file, or weights='random'"
        ) from None
    if not hasattr(model, "forward_intermediates"):
        raise UserError(
            f"timm's {name} cannot return the maps of its stages; take another backbone"
        )
    cfg = model.pretrained_cfg
    return TimmBackbone(name, model, tuple(cfg["mean"]), tuple(cfg["std"]))
