"""PRIME: random mixtures of chains of three maximum-entropy primitives (Modas et al. 2022).

Source: amodas/PRIME-augmentations 0290f6b (Apache-2.0). The official pipeline evaluates every
primitive on all images and masks. Here each image passes only the primitives that it drew, which
gives the same distribution at a fraction of the cost.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from stillrobust.robustify.jsd import jsd_loss
from stillrobust.robustify.prime_primitives import colour, diffeomorphism, random_color_filter
from stillrobust.robustify.technique import (
    AugmentBatch,
    Card,
    Technique,
    TechniqueEntry,
    cross_entropy,
    require_between,
    require_unit_range,
)

DEPTH = 3  # the longest chain (mixture_depth -1 of the official code draws 1..3)

# config/imagenet_cfg.py and config/cifar_cfg.py: highest frequency, highest variance and bandwidth
# (0: all) of colour; highest frequency of the diffeomorphism
_REGIMES: dict[str, tuple[dict[str, Any], int]] = {
    "imagenet": ({"largest": 500, "strength": 0.05, "bandwidth": 20}, 500),
    "cifar": ({"largest": 100, "strength": 0.01, "bandwidth": 0}, 100),
}

CARD = Card(
    name="prime",
    title="PRIME",
    paper=(
        "Modas et al. 2022, PRIME: a few primitives can boost robustness to common corruptions"
        " (ECCV), arXiv:2112.13547"
    ),
    code=(
        "amodas/PRIME-augmentations 0290f6b (Apache-2.0); the diffeomorphism is"
        " pcsl-epfl/diffeomorphism 1d5fb9f (MIT)"
    ),
    parameters={
        "geometry": (
            "with the diffeomorphism, for square images only; False is the variant of Yamada &"
            " Otani 2022 in fine-tuning, for any size"
        ),
        "jsd": (
            "the consistency loss of AugMix over the clean image and two views; released ImageNet"
            " models exist with and without"
        ),
        "regime": "hyper-parameters of config/imagenet_cfg.py or config/cifar_cfg.py",
        "width": "chains in a mixture; 3 in both configurations",
        "depth": (
            "primitives in a chain, 1 to 3; -1 draws it for each chain, as both configurations do"
        ),
        "delta": (
            "where the random filter has its identity: 'official' one pixel off the middle (a slip"
            " of the official code, with which the released weights were made as far as is known),"
            " 'center' in the middle, so that boxes and masks stay exact"
        ),
        "shared": (
            "scalar parameters of the primitives: 'call' draws them once for all images of a call,"
            " as the official code does; 'sample' for each image, for small batches. In fine-tuning"
            " a call has the images of one size"
        ),
        "mix": (
            "'beta_dirichlet' is the code: (1 - m) x + m (chains mixed by Dir(1, 1, 1)), m ~"
            " Beta(1, 1); 'dirichlet' is Algorithm 1 of the paper as we remember it: x is one more"
            " component, and a step of a chain may be the identity"
        ),
    },
    left_out=("the replacement of NaN by 1 after a filter: finite images give none",),
    cost=(
        "1.0 and the augmentation (6 ms an image of 224 x 224 on one core); with jsd=True three"
        " views: 3.0 and twice that"
    ),
    published=(
        "ResNet-50: clean 77.0 %, ImageNet-C 55.0 %, mCE 57.5; with jsd=True 75.3 %, 56.4 %, mCE"
        " 55.5 (from torchvision's weights, 100 epochs)"
    ),
)


def prime(
    geometry: bool = True,
    jsd: bool = False,
    regime: Literal["imagenet", "cifar"] = "imagenet",
    width: int = 3,
    depth: int = -1,
    delta: Literal["official", "center"] = "official",
    shared: Literal["call", "sample"] = "call",
    mix: Literal["beta_dirichlet", "dirichlet"] = "beta_dirichlet",
) -> Technique:
    """Build PRIME. ``CARD.parameters`` describes the arguments.

    Returns:
        A technique that augments batches and, with ``jsd``, has the consistency loss.

    Raises:
        UserError: If an argument is out of range.
    """
    require_between("width of prime", width, 1, 10)
    if depth != -1:
        require_between("depth of prime (-1 draws it)", depth, 1, DEPTH)
    curves, cut = _REGIMES[regime]
    once = shared == "call"
    primitives: list[AugmentBatch] = [
        partial(colour, **curves, shared=once),
        partial(random_color_filter, delta=delta, shared=once),
    ]
    if geometry:
        primitives.append(partial(diffeomorphism, largest=cut, shared=once))
    if mix == "dirichlet":
        primitives.append(_identity)
    return Technique(
        augment_batch=partial(
            mix_primitives, primitives=primitives, width=width, depth=depth, mix=mix
        ),
        loss=jsd_loss if jsd else cross_entropy,
        views=3 if jsd else 1,
        geometric=geometry,
    )


def _identity(images: Tensor, generator: torch.Generator) -> Tensor:
    return images


@torch.no_grad()
def mix_primitives(
    images: Tensor,
    generator: torch.Generator,
    primitives: Sequence[AugmentBatch],
    width: int = 3,
    depth: int = -1,
    mix: str = "beta_dirichlet",
) -> Tensor:
    """Mix every image with ``width`` chains of random primitives of it.

    Runs in float32 at least, even under autocast: sines of high frequencies lose all precision in
    16 bits.

    Args:
        images: Float (B, 3, H, W) in 0..1, of any size that the primitives take. Not modified.
        generator: Source of all random draws.
        primitives: Augmentations of batches.
        width: Chains of each image.
        depth: Primitives in a chain; -1 draws 1 to DEPTH.
        mix: How chains are weighted: ``beta_dirichlet`` (official code) or ``dirichlet`` (paper).

    Returns:
        Float (B, 3, H, W) in 0..1.

    Raises:
        UserError: If images are not in 0..1.
    """
    require_unit_range(images)
    device, kind = images.device, images.dtype
    with torch.autocast(device.type, enabled=False):
        images = images.to(torch.promote_types(kind, torch.float32))
        chains = images.repeat(width, 1, 1, 1)
        lengths = torch.full((len(chains),), depth, device=device)
        if depth == -1:
            lengths = torch.randint(
                1, DEPTH + 1, (len(chains),), generator=generator, device=device
            )
        for step in range(DEPTH if depth == -1 else depth):
            drawn = torch.randint(
                len(primitives), (len(chains),), generator=generator, device=device
            )
            drawn[lengths <= step] = -1  # a chain that has ended
            for index, primitive in enumerate(primitives):
                chosen = (drawn == index).nonzero().flatten()
                if len(chosen):
                    chains.index_copy_(
                        0, chosen, primitive(chains.index_select(0, chosen), generator)
                    )
        weights = torch.empty(len(images), width, device=device).exponential_(generator=generator)
        weights /= weights.sum(1, keepdim=True)  # exponentials over their sum are Dir(1, ..., 1)
        # The weight of all chains: Beta(1, 1), or Beta(width, 1) if x is one of width + 1
        # components of Dir(1, ..., 1).
        exponent = 1.0 if mix == "beta_dirichlet" else 1 / width
        together = torch.rand(len(images), 1, generator=generator, device=device) ** exponent
        mixed = (1 - together)[..., None, None] * images
        for chain, weight in zip(
            chains.view(width, *images.shape), (together * weights).T, strict=True
        ):
            mixed.addcmul_(chain, weight[:, None, None, None])
        return mixed.to(kind)


PRIME = TechniqueEntry(prime, CARD)
