"""DeepAugment: training images from image-to-image networks with perturbed weights and features.

Hendrycks et al. 2021 (ICCV). ``stillrobust techniques deepaugment`` makes a folder of changed
images with each network (``Pretrained.distort``). The technique trains on such folders and the
originals (``roots.py``). ``noise2net`` is the variant that needs no trained networks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor, nn
from torch.nn import functional

from stillrobust.backbones.reader import State, read_weights
from stillrobust.backbones.strict_loading import load_strictly
from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.robustify.deepaugment import cae, edsr
from stillrobust.robustify.deepaugment.random_tensors import Random
from stillrobust.robustify.deepaugment.roots import COMBINATIONS, MultiRootDataset
from stillrobust.robustify.technique import Card, Technique, TechniqueEntry
from stillrobust.samples import Dataset, Image

__all__ = [
    "CARD",
    "NETWORKS",
    "REDRAW_PROBABILITY",
    "MultiRootDataset",
    "Network",
    "Pretrained",
    "deepaugment",
    "load_pretrained",
]

REDRAW_PROBABILITY = (
    0.05  # probability of new weights before each image, as in both official scripts
)
MIN_CORRELATION = 0.5
"""Lowest :func:`reconstruction_correlation` of trained weights.

Untrained weights stay below 0.2 (20 seeds). A reconstruction at 20 dB has 0.87.
"""

CARD = Card(
    name="deepaugment",
    title="DeepAugment",
    paper=(
        "Hendrycks et al. 2021, The many faces of robustness: A critical analysis of"
        " out-of-distribution generalization (ICCV)"
    ),
    code=(
        "hendrycks/imagenet-r 3131cac, DeepAugment/ (MIT); networks: EDSR-baseline x4,"
        " alexandru-dinu/cae eb13bf7 (MIT)"
    ),
    parameters={
        "roots": ("folders of changed images; EDSR's and CAE's in the paper"),
        "combine": (
            "concat, as published: an epoch has all images of all folders; choice: one version of"
            " each, drawn every epoch"
        ),
    },
    left_out=(
        (
            "the networks' weights: theirs are in imagenet-r (EDSR_Weights, CAE_Weights); untrained"
            " ones are refused"
        ),
        (
            "the order of images in which weights are redrawn follows from a seed, there from the"
            " workers"
        ),
    ),
    cost=(
        "1.0 a step, three times the steps an epoch; making the folders takes a core some 2 s"
        " (EDSR) and 12 s (CAE) an image"
    ),
    published=(
        "ResNet-50, 30 epochs from the ImageNet checkpoint: clean 76.7 %, mCE 60.4; with AugMix"
        " 53.6"
    ),
    preparation="folders of changed training images, which 'techniques deepaugment' makes",
)


@dataclass(frozen=True)
class Network:
    """One of the two image-to-image networks."""

    build: Callable[[], nn.Module]
    """Builds the module with random weights."""
    side: int
    """Images are resized to this length of the shorter side, in pixels."""
    perturb_weights: Callable[[State, Random], State]
    distort: Callable[..., Tensor]
    """(module, images (1, 3, H, W) in 0..1, rng) -> images in 0..1, with one change."""
    reconstruct: Callable[[nn.Module, Tensor], Tensor]
    """(module, images in 0..1) -> images in 0..1, without any change."""
    source: str
    """Where the published weights are."""


NETWORKS: dict[str, Network] = {
    "edsr": Network(
        edsr.EDSR,
        128,
        edsr.perturb_weights,
        edsr.distort,
        lambda module, images: module(255 * images) / 255,
        "edsr_baseline_x4.pt of github.com/hendrycks/imagenet-r, DeepAugment/EDSR_Weights",
    ),
    "cae": Network(
        cae.CAE,
        512,
        cae.perturb_weights,
        cae.distort,
        lambda module, images: module(images),
        "model_final.state of github.com/hendrycks/imagenet-r, DeepAugment/CAE_Weights",
    ),
}


@dataclass(frozen=True)
class Pretrained:
    """A network with its trained weights, before any perturbation."""

    network: Network
    module: nn.Module
    state: State
    sha256: str
    """SHA-256 of the weight file, hex; empty for untrained weights."""

    def perturb(self, rng: Random) -> None:
        """Give the module newly perturbed weights.

        Args:
            rng: Source of all random draws.
        """
        self.module.load_state_dict(self.network.perturb_weights(self.state, rng))

    def distort(self, image: Pillow.Image, rng: Random) -> Image:
        """Distort an image with the module's current weights.

        Args:
            image: RGB of any size.
            rng: Source of all random draws.

        Returns:
            uint8 (H, W, 3) with a shorter side of 512.
        """
        device = next(self.module.parameters()).device
        with torch.no_grad():
            out = self.network.distort(
                self.module, resize_shorter_side(image, self.network.side).to(device), rng
            )
        # Truncated, as by torchvision's to_pil_image.
        return np.asarray(out[0].mul(255).byte().permute(1, 2, 0).cpu().numpy())


def load_pretrained(name: str, weights: Path | None, allow_untrained: bool = False) -> Pretrained:
    """Load a network, and check that its weights are trained: they must reproduce a picture.

    Args:
        name: A name of ``NETWORKS``.
        weights: The file of weights. It is read without running code, and loaded strictly.
        allow_untrained: Whether random weights are allowed, for tests.

    Returns:
        The network with its weights.

    Raises:
        UserError: If the weights are missing, do not fit or are not trained.
    """
    network = lookup("network", name, NETWORKS)
    if weights is None and not allow_untrained:
        raise UserError(
            f"DeepAugment needs trained weights of {name}, for random ones leave nothing of an"
            f" image; get {network.source} and give it with --weights"
        )
    module, sha256 = network.build().eval(), ""
    if weights is not None:
        content = read_weights(weights)
        load_strictly(module, content.tensors, str(weights))
        sha256 = content.sha256
    module.requires_grad_(False)
    found = reconstruction_correlation(network, module)
    if not allow_untrained and not found >= MIN_CORRELATION:  # written so that NaN fails too
        raise UserError(
            f"Expected trained weights of {name} in {weights}, but what they make of a picture has"
            f" a correlation of {found:.2f} with it (trained ones: nearly 1); get {network.source}"
        )
    return Pretrained(
        network, module, {key: value.clone() for key, value in module.state_dict().items()}, sha256
    )


def reconstruction_correlation(network: Network, module: nn.Module) -> float:
    """Compute the correlation of a smooth picture with what the unperturbed network makes of it.

    Args:
        network: The network.
        module: Its module.
    """
    coarse = torch.from_numpy(
        np.random.default_rng(0).uniform(0.1, 0.9, (1, 3, 5, 5)).astype(np.float32)
    )
    picture = functional.interpolate(coarse, (64, 64), mode="bicubic", align_corners=True).clamp(
        0, 1
    )
    with torch.no_grad():
        made = network.reconstruct(module, picture)
    target = functional.interpolate(picture, made.shape[2:], mode="bicubic")
    return float(torch.corrcoef(torch.stack([made.flatten(), target.flatten()]))[0, 1])


def resize_shorter_side(image: Pillow.Image, side: int) -> Tensor:
    """Resize an image with Pillow's bilinear filter, as torchvision's Resize does.

    Args:
        image: RGB.
        side: Length of the shorter side in pixels.

    Returns:
        Float (1, 3, H, W) in 0..1.
    """
    width, height = image.size
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    pixels = np.array(image.resize(size, Pillow.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def deepaugment(roots: tuple[str, ...] = (), combine: str = "concat") -> Technique:
    """Build DeepAugment: training on the original images and on folders of changed ones.

    Args:
        roots: Folders of changed images, relative to the working directory.
        combine: ``concat`` or ``choice``; see ``MultiRootDataset.combine``.

    Returns:
        A technique that extends the training set.

    Raises:
        UserError: If there is no root, or ``combine`` is unknown.
    """
    if not roots:
        raise UserError(
            "Expected folders of changed images, as in deepaugment(roots=('EDSR', 'CAE')), but got"
            " none; make them with 'stillrobust techniques deepaugment', or take"
            " noise2net, which needs none"
        )
    lookup("combination", combine, dict.fromkeys(COMBINATIONS))
    return Technique(extend_dataset=partial(_extend, roots=roots, combine=combine))


def _extend(dataset: Dataset, seed: int, roots: tuple[str, ...], combine: str) -> Dataset:
    return MultiRootDataset(dataset, roots, combine, seed)


DEEPAUGMENT = TechniqueEntry(deepaugment, CARD)
