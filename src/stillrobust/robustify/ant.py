"""Adversarial noise training: a small network learns the noise that harms the model most.

The model learns to withstand this noise. Rusak et al. 2020; source: bethgelab/game-of-noise 2989b43
(MIT).
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, distributed, nn
from torch.func import functional_call
from torch.nn import functional

from stillrobust.errors import UserError
from stillrobust.robustify.technique import (
    Card,
    Technique,
    TechniqueEntry,
    attack_mode,
    chunk_size,
    require_between,
    require_unit_range,
)

HIDDEN = 20  # channels of the generator
REFERENCE_VALUES = 3 * 224 * 224  # the images that epsilon is given for
# Shares of a batch: 21, 7 and 7 of 70 images. 35 stay clean.
CURRENT, STORED, STORED_GENERATORS = 0.3, 0.1, 2
FIRST_EPOCH = 0.5  # the current generator's share in the first epoch, when the pool is empty
# Relative step of t at which Newton's method ends. One more step follows, and is differentiated.
CLOSE = 1e-6
# Learning rates of Adam: of a fresh generator before an epoch, and during the epoch.
FRESH_LR, LR = 5e-4, 1e-4

CARD = Card(
    name="ant",
    title="Adversarial noise training",
    paper=(
        "Rusak et al. 2020, A simple way to make neural networks robust against diverse image"
        " corruptions (ECCV)"
    ),
    code="bethgelab/game-of-noise 2989b43 (MIT)",
    parameters={
        "kernel": (
            "1: noise independent from pixel to pixel; 3: correlated over 3 x 3 (ANT3x3 of the"
            " paper)"
        ),
        "epsilon": (
            "L2 norm of the noise after clipping, on 0..1 for 224 x 224 x 3; other sizes scale with"
            " the root of their number of values. 135 is the norm of Gaussian noise of standard"
            " deviation 0.5, clipped"
        ),
        "iterations": (
            "at most so many batches train the fresh generator before each epoch; 1000 in the"
            " official code"
        ),
    },
    left_out=(
        "ANT+SIN, which replaces 15 of 70 images by stylized ones",
        (
            "gradients of the classifier's parameters in the generator's step, which the official"
            " code takes and drops"
        ),
    ),
    cost=(
        "about 1.8, and the fresh generator's batches before each epoch (0.75 of a plain step each)"
    ),
    published=(
        "ResNet-50: clean 76.1 %, ImageNet-C 51.1 %, mCE 62.5; kernel 3: 76.1 %, 50.4 %, mCE 63.4 "
        "(from torchvision's weights, lr 1e-3, no weight decay, 120 epochs of batches of 70)"
    ),
)


def ant(kernel: Literal[1, 3] = 1, epsilon: float = 135.0, iterations: int = 1000) -> Technique:
    """Build adversarial noise training. ``CARD.parameters`` describes the arguments.

    Returns:
        A technique with an auxiliary network.

    Raises:
        UserError: If an argument is out of range.
    """
    # the diagonal of the box: sqrt(150528)
    require_between("epsilon of ant", epsilon, 0, 388, above=True)
    require_between("iterations of ant", iterations, 0, 1_000_000)
    return Technique(
        auxiliary_network=partial(
            AdversarialNoise, kernel=kernel, epsilon=epsilon, iterations=iterations
        )
    )


class NoiseGenerator(nn.Module):
    """Turns normal noise z into the noise z + f(z).

    f has four convolutions and does not see the image. It has 983 parameters with kernel 1, 4183
    with kernel 3.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.margin = kernel // 2  # z is larger by this, because the convolution is not padded
        self.layers = nn.Sequential(
            nn.Conv2d(3, HIDDEN, 1),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, HIDDEN, kernel),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, HIDDEN, 1),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, 3, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Generate noise.

        Args:
            z: Float (B, 3, H + 2 margin, W + 2 margin).

        Returns:
            Float (B, 3, H, W).
        """
        height, width = z.shape[2] - 2 * self.margin, z.shape[3] - 2 * self.margin
        inner = z[:, :, self.margin : self.margin + height, self.margin : self.margin + width]
        return inner + self.layers(z)  # type: ignore[no-any-return]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights from N(0, 0.01²) and set biases to 0, so that the first noise is about N(0,
        1).

        Args:
            generator: Source of all random draws.
        """
        for parameter in self.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator, device=generator.device)
                * (parameter.ndim > 1)
                * 0.01
            )


