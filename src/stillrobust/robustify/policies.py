"""TrivialAugment, RandAugment and AutoAugment as torchvision has them, with fewer operations where
that is asked for.

Four of their operations resemble corruptions of the test; the report marks a model that trained on
these.
"""

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import AutoAugmentPolicy, v2

from stillrobust.names import lookup
from stillrobust.robustify.technique import (
    ENHANCEMENT_OVERLAPS,
    Card,
    Technique,
    require_between,
    require_eight_bit,
)
from stillrobust.samples import Array, Image

GEOMETRIC = frozenset({"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"})
OVERLAPS = {name.capitalize(): corruption for name, corruption in ENHANCEMENT_OVERLAPS.items()}
POLICIES = {policy.value: policy for policy in AutoAugmentPolicy}
BINS = 31  # magnitudes of RandAugment and TrivialAugment, in their papers and in torchvision

_PARAMETERS = {
    "all_ops": (
        "also colour, contrast, brightness and sharpness, which overlap the test; True as published"
    ),
    "geometry": "also shear, translation and rotation; True as published, False fits dense tasks",
}
_CODE = "torchvision.transforms.v2 (BSD-3), which is called"
_COST = "1.0; a view takes a loader's core about 0.3 ms at 224x224"


def _overlaps(arguments: Mapping[str, Any], name: str) -> tuple[str, ...]:
    settings = (
        {"policy": lookup("policy", arguments["policy"], POLICIES)} if "policy" in arguments else {}
    )
    transform = build_transform(
        name, arguments["all_ops"], arguments["geometry"], tuple(settings.items())
    )
    return tuple(OVERLAPS[operation] for operation in operations(transform) & OVERLAPS.keys())


TRIVIALAUGMENT_CARD = Card(
    name="trivialaugment",
    title="TrivialAugment (wide)",
    paper=(
        "Müller & Hutter 2021, TrivialAugment: Tuning-free yet state-of-the-art data augmentation"
        " (ICCV)"
    ),
    code=_CODE,
    parameters=_PARAMETERS,
    left_out=(),
    cost=_COST,
    published="ResNet-50: clean 78.1 %; with all its operations ImageNet-C is not comparable",
    overlaps_for=partial(_overlaps, name="trivialaugment"),
)
RANDAUGMENT_CARD = Card(
    name="randaugment",
    title="RandAugment",
    paper=(
        "Cubuk et al. 2020, RandAugment: Practical automated data augmentation with a reduced"
        " search space (NeurIPS)"
    ),
    code=_CODE,
    parameters={
        "num_ops": "operations one after the other; 2",
        "magnitude": f"of {BINS}, from 0; 9 for ResNet-50",
    }
    | _PARAMETERS,
    left_out=(),
    cost=_COST,
    published="ResNet-50: clean 77.6 %; with all its operations ImageNet-C is not comparable",
    overlaps_for=partial(_overlaps, name="randaugment"),
)
AUTOAUGMENT_CARD = Card(
    name="autoaugment",
    title="AutoAugment",
    paper="Cubuk et al. 2019, AutoAugment: Learning augmentation strategies from data (CVPR)",
    code=_CODE,
    parameters={"policy": "pairs of operations learned on imagenet, cifar10 or svhn"} | _PARAMETERS,
    left_out=(
        "without some operations, the pairs of the policy that hold one of them are left out",
    ),
    cost=_COST,
    published="ResNet-50: clean 77.6 %; with all its operations ImageNet-C is not comparable",
    overlaps_for=partial(_overlaps, name="autoaugment"),
)


def trivialaugment(all_ops: bool = True, geometry: bool = True) -> Technique:
    """One operation, at any of its magnitudes."""
    return _technique("trivialaugment", all_ops, geometry)


def randaugment(
    num_ops: int = 2, magnitude: int = 9, all_ops: bool = True, geometry: bool = True
) -> Technique:
    """``num_ops`` operations at one magnitude."""
    require_between("num_ops", num_ops, 1, 100)
    require_between("a magnitude", magnitude, 0, BINS - 1)
    return _technique(
        "randaugment",
        all_ops,
        geometry,
        num_ops=num_ops,
        magnitude=magnitude,
        num_magnitude_bins=BINS,
    )


def autoaugment(policy: str = "imagenet", all_ops: bool = True, geometry: bool = True) -> Technique:
    """A pair of operations of a learned policy."""
    return _technique("autoaugment", all_ops, geometry, policy=lookup("policy", policy, POLICIES))


def _technique(name: str, all_ops: bool, geometry: bool, **settings: Any) -> Technique:
    chosen = tuple(sorted(settings.items()))
    drawn = operations(build_transform(name, all_ops, geometry, chosen))
    return Technique(
        augment_image=partial(
            augment, name=name, all_ops=all_ops, geometry=geometry, settings=chosen
        ),
        geometric=bool(drawn & GEOMETRIC),
    )


def operations(transform: v2.Transform) -> frozenset[str]:
    """The operations that a transform may apply."""
    if isinstance(transform, v2.AutoAugment):
        return frozenset(step[0] for pair in transform._policies for step in pair)
    return frozenset(transform._AUGMENTATION_SPACE)


@cache
def build_transform(
    name: str, all_ops: bool, geometry: bool, settings: tuple[tuple[str, Any], ...]
) -> v2.Transform:
    """torchvision's transform.

    Made where it is used: its tables hold functions that cannot be sent to a loader's worker.
    """
    kinds = {
        "trivialaugment": v2.TrivialAugmentWide,
        "randaugment": v2.RandAugment,
        "autoaugment": v2.AutoAugment,
    }
    transform = kinds[name](**dict(settings))
    unwanted = (frozenset() if all_ops else OVERLAPS.keys()) | (
        frozenset() if geometry else GEOMETRIC
    )
    # torchvision has no argument for this; tests hold that these attributes are what it draws from
    if isinstance(transform, v2.AutoAugment):
        transform._policies = [
            pair for pair in transform._policies if not unwanted & {step[0] for step in pair}
        ]
    else:
        space = transform._AUGMENTATION_SPACE
        transform._AUGMENTATION_SPACE = {
            key: value for key, value in space.items() if key not in unwanted
        }
    return transform


def augment(
    image: Image,
    rng: np.random.Generator,
    name: str,
    all_ops: bool,
    geometry: bool,
    settings: tuple[tuple[str, Any], ...],
) -> Array:
    """uint8 (H, W, 3) RGB -> float32 (H, W, 3) in 0..1."""
    require_eight_bit(image)
    tensor = tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))
    # torchvision draws from the global generator, which stays as it is
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        changed: torch.Tensor = build_transform(name, all_ops, geometry, settings)(tensor)
    return np.asarray(changed.permute(1, 2, 0).numpy() / np.float32(255))
