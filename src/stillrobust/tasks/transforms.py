"""Transforms of an image together with its ground truth, for training and test.

Images are uint8 RGB (H, W, 3), and every draw comes from ``rng``. Dense tasks resize with OpenCV's
bilinear kernel in 8 bits, as mmcv does, which does not smooth an image that shrinks. Classification
resizes with Pillow, as torchvision does, which smooths.
"""

from dataclasses import replace
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image as PillowImage

from stillrobust.samples import IGNORE, Array, Image, Sample

Interpolation = Literal["bilinear", "bicubic"]
Window = tuple[int, int, int, int]
"""(top, left, height, width) in pixels."""

# ---- geometry


def random_flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror left and right with probability one half, the target included."""
    if rng.random() < 0.5:
        return sample
    target, width = sample.target, sample.target.size[1]
    boxes = target.boxes
    if boxes is not None:
        boxes = np.stack(
            [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1
        )
    mirrored = replace(
        target,
        boxes=boxes,
        masks=None if target.masks is None else target.masks[:, :, ::-1],
        label_map=None if target.label_map is None else target.label_map[:, ::-1],
    )
    return Sample(np.ascontiguousarray(sample.image[:, ::-1]), mirrored)


def rescaled_size(size: tuple[int, ...], long: float, short: float) -> tuple[int, int]:
    """The largest size of the same ratio whose sides keep within bounds (mmcv's rescale_size).

    Args:
        size: (H, W) of the image.
        long: Bound of the longer side.
        short: Bound of the shorter side.

    Returns:
        (H, W).
    """
    factor = min(long / max(size[:2]), short / min(size[:2]))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def resize_image(image: Image, height: int, width: int) -> Image:
    """Resize an image (h, w, 3) bilinearly to (height, width, 3)."""
    if image.shape[:2] == (height, width):
        return image
    resized: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def resize_labels(labels: Array, height: int, width: int) -> Array:
    """Resize integer labels (h, w) to (height, width), by the nearest pixel."""
    resized: Array = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return resized


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Resize a sample to (H, W) ``size``, the target included."""
    target = sample.target
    if target.size == size:
        return sample
    down, right = size[0] / target.size[0], size[1] / target.size[1]
    boxes = target.boxes
    # clipped as in mmdetection: a product of floats can exceed the border by its last bit
    if boxes is not None:
        borders = np.array([size[1], size[0]] * 2, np.float32)
        boxes = np.clip(boxes * np.array([right, down] * 2, np.float32), 0, borders)
    masks = target.masks
    if masks is not None:
        grown = [resize_labels(mask.astype(np.uint8), *size).astype(bool) for mask in masks]
        masks = np.stack(grown) if grown else np.zeros((0, *size), bool)
    resized = replace(
        target,
        size=size,
        boxes=boxes,
        masks=masks,
        areas=None if target.areas is None else target.areas * (down * right),
        label_map=None if target.label_map is None else resize_labels(target.label_map, *size),
    )
    return Sample(resize_image(sample.image, *size), resized)


def crop(sample: Sample, window: Window) -> Sample:
    """Crop a sample to a window.

    Boxes are clipped, and objects without a box or mask inside the window are dropped.

    Args:
        sample: The sample.
        window: (top, left, height, width) in pixels.
    """
    top, left, height, width = window
    rows, columns = slice(top, top + height), slice(left, left + width)
    target = replace(sample.target, size=(height, width))
    if target.label_map is not None:
        target = replace(target, label_map=target.label_map[rows, columns])
    if target.boxes is not None:
        boxes = np.clip(
            target.boxes - np.array([left, top] * 2, np.float32),
            0,
            np.array([width, height] * 2, np.float32),
        )
        kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        masks = target.masks
        if masks is not None:
            masks = masks[:, rows, columns]
            kept &= masks.any(axis=(1, 2))
        target = replace(target, boxes=boxes, masks=masks)
        lists = {
            name: getattr(target, name) for name in ("boxes", "masks", "labels", "crowd", "areas")
        }
        left_over: dict[str, Any] = {
            name: None if value is None else value[kept] for name, value in lists.items()
        }
        target = replace(target, **left_over)
    return Sample(np.ascontiguousarray(sample.image[rows, columns]), target)


def random_varied_crop(
    sample: Sample, size: tuple[int, int], highest_share: float, rng: np.random.Generator
) -> Sample:
    """Crop randomly, and draw again up to ten times while one class dominates.

    mmsegmentation's RandomCrop(cat_max_ratio): ignored pixels do not count, and a crop needs more
    than one class.

    Args:
        sample: A sample with a label map.
        size: (H, W) of the crop; a smaller image is cropped to its own size.
        highest_share: Highest share of one class, 0 to 1; above 1 any crop with two classes is
            accepted.
        rng: Source of all draws.
    """
    label_map = sample.target.label_map
    assert label_map is not None
    height, width = (min(side, want) for side, want in zip(sample.target.size, size, strict=True))

    def draw_window() -> Window:
        spare = sample.target.size[0] - height, sample.target.size[1] - width
        return int(rng.integers(spare[0] + 1)), int(rng.integers(spare[1] + 1)), height, width

    window = draw_window()
    for _ in range(10):
        top, left = window[:2]
        counts = np.bincount(
            label_map[top : top + height, left : left + width].ravel(), minlength=IGNORE + 1
        )[:IGNORE]
        if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < highest_share:
            break
        window = draw_window()
    return crop(sample, window)


# ---- colour

# mmsegmentation's PhotoMetricDistortion
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32, (0.5, 1.5), (0.5, 1.5), 18


def photometric_distortion(image: Image, rng: np.random.Generator) -> Image:
    """Distort colours as mmsegmentation's PhotoMetricDistortion.

    Each change has probability one half. Brightness varies by up to 32 grey levels, contrast and
    saturation by a factor of 0.5 to 1.5, hue by up to 18 of OpenCV's 180. Contrast comes before or
    after the colours.

    Args:
        image: uint8 (H, W, 3).
        rng: Source of all draws.

    Returns:
        uint8 (H, W, 3).
    """
    if rng.random() < 0.5:
        image = _convert(image, 1, rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_first = rng.random() < 0.5
    if contrast_first and rng.random() < 0.5:
        image = _convert(image, rng.uniform(*CONTRAST), 0)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = _convert(hsv[..., 1], rng.uniform(*SATURATION), 0)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(-HUE, HUE))) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not contrast_first and rng.random() < 0.5:
        image = _convert(image, rng.uniform(*CONTRAST), 0)
    return image


