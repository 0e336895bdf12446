"""Read images and label maps, find files inside a dataset's folder, and compute fingerprints."""

import errno
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

import cv2
import numpy as np
from PIL import Image as PillowImage

from stillrobust.data.decoding import (
    DEFAULT_READING,
    ImageReading,
    RefusedImageError,
    check_image,
    decode_image,
    require_all_blocks,
    undecodable_error,
)
from stillrobust.data.image_headers import IMAGE_SUFFIXES, UNREADABLE
from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import Array, DatasetInfo, Image
from stillrobust.untrusted import NotAFileError, read_regular_file

# Bits per pixel -> the factor by which Pillow multiplies grey values, so that the largest is 255.
GREY_STRETCH = {2: 85, 4: 17}
# Errors of a disk or network folder. They are no fault of the image, so it is not left out.
STORAGE_ERRORS = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT})
LARGEST_IMAGE = (1 << 30) + (1 << 20)  # bytes: ``MAX_PIXELS`` of 16-bit RGB without compression
# Up to this number of images the fingerprint reads every byte; above it, only file sizes.
FULL_DIGEST_LIMIT = 2000


class FileSize(Protocol):
    """The size of a file, as ``os.stat_result`` has it."""

    @property
    def st_size(self) -> int:
        """Bytes."""
        ...


class ImageFile(Protocol):
    """An encoded image: a ``Path``, or bytes that are stored inside another file.

    Its text is its place, for messages.
    """

    @property
    def name(self) -> str:
        """The name of the file."""
        ...

    @property
    def suffix(self) -> str:
        """The end of the name, such as ``.png``."""
        ...

    def read_bytes(self) -> bytes:
        """Read the content; ``OSError`` if it cannot be read."""
        ...

    def stat(self) -> FileSize:
        """Return its size; ``OSError`` if it does not exist."""
        ...


def read_image(path: ImageFile, reading: ImageReading = DEFAULT_READING) -> Image:
    """Read an image file by the rules of ``stillrobust.data.decoding``.

    Args:
        path: A file of one of ``IMAGE_KINDS``.
        reading: Options of the dataset.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        BadImageError: If the file is missing, cut off, no image, larger than ``MAX_PIXELS``, or
            has values that 8 bits would not tell apart.
        UserError: If the disk or network folder fails.
    """
    content = read_image_bytes(path)
    try:
        return decode_image(content, reading).pixels
    except RefusedImageError as refused:
        raise bad_image_error(path, refused) from None


def bad_image_error(path: ImageFile, refused: RefusedImageError) -> BadImageError:
    """The error for an image at ``path`` that cannot be used."""
    sentence = f"Expected {refused.expected} at {path}, but {refused.found}; {refused.advice}"
    return BadImageError(sentence, refused.fault)


def read_unrotated(path: ImageFile) -> PillowImage.Image:
    """Read an image file with Pillow and ignore the EXIF orientation.

    Published accuracies on ImageNet are measured on images that are read so. Images with more than
    8 bits are read as by ``read_image``.

    Args:
        path: File to read.

    Returns:
        A Pillow image in RGB.

    Raises:
        BadImageError: As in ``read_image``.
        UserError: As in ``read_image``.
    """
    content = read_image_bytes(path)
    try:
        header = check_image(content)
        if header.kind != "JPEG":
            return PillowImage.fromarray(decode_image(content, ImageReading(exif=False)).pixels)
        picture = PillowImage.open(io.BytesIO(content)).convert("RGB")
        require_all_blocks(content, header, np.asarray(picture)[-1:, -1].tolist())
    except RefusedImageError as refused:
        raise bad_image_error(path, refused) from None
    except UNREADABLE:
        raise bad_image_error(path, undecodable_error()) from None
    return picture


def read_image_bytes(path: ImageFile) -> bytes:
    """Read the bytes of an image file.

    Args:
        path: File to read.

    Returns:
        Its content.

    Raises:
        BadImageError: If the file cannot be read, is no regular file, or is too large.
        UserError: If the disk or network folder fails.
    """
    try:
        if not isinstance(path, Path):
            return path.read_bytes()
        return read_regular_file(path, LARGEST_IMAGE)
    except NotAFileError as error:
        raise BadImageError(str(error), "cannot be read") from None
    except OSError as error:
        if error.errno in STORAGE_ERRORS:
            raise UserError(
                f"Cannot read {path} ({error.strerror}); start again when its disk or network"
                " folder is there"
            ) from None
        sentence = f"Expected a readable image at {path}, but got: {error.strerror}; check the path"
        raise BadImageError(sentence, "cannot be read") from None


