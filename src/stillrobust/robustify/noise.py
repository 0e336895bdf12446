"""Gaussian and speckle noise training, the baselines of adversarial noise training.

Rusak et al. 2020; source: bethgelab/game-of-noise 2989b43 (MIT).
"""

from functools import partial

import torch
from torch import Tensor

from stillrobust.errors import UserError
from stillrobust.robustify.technique import (
    Card,
    Technique,
    TechniqueEntry,
    require_between,
    require_unit_range,
    stochastic_count,
)

_PAPER = (
    "Rusak et al. 2020, A simple way to make neural networks robust against diverse image"
    " corruptions (ECCV)"
)
_CODE = "bethgelab/game-of-noise 2989b43 (MIT)"
_SHARE = (
    "part of every batch that is noisy, its last images, on average where it is no whole number;"
    " 0.5 in the official code"
)

GAUSSIAN_CARD = Card(
    name="gaussian",
    title="Gaussian noise training",
    paper=_PAPER,
    code=_CODE,
    parameters={
        "std": (
            "standard deviation on 0..1; 0.5 is the paper's best single one. A tuple draws one per"
            " image: (0.08, 0.12, 0.18, 0.26, 0.38) is the paper's Gauss_mult, which are the"
            " severities of ImageNet-C"
        ),
        "share": _SHARE,
    },
    left_out=(),
    cost="1.0",
    published=(
        "ResNet-50, std 0.5: clean 75.9 %, ImageNet-C 49.4 %, mCE 64.5; Gauss_mult: 76.1 %, 49.2 %,"
        " mCE 65.0"
    ),
    overlaps_test=("gaussian_noise",),
)
SPECKLE_CARD = Card(
    name="speckle",
    title="Speckle noise training",
    paper=_PAPER,
    code=_CODE,
    parameters={
        "std": (
            "standard deviation relative to the pixel, drawn per image from these; those of"
            " speckle_noise in ImageNet-C"
        ),
        "share": _SHARE,
    },
    left_out=(),
    cost="1.0",
    published="ResNet-50: clean 75.8 %, ImageNet-C 46.4 %, mCE 68.3",
    overlaps_test=("speckle_noise",),
)


def gaussian(std: float | tuple[float, ...] = 0.5, share: float = 0.5) -> Technique:
    """Build Gaussian noise training: clip(x + std · N(0, 1)) on the last images of a batch.

    Args:
        std: Standard deviation on 0..1, or several, of which each image draws one.
        share: Share of the batch that is noisy.

    Returns:
        A technique that augments batches.

    Raises:
        UserError: If an argument is out of range.
    """
    return Technique(
        augment_batch=partial(add_noise, stds=_validated_stds(std, share), share=share)
    )


def speckle(
    std: float | tuple[float, ...] = (0.15, 0.2, 0.35, 0.45, 0.6), share: float = 0.5
) -> Technique:
    """Build speckle noise training: clip(x + x · std · N(0, 1)) on the last images of a batch.

    Args:
        std: Standard deviation relative to the pixel, or several, of which each image draws one.
        share: Share of the batch that is noisy.

    Returns:
        A technique that augments batches.

    Raises:
        UserError: If an argument is out of range.
    """
    add = partial(add_noise, stds=_validated_stds(std, share), share=share, relative=True)
    return Technique(augment_batch=add)


def _validated_stds(std: float | tuple[float, ...], share: float) -> tuple[float, ...]:
    stds = std if isinstance(std, tuple) else (std,)
    if not stds:
        raise UserError(
            "Expected at least one standard deviation in std, but got none; give one or more"
        )
    for value in stds:
        require_between("a standard deviation std on 0..1", value, 0, 10, above=True)
    require_between("share", share, 0, 1, above=True)
    return stds


def add_noise(
    images: Tensor,
    generator: torch.Generator,
    stds: tuple[float, ...],
    share: float = 1.0,
    relative: bool = False,
) -> Tensor:
    """Add noise to the last images of a batch.

    Args:
        images: Float (B, 3, H, W) in 0..1. Not modified.
        generator: Source of all random draws.
        stds: Standard deviations, of which each image draws one.
        share: Share of the images that gets noise; see ``stochastic_count``.
        relative: Whether the noise is multiplied by the pixel, as for speckle noise.

    Returns:
        Float (B, 3, H, W), clipped to 0..1.

    Raises:
        UserError: If images are not in 0..1.
    """
    require_unit_range(images)
    clean = len(images) - stochastic_count(len(images), share, generator)
    noisy = images[clean:]
    device = images.device
    chosen = torch.randint(len(stds), (len(noisy),), generator=generator, device=device)
    std = torch.tensor(stds, dtype=images.dtype, device=device)[chosen].view(-1, 1, 1, 1)
    noise = torch.randn(noisy.shape, generator=generator, device=device, dtype=images.dtype).mul_(
        std
    )
    if relative:
        noise.mul_(noisy)
    return torch.cat([images[:clean], noise.add_(noisy).clamp_(0, 1)])


GAUSSIAN = TechniqueEntry(gaussian, GAUSSIAN_CARD)


SPECKLE = TechniqueEntry(speckle, SPECKLE_CARD)
