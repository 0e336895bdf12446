"""DeepAugment's EDSR: a super-resolution network (x4) with perturbed weights and features.

The network is EDSR-baseline x4 (Lim et al. 2017), with the module names of its published weights.
The perturbations are those of hendrycks/imagenet-r, DeepAugment/EDSR_distort_imagenet.py. Their
errors are kept, because they made the published training images; each is documented at its
function. Blocks have the numbers that they have in ``body``. "First" and "second" are the two
convolutions of a block.
"""

from collections.abc import Callable

import numpy as np
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

BLOCKS, FEATURES, SCALE = 16, 64, 4
# Mean colour of DIV2K in 0..1. The paper's networks take images of 0..255 less 255 times this.
MEAN = (0.4488, 0.4371, 0.4040)
PERTURBATIONS = 3  # weight perturbations at a time


class MeanShift(nn.Conv2d):
    """Adds (``sign`` 1) or subtracts (-1) the mean colour.

    It is a convolution, because its published weights are.
    """

    def __init__(self, sign: int) -> None:
        super().__init__(3, 3, 1)
        with torch.no_grad():
            self.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            self.bias.copy_(sign * 255 * torch.tensor(MEAN))  # type: ignore[union-attr]
        self.requires_grad_(False)


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ResidualBlock(nn.Module):
    """A residual block: x + second(relu(first(x)))."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(FEATURES, FEATURES), nn.ReLU(), convolution(FEATURES, FEATURES)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Apply the block.

        Args:
            features: (B, 64, H, W).
        """
        return features + self.body(features)  # type: ignore[no-any-return]


def keep_features(features: Tensor, rng: Random) -> Tensor:
    """Return the features unchanged."""
    return features


def run_body(body: nn.Sequential, features: Tensor, rng: Random) -> Tensor:
    """Run the body unchanged."""
    return body(features)  # type: ignore[no-any-return]


FeatureChange = Callable[[Tensor, Random], Tensor]
BodyChange = Callable[[nn.Sequential, Tensor, Random], Tensor]


class EDSR(nn.Module):
    """The network, with 1.518 million parameters.

    ``forward`` maps float (B, 3, H, W) RGB in 0..255 to (B, 3, 4 H, 4 W) of about the same
    brightness.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.head = nn.Sequential(convolution(3, FEATURES))
        self.body = nn.Sequential(
            *(ResidualBlock() for _ in range(BLOCKS)), convolution(FEATURES, FEATURES)
        )
        doubled = [
            module
            for _ in range(2)
            for module in (convolution(FEATURES, 4 * FEATURES), nn.PixelShuffle(2))
        ]
        self.tail = nn.Sequential(nn.Sequential(*doubled), convolution(FEATURES, 3))

    def forward(
        self,
        images: Tensor,
        rng: Random | None = None,
        first: FeatureChange = keep_features,
        body: BodyChange = run_body,
    ) -> Tensor:
        """Enlarge images four times.

        Args:
            images: Float (B, 3, H, W) RGB in 0..255.
            rng: Source of the draws of both changes.
            first: Change of the head's features.
            body: How the body is run.
        """
        rng = np.random.default_rng(0) if rng is None else rng
        features = first(self.head(self.sub_mean(images)), rng)
        return self.add_mean(self.tail(features + body(self.body, features, rng)))  # type: ignore[no-any-return]


# ---- weights: three changes of the pretrained ones, drawn with replacement

# Blocks that most perturbations choose from.
EARLY, LATE, SPREAD = (0, 3, 6, 9), (1, 4, 7), (1, 5, 9)
ANY = range(15)
SEVERAL = 5  # choices, with replacement, of those that touch more than one convolution
CROSS = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
SQUARE = ((-1.0, -1.0, -1.0), (-1.0, 8.0, -1.0), (-1.0, -1.0, -1.0))


def tensor_name(block: int, layer: int, kind: str = "weight") -> str:
    """Return the name of a tensor of a block.

    Args:
        block: Number of the block.
        layer: 0 for the first convolution, 2 for the second.
        kind: ``weight`` or ``bias``.
    """
    return f"body.{block}.body.{layer}.{kind}"


def draw_weight_name(rng: Random) -> str:
    """Return the name of a random weight: of any block but the last, of either convolution."""
    return tensor_name(choose(ANY, rng), choose((0, 2), rng))


def flip_outputs(state: State, rng: Random) -> None:
    """Reverse the order of the output channels of both convolutions."""
    block = choose(EARLY, rng)
    for name in (
        tensor_name(block, layer, kind) for layer in (0, 2) for kind in ("weight", "bias")
    ):
        state[name] = state[name].flip(0)


def negate_first(state: State, rng: Random) -> None:
    """Negate the first convolution."""
    block = choose(LATE, rng)
    for kind in ("weight", "bias"):
        state[tensor_name(block, 0, kind)] = -state[tensor_name(block, 0, kind)]


def zero_first(state: State, rng: Random) -> None:
    """Set the first convolution to zero, so that the block adds only the second's bias."""
    block = choose(EARLY, rng)
    for kind in ("weight", "bias"):
        state[tensor_name(block, 0, kind)] = torch.zeros_like(state[tensor_name(block, 0, kind)])


