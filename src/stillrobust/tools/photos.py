"""Photos of any origin: which files of a folder they are, and how each kind is read."""

import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image as Pillow

from stillrobust.data.decoding import (
    DEFAULT_READING,
    DecodedImage,
    ImageReading,
    RefusedImageError,
    decode_image,
)
from stillrobust.data.image_headers import IMAGE_SUFFIXES, OTHER_SUFFIXES, UNREADABLE
from stillrobust.errors import UserError
from stillrobust.samples import Image

EXIF_ORIENTATION = 0x0112


def find_photos(source: Path) -> tuple[list[str], dict[str, str]]:
    """Find the visible photos below a folder; a single photo is also accepted.

    Args:
        source: A folder, or one photo.

    Returns:
        The photos' paths inside the folder, with ``/``, sorted; and the photos that are skipped,
        with the reason: links out of the folder, and kinds that are not read.

    Raises:
        UserError: If ``source`` does not exist or holds no photo.
    """
    if source.is_file():
        return [source.name], {}
    if not source.is_dir():
        raise UserError(
            f"Expected a photo or a folder of photos at {source}, but found neither; check the path"
        )
    names, skipped, root = [], {}, source.resolve()
    for path in source.rglob("*"):
        inside, suffix = path.relative_to(source), path.suffix.lower()
        hidden = any(part.startswith(".") for part in inside.parts)
        if suffix not in IMAGE_SUFFIXES | OTHER_SUFFIXES or hidden or not path.is_file():
            continue
        if suffix in OTHER_SUFFIXES:
            skipped[inside.as_posix()] = f"{suffix} files are not read; save it as an 8-bit PNG"
        elif path.resolve().is_relative_to(root):
            names.append(inside.as_posix())
        else:
            skipped[inside.as_posix()] = "a link out of the folder"
    if not names:
        raise UserError(
            f"Expected photos ({', '.join(sorted(IMAGE_SUFFIXES))}) below {source}, but found none;"
            " check the path"
        )
    return sorted(names), skipped


def read_photo(content: bytes, reading: ImageReading = DEFAULT_READING) -> tuple[Image | None, str]:
    """Decode a photo as the readers of ``data/`` do; see :mod:`stillrobust.data.decoding`.

    Args:
        content: The file's bytes.
        reading: Options.

    Returns:
        The image, uint8 (H, W, 3) RGB, and a remark on what was converted (or ""). ``None`` and the
        reason if the photo cannot be used.
    """
    try:
        decoded = decode_image(content, reading)
    except RefusedImageError as refused:
        return None, f"{refused.found}; {refused.advice}"
    return decoded.pixels, "; ".join(_conversions(content, decoded, reading))


def _conversions(content: bytes, decoded: DecodedImage, reading: ImageReading) -> list[str]:
    """What was converted when the photo was read."""
    mode, frames, turned, transparent = "", 1, False, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            opened = Pillow.open(BytesIO(content))
            mode, frames = opened.mode, getattr(opened, "n_frames", 1)
            turned = opened.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1)
            transparent = "transparency" in opened.info
    except UNREADABLE:  # TIFFs of some numbers of bits are read by OpenCV only
        pass
    deep = decoded.header.bits > 8 or decoded.header.sample != "unsigned"
    remarks = {
        "animated, first picture taken": frames > 1,
        "CMYK converted": mode == "CMYK",
        "alpha dropped": mode in ("RGBA", "LA", "PA") or transparent or decoded.header.has_alpha,
        "turned by its EXIF orientation": turned and reading.exif,
        f"the upper 8 of {decoded.header.bits} bits taken": deep and reading.scale is None,
        reading.protocol: deep and reading.scale is not None,
        f"{decoded.clipped:.2%} of its values are outside and were clipped": decoded.clipped > 0,
    }
    return [remark for remark, holds in remarks.items() if holds]
