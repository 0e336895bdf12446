"""DeepAugment's CAE: an autoencoder that compresses an image to bits, with perturbed weights and
code.

The network is cae_32x32x32_zero_pad_bin of alexandru-dinu/cae, with the module names of its
published weights. The perturbations are those of hendrycks/imagenet-r,
DeepAugment/CAE_distort_imagenet.py and CAE_Model/. Their errors are kept, because they made the
published training images; each is documented at its function. A ninth perturbation of weights there
can never be drawn.
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
    """Return zero padding and a convolution.

    Args:
        before: Zeros at the left and top.
        after: Zeros at the right and bottom.
        inputs: Input channels.
        outputs: Output channels.
        kernel: Size of the kernel.
        stride: Stride of the convolution.
    """
    return [
        nn.ZeroPad2d((before, after, before, after)),
        nn.Conv2d(inputs, outputs, kernel, stride),
    ]


def residual_block(width: int = 128) -> nn.Sequential:
    """Return what a block adds to its input.

    Args:
        width: Channels.
    """
    return nn.Sequential(
        *padded_convolution(1, 1, width, width, 3),
        nn.LeakyReLU(),
        *padded_convolution(1, 1, width, width, 3),
    )


def upsampling_block(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Return layers that double the size.

    The first convolution is not padded. The padding after it restores the border.

    Args:
        inputs: Input channels.
        middle: Channels between the layers.
        outputs: Output channels.
    """
    enlarge = nn.ConvTranspose2d(middle, outputs, 2, 2)
    return nn.Sequential(nn.Conv2d(inputs, middle, 3), nn.LeakyReLU(), nn.ZeroPad2d(1), enlarge)


class CAE(nn.Module):
    """The autoencoder, with 2.242 million parameters.

    ``forward`` maps float (B, 3, H, W) RGB in 0..1 to (B, 3, H', W') in -1..1, with H' and W'
    multiples of 4.
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
        """Return the code before it is made bits.

        Args:
            images: Float (B, 3, H, W) in 0..1.

        Returns:
            (B, 32, H / 4, W / 4) in -1..1.
        """
        features = self.e_conv_2(self.e_conv_1(images))
        for block in (self.e_block_1, self.e_block_2, self.e_block_3):
            features = features + block(features)
        return self.e_conv_3(features)  # type: ignore[no-any-return]

    def decode(self, code: Tensor) -> Tensor:
        """Decode images.

        Args:
            code: Bits, 0 or 1, (B, 32, h, w).

        Returns:
            Images (B, 3, 4 h, 4 w) in -1..1.
        """
        features = self.d_up_conv_1(2 * code - 1)
        for block in (self.d_block_1, self.d_block_2, self.d_block_3):
            features = features + block(features)
        return self.d_up_conv_3(self.d_up_conv_2(features))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Encode and decode images, each bit the likelier one.

        Args:
            images: Float (B, 3, H, W) in 0..1.
        """
        return self.decode((self.encode(images) > 0).float())


def binarise(latent: Tensor, rng: Random) -> Tensor:
    """Draw bits: 1 with probability (1 + z) / 2, else 0.

    Args:
        latent: z in -1..1.
        rng: Source of the draws.
    """
    return (uniform_like(latent, rng) <= (1 + latent) / 2).to(latent.dtype)


# ---- weights: one change of the pretrained ones

LAYERS = (
    "e_conv_1.1", "e_conv_2.1", "e_block_1.1", "e_block_1.4", "e_block_2.1", "e_block_2.4",
    "e_block_3.1", "e_block_3.4", "e_conv_3.0", "d_up_conv_1.0", "d_up_conv_1.3", "d_block_1.1",
    "d_block_1.4", "d_block_2.1", "d_block_2.4", "d_block_3.1", "d_block_3.4", "d_up_conv_2.0",
    "d_up_conv_2.3", "d_up_conv_3.0", "d_up_conv_3.3",
)  # fmt: skip
"""The 21 convolutions in the published order. The "filters" of number 10, a transposed one, are its
inputs.
"""
MIDDLE_LAYERS = range(8, 14)


def draw_filter(state: State, layer: str, rng: Random) -> int:
    """Return the number of a random filter of a layer."""
    return int(rng.integers(len(state[f"{layer}.weight"])))


def change_filters(
    state: State, layer: str, filters: list[int], change: Callable[[Tensor], Tensor]
) -> None:
    """Change weight and bias of filters in place. A filter that was drawn twice is changed twice.

    Args:
        state: The weights.
        layer: Name of a layer.
        filters: Numbers of filters.
        change: Function of a weight or bias.
    """
    for kind in ("weight", "bias"):
        changed = state[f"{layer}.{kind}"].clone()
        for number in filters:
            changed[number] = change(changed[number])
        state[f"{layer}.{kind}"] = changed


def draw_filters(state: State, layer: str, count: int, rng: Random) -> list[int]:
    """Return the numbers of ``count`` random filters, drawn with replacement."""
    return [draw_filter(state, layer, rng) for _ in range(count)]


def flip_outputs(state: State, rng: Random) -> None:
    """Reverse the order of the output channels.

    As published, because of an error in a name, a second layer is flipped twice and so unchanged.
    """
    layer = LAYERS[choose(range(11, 16), rng)]
    for kind in ("weight", "bias"):
        state[f"{layer}.{kind}"] = state[f"{layer}.{kind}"].flip(0)


def negate_filters(state: State, rng: Random) -> None:
    """Negate 12 filters, drawn with replacement. One drawn twice is unchanged."""
    layer = LAYERS[choose(MIDDLE_LAYERS, rng)]
    change_filters(state, layer, draw_filters(state, layer, 12, rng), torch.neg)


