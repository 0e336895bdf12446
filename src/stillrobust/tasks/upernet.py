"""UPerNet (Xiao et al., ECCV 2018), with pyramid pooling, FPN and an auxiliary FCN head on four
maps; and a linear head on the last map.

Modules have mmsegmentation's names (upernet_r50.py), so that published weights load by name.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillrobust.backbones import Backbone
from stillrobust.tasks.necks import RescaledMaps, has_pyramid, pyramid_strides

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


def crop_to_image(logits: Tensor, stride: float, size: tuple[int, ...]) -> Tensor:
    """Cut logits of whole patches to the image, which may end inside of a patch.

    Args:
        logits: (B, classes, h, w).
        stride: Pixels of the image for one of a logit map.
        size: The last two values are the image's (H, W).

    Returns:
        The same logits if they end where the image ends; otherwise resized, (B, classes, H, W).
    """
    covered = tuple(round(side * stride) for side in logits.shape[-2:])
    if covered == tuple(size[-2:]):
        return logits
    return resize_features(logits, covered)[..., : size[-2], : size[-1]]


class UPerNet(nn.Module):
    """Backbone, neck if the backbone has no pyramid, decode head and auxiliary head.

    Images (B, 3, H, W) -> logits (B, classes, H/s_0, W/s_0) and, in training, auxiliary logits
    (B, classes, H/s_2, W/s_2), at ``pyramid_strides`` s. Logits of a neck's maps are (B, classes,
    H, W) where an image ends inside of a patch.

    Args:
        backbone: With maps at strides 4, 8, 16 and 32, or such that ``RescaledMaps`` makes them.
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
        self.strides = pyramid_strides(backbone)
        self.neck = None if has_pyramid(backbone) else RescaledMaps(backbone)
        widths = self.neck.channels if self.neck else backbone.channels
        self.decode_head = UPerHead(widths, channels, classes, dropout)
        self.auxiliary_head = FCNHead(widths[2], auxiliary_channels, classes, dropout)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Float (B, 3, H, W) of 0..1 -> logits, and auxiliary logits or ``None``."""
        maps = self.backbone(images)
        maps = self.neck(maps) if self.neck else maps
        logits = self.decode_head(maps)
        auxiliary = self.auxiliary_head(maps[2]) if self.training else None
        if self.neck:
            logits = crop_to_image(logits, self.strides[0], images.shape)
            if auxiliary is not None:
                auxiliary = crop_to_image(auxiliary, self.strides[2], images.shape)
        return logits, auxiliary


class LinearSegmenter(nn.Module):
    """DINOv2's linear head (Oquab et al. 2023): BatchNorm and one convolution on the last map.

    Images (B, 3, H, W) -> logits (B, classes, H/s, W/s) at the stride s of the last map, or (B,
    classes, H, W) where an image ends inside of a cell; and ``None``, for it has no auxiliary head.

    Args:
        backbone: A plain ViT passes its last map through its last norm. Parameters that only
            other maps need are frozen.
        classes: Number of classes.
    """

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        _freeze_unused(backbone)
        self.bn = nn.BatchNorm2d(backbone.channels[-1])
        self.conv_seg = nn.Conv2d(backbone.channels[-1], classes, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        """Float (B, 3, H, W) of 0..1 -> logits, and ``None``."""
        logits = self.conv_seg(self.bn(self.backbone(images)[-1]))
        return crop_to_image(logits, self.backbone.strides[-1], images.shape), None


def _freeze_unused(backbone: Backbone) -> None:
    """Freeze parameters that the last map does not depend on: norms and branches of other maps."""
    # some architectures have constants among their parameters
    parameters = [one for one in backbone.parameters() if one.requires_grad]
    images = torch.zeros(1, 3, 64, 64, device=backbone.pixel_mean.device)
    training = backbone.training
    last = backbone.eval()(images)[-1]
    backbone.train(training)
    found = torch.autograd.grad(last.sum(), parameters, allow_unused=True) if parameters else ()
    for parameter, gradient in zip(parameters, found, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)
