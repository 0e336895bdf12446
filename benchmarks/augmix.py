"""AugMix on one core: a view of ours against the plain form, timm's with the paper's operations, and torchvision's.

    python benchmarks/augmix.py [--size 224] [--views 200]

The plain form is Pillow operation by operation with the official code's preprocessing: to tensor and normalised for the image and
for every chain. All see the same picture, in turn; CPU time of this thread, mean in ms a view, and the ratio to ours.
"""

import argparse
import random
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import AugMixAugment, augmix_ops
from torchvision.transforms import v2

from stillrobust.robustify import build_technique
from stillrobust.robustify.augmix import Step, allowed, draw_mixture

PAPERS = ["AutoContrast", "Equalize", "PosterizeIncreasing", "Rotate", "SolarizeIncreasing", "ShearX", "ShearY"]
PAPERS += ["TranslateXRel", "TranslateYRel"]
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def photo(size: int) -> np.ndarray:
    """A generated picture with smooth parts and edges, uint8 (size, size, 3)."""
    rng = np.random.RandomState(0)
    smooth = cv2.resize(rng.randint(0, 256, (16, 16, 3)).astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    edges = cv2.resize(rng.randint(0, 256, (9, 13, 3)).astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST)
    return np.where(smooth[..., :1] > 128, smooth, edges)


def by_pillow(image: Image.Image, step: Step) -> Image.Image:
    side, level, sign = image.size[0], step.level, step.sign
    affine = {
        "shear_x": (1, sign * level * 0.03, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, sign * level * 0.03, 1, 0),
        "translate_x": (1, 0, sign * int(level * side / 30), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * int(level * side / 30)),
    }
    if step.name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[step.name], Image.Resampling.BILINEAR)
    calls: dict[str, Callable[[], Image.Image]] = {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "posterize": lambda: ImageOps.posterize(image, 4 - int(level * 0.4)),
        "rotate": lambda: image.rotate(sign * int(level * 3), Image.Resampling.BILINEAR),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(level * 25.6)),
    }
    return calls[step.name]()


def normalised(image: Image.Image) -> torch.Tensor:
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255) - MEAN) / STD


def plain(image: Image.Image, rng: np.random.Generator, severity: int) -> torch.Tensor:
    mixture = draw_mixture(rng, allowed(False, True), severity, 3, None, 1.0)
    mixed = torch.zeros(3, *image.size[::-1])
    for weight, chain in zip(mixture.weights, mixture.chains, strict=True):
        changed = image.copy()
        for step in chain:
            changed = by_pillow(changed, step)
        mixed += float(weight) * normalised(changed)
    return (1 - mixture.mixed) * normalised(image) + mixture.mixed * mixed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--views", type=int, default=200)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)  # timm's
    torch.manual_seed(0)  # torchvision's
    image, rng = photo(arguments.size), np.random.default_rng(0)
    opened = Image.fromarray(image)
    for severity in (1, 3):
        ours = build_technique(f"augmix(severity={severity})").augment_image
        assert ours is not None
        settings = {"translate_pct": 1 / 3, "interpolation": Image.Resampling.BILINEAR, "magnitude_std": float("inf")}
        timm = AugMixAugment(augmix_ops(severity, settings, PAPERS))
        vision = v2.AugMix(severity=severity, all_ops=False)
        candidates: dict[str, Callable[[], object]] = {
            "ours": lambda ours=ours: ours(image, rng),
            "plain": lambda severity=severity: plain(opened, rng, severity),
            "timm, paper's operations": lambda timm=timm: timm(opened),
            "torchvision": lambda vision=vision: vision(opened),
        }
        took = dict.fromkeys(candidates, 0.0)
        for call in candidates.values():
            call()
        for _ in range(arguments.views):
            for name, call in candidates.items():
                begun = time.thread_time()
                call()
                took[name] += 1000 * (time.thread_time() - begun) / arguments.views
        print(f"severity {severity}, {arguments.size} x {arguments.size}, ms a view")
        for name, value in took.items():
            print(f"  {name:26s} {value:6.2f}  {value / took['ours']:5.2f}x")


if __name__ == "__main__":
    main()
