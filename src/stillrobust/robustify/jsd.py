"""The Jensen-Shannon consistency loss: the same prediction for several views of an image (Hendrycks
et al. 2020, equation 3).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# of the divergence beside the cross-entropy: augmix imagenet.py; PRIME's variant has the same
WEIGHT = 12.0
SMALLEST = 1e-7  # of the mean probability before its logarithm, ibid.


def jensen_shannon(logits: Sequence[Tensor]) -> Tensor:
    """How far the predictions of V views, (B, C) logits each, are from their mean: 0 if equal, at
    most ln V; () for the batch.

    The mean over the views of KL(p_v || M), with M the mean of all p_v; gradients flow through M as
    well.
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
    """Cross-entropy on the first view, the clean one, plus WEIGHT times the divergence over all: a
    technique's loss.

    All views pass in one forward, so that BatchNorm sees them all.
    """
    logits = model(torch.cat(views)).chunk(len(views))
    return functional.cross_entropy(logits[0], labels) + WEIGHT * jensen_shannon(logits)
