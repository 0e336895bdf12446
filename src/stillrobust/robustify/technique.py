"""What a technique is: an augmentation and/or a loss and/or a companion in training, with a card
that says where it comes from.

Images are float (B, 3, H, W) RGB 0..1, not normalised (the model normalises); in a loader's worker
they are uint8 (H, W, 3). Every draw comes from the generator that is handed in; a
``torch.Generator`` is on the images' device.
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
from stillrobust.user_files import file_name, is_own, shown

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

# how far beyond 0..1 an image may be: interpolation and mixing overshoot by rounding, 8 bits by 254
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Card:
    """Where a technique comes from and what to expect of it."""

    name: str
    """As in a spec."""
    title: str
    paper: str
    code: str
    """The official code that was followed, with its commit and licence."""
    parameters: Mapping[str, str]
    """Every argument of the factory: its meaning and the source of its default."""
    left_out: tuple[str, ...]
    """What the official code does and this does not, or the other way round."""
    cost: str
    """Of a training step, as a multiple of a plain one."""
    published: str
    """The result to expect at the paper's scale."""
    overlaps_test: tuple[str, ...] = ()
    """Corruptions of the test that the technique shows in training."""
    overlaps_for: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None
    """All arguments of the factory -> ``overlaps_test``, for a technique whose overlaps depend on
    them.
    """
    preparation: str = ""
    """What has to be made before training; empty for nothing."""

    def with_arguments(self, arguments: Mapping[str, Any]) -> "Card":
        """Return the card with the overlaps that all ``arguments`` of the factory give."""
        if self.overlaps_for is None:
            return self
        return replace(self, overlaps_test=tuple(sorted(self.overlaps_for(arguments))))

    def text(self) -> str:
        """The card as lines to read."""
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
    """Something that is trained beside the model, as the generator of adversarial noise training
    is.
    """

    def begin_epoch(
        self,
        epoch: int,
        model: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        generator: torch.Generator,
    ) -> None:
        """Prepare for ``epoch`` (from 0) on (images, labels), taken only as far as needed; nothing
        if that has been done.
        """
        ...

    def step(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Train itself on a clean batch, leaving ``model`` as it is; returns the batch that the
        model is to train on.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All that resuming needs, flat."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state_dict``."""
        ...


def cross_entropy(
    model: nn.Module, views: list[Tensor], labels: Tensor, generator: torch.Generator
) -> Tensor:
    """The plain loss: mean cross-entropy of the one view."""
    return functional.cross_entropy(model(views[0]), labels)


@dataclass(frozen=True)
class Technique:
    """The parts that differ from plain training; ``build_technique`` makes one.

    A part that is ``None`` is left as it is.

    A batch goes through them in the order of the fields: ``image_views`` and ``batch_views``
    (below) apply the two augmentations, ``companion.step`` comes between them, and ``loss(model,
    views, labels, generator)`` comes last.
    """

    extend_dataset: ExtendDataset | None = None
    """(training set, the recipe's seed) -> the set with more images in it (DeepAugment's folders).
    """
    augment_image: AugmentImage | None = None
    """(uint8 (H, W, 3), rng) -> float32 (H, W, 3) 0..1, in a loader's worker; can be pickled."""
    auxiliary_network: Callable[[torch.device], AuxiliaryNetwork] | None = None
    """Makes the state of one training run."""
    augment_batch: AugmentBatch | None = None
    """(float (B, 3, H, W) 0..1, generator) -> the same, on the device of the images."""
    loss: Loss = cross_entropy
    """(model, views, labels int64 (B,), generator) -> scalar; ``model`` gives logits (B, classes).
    """
    views: int = 1
    """1: the loss sees one augmented view.

    n > 1: the clean image first, then n - 1 augmented views of it.
    """
    leaves_unit_range: bool = False
    """What ``augment_batch`` makes leaves 0..1, so that no other augmentation of a batch can
    follow.
    """
    needs_unit_range: bool = False
    """``loss`` takes images of 0..1 alone, as an attack within that box does."""
    geometric: bool = False
    """Pixels move, so that boxes, masks and label maps would no longer fit."""
    parts: tuple["Technique", ...] = ()
    """Those that it is the sum of; empty for one."""
    cards: tuple[Card, ...] = ()
    spec: str = ""
    """The canonical text that ``build_technique`` makes it from; ``user_files.shown`` makes it
    readable.
    """

    @property
    def overlaps_test(self) -> tuple[str, ...]:
        """The test's corruptions that it shows in training: such a result is no result about unseen
        corruptions.
        """
        return tuple(sorted({name for card in self.cards for name in card.overlaps_test}))


# ---- what a training loop does with a technique
# -------------------------------------------------------------------------


def image_views(technique: Technique, image: Image, rng: np.random.Generator) -> list[Array]:
    """In the worker: float32 (H, W, 3) 0..1; one, or ``technique.views`` where the augmentation is
    made per image.
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
    """On the device: the ``technique.views`` batches that its loss sees, from the one or several of
    ``image_views``.
    """
    if len(views) not in (1, technique.views):
        raise UserError(
            f"Expected 1 or {technique.views} views of every image for {shown(technique.spec)}, but"
            f" got {len(views)}; give so many"
        )
    views = views if len(views) == technique.views else views * technique.views
    augment = technique.augment_batch
    if augment is None:
        return views
    clean = views[: technique.views > 1]
    return [*clean, *(augment(view, generator) for view in views[len(clean) :])]


def require_photometric(technique: Technique, task: str) -> None:
    """Raise ``UserError`` if ``technique`` cannot act as an augmentation in fine-tuning for
    ``task``.
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
            "changes more than the images (its loss, its data, or it trains a network beside the"
            " model): "
        )
        why += (
            "it makes backbones with 'stillrobust robustify', but cannot act in fine-tuning for"
            f" {task}"
        )
    else:
        return
    raise UserError(
        f"{shown(technique.spec)} {why}; {_alternatives(technique.parts or (technique,), dense)}"
    )


