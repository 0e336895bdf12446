"""Training in several processes: sums and statistics over all of them, so that N processes compute
what one computes.

Every process holds a part of the batch, and DDP averages the gradients. A loss that is a sum
divided by the process's share of a count over the whole batch is then the loss of the whole batch,
whatever the sizes of the parts.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_processes(count: float | Tensor, device: torch.device) -> Tensor:
    """The mean of a count over the processes, at least a fraction of one example: what a sum of
    losses is divided by.
    """
    total = torch.as_tensor(count, dtype=torch.float32, device=device).clone()
    if processes() > 1:
        dist.all_reduce(total)
    return total.clamp(min=1) / processes()


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics are those of the whole batch, over all processes, on any device
    (PyTorch's needs a GPU).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same; parts of different sizes count by their sizes."""
        if not self.training or processes() == 1:
            return super().forward(x)
        values = x.float()
        pixels = x.new_full((1,), x.numel() / x.shape[1], dtype=torch.float32)
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), pixels])
        sums = _Sum.apply(sums)
        count = sums[-1].detach()
        mean, square = sums[: self.num_features] / count, sums[self.num_features : -1] / count
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), momentum)
            self.num_batches_tracked += 1
        scale: Tensor = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        normed: Tensor = values * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
        return normed.to(x.dtype)


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """Turn every BatchNorm of ``model`` into a synchronised one, in place; the state dict stays as
    it is.
    """
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d
    return model
