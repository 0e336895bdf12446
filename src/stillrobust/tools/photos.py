"""Photos of any origin: which files of a folder they are, and how each kind is read."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from stillrobust.data.reading import MAX_PIXELS, decode_image
from stillrobust.errors import UserError
from stillrobust.samples import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
EXIF_ORIENTATION = 0x0112


def find_photos(source: Path) -> tuple[list[str], dict[str, str]]:
    """Find the visible photos below a folder; a single photo is also accepted.

    Args:
        source: A folder, or one photo.

    Returns:
        The photos' paths inside the folder, with ``/``, sorted; and the photos that are skipped
        because they are links out of the folder, with the reason.

    Raises:
        UserError: If ``source`` does not exist or holds no photo.
    """
    if source.is_file():
        return [source.name], {}
    if not source.is_dir():
        raise UserError(
            f"Expected a photo or a folder of photos at {source}, but found neither; check the path"
        )
    names, links, root = [], {}, source.resolve()
    for path in source.rglob("*"):
        inside = path.relative_to(source)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix.lower() not in SUFFIXES or hidden or not path.is_file():
            continue
        if path.resolve().is_relative_to(root):
            names.append(inside.as_posix())
        else:
            links[inside.as_posix()] = "a link out of the folder"
    if not names:
        raise UserError(
            f"Expected photos ({', '.join(sorted(SUFFIXES))}) below {source}, but found none; check"
            " the path"
        )
    return sorted(names), links


def read_photo(name: str, content: bytes) -> tuple[Image | None, str]:
    """Decode a photo as the readers of ``data/`` do.

    EXIF orientation is applied, alpha is dropped, CMYK is converted, and the first frame of an
    animation is taken. Files that are damaged or truncated, samples of 16 bits, and images beyond
    Pillow's size limit are rejected.

    Args:
        name: The file's name; its suffix decides whether OpenCV or Pillow decodes it.
        content: The file's bytes.

    Returns:
        The image, uint8 (H, W, 3) RGB, and a remark on what was converted (or ""). ``None`` and the
        reason if the photo cannot be used.
    """
    try:
        with warnings.catch_warnings():
            # sizes beyond the limit are rejected below, with a reason
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            opened = Pillow.open(BytesIO(content))
            mode, frames = opened.mode, getattr(opened, "n_frames", 1)
            if opened.width * opened.height > MAX_PIXELS:
                return None, f"{opened.width}x{opened.height} is larger than {MAX_PIXELS} pixels"
            png_of_16_bits = content[:8] == b"\x89PNG\r\n\x1a\n" and content[24] == 16
            if mode.startswith(("I", "F")) or png_of_16_bits:
                return None, "more than 8 bits a sample; scale it to 8 bits first"
            turned = opened.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1)
            by_opencv = Path(name).suffix.lower() in {".png", ".jpg", ".jpeg"} and frames == 1
            # OpenCV applies the orientation itself
            upright = ImageOps.exif_transpose(opened) if turned and not by_opencv else opened
            # Pillow decodes every file first: it rejects truncated ones; OpenCV fills them grey
            converted = np.array(upright.convert("RGB"))
    # the message of UnidentifiedImageError holds a memory address, which would differ in every run;
    # for ImportError see reading.UNREADABLE
    except (UnidentifiedImageError, ImportError):
        return None, "cannot be read: no known image format"
    except Pillow.DecompressionBombError:
        return None, f"larger than {MAX_PIXELS} pixels"
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError) as error:
        return None, f"cannot be read: {str(error) or type(error).__name__}"[:200]
    if by_opencv:
        decoded = decode_image(np.frombuffer(content, np.uint8))
        if decoded is None:
            return None, "cannot be read by OpenCV"
        converted = decoded
    remarks = {
        "animated, first picture taken": frames > 1,
        "CMYK converted": mode == "CMYK",
        "alpha dropped": mode in ("RGBA", "LA", "PA") or "transparency" in opened.info,
        "turned by its EXIF orientation": turned,
    }
    return converted, "; ".join(remark for remark, holds in remarks.items() if holds)
