"""torchvision's TrivialAugment, RandAugment and AutoAugment, optionally with fewer operations.

Four of their operations resemble corruptions of the test. ``all_ops=False`` leaves them out.
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
    TechniqueEntry,
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
    """Build TrivialAugment: one operation at a random magnitude.

    The parameters of ``TRIVIALAUGMENT_CARD`` describe the arguments.
    """
    return _technique("trivialaugment", all_ops, geometry)


def randaugment(
    num_ops: int = 2, magnitude: int = 9, all_ops: bool = True, geometry: bool = True
) -> Technique:
    """Build RandAugment: ``num_ops`` operations at one magnitude.

    The parameters of ``RANDAUGMENT_CARD`` describe the arguments.

    Raises:
        UserError: If an argument is out of range.
    """
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
    """Build AutoAugment: a pair of operations of a learned policy.

    The parameters of ``AUTOAUGMENT_CARD`` describe the arguments.

    Raises:
        UserError: If the policy is unknown.
    """
    return _technique("autoaugment", all_ops, geometry, policy=lookup("policy", policy, POLICIES))


def _technique(name: str, all_ops: bool, geometry: bool, **settings: Any) -> Technique:
    chosen = tuple(sorted(settings.items()))
    drawn = operations(build_transform(name, all_ops, geometry, chosen))
    return Technique(
        augment_image=partial(
            apply_policy, name=name, all_ops=all_ops, geometry=geometry, settings=chosen
        ),
        geometric=bool(drawn & GEOMETRIC),
    )


def operations(transform: v2.Transform) -> frozenset[str]:
    """Return the names of the operations that a transform may apply.

    Args:
        transform: A transform of :func:`build_transform`.
    """
    if isinstance(transform, v2.AutoAugment):
        return frozenset(step[0] for pair in transform._policies for step in pair)
    return frozenset(transform._AUGMENTATION_SPACE)


@cache
def build_transform(
    name: str, all_ops: bool, geometry: bool, settings: tuple[tuple[str, Any], ...]
) -> v2.Transform:
    """Build torchvision's transform without unwanted operations.

    Each process builds it, because its tables hold functions that cannot be pickled for a loader's
    worker.

    Args:
        name: Name of the technique.
        all_ops: Whether operations that resemble corruptions of the test are included.
        geometry: Whether operations that move pixels are included.
        settings: Arguments of torchvision's class, as pairs.
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
    # torchvision has no argument for this. Tests check that it draws from these attributes.
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


def apply_policy(
    image: Image,
    rng: np.random.Generator,
    name: str,
    all_ops: bool,
    geometry: bool,
    settings: tuple[tuple[str, Any], ...],
) -> Array:
    """Augment one image.

    Args:
        image: uint8 (H, W, 3) RGB.
        rng: Source of all random draws.
        name: Name of the technique.
        all_ops: As for :func:`build_transform`.
        geometry: As for :func:`build_transform`.
        settings: As for :func:`build_transform`.

    Returns:
        float32 (H, W, 3) in 0..1.
    """
    require_eight_bit(image)
    tensor = tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))
    # torchvision draws from the global generator, whose state is restored afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        changed: torch.Tensor = build_transform(name, all_ops, geometry, settings)(tensor)
    return np.asarray(changed.permute(1, 2, 0).numpy() / np.float32(255))


AUTOAUGMENT = TechniqueEntry(autoaugment, AUTOAUGMENT_CARD)


RANDAUGMENT = TechniqueEntry(randaugment, RANDAUGMENT_CARD)


TRIVIALAUGMENT = TechniqueEntry(trivialaugment, TRIVIALAUGMENT_CARD)
