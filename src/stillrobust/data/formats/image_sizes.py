"""Sizes of images, read from the headers of their files."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

from PIL import Image as PillowImage

from stillrobust.data.image_headers import UNREADABLE
from stillrobust.data.reading import ImageFile
from stillrobust.errors import BadImageError
from stillrobust.untrusted import open_regular_file

ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height are exchanged
BATCH = 1000  # files given to the threads at once


def read_sizes(
    paths: Sequence[ImageFile], exif: bool = True
) -> Iterator[tuple[int, int] | BadImageError]:
    """Read the sizes of images.

    Args:
        paths: Image files.
        exif: Whether the EXIF orientation is applied.

    Yields:
        (H, W) of each image as it is shown, or the error of a file that is no image.
    """
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(paths), BATCH):
            yield from threads.map(partial(_read_size, exif=exif), paths[start : start + BATCH])


def read_size(path: ImageFile, exif: bool = True) -> tuple[int, int]:
    """Read the size of an image. Its pixels are not decoded.

    Args:
        path: An image file.
        exif: Whether the EXIF orientation is applied.

    Returns:
        (H, W) of the image as it is shown.

    Raises:
        BadImageError: If it is no image.
    """
    try:
        with _opened(path) as file, PillowImage.open(file) as opened:
            width, height = opened.size
            turned = exif and opened.getexif().get(ORIENTATION, 1) >= 5
    except (*UNREADABLE, PillowImage.DecompressionBombError):
        sentence = f"Expected an image at {path}, but its size cannot be read; replace the file"
        raise BadImageError(sentence, "cannot be decoded") from None
    return (width, height) if turned else (height, width)


def _opened(file: ImageFile) -> IO[bytes]:
    return open_regular_file(file) if isinstance(file, Path) else io.BytesIO(file.read_bytes())


def _read_size(path: ImageFile, exif: bool) -> tuple[int, int] | BadImageError:
    try:
        return read_size(path, exif)
    except BadImageError as error:
        return error
