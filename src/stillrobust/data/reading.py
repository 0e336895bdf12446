"""Files to arrays: images, label maps, safe paths inside a dataset's folder, and digests."""

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
LARGEST = 178_956_970  # pixels: Pillow's limit for a picture that may be meant to fill the memory
# bits a pixel -> what Pillow multiplies grey values with, so that the largest is 255
GREY_STRETCH = {2: 85, 4: 17}
PNG_END = b"IEND\xaeB`\x82"  # the last chunk's name and its checksum
# Markers as libjpeg looks for them: data of a scan hold FF before 00 and the restart markers D0 to
# D7 alone, FF FF fills up.
JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
JPEG_ALONE = frozenset({0x01, 0xD8})  # without a length and content, as the end D9
# What Pillow's opener raises for what is no image; ultralytics puts its own in its place, which
# lacks a package for HEIF then.
UNREADABLE = (OSError, SyntaxError, ValueError, ImportError)
# Of a disk or a network folder that fails: no fault of the image, which is not left out for it.
LOST = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT})
# up to this many images the fingerprint reads every byte; above it, only file sizes
FULL_DIGEST_LIMIT = 2000


def read_image(path: Path) -> Image:
    """One image file as uint8 (H, W, 3) RGB; grey is repeated, alpha dropped, the EXIF orientation
    applied.

    CMYK becomes RGB, of 16 bits the upper 8 stay, and of an animation or several pages the first is
    taken, as OpenCV does all three. ``UserError`` for a file that is missing, of none of
    ``IMAGE_KINDS``, cut off, or larger than ``LARGEST``, and for a TIFF with alpha, whose colours
    OpenCV would darken.
    """
    content = read_bytes(path)
    decoded = decode_image(np.frombuffer(content, np.uint8))
    if decoded is None:
        raise undecodable(path)
    return decoded


def undecodable(path: Path) -> BadImageError:
    """The error for what is none of ``IMAGE_KINDS``, or a damaged one."""
    sentence = (
        f"Expected a {IMAGE_KINDS} image at {path}, but its content cannot be decoded; replace the"
        " file"
    )
    return BadImageError(sentence, "cannot be decoded")


def read_unrotated(path: Path) -> PillowImage.Image:
    """One image file as Pillow's RGB, without the EXIF orientation: how ImageNet is read wherever
    accuracies are published.
    """
    content = read_bytes(path)
    try:
        return PillowImage.open(io.BytesIO(content)).convert("RGB")
    except UNREADABLE:
        raise undecodable(path) from None


def read_bytes(path: Path) -> bytes:
    """The bytes of an image file that is whole and of a size that fits in memory, or ``UserError``."""
    try:
        content = path.read_bytes()
    except OSError as error:
        if error.errno in LOST:
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
        with PillowImage.open(io.BytesIO(content)) as opened:  # reads the header alone
            width, height = opened.size
            has_alpha = opened.format == "TIFF" and "A" in opened.getbands()
    except PillowImage.DecompressionBombError:
        width, height, has_alpha = LARGEST, LARGEST, False
    except UNREADABLE:
        width, height, has_alpha = 0, 0, False  # Pillow does not know it; OpenCV has the last word
    if width * height > LARGEST:
        sentence = (
            f"Expected an image of at most {LARGEST:,} pixels at {path}, but it has more; scale it"
            " down"
        )
        raise BadImageError(sentence, f"more than {LARGEST:,} pixels")
    if has_alpha:
        sentence = (
            f"Expected a TIFF without an alpha channel at {path}, but it has one; save it without,"
            " or as PNG"
        )
        raise BadImageError(sentence, "a TIFF with an alpha channel")
    return content


def is_cut_off(content: bytes) -> bool:
    """Whether a PNG or JPEG ends before its end marker; decoders fill up what is missing with grey,
    without a word.
    """
    if content.startswith(b"\xff\xd8"):
        return not _ends(content)
    return not content or (content.startswith(b"\x89PNG") and PNG_END not in content)


def _ends(jpeg: bytes) -> bool:
    """Whether the picture's own end marker is there: not a thumbnail's, and whatever a camera wrote
    behind it.
    """
    place = 2
    while marker := JPEG_MARKER.search(jpeg, place):
        kind, place = jpeg[marker.start() + 1], marker.end()
        if kind == 0xD9:
            return True
        if kind not in JPEG_ALONE:
            place += int.from_bytes(jpeg[place : place + 2], "big")
    return False


def decode_image(content: Array) -> Image | None:
    """Encoded bytes as uint8 (N,) -> uint8 (H, W, 3) RGB, or ``None`` where they are no image."""
    try:
        decoded = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:  # for instance a header that claims more pixels than OpenCV accepts
        return None
    return (
        None if decoded is None else np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
    )


def encode_png(image: Array) -> bytes:
    """uint8 (H, W, 3) RGB or (H, W) -> the bytes of a PNG."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    written, encoded = cv2.imencode(".png", pixels)
    if not written:
        raise OSError(f"OpenCV could not encode a picture of {image.shape}")
    return bytes(encoded.tobytes())


def write_image(path: Path, image: Array) -> None:
    """Write uint8 (H, W, 3) RGB or (H, W) as PNG."""
    path.write_bytes(encode_png(image))


def read_label_map(path: Path) -> Array:
    """A grey or palette PNG of at most 8 bits as uint8 (H, W), the stored indices.

    Pillow reads it and not OpenCV, which would turn the indices of a palette PNG into colours.
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
    """``folder / name``, or ``UserError`` where the name or a symlink on the way leaves the folder.

    ``folder`` must be resolved already; ``where`` names the place of the file name in the message.
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
    """Names of the visible folders directly inside ``folder``, sorted; empty where there is no such
    folder.
    """
    if not folder.is_dir():
        return []
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def visible_files(folder: Path) -> list[Path]:
    """All files below ``folder`` that are not hidden, nor in a hidden folder, sorted by their path
    with ``/``.
    """
    found = [path for path in folder.rglob("*") if not path.is_dir()]
    visible = [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def image_files(folder: Path) -> list[Path]:
    """Those of the visible files that are images by their suffix; ``UserError`` for a path that no
    record could hold.
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
    """Whether a file's name can be written down: bytes that are no UTF-8 come as halves of letters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_split(kind: str, root: Path, split: str, existing: Iterable[str]) -> None:
    """``UserError`` that lists the splits there are, unless ``split`` is one of them."""
    names = sorted(existing)
    if not root.is_dir():
        raise UserError(
            f"Expected a {kind} dataset folder at {root}, but there is no such folder; check the"
            " path"
        )
    if split not in names:
        listed = ", ".join(names) if names else "none"
        raise UserError(
            f"Expected split {split!r} in {root}, but it is missing; choose one that exists:"
            f" {listed}"
        )


def fingerprint(
    classes: Sequence[str], image_ids: Sequence[str], files: Iterable[Path], annotations: bytes
) -> str:
    """SHA-256 (hex) over class names, annotation content, image ids and image bytes (sizes alone in
    large sets).

    ``files`` come in the order of ``image_ids``; further files, such as label maps, may follow.
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
    """The fingerprint of a dataset made from one with fingerprint ``base`` by the described
    changes.
    """
    return hashlib.sha256("\0".join([base, *map(repr, changes)]).encode()).hexdigest()


def array_fingerprint(classes: Sequence[str], images: Array, labels: Array) -> str:
    """SHA-256 (hex) over class names, pixels and labels of a set that is one array."""
    digest = hashlib.sha256("\0".join([*classes, str(images.shape), ""]).encode())
    for array in (images, labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
