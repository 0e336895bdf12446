"""The contract of a technique: augmentations, a loss, an auxiliary network, and a card.

Images are float (B, 3, H, W) RGB in 0..1 and not normalised: the model normalises. In a loader's
worker they are uint8 (H, W, 3). Every random draw comes from the generator that is passed in. A
``torch.Generator`` is on the device of the images.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning_fabric import is_wrapped
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from stillrobust.errors import UserError
from stillrobust.names import format_spec, parse_spec
from stillrobust.samples import Array, Dataset, Image
from stillrobust.user_files import display_name, file_name, is_user_file

ExtendDataset = Callable[[Dataset, int], Dataset]
AugmentImage = Callable[[Image, np.random.Generator], Array]
AugmentBatch = Callable[[Tensor, torch.Generator], Tensor]
Loss = Callable[[nn.Module, list[Tensor], Tensor, torch.Generator], Tensor]

ENHANCEMENT_OVERLAPS = {
    "brightness": "brightness",
    "color": "saturate",
    "contrast": "contrast",
    "sharpness": "gaussian_blur",
}
"""Pillow's enhancements -> the corruption that each resembles. Sharpness below 1 blurs."""

# How far beyond 0..1 an image may be. Interpolation and mixing overshoot by rounding errors only.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Card:
    """Where a technique comes from, what it costs, and what it shows of the test."""

    name: str
    """The name in a spec."""
    title: str
    paper: str
    code: str
    """The official code that was followed, with its commit and licence."""
    parameters: Mapping[str, str]
    """Every argument of the factory -> its meaning and the source of its default."""
    left_out: tuple[str, ...]
    """Differences from the official code."""
    cost: str
    """Cost of a training step, as a multiple of a plain one."""
    published: str
    """The result to expect at the paper's scale."""
    overlaps_test: tuple[str, ...] = ()
    """Corruptions of the test that the technique shows in training."""
    overlaps_for: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None
    """All arguments of the factory -> ``overlaps_test``, if the overlaps depend on them."""
    preparation: str = ""
    """What has to be made before training, and how; empty for nothing."""

    def with_arguments(self, arguments: Mapping[str, Any]) -> "Card":
        """Return the card for the given arguments.

        Args:
            arguments: All arguments of the factory, defaults included.

        Returns:
            A card whose ``overlaps_test`` holds for these arguments.
        """
        if self.overlaps_for is None:
            return self
        return replace(self, overlaps_test=tuple(sorted(self.overlaps_for(arguments))))

    def text(self) -> str:
        """Return the card as lines of text."""
        arguments = [f"  {name}: {meaning}" for name, meaning in self.parameters.items()]
        left_out = [f"  {what}" for what in self.left_out] or ["  nothing"]
        head = [
            f"{self.title} ({self.name})",
            f"Paper: {self.paper}",
            f"Code followed: {self.code}",
        ]
        tail = [
            f"Cost of a training step, in plain ones: {self.cost}",
            f"Published: {self.published}",
        ]
        if self.preparation:
            head.append(f"Preparation: {self.preparation}")
        if self.overlaps_test:
            tail.append(f"Shows in training, of the test: {', '.join(self.overlaps_test)}")
        return "\n".join([*head, "Arguments:", *arguments, "Left out:", *left_out, *tail])


