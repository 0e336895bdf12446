"""The text of techniques: the parts of ``a+b``, and the corruptions of the test that each shows in
training.

It needs no torch, so that the report asks it of any record.
"""

from collections.abc import Mapping
from typing import Any

from stillrobust.names import parse_spec, split_technique_spec

OVERLAPS = {
    "Brightness": "brightness",
    "Contrast": "contrast",
    "Sharpness": "gaussian_blur",
    "Color": "saturate",
}
"""Operation of AugMix and of torchvision's policies -> the corruption that it resembles; a
sharpness below 1 blurs.
"""
OPERATIONS = tuple(sorted(OVERLAPS.values()))
LEARNED: dict[tuple[str, bool], tuple[str, ...]] = {
    ("imagenet", True): ("contrast", "gaussian_blur", "saturate"),
    ("imagenet", False): ("contrast", "gaussian_blur", "saturate"),
    ("svhn", True): ("contrast",),
    ("svhn", False): (),
}
"""AutoAugment's policies that do not hold all four, with and without the pairs that move pixels."""


def overlaps(name: str, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """The corruptions of the test that a technique of ours shows in training; of one that is not
    ours nothing is known.
    """
    match name:
        case "gaussian":
            return ("gaussian_noise",)
        case "speckle":
            return ("speckle_noise",)
        case "l2" if arguments.get("jitter", True):
            return ("brightness", "contrast", "saturate")
        case "augmix" if arguments.get("all_ops", False):
            return OPERATIONS
        case "autoaugment" if arguments.get("all_ops", True):
            return LEARNED.get(
                (arguments.get("policy", "imagenet"), arguments.get("geometry", True)), OPERATIONS
            )
        case "randaugment" | "trivialaugment" if arguments.get("all_ops", True):
            return OPERATIONS
    return ()


def overlaps_of(spec: str) -> tuple[str, ...]:
    """Those of all parts of ``spec``, sorted."""
    return tuple(
        sorted({one for part in split_technique_spec(spec) for one in overlaps(*parse_spec(part))})
    )
