"""Generated scenes: image, instances and label map.

Things stand on one or two background materials, overlap a little and have soft shadows. Brightness
changes and sensor noise are added. A scene depends on its random generator only.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from stillrobust.data.generated.scene_painters import Place, World
from stillrobust.data.generated.scene_textures import cloud_noise, pixel_coordinates
from stillrobust.samples import Array, Image, Sample, Target

# Visible pixels (at 128x128) below which an object is not annotated, because it is unrecognisable.
SMALLEST = 40
MOST_OBJECTS = 4
ATTEMPTS = 12  # places that are tried before an object is left out


@dataclass(frozen=True)
class Scene:
    """A drawn scene with its ground truth.

    Attributes:
        image: uint8 (S, S, 3) RGB.
        labels: int64 (N,), class of each instance, from 0.
        masks: bool (N, S, S), visible pixels; masks do not overlap.
        label_map: uint8 (S, S): things first, then background materials.
    """

    image: Image
    labels: Array
    masks: Array
    label_map: Array

    def boxes(self) -> Array:
        """float32 (N, 4) xyxy, tight around the masks."""
        return np.array([tight_box(mask) for mask in self.masks], np.float32).reshape(-1, 4)

    def detection(self, image_id: str) -> Sample:
        """The scene as a sample for detection and instance segmentation."""
        target = Target(
            image_id=image_id,
            size=(self.image.shape[0], self.image.shape[1]),
            boxes=self.boxes(),
            labels=self.labels,
            masks=self.masks,
            crowd=np.zeros(len(self.labels), bool),
            areas=self.masks.sum(axis=(1, 2)).astype(np.float64),
        )
        return Sample(self.image, target)


def tight_box(mask: Array) -> tuple[int, int, int, int]:
    """The box around a mask's pixels, right and bottom exclusive."""
    columns, rows = np.nonzero(mask.any(axis=0))[0], np.nonzero(mask.any(axis=1))[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def draw_scene(rng: Generator, world: World, size: int) -> Scene:
    """Draw one to four things on one or two backgrounds."""
    canvas, label_map = draw_background(rng, world, size, most=2)
    placed: list[Place] = []
    labels: list[int] = []
    masks: list[Array] = []
    for _ in range(rng.integers(1, MOST_OBJECTS + 1)):
        label = int(rng.integers(len(world.things)))
        place = free_place(rng, placed, size)
        if place is None:
            continue
        canvas, visible = put_thing(rng, world, label, place, canvas)
        for mask in masks:
            mask &= ~visible
        label_map[visible] = label
        placed.append(place)
        labels.append(label)
        masks.append(visible)
    # Slivers stay in the label map but are not instances.
    kept = [
        number for number, mask in enumerate(masks) if mask.sum() >= SMALLEST * (size / 128) ** 2
    ]
    chosen = (
        np.stack([masks[number] for number in kept]) if kept else np.zeros((0, size, size), bool)
    )
    return Scene(
        finish(rng, canvas),
        np.array([labels[number] for number in kept], np.int64),
        chosen,
        label_map,
    )


def draw_crop(rng: Generator, world: World, label: int, size: int) -> Image:
    """Draw an image to classify: one thing that nearly fills it, over one background."""
    canvas, _ = draw_background(rng, world, size, most=1)
    extent = rng.uniform(0.65, 0.9) * size
    x, y = rng.uniform(0.4, 0.6, 2) * size
    canvas, _ = put_thing(rng, world, label, Place(x, y, extent), canvas)
    return finish(rng, canvas)


def draw_background(rng: Generator, world: World, size: int, most: int) -> tuple[Array, Array]:
    """Draw one material, or two along a wavy border: float32 (size, size, 3) and label map."""
    many = min(int(rng.integers(1, most + 1)), len(world.stuff))
    chosen = rng.choice(len(world.stuff), many, replace=False)
    canvas = world.paint_stuff(rng, int(chosen[0]), size)
    label_map = np.full((size, size), len(world.things) + chosen[0], np.uint8)
    if many == 1:
        return canvas, label_map
    rows, columns = pixel_coordinates(size)
    upright = rng.random() >= 0.7  # most borders are level, like a horizon
    angle = rng.normal(0, 0.5) + (np.pi / 2 if upright else 0)
    distance = (rows - size / 2) * np.cos(angle) + (columns - size / 2) * np.sin(angle)
    distance += (cloud_noise(rng, size, size / 2) - 0.5) * 0.3 * size + rng.normal(0, size / 8)
    weight = 1 / (1 + np.exp(-np.clip(distance, -20, 20) * 1.5))
    second = world.paint_stuff(rng, int(chosen[1]), size)
    label_map[distance > 0] = len(world.things) + chosen[1]
    return canvas + (second - canvas) * weight[..., None].astype(np.float32), label_map


def free_place(rng: Generator, placed: list[Place], size: int) -> Place | None:
    """A place with little overlap with the others, or ``None`` if none was found."""
    for _ in range(ATTEMPTS):
        extent = rng.uniform(0.3, 0.65) * size
        x, y = rng.uniform(0.4 * extent, size - 0.4 * extent, 2)
        if all(
            max(abs(x - other.x), abs(y - other.y)) > 0.42 * (extent + other.extent)
            for other in placed
        ):
            return Place(x, y, extent)
    return None


def put_thing(
    rng: Generator, world: World, label: int, place: Place, canvas: Array
) -> tuple[Array, Array]:
    """Paint a thing, often with a soft shadow.

    Returns:
        The new canvas, float32 (S, S, 3), and the covered pixels, bool (S, S).
    """
    colours, coverage = world.paint_thing(rng, label, place, len(canvas))
    if rng.random() < 0.6:
        shift = int(0.06 * place.extent)
        # Padded and not rolled, so that the shadow does not reappear on the opposite side.
        moved = np.pad(coverage, ((shift, 0), (shift, 0)))[: len(canvas), : len(canvas)]
        shadow = cv2.GaussianBlur(moved, (0, 0), 0.04 * place.extent + 0.5)
        canvas = canvas * (1 - 0.35 * shadow[..., None])
    return canvas + (colours - canvas) * coverage[..., None], coverage > 0.5


def finish(rng: Generator, canvas: Array) -> Image:
    """Change the brightness, add sensor noise and convert to uint8."""
    noise = rng.standard_normal(canvas.shape, np.float32) * 2
    return np.clip(canvas * rng.uniform(0.8, 1.1) + noise, 0, 255).astype(np.uint8)
