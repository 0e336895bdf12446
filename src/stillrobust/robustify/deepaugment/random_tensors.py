"""Random tensors from a numpy generator: the same numbers on every device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Random = np.random.Generator
State = dict[str, Tensor]


def uniform_like(tensor: Tensor, rng: Random) -> Tensor:
    """Draw from U(0, 1).

    Args:
        tensor: Gives shape and device.
        rng: Source of the draws.

    Returns:
        float32, of the shape of ``tensor``.
    """
    return torch.from_numpy(rng.random(tuple(tensor.shape), np.float32)).to(tensor.device)


def signs_like(tensor: Tensor, rng: Random, negative: float = 0.5) -> Tensor:
    """Draw signs.

    Args:
        tensor: Gives shape, dtype and device.
        rng: Source of the draws.
        negative: Probability of -1; the others are 1.
    """
    return 1 - 2 * (uniform_like(tensor, rng) < negative).to(tensor.dtype)


def keep_mask_like(tensor: Tensor, rng: Random, dropped: float = 0.5) -> Tensor:
    """Draw a mask of what is kept.

    Args:
        tensor: Gives shape, dtype and device.
        rng: Source of the draws.
        dropped: Probability of 0; the others are 1.
    """
    return (uniform_like(tensor, rng) >= dropped).to(tensor.dtype)


def choose(values: Sequence[int] | range, rng: Random) -> int:
    """Draw one of the values with equal probabilities.

    Args:
        values: The values.
        rng: Source of the draw.
    """
    return values[int(rng.integers(len(values)))]


def rotate_quarter_turns(weight: Tensor, rng: Random, axes: Sequence[int] = (2, 3)) -> Tensor:
    """Rotate by 90, 180 or 270 degrees.

    Args:
        weight: A tensor.
        rng: Source of the draw.
        axes: The plane of the rotation.
    """
    return torch.rot90(weight, int(rng.integers(1, 4)), list(axes))


def convolve_kernels(weight: Tensor, kernel: Tensor) -> Tensor:
    """Convolve the kernels of a convolution, padded with zeros.

    Args:
        weight: (O, I, 3, 3), taken as images of I channels.
        kernel: (I, I, 3, 3).
    """
    return torch.nn.functional.conv2d(weight, kernel, padding=1)
