"""Sums and statistics over the processes of a training, so that N processes compute what one does.

Every process holds a part of the batch, and DDP averages the gradients. A process therefore divides
its sum of losses by the mean count over the processes. The average is then the loss of the whole
batch, also for parts of different sizes.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_processes(count: float | Tensor, device: torch.device) -> Tensor:
    """The mean of a count over the processes, by which each divides its sum of losses.

    Args:
        count: This process's number of examples, boxes or pixels.
        device: Device of the losses.

    Returns:
        Float scalar on ``device``; at least 1 / processes.
    """
    total = torch.as_tensor(count, dtype=torch.float32, device=device).clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total.clamp(min=1) / world_size()


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of their gradients."""

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
    """BatchNorm with statistics of the whole batch over all processes, on any device.

    (B, C, H, W) -> (B, C, H, W). PyTorch's own ``SyncBatchNorm`` needs a GPU. Parameters, buffers
    and results are those of ``BatchNorm2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); parts of the batch are weighted by their sizes."""
        if not self.training or world_size() == 1:
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
    """Replace every BatchNorm2d by ``SyncBatchNorm2d``, in place. The state dict is unchanged.

    Args:
        model: The model to change.

    Returns:
        The model.
    """
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d
    return model