def encode_png(image: Array) -> bytes:
    """Encode uint8 (H, W, 3) RGB or (H, W) as the bytes of a PNG."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    written, encoded = cv2.imencode(".png", pixels)
    if not written:
        raise OSError(f"OpenCV could not encode a picture of {image.shape}")
    return bytes(encoded.tobytes())


def write_image(path: Path, image: Array) -> None:
    """Write uint8 (H, W, 3) RGB or (H, W) as PNG."""
    path.write_bytes(encode_png(image))


def read_label_map(path: ImageFile) -> Array:
    """Read a grey or palette PNG of at most 8 bits.

    Pillow reads it, because OpenCV would turn the indices of a palette PNG into colours.

    Args:
        path: A PNG file.

    Returns:
        uint8 (H, W), the stored indices.

    Raises:
        BadImage: If the file cannot be decoded or has more than 8 bits or several channels.
    """
    content = read_image_bytes(path)
    try:
        with PillowImage.open(io.BytesIO(content), formats=("PNG",)) as opened:
            mode = opened.mode
            # the header's bits a pixel
            stretch = GREY_STRETCH.get(content[24], 1) if mode == "L" else 1
            values = np.array(opened, np.uint8) // stretch if mode in ("1", "L", "P") else None
    except (*UNREADABLE, PillowImage.DecompressionBombError):
        sentence = f"Expected a label PNG at {path}, but it cannot be decoded; replace the file"
        raise BadImageError(sentence, "a label map that cannot be decoded") from None
    if values is None:
        raise BadImageError(
            f"Expected a label PNG of at most 8 bits with one channel (index = class) at {path},"
            f" but got mode {mode!r}; save the class indices as a grey or palette PNG",
            "a label map that is not of 8 bits",
        )
    return values


def resolve_inside(folder: Path, name: object, where: str) -> Path:
    """Resolve a file name that must stay inside a folder.

    Args:
        folder: A resolved folder.
        name: File name from an annotation file.
        where: Where the name is stated, for the message.

    Returns:
        ``folder / name``.

    Raises:
        UserError: If the name, or a symbolic link on the way, leaves the folder.
    """
    advice = f"use names relative to {folder} with no '..' and no links that lead out of it"
    if not isinstance(name, str) or not name or "\0" in name or not is_text(name):
        raise UserError(f"Expected a file name in {where}, but got {name!r}; {advice}")
    parts = PurePosixPath(name)
    windows = PureWindowsPath(name)
    if (
        parts.is_absolute()
        or windows.drive
        or windows.root
        or ".." in parts.parts
        or ".." in windows.parts
    ):
        raise UserError(
            f"Expected a file name inside the image folder in {where}, but got {name!r}; {advice}"
        )
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(folder):
        raise UserError(
            f"Expected a file inside the image folder in {where}, but {name!r} is a link out of it;"
            f" {advice}"
        )
    return path


def subfolders(folder: Path) -> list[str]:
    """Names of the visible folders directly inside ``folder``, sorted; empty if it is missing."""
    if not folder.is_dir():
        return []
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def visible_files(folder: Path) -> list[Path]:
    """All files below ``folder`` that are not hidden or in a hidden folder, sorted by path."""
    found = [path for path in folder.rglob("*") if not path.is_dir()]
    visible = [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def image_files(folder: Path) -> list[Path]:
    """All visible files below ``folder`` with the suffix of an image, sorted by path.

    Broken links, pipes and devices are among them, so that reading them is an error.

    Args:
        folder: Folder to search.

    Returns:
        The files.

    Raises:
        UserError: If a path is not valid UTF-8, because it could not be written to any record.
    """
    files = [path for path in visible_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    for path in files:
        if not is_text(str(path)):
            raise UserError(
                f"Expected names of files in UTF-8, but got {str(path)!r}; rename it, as convmv"
                " does for whole folders"
            )
    return files


def is_text(name: str) -> bool:
    """Whether a file name is valid UTF-8; Python keeps other bytes as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_split(kind: str, root: Path, split: str, existing: Iterable[str]) -> None:
    """Require that a split exists.

    Args:
        kind: Kind of dataset, for the message.
        root: Folder of the dataset.
        split: Name of the split.
        existing: Names of the existing splits.

    Raises:
        UserError: If the folder or the split does not exist; it lists the existing splits.
    """
    names = sorted(existing)
    if not root.is_dir():
        raise UserError(
            f"Expected a {kind} dataset folder at {root}, but there is no such folder; check the"
            " path"
        )
    if split not in names:
        listed = ", ".join(names) if names else "none"
        raise UserError(
            f"Expected split {split!r} in {root}, but it is missing (splits found: {listed}); check"
            " the path or complete the set"
        )


def fingerprint(
    classes: Sequence[str], image_ids: Sequence[str], files: Iterable[ImageFile], annotations: bytes
) -> str:
    """The fingerprint of a dataset of files.

    Above ``FULL_DIGEST_LIMIT`` images, file sizes are used instead of file contents.

    Args:
        classes: Class names.
        image_ids: Image ids, in the order of the dataset.
        files: Image files in the order of ``image_ids``; other files, such as label maps, may
            follow.
        annotations: Further content that affects a score.

    Returns:
        SHA-256 (hex).
    """
    digest = hashlib.sha256()
    for text in (*classes, "", *image_ids, ""):
        digest.update(text.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(hashlib.sha256(annotations).digest())
    whole = len(image_ids) <= FULL_DIGEST_LIMIT
    for path in files:
        # A fixed width per file keeps the concatenation unambiguous.
        digest.update(
            hashlib.sha256(read_image_bytes(path)).digest()
            if whole
            else path.stat().st_size.to_bytes(8, "big")
        )
    return digest.hexdigest()


def derived_fingerprint(base: str, *changes: object) -> str:
    """The fingerprint of a dataset that is derived from another.

    Args:
        base: Fingerprint of the other dataset.
        *changes: Values that describe the change; their ``repr`` is hashed.

    Returns:
        SHA-256 (hex).
    """
    return hashlib.sha256("\0".join([base, *map(repr, changes)]).encode()).hexdigest()


def with_reading(info: DatasetInfo, reading: ImageReading) -> DatasetInfo:
    """The info of a dataset whose images are read in a way that is not the default."""
    if reading == DEFAULT_READING:
        return info
    digest = derived_fingerprint(info.fingerprint, reading.protocol)
    return replace(info, fingerprint=digest, reading=reading.protocol)


def array_fingerprint(classes: Sequence[str], images: Array, labels: Array) -> str:
    """The fingerprint of a dataset in one array: SHA-256 (hex) of classes, pixels and labels."""
    digest = hashlib.sha256("\0".join([*classes, str(images.shape), ""]).encode())
    for array in (images, labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