def zero_filters(state: State, rng: Random) -> None:
    """Set 25 filters to zero."""
    layer = LAYERS[choose(MIDDLE_LAYERS, rng)]
    change_filters(state, layer, draw_filters(state, layer, 25, rng), torch.zeros_like)


def negative_gelu(state: State, rng: Random) -> None:
    """Apply -GELU to 25 filters."""
    layer = LAYERS[choose(range(10, 14), rng)]
    change_filters(
        state, layer, draw_filters(state, layer, 25, rng), lambda values: -functional.gelu(values)
    )


def amplify_weights(state: State, rng: Random) -> None:
    """Multiply the weights of two layers by 1 + 8 u r, with u for all and r for each.

    As published, the factor is never below 1.
    """
    for _ in range(2):
        name = f"{LAYERS[choose(MIDDLE_LAYERS, rng)]}.weight"
        state[name] = state[name] * (1 + 8 * float(rng.random()) * uniform_like(state[name], rng))


def mask_weights(state: State, rng: Random) -> None:
    """Drop or negate half of the weights."""
    name = f"{LAYERS[choose(MIDDLE_LAYERS, rng)]}.weight"
    drawn = keep_mask_like if rng.random() < 0.5 else signs_like
    state[name] = state[name] * drawn(state[name], rng)


def rotate_kernels(state: State, rng: Random) -> None:
    """Rotate the kernels by quarter turns."""
    name = f"{LAYERS[choose(MIDDLE_LAYERS, rng)]}.weight"
    state[name] = rotate_quarter_turns(state[name], rng)


def negate_weights(state: State, rng: Random) -> None:
    """Negate a fifth of the filters, less those drawn twice, without their biases."""
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
"""Name -> change of a state in place, in the order of the published code. Tensors are replaced and
never written to.
"""


def perturb_weights(state: State, rng: Random) -> State:
    """Apply one random perturbation to the pretrained weights.

    Args:
        state: The pretrained weights. Not modified.
        rng: Source of all random draws.
    """
    changed, changes = dict(state), list(WEIGHT_CHANGES.values())
    changes[rng.integers(len(changes))](changed, rng)
    return changed


# ---- the code: one change for every image; all but the last act before the code is made bits


def zero_places(latent: Tensor, rng: Random) -> Tensor:
    """Set a fifth of the places to zero, in all channels."""
    return latent * keep_mask_like(latent[:, :1], rng, 0.2)


def negate_places(latent: Tensor, rng: Random) -> Tensor:
    """Negate a tenth of the places, in all channels."""
    return latent * signs_like(latent[:, :1], rng, 0.1)


def permute_channels(latent: Tensor, rng: Random) -> Tensor:
    """Permute the first ten channels."""
    return torch.cat([latent[:, rng.permutation(10).tolist()], latent[:, 10:]], dim=1)


def flip_axes(rng: Random) -> list[int]:
    """Draw two of batch, rows and columns, as axes of a channel (1, H, W).

    Flipping the first one does nothing, because the batch has one image.
    """
    return [int(axis) for axis in rng.permutation(3)[:2]]


def flip_five_channels(latent: Tensor, rng: Random) -> Tensor:
    """Flip five channels, drawn with replacement, along the same axes."""
    axes, changed = flip_axes(rng), latent.clone()
    for channel in rng.integers(latent.shape[1], size=5):
        changed[:, channel] = changed[:, channel].flip(axes)
    return changed


def flip_all_channels(latent: Tensor, rng: Random) -> Tensor:
    """Flip all channels along the same axes."""
    # the channels lie between the first and the second
    return latent.flip([axis + (axis > 0) for axis in flip_axes(rng)])


def identity_kernel(latent: Tensor) -> Tensor:
    """Return the kernel (C, C, 3, 3) of a convolution that changes nothing."""
    return nn.init.dirac_(torch.zeros(latent.shape[1], latent.shape[1], 3, 3)).to(latent)


def blur_code(latent: Tensor, rng: Random) -> Tensor:
    """Convolve with the identity plus U(-0.1, 0.1) everywhere."""
    kernel = identity_kernel(latent)
    return convolve_kernels(latent, kernel + 0.2 * (uniform_like(kernel, rng) - 0.5))


def add_neighbours(latent: Tensor, rng: Random) -> Tensor:
    """Add to half of the channels another one, or itself, shifted by up to one place."""
    kernel = identity_kernel(latent)
    for channel in range(len(kernel)):
        if rng.random() < 0.5:
            kernel[channel, rng.integers(len(kernel)), rng.integers(3), rng.integers(3)] = 1
    return convolve_kernels(latent, kernel)


def shift_channels(latent: Tensor, rng: Random) -> Tensor:
    """Shift channels by up to one place.

    The shift stays the same from channel to channel, and changes at one in five.
    """
    kernel, shift = torch.zeros_like(identity_kernel(latent)), rng.integers(3, size=2)
    for channel in range(len(kernel)):
        if rng.random() < 0.2:
            shift = rng.integers(3, size=2)
        kernel[channel, channel, shift[0], shift[1]] = 1
    return convolve_kernels(latent, kernel)


def amplify_code(code: Tensor, rng: Random) -> Tensor:
    """Multiply the bits by 3 + 4 u r, with u for all and r for each."""
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
    """Encode and decode an image with one change of the code.

    Args:
        network: The autoencoder.
        images: Float (1, 3, H, W) RGB in 0..1.
        rng: Source of all random draws.

    Returns:
        (1, 3, H', W') in 0..1.
    """
    latent, changes = network.encode(images), list(CODE_CHANGES.values())
    number = int(rng.integers(len(changes) + 1))
    if number == len(changes):
        return network.decode(amplify_code(binarise(latent, rng), rng)).clamp(0, 1)
    return network.decode(binarise(changes[number](latent, rng), rng)).clamp(0, 1)
