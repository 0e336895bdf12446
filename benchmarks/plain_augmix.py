"""AugMix in the other ways that there are: its plain form, timm's with the paper's operations,
torchvision's.

The plain form is Pillow operation by operation with the official code's preprocessing: to tensor
and normalised for the image and for every chain.
"""

import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from timm.data.auto_augment import AugMixAugment, augmix_ops
from torchvision.transforms import v2

from stillrobust.robustify.augmix import Step, allowed_operations, draw_mixture

PAPERS = [
    "AutoContrast",
    "Equalize",
    "PosterizeIncreasing",
    "Rotate",
    "SolarizeIncreasing",
    "ShearX",
    "ShearY",
]
PAPERS += ["TranslateXRel", "TranslateYRel"]
MEAN, STD = (
    torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
    torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
)


def by_pillow(image: Image.Image, step: Step) -> Image.Image:
    """The operations as augmentations.py writes them, for any size."""
    (width, height), level, sign = image.size, step.level, step.sign
    affine = {
        "shear_x": (1, sign * level * 0.3 / 10, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, sign * level * 0.3 / 10, 1, 0),
        "translate_x": (1, 0, sign * int(level * width / 3 / 10), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * int(level * height / 3 / 10)),
    }
    if step.name in affine:
        return image.transform(
            image.size, Image.Transform.AFFINE, affine[step.name], Image.Resampling.BILINEAR
        )
    calls: dict[str, Callable[[], Image.Image]] = {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "posterize": lambda: ImageOps.posterize(image, 4 - int(level * 4 / 10)),
        "rotate": lambda: image.rotate(sign * int(level * 30 / 10), Image.Resampling.BILINEAR),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(level * 256 / 10)),
        "color": lambda: ImageEnhance.Color(image).enhance(level * 1.8 / 10 + 0.1),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(level * 1.8 / 10 + 0.1),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(level * 1.8 / 10 + 0.1),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(level * 1.8 / 10 + 0.1),
    }
    return calls[step.name]()


def normalised(image: Image.Image) -> torch.Tensor:
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255) - MEAN) / STD


def plain(image: Image.Image, rng: np.random.Generator, severity: int) -> torch.Tensor:
    mixture = draw_mixture(rng, allowed_operations(False, True), severity, 3, None, 1.0)
    mixed = torch.zeros(3, *image.size[::-1])
    for weight, chain in zip(mixture.weights, mixture.chains, strict=True):
        changed = image.copy()
        for step in chain:
            changed = by_pillow(changed, step)
        mixed += float(weight) * normalised(changed)
    return (1 - mixture.mixed) * normalised(image) + mixture.mixed * mixed


def views(picture: np.ndarray, severity: int) -> dict[str, Callable[[], object]]:
    """One view of ``picture`` uint8 (H, W, 3), in each of the ways."""
    random.seed(0)
    np.random.seed(0)  # timm's
    torch.manual_seed(0)  # torchvision's
    opened, rng = Image.fromarray(picture), np.random.default_rng(0)
    settings = {
        "translate_pct": 1 / 3,
        "interpolation": Image.Resampling.BILINEAR,
        "magnitude_std": float("inf"),
    }
    timm = AugMixAugment(augmix_ops(severity, settings, PAPERS))
    vision = v2.AugMix(severity=severity, all_ops=False)
    return {
        "plain": lambda: plain(opened, rng, severity),
        "timm, paper's operations": lambda: timm(opened),
        "torchvision": lambda: vision(opened),
    }
