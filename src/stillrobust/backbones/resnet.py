"""ResNet backbones: torchvision's (v1.5, stride on the 3x3 convolution), and a small one."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from stillrobust.backbones.base import Backbone, Output
from stillrobust.backbones.layouts import RESNET_LAYOUTS

# He et al. 2016, table 1; block and blocks per stage.
DEPTHS: dict[str, tuple[type[nn.Module], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
# ours: 0.69 M parameters; forward and backward of 64 images of 64 px take 0.09 s of one core
MINI_WIDTHS = (24, 48, 96, 192)
STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResNetBackbone(Backbone):
    """A ResNet with torchvision's module names (He et al. 2016).

    Images (B, 3, H, W) of any size -> outputs of the four stages, at strides 4, 8, 16 and 32.

    Args:
        name: Name of the architecture.
        model: torchvision's ResNet, or a ``MiniResNet``.
    """

    def __init__(self, name: str, model: nn.Module) -> None:
        assert isinstance(model.fc, nn.Linear)
        width = model.fc.in_features
        channels = tuple(width >> shift for shift in (3, 2, 1, 0))
        super().__init__(
            name,
            model,
            channels=channels,
            strides=(4, 8, 16, 32),
            embed_dim=width,
            layouts=RESNET_LAYOUTS,
            classifier=("fc",),
        )

    def maps_of(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> outputs of the four stages, (B, C_i, H/s_i, W/s_i)."""
        model = self.model
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))  # type: ignore[operator]
        maps = []
        for stage in STAGES:
            x = model.get_submodule(stage)(x)
            maps.append(x)
        return maps

    def embedding_of(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the mean of the last map over its pixels, (B, embed_dim)."""
        return torch.flatten(self.model.avgpool(self.maps_of(x)[-1]), 1)  # type: ignore[operator]

    def logits_of(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits of ``fc``, (B, classes)."""
        return self.model.fc(self.embedding_of(x))  # type: ignore[operator, no-any-return]

    def reset_classifier(self, classes: int) -> None:
        """Replace ``fc``, initialized as torch does."""
        self.model.fc = nn.Linear(self.embed_dim, classes)

    def keep_only(self, output: Output) -> None:
        """Drop ``fc``; maps and embedding need everything else."""
        self.model.fc = nn.Identity()


class MiniResNet(nn.Module):
    """A narrow ResNet of one basic block a stage, with torchvision's module names.

    Ours, for trainings on a laptop; no published weights exist. Only its modules are used: a
    ``ResNetBackbone`` computes maps (B, widths[i], H/s_i, W/s_i) and logits (B, classes).

    Args:
        widths: Channels of the four stages.
        classes: Classes of the linear classifier ``fc``.
    """

    def __init__(
        self, widths: tuple[int, int, int, int] = MINI_WIDTHS, classes: int = 1000
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        before = widths[0]
        for stage, width in zip(STAGES, widths, strict=True):
            self.add_module(stage, _basic_stage(before, width))
            before = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, classes)
        for module in self.modules():  # as torchvision's ResNet
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _basic_stage(before: int, width: int) -> nn.Module:
    """One basic block; it halves the map if it changes the width."""
    if before == width:
        return nn.Sequential(BasicBlock(width, width))
    shortcut = nn.Sequential(
        nn.Conv2d(before, width, 1, stride=2, bias=False), nn.BatchNorm2d(width)
    )
    return nn.Sequential(BasicBlock(before, width, stride=2, downsample=shortcut))


def build_resnet(name: str) -> ResNetBackbone:
    """Build one of ``DEPTHS`` or ``resnet_mini``, weights drawn from torch's generator."""
    if name == "resnet_mini":
        return ResNetBackbone(name, MiniResNet())
    block, depths = DEPTHS[name]
    return ResNetBackbone(name, ResNet(block, list(depths)))
