"""Noise2Net: images pass small residual networks with random weights, new ones for each image.

This is DeepAugment without pretrained networks (Hendrycks et al. 2021). Source:
hendrycks/imagenet-r, DeepAugment/train_noise2net.py. As there, all images of a batch form one image
of many channels for grouped convolutions.
"""

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from stillrobust.robustify.technique import (
    Card,
    Technique,
    TechniqueEntry,
    require_between,
    require_unit_range,
    stochastic_count,
)

CARD = Card(
    name="noise2net",
    title="DeepAugment's Noise2Net",
    paper=(
        "Hendrycks et al. 2021, The many faces of robustness: A critical analysis of"
        " out-of-distribution generalization (ICCV)"
    ),
    code="hendrycks/imagenet-r 3131cac, DeepAugment/train_noise2net.py (MIT)",
    parameters={
        "epsilon": (
            "weight of a block beside what it is given, drawn for every batch from epsilon/2 to"
            " epsilon; 0.75 there"
        ),
        "share": (
            "part of every batch that is changed, its first images, on average where it is no whole"
            " number; 0.5 there"
        ),
    },
    left_out=(
        (
            "kernel sizes and dilations are drawn for every batch, there for every epoch: no state,"
            " the same distribution"
        ),
        (
            "images are not clipped, as there, so that they leave 0..1: in a sum of techniques it"
            " comes last"
        ),
    ),
    cost="1.2 (batches of 4) to 1.4 (of 8) on a CPU",
    published="none by itself",
)

# The space the networks act in: images less ImageNet's mean, divided by its standard deviation.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCKS, WIDTH, SCALE = 4, 16, 4  # blocks; channels of a part, and parts, within a block
KERNELS, DILATIONS = (1, 3), (1, 2, 3)


def noise2net(epsilon: float = 0.75, share: float = 0.5) -> Technique:
    """Build Noise2Net. ``CARD.parameters`` describes the arguments.

    Returns:
        A technique that augments batches, and leaves 0..1.

    Raises:
        UserError: If an argument is out of range.
    """
    require_between("epsilon", epsilon, 0, 10, above=True)
    require_between("share", share, 0, 1, above=True)
    return Technique(
        augment_batch=partial(distort_batch, epsilon=epsilon, share=share), leaves_unit_range=True
    )


def distort_batch(
    images: Tensor, generator: torch.Generator, epsilon: float, share: float = 1.0
) -> Tensor:
    """Change the first images of a batch by about 2 e standard deviations of ImageNet.

    e is drawn for the batch from epsilon / 2 to epsilon.

    Args:
        images: Float (B, 3, H, W) in 0..1. Not modified.
        generator: Source of all random draws.
        epsilon: Largest weight of a block.
        share: Share of the images that is changed; see ``stochastic_count``.

    Returns:
        Float (B, 3, H, W), not clipped.

    Raises:
        UserError: If images are not in 0..1.
    """
    require_unit_range(images)
    count = stochastic_count(len(images), share, generator)
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        weight = (
            epsilon * (1 + float(torch.rand((), generator=generator, device=generator.device))) / 2
        )
        changed = (
            apply_random_networks((images[:count] - mean) / std, generator, weight) * std + mean
        )
    return torch.cat([changed, images[count:]])


def apply_random_networks(images: Tensor, generator: torch.Generator, weight: float) -> Tensor:
    """Pass each image through a random network of its own.

    Args:
        images: Float (B, 3, H, W), normalised.
        generator: Source of all random draws.
        weight: Weight of a block; 0 changes nothing.

    Returns:
        Float (B, 3, H, W).
    """
    if not len(images):
        return images
    groups = len(images)
    features = images.reshape(1, -1, *images.shape[2:])
    for _ in range(BLOCKS):
        features = features + weight * apply_block(features, groups, generator)
    return features.view_as(images)


def apply_block(features: Tensor, groups: int, generator: torch.Generator) -> Tensor:
    """Apply a Res2Net bottleneck with random weights.

    Args:
        features: (1, groups · 3, H, W).
        groups: Number of images.
        generator: Source of all random draws.

    Returns:
        The same shape, each channel of mean 0 and variance 1.
    """
    size = features.shape[2:]
    hidden = normalise_channels(
        random_convolution(features, groups, WIDTH * SCALE, 1, 1, generator, bias=False)
    ).relu()
    parts = hidden.view(groups, SCALE, WIDTH, *size).unbind(1)
    done: list[Tensor] = []
    # each is given the result of the one before as well; the last passes as it is
    for part in parts[:-1]:
        kernel, dilation = (choose_size(values, generator) for values in (KERNELS, DILATIONS))
        joined = (part + done[-1] if done else part).reshape(1, groups * WIDTH, *size)
        changed = normalise_channels(
            random_convolution(joined, groups, WIDTH, kernel, dilation, generator, bias=True)
        ).relu()
        done.append(changed.view(groups, WIDTH, *size))
    mixed = torch.stack([*done, parts[-1]], dim=1).reshape(1, -1, *size)
    return normalise_channels(random_convolution(mixed, groups, 3, 1, 1, generator, bias=False))


def random_convolution(
    features: Tensor,
    groups: int,
    outputs: int,
    kernel: int,
    dilation: int,
    generator: torch.Generator,
    bias: bool,
) -> Tensor:
    """Apply a convolution with random weights to each group, drawn as PyTorch initialises them.

    Args:
        features: (1, groups · C, H, W).
        groups: Number of images.
        outputs: Output channels of a group.
        kernel: Size of the kernel.
        dilation: Dilation of the kernel.
        generator: Source of all random draws.
        bias: Whether the convolution has a bias.

    Returns:
        (1, groups · outputs, H, W).
    """
    inputs = features.shape[1] // groups
    limit = 1 / math.sqrt(inputs * kernel * kernel)

    def drawn(*shape: int) -> Tensor:
        values = torch.rand(
            shape, generator=generator, device=features.device, dtype=features.dtype
        )
        return (2 * values - 1) * limit

    weight = drawn(groups * outputs, inputs, kernel, kernel)
    shift = drawn(groups * outputs) if bias else None
    return functional.conv2d(
        features,
        weight,
        shift,
        padding=dilation * (kernel - 1) // 2,
        dilation=dilation,
        groups=groups,
    )


def normalise_channels(features: Tensor) -> Tensor:
    """Normalise each channel of each image to mean 0 and variance 1, as BatchNorm in training does.

    Args:
        features: (1, channels, H, W).
    """
    # written out, since instance_norm refuses an image of one pixel
    centred = features - features.mean(dim=(2, 3), keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim=(2, 3), keepdim=True) + 1e-5)


def choose_size(values: tuple[int, ...], generator: torch.Generator) -> int:
    """Draw one of the values with equal probabilities.

    Args:
        values: The values.
        generator: Source of the draw.
    """
    return values[int(torch.randint(len(values), (), generator=generator, device=generator.device))]


NOISE2NET = TechniqueEntry(noise2net, CARD)
