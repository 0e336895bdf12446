"""Techniques in Python files of users.

A file defines one or more of the functions ``augment_image``, ``augment_batch`` and ``loss``, which
become the fields of that name of ``Technique``. Optional names: ``GEOMETRIC = False`` if no pixel
moves, so that boxes, masks and label maps still fit; ``VIEWS``, the number of views that the loss
takes; ``OVERLAPS_TEST``, the corruptions of the test that the technique shows in training.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillrobust.errors import UserError
from stillrobust.grid import COMMON
from stillrobust.robustify.technique import TOLERANCE, Card, Technique, cross_entropy
from stillrobust.samples import Array, Image
from stillrobust.user_files import (
    display_name,
    error_summary,
    file_name,
    load_user_module,
    path_of,
)

FUNCTIONS = {
    "augment_image": (
        "augment_image(image uint8 (H, W, 3), rng) -> uint8, or float 0..1, of the same shape"
    ),
    "augment_batch": "augment_batch(images float (B, 3, H, W) 0..1, generator) -> the same",
    "loss": "loss(model, views, labels, generator) -> a scalar tensor",
}
EXPECTED = f"one or more of the functions {', '.join(FUNCTIONS)}"


def build_user_technique(spec: str) -> Technique:
    """Build the technique that a user file defines. It can be pickled.

    Args:
        spec: The resolved path of the file, with the hash of its content.

    Returns:
        The technique, whose functions check what the file's functions return.

    Raises:
        UserError: If the file defines none of the functions, or an optional name has a wrong value.
    """
    module = load_user_module(spec, EXPECTED)
    there = [name for name in FUNCTIONS if callable(getattr(module, name, None))]
    if not there:
        raise UserError(f"Expected {EXPECTED} in {file_name(spec)}, but there is none; add one")
    geometric, views = getattr(module, "GEOMETRIC", True), getattr(module, "VIEWS", 1)
    overlaps = user_card(spec).overlaps_test
    if (
        not isinstance(geometric, bool)
        or isinstance(views, bool)
        or not isinstance(views, int)
        or views < 1
    ):
        raise UserError(
            f"Expected GEOMETRIC as True or False and VIEWS from 1 on in {file_name(spec)}, but got"
            f" {geometric!r} and {views!r}; correct them there"
        )
    if views > 1 and "loss" not in there:
        raise UserError(
            f"Expected a loss() that takes the {views} views of {file_name(spec)}, but there is"
            " none; add it"
        )
    if not set(overlaps) <= set(COMMON):
        raise UserError(
            f"Expected OVERLAPS_TEST in {file_name(spec)} as names of the 15 corruptions, but got"
            f" {overlaps!r}; correct it there"
        )
    return Technique(
        augment_image=partial(_augment_image, spec) if "augment_image" in there else None,
        augment_batch=partial(_augment_batch, spec) if "augment_batch" in there else None,
        loss=partial(_loss, spec) if "loss" in there else cross_entropy,
        views=views,
        geometric=geometric,
        cards=(user_card(spec),),
        spec=spec,
    )


def user_card(spec: str) -> Card:
    """Return the card of a user file.

    Args:
        spec: The resolved path of the file, with the hash of its content.
    """
    module = load_user_module(spec, EXPECTED)
    lines = (module.__doc__ or "").strip().splitlines()
    return Card(
        name=display_name(spec),
        title=lines[0] if lines else display_name(spec),
        paper="your own",
        code=f"{path_of(spec)}, content {spec.rpartition('@')[2]}",
        parameters={
            "GEOMETRIC": (
                "in the file; False where no pixel moves, and without it nothing is sure but"
                " classes"
            )
        },
        left_out=(),
        cost="not measured",
        published="nothing",
        overlaps_test=tuple(getattr(module, "OVERLAPS_TEST", ())),
    )


def _call(spec: str, function: str, *arguments: Any) -> Any:
    try:
        return getattr(load_user_module(spec, EXPECTED), function)(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(
            f"Expected {FUNCTIONS[function]} in {file_name(spec)}, but it raised"
            f" {error_summary(error)}; mend it"
        ) from error


def _wrong(spec: str, function: str, got: str, hint: str) -> UserError:
    return UserError(f"Expected {FUNCTIONS[function]} in {file_name(spec)}, but got {got}; {hint}")


def _augment_image(spec: str, image: Image, rng: np.random.Generator) -> Array:
    made = _call(spec, "augment_image", image.copy(), rng)
    if (
        not isinstance(made, np.ndarray)
        or made.shape != image.shape
        or not (made.dtype == np.uint8 or made.dtype.kind == "f")
    ):
        got = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
        raise _wrong(
            spec, "augment_image", f"{got} for uint8 {image.shape}", "keep the size, and convert"
        )
    if made.dtype == np.uint8:
        return np.divide(made, 255, dtype=np.float32)
    # written so that NaN fails too
    if not (made.min() >= -TOLERANCE and made.max() <= 1 + TOLERANCE):
        raise _wrong(
            spec,
            "augment_image",
            f"values from {made.min():.4g} to {made.max():.4g}",
            "divide by 255 and clip",
        )
    return made.astype(np.float32)


def _augment_batch(spec: str, images: Tensor, generator: torch.Generator) -> Tensor:
    made = _call(spec, "augment_batch", images.clone(), generator)
    if not isinstance(made, Tensor) or made.shape != images.shape or not made.is_floating_point():
        got = (
            f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        )
        raise _wrong(
            spec,
            "augment_batch",
            f"{got} for float {tuple(images.shape)}",
            "keep the shape, and stay in floats",
        )
    low, high = (float(extreme) for extreme in made.detach().aminmax())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise _wrong(
            spec, "augment_batch", f"values from {low:.4g} to {high:.4g}", "clamp them to 0..1"
        )
    return made.to(images)


def _loss(
    spec: str, model: nn.Module, views: list[Tensor], labels: Tensor, generator: torch.Generator
) -> Tensor:
    made = _call(spec, "loss", model, views, labels, generator)
    if not isinstance(made, Tensor) or made.ndim != 0 or not made.is_floating_point():
        got = (
            f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        )
        raise _wrong(spec, "loss", got, "take the mean over the batch")
    return made
