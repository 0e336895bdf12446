"""Random tensors from a numpy generator: the same numbers whatever device the network is on."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Random = np.random.Generator
State = dict[str, Tensor]


def uniform_like(tensor: Tensor, rng: Random) -> Tensor:
    """U(0, 1) in float32, of the tensor's shape and on its device."""
    return torch.from_numpy(rng.random(tuple(tensor.shape), np.float32)).to(tensor.device)


def signs_like(tensor: Tensor, rng: Random, negative: float = 0.5) -> Tensor:
    """-1 with probability ``negative``, else 1."""
    return 1 - 2 * (uniform_like(tensor, rng) < negative).to(tensor.dtype)


def keep_mask_like(tensor: Tensor, rng: Random, dropped: float = 0.5) -> Tensor:
    """0 with probability ``dropped``, else 1."""
    return (uniform_like(tensor, rng) >= dropped).to(tensor.dtype)


def choose(values: Sequence[int] | range, rng: Random) -> int:
    """Any of the values, equally often."""
    return values[int(rng.integers(len(values)))]


def rotate_quarter_turns(weight: Tensor, rng: Random, axes: Sequence[int] = (2, 3)) -> Tensor:
    """Turned by one to three right angles."""
    return torch.rot90(weight, int(rng.integers(1, 4)), list(axes))


def convolve_kernels(weight: Tensor, kernel: Tensor) -> Tensor:
    """A convolution's kernels, (O, I, 3, 3), as images of I channels, convolved themselves; zeros
    around them.
    """
    return torch.nn.functional.conv2d(weight, kernel, padding=1)
