"""Files that are not what they should be: read by a stated rule or refused in one sentence, never
altered without a word.
"""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from stillrobust.data import open_dataset
from stillrobust.data.decoding import is_cut_off
from stillrobust.data.image_headers import read_header
from stillrobust.data.reading import read_image, read_label_map, read_unrotated
from stillrobust.errors import UserError

SMOOTH = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)
PICTURE = np.stack([SMOOTH, SMOOTH // 2, 200 - SMOOTH], axis=2)
READERS = {
    "read_image": read_image,
    "read_unrotated": lambda path: np.asarray(read_unrotated(path)),
}


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def with_thumbnail():
    """A JPEG with another JPEG, end marker and all, in its EXIF block."""
    thumbnail = encoded(PICTURE[:20, :20], "JPEG")
    block = b"Exif\0\0" + thumbnail
    content = encoded(PICTURE, "JPEG")
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]


def png(width, height, bits, colour, rows):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(3 * 2**bits))) if colour == PALETTE else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + palette
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


GREY, PALETTE = 0, 3  # a PNG's colour types
TRAILERS = {
    "bytes": b"\0" * 50,
    # a phone's motion photo: it looks like a scan without end
    "a video": b"\0\0\0\x18ftypmp42" + b"\xff\xda\xff\x00\xff" * 9,
    "half a second picture": encoded(PICTURE, "JPEG")[:-40],
}
WHOLE = {
    "jpeg": encoded(PICTURE, "JPEG", quality=95),
    "progressive jpeg": encoded(PICTURE, "JPEG", progressive=True),
    "jpeg with a thumbnail": with_thumbnail(),
    "jpeg with restart markers": encoded(PICTURE, "JPEG", restart_marker_blocks=1),
    **{
        f"jpeg and {name}": encoded(PICTURE, "JPEG") + trailer for name, trailer in TRAILERS.items()
    },
    "png": encoded(PICTURE, "PNG"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", WHOLE)
def test_cut_off_files_are_refused(tmp_path, name, reader):
    """OpenCV gives the rest of a cut JPEG as grey, without a word."""
    whole, path = WHOLE[name], tmp_path / "image"
    path.write_bytes(whole)
    image = READERS[reader](path)
    assert np.abs(image.astype(int) - PICTURE).mean() < 6
    end = len(whole) - len(TRAILERS.get(name.removeprefix("jpeg and "), b""))
    for place in [0, 1, 10, *range(100, end - 1, max(1, end // 12)), end - 1]:
        path.write_bytes(whole[:place])
        with pytest.raises(UserError, match=r"cut off or empty|cannot be decoded") as caught:
            READERS[reader](path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", [*READERS.values(), read_label_map])
def test_another_library_s_opener_changes_no_sentence(tmp_path, reader, monkeypatch):
    """Ultralytics replaces Pillow's opener, which then raises ImportError for HEIF."""

    def opener(*arguments, **keywords):
        raise ModuleNotFoundError("No module named 'pi_heif'")

    monkeypatch.setattr(Pillow, "open", opener)
    path = tmp_path / "image"
    path.write_bytes(b"no image, and long enough to be one")
    with pytest.raises(UserError, match=r"cannot be decoded|cut off"):
        reader(path)


def test_every_length_of_a_jpeg():
    whole = WHOLE["jpeg with a thumbnail"]
    assert not is_cut_off(whole, read_header(whole))
    for length in range(2, len(whole)):
        assert is_cut_off(whole[:length], read_header(whole[:length]))


def test_cmyk_becomes_rgb(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Pillow.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=95))
    for read in READERS.values():
        assert np.abs(read(path).astype(int) - PICTURE).mean() < 8


def test_sixteen_bits_become_their_upper_eight(tmp_path):
    deep = PICTURE.astype(np.uint16) * 257 + 3
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), (deep >> 8).astype(np.uint8))


def test_the_exif_orientation_is_applied_but_for_imagenet(tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    (tmp_path / "a.jpg").write_bytes(encoded(PICTURE, "JPEG", exif=exif, quality=95))
    turned = read_image(tmp_path / "a.jpg")
    assert turned.shape == (80, 60, 3)
    assert np.abs(turned.astype(int) - np.rot90(PICTURE, -1)).mean() < 6
    assert np.asarray(read_unrotated(tmp_path / "a.jpg")).shape == (60, 80, 3)


@pytest.mark.parametrize("reader", [*READERS, "read_label_map"])
@pytest.mark.parametrize("size", [(20_000, 9_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_enormous_images_are_refused_by_their_header(tmp_path, size, reader):
    (tmp_path / "a.png").write_bytes(png(*size, 8, GREY, bytes(1000)))
    read = {**READERS, "read_label_map": read_label_map}[reader]
    with pytest.raises(UserError, match=r"at most 178,956,970 pixels|cannot be decoded"):
        read(tmp_path / "a.png")


def test_label_maps_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "a.png"
    for image in (Pillow.fromarray(SMOOTH.astype(np.uint16)), Pillow.fromarray(PICTURE)):
        image.save(path)
        with pytest.raises(UserError, match="label PNG of at most 8 bits"):
            read_label_map(path)
    Pillow.fromarray(SMOOTH).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="cannot be decoded"):
        read_label_map(path)


@pytest.mark.parametrize("colour", [GREY, PALETTE])
@pytest.mark.parametrize(
    ("bits", "row", "indices"),
    [(1, b"\x40", [0, 1]), (2, b"\x1b", [0, 1, 2, 3]), (4, b"\x01\x7f", [0, 1, 7, 15])],
)
def test_label_maps_of_few_bits_hold_the_stored_indices(tmp_path, bits, row, indices, colour):
    """Pillow stretches grey to 0..255, so that class 15 of a map of 4 bits would become 255 and not
    count.
    """
    (tmp_path / "a.png").write_bytes(png(len(indices), 1, bits, colour, b"\0" + row))
    assert read_label_map(tmp_path / "a.png").tolist() == [indices]


def upside(kind, **options):
    exif = Pillow.Exif()
    exif[0x0112] = 3  # half a turn
    return encoded(np.ascontiguousarray(PICTURE[::-1, ::-1]), kind, exif=exif, **options)


ALPHA = np.dstack([PICTURE, SMOOTH])
OTHER_KINDS = {
    "a.webp": encoded(PICTURE, "WEBP", lossless=True),
    "turned.webp": upside("WEBP", lossless=True),
    "alpha.webp": encoded(ALPHA, "WEBP", lossless=True, exact=True),
    "two.webp": encoded(
        PICTURE,
        "WEBP",
        lossless=True,
        save_all=True,
        append_images=[Pillow.fromarray(PICTURE // 2)],
    ),
    "a.bmp": encoded(PICTURE, "BMP"),
    "a.tif": encoded(PICTURE, "TIFF"),
    "turned.tif": upside("TIFF"),
    "deep.TIFF": cv2.imencode(".tiff", PICTURE[..., ::-1].astype(np.uint16) * 257 + 3)[1].tobytes(),
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_other_kinds_are_read_by_the_same_rules(tmp_path, name):
    place = tmp_path / "val" / "a"
    place.mkdir(parents=True)
    (place / name).write_bytes(OTHER_KINDS[name])
    np.testing.assert_array_equal(open_dataset(f"folders:{tmp_path}", "val")[0].image, PICTURE)
    for length in range(0, len(OTHER_KINDS[name]) // 2, 50):
        (place / name).write_bytes(OTHER_KINDS[name][:length])
        with pytest.raises(UserError, match=r"cut off or empty|cannot be decoded"):
            read_image(place / name)


def test_alpha_does_not_darken_a_tiff(tmp_path):
    (tmp_path / "a.tif").write_bytes(encoded(ALPHA, "TIFF"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), PICTURE)


@pytest.mark.parametrize("kind", ["folders", "maps"])
def test_names_that_are_no_utf8_are_refused_when_a_set_is_opened(tmp_path, kind):
    """No record, table or page could hold them."""
    place = tmp_path / ("val" if kind == "folders" else "images/val") / "a"
    place.mkdir(parents=True)
    (place / os.fsdecode(b"\xe9.png")).write_bytes(WHOLE["png"])
    with pytest.raises(
        UserError, match=r"names of files in UTF-8, but got '.*\\udce9.png'; rename it"
    ) as caught:
        open_dataset(f"{kind}:{tmp_path}", "val")
    str(caught.value).encode()