def negative_gelu(state: State, rng: Random) -> None:
    """Apply -GELU to the weights of both convolutions."""
    block = choose(EARLY, rng)
    for layer in (0, 2):
        state[tensor_name(block, layer)] = -functional.gelu(state[tensor_name(block, layer)])


def multiply_by_pattern(pattern: tuple[tuple[float, ...], ...]) -> Callable[[State, Random], None]:
    """Return a change that multiplies each kernel of the first convolution by a 3x3 pattern."""

    def change(state: State, rng: Random) -> None:
        name = tensor_name(choose(EARLY, rng), 0)
        state[name] = state[name] * torch.tensor(pattern).to(state[name])

    return change


def amplify_second(state: State, rng: Random) -> None:
    """Multiply the second by 1 + 4 u r, with u for all and r for each weight.

    It was meant to be symmetric about 1. As published, it is always above 1.
    """
    name = tensor_name(choose(EARLY, rng), 2)
    state[name] = state[name] * (1 + 4 * float(rng.random()) * uniform_like(state[name], rng))


def mirror(state: State, rng: Random) -> None:
    """Mirror the kernels of the first left to right, and negate the weights of the second."""
    block = choose(EARLY, rng)
    state[tensor_name(block, 0)], state[tensor_name(block, 2)] = (
        state[tensor_name(block, 0)].flip(-1),
        -state[tensor_name(block, 2)],
    )


def shift_and_sum(state: State, rng: Random) -> None:
    """Replace every kernel by the same sum over input channels.

    Each channel is shifted by up to one pixel and has a random sign.
    """
    name = tensor_name(choose(SPREAD, rng), 0)
    kernel = torch.zeros_like(state[name])
    for channel in range(FEATURES):
        down, across = rng.integers(3, size=2)
        kernel[:, channel, down, across] = 1.0 if rng.random() < 0.5 else -1.0
    state[name] = convolve_kernels(state[name], kernel)


def random_filter(state: State, rng: Random) -> None:
    """Convolve the kernels of the first with (2 U u - 1) / 6: u for all, U for each weight."""
    name = tensor_name(choose(EARLY, rng), 0)
    kernel = (2 * uniform_like(state[name], rng) * float(rng.random()) - 1) / 6
    state[name] = convolve_kernels(state[name], kernel)


def dirichlet_filter(state: State, rng: Random) -> None:
    """Convolve the kernels of the second with kernels of sum 1.

    They are drawn from a Dirichlet distribution with parameter 0.1.
    """
    name = tensor_name(choose(SPREAD, rng), 2)
    kernel = rng.dirichlet([0.1] * 9, (FEATURES, FEATURES)).reshape(FEATURES, FEATURES, 3, 3)
    state[name] = convolve_kernels(state[name], torch.from_numpy(kernel).to(state[name]))


def noise_second(state: State, rng: Random) -> None:
    """Add U(-0.5, 0.5) to the second."""
    name = tensor_name(choose(ANY, rng), 2)
    state[name] = state[name] + uniform_like(state[name], rng) - 0.5


def rotate_kernels(state: State, rng: Random) -> None:
    """Rotate five weights by quarter turns, in the plane of the kernel or of its channels."""
    for _ in range(SEVERAL):
        name = draw_weight_name(rng)
        state[name] = rotate_quarter_turns(
            state[name], rng, (2, 3) if rng.random() < 0.5 else (0, 1)
        )


def random_signs(state: State, rng: Random) -> None:
    """Multiply the weights of five first convolutions by random signs."""
    for _ in range(SEVERAL):
        name = tensor_name(choose(ANY, rng), 0)
        state[name] = state[name] * signs_like(state[name], rng)


def random_zeros(state: State, rng: Random) -> None:
    """Drop half of the weights of five first convolutions."""
    for _ in range(SEVERAL):
        name = tensor_name(choose(ANY, rng), 0)
        state[name] = state[name] * keep_mask_like(state[name], rng)


def negate_filters(state: State, rng: Random) -> None:
    """Negate 32 filters of each of five first convolutions.

    They are drawn with replacement, and negated once.
    """
    for _ in range(SEVERAL):
        name = tensor_name(choose(ANY, rng), 0)
        sign = torch.ones(FEATURES, 1, 1, 1).to(state[name])
        sign[rng.integers(FEATURES, size=32)] = -1
        state[name] = state[name] * sign


def keep_largest(state: State, rng: Random) -> None:
    """Keep only the largest value of each 3x3 kernel, in five convolutions."""
    for _ in range(SEVERAL):
        name = draw_weight_name(rng)
        state[name] = only_largest(state[name])


