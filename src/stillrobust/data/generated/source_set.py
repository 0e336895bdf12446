"""The generated source set: a miniature substitute for ImageNet, with classes that no scene has.

Each image shows one of twenty drawn things over any texture. Fills do not depend on the class, as
in scenes, so only the shape can be learned. The random streams differ from those of scenes.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator

from stillrobust.data.generated.scene_files import (
    SMALLEST_SIZE,
    SPLITS,
    Progress,
    draw_into_place,
    is_replaceable,
    stored_parameters,
)
from stillrobust.data.generated.scene_painters import World, paint_drawn_thing
from stillrobust.data.generated.scene_textures import (
    STUFF,
    random_fill,
    random_stuff,
    texture_source,
)
from stillrobust.data.generated.scenes import draw_crop
from stillrobust.data.generated.source_shapes import SOURCE_SHAPES
from stillrobust.data.reading import write_image
from stillrobust.errors import UserError
from stillrobust.samples import Array, Image

# Increased whenever the same parameters give other pixels, so that old folders are drawn again.
RECIPE = 1
FIRST_STREAM = 4  # random stream; 0 to 3 belong to scenes and their crops


def paint_any_surface(rng: Generator, label: int, size: int) -> Array:
    """Paint a material or any fill of things. There is one background class only."""
    if rng.random() < 0.5:
        return random_stuff(rng, STUFF[rng.integers(len(STUFF))], size)
    return random_fill(rng, size)


def source_world() -> World:
    """The world of twenty things over any surface."""
    return World(
        tuple(SOURCE_SHAPES),
        ("surface",),
        partial(paint_drawn_thing, things=SOURCE_SHAPES),
        paint_any_surface,
    )


def draw_source(seed: int, split: str, index: int, world: World, size: int) -> Image:
    """Draw image ``index`` of a split, which is of class ``index % 20``.

    Args:
        seed: Seed of the set.
        split: ``train`` or ``val``.
        index: Index of the image.
        world: ``source_world()``.
        size: Height and width in pixels.

    Returns:
        uint8 (size, size, 3) RGB.
    """
    rng = np.random.default_rng([seed, FIRST_STREAM + SPLITS.index(split), index])
    return draw_crop(rng, world, index % len(world.things), size)


def write_source_set(
    root: Path,
    *,
    seed: int = 0,
    train: int = 400,
    val: int = 50,
    size: int = 64,
    progress: Progress | None = None,
) -> Path:
    """Write the source set to ``root/<split>/<class>/``, to be opened as ``folders:ROOT``.

    An existing folder with the same parameters is kept, and one with other parameters is replaced.

    Args:
        root: Folder of the dataset.
        seed: Seed of all random draws.
        train: Training images per class.
        val: Validation images per class.
        size: Height and width of images, in pixels.
        progress: ``progress(done, total)`` is called after every image.

    Returns:
        ``root``.

    Raises:
        UserError: If a parameter is invalid, ``root`` holds other files, or the disk is full.
    """
    if seed < 0 or min(train, val) < 1 or size < SMALLEST_SIZE:
        raise UserError(
            f"Expected a seed from 0, at least one image a class and {SMALLEST_SIZE} pixels, "
            f"but got seed {seed}, {train} and {val} images and {size} pixels"
            "; raise what is too small"
        )
    counts = {"train": train, "val": val}
    parameters = {
        "kind": "source",
        "recipe": RECIPE,
        "seed": seed,
        **counts,
        "size": size,
        "textures": texture_source(),
    }
    if is_replaceable(root) and stored_parameters(root) == parameters:
        return root

    def draw(folder: Path) -> None:
        world, done = source_world(), 0
        for split, count in counts.items():
            for name in world.things:
                (folder / split / name).mkdir(parents=True)
            for index in range(count * len(world.things)):
                name = world.things[index % len(world.things)]
                write_image(
                    folder / split / name / f"{index:05d}.png",
                    draw_source(seed, split, index, world, size),
                )
                done += 1
                if progress is not None:
                    progress(done, sum(counts.values()) * len(world.things))

    return draw_into_place(root, parameters, draw)
