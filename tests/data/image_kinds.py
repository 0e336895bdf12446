"""Files of every kind of image, one list for each row of the table in
``docs/reference/data.md``, each with its right pixels or the words of its error.
"""

import io
import struct
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

from stillrobust.data.decoding import ImageReading

HEIGHT, WIDTH = 12, 20
GREY = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) * 8).astype(np.uint8)  # 0..240
PICTURE = np.stack([GREY, GREY // 2, 250 - GREY], axis=2)
DEEP = GREY.astype(np.uint16) * 256 + 7
DEEP_PICTURE = PICTURE.astype(np.uint16) * 256 + 7
THERMAL = 7000 + GREY.astype(np.uint16) * 6  # 14 bits of a thermal camera: 7000..8440


class Case(NamedTuple):
    """A file, how it is read, and what comes out."""

    content: bytes
    expected: object
    """Pixels, uint8 (H, W) or (H, W, 3), or a regular expression of the error."""
    reading: ImageReading = ImageReading()
    tolerance: int = 0


# OpenCV 4 cannot decode TIFFs of 32-bit integers
UINT32 = (
    r"32-bit unsigned numbers\) are 0 to 240;"
    if int(cv2.__version__.split(".")[0]) >= 5
    else "cannot be decoded"
)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def cv2_encoded(suffix, image):
    return cv2.imencode(suffix, image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()


def tiff(values, bits, photometric=1, sample_format=1, order="<", **tags):
    """An uncompressed TIFF of one strip; ``values`` (H, W) or (H, W, C), packed to ``bits``."""
    height, width = values.shape[:2]
    samples = values.shape[2] if values.ndim == 3 else 1
    if bits in (8, 16, 32):
        kind = {1: "u", 2: "i", 3: "f"}[sample_format]
        data = values.astype(f"{order}{kind}{bits // 8}").tobytes()
    else:
        rows = values[..., None] >> np.arange(bits)[::-1] & 1
        data = np.packbits(rows.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: samples}
    entries |= {278: height, 279: len(data), 339: sample_format}
    entries |= {int(tag.removeprefix("tag_")): value for tag, value in tags.items()}
    begin = 8 + 2 + 12 * len(entries) + 4
    extra = b""
    if samples > 2:  # the bits of each sample do not fit into the entry
        extra = struct.pack(f"{order}{samples}H", *[bits] * samples)
        extra += struct.pack(f"{order}{samples}H", *[sample_format] * samples)
    entries[273] = begin + len(extra)
    packed = b""
    for tag, value in sorted(entries.items()):
        if tag in (258, 339) and samples > 2:
            place = begin + (0 if tag == 258 else 2 * samples)
            packed += struct.pack(f"{order}HHII", tag, 3, samples, place)
        else:
            packed += struct.pack(f"{order}HHII", tag, 4, 1, value)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return start + struct.pack(f"{order}H", len(entries)) + packed + bytes(4) + extra + data


def turned(kind, orientation, **options):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return encoded(PICTURE, kind, exif=exif, **options)


# How a viewer shows an image with each EXIF orientation.
UPRIGHT = {
    1: PICTURE,
    2: PICTURE[:, ::-1],
    3: PICTURE[::-1, ::-1],
    4: PICTURE[::-1],
    5: PICTURE.swapaxes(0, 1),
    6: np.rot90(PICTURE, -1),
    7: np.rot90(PICTURE, 2).swapaxes(0, 1),
    8: np.rot90(PICTURE),
}
TURNED_KINDS = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
}
RAW = ImageReading(exif=False)
THERMAL_SCALE = ImageReading(scale=(7000, 8530))
THERMAL_PIXELS = np.rint((THERMAL.astype(float) - 7000) / 6).astype(np.uint8)
FEW = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
ALPHA = np.dstack([PICTURE, 255 - GREY])
PALETTE = Pillow.fromarray(PICTURE).quantize(256)
PALETTE_PIXELS = np.asarray(PALETTE.convert("RGB"))
SECOND = {"save_all": True, "append_images": [Pillow.fromarray(255 - PICTURE)]}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
NARROW = (
    r"values \(16-bit unsigned numbers\) are 7000 to 8440 of 0 to 65535; .* scale=\(7000, 8440\)"
)
BY_NAME = r"but it is {}; save it as an 8-bit PNG"
TWELVE_BITS = bytearray(encoded(PICTURE, "JPEG"))
TWELVE_BITS[TWELVE_BITS.index(b"\xff\xc0") + 4] = 12

CASES = {
    "8-bit grey": {
        "png": Case(encoded(GREY, "PNG"), GREY),
        "jpeg": Case(encoded(GREY, "JPEG", quality=100), GREY, tolerance=2),
        "bmp": Case(encoded(GREY, "BMP"), GREY),
        "tiff": Case(tiff(GREY, 8), GREY),
        "tiff, white is zero": Case(tiff(255 - GREY, 8, photometric=0), GREY),
        "pgm": Case(encoded(GREY, "PPM"), GREY),
        "gif": Case(encoded(GREY, "GIF"), GREY),
    },
    "8-bit RGB": {
        "png": Case(encoded(PICTURE, "PNG"), PICTURE),
        "jpeg": Case(encoded(PICTURE, "JPEG", quality=100, subsampling=0), PICTURE, tolerance=3),
        "webp": Case(encoded(PICTURE, "WEBP", lossless=True), PICTURE),
        "bmp": Case(encoded(PICTURE, "BMP"), PICTURE),
        "tiff": Case(encoded(PICTURE, "TIFF", compression="tiff_lzw"), PICTURE),
        "ppm": Case(encoded(PICTURE, "PPM"), PICTURE),
    },
    "1, 2 or 4 bits": {
        "png, 1": Case(encoded(Pillow.fromarray(GREY > 99), "PNG"), (GREY > 99) * 255),
        "bmp, 1": Case(encoded(Pillow.fromarray(GREY > 99), "BMP"), (GREY > 99) * 255),
        "tiff, 1": Case(tiff(FEW % 2, 1), FEW % 2 * 255),
        "tiff, 1, white is zero": Case(tiff(FEW % 2, 1, photometric=0), (1 - FEW % 2) * 255),
        "tiff, 2": Case(tiff(FEW % 4, 2), FEW % 4 * 85),
        "tiff, 4": Case(tiff(FEW % 16, 4), FEW % 16 * 17),
    },
    "palette": {
        "png": Case(encoded(PALETTE, "PNG"), PALETTE_PIXELS),
        "png, transparent": Case(encoded(PALETTE, "PNG", transparency=3), PALETTE_PIXELS),
        "gif": Case(encoded(PALETTE, "GIF"), PALETTE_PIXELS),
        "bmp": Case(encoded(PALETTE, "BMP"), PALETTE_PIXELS),
        "tiff": Case(encoded(PALETTE, "TIFF"), PALETTE_PIXELS),
    },
    "alpha": {
        "png, LA": Case(encoded(Pillow.fromarray(ALPHA[..., ::3], "LA"), "PNG"), GREY),
        "png, RGBA": Case(encoded(ALPHA, "PNG"), PICTURE),
        "webp": Case(encoded(ALPHA, "WEBP", lossless=True, exact=True), PICTURE),
        "bmp": Case(encoded(ALPHA, "BMP"), PICTURE),
        "tiff": Case(encoded(ALPHA, "TIFF"), PICTURE),
        "tiff, a fourth band of no stated kind": Case(tiff(ALPHA, 8, 2, tag_338=0), PICTURE),
        "png, 16 bits": Case(
            cv2.imencode(".png", np.dstack([DEEP_PICTURE[..., ::-1], DEEP]))[1].tobytes(), PICTURE
        ),
        "tiff, 16 bits": Case(tiff(np.dstack([DEEP_PICTURE, DEEP]), 16, 2, tag_338=2), PICTURE),
    },
    "CMYK": {
        "jpeg": Case(
            encoded(Pillow.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=100),
            PICTURE,
            tolerance=12,
        ),
        "tiff": Case(encoded(Pillow.fromarray(PICTURE).convert("CMYK"), "TIFF"), PICTURE),
    },
    "9 to 16 bits": {
        "png, grey": Case(cv2_encoded(".png", DEEP), GREY),
        "png, RGB": Case(cv2_encoded(".png", DEEP_PICTURE), PICTURE),
        "tiff, grey": Case(tiff(DEEP, 16), GREY),
        "tiff, grey, big-endian": Case(tiff(DEEP, 16, order=">"), GREY),
        "tiff, white is zero": Case(tiff(65535 - DEEP, 16, photometric=0), GREY),
        "tiff, RGB": Case(tiff(DEEP_PICTURE, 16, 2), PICTURE),
        "tiff, 10": Case(tiff(GREY.astype(int) * 4 + 1, 10), GREY),
        "tiff, 12": Case(tiff(GREY.astype(int) * 16 + 5, 12), GREY),
        "tiff, 14": Case(tiff(GREY.astype(int) * 64 + 9, 14), GREY),
    },
    "9 to 16 bits, a small part used": {
        "png": Case(cv2_encoded(".png", THERMAL), NARROW),
        "tiff": Case(tiff(THERMAL, 16), NARROW),
        "tiff, 12 bits in 16": Case(
            tiff(PICTURE.astype(int) * 16, 16, 2), r"are 0 to 4000 of 0 to 65535"
        ),
        "tiff, 12 bits": Case(tiff(GREY.astype(int) + 5, 12), r"12-bit .* are 5 to 245 of 0 to 40"),
        "one value": Case(cv2_encoded(".png", DEEP * 0), r"0 to 0 .* scale=\(0, 65535\)"),
        "png, scaled": Case(cv2_encoded(".png", THERMAL), THERMAL_PIXELS, THERMAL_SCALE),
        "tiff, scaled": Case(tiff(THERMAL, 16), THERMAL_PIXELS, THERMAL_SCALE),
        "tiff, 12 bits, scaled": Case(tiff(GREY.astype(int) + 5, 12), GREY, ImageReading((5, 260))),
        "clipped": Case(
            cv2_encoded(".png", THERMAL), (THERMAL > 8000) * 255, ImageReading((8000, 8001))
        ),
        "8 bits, not scaled": Case(encoded(GREY, "PNG"), GREY, THERMAL_SCALE),
    },
    "signed, 32-bit or floating-point": {
        "float": Case(
            tiff(GREY / np.float32(255), 32, sample_format=3),
            r"32-bit floating-point numbers\) are 0 to 0\.94.*scale=\(0, 0\.94",
        ),
        "int32": Case(
            tiff(GREY.astype(int), 32, sample_format=2), r"signed numbers\) are 0 to 240"
        ),
        "uint32": Case(tiff(GREY.astype(int), 32), UINT32),
        "int16": Case(tiff(GREY.astype(int) - 50, 16, sample_format=2), r"are -50 to 190;"),
        "float, scaled": Case(
            tiff(GREY / np.float32(255), 32, sample_format=3), GREY, ImageReading((0, 1))
        ),
        "float RGB, scaled": Case(
            tiff(PICTURE / np.float32(255), 32, 2, 3), PICTURE, ImageReading((0, 1))
        ),
        "int32, scaled": Case(
            tiff(GREY.astype(int) * 1000, 32, sample_format=2), GREY, ImageReading((0, 255_000))
        ),
        "int16, scaled": Case(
            tiff(GREY.astype(int) - 50, 16, sample_format=2), GREY, ImageReading((-50, 205))
        ),
        "not a number": Case(
            tiff(np.where(GREY == 0, np.nan, GREY), 32, sample_format=3),
            r"include NaN or infinity",
            ImageReading((0, 1)),
        ),
    },
    "EXIF orientation": {
        f"{kind}, {orientation}, {'as stored' if reading == RAW else 'turned'}": Case(
            turned(kind, orientation, **options),
            PICTURE if reading == RAW else UPRIGHT[orientation],
            reading,
            tolerance=3 if kind == "JPEG" else 0,
        )
        for kind, options in TURNED_KINDS.items()
        for orientation in UPRIGHT
        for reading in (RAW, ImageReading())
    }
    | {
        f"tiff, {bits} bits, {orientation}, {reading.exif}": Case(
            tiff(values, bits, tag_274=orientation),
            pixels if reading == RAW else np.rot90(pixels, -1 if orientation == 6 else 1),
            reading,
        )
        for bits, values, pixels in ((1, FEW % 2, FEW % 2 * 255), (16, DEEP, GREY))
        for orientation in (6, 8)
        for reading in (RAW, ImageReading())
    },
    "animation, several pages": {
        "gif": Case(encoded(PALETTE, "GIF", **SECOND), PALETTE_PIXELS),
        "webp": Case(encoded(PICTURE, "WEBP", lossless=True, **SECOND), PICTURE),
        "png": Case(encoded(PICTURE, "PNG", **SECOND), PICTURE),
        "tiff": Case(encoded(PICTURE, "TIFF", **SECOND), PICTURE),
        "jpeg (MPO)": Case(
            encoded(PICTURE, "MPO", quality=100, subsampling=0, **SECOND), PICTURE, tolerance=3
        ),
    },
    "colour profile (ICC)": {
        "png": Case(encoded(PICTURE, "PNG", icc_profile=PROFILE), PICTURE),
        "tiff": Case(encoded(PICTURE, "TIFF", icc_profile=PROFILE), PICTURE),
        "webp": Case(encoded(PICTURE, "WEBP", lossless=True, icc_profile=PROFILE), PICTURE),
    },
    "another kind of file": {
        "jpeg 2000": Case(
            b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60), BY_NAME.format("a JPEG 2000 image")
        ),
        "jpeg xl": Case(b"\xff\x0a" + bytes(60), BY_NAME.format("a JPEG XL image")),
        "avif": Case(b"\0\0\0\x1cftypavif" + bytes(60), BY_NAME.format("an AVIF image")),
        "heif": Case(b"\0\0\0\x18ftypheic" + bytes(60), BY_NAME.format("a HEIF image")),
        "photoshop": Case(b"8BPS\0\1" + bytes(60), BY_NAME.format("a Photoshop file")),
        "dicom": Case(bytes(128) + b"DICM" + bytes(60), BY_NAME.format("a DICOM file")),
        "jpeg, 12 bits": Case(bytes(TWELVE_BITS), BY_NAME.format("a JPEG of 12 bits a sample")),
        "ppm, 16 bits": Case(
            b"P5\n2 2\n65535\n" + bytes(8), BY_NAME.format("a PPM of other than 8 bits, or as text")
        ),
        "dng": Case(tiff(GREY, 8, tag_50706=1), BY_NAME.format(r"a raw photo \(DNG\)")),
        "tiff, 5 bands": Case(tiff(np.dstack([PICTURE, GREY, GREY]), 8, 2), "it has 5 bands"),
        "tiff, CIELAB": Case(tiff(PICTURE, 8, 8), "its colours are of kind 8"),
        "tiff, 16-bit CMYK": Case(tiff(np.dstack([PICTURE, GREY]), 16, 5), "neither grey nor RGB"),
        "tiff, separate planes": Case(
            tiff(DEEP_PICTURE, 16, 2, tag_284=2), "planes of 16 bits are separate"
        ),
        "tiff, multiplied": Case(tiff(ALPHA, 8, 2, tag_338=1), "are multiplied by alpha"),
        "text": Case(b"<html>" + bytes(60), "cannot be decoded"),
    },
}
