"""Necks: the four maps that heads take, from backbones without a pyramid at strides 4 to 32.

A plain ViT has one stride, and some hierarchies lack the finest or the coarsest map. Necks train in
every transfer, also with a frozen backbone. The strides of a patch of 14 are 3.5, 7, 14 and 28.
"""

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from stillrobust.backbones import LEVELS, Backbone
from stillrobust.errors import UserError

STRIDES = (4, 8, 16, 32)
NORM_EPSILON = 1e-6  # detectron2's channel-first LayerNorm


def has_pyramid(backbone: Backbone) -> bool:
    """Whether heads take the backbone's maps as they are: four at growing strides."""
    strides = list(backbone.strides)
    return len(strides) == LEVELS and strides == sorted(set(strides))


def is_plain(backbone: Backbone) -> bool:
    """Whether all maps have one stride, as those of a plain ViT."""
    return len(backbone.strides) == LEVELS and len(set(backbone.strides)) == 1


def pyramid_strides(backbone: Backbone) -> tuple[float, ...]:
    """The strides of the four maps that heads take, finest first.

    The backbone's own if it has a pyramid. Otherwise its last stride, doubled or halved to four
    strides near 4, 8, 16 and 32.
    """
    if has_pyramid(backbone):
        return backbone.strides
    last = backbone.strides[-1]
    base = last * 2.0 ** round(math.log2(STRIDES[0] / last))
    return tuple(base * 2**level for level in range(LEVELS))


def require_maps(backbone: Backbone) -> None:
    """Check that a backbone has maps for detection and segmentation.

    Raises:
        UserError: If it computes images of one size only, or no pyramid can be made of its maps.
    """
    backbone.require_size(None)
    if not has_pyramid(backbone):
        level_sources(backbone)


def level_sources(backbone: Backbone) -> list[tuple[int, float]]:
    """The map that each of the four levels is made from, and the factor of its height and width.

    Maps of a plain ViT serve a level each, in their order. Otherwise a level is made from the map
    of the nearest stride, the last one of several.

    Returns:
        (index of the map, factor) of each level, finest first.

    Raises:
        UserError: If strides are no powers of two of each other.
    """
    sources = []
    for place, level in enumerate(pyramid_strides(backbone)):
        ratios = [abs(math.log2(stride / level)) for stride in backbone.strides]
        nearest = max(i for i, ratio in enumerate(ratios) if ratio == min(ratios))
        index = place if is_plain(backbone) else nearest
        factor = backbone.strides[index] / level
        if not math.log2(factor).is_integer():
            raise UserError(
                "Detection and segmentation need maps whose strides double, but those of"
                f" {backbone.name} are {backbone.strides}; take resnet50, swin_t or"
                " vit_small_patch16_224"
            )
        sources.append((index, factor))
    return sources


class RescaledMaps(nn.Module):
    """BEiT's neck for UPerNet (Bao et al. 2022): a map for each level, rescaled.

    Maps (B, C_i, h_i, w_i) -> four maps (B, C_i, H/s_i, W/s_i) at ``pyramid_strides``. To
    double a map's size, a ConvTranspose of 2 × 2; BatchNorm and GELU between two of them. To halve
    it, max pooling.

    Args:
        backbone: Without a pyramid.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.sources = level_sources(backbone)
        self.channels = tuple(backbone.channels[index] for index, _ in self.sources)
        self.levels = nn.ModuleList(
            _rescale([width] * (1 + _doublings(factor)), factor, nn.BatchNorm2d)
            for width, (_, factor) in zip(self.channels, self.sources, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, h_i, w_i) of the backbone -> four maps, finest first."""
        return [
            level(maps[index]) for level, (index, _) in zip(self.levels, self.sources, strict=True)
        ]


class SimplePyramid(nn.Module):
    """The simple feature pyramid of ViTDet (Li et al. 2022), from the last map of a plain ViT.

    Maps (B, C, h, w) -> five named maps (B, channels, H/s_i, W/s_i) at ``pyramid_strides``; the
    fifth is pooled from the fourth. To double the map's size, a ConvTranspose of 2 × 2 that halves
    the channels; LayerNorm and GELU between two of them. Then convolutions of 1 × 1 and 3 × 3
    without bias, each with LayerNorm.

    Args:
        backbone: Its maps have one stride.
        channels: Channels of the maps.
    """

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for level in pyramid_strides(backbone):
            factor = backbone.strides[-1] / level
            widths = [backbone.channels[-1] // 2**step for step in range(1 + _doublings(factor))]
            self.levels.append(
                nn.Sequential(
                    _rescale(widths, factor, LayerNorm2d),
                    nn.Conv2d(widths[-1], channels, 1, bias=False),
                    LayerNorm2d(channels, eps=NORM_EPSILON),
                    nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                    LayerNorm2d(channels, eps=NORM_EPSILON),
                )
            )

    def forward(self, maps: Sequence[Tensor]) -> OrderedDict[str, Tensor]:
        """Maps (B, C, h, w), of which the last is used -> named maps, finest first."""
        named = OrderedDict((str(i), level(maps[-1])) for i, level in enumerate(self.levels))
        named["pool"] = functional.max_pool2d(named[str(LEVELS - 1)], 1, 2)
        return named


class FeaturePyramid(FeaturePyramidNetwork):  # type: ignore[misc]
    """FPN on a backbone's four maps, or on rescaled ones if it has no pyramid.

    Maps (B, C_i, h_i, w_i) -> five named maps (B, channels, H/s_i, W/s_i); the fifth is pooled from
    the fourth.

    Args:
        backbone: With maps at several strides.
        channels: Channels of the maps.
    """

    def __init__(self, backbone: Backbone, channels: int) -> None:
        rescaled = None if has_pyramid(backbone) else RescaledMaps(backbone)
        super().__init__(
            list(rescaled.channels if rescaled else backbone.channels),
            channels,
            extra_blocks=LastLevelMaxPool(),
        )
        self.rescaled = rescaled

    def forward(self, maps: Sequence[Tensor]) -> OrderedDict[str, Tensor]:
        """Maps (B, C_i, h_i, w_i) of the backbone -> named maps, finest first."""
        levels = self.rescaled(maps) if self.rescaled else maps
        return super().forward(  # type: ignore[no-any-return]
            OrderedDict((str(level), x) for level, x in enumerate(levels))
        )


def detection_neck(backbone: Backbone, channels: int) -> nn.Module:
    """The neck of Mask R-CNN: ViTDet's pyramid for a plain ViT, FPN for others."""
    if is_plain(backbone):
        return SimplePyramid(backbone, channels)
    return FeaturePyramid(backbone, channels)


def _doublings(factor: float) -> int:
    return max(0, int(math.log2(factor)))


def _rescale(widths: Sequence[int], factor: float, norm: type[nn.Module]) -> nn.Module:
    """Change the size of maps by ``factor``; ``widths`` are the channels before each doubling."""
    if factor < 1:
        pool = round(1 / factor)
        return nn.MaxPool2d(pool, pool, ceil_mode=True)  # no row of an odd map is lost
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        if layers:
            options = {"eps": NORM_EPSILON} if norm is LayerNorm2d else {}
            layers += [norm(before, **options), nn.GELU()]
        layers.append(nn.ConvTranspose2d(before, after, 2, 2))
    return nn.Sequential(*layers)
