"""ConvNeXts and ViTs whose patches come from a few convolutions (Singh et al. 2023).

Layers and names are those of RobustBench's model_zoo/architectures/convstem_models.py.
"""

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from stillrobust.backbones.base import Backbone
from stillrobust.backbones.checkpoint_facts import IMAGENET_MEAN, IMAGENET_STD
from stillrobust.backbones.layouts import Layout
from stillrobust.backbones.timm_models import build_timm

# name -> timm's architecture, (channels, stride) of the stem's convolutions
_CONVNEXTS = {
    "convnext_t_cvst": ("convnext_tiny", ((48, 2), (96, 2))),
    "convnext_s_cvst": ("convnext_small", ((48, 2), (96, 2))),
    "convnext_b_cvst": ("convnext_base", ((64, 2), (96, 2), (128, 1))),
}
_VITS = {
    "vit_s_cvst": ("deit_small_patch16_224", ((48, 2), (96, 2), (192, 2), (384, 2))),
    "vit_b_cvst": ("vit_base_patch16_224", ((48, 2), (96, 2), (192, 2), (384, 2))),
}
CONV_STEMS = {**_CONVNEXTS, **_VITS}
"""The architectures by name."""


class ConvStem(nn.Module):
    """Convolutions of 3 x 3 with LayerNorm and GELU.

    Args:
        sizes: Channels and stride of each convolution.
        width: Channels of a final 1 x 1 convolution; 0 for none.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], width: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels, stride in sizes:
            layers += [
                nn.Conv2d(before, channels, 3, stride, padding=1),
                LayerNorm2d(channels, eps=1e-6),
                nn.GELU(),
            ]
            before = channels
        if width:
            layers.append(nn.Conv2d(before, width, 1))
        self.stem = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H/s, W/s)."""
        return self.stem(x)  # type: ignore[no-any-return]


def build_conv_stem(name: str) -> Backbone:
    """Build one of ``CONV_STEMS`` with random weights."""
    architecture, sizes = CONV_STEMS[name]
    backbone = build_timm(architecture)
    model = backbone.model
    if name in _VITS:
        model.patch_embed.proj = ConvStem(sizes, backbone.embed_dim)  # type: ignore[union-attr]
    else:
        model.stem = ConvStem(sizes)
    backbone.name = name
    backbone.layouts = (Layout("timm", next(iter(model.state_dict()))),)
    backbone.set_preprocessing(IMAGENET_MEAN, IMAGENET_STD)
    return backbone
