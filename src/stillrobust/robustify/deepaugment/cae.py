"""DeepAugment's CAE: compress an image to bits and back with an autoencoder whose weights and code
were tampered with.

The network is cae_32x32x32_zero_pad_bin of alexandru-dinu/cae under the module names of its
published weights. Perturbations are those of hendrycks/imagenet-r,
DeepAugment/CAE_distort_imagenet.py and CAE_Model/, with their slips, which made the published
training images; each is said where it stands. (A ninth perturbation of weights there can never be
drawn.)
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillrobust.robustify.deepaugment.random_tensors import (
    Random,
    State,
    choose,
    convolve_kernels,
    keep_mask_like,
    rotate_quarter_turns,
    signs_like,
    uniform_like,
)

CODE = 32  # channels of the code


def padded_convolution(
    before: int, after: int, inputs: int, outputs: int, kernel: int, stride: int = 1
) -> list[nn.Module]:
    """Zeros at the left and top, and at the right and bottom; then a convolution."""
    return [
        nn.ZeroPad2d((before, after, before, after)),
        nn.Conv2d(inputs, outputs, kernel, stride),
    ]


def residual_block(width: int = 128) -> nn.Sequential:
    """What a block adds to its input."""
    return nn.Sequential(
        *padded_convolution(1, 1, width, width, 3),
        nn.LeakyReLU(),
        *padded_convolution(1, 1, width, width, 3),
    )


def upsampling_block(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Twice the size; the unpadded convolution takes away the border that the padding then gives
    back.
    """
    enlarge = nn.ConvTranspose2d(middle, outputs, 2, 2)
    return nn.Sequential(nn.Conv2d(inputs, middle, 3), nn.LeakyReLU(), nn.ZeroPad2d(1), enlarge)


class CAE(nn.Module):
    """Float (B, 3, H, W) RGB in 0..1 -> (B, 3, H', W') in -1..1, H' and W' multiples of 4; 2.242
    million parameters.

    ``encode`` -> (B, 32, H/4, W/4) in -1..1; ``decode`` takes the code of bits, 0 or 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.e_conv_1 = nn.Sequential(*padded_convolution(1, 2, 3, 64, 5, 2), nn.LeakyReLU())
        self.e_conv_2 = nn.Sequential(*padded_convolution(1, 2, 64, 128, 5, 2), nn.LeakyReLU())
        self.e_block_1, self.e_block_2, self.e_block_3 = (
            residual_block(),
            residual_block(),
            residual_block(),
        )
        self.e_conv_3 = nn.Sequential(nn.Conv2d(128, CODE, 5, padding=2), nn.Tanh())
        self.d_up_conv_1 = upsampling_block(CODE, 64, 128)
        self.d_block_1, self.d_block_2, self.d_block_3 = (
            residual_block(),
            residual_block(),
            residual_block(),
        )
        self.d_up_conv_2 = upsampling_block(128, 32, 256)
        self.d_up_conv_3 = nn.Sequential(
            nn.Conv2d(256, 16, 3),
            nn.LeakyReLU(),
            nn.ReflectionPad2d(2),
            nn.Conv2d(16, 3, 3),
            nn.Tanh(),
        )

    def encode(self, images: Tensor) -> Tensor:
        """Images -> what is made bits of."""
        features = self.e_conv_2(self.e_conv_1(images))
        for block in (self.e_block_1, self.e_block_2, self.e_block_3):
            features = features + block(features)
        return self.e_conv_3(features)  # type: ignore[no-any-return]

    def decode(self, code: Tensor) -> Tensor:
        """The code, 0 or 1 each, -> images."""
        features = self.d_up_conv_1(2 * code - 1)
        for block in (self.d_block_1, self.d_block_2, self.d_block_3):
            features = features + block(features)
        return self.d_up_conv_3(self.d_up_conv_2(features))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Images -> code -> images, each bit the likelier one."""
        return self.decode((self.encode(images) > 0).float())


def binarise(latent: Tensor, rng: Random) -> Tensor:
    """Bits, 0 or 1: 1 with probability (1 + z) / 2."""
    return (uniform_like(latent, rng) <= (1 + latent) / 2).to(latent.dtype)


# -- Weights: one of these changes the pretrained ones
# ------------------------------------------------------------------

