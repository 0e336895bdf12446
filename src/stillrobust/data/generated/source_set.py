"""The embedded source set: what stands in for ImageNet in miniature, generated, with classes that
no scene has.

One of twenty drawn things over any texture, a class folder each. Fills say nothing of the class, as
in the scenes, so that shape is what there is to learn; and the random streams are others than those
of the scenes.
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

# raised whenever the same parameters would draw other pixels, so that old folders are drawn again
RECIPE = 1
FIRST_STREAM = 4  # of the random streams; 0 to 3 are those of scenes and their crops


def paint_any_surface(rng: Generator, label: int, size: int) -> Array:
    """A material, or whatever a thing may be filled with; there is one kind of background only."""
    if rng.random() < 0.5:
        return random_stuff(rng, STUFF[rng.integers(len(STUFF))], size)
    return random_fill(rng, size)


def source_world() -> World:
    """The twenty things over any surface."""
    return World(
        tuple(SOURCE_SHAPES),
        ("surface",),
        partial(paint_drawn_thing, things=SOURCE_SHAPES),
        paint_any_surface,
    )


def draw_source(seed: int, split: str, index: int, world: World, size: int) -> Image:
    """Image ``index`` of a split, uint8 (size, size, 3), of class ``index % 20``; it depends on
    nothing else.
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
    """Draw ``train`` and ``val`` images a class into ``root/<split>/<class>/``, for
    ``folders:ROOT``. Returns ``root``.

    A folder that is there already is kept where its ``scenes.json`` states the same parameters, and
    drawn again where it states others. The new folder takes its place in one step. ``progress(done,
    total)`` is called after every image.
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
