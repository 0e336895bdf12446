"""Write generated scenes as datasets for detection, segmentation and classification."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from stillrobust.data.formats.coco_writer import write_coco
from stillrobust.data.generated.scene_painters import World, build_world
from stillrobust.data.generated.scene_textures import texture_source
from stillrobust.data.generated.scenes import Scene, draw_crop, draw_scene
from stillrobust.data.reading import image_files, write_image
from stillrobust.errors import UserError
from stillrobust.samples import Sample
from stillrobust.storage.files import clear_leftovers, temporary_path
from stillrobust.storage.leases import lease
from stillrobust.untrusted import parse_json, read_regular_file

# Increased whenever the same parameters give other pixels, so that old folders are drawn again.
RECIPE = 2
SPLITS = ("train", "val")
SMALLEST_SIZE = 32  # pixels; smaller images have no room for things and textures
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SceneCounts:
    """Number of images of each kind."""

    train: int = 600
    val: int = 100
    train_crops: int = 800
    val_crops: int = 200

    @property
    def total(self) -> int:
        """Number of all images; a scene counts once."""
        return self.train + self.val + self.train_crops + self.val_crops


def write_scenes(
    root: Path,
    *,
    seed: int = 0,
    counts: SceneCounts = SceneCounts(),
    scene_size: int = 128,
    crop_size: int = 96,
    thing_folder: Path | None = None,
    background_folder: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write generated datasets for all three tasks.

    They are ``root/detection`` (format ``coco``), ``root/segmentation`` (``maps``) and
    ``root/classification`` (``folders``). An existing folder with the same parameters in its
    ``scenes.json`` is kept, and one with other parameters is replaced. The folder appears in one
    step, so an interrupted run leaves nothing incomplete.

    Args:
        root: Folder for the datasets.
        seed: Seed of all random draws.
        counts: Number of images of each kind.
        scene_size: Height and width of scenes, in pixels.
        crop_size: Height and width of crops, in pixels.
        thing_folder: Cut-outs with alpha, ``<class>/*.png``, instead of drawn things.
        background_folder: Photographs instead of drawn materials.
        progress: ``progress(done, total)`` is called after every image.

    Returns:
        ``root``.

    Raises:
        UserError: If a parameter is invalid, ``root`` holds other files, or the disk is full.
    """
    check_parameters(seed, counts, scene_size, crop_size)
    parameters = {
        "recipe": RECIPE,
        "seed": seed,
        **asdict(counts),
        "scene_size": scene_size,
        "crop_size": crop_size,
        "textures": texture_source(),
        "things": folder_state(thing_folder),
        "backgrounds": folder_state(background_folder),
    }
    if is_replaceable(root) and stored_parameters(root) == parameters:
        return root
    world = build_world(thing_folder, background_folder)

    def draw(folder: Path) -> None:
        write_all(folder, world, seed, counts, scene_size, crop_size, progress)

    return draw_into_place(root, parameters, draw)


def draw_into_place(root: Path, parameters: dict[str, Any], draw: Callable[[Path], None]) -> Path:
    """Draw a dataset into a temporary folder and rename it to ``root``.

    Only one process draws; others wait for it and use its folder.

    Args:
        root: Folder of the dataset.
        parameters: Everything that determines the pixels, for ``scenes.json``.
        draw: Writes the dataset into the folder that it receives.

    Returns:
        ``root``.

    Raises:
        UserError: If writing fails.
    """
    with lease(root, wait=True):
        clear_leftovers(root.parent, f"{root.name}.")
        if is_replaceable(root) and stored_parameters(root) == parameters:
            return root
        partial = temporary_path(root)
        try:
            partial.mkdir()
            draw(partial)
            (partial / "scenes.json").write_text(
                json.dumps(parameters, indent=2) + "\n", encoding="utf-8"
            )
            replace_folder(partial, root)
        except OSError as error:
            raise UserError(
                f"Cannot draw {root} ({error.strerror or error}); free some space or choose another"
                " folder"
            ) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return root


