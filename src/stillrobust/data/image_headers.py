"""What an image file is, from its first bytes: kind, size, bits of a sample, or why it is refused.

Nothing is decoded here.
"""

import io
import struct
import warnings
from dataclasses import dataclass

from PIL import Image as PillowImage
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from stillrobust.data.jpeg_scans import JpegLayout, parse_jpeg

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
IMAGE_KINDS = "PNG, JPEG, WebP, BMP, TIFF, GIF or PPM"
MAX_PIXELS = 178_956_970  # Pillow's limit against decompression bombs
# Raised by Pillow for files that are damaged or not images. Ultralytics replaces Pillow's opener,
# which then may raise an ImportError for HEIF.
UNREADABLE = (
    OSError, SyntaxError, ValueError, ImportError, TypeError, LookupError, EOFError,
    ArithmeticError, struct.error,
)  # fmt: skip
PNG_START = b"\x89PNG\r\n\x1a\n"
DEFLATE_RATIO = 1032  # at most so many bytes from one; a larger picture is not in the file
PNG_ALPHA = frozenset({4, 6})  # colour types
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Start of a file, and its name in messages.
OTHER_STARTS = {
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"8BPS": "a Photoshop file",
    b"v/1\x01": "an OpenEXR image",
    b"#?RADIANCE": "a Radiance HDR image",
    b"SIMPLE  =": "a FITS file",
    b"%PDF": "a PDF file",
    b"\x93NUMPY": "a NumPy array",
}
# Brands of files that begin with the box "ftyp".
BRANDS = {b"avif": "an AVIF image", b"avis": "an AVIF image"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "a HEIF image"
)
OTHER_SUFFIXES = frozenset({
    ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jpx", ".jxl", ".psd", ".exr", ".hdr", ".dng",
    ".cr2", ".cr3", ".nef", ".arw", ".fits",
})  # fmt: skip
"""Suffixes of images that are refused by name."""
# TIFF: tags, and the photometric interpretations that can be read.
WIDTH, HEIGHT, BITS, PHOTOMETRIC, STRIPS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, PLANES = (
    256, 257, 258, 262, 273, 274, 277, 278, 284,
)  # fmt: skip
EXTRA, FORMAT, DNG = 338, 339, 50706
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
TIFF_COLOURS = {BLACK_IS_ZERO, WHITE_IS_ZERO, RGB, 3, 5, 6}  # palette, CMYK and YCbCr too
SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "unsigned"}


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file states."""

    kind: str
    """Such as ``PNG``."""
    width: int
    height: int
    bits: int = 8
    """Of a sample."""
    sample: str = "unsigned"
    """unsigned, signed or floating-point."""
    has_alpha: bool = False
    """Only stated for PNG and TIFF."""
    white_is_zero: bool = False
    orientation: int = 1
    """1..8 as in EXIF; only stated for TIFF, which decoders turn in any case."""
    refused: str = ""
    """Why the image cannot be read, or empty."""
    jpeg: JpegLayout | None = None


def read_header(content: bytes) -> ImageHeader | None:
    """Read the header of an image file.

    Args:
        content: The file's bytes.

    Returns:
        The header; ``None`` if the content is no image that is read or refused by name.
    """
    if content.startswith(PNG_START):
        return _png_header(content)
    if content.startswith(b"\xff\xd8"):
        return _jpeg_header(content)
    if content.startswith(TIFF_STARTS):
        return _tiff_header(content)
    if content.startswith(b"BM"):
        return _bmp_header(content)
    refused = _other_kind(content)
    if refused:
        return ImageHeader(refused, 0, 0, refused=f"it is {refused}")
    return _header_by_pillow(content)


def _png_header(content: bytes) -> ImageHeader | None:
    if len(content) < 33:
        return None
    width, height, bits, colour = struct.unpack(">IIBB", content[16:26])
    if width * height <= MAX_PIXELS and width * height * bits // 8 > DEFLATE_RATIO * len(content):
        return None
    return ImageHeader("PNG", width, height, bits, has_alpha=colour in PNG_ALPHA)


def has_all_chunks(png: bytes) -> bool:
    """Whether the chunks of a PNG, as long as they say, lie in the file up to the last one."""
    place = len(PNG_START)
    while place + 12 <= len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        if png[place + 4 : place + 8] == b"IEND":
            return end <= len(png)
        place = end
    return False


def _bmp_header(content: bytes) -> ImageHeader | None:
    if len(content) < 26:
        return None
    old = content[14] == 12  # the header of OS/2
    width, height = struct.unpack_from("<HH" if old else "<ii", content, 18)
    return ImageHeader("BMP", abs(width), abs(height))


def _jpeg_header(content: bytes) -> ImageHeader:
    layout = parse_jpeg(content)
    refused = "" if layout.bits == 8 else f"it is a JPEG of {layout.bits} bits a sample"
    return ImageHeader(
        "JPEG", layout.width, layout.height, layout.bits, refused=refused, jpeg=layout
    )


def _other_kind(content: bytes) -> str:
    """The name of a kind that is refused, or empty."""
    if content[4:8] == b"ftyp":
        brands = {content[8:12], *(content[at : at + 4] for at in range(16, 40, 4))}
        return next((name for brand, name in BRANDS.items() if brand in brands), "")
    if content[128:132] == b"DICM":
        return "a DICOM file"
    return next((name for start, name in OTHER_STARTS.items() if content.startswith(start)), "")


def _tiff_header(content: bytes) -> ImageHeader | None:
    start = content[: 16 if b"+" in content[:4] else 8]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = ImageFileDirectory_v2(start)
            stream = io.BytesIO(content)
            stream.seek(tags.next)
            tags.load(stream)
            width, height = int(tags[WIDTH]), int(tags[HEIGHT])
            samples = int(tags.get(SAMPLES, 1))
            colours, planes = int(tags.get(PHOTOMETRIC, BLACK_IS_ZERO)), int(tags.get(PLANES, 1))
            bits = max(map(int, tags.get(BITS, (1,))))
            sample = SAMPLE_FORMATS.get(max(tags.get(FORMAT, (1,))), "complex")
            extra, orientation = set(tags.get(EXTRA, ())), tags.get(ORIENTATION, 1)
            is_raw = DNG in tags
            strips = -(-height // int(tags.get(ROWS_PER_STRIP, height)))
            if STRIPS in tags and len(tags[STRIPS]) < strips:  # decoders would leave it black
                return None
    except UNREADABLE:
        return None
    deep = bits > 8 or sample != "unsigned"
    reasons = {
        "it is a raw photo (DNG)": is_raw,
        f"it has {samples} bands": samples > 4 or (deep and samples == 2),
        "its samples are complex numbers": sample == "complex",
        f"its colours are of kind {colours}": colours not in TIFF_COLOURS,
        f"its colours of {bits} bits are neither grey nor RGB": deep and colours > RGB,
        f"its planes of {bits} bits are separate": deep and planes != 1 and samples > 1,
        "its colours are multiplied by alpha": 1 in extra,
    }
    refused = next((reason for reason, holds in reasons.items() if holds), "")
    inverted = colours == WHITE_IS_ZERO
    turned = orientation if orientation in range(1, 9) else 1
    alpha = not extra.isdisjoint((1, 2))
    return ImageHeader(
        "TIFF", width, height, bits, sample, alpha, inverted, turned, refused=refused
    )


def _header_by_pillow(content: bytes) -> ImageHeader | None:
    """The header of a WebP, GIF or PPM."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
            opened = PillowImage.open(io.BytesIO(content))
    except PillowImage.DecompressionBombError:
        return ImageHeader("image", MAX_PIXELS, MAX_PIXELS)
    except UNREADABLE:
        return None
    kind, refused = str(opened.format), ""
    if kind not in ("WEBP", "GIF", "PPM"):
        refused = f"it is a file of kind {kind}"
    elif kind == "PPM" and (opened.mode not in ("L", "RGB") or opened.tile[0][0] != "raw"):
        refused = "it is a PPM of other than 8 bits, or as text"
    return ImageHeader(kind, *opened.size, refused=refused)
