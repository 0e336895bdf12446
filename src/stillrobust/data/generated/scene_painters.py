"""Painters of things and backgrounds, drawn by program or taken from folders.

A painter receives the random generator, a label and the size of the scene. For a thing it returns
colours, float32 (size, size, 3), and coverage, float32 (size, size) from 0 to 1. For a background
it returns float32 (size, size, 3).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from stillrobust.data.generated.scene_shapes import SCENE_SHAPES, Part
from stillrobust.data.generated.scene_textures import (
    STUFF,
    random_crop,
    random_fill,
    random_stuff,
    with_shorter_side,
)
from stillrobust.data.image_headers import IMAGE_KINDS
from stillrobust.data.reading import image_files, read_image, read_image_bytes, subfolders
from stillrobust.errors import UserError
from stillrobust.samples import IGNORE, Array

SUBPIXEL_BITS = 4  # polygon corners are rounded to 1/16 pixel


@dataclass(frozen=True)
class Place:
    """Centre and extent of an object, in pixels."""

    x: float
    y: float
    extent: float


ThingPainter = Callable[[Generator, int, Place, int], tuple[Array, Array]]
StuffPainter = Callable[[Generator, int, int], Array]


@dataclass(frozen=True)
class World:
    """The classes of a family of scenes, and their painters."""

    things: tuple[str, ...]
    stuff: tuple[str, ...]
    paint_thing: ThingPainter
    paint_stuff: StuffPainter

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the label maps: things first, then stuff."""
        return self.things + self.stuff


def build_world(thing_folder: Path | None = None, background_folder: Path | None = None) -> World:
    """Build a world of drawn or photographed things and backgrounds.

    Args:
        thing_folder: Cut-outs with an alpha channel, ``<class>/*.png``. Default: drawn things.
        background_folder: Photographs of materials, ``<class>/*``, or of one class, ``*``.
            Default: drawn materials.

    Returns:
        The world.

    Raises:
        UserError: If a folder is empty, a name is in both folders, or there are too many classes.
    """
    things, paint_thing = (
        (tuple(SCENE_SHAPES), paint_drawn_thing)
        if thing_folder is None
        else cutout_things(thing_folder)
    )
    stuff, paint_stuff = (
        (STUFF, paint_drawn_stuff) if background_folder is None else photo_stuff(background_folder)
    )
    shared = set(things) & set(stuff)
    if shared:
        raise UserError(
            f"Expected different names for things and backgrounds, but both have {sorted(shared)};"
            " rename one"
        )
    if len(things) + len(stuff) > IGNORE:
        raise UserError(
            f"Expected at most {IGNORE} classes, but got {len(things) + len(stuff)}; use fewer"
            " folders"
        )
    return World(things, stuff, paint_thing, paint_stuff)


def paint_drawn_stuff(rng: Generator, label: int, size: int) -> Array:
    """Paint one of the six built-in materials."""
    return random_stuff(rng, STUFF[label], size)


