"""Geometric augmentation in training, on an image together with its ground truth. Every draw comes from ``rng``."""

from dataclasses import replace

import cv2
import numpy as np

from stillrobust.samples import IGNORE, Image, Sample, Target


def flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror left and right with probability one half; boxes, masks and label map follow."""
    if rng.random() < 0.5:
        return sample
    target, width = sample.target, sample.target.size[1]
    boxes = target.boxes
    if boxes is not None:
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    mirrored = replace(
        target,
        boxes=boxes,
        masks=None if target.masks is None else target.masks[:, :, ::-1],
        label_map=None if target.label_map is None else target.label_map[:, ::-1],
    )
    return Sample(np.ascontiguousarray(sample.image[:, ::-1]), mirrored)


def resize_image(image: Image, height: int, width: int) -> Image:
    """Bilinear where it grows, area average where it shrinks (bilinear alone would alias)."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    resized: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized


def random_resized_crop(image: Image, size: int, scale: tuple[float, float], rng: np.random.Generator) -> Image:
    """Szegedy et al. 2015: a crop of random area (``scale``, fractions) and shape (3:4 to 4:3), resized to a square."""
    height, width = image.shape[:2]
    for _ in range(10):  # torchvision tries ten times, then takes the whole image
        area = height * width * rng.uniform(*scale)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        h, w = round(float(np.sqrt(area / ratio))), round(float(np.sqrt(area * ratio)))
        if 0 < h <= height and 0 < w <= width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return resize_image(image[top : top + h, left : left + w], size, size)
    return resize_image(image, size, size)


def centre_crop(image: Image, resize: int, crop: int) -> Image:
    """Shorter side to ``resize`` pixels, then the middle ``crop`` × ``crop``: the ImageNet test transform.

    An image of ``crop`` × ``crop`` pixels stays as it is: ImageNet's data come so, because they are corrupted at that size.
    """
    height, width = image.shape[:2]
    if height == width == crop:
        return image
    factor = resize / min(height, width)
    image = resize_image(image, max(round(height * factor), crop), max(round(width * factor), crop))
    top, left = (image.shape[0] - crop) // 2, (image.shape[1] - crop) // 2
    return np.ascontiguousarray(image[top : top + crop, left : left + crop])


def scale_and_crop(sample: Sample, crop: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator) -> Sample:
    """Scale jitter, then a random crop of (H, W) ``crop`` pixels, padded with 0 and ``IGNORE`` where it is smaller."""
    label_map = sample.target.label_map
    assert label_map is not None
    factor = rng.uniform(*scale)
    height, width = (max(1, round(side * factor)) for side in sample.target.size)
    image = resize_image(sample.image, height, width)
    labels = cv2.resize(label_map, (width, height), interpolation=cv2.INTER_NEAREST)
    top, left = (int(rng.integers(max(side - want, 0) + 1)) for side, want in zip((height, width), crop, strict=True))
    image, labels = (array[top : top + crop[0], left : left + crop[1]] for array in (image, labels))
    below, right = crop[0] - image.shape[0], crop[1] - image.shape[1]
    image = np.pad(image, ((0, below), (0, right), (0, 0)))
    labels = np.pad(labels, ((0, below), (0, right)), constant_values=IGNORE)
    return Sample(image, Target(image_id=sample.target.image_id, size=crop, label_map=labels))
