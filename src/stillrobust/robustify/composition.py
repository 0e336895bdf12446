"""Techniques from specs: look-up, arguments, and combinations such as ``deepaugment+augmix``."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, ValidationError, validate_call
from torch import Tensor

from stillrobust.errors import UserError
from stillrobust.names import (
    format_spec,
    lookup,
    parse_spec,
    split_sum,
    unknown_name_error,
)
from stillrobust.robustify.technique import (
    AugmentBatch,
    AugmentImage,
    Card,
    ExtendDataset,
    Technique,
    cross_entropy,
)
from stillrobust.robustify.techniques import TECHNIQUES
from stillrobust.robustify.user_techniques import build_user_technique, user_card
from stillrobust.samples import Array, Dataset, Image
from stillrobust.user_files import display_name, is_user_file, require_free, resolve_user_file


def build_technique(spec: str) -> Technique:
    """Build the technique that a spec names.

    ``a+b`` applies both. Parts act in the order of the fields of :class:`Technique`: single images
    are augmented before batches, whichever technique is named first. Within one field, ``a`` acts
    before ``b``.

    Args:
        spec: A spec such as ``augmix(severity=3)+prime`` or the path of a Python file.

    Returns:
        The technique, with its canonical spec and its cards.

    Raises:
        UserError: If a name or argument is unknown or a value is out of range; if there are two
            losses or two auxiliary networks; or if a part would be given images beyond 0..1.
    """
    return reduce(_compose, [_build_one(part) for part in _parts(spec)])


def cards_of(spec: str) -> list[Card]:
    """Return the cards of the techniques that a spec names.

    Required arguments may be missing.

    Args:
        spec: As for :func:`build_technique`.

    Raises:
        UserError: If a name is unknown.
    """
    return [_card(*parse_spec(part)) for part in _parts(spec)]


def _card(name: str, arguments: Mapping[str, Any]) -> Card:
    if is_user_file(name):
        return user_card(name)
    entry = lookup("technique", name, TECHNIQUES)
    defaults = {key: one.default for key, one in inspect.signature(entry.build).parameters.items()}
    return entry.card.with_arguments({**defaults, **arguments})


def _parts(spec: str) -> list[str]:
    """Return the parts of a sum: ``"a(x=1)+b"`` -> ``["a(x=1)", "b"]``. User files are resolved."""
    found = split_sum(resolve_user_file(spec), "a technique", "ant(kernel=3)")
    for name in (parse_spec(part)[0] for part in found):
        if is_user_file(name):
            require_free(name, "technique", {*TECHNIQUES, "regular"})
    return found


def _build_one(spec: str) -> Technique:
    name, arguments = parse_spec(spec)
    if is_user_file(name):
        if arguments:
            raise UserError(
                f"Expected no arguments for {display_name(name)}.py, but got"
                f" {', '.join(arguments)}; write them in the file"
            )
        return build_user_technique(name)
    entry = lookup("technique", name, TECHNIQUES)
    known = inspect.signature(entry.build).parameters
    for key in arguments:
        if key not in known:
            raise unknown_name_error(f"argument of {name}", key, known)
    try:
        made: Technique = validate_call(config=ConfigDict(strict=True))(entry.build)(**arguments)
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
    both = display_name(spec)
    if first.loss is not cross_entropy and second.loss is not cross_entropy:
        raise UserError(f"{both} has two losses; leave one of them out")
    if first.auxiliary_network and second.auxiliary_network:
        raise UserError(f"{both} would train two auxiliary networks; leave one of them out")
    leaves_unit_range, needs_unit_range = (
        first.leaves_unit_range or second.leaves_unit_range,
        first.needs_unit_range or second.needs_unit_range,
    )
    if (first.leaves_unit_range and second.augment_batch) or (
        leaves_unit_range and needs_unit_range
    ):
        leaving, other = (
            display_name(one.spec)
            for one in ((first, second) if first.leaves_unit_range else (second, first))
        )
        what_next = (
            "leave one of them out"
            if second.leaves_unit_range or needs_unit_range
            else f"write {other}+{leaving}"
        )
        raise UserError(
            f"In {both} {other} expects images of 0..1, but those of {leaving} leave it;"
            f" {what_next}"
        )
    return Technique(
        extend_dataset=_both(first.extend_dataset, second.extend_dataset, _extend_twice),
        augment_image=_both(first.augment_image, second.augment_image, _augment_image_twice),
        augment_batch=_both(first.augment_batch, second.augment_batch, _augment_batch_twice),
        auxiliary_network=first.auxiliary_network or second.auxiliary_network,
        loss=second.loss if first.loss is cross_entropy else first.loss,
        views=max(first.views, second.views),
        leaves_unit_range=leaves_unit_range,
        needs_unit_range=needs_unit_range,
        geometric=first.geometric or second.geometric,
        parts=(*(first.parts or (first,)), second),
        cards=(*first.cards, *second.cards),
        spec=spec,
    )


def _both(
    first: Callable[..., Any] | None, second: Callable[..., Any] | None, twice: Callable[..., Any]
) -> Any:
    # Not a closure: a loader's workers receive it by pickle.
    return partial(twice, first, second) if first and second else first or second


def _extend_twice(
    first: ExtendDataset, second: ExtendDataset, dataset: Dataset, seed: int
) -> Dataset:
    return second(first(dataset, seed), seed)


def _augment_image_twice(
    first: AugmentImage, second: AugmentImage, image: Image, rng: np.random.Generator
) -> Array:
    # Every ``augment_image`` takes 8 bits.
    return second(np.round(first(image, rng) * 255).clip(0, 255).astype(np.uint8), rng)


def _augment_batch_twice(
    first: AugmentBatch, second: AugmentBatch, images: Tensor, generator: torch.Generator
) -> Tensor:
    return second(first(images, generator), generator)
