"""Techniques that make a model robust, by name: specs such as ``ant(kernel=3)``,
``prime(geometry=False)``, ``deepaugment+augmix``; and files of your own, ``my_technique.py``
(``own.py``).

A technique is an augmentation and/or a loss, and a card (``technique.py`` is the contract). Nothing
here imports ``corruptions/``: no training on the test; a technique that shows one of its
corruptions all the same says so.
"""

from stillrobust.extras import require_extra

require_extra("torch")

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, ValidationError, validate_call
from torch import Tensor

from stillrobust.analysis.technique_overlaps import overlaps
from stillrobust.errors import UserError
from stillrobust.names import format_spec, lookup, parse_spec, parts_of, unknown
from stillrobust.robustify import (
    adversarial,
    ant,
    augmix,
    deepaugment,
    noise,
    noise2net,
    policies,
    prime,
)
from stillrobust.robustify.own import own_card, own_technique
from stillrobust.robustify.technique import (
    AugmentBatch,
    AugmentImage,
    Card,
    Companion,
    ExtendDataset,
    Technique,
    batch_views,
    cross_entropy,
    image_views,
    require_between,
    require_photometric,
    require_unit_range,
)
from stillrobust.samples import Array, Dataset, Image
from stillrobust.user_files import is_own, pinned, require_free, shown

__all__ = [
    "TECHNIQUES",
    "Card",
    "Companion",
    "Entry",
    "Technique",
    "batch_views",
    "build_technique",
    "cards_of",
    "image_views",
    "require_between",
    "require_photometric",
    "require_unit_range",
]


@dataclass(frozen=True)
class Entry:
    """One technique of the dict."""

    make: Callable[..., Technique]
    """Takes literal arguments with defaults; raises ``UserError`` for one out of range."""
    card: Card


TECHNIQUES: dict[str, Entry] = {
    "ant": Entry(ant.ant, ant.CARD),
    "augmix": Entry(augmix.augmix, augmix.CARD),
    "autoaugment": Entry(policies.autoaugment, policies.AUTO),
    "deepaugment": Entry(deepaugment.deepaugment, deepaugment.CARD),
    "gaussian": Entry(noise.gaussian, noise.GAUSSIAN),
    "l2": Entry(adversarial.l2, adversarial.CARD),
    "noise2net": Entry(noise2net.noise2net, noise2net.CARD),
    "prime": Entry(prime.prime, prime.CARD),
    "randaugment": Entry(policies.randaugment, policies.RANDOM),
    "speckle": Entry(noise.speckle, noise.SPECKLE),
    "trivialaugment": Entry(policies.trivialaugment, policies.TRIVIAL),
}


def build_technique(spec: str) -> Technique:
    """The technique that ``spec`` names; ``a+b`` is both.

    What they do comes in the order of :class:`Technique`'s fields, whichever is named first: single
    images before batches. Of two that act in the same place ``a`` comes before ``b``.

    Raises ``UserError`` for an unknown name or argument, a value out of range, two losses or two
    companions, and what would be given images beyond 0..1.
    """
    return reduce(_compose, [_build_one(part) for part in _parts(spec)])


def cards_of(spec: str) -> list[Card]:
    """The cards of the techniques that ``spec`` names, whose arguments need not be there."""
    return [_card(*parse_spec(part)) for part in _parts(spec)]


def _card(name: str, arguments: Mapping[str, Any]) -> Card:
    if is_own(name):
        return own_card(name)
    return replace(lookup("technique", name, TECHNIQUES).card, overlaps=overlaps(name, arguments))


def _parts(spec: str) -> list[str]:
    """``"a(x=1)+b"`` -> ``["a(x=1)", "b"]``. Files of your own are pinned."""
    found = parts_of(pinned(spec))
    for name in (parse_spec(part)[0] for part in found):
        if is_own(name):
            require_free(name, "technique", {*TECHNIQUES, "regular"})
    return found


def _build_one(spec: str) -> Technique:
    name, arguments = parse_spec(spec)
    if is_own(name):
        if arguments:
            raise UserError(
                f"Expected no arguments for {shown(name)}.py, but got {', '.join(arguments)}; write"
                " them in the file"
            )
        return own_technique(name)
    entry = lookup("technique", name, TECHNIQUES)
    known = inspect.signature(entry.make).parameters
    for key in arguments:
        if key not in known:
            raise unknown(f"argument of {name}", key, known)
    try:
        made: Technique = validate_call(config=ConfigDict(strict=True))(entry.make)(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        hint = f" ({entry.card.parameters[key]})" if key in entry.card.parameters else ""
        raise UserError(
            f"The argument {key} of {name} got {arguments.get(key)!r}: {first['msg'].lower()}{hint}"
        ) from None
    return replace(made, cards=(_card(name, arguments),), spec=format_spec(name, arguments))


def _compose(first: Technique, second: Technique) -> Technique:
    spec = f"{first.spec}+{second.spec}"
    both = shown(spec)
    if first.loss is not cross_entropy and second.loss is not cross_entropy:
        raise UserError(f"{both} has two losses; leave one of them out")
    if first.companion and second.companion:
        raise UserError(f"{both} would train two networks beside the model; leave one of them out")
    unclipped, bounded = first.unclipped or second.unclipped, first.bounded or second.bounded
    if (first.unclipped and second.augment_batch) or (unclipped and bounded):
        leaving, other = (
            shown(one.spec) for one in ((first, second) if first.unclipped else (second, first))
        )
        what_next = (
            "leave one of them out" if second.unclipped or bounded else f"write {other}+{leaving}"
        )
        raise UserError(
            f"In {both} {other} expects images of 0..1, but those of {leaving} leave it;"
            f" {what_next}"
        )
    return Technique(
        extend_dataset=_both(first.extend_dataset, second.extend_dataset, _extend_twice),
        augment_image=_both(first.augment_image, second.augment_image, _augment_image_twice),
        augment_batch=_both(first.augment_batch, second.augment_batch, _augment_batch_twice),
        companion=first.companion or second.companion,
        loss=second.loss if first.loss is cross_entropy else first.loss,
        views=max(first.views, second.views),
        unclipped=unclipped,
        bounded=bounded,
        geometric=first.geometric or second.geometric,
        parts=(*(first.parts or (first,)), second),
        cards=(*first.cards, *second.cards),
        spec=spec,
    )


def _both(
    first: Callable[..., Any] | None, second: Callable[..., Any] | None, twice: Callable[..., Any]
) -> Any:
    # partial of a function of this module, not a closure: a loader's workers get it by pickle
    return partial(twice, first, second) if first and second else first or second


def _extend_twice(
    first: ExtendDataset, second: ExtendDataset, dataset: Dataset, seed: int
) -> Dataset:
    return second(first(dataset, seed), seed)


def _augment_image_twice(
    first: AugmentImage, second: AugmentImage, image: Image, rng: np.random.Generator
) -> Array:
    # The second one takes 8 bits, as all of them do.
    return second(np.round(first(image, rng) * 255).clip(0, 255).astype(np.uint8), rng)


def _augment_batch_twice(
    first: AugmentBatch, second: AugmentBatch, images: Tensor, generator: torch.Generator
) -> Tensor:
    return second(first(images, generator), generator)
