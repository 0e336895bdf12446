"""AugMix: chains of simple operations, mixed with each other and with the image.

Hendrycks et al. 2020 (ICLR). Formulas and numbers are those of google-research/augmix
(augmentations.py, imagenet.py). Mixing is in float, and the result is not rounded to 8 bits.
Operations that depend on pixel values alone are tables of 256 entries, bit-equal to Pillow's.
Rotation and shear call Pillow, because OpenCV rounds where Pillow's bilinear sampling truncates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageEnhance

from stillrobust.robustify.jsd import jsd_loss
from stillrobust.robustify.technique import (
    ENHANCEMENT_OVERLAPS,
    Card,
    Technique,
    TechniqueEntry,
    cross_entropy,
    require_between,
    require_eight_bit,
)
from stillrobust.samples import Array, Image


def _overlaps(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(ENHANCEMENT_OVERLAPS.values()) if arguments["all_ops"] else ()


CARD = Card(
    name="augmix",
    title="AugMix with the Jensen-Shannon consistency loss",
    paper=(
        "Hendrycks et al. 2020, AugMix: A simple data processing method to improve robustness and"
        " uncertainty (ICLR)"
    ),
    code="google-research/augmix 9b9824c (Apache-2.0)",
    parameters={
        "severity": "highest level of an operation, 0.1 to 10; imagenet.py has 1, cifar.py 3",
        "width": (
            "chains of operations; 3 in both. The checkpoint of 180 epochs had another; easyrobust"
            " reproduces it with 5"
        ),
        "depth": "operations in a chain; None, as in both, draws 1 to 3",
        "alpha": "of the Dirichlet and Beta distributions that weigh the chains; 1 in both",
        "fill": (
            "grey, 0 to 255, that comes in from outside; 0 in both, 128 for the published"
            " checkpoint (the authors, augmix #3)"
        ),
        "all_ops": (
            "also colour, contrast, brightness and sharpness, which overlap the test; False in both"
        ),
        "geometry": (
            "also rotation, shear and translation; False, which is no setting of the paper, fits"
            " dense tasks"
        ),
        "jsd": (
            "the consistency loss over the clean image and two views, weight 12; False is"
            " cross-entropy on one view"
        ),
    },
    left_out=(),
    cost="3.0, one forward of three views; each view takes a loader's core 2.4 ms at 224x224",
    published=(
        "ResNet-50, 180 epochs from scratch: clean 77.5 %, ImageNet-C 49.3 % (RobustBench), mCE"
        " 65.3"
    ),
    overlaps_for=_overlaps,
)

Random = np.random.Generator
LEVELS = 10  # augmentations.py's PARAMETER_MAX: the level at which an operation is at its strongest
LOWEST = 0.1  # levels are drawn from here up to the severity
DEEPEST = 3  # operations in a chain, where the depth is drawn
MOST = 100  # chains, or operations in one: far above what anyone has tried
VALUES = np.arange(256)


@dataclass(frozen=True)
class Step:
    """An operation as drawn: its name, its level in LOWEST..severity, and a sign."""

    name: str
    level: float
    sign: int


@dataclass(frozen=True)
class Mixture:
    """All random choices for one view."""

    chains: tuple[tuple[Step, ...], ...]
    weights: npt.NDArray[np.float64]
    """(width,), from a Dirichlet distribution: weights of the chains, of sum 1."""
    mixed: float
    """From a Beta distribution: the weight of all chains. The clean image has the rest."""


def draw_mixture(
    rng: Random,
    names: tuple[str, ...],
    severity: float,
    width: int,
    depth: int | None,
    alpha: float,
) -> Mixture:
    """Draw the chains of a view and their weights.

    Operations are drawn with replacement, and each has a level of its own.

    Args:
        rng: Source of all random draws.
        names: Operations to draw from.
        severity: Highest level.
        width: Number of chains.
        depth: Operations in a chain, or ``None`` to draw 1 to DEEPEST for each.
        alpha: Parameter of the Dirichlet and Beta distributions of the weights.
    """
    weights, mixed = rng.dirichlet([alpha] * width), rng.beta(alpha, alpha)
    lengths = [depth or int(rng.integers(1, DEEPEST + 1)) for _ in range(width)]
    chains = tuple(
        tuple(draw_step(rng, names, severity) for _ in range(length)) for length in lengths
    )
    return Mixture(chains, weights, float(mixed))


def draw_step(rng: Random, names: tuple[str, ...], severity: float) -> Step:
    """Draw an operation, its level and its sign.

    Args:
        rng: Source of all random draws.
        names: Operations to draw from, with equal probabilities.
        severity: Highest level.
    """
    return Step(
        names[rng.integers(len(names))],
        float(rng.uniform(LOWEST, severity)),
        1 if rng.random() < 0.5 else -1,
    )


def mix(image: Image, mixture: Mixture, fill: int = 0) -> npt.NDArray[np.float32]:
    """Apply the chains of a mixture and mix their results with the image.

    Args:
        image: uint8 (H, W, 3) RGB.
        mixture: The chains and their weights.
        fill: Grey in 0..255 where pixels are moved in from outside.

    Returns:
        float32 (H, W, 3) in 0..1.
    """
    result = np.multiply(image, np.float32((1 - mixture.mixed) / 255), dtype=np.float32)
    for weight, chain in zip(mixture.weights, mixture.chains, strict=True):
        changed = image
        for step in chain:
            changed = OPERATIONS[step.name](changed, step, fill)
        result += np.multiply(changed, np.float32(mixture.mixed * weight / 255), dtype=np.float32)
    return result


def int_parameter(step: Step, strongest: float) -> int:
    """Return a whole parameter that grows with the level: int_parameter of augmentations.py.

    Args:
        step: The operation as drawn.
        strongest: The parameter at the highest level.
    """
    return int(step.level * strongest / LEVELS)


def apply_tables(image: Image, tables: Array) -> Image:
    """Map every value through a table.

    Args:
        image: uint8 (H, W, 3).
        tables: (256,) for all channels, or (256, 3) with one for each.
    """
    return np.asarray(
        cv2.LUT(image, np.clip(tables, 0, 255).astype(np.uint8).reshape(1, 256, -1)), np.uint8
    )


def autocontrast(image: Image, step: Step, fill: int) -> Image:
    """Stretch each channel to 0..255, independent of the level. A constant channel stays."""
    tables = np.empty((256, 3))
    for channel, pixels in enumerate(cv2.split(image)):
        low, high, _, _ = cv2.minMaxLoc(pixels)
        scale = 255 / (high - low) if high > low else 1.0
        # Pillow's order of operations, bit by bit
        tables[:, channel] = VALUES * scale - (low * scale if high > low else 0)
    return apply_tables(image, tables)


def equalize(image: Image, step: Step, fill: int) -> Image:
    """Equalise the histogram of each channel, independent of the level."""
    tables = np.empty((256, 3), np.int64)
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        # Pillow leaves the highest occurring value out of the total, and does not change a channel
        # of too few pixels.
        share = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
        below = counts.cumsum() - counts
        tables[:, channel] = (share // 2 + below) // share if share else VALUES
    return apply_tables(image, tables)


def posterize(image: Image, step: Step, fill: int) -> Image:
    """Keep the 4 highest bits of each value, fewer at higher levels."""
    kept = 4 - int_parameter(step, 4)
    return apply_tables(image, VALUES & ~(2 ** (8 - kept) - 1))


def solarize(image: Image, step: Step, fill: int) -> Image:
    """Invert values from a threshold on."""
    threshold = 256 - int_parameter(step, 256)
    return apply_tables(image, np.where(np.less(VALUES, threshold), VALUES, 255 - VALUES))


def rotate(image: Image, step: Step, fill: int) -> Image:
    """Rotate about the centre by up to 30 whole degrees."""
    degrees = step.sign * int_parameter(step, 30)
    turned = Pillow.fromarray(image).rotate(
        degrees, Pillow.Resampling.BILINEAR, fillcolor=(fill,) * 3
    )
    return np.asarray(turned)


def shear_x(image: Image, step: Step, fill: int) -> Image:
    """Shear rows sideways by up to 0.3 of their distance from the top."""
    return affine_transform(image, (1, shear_slope(step), 0, 0, 1, 0), fill)


def shear_y(image: Image, step: Step, fill: int) -> Image:
    """Shear columns up or down by up to 0.3 of their distance from the left."""
    return affine_transform(image, (1, 0, 0, shear_slope(step), 1, 0), fill)


def shear_slope(step: Step) -> float:
    """Return the slope of a shear, up to 0.3."""
    return step.sign * step.level * 0.3 / LEVELS


def affine_transform(image: Image, matrix: tuple[float, ...], fill: int) -> Image:
    """Sample an image bilinearly at (a x + b y + c, d x + e y + f) for the centres of the pixels.

    Args:
        image: uint8 (H, W, 3).
        matrix: (a, b, c, d, e, f).
        fill: Grey in 0..255 outside the image.
    """
    size = image.shape[1], image.shape[0]
    pixels = Pillow.fromarray(image)
    moved = pixels.transform(
        size, Pillow.Transform.AFFINE, matrix, Pillow.Resampling.BILINEAR, fillcolor=(fill,) * 3
    )
    return np.asarray(moved)


def translate_x(image: Image, step: Step, fill: int) -> Image:
    """Translate sideways by up to a third of the width, in whole pixels."""
    return translate(image, step.sign * int_parameter(step, image.shape[1] / 3), fill)


def translate_y(image: Image, step: Step, fill: int) -> Image:
    """Translate up or down by up to a third of the height, in whole pixels."""
    return translate(
        image.swapaxes(0, 1), step.sign * int_parameter(step, image.shape[0] / 3), fill
    ).swapaxes(0, 1)


def translate(image: Image, pixels: int, fill: int) -> Image:
    """Translate an image: ``result[:, x] = image[:, x + pixels]``.

    Args:
        image: uint8 (H, W, 3).
        pixels: Whole number of pixels.
        fill: Grey in 0..255 outside the image.
    """
    result = np.full_like(image, fill)
    width = image.shape[1]
    result[:, max(-pixels, 0) : width - max(pixels, 0)] = image[
        :, max(pixels, 0) : width - max(-pixels, 0)
    ]
    return result


def enhancement(
    kind: Callable[[Pillow.Image], ImageEnhance._Enhance],
) -> Callable[[Image, Step, int], Image]:
    """Return an operation that applies an enhancement of Pillow by a factor of 0.1 to 1.9.

    Args:
        kind: The enhancement. A factor of 1 changes nothing.
    """

    def enhance(image: Image, step: Step, fill: int) -> Image:
        return np.asarray(kind(Pillow.fromarray(image)).enhance(step.level * 1.8 / LEVELS + 0.1))

    return enhance


OVERLAPPING: dict[str, Callable[[Image, Step, int], Image]] = {
    "color": enhancement(ImageEnhance.Color),
    "contrast": enhancement(ImageEnhance.Contrast),
    "brightness": enhancement(ImageEnhance.Brightness),
    "sharpness": enhancement(ImageEnhance.Sharpness),
}
"""Operations that resemble corruptions of the test. They are used only with ``all_ops``."""

OPERATIONS: dict[str, Callable[[Image, Step, int], Image]] = {
    "autocontrast": autocontrast,
    "equalize": equalize,
    "posterize": posterize,
    "rotate": rotate,
    "solarize": solarize,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    **OVERLAPPING,
}
"""Name -> (uint8 (H, W, 3) RGB, step as drawn, fill) -> image. The paper's nine come first."""

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def augmix(
    severity: float = 1.0,
    width: int = 3,
    depth: int | None = None,
    alpha: float = 1.0,
    fill: int = 0,
    all_ops: bool = False,
    geometry: bool = True,
    jsd: bool = True,
) -> Technique:
    """Build AugMix. ``CARD.parameters`` describes the arguments.

    Returns:
        A technique whose loss takes the clean image and two AugMix views, or one view and cross-
            entropy
        without ``jsd``.

    Raises:
        UserError: If an argument is out of range.
    """
    require_between("a severity", severity, LOWEST, LEVELS)
    require_between("a width", width, 1, MOST)
    require_between("a depth", DEEPEST if depth is None else depth, 1, MOST)
    require_between("alpha", alpha, 1e-3, 1e3)
    require_between("a fill", fill, 0, 255)
    names = allowed_operations(all_ops, geometry)
    draw = partial(
        draw_mixture, names=names, severity=severity, width=width, depth=depth, alpha=alpha
    )
    return Technique(
        augment_image=partial(apply_augmix, draw=draw, fill=fill),
        loss=jsd_loss if jsd else cross_entropy,
        views=3 if jsd else 1,
        geometric=geometry,
    )


def allowed_operations(all_ops: bool, geometry: bool) -> tuple[str, ...]:
    """Return the names of the operations that may be drawn.

    Args:
        all_ops: Whether operations that resemble corruptions of the test are included.
        geometry: Whether operations that move pixels are included.
    """
    return tuple(
        name
        for name in OPERATIONS
        if (all_ops or name not in OVERLAPPING) and (geometry or name not in GEOMETRIC)
    )


def apply_augmix(image: Image, rng: Random, draw: Callable[[Random], Mixture], fill: int) -> Array:
    """Make one AugMix view of an image.

    Args:
        image: uint8 (H, W, 3) RGB.
        rng: Source of all random draws.
        draw: Draws the chains of a view.
        fill: Grey in 0..255 where pixels are moved in from outside.

    Returns:
        float32 (H, W, 3) in 0..1.
    """
    require_eight_bit(image)
    return mix(image, draw(rng), fill)


AUGMIX = TechniqueEntry(augmix, CARD)
