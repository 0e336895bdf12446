"""L2 adversarial training: the model trains on the worst images within a ball.

Projected gradient descent finds them (Madry et al. 2018). Source: MadryLab/robustness a954124
(MIT). The ImageNet models of Salman et al. 2020 are microsoft/robust-models-transfer cea2c37.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image as PIL
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import functional as transforms

from stillrobust.errors import UserError
from stillrobust.robustify.technique import (
    Card,
    Technique,
    TechniqueEntry,
    attack_mode,
    require_between,
    require_eight_bit,
    require_unit_range,
)
from stillrobust.samples import Array, Image


def _overlaps(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    return ("brightness", "contrast", "saturate") if arguments["jitter"] else ()


CARD = Card(
    name="l2",
    title="L2 adversarial training",
    paper=(
        "Madry et al. 2018, Towards deep learning models resistant to adversarial attacks (ICLR); "
        "Salman et al. 2020, Do adversarially robust ImageNet models transfer better? (NeurIPS)"
    ),
    code="MadryLab/robustness a954124 (MIT); microsoft/robust-models-transfer cea2c37 (MIT)",
    parameters={
        "epsilon": (
            "radius of the ball over all values of an image on 0..1; 3.0 is the model of the"
            " paper's Table 1, 224 x 224"
        ),
        "steps": "of the attack; 3 for ImageNet (Salman et al.), 7 for CIFAR",
        "step_size": "length of a step; 0 is 2 epsilon / 3 (Salman et al.); epsilon / 5 for CIFAR",
        "random_start": (
            "start on the sphere of radius epsilon and not at the image; False in the library"
        ),
        "keep_best": (
            "of all iterates, start and end included, the one with the highest loss, image by"
            " image; True in the library"
        ),
        "jitter": (
            "the library's augmentation beside crop and flip: colour jitter of 10 % and PCA"
            " lighting"
        ),
    },
    left_out=("random restarts, which are for evaluation",),
    cost=(
        "3.3 (three steps with keep_best: four more forward and three more backward passes, of the"
        " images only)"
    ),
    published="ResNet-50, clean: epsilon 0.1 74.78 %, 1 70.43 %, 3 62.83 %, 5 56.13 % (0: 75.80 %)",
    overlaps_for=_overlaps,
)


def l2(
    epsilon: float = 3.0,
    steps: int = 3,
    step_size: float = 0.0,
    random_start: bool = False,
    keep_best: bool = True,
    jitter: bool = True,
) -> Technique:
    """Build L2 adversarial training. ``CARD.parameters`` describes the arguments.

    Returns:
        A technique with a loss and, if ``jitter``, an augmentation of single images.

    Raises:
        UserError: If an argument is out of range.
    """
    require_between("epsilon of l2", epsilon, 0, 1000)
    require_between("steps of l2", steps, 1, 1000)
    require_between("step_size of l2 (0 is 2 epsilon / 3)", step_size, 0, 1000)
    loss = partial(
        adversarial_loss,
        epsilon=epsilon,
        steps=steps,
        step_size=step_size or 2 * epsilon / 3,
        random_start=random_start,
        keep_best=keep_best,
    )
    augment = jitter_colours if jitter else None
    return Technique(augment_image=augment, loss=loss, needs_unit_range=True)


def adversarial_loss(
    model: nn.Module,
    views: list[Tensor],
    labels: Tensor,
    generator: torch.Generator,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    random_start: bool = False,
    keep_best: bool = True,
) -> Tensor:
    """Compute the mean cross-entropy on adversarial images alone.

    The attack uses the model in evaluation mode, the loss uses it as it is.

    Args:
        model: Returns logits (B, classes).
        views: One batch of images, float (B, 3, H, W) in 0..1.
        labels: Int64 (B,).
        generator: Source of the random start.
        epsilon: Radius of the L2 ball.
        steps: Steps of the attack.
        step_size: L2 length of a step.
        random_start: Whether the attack starts on the sphere of radius ``epsilon``.
        keep_best: Whether the iterate of the highest loss is used, and not the last one.

    Returns:
        A scalar.
    """
    worst = attack(
        model,
        views[0],
        labels,
        generator,
        epsilon=epsilon,
        steps=steps,
        step_size=step_size,
        random_start=random_start,
        keep_best=keep_best,
    )
    return functional.cross_entropy(model(worst), labels)


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    random_start: bool = False,
    keep_best: bool = True,
) -> Tensor:
    """Find adversarial images by projected gradient descent (Madry et al. 2018).

    x <- clip(x0 + project_to_ball(x + step_size · g / |g| - x0), 0, 1), with g the gradient of the
    cross-entropy. Clipping follows the projection and keeps the image in the ball, because x0 lies
    in 0..1. The model is left unchanged.

    Args:
        model: Returns logits (B, classes).
        images: Float (B, 3, H, W) in 0..1.
        labels: Int64 (B,).
        generator: Source of the random start.
        epsilon: Radius of the L2 ball.
        steps: Steps of the attack.
        step_size: L2 length of a step.
        random_start: Whether the attack starts on the sphere of radius ``epsilon``.
        keep_best: Whether the iterate of the highest loss is returned, and not the last one.

    Returns:
        Images (B, 3, H, W) within 0..1 and within ``epsilon`` of the given ones.

    Raises:
        UserError: If images are not in 0..1, or images and labels differ in number.
    """
    require_unit_range(images)
    if len(labels) != len(images):
        raise UserError(
            f"Expected one label for each of {len(images)} images, but got {len(labels)}; give as"
            " many"
        )
    if epsilon == 0:
        return images
    current, best = images, images
    highest = torch.full((len(images),), -torch.inf, device=images.device)
    if random_start:
        start = torch.randn(
            images.shape, generator=generator, device=images.device, dtype=images.dtype
        )
        current = (images + epsilon * start / _norms(start)).clamp(0, 1)
    with attack_mode(model) as victim:
        for step in range(steps + 1):
            last = step == steps
            if last and not keep_best:
                return current
            current = current.detach().requires_grad_(not last)
            with torch.set_grad_enabled(not last):
                losses = functional.cross_entropy(victim(current).float(), labels, reduction="none")
            if keep_best:
                higher = losses.detach() > highest
                best = torch.where(higher.view(-1, 1, 1, 1), current.detach(), best)
                highest = torch.where(higher, losses.detach(), highest)
            if not last:
                # The sum and not the mean: the direction is the same, and 16-bit gradients of a
                # large batch do not vanish.
                (gradient,) = torch.autograd.grad(losses.sum(), current)
                moved = (
                    current.detach() + step_size * gradient / (_norms(gradient) + 1e-10) - images
                )
                current = (images + project_to_ball(moved, epsilon)).clamp(0, 1)
    return best


def project_to_ball(change: Tensor, epsilon: float) -> Tensor:
    """Project changes onto an L2 ball.

    Args:
        change: (B, 3, H, W).
        epsilon: Radius of the ball.

    Returns:
        The changes, each shortened to the norm ``epsilon`` if it is longer.
    """
    return change * (epsilon / _norms(change).clamp_min(1e-30)).clamp_max(1)


def _norms(change: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
    return norms


# ---- the official augmentation: TRAIN_TRANSFORMS_IMAGENET in robustness/data_augmentation.py

JITTER = 0.1  # of brightness, contrast and saturation: factors in 0.9..1.1
LIGHTING_STD = 0.05
# Principal components of ImageNet's colours (Krizhevsky et al. 2012), on 0..1: eigenvalues, and
# eigenvectors as columns.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


def jitter_colours(image: Image, rng: np.random.Generator) -> Array:
    """Jitter brightness, contrast and saturation by up to 10 % in random order, then shift the
    colours.

    The shift is along ImageNet's principal colours (Krizhevsky et al. 2012). The official code is
    TRAIN_TRANSFORMS_IMAGENET in robustness/data_augmentation.py.

    Args:
        image: uint8 (H, W, 3) RGB.
        rng: Source of all random draws.

    Returns:
        float32 (H, W, 3), clipped to 0..1, where the official model's first layer clips.
    """
    require_eight_bit(image)
    adjust = (
        transforms.adjust_brightness,
        transforms.adjust_contrast,
        transforms.adjust_saturation,
    )
    factors = rng.uniform(1 - JITTER, 1 + JITTER, 3)
    picture = PIL.fromarray(image)
    for index in rng.permutation(3):
        picture = adjust[index](picture, float(factors[index]))
    shift = EIGENVECTORS @ (rng.normal(0, LIGHTING_STD, 3) * EIGENVALUES)
    lit: Array = (np.asarray(picture, np.float32) / 255 + shift.astype(np.float32)).clip(0, 1)
    return lit


L2 = TechniqueEntry(l2, CARD)
