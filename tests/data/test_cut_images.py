"""Files that lost a part, also those whose end somebody repaired, are refused."""

import struct
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from stillrobust.data.jpeg_scans import parse_jpeg
from stillrobust.data.reading import read_image, read_unrotated
from stillrobust.errors import BadImageError
from tests.data.image_kinds import encoded, tiff

RNG = np.random.default_rng(0)
PICTURE = cv2.resize(
    RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8), (150, 110), interpolation=cv2.INTER_CUBIC
)
PICTURE = np.clip(PICTURE + RNG.normal(0, 5, PICTURE.shape), 0, 255).astype(np.uint8)
# The last pixels are as grey as what decoders make of missing data.
GREY_END = PICTURE.copy()
GREY_END[-20:] = 128
READERS = {"read_image": read_image, "read_unrotated": read_unrotated}


def turned(orientation):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


JPEGS = {
    "4:2:0": encoded(PICTURE, "JPEG"),
    "4:4:4": encoded(PICTURE, "JPEG", subsampling=0, optimize=True),
    "4:2:2": encoded(PICTURE, "JPEG", subsampling=1),
    "grey": encoded(PICTURE[..., 0], "JPEG"),
    "CMYK": encoded(Pillow.fromarray(PICTURE).convert("CMYK"), "JPEG"),
    "restart markers": encoded(PICTURE, "JPEG", restart_marker_blocks=7),
    "progressive": encoded(PICTURE, "JPEG", progressive=True),
    **{f"orientation {one}": encoded(PICTURE, "JPEG", **turned(one)) for one in (3, 6, 8)},
    "grey end": encoded(GREY_END, "JPEG"),
    "grey end, restart markers": encoded(GREY_END, "JPEG", restart_marker_rows=1),
    "all grey": encoded(np.full((50, 70, 3), 128, np.uint8), "JPEG"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("whole", JPEGS.values(), ids=JPEGS)
def test_a_cut_jpeg_with_a_new_end_marker_is_refused(tmp_path, whole, reader):
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    reader(path)
    scan = parse_jpeg(whole).scans[-1]
    if parse_jpeg(whole).frame == 0xC2:  # in the last scan only the finest details are missing
        places = [scan.start // 3, scan.start // 2, scan.start - 20]
    else:
        size = len(whole) - scan.start
        places = [scan.start + int(share * size) for share in (0.02, 0.3, 0.5, 0.9)]
    for place in places:
        path.write_bytes(whole[:place].rstrip(b"\xff") + b"\xff\xd9")
        with pytest.raises(BadImageError, match=r"cut off or empty|cannot be decoded"):
            reader(path)


def chunks(*parts, damage=0):
    return b"".join(
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content) ^ (damage if kind == b"IDAT" else 0))
        for kind, content in parts
    )  # fmt: skip


HEADER = (b"IHDR", struct.pack(">IIBBBBB", 150, 110, 8, 2, 0, 0, 0))
ROWS = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PICTURE))
END = (b"IEND", b"")
PNG = b"\x89PNG\r\n\x1a\n"
WEBP, BMP, TIFF = (
    encoded(PICTURE, kind, **options)
    for kind, options in (("WEBP", {}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"}))
)
PLAIN_TIFF, GIF = encoded(PICTURE, "TIFF"), encoded(Pillow.fromarray(PICTURE).quantize(99), "GIF")
PGM = encoded(PICTURE[..., 0], "PPM")
WEBP_CUT = WEBP[: len(WEBP) // 2]
DAMAGED = {
    "png, wrong checksum": PNG + chunks(HEADER, (b"IDAT", ROWS), END, damage=1),
    "png, cut data, new end": PNG + chunks(HEADER, (b"IDAT", ROWS[: len(ROWS) // 2]), END),
    "png, cut by a few bytes": PNG + chunks(HEADER, (b"IDAT", ROWS[:-9]), END),
    "png, a chunk cut, new end": PNG
    + chunks(HEADER, (b"IDAT", ROWS))[: len(ROWS) // 2]
    + chunks(END),
    "webp": WEBP_CUT,
    "webp, sizes repaired": WEBP_CUT[:4]
    + struct.pack("<I", len(WEBP_CUT) - 8)
    + WEBP_CUT[8:16]
    + struct.pack("<I", len(WEBP_CUT) - 20)
    + WEBP_CUT[20:],
    "bmp": BMP[:-10],
    "tiff": TIFF[: len(TIFF) // 2],
    "tiff, without compression": PLAIN_TIFF[:-10],
    "tiff, fewer strips than rows": tiff(PICTURE[..., 0], 8, tag_257=10_000),
    "gif": GIF[: len(GIF) // 2] + b"\0;",
    "pgm": PGM[:-10],
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_other_damaged_files_are_refused(tmp_path, content, reader):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(BadImageError, match=r"cut off or empty|cannot be decoded"):
        reader(tmp_path / "a")


def test_the_undamaged_png_is_read(tmp_path):
    (tmp_path / "a").write_bytes(PNG + chunks(HEADER, (b"IDAT", ROWS), END))
    np.testing.assert_array_equal(read_image(tmp_path / "a"), PICTURE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM"])
def test_random_damage_is_refused_or_read(tmp_path, kind):
    whole, rng = encoded(PICTURE[:30, :40], kind), np.random.default_rng(1)
    for _ in range(150):
        content = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 700), rng.integers(1, 6)):
            content[place] = rng.integers(256)
        (tmp_path / "a").write_bytes(content[: rng.integers(1, len(whole) + 1)])
        for reader in READERS.values():
            with suppress(BadImageError):
                reader(tmp_path / "a")
