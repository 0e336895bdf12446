"""Read images and label maps, find files inside a dataset's folder, and compute fingerprints."""

import errno
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import cv2
import numpy as np
from PIL import Image as PillowImage

from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import Array, Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
IMAGE_KINDS = "PNG, JPEG, WebP, BMP or TIFF"
MAX_PIXELS = 178_956_970  # Pillow's limit against decompression bombs
# Bits per pixel -> the factor by which Pillow multiplies grey values, so that the largest is 255.
GREY_STRETCH = {2: 85, 4: 17}
PNG_END = b"IEND\xaeB`\x82"  # the last chunk's name and its checksum
# Markers as libjpeg finds them. Scan data hold FF only before 00 and the restart markers D0 to D7;
# FF FF is padding.
JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
JPEG_ALONE = frozenset({0x01, 0xD8})  # markers without content, like the end marker D9
# Raised by Pillow for files that are not images. Ultralytics replaces Pillow's opener, which then
# may raise an ImportError for HEIF.
UNREADABLE = (OSError, SyntaxError, ValueError, ImportError)
# Errors of a disk or network folder. They are no fault of the image, so it is not left out.
STORAGE_ERRORS = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT})
# Up to this number of images the fingerprint reads every byte; above it, only file sizes.
FULL_DIGEST_LIMIT = 2000


def read_image(path: Path) -> Image:
    """Read an image file with OpenCV's rules.

    Grey is repeated, alpha is dropped and the EXIF orientation is applied. CMYK becomes RGB, 16
    bits become the upper 8, and of several frames or pages the first is read.

    Args:
        path: A file of one of ``IMAGE_KINDS``.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        BadImage: If the file is missing, truncated, no image, or larger than ``MAX_PIXELS``, or
            if it is a TIFF with alpha, whose colours OpenCV would darken.
    """
    content = read_image_bytes(path)
    decoded = decode_image(np.frombuffer(content, np.uint8))
    if decoded is None:
        raise undecodable_error(path)
    return decoded


def undecodable_error(path: Path) -> BadImageError:
    """The error for a file that is damaged or none of ``IMAGE_KINDS``."""
    sentence = (
        f"Expected a {IMAGE_KINDS} image at {path}, but its content cannot be decoded; replace the"
        " file"
    )
    return BadImageError(sentence, "cannot be decoded")


def read_unrotated(path: Path) -> PillowImage.Image:
    """Read an image file with Pillow and ignore the EXIF orientation.

    Published accuracies on ImageNet are measured on images that are read so.

    Args:
        path: File to read.

    Returns:
        A Pillow image in RGB.

    Raises:
        BadImage: As in ``read_image``.
    """
    content = read_image_bytes(path)
    try:
        return PillowImage.open(io.BytesIO(content)).convert("RGB")
    except UNREADABLE:
        raise undecodable_error(path) from None


def read_image_bytes(path: Path) -> bytes:
    """Read the bytes of an image file and check that it is complete and not too large.

    Args:
        path: File to read.

    Returns:
        Its content.

    Raises:
        BadImage: If the image cannot be used.
        UserError: If the disk or network folder fails.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        if error.errno in STORAGE_ERRORS:
            raise UserError(
                f"Cannot read {path} ({error.strerror}); start again when its disk or network"
                " folder is there"
            ) from None
        sentence = f"Expected a readable image at {path}, but got: {error.strerror}; check the path"
        raise BadImageError(sentence, "cannot be read") from None
    if is_cut_off(content):
        sentence = f"Expected a whole image at {path}, but the file is cut off or empty; replace it"
        raise BadImageError(sentence, "cut off or empty")
    try:
        with PillowImage.open(io.BytesIO(content)) as opened:  # reads the header only
            width, height = opened.size
            has_alpha = opened.format == "TIFF" and "A" in opened.getbands()
    except PillowImage.DecompressionBombError:
        width, height, has_alpha = MAX_PIXELS, MAX_PIXELS, False
    except UNREADABLE:
        width, height, has_alpha = 0, 0, False  # unknown to Pillow; OpenCV decides
    if width * height > MAX_PIXELS:
        sentence = (
            f"Expected an image of at most {MAX_PIXELS:,} pixels at {path}, but it has more; scale"
            " it down"
        )
        raise BadImageError(sentence, f"more than {MAX_PIXELS:,} pixels")
    if has_alpha:
        sentence = (
            f"Expected a TIFF without an alpha channel at {path}, but it has one; save it without,"
            " or as PNG"
        )
        raise BadImageError(sentence, "a TIFF with an alpha channel")
    return content


def is_cut_off(content: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end marker. Decoders would fill the rest with grey."""
    if content.startswith(b"\xff\xd8"):
        return not _has_end_marker(content)
    return not content or (content.startswith(b"\x89PNG") and PNG_END not in content)


def _has_end_marker(jpeg: bytes) -> bool:
    """Whether a JPEG has its end marker. Those of thumbnails and trailing data do not count."""
    place = 2
    while marker := JPEG_MARKER.search(jpeg, place):
        kind, place = jpeg[marker.start() + 1], marker.end()
        if kind == 0xD9:
            return True
        if kind not in JPEG_ALONE:
            place += int.from_bytes(jpeg[place : place + 2], "big")
    return False


def decode_image(content: Array) -> Image | None:
    """Decode encoded bytes, uint8 (N,), to uint8 (H, W, 3) RGB; ``None`` if they are no image."""
    try:
        decoded = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:  # for instance a header that claims more pixels than OpenCV accepts
        return None
    return (
        None if decoded is None else np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
    )


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


def read_label_map(path: Path) -> Array:
    """Read a grey or palette PNG of at most 8 bits.

    Pillow reads it, because OpenCV would turn the indices of a palette PNG into colours.

    Args:
        path: A PNG file.

    Returns:
        uint8 (H, W), the stored indices.

    Raises:
        BadImage: If the file cannot be decoded or has more than 8 bits or several channels.
    """
    try:
        content = path.read_bytes()
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
    if not path.resolve().is_relative_to(folder):
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

    Args:
        folder: Folder to search.

    Returns:
        The files.

    Raises:
        UserError: If a path is not valid UTF-8, because it could not be written to any record.
    """
    files = [
        path
        for path in visible_files(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    ]
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
    classes: Sequence[str], image_ids: Sequence[str], files: Iterable[Path], annotations: bytes
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
            hashlib.sha256(path.read_bytes()).digest()
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


def array_fingerprint(classes: Sequence[str], images: Array, labels: Array) -> str:
    """The fingerprint of a dataset in one array: SHA-256 (hex) of classes, pixels and labels."""
    digest = hashlib.sha256("\0".join([*classes, str(images.shape), ""]).encode())
    for array in (images, labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