def paint_drawn_thing(
    rng: Generator,
    label: int,
    place: Place,
    size: int,
    things: Mapping[str, Callable[[Generator], list[Part]]] = SCENE_SHAPES,
) -> tuple[Array, Array]:
    """Paint a built-in thing: mirrored, tilted, sheared and stretched at random, and shaded."""
    colours, coverage = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    transform = random_transform(rng)
    fills = [random_fill(rng, size) for _ in range(3)]
    columns = np.arange(size, dtype=np.float32)
    shading = (1 + 0.25 * np.clip((columns - place.x) / place.extent, -1, 1))[None, :, None]
    for outline, fill in list(things.values())[label](rng):
        corners = outline @ transform.T * (place.extent / 2) + (place.x, place.y)
        part = np.zeros((size, size), np.uint8)
        fixed = np.round(corners * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(part, [fixed], (255,), cv2.LINE_AA, SUBPIXEL_BITS)
        weight = part.astype(np.float32) / 255
        colours += (np.clip(fills[fill] * shading, 0, 255) - colours) * weight[..., None]
        coverage = np.maximum(coverage, weight)
    return colours, coverage


def random_transform(rng: Generator) -> Array:
    """A random matrix, float64 (2, 2): mirror and stretch, then shear, then tilt."""
    mirror = -1 if rng.random() < 0.5 else 1
    tilt, stretch, shear = rng.normal(0, 0.22), rng.uniform(0.85, 1.15), rng.normal(0, 0.1)
    rotation = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    return np.asarray(rotation @ np.array([[1, shear], [0, 1]]) @ np.diag([mirror * stretch, 1.0]))


def cutout_things(folder: Path) -> tuple[tuple[str, ...], ThingPainter]:
    """Class names and a painter for ``folder/<class>/*.png``, cut-outs with an alpha channel."""
    names = tuple(subfolders(folder))
    files = [
        [path for path in image_files(folder / name) if path.suffix.lower() == ".png"]
        for name in names
    ]
    if not names or not all(files):
        raise UserError(
            f"Expected class folders with RGBA PNG cut-outs in {folder}, but one is empty or there"
            " is none; add some"
        )
    return names, partial(paint_cutout, files)


def paint_cutout(
    files: list[list[Path]], rng: Generator, label: int, place: Place, size: int
) -> tuple[Array, Array]:
    """Paint a cut-out, mirrored and tilted at random; its longer side is the place's extent."""
    choices = files[label]
    picture = read_cutout(choices[rng.integers(len(choices))])
    height, width = picture.shape[:2]
    scale = place.extent / max(height, width)
    mirror, tilt = (-1 if rng.random() < 0.5 else 1), rng.normal(0, 0.22)
    turned = (
        scale
        * np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        @ np.diag([mirror, 1.0])
    )
    if scale < 1:  # a linear warp reads four pixels only, so shrinking would alias
        picture = np.asarray(
            cv2.GaussianBlur(picture, (0, 0), max(0.01, 0.5 * (1 / scale - 1) + 0.01))
        )
    offset = np.array([place.x, place.y]) - turned @ np.array([width / 2, height / 2])
    warped = cv2.warpAffine(
        picture, np.column_stack([turned, offset]), (size, size), flags=cv2.INTER_LINEAR
    )
    coverage = warped[..., 3]
    return np.asarray(warped[..., :3] / np.maximum(coverage, 1e-3)[..., None]), np.asarray(coverage)


def read_cutout(path: Path) -> Array:
    """Read the visible part of a cut-out: float32 (H, W, 4), RGB times alpha, and alpha 0 to 1."""
    content = np.frombuffer(read_image_bytes(path), np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
        raise UserError(
            f"Expected an 8-bit PNG with an alpha channel at {path}, but it is none; export it as"
            " RGBA"
        )
    rows, columns = np.nonzero(picture[..., 3] > 127)
    if not rows.size:
        raise UserError(
            f"Expected a visible object in {path}, but its alpha channel is empty; replace the file"
        )
    picture = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    alpha = picture[..., 3:].astype(np.float32) / 255
    # One transparent pixel around it, so that the edge fades when it is rotated.
    premultiplied = np.concatenate([picture[..., 2::-1] * alpha, alpha], axis=2)
    return np.pad(premultiplied, ((1, 1), (1, 1), (0, 0)))


def photo_stuff(folder: Path) -> tuple[tuple[str, ...], StuffPainter]:
    """Class names and a painter for photographs in ``folder/<class>/``, or in ``folder``."""
    names = tuple(subfolders(folder)) or ("background",)
    files = (
        [image_files(folder / name if names != ("background",) else folder) for name in names]
        if folder.is_dir()
        else []
    )
    if not files or not all(files):
        raise UserError(
            f"Expected {IMAGE_KINDS} photographs in {folder}, but a folder is empty or missing; add"
            " some"
        )
    return names, partial(paint_photo, files)


def paint_photo(files: list[list[Path]], rng: Generator, label: int, size: int) -> Array:
    """Paint a square crop of a photograph of the class."""
    choices = files[label]
    photo = with_shorter_side(read_image(choices[rng.integers(len(choices))]), 2 * size)
    return random_crop(rng, photo, size).astype(np.float32)
