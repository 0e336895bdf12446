"""Textures of generated images: photographs, procedural patterns, and six background materials.

Every texture is float32 (size, size, 3) RGB, about 0 to 255. The photographs are files in the
package folder of scikit-image, which is not imported. Without that package all textures are
procedural.
"""

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from stillrobust.data.reading import read_image
from stillrobust.samples import Array, Image

STUFF = ("brick", "grass", "gravel", "water", "sky", "wood")
MATERIAL_PHOTOS = ("brick.png", "grass.png", "gravel.png")
OBJECT_PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "ihc.png",
    "camera.png",
    "coins.png",
    "retina.jpg",
    "moon.png",
    "text.png",
    "cell.png",
)
# Photographs are scaled to this shorter side, so that crops show structure at the scale of an
# object.
PHOTO_SIDE = 480


def photo_folder() -> Path | None:
    """The data folder of scikit-image, or ``None`` if its photographs are not installed."""
    found = importlib.util.find_spec("skimage")  # does not import the package
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "data"
    wanted = (*OBJECT_PHOTOS, *MATERIAL_PHOTOS)
    return folder if all((folder / name).is_file() for name in wanted) else None


def texture_source() -> str:
    """``"photographs"``, or ``"procedural"`` if scikit-image is not installed."""
    return "procedural" if photo_folder() is None else "photographs"


@cache
def object_photos() -> tuple[Image, ...]:
    """The photographs for textures of objects, uint8 RGB; empty without scikit-image."""
    folder = photo_folder()
    if folder is None:
        return ()
    return tuple(with_shorter_side(read_image(folder / name), PHOTO_SIDE) for name in OBJECT_PHOTOS)


@cache
def material_photo(name: str) -> Image | None:
    """The photograph of a background material, or ``None`` if there is none."""
    folder = photo_folder()
    return (
        read_image(folder / f"{name}.png")
        if folder is not None and f"{name}.png" in MATERIAL_PHOTOS
        else None
    )


def with_shorter_side(image: Image, side: int) -> Image:
    """The image scaled so that its shorter side has ``side`` pixels."""
    factor = side / min(image.shape[:2])
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(
        cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation), np.uint8
    )


def random_colour(
    rng: Generator, saturation: tuple[int, int] = (60, 230), value: tuple[int, int] = (60, 245)
) -> Array:
    """float32 (3,) RGB of any hue, with saturation and value (0..255) from the given ranges."""
    pixel = np.array(
        [[[rng.integers(0, 180), rng.integers(*saturation), rng.integers(*value)]]],
        np.uint8,
    )
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def noise_texture(rng: Generator, size: int, cell: float) -> Array:
    """float32 (size, size), uniform noise on a grid of ``cell`` pixels, smoothly interpolated."""
    cells = max(2, int(np.ceil(size / cell)) + 1)
    grid = rng.random((cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC))


def cloud_noise(rng: Generator, size: int, cell: float) -> Array:
    """Four octaves of smooth noise, float32 (size, size) from 0 to 1.

    The coarsest octave has cells of ``cell`` pixels.
    """
    total = np.zeros((size, size), np.float32)
    for octave in range(4):
        total += noise_texture(rng, size, max(2, cell / 2**octave)) * 0.5**octave
    return np.asarray(np.clip(total / 1.875, 0, 1))  # 1.875 = 1 + 1/2 + 1/4 + 1/8


def random_crop(rng: Generator, photo: Image, size: int) -> Image:
    """A random square of a photograph, 0.5 to 1.3 times ``size``, scaled: uint8 (size, size, 3)."""
    side = int(min(*photo.shape[:2], size * rng.uniform(0.5, 1.3)))
    top = rng.integers(0, photo.shape[0] - side + 1)
    left = rng.integers(0, photo.shape[1] - side + 1)
    square = photo[top : top + side, left : left + side]
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=interpolation), np.uint8)