def project(images: Tensor, noise: Tensor, epsilon: float) -> Tensor:
    """Add noise that is scaled so that the clipped change has the L2 norm ``epsilon``.

    The result is clip(images + eta · noise, 0, 1) with one eta >= 0 for each image. The exact
    gradient flows through eta.

    With t = eta² and s the distance of each value to its bound, sum of min(t noise², s²) = epsilon²
    is solved. The left side is concave and piecewise linear. Newton's method from t = epsilon² /
    |noise|² therefore approaches from the left and ends in the right piece, after three to ten
    steps. The official code sorts all values instead.

    Args:
        images: Float (B, 3, H, W) in 0..1.
        noise: Of the same shape.
        epsilon: L2 norm of the change. If even the corner of the box is nearer, the result is the
            corner.

    Returns:
        Images (B, 3, H, W) in 0..1.
    """
    size = chunk_size(images)
    pieces = zip(torch.split(images, size), torch.split(noise, size), strict=True)
    return torch.cat([_project(piece, of_piece, epsilon) for piece, of_piece in pieces])


def _project(images: Tensor, noise: Tensor, epsilon: float) -> Tensor:
    # |1 - x| or |0 - x|. Arithmetic is ten times as fast as torch.where on random masks on a CPU.
    walls = ((noise >= 0).to(images.dtype) - images).square().flatten(1)
    squares = noise.square().flatten(1)
    with torch.no_grad():
        meets = walls / squares  # t at which a value reaches its bound
        t = epsilon**2 / squares.sum(1).clamp_min(1e-30)
        while True:
            larger = torch.maximum(t, _solve(squares, walls, meets <= t[:, None], t, epsilon))
            # Written so that NaN ends the loop.
            if not bool((larger > t * (1 + CLOSE)).any()):
                break
            t = larger
    t = _solve(squares, walls, meets <= t[:, None], t, epsilon)
    return (images + t.sqrt().view(-1, 1, 1, 1) * noise).clamp(0, 1)


def _solve(squares: Tensor, walls: Tensor, met: Tensor, t: Tensor, epsilon: float) -> Tensor:
    """Return the solution t (B,) if the values that are at their bounds are ``met``.

    Returns ``t`` if all values are met, or too many.
    """
    remaining = epsilon**2 - (walls * met).sum(1)
    slope = (squares * ~met).sum(1)
    return torch.where(
        (slope > 0) & (remaining > 0), remaining.clamp_min(1e-30) / slope.clamp_min(1e-30), t
    )


def _average(gradients: Sequence[Tensor], images: int) -> None:
    """Average the gradients of mean losses over the images of all processes, in place."""
    total = torch.tensor(float(images), device=gradients[0].device)
    distributed.all_reduce(total)
    for gradient in gradients:
        gradient *= images / total
        distributed.all_reduce(gradient)


