"""Augmentation in training, on an image together with its ground truth.

Every draw comes from ``rng``.

Images are uint8 RGB. Dense tasks resize by OpenCV's bilinear kernel in 8 bits, as mmcv does,
without smoothing where an image shrinks; classification by Pillow's, which smooths, as
torchvision's transforms do.
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


def flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror left and right with probability one half; boxes, masks and label map follow."""
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


def fitted(size: tuple[int, ...], long: float, short: float) -> tuple[int, int]:
    """(H, W) after scaling with the ratio kept, so that neither side exceeds its bound (mmcv's
    rescale_size).
    """
    factor = min(long / max(size[:2]), short / min(size[:2]))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def resize_image(image: Image, height: int, width: int) -> Image:
    """Bilinear."""
    if image.shape[:2] == (height, width):
        return image
    resized: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def resize_labels(labels: Array, height: int, width: int) -> Array:
    """Nearest, for label maps (H, W) of integers."""
    resized: Array = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return resized


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample at (H, W) ``size``; boxes, masks and label map follow."""
    target = sample.target
    if target.size == size:
        return sample
    down, right = size[0] / target.size[0], size[1] / target.size[1]
    boxes = target.boxes
    # clipped, as mmdetection does: a product in floats can pass the border by its last bit
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
    """What is inside the window.

    Boxes are clipped, objects of which neither a box nor a mask is left are dropped.
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


def varied_crop(
    sample: Sample, size: tuple[int, int], highest_share: float, rng: np.random.Generator
) -> Sample:
    """A random crop of at most (H, W) ``size``, drawn anew up to ten times while one class fills
    ``highest_share`` of it.

    mmsegmentation's RandomCrop(cat_max_ratio): ignored pixels do not count, and more than one class
    has to be there.
    """
    label_map = sample.target.label_map
    assert label_map is not None
    height, width = (min(side, want) for side, want in zip(sample.target.size, size, strict=True))

    def drawn() -> Window:
        spare = sample.target.size[0] - height, sample.target.size[1] - width
        return int(rng.integers(spare[0] + 1)), int(rng.integers(spare[1] + 1)), height, width

    window = drawn()
    for _ in range(10):
        top, left = window[:2]
        counts = np.bincount(
            label_map[top : top + height, left : left + width].ravel(), minlength=IGNORE + 1
        )[:IGNORE]
        if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < highest_share:
            break
        window = drawn()
    return crop(sample, window)


# ---- colour

# mmsegmentation's PhotoMetricDistortion
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32, (0.5, 1.5), (0.5, 1.5), 18


def distort(image: Image, rng: np.random.Generator) -> Image:
    """mmsegmentation's PhotoMetricDistortion: each with probability one half, contrast before or
    after the colours.

    Brightness by up to 32 grey levels, contrast and saturation by a factor of 0.5 to 1.5, hue by up
    to 18 of OpenCV's 180.
    """
    if rng.random() < 0.5:
        image = _converted(image, 1, rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_first = rng.random() < 0.5
    if contrast_first and rng.random() < 0.5:
        image = _converted(image, rng.uniform(*CONTRAST), 0)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = _converted(hsv[..., 1], rng.uniform(*SATURATION), 0)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(-HUE, HUE))) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not contrast_first and rng.random() < 0.5:
        image = _converted(image, rng.uniform(*CONTRAST), 0)
    return image


def _converted(values: Array, factor: float, offset: float) -> Array:
    """uint8 -> uint8, cut to 0..255 and then to whole numbers, as mmsegmentation does."""
    converted: Array = values.astype(np.float32) * np.float32(factor) + np.float32(offset)
    return converted.clip(0, 255).astype(np.uint8)


# ---- classification


def resample(image: Image, height: int, width: int, how: str = "bilinear") -> Image:
    """Pillow's resize, which averages over all pixels where an image shrinks."""
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
    """Szegedy et al. 2015: a crop of random area (``scale``, fractions) and shape (3:4 to 4:3),
    resized to a square.
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
    """Shorter side to ``side`` pixels, then the middle ``size`` × ``size``: the ImageNet test
    transform.

    An image of the crop's size stays as it is: ImageNet's data come so, because they are corrupted
    at that size.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    shorter = min(height, width)
    # torchvision's Resize: the longer side is cut to a whole number; CenterCrop rounds its place to
    # even.
    grown = resample(image, int(side * height / shorter), int(side * width / shorter), how)
    top, left = round((grown.shape[0] - size) / 2), round((grown.shape[1] - size) / 2)
    return np.ascontiguousarray(grown[top : top + size, left : left + size])