def _convert(values: Array, factor: float, offset: float) -> Array:
    """uint8 -> uint8, clipped to 0..255 and truncated, as mmsegmentation does."""
    converted: Array = values.astype(np.float32) * np.float32(factor) + np.float32(offset)
    return converted.clip(0, 255).astype(np.uint8)


# ---- classification


def resample(image: Image, height: int, width: int, how: str = "bilinear") -> Image:
    """Resize an image to (height, width) with Pillow, which smooths an image that shrinks."""
    if image.shape[:2] == (height, width):
        return image
    method = {
        "bilinear": PillowImage.Resampling.BILINEAR,
        "bicubic": PillowImage.Resampling.BICUBIC,
    }[how]
    return np.array(PillowImage.fromarray(image).resize((width, height), method))


def random_resized_crop(
    image: Image,
    size: int,
    scale: tuple[float, float],
    rng: np.random.Generator,
    how: str = "bilinear",
) -> Image:
    """Crop a random area of random shape, and resize it to a square (Szegedy et al. 2015).

    Args:
        image: uint8 (H, W, 3).
        size: Side of the square, in pixels.
        scale: Range of the area, as fractions of the image. The ratio is 3:4 to 4:3.
        rng: Source of all draws.
        how: ``bilinear`` or ``bicubic``.

    Returns:
        uint8 (size, size, 3).
    """
    height, width = image.shape[:2]
    for _ in range(10):  # torchvision tries ten times, then takes the middle
        area = height * width * rng.uniform(*scale)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        h, w = round(float(np.sqrt(area / ratio))), round(float(np.sqrt(area * ratio)))
        if 0 < h <= height and 0 < w <= width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return resample(image[top : top + h, left : left + w], size, size, how)
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    top, left = (height - h) // 2, (width - w) // 2
    return resample(image[top : top + h, left : left + w], size, size, how)


def center_crop(image: Image, side: int, size: int, how: str = "bilinear") -> Image:
    """Resize the shorter side, then crop the center: the ImageNet test transform.

    An image of the crop's size is returned as it is: ImageNet's data are corrupted, and therefore
    read, at this size.

    Args:
        image: uint8 (H, W, 3).
        side: Shorter side after resizing, in pixels.
        size: Side of the crop, in pixels.
        how: ``bilinear`` or ``bicubic``.

    Returns:
        uint8 (size, size, 3).
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    shorter = min(height, width)
    # torchvision's Resize truncates the longer side; CenterCrop rounds its position to even
    grown = resample(image, int(side * height / shorter), int(side * width / shorter), how)
    top, left = round((grown.shape[0] - size) / 2), round((grown.shape[1] - size) / 2)
    return np.ascontiguousarray(grown[top : top + size, left : left + size])