LAYERS = (
    "e_conv_1.1", "e_conv_2.1", "e_block_1.1", "e_block_1.4", "e_block_2.1", "e_block_2.4", "e_block_3.1", "e_block_3.4",
    "e_conv_3.0", "d_up_conv_1.0", "d_up_conv_1.3", "d_block_1.1", "d_block_1.4", "d_block_2.1", "d_block_2.4", "d_block_3.1",
    "d_block_3.4", "d_up_conv_2.0", "d_up_conv_2.3", "d_up_conv_3.0", "d_up_conv_3.3",
)  # fmt: skip
"""The 21 convolutions in the published order; number 10 is a transposed one, whose "filters" are
its inputs.
"""
MIDDLE_LAYERS = range(8, 14)


def draw_filter(state: State, layer: str, rng: Random) -> int:
    """The number of a filter."""
    return int(rng.integers(len(state[f"{layer}.weight"])))


def change_filters(
    state: State, layer: str, filters: list[int], change: Callable[[Tensor], Tensor]
) -> None:
    """Weight and bias of filters through ``change``, one after the other: a filter drawn twice is
    changed twice.
    """
    for kind in ("weight", "bias"):
        changed = state[f"{layer}.{kind}"].clone()
        for number in filters:
            changed[number] = change(changed[number])
        state[f"{layer}.{kind}"] = changed


def draw_filters(state: State, layer: str, count: int, rng: Random) -> list[int]:
    """With replacement."""
    return [draw_filter(state, layer, rng) for _ in range(count)]


def flip_outputs(state: State, rng: Random) -> None:
    """The order of the output channels reversed.

    (A second layer is flipped twice as published, for a slip in its name.)
    """
    layer = LAYERS[choose(range(11, 16), rng)]
    for kind in ("weight", "bias"):
        state[f"{layer}.{kind}"] = state[f"{layer}.{kind}"].flip(0)


def negate_filters(state: State, rng: Random) -> None:
    """12 filters negated, drawn with replacement: one drawn twice is as before."""
    layer = LAYERS[choose(MIDDLE_LAYERS, rng)]
    change_filters(state, layer, draw_filters(state, layer, 12, rng), torch.neg)


def zero_filters(state: State, rng: Random) -> None:
    """25 filters set to zero."""
    layer = LAYERS[choose(MIDDLE_LAYERS, rng)]
    change_filters(state, layer, draw_filters(state, layer, 25, rng), torch.zeros_like)


def negative_gelu(state: State, rng: Random) -> None:
    """25 filters through -GELU."""
    layer = LAYERS[choose(range(10, 14), rng)]
    change_filters(
        state, layer, draw_filters(state, layer, 25, rng), lambda values: -functional.gelu(values)
    )


def amplify_weights(state: State, rng: Random) -> None:
    """The weights of two layers times 1 + 8 u r, u for all and r for each: as published, never less
    than 1.
    """
    for _ in range(2):
        name = f"{LAYERS[choose(MIDDLE_LAYERS, rng)]}.weight"
        state[name] = state[name] * (1 + 8 * float(rng.random()) * uniform_like(state[name], rng))


def mask_weights(state: State, rng: Random) -> None:
    """Half of the weights dropped, or half negated."""
    name = f"{LAYERS[choose(MIDDLE_LAYERS, rng)]}.weight"
    drawn = keep_mask_like if rng.random() < 0.5 else signs_like
    state[name] = state[name] * drawn(state[name], rng)


def rotate_kernels(state: State, rng: Random) -> None:
    """The kernels turned by right angles."""
    name = f"{LAYERS[choose(MIDDLE_LAYERS, rng)]}.weight"
    state[name] = rotate_quarter_turns(state[name], rng)


