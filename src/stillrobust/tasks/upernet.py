"""UPerNet (Xiao et al., ECCV 2018): pyramid pooling, FPN and an auxiliary FCN head on four maps.

Modules have mmsegmentation's names (upernet_r50.py), so that published weights load by name.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillrobust.backbones import Backbone

POOL_SIZES = (1, 2, 3, 6)  # Zhao et al. 2017 (PSPNet), kept by UPerNet


class ConvModule(nn.Module):
    """Convolution without bias, BatchNorm and ReLU: (B, inputs, H, W) -> (B, outputs, H, W).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Side of the kernel; the size of the map is kept.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return functional.relu(self.bn(self.conv(x)))


def resize_features(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize maps bilinearly, corners not aligned.

    Args:
        x: (B, C, h, w).
        size: The last two values are (H, W).

    Returns:
        (B, C, H, W).
    """
    return functional.interpolate(x, size=size[-2:], mode="bilinear", align_corners=False)


class UPerHead(nn.Module):
    """The decode head: four maps (B, C_i, H/s_i, W/s_i) -> logits (B, classes, H/s_0, W/s_0).

    Args:
        inputs: C_i, channels of the maps, finest first.
        channels: Channels inside the head.
        classes: Number of classes.
        dropout: Probability that a channel is dropped before the last convolution.
    """

    def __init__(
        self, inputs: tuple[int, ...], channels: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), ConvModule(inputs[-1], channels, 1))
            for size in POOL_SIZES
        )
        self.bottleneck = ConvModule(inputs[-1] + len(POOL_SIZES) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvModule(width, channels, 1) for width in inputs[:-1])
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3) for _ in inputs[:-1])
        self.fpn_bottleneck = ConvModule(len(inputs) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (B, C_i, H/s_i, W/s_i), finest first -> logits (B, classes, H/s_0, W/s_0)."""
        top = maps[-1]
        pooled = [resize_features(pool(top), tuple(top.shape)) for pool in self.psp_modules]
        path = [lateral(x) for lateral, x in zip(self.lateral_convs, maps[:-1], strict=True)]
        path.append(self.bottleneck(torch.cat([top, *pooled], dim=1)))
        for level in range(len(path) - 1, 0, -1):
            path[level - 1] = path[level - 1] + resize_features(
                path[level], tuple(path[level - 1].shape)
            )
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, path[:-1], strict=True)] + [path[-1]]
        outputs = [outputs[0]] + [resize_features(x, tuple(outputs[0].shape)) for x in outputs[1:]]
        return self.conv_seg(self.dropout(self.fpn_bottleneck(torch.cat(outputs, dim=1))))  # type: ignore[no-any-return]


class FCNHead(nn.Module):
    """The auxiliary head of training: the third map (B, inputs, h, w) -> logits (B, classes, h, w).

    Args:
        inputs: Channels of the map.
        channels: Channels of its one convolution.
        classes: Number of classes.
        dropout: Probability that a channel is dropped before the last convolution.
    """

    def __init__(self, inputs: int, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvModule(inputs, channels, 3)])
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> logits (B, classes, h, w)."""
        return self.conv_seg(self.dropout(self.convs[0](x)))  # type: ignore[no-any-return]


class UPerNet(nn.Module):
    """Backbone, decode head and auxiliary head.

    Images (B, 3, H, W) -> logits (B, classes, H/4, W/4) and, in training, auxiliary logits
    (B, classes, H/16, W/16).

    Args:
        backbone: With maps at strides 4, 8, 16 and 32.
        channels: Channels of the decode head.
        auxiliary_channels: Channels of the auxiliary head.
        classes: Number of classes.
        dropout: Of both heads.
    """

    def __init__(
        self,
        backbone: Backbone,
        channels: int,
        auxiliary_channels: int,
        classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = UPerHead(backbone.channels, channels, classes, dropout)
        self.auxiliary_head = FCNHead(backbone.channels[2], auxiliary_channels, classes, dropout)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Float (B, 3, H, W) of 0..1 -> logits, and auxiliary logits or ``None``."""
        maps = self.backbone(images)
        return self.decode_head(maps), self.auxiliary_head(maps[2]) if self.training else None