def _alternatives(parts: tuple[Technique, ...], dense: bool) -> str:
    """What would act in fine-tuning, all that stands in the way of these put right at once."""
    mended = {part.spec: spec for part in parts if (spec := _photometric_spec(part, dense))}
    still = [
        mended[part.spec]
        for part in parts
        if part.geometric and dense and is_own(part.spec) and part.spec in mended
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
    """The spec with which a technique can act in fine-tuning, its other arguments as they are;
    empty where there is none.
    """
    if part.auxiliary_network or part.extend_dataset:
        return ""
    unwanted = {"geometry": part.geometric and dense, "jsd": part.loss is not cross_entropy}
    changes = {argument: False for argument, there in unwanted.items() if there}
    if is_own(part.spec):  # which may be made to fit by a line in the file
        return "" if "jsd" in changes else file_name(part.spec)
    if not changes.keys() <= part.cards[0].parameters.keys():
        return ""
    name, arguments = parse_spec(part.spec)
    return format_spec(name, {**arguments, **changes})


@contextmanager
def attack_mode(model: nn.Module) -> Iterator[nn.Module]:
    """``model`` in evaluation mode and without its wrappers, for gradients of its input; afterwards
    as it was, flag by flag.

    Fabric's and DistributedDataParallel's wrappers expect every gradient to be one of the
    parameters; what Fabric's does for half precision is done here. Nothing is written into the
    model: in evaluation mode BatchNorm keeps its buffers, and ``torch.autograd.grad`` of the images
    leaves no ``.grad`` behind.
    """
    wrapped = is_wrapped(model) or isinstance(model, DistributedDataParallel)
    inner = cast(nn.Module, model.module) if wrapped else model
    # fabric.autocast(), found from the model. A context of its own: weights that autocast keeps
    # without a gradient end with it.
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


# 1 MiB of float32: with the temporaries of an operation about what a core's cache holds
CACHED_VALUES = 2**18


def chunk_size(images: Tensor) -> int:
    """How many of (B, 3, H, W) an elementwise operation takes at a time: on a CPU so few that they
    stay in its cache.
    """
    per_image = max(1, images[:1].numel())
    return (
        max(1, CACHED_VALUES // per_image) if images.device.type == "cpu" else max(1, len(images))
    )


def stochastic_count(count: int, share: float, generator: torch.Generator) -> int:
    """How many of ``count`` images are ``share`` of them: exactly where that is whole, else so on
    average, by one draw.

    Rounding would never change an image that comes alone, as in fine-tuning those do that have a
    size of their own.
    """
    whole, rest = divmod(share * count, 1)
    if rest == 0:
        return int(whole)
    return int(whole) + (float(torch.rand((), generator=generator, device=generator.device)) < rest)


# ---- checks
# --------------------------------------------------------------------------------------------------------------


def require_unit_range(images: Tensor) -> None:
    """Raise ``UserError`` unless ``images`` are float (B, 3, H, W) in 0..1: an image of 0..255
    would go through unnoticed.
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
    """Raise ``UserError`` unless ``image`` is uint8 (H, W, 3) with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(
            f"Expected an image uint8 (H, W, 3) of 0..255, but got {image.dtype} {image.shape}; "
            "per-image augmentations act on what was read, before it becomes a tensor"
        )


def require_between(what: str, value: float, low: float, high: float, above: bool = False) -> None:
    """Raise ``UserError`` unless ``low <= value <= high`` (``low < value`` with ``above``) and it
    is a number.
    """
    if not (low < value if above else low <= value) or not value <= high:
        least = f"above {low:g}" if above else f"at least {low:g}"
        most = "" if math.isinf(high) else f" and at most {high:g}"
        raise UserError(f"Expected {what} {least}{most}, but got {value:g}; choose one within")