def check_parameters(seed: int, counts: SceneCounts, scene_size: int, crop_size: int) -> None:
    """Raise ``UserError`` for invalid parameters."""
    if seed < 0:
        raise UserError(f"Expected a seed >= 0 for scenes, but got {seed}; choose another")
    if min(asdict(counts).values()) < 1:
        raise UserError(
            f"Expected at least one image of each kind, but got {asdict(counts)}; raise the counts"
        )
    if min(scene_size, crop_size) < SMALLEST_SIZE:
        raise UserError(
            f"Expected images of at least {SMALLEST_SIZE} pixels, but got"
            f" {min(scene_size, crop_size)}; raise it"
        )


def folder_state(folder: Path | None) -> list[list[Any]] | None:
    """Names and sizes of the pictures in a folder. They show whether it changed."""
    if folder is None:
        return None
    if not folder.is_dir():
        raise UserError(
            f"Expected a folder of pictures at {folder}, but there is none; check the path"
        )
    return [
        [path.relative_to(folder).as_posix(), path.stat().st_size] for path in image_files(folder)
    ]


def is_replaceable(root: Path) -> bool:
    """Whether ``root`` holds generated scenes; ``UserError`` if it holds other files."""
    if not root.exists():
        return False
    if root.is_dir() and (root / "scenes.json").is_file():
        return True
    if not root.is_dir() or any(root.iterdir()):
        raise UserError(
            f"Expected {root} to be free or to hold generated scenes, but it holds something else;"
            " choose another"
        )
    return False


def stored_parameters(root: Path) -> Any:
    """The content of ``scenes.json``, or ``None`` if it cannot be read."""
    try:
        return parse_json(read_regular_file(root / "scenes.json"))
    except (OSError, UserError, ValueError):
        return None


def replace_folder(partial: Path, root: Path) -> None:
    """Rename the finished folder to ``root``, then delete the former one."""
    if not root.exists():
        partial.replace(root)
        return
    retired = temporary_path(root)
    try:
        root.replace(retired)
        partial.replace(root)
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def generator_for(seed: int, kind: str, split: str, index: int) -> Generator:
    """The random generator of one image. It does not depend on the number of images."""
    stream = ("scene", "crop").index(kind) * len(SPLITS) + SPLITS.index(split)
    return np.random.default_rng([seed, stream, index])


def draw_scene_at(seed: int, split: str, index: int, world: World, size: int) -> Scene:
    """Draw scene ``index`` of a split, as ``write_scenes`` writes it."""
    return draw_scene(generator_for(seed, "scene", split, index), world, size)


def write_all(
    folder: Path,
    world: World,
    seed: int,
    counts: SceneCounts,
    scene_size: int,
    crop_size: int,
    progress: Progress | None,
) -> None:
    """Write the three datasets, each image drawn once."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, counts.total)

    for split, count in zip(SPLITS, (counts.train, counts.val), strict=True):
        scenes = (draw_scene_at(seed, split, index, world, scene_size) for index in range(count))
        samples = write_segmentation(folder / "segmentation", split, scenes, tick)
        write_coco(folder / "detection", split, samples, world.things)
    (folder / "segmentation" / "classes.txt").write_text(
        "\n".join(world.classes) + "\n", encoding="utf-8"
    )
    for split, count in zip(SPLITS, (counts.train_crops, counts.val_crops), strict=True):
        for name in world.things:
            (folder / "classification" / split / name).mkdir(parents=True)
        for index in range(count):
            label = index % len(world.things)  # in turn, so the classes are balanced
            image = draw_crop(generator_for(seed, "crop", split, index), world, label, crop_size)
            write_image(
                folder / "classification" / split / world.things[label] / f"{index:05d}.png", image
            )
            tick()


def write_segmentation(
    folder: Path, split: str, scenes: Iterator[Scene], tick: Callable[[], None]
) -> Iterator[Sample]:
    """Write the image and label map of each scene and yield it as a detection sample."""
    images, labels = folder / "images" / split, folder / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for index, scene in enumerate(scenes):
        write_image(images / f"{index:05d}.png", scene.image)
        write_image(labels / f"{index:05d}.png", scene.label_map)
        yield scene.detection(f"{index:05d}.png")
        tick()
