"""The Jensen-Shannon consistency loss: equal predictions for several views of an image.

Source: Hendrycks et al. 2020 (AugMix), equation 3; google-research/augmix imagenet.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# Weight of the divergence in the loss: augmix imagenet.py. PRIME's variant has the same.
WEIGHT = 12.0
SMALLEST = 1e-7  # lower bound of the mean probability before its logarithm, ibid.


def jensen_shannon(logits: Sequence[Tensor]) -> Tensor:
    """Compute the Jensen-Shannon divergence of the predictions of several views.

    It is the mean over the views of KL(p_v || M), with M the mean of all p_v. Gradients flow
    through M.

    Args:
        logits: One tensor (B, C) for each of V views.

    Returns:
        The mean over the batch, a scalar: 0 if all predictions are equal, at most ln V.
    """
    # Half precision cannot hold SMALLEST; float32 and float64 stay what they are.
    probabilities = [
        functional.softmax(one.to(torch.promote_types(one.dtype, torch.float32)), dim=1)
        for one in logits
    ]
    mixture = torch.stack(probabilities).mean(dim=0).clamp(SMALLEST, 1).log()
    divergences = [functional.kl_div(mixture, one, reduction="batchmean") for one in probabilities]
    return torch.stack(divergences).mean()


def jsd_loss(
    model: nn.Module, views: list[Tensor], labels: Tensor, generator: torch.Generator
) -> Tensor:
    """Compute the cross-entropy of the clean view plus WEIGHT times the divergence of all views.

    All views pass in one forward, so that BatchNorm normalises over all of them.

    Args:
        model: Returns logits (B, C).
        views: Batches of images (B, 3, H, W) in 0..1, the clean one first.
        labels: Int64 (B,).
        generator: Unused.

    Returns:
        A scalar.
    """
    logits = model(torch.cat(views)).chunk(len(views))
    return functional.cross_entropy(logits[0], labels) + WEIGHT * jensen_shannon(logits)