class AuxiliaryNetwork(Protocol):
    """A network that is trained beside the model, such as ANT's noise generator."""

    def begin_epoch(
        self,
        epoch: int,
        model: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        generator: torch.Generator,
    ) -> None:
        """Prepare for an epoch. Does nothing if the epoch has been prepared before.

        Args:
            epoch: From 0.
            model: The model as it is before the epoch.
            batches: Pairs of images (B, 3, H, W) and labels (B,). Only as many as needed are taken.
            generator: Source of all random draws.
        """
        ...

    def step(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Train one step on a clean batch; ``model`` is left unchanged.

        Args:
            model: The model that is trained.
            images: Float (B, 3, H, W) in 0..1.
            labels: Int64 (B,).
            generator: Source of all random draws.

        Returns:
            The batch that the model trains on, of the shape of ``images``.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that resuming needs as a flat dict."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned.

        Args:
            state: A flat dict of tensors.
        """
        ...


def cross_entropy(
    model: nn.Module, views: list[Tensor], labels: Tensor, generator: torch.Generator
) -> Tensor:
    """Compute the loss of plain training.

    Args:
        model: Returns logits (B, classes).
        views: One batch of images, float (B, 3, H, W) in 0..1.
        labels: Int64 (B,).
        generator: Unused.

    Returns:
        The mean cross-entropy, a scalar.
    """
    return functional.cross_entropy(model(views[0]), labels)


@dataclass(frozen=True)
class Technique:
    """What differs from plain training; ``build_technique`` makes one.

    A field that is ``None`` leaves its part of training unchanged. A batch passes through the parts
    in the order of the fields: ``image_views`` applies ``augment_image``, then the auxiliary
    network takes a step, then ``batch_views`` applies ``augment_batch``, and the loss comes last.
    """

    extend_dataset: ExtendDataset | None = None
    """(training set, the recipe's seed) -> a training set with more images, as DeepAugment's."""
    augment_image: AugmentImage | None = None
    """(uint8 (H, W, 3), rng) -> float32 (H, W, 3) in 0..1, in a loader's worker. Can be pickled."""
    auxiliary_network: Callable[[torch.device], AuxiliaryNetwork] | None = None
    """Builds the network of one training run on a device."""
    augment_batch: AugmentBatch | None = None
    """(float (B, 3, H, W) in 0..1, generator) -> the same, on the device of the images."""
    loss: Loss = cross_entropy
    """(model, views, labels int64 (B,), generator) -> scalar. ``model`` returns (B, classes)."""
    views: int = 1
    """Batches that the loss takes: 1 augmented one, or the clean one and n - 1 augmented ones."""
    leaves_unit_range: bool = False
    """Whether ``augment_batch`` leaves 0..1. No other augmentation of a batch can follow then."""
    needs_unit_range: bool = False
    """Whether ``loss`` takes only images in 0..1, such as an attack within that box."""
    geometric: bool = False
    """Whether pixels move, so that boxes, masks and label maps would no longer fit."""
    parts: tuple["Technique", ...] = ()
    """The techniques of a sum ``a+b``; empty for a single one."""
    cards: tuple[Card, ...] = ()
    spec: str = ""
    """The canonical spec."""

    @property
    def overlaps_test(self) -> tuple[str, ...]:
        """Corruptions of the test that the technique shows in training, sorted.

        The results of such a model say nothing about unseen corruptions.
        """
        return tuple(sorted({name for card in self.cards for name in card.overlaps_test}))


# ---- applying a technique in a training loop


def image_views(technique: Technique, image: Image, rng: np.random.Generator) -> list[Array]:
    """Augment one image in a loader's worker.

    Args:
        technique: The technique.
        image: uint8 (H, W, 3) RGB.
        rng: Source of all random draws.

    Returns:
        Images float32 (H, W, 3) in 0..1: one, or ``technique.views`` if the technique augments
            single
        images.
    """
    clean = np.divide(image, 255, dtype=np.float32)
    augment = technique.augment_image
    if augment is None:
        return [clean]
    if technique.views == 1:
        return [augment(image, rng)]
    return [clean, *(augment(image, rng) for _ in range(technique.views - 1))]


def batch_views(
    technique: Technique, views: list[Tensor], generator: torch.Generator
) -> list[Tensor]:
    """Augment a batch on its device.

    Args:
        technique: The technique.
        views: The batches that ``image_views`` gives: one, or ``technique.views``.
        generator: Source of all random draws.

    Returns:
        The ``technique.views`` batches that the loss takes.

    Raises:
        UserError: If the number of views is neither 1 nor ``technique.views``.
    """
    if len(views) not in (1, technique.views):
        raise UserError(
            f"Expected 1 or {technique.views} views of every image for"
            f" {display_name(technique.spec)}, but got {len(views)}; give so many"
        )
    views = views if len(views) == technique.views else views * technique.views
    augment = technique.augment_batch
    if augment is None:
        return views
    clean = views[: technique.views > 1]
    return [*clean, *(augment(view, generator) for view in views[len(clean) :])]


def require_photometric(technique: Technique, task: str) -> None:
    """Check that a technique can act as an augmentation in fine-tuning.

    Args:
        technique: The technique.
        task: Name of the task.

    Raises:
        UserError: If the technique changes more than the images, or moves pixels of a dense task.
            The message names a variant that can be used.
    """
    dense = task != "classification"
    if technique.geometric and dense:
        why = f"moves pixels, so that the boxes, masks or labels of {task} would no longer fit"
    elif (
        technique.loss is not cross_entropy
        or technique.auxiliary_network
        or technique.extend_dataset
    ):
        why = (
            "changes more than the images (its loss, its data, or it trains an auxiliary network): "
        )
        why += (
            "it makes backbones with 'stillrobust robustify', but cannot act in fine-tuning for"
            f" {task}"
        )
    else:
        return
    raise UserError(
        f"{display_name(technique.spec)} {why};"
        f" {_alternatives(technique.parts or (technique,), dense)}"
    )


def _alternatives(parts: tuple[Technique, ...], dense: bool) -> str:
    """Return what can be used in fine-tuning instead, with all obstacles removed at once."""
    mended = {part.spec: spec for part in parts if (spec := _photometric_spec(part, dense))}
    still = [
        mended[part.spec]
        for part in parts
        if part.geometric and dense and is_user_file(part.spec) and part.spec in mended
    ]
    use = f"use {'+'.join(mended.values()) or 'one that only augments'}"
    if not still:
        return use
    write = f"write GEOMETRIC = False in {' and '.join(still)} if no pixel moves"
    return (
        f"{write}, or use one that only augments"
        if len(still) == len(parts)
        else f"{use} and {write}"
    )


def _photometric_spec(part: Technique, dense: bool) -> str:
    """Return the spec with which a part can act in fine-tuning, its other arguments unchanged.

    Empty if there is none.
    """
    if part.auxiliary_network or part.extend_dataset:
        return ""
    unwanted = {"geometry": part.geometric and dense, "jsd": part.loss is not cross_entropy}
    changes = {argument: False for argument, there in unwanted.items() if there}
    if is_user_file(part.spec):  # which may be made to fit by a line in the file
        return "" if "jsd" in changes else file_name(part.spec)
    if not changes.keys() <= part.cards[0].parameters.keys():
        return ""
    name, arguments = parse_spec(part.spec)
    return format_spec(name, {**arguments, **changes})


@contextmanager
def attack_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into evaluation mode, without wrappers, for gradients with respect to its input.

    The wrappers of Fabric and DistributedDataParallel expect gradients of all parameters. Fabric's
    autocast for half precision is applied here instead. Nothing is written into the model:
    BatchNorm keeps its buffers in evaluation mode, and ``torch.autograd.grad`` of the images leaves
    no ``.grad``.

    Args:
        model: A model, wrapped or not.

    Yields:
        The unwrapped model. Every module's ``training`` flag is restored afterwards.
    """
    wrapped = is_wrapped(model) or isinstance(model, DistributedDataParallel)
    inner = cast(nn.Module, model.module) if wrapped else model
    # The equivalent of fabric.autocast(). A separate context, because autocast caches weights
    # without their gradients.
    autocast = (
        cast(Any, model)._strategy.precision.forward_context()
        if is_wrapped(model)
        else nullcontext()
    )
    flags = [(module, module.training) for module in inner.modules()]
    inner.eval()
    try:
        with autocast:
            yield inner
    finally:
        for module, training in flags:
            module.training = training


# 1 MiB of float32. With the temporaries of an operation, this is about a core's cache.
CACHED_VALUES = 2**18


def chunk_size(images: Tensor) -> int:
    """Return how many images an elementwise operation should process at a time.

    On a CPU, these are as many as fit into a core's cache.

    Args:
        images: Of shape (B, 3, H, W).
    """
    per_image = max(1, images[:1].numel())
    return (
        max(1, CACHED_VALUES // per_image) if images.device.type == "cpu" else max(1, len(images))
    )


def stochastic_count(count: int, share: float, generator: torch.Generator) -> int:
    """Return how many of ``count`` images are ``share`` of them, by stochastic rounding.

    Plain rounding would never change a single image. In fine-tuning, images are single if no other
    one has their size.

    Args:
        count: Number of images.
        share: In 0..1.
        generator: Source of one draw, which is taken only if ``share * count`` is not whole.

    Returns:
        A number whose mean is ``share * count``.
    """
    whole, rest = divmod(share * count, 1)
    if rest == 0:
        return int(whole)
    return int(whole) + (float(torch.rand((), generator=generator, device=generator.device)) < rest)


# ---- checks


def require_unit_range(images: Tensor) -> None:
    """Check images of a batch. An image of 0..255 would otherwise give wrong results silently.

    Args:
        images: Expected as float (B, 3, H, W) in 0..1.

    Raises:
        UserError: If shape, dtype or range differ.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(
            f"Expected images (B, 3, H, W), but got {tuple(images.shape)}; permute them first"
        )
    if not images.is_floating_point():
        raise UserError(
            f"Expected float images in 0..1, but got {str(images.dtype).removeprefix('torch.')};"
            " divide them by 255 first"
        )
    if images.numel() == 0:
        return
    low, high = (float(extreme) for extreme in images.detach().aminmax())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # written so that NaN fails too
        hint = "divide 8-bit images by 255 first" if high > 1 else "augment before normalising"
        raise UserError(
            f"Expected images in 0..1, but got values from {low:.4g} to {high:.4g}; {hint}"
        )


def require_eight_bit(image: Image) -> None:
    """Check a single image.

    Args:
        image: Expected as uint8 (H, W, 3) with at least one pixel.

    Raises:
        UserError: If shape or dtype differ.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(
            f"Expected an image uint8 (H, W, 3) of 0..255, but got {image.dtype} {image.shape}; "
            "per-image augmentations act on what was read, before it becomes a tensor"
        )


def require_between(what: str, value: float, low: float, high: float, above: bool = False) -> None:
    """Check the range of an argument.

    Args:
        what: Name of the argument, for the message.
        value: Its value.
        low: Lowest allowed value.
        high: Highest allowed value.
        above: Whether ``low`` itself is not allowed.

    Raises:
        UserError: If ``value`` is outside the range or NaN.
    """
    if not (low < value if above else low <= value) or not value <= high:
        least = f"above {low:g}" if above else f"at least {low:g}"
        most = "" if math.isinf(high) else f" and at most {high:g}"
        raise UserError(f"Expected {what} {least}{most}, but got {value:g}; choose one within")


@dataclass(frozen=True)
class TechniqueEntry:
    """A technique of ``TECHNIQUES``: its factory and its card."""

    build: Callable[..., Technique]
    """Takes literal arguments with defaults. Raises ``UserError`` for one out of range."""
    card: Card