def pixel_coordinates(size: int) -> tuple[Array, Array]:
    """Row and column of each pixel, float32 (size, size) each."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    return rows, columns


def blend_textures(weight: Array, first: Array, second: Array) -> Array:
    """Mix colours (3,) by a weight map (size, size): float32 (size, size, 3)."""
    weights = weight[..., None]
    return np.asarray(first * weights + second * (1 - weights), np.float32)


def mottled_fill(rng: Generator, size: int, first: Array, second: Array) -> Array:
    """One colour with soft light and dark patches."""
    return np.asarray(
        first * (0.75 + 0.5 * cloud_noise(rng, size, size / 3)[..., None]), np.float32
    )


def cloudy_fill(rng: Generator, size: int, first: Array, second: Array) -> Array:
    """Two colours mixed by clouds."""
    return blend_textures(cloud_noise(rng, size, size / 4), first, second)


def striped_fill(
    rng: Generator, size: int, first: Array, second: Array, crossed: bool = False
) -> Array:
    """Stripes in two colours at any angle; two crossed sets of them make checks."""
    rows, columns = pixel_coordinates(size)
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 22)
    on = np.sin(2 * np.pi * (columns * np.cos(angle) + rows * np.sin(angle)) / period) > 0
    if crossed:
        on ^= np.sin(2 * np.pi * (rows * np.cos(angle) - columns * np.sin(angle)) / period) > 0
    return blend_textures(
        np.asarray(cv2.GaussianBlur(on.astype(np.float32), (3, 3), 0)), first, second
    )


def checkered_fill(rng: Generator, size: int, first: Array, second: Array) -> Array:
    """Checks in two colours at any angle."""
    return striped_fill(rng, size, first, second, crossed=True)


def tinted_photo_fill(rng: Generator, size: int, first: Array, second: Array) -> Array:
    """Two colours mixed by the brightness of a crop of a photograph."""
    photos = object_photos()
    if not photos:
        return cloudy_fill(rng, size, first, second)
    piece = random_crop(rng, photos[rng.integers(len(photos))], size)
    return blend_textures(piece.mean(axis=2, dtype=np.float32) / 255, first, second)


def photo_fill(rng: Generator, size: int, first: Array, second: Array) -> Array:
    """A crop of a photograph."""
    photos = object_photos()
    if not photos:
        return checkered_fill(rng, size, first, second)
    return random_crop(rng, photos[rng.integers(len(photos))], size).astype(np.float32)


# mottled twice: plain things are common
FILLS = (
    mottled_fill,
    mottled_fill,
    cloudy_fill,
    striped_fill,
    checkered_fill,
    tinted_photo_fill,
    photo_fill,
)


def random_fill(rng: Generator, size: int) -> Array:
    """A random fill for a part of an object, independent of its class."""
    fill = FILLS[rng.integers(len(FILLS))]
    return fill(rng, size, random_colour(rng), random_colour(rng))


def photographed_material(rng: Generator, photo: Image, size: int) -> Array:
    """A material from its photograph, with random contrast, brightness and a pale tint."""
    grain = random_crop(rng, photo, size).astype(np.float32) / 255
    grain = (grain - grain.mean()) / (grain.std() + 1e-3) * rng.uniform(0.12, 0.2) + rng.uniform(
        0.35, 0.6
    )
    return np.asarray(
        np.clip(grain * random_colour(rng, (20, 110), (150, 255)) * 1.3, 0, 255), np.float32
    )


def water(rng: Generator, size: int) -> Array:
    """Weights of wavy horizontal ripples."""
    rows, columns = pixel_coordinates(size)
    bend = cloud_noise(rng, size, size / 3) * 4.9
    ripples = rows / rng.uniform(5, 11) + bend + 0.3 * np.sin(columns / rng.uniform(9, 25))
    return np.asarray(
        0.6 * (0.5 + 0.5 * np.sin(2 * np.pi * ripples)) + 0.4 * cloud_noise(rng, size, 8)
    )


def sky(rng: Generator, size: int) -> Array:
    """Weights of clouds over a slow gradient."""
    clouds = np.clip((cloud_noise(rng, size, size / 2) - 0.35) * 2.2, 0, 1)
    return np.asarray(clouds * rng.uniform(0.5, 1) + 0.2 * pixel_coordinates(size)[0] / size)


def wood(rng: Generator, size: int) -> Array:
    """Weights of year rings along bent lines, with fine fibres."""
    bent = cloud_noise(rng, size, size / 2) * rng.uniform(20, 50)
    distance = bent + pixel_coordinates(size)[1] * rng.uniform(0.2, 0.5)
    rings = (distance / rng.uniform(4, 8)) % 1
    fibres = cv2.resize(
        rng.random((max(1, size // 2), size // 8 + 1)).astype(np.float32), (size, size)
    )
    return np.asarray(0.7 * rings + 0.3 * fibres)


def brick(rng: Generator, size: int) -> Array:
    """Weights of bricks in rows, for use without photographs."""
    rows, columns = pixel_coordinates(size)
    height = rng.uniform(8, 14)
    row = np.floor(rows / height)
    mortar = (rows % height < 1.5) | ((columns + row % 2 * height) % (2 * height) < 1.5)
    return np.asarray(np.where(mortar, 0.1, 0.6 + 0.4 * cloud_noise(rng, size, 6)))


def grass(rng: Generator, size: int) -> Array:
    """Weights of upright blades, for use without photographs."""
    blades = cv2.resize(rng.random((size // 6 + 1, size)).astype(np.float32), (size, size))
    return np.asarray(0.8 * blades + 0.2 * cloud_noise(rng, size, size / 3))


def gravel(rng: Generator, size: int) -> Array:
    """Weights of round pebbles, for use without photographs."""
    return np.asarray(np.clip((cloud_noise(rng, size, 9) - 0.5) * 4 + 0.5, 0, 1))


WEIGHTS: dict[str, Callable[[Generator, int], Array]] = {
    "brick": brick,
    "grass": grass,
    "gravel": gravel,
    "water": water,
    "sky": sky,
    "wood": wood,
}


def random_stuff(rng: Generator, name: str, size: int) -> Array:
    """A background of the named material, float32 (size, size, 3)."""
    photo = material_photo(name)
    if photo is not None:
        return photographed_material(rng, photo, size)
    weights = WEIGHTS[name](rng, size)
    return blend_textures(
        weights,
        random_colour(rng, (20, 120), (90, 255)),
        random_colour(rng, (20, 120), (60, 255)),
    )