class AdversarialNoise:
    """A noise generator that harms the model, and a pool of the generators of earlier epochs.

    Args:
        device: Where it is trained.
        kernel: Size of the generator's kernel, 1 or 3.
        epsilon: L2 norm of the noise for images of 224 x 224.
        iterations: Most batches that train the fresh generator before an epoch.
    """

    def __init__(
        self, device: torch.device, kernel: int = 1, epsilon: float = 135.0, iterations: int = 1000
    ) -> None:
        self.epsilon, self.iterations = epsilon, iterations
        self.network = NoiseGenerator(kernel).to(device)
        self.pool: list[dict[str, Tensor]] = []
        self.epoch = -1
        self._optimise(LR)

    def _optimise(self, lr: float) -> None:
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=lr)

    def begin_epoch(
        self,
        epoch: int,
        model: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        generator: torch.Generator,
    ) -> None:
        """Train a fresh generator against the model as it is now, and add it to the pool.

        Args and effects are those of ``AuxiliaryNetwork.begin_epoch``.
        """
        if epoch <= self.epoch:
            return
        self.network.initialise(generator)
        if distributed.is_initialized():
            for parameter in self.network.parameters():
                distributed.broadcast(parameter.data, src=0)
        self._optimise(FRESH_LR)
        for images, labels in islice(batches, self.iterations):
            self._learn(model, images, labels, generator)
        self.pool.append(
            {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        )
        self._optimise(LR)
        self.epoch = epoch

    def step(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Train the generator one step on all images, and return the batch for the model.

        Raises:
            UserError: If no epoch has begun, or the loss becomes infinite or NaN.
        """
        if not self.pool:
            raise UserError(
                "Expected begin_epoch before step in adversarial noise training, but there is no"
                " generator yet; call it first"
            )
        self._learn(model, images, labels, generator)
        return self.mix(images, generator)

    def _learn(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> None:
        with attack_mode(model) as victim:
            loss = functional.cross_entropy(victim(self._noisy(images, generator)).float(), labels)
            if not bool(loss.isfinite()):  # before the generator learns from it
                raise UserError(
                    f"The loss of the model on adversarial noise became {loss.item()}; lower the"
                    " learning rate of the training; what was finished before stays"
                )
            gradients = torch.autograd.grad(-loss, list(self.network.parameters()))
        if distributed.is_initialized():
            _average(gradients, len(images))
        for parameter, gradient in zip(self.network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.optimiser.step()

    def _noisy(
        self, images: Tensor, generator: torch.Generator, state: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Add noise of the generator, or of the one with ``state``.

        Computes in float32, even under autocast.
        """
        require_unit_range(images)
        with torch.autocast(images.device.type, enabled=False):
            margin = 2 * self.network.margin
            shape = (len(images), 3, images.shape[2] + margin, images.shape[3] + margin)
            z = torch.randn(shape, generator=generator, device=images.device)
            network = (
                self.network if state is None else partial(functional_call, self.network, state)
            )
            # In chunks, as in ``project``: eight times as fast on a CPU for a batch of 32, because
            # torch then uses another implementation of 1x1 convolutions.
            noise = torch.cat([network(part) for part in torch.split(z, chunk_size(images))])
            scaled = self.epsilon * (images[:1].numel() / REFERENCE_VALUES) ** 0.5
            return project(images.float(), noise, scaled)

    @torch.no_grad()
    def mix(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise to parts of a batch.

        A share CURRENT of the images gets noise of the current generator, a share STORED that of
        each of two generators from the pool. The other images stay clean.

        Args:
            images: Float (B, 3, H, W) in 0..1.
            generator: Source of all random draws.

        Returns:
            Float (B, 3, H, W) in 0..1.
        """
        count = len(images)
        if self.epoch == 0:
            parts: list[tuple[float, dict[str, Tensor] | None]] = [(FIRST_EPOCH, None)]
        else:
            chosen = torch.randperm(len(self.pool), generator=generator, device=images.device)[
                :STORED_GENERATORS
            ].tolist()
            parts = [(CURRENT, None), *((STORED, self.pool[index]) for index in chosen)]
        mixed, begin, share = images.clone(), 0, 0.0
        for part, state in parts:
            share += part
            end = round(share * count)
            mixed[begin:end] = self._noisy(images[begin:end], generator, state)
            begin = end
        return mixed

    def state_dict(self) -> dict[str, Tensor]:
        """Return the generator, its optimiser, the pool and the epoch as a flat dict."""
        state = {"epoch": torch.tensor(self.epoch)}
        state |= {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for index, stored in enumerate(self.pool):
            state |= {f"pool.{index}.{name}": value for name, value in stored.items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned."""
        device = next(self.network.parameters()).device
        tree: dict[str, dict[str, Tensor]] = {"network": {}}
        for key, value in state.items():
            head, _, name = key.partition(".")
            if head != "network" and name:
                index, _, name = name.partition(".")
                head = f"{head}.{index}"
            tree.setdefault(head, {})[name] = value.clone()
        self.epoch = int(state["epoch"])
        self.network.load_state_dict(tree["network"])
        count = sum(head.startswith("pool.") for head in tree)
        self.pool = [
            {name: value.to(device) for name, value in tree[f"pool.{index}"].items()}
            for index in range(count)
        ]
        self._optimise(LR)
        count = sum(head.startswith("optimiser.") for head in tree)
        moments = {index: tree[f"optimiser.{index}"] for index in range(count)}
        self.optimiser.load_state_dict(
            {"state": moments, "param_groups": self.optimiser.state_dict()["param_groups"]}
        )


ANT = TechniqueEntry(ant, CARD)