def negate_weights(state: State, rng: Random) -> None:
    """A fifth of the filters, less those drawn twice, negated without their biases."""
    layer = LAYERS[choose(MIDDLE_LAYERS, rng)]
    weight = state[f"{layer}.weight"].clone()
    chosen = draw_filters(state, layer, len(weight) // 5, rng)
    weight[sorted(set(chosen))] *= -1
    state[f"{layer}.weight"] = weight


WEIGHT_CHANGES: dict[str, Callable[[State, Random], None]] = {
    "flip_outputs": flip_outputs,
    "negate_filters": negate_filters,
    "zero_filters": zero_filters,
    "negative_gelu": negative_gelu,
    "amplify_weights": amplify_weights,
    "mask_weights": mask_weights,
    "rotate_kernels": rotate_kernels,
    "negate_weights": negate_weights,
}
"""Name -> change of a state in place (its tensors are replaced, never written to), in the order of
the published code.
"""


def perturb_weights(state: State, rng: Random) -> State:
    """The pretrained weights after one perturbation."""
    changed, changes = dict(state), list(WEIGHT_CHANGES.values())
    changes[rng.integers(len(changes))](changed, rng)
    return changed


# -- The code: one of these, for every image; all but the last act before it is made bits
# -------------------------------


def zero_places(latent: Tensor, rng: Random) -> Tensor:
    """A fifth of the places set to zero, in all channels."""
    return latent * keep_mask_like(latent[:, :1], rng, 0.2)


def negate_places(latent: Tensor, rng: Random) -> Tensor:
    """A tenth of the places negated, in all channels."""
    return latent * signs_like(latent[:, :1], rng, 0.1)


def permute_channels(latent: Tensor, rng: Random) -> Tensor:
    """The first ten channels in another order."""
    return torch.cat([latent[:, rng.permutation(10).tolist()], latent[:, 10:]], dim=1)


def flip_axes(rng: Random) -> list[int]:
    """Two of batch, rows and columns, as axes of a channel (1, H, W); the first does nothing, there
    being one image.
    """
    return [int(axis) for axis in rng.permutation(3)[:2]]


def flip_five_channels(latent: Tensor, rng: Random) -> Tensor:
    """Five channels, drawn with replacement, flipped along the same axes."""
    axes, changed = flip_axes(rng), latent.clone()
    for channel in rng.integers(latent.shape[1], size=5):
        changed[:, channel] = changed[:, channel].flip(axes)
    return changed


def flip_all_channels(latent: Tensor, rng: Random) -> Tensor:
    """All channels flipped along the same axes."""
    # the channels lie between the first and the second
    return latent.flip([axis + (axis > 0) for axis in flip_axes(rng)])


def identity_kernel(latent: Tensor) -> Tensor:
    """(C, C, 3, 3): a convolution that changes nothing."""
    return nn.init.dirac_(torch.zeros(latent.shape[1], latent.shape[1], 3, 3)).to(latent)


def blur_code(latent: Tensor, rng: Random) -> Tensor:
    """Convolved with the identity plus U(-0.1, 0.1) everywhere."""
    kernel = identity_kernel(latent)
    return convolve_kernels(latent, kernel + 0.2 * (uniform_like(kernel, rng) - 0.5))


def add_neighbours(latent: Tensor, rng: Random) -> Tensor:
    """To half of the channels another, or itself, is added, shifted by up to one place."""
    kernel = identity_kernel(latent)
    for channel in range(len(kernel)):
        if rng.random() < 0.5:
            kernel[channel, rng.integers(len(kernel)), rng.integers(3), rng.integers(3)] = 1
    return convolve_kernels(latent, kernel)


def shift_channels(latent: Tensor, rng: Random) -> Tensor:
    """Channels shifted by up to one place; the shift goes on from channel to channel and changes at
    one in five.
    """
    kernel, shift = torch.zeros_like(identity_kernel(latent)), rng.integers(3, size=2)
    for channel in range(len(kernel)):
        if rng.random() < 0.2:
            shift = rng.integers(3, size=2)
        kernel[channel, channel, shift[0], shift[1]] = 1
    return convolve_kernels(latent, kernel)


def amplify_code(code: Tensor, rng: Random) -> Tensor:
    """The bits times 3 + 4 u r, u for all and r for each."""
    return code * (3 + 4 * float(rng.random()) * uniform_like(code, rng))


CODE_CHANGES: dict[str, Callable[[Tensor, Random], Tensor]] = {
    "zero_places": zero_places,
    "negate_places": negate_places,
    "permute_channels": permute_channels,
    "flip_five_channels": flip_five_channels,
    "flip_all_channels": flip_all_channels,
    "blur_code": blur_code,
    "add_neighbours": add_neighbours,
    "shift_channels": shift_channels,
}


def distort(network: CAE, images: Tensor, rng: Random) -> Tensor:
    """Float (1, 3, H, W) RGB in 0..1 -> (1, 3, H', W') in 0..1, with one change of the code."""
    latent, changes = network.encode(images), list(CODE_CHANGES.values())
    number = int(rng.integers(len(changes) + 1))
    if number == len(changes):
        return network.decode(amplify_code(binarise(latent, rng), rng)).clamp(0, 1)
    return network.decode(binarise(changes[number](latent, rng), rng)).clamp(0, 1)