def only_largest(weight: Tensor) -> Tensor:
    """Set all but the largest value of each (h, w) of a weight (O, I, h, w) to zero."""
    flat = weight.flatten(2)
    places = flat.argmax(dim=2, keepdim=True)
    return torch.zeros_like(flat).scatter(2, places, flat.gather(2, places)).view_as(weight)


WEIGHT_CHANGES: dict[str, Callable[[State, Random], None]] = {
    "flip_outputs": flip_outputs,
    "negate_first": negate_first,
    "zero_first": zero_first,
    "negative_gelu": negative_gelu,
    "multiply_by_cross": multiply_by_pattern(CROSS),
    "multiply_by_square": multiply_by_pattern(SQUARE),
    "amplify_second": amplify_second,
    "mirror": mirror,
    "shift_and_sum": shift_and_sum,
    "random_filter": random_filter,
    "dirichlet_filter": dirichlet_filter,
    "noise_second": noise_second,
    "rotate_kernels": rotate_kernels,
    "random_signs": random_signs,
    "random_zeros": random_zeros,
    "negate_filters": negate_filters,
    "keep_largest": keep_largest,
}
"""Name -> change of a state in place, in the order of the published code. Tensors are replaced and
never written to.
"""


def perturb_weights(state: State, rng: Random) -> State:
    """Apply three random perturbations, drawn with replacement, to the pretrained weights.

    Args:
        state: The pretrained weights. Not modified.
        rng: Source of all random draws.
    """
    changed, names = dict(state), list(WEIGHT_CHANGES)
    for number in rng.integers(len(names), size=PERTURBATIONS):
        WEIGHT_CHANGES[names[number]](changed, rng)
    return changed


# ---- features: one change of each kind for every image

CUT = 5  # blocks before the place where the body is changed


def copy_channels(features: Tensor, rng: Random) -> Tensor:
    """Copy five channels over five others.

    Meant as swaps. As published, the second half of a swap undoes itself.
    """
    changed = features.clone()
    for _ in range(5):
        target, source = rng.integers(FEATURES, size=2)
        changed[:, target] = changed[:, source]
    return changed


def drop_features(features: Tensor, rng: Random) -> Tensor:
    """Set 5 % to zero."""
    return features * keep_mask_like(features, rng, 0.05)


def flip_signs(features: Tensor, rng: Random) -> Tensor:
    """Negate 2.5 %."""
    return features * signs_like(features, rng, 0.025)


def negate_within(body: nn.Sequential, features: Tensor, rng: Random) -> Tensor:
    """Negate the features after five blocks."""
    return body[CUT:](-body[:CUT](features))  # type: ignore[no-any-return]


def activate_within(body: nn.Sequential, features: Tensor, rng: Random) -> Tensor:
    """Apply ReLU (one time in three) or GELU after five blocks."""
    activation = functional.relu if rng.integers(3) == 1 else functional.gelu
    return body[CUT:](activation(body[:CUT](features)))  # type: ignore[no-any-return]


def flip_within(body: nn.Sequential, features: Tensor, rng: Random) -> Tensor:
    """Flip after five blocks: channels and rows (one time in three), or channels and columns."""
    axes = (1, 2) if rng.integers(3) == 1 else (1, 3)
    return body[CUT:](body[:CUT](features).flip(axes))  # type: ignore[no-any-return]


def run_last_kept(body: nn.Sequential, features: Tensor, rng: Random) -> Tensor:
    """Run only one module of the body on the head's features.

    Meant to skip up to three modules. As published, only the last module that is not skipped is
    run.
    """
    skipped = set(rng.integers(2, len(body), size=3).tolist())
    return body[max(set(range(len(body))) - skipped)](features)  # type: ignore[no-any-return]


FEATURE_CHANGES: dict[str, FeatureChange] = {
    "copy_channels": copy_channels,
    "drop_features": drop_features,
    "flip_signs": flip_signs,
    "keep_features": keep_features,
}
BODY_CHANGES: dict[str, BodyChange] = {
    "negate_within": negate_within,
    "activate_within": activate_within,
    "flip_within": flip_within,
    "run_last_kept": run_last_kept,
    "run_body": run_body,
}


def distort(network: EDSR, images: Tensor, rng: Random) -> Tensor:
    """Enlarge an image with one change of the features and one of the body.

    Args:
        network: The network.
        images: Float (1, 3, H, W) RGB in 0..1.
        rng: Source of all random draws.

    Returns:
        (1, 3, 4 H, 4 W) in 0..1.
    """
    first, body = (
        list(FEATURE_CHANGES.values())[rng.integers(len(FEATURE_CHANGES))],
        list(BODY_CHANGES.values())[rng.integers(len(BODY_CHANGES))],
    )
    return network(255 * images, rng, first, body).clamp(0, 255) / 255  # type: ignore[no-any-return]
