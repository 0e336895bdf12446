"""Every row of the table of images in ``docs/reference/data.md``: right pixels, or a refusal by
name, the same in datasets, in folders that are corrupted, and for ImageNet.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from stillrobust.data.decoding import ImageReading, decode_image
from stillrobust.data.image_headers import OTHER_SUFFIXES
from stillrobust.data.reading import read_image, read_unrotated
from stillrobust.errors import BadImageError, UserError
from stillrobust.tools.photos import find_photos, read_photo
from tests.data.image_kinds import CASES, GREY, RAW, THERMAL, cv2_encoded

FLAT = {f"{row}: {name}": case for row, cases in CASES.items() for name, case in cases.items()}


def pixels_of(expected):
    grey = np.asarray(expected)
    return (np.dstack([grey] * 3) if grey.ndim == 2 else grey).astype(int)


@pytest.mark.parametrize("case", FLAT.values(), ids=FLAT)
def test_every_kind_has_its_right_pixels_or_is_refused(tmp_path, case):
    path = tmp_path / "image"
    path.write_bytes(case.content)
    photo, remark = read_photo(case.content, case.reading)
    if isinstance(case.expected, str):
        with pytest.raises(BadImageError, match=case.expected) as caught:
            read_image(path, case.reading)
        assert str(path) in str(caught.value)
        assert str(path) not in caught.value.fault
        assert photo is None
        assert remark in str(caught.value)
        if case.reading == ImageReading():
            with pytest.raises(BadImageError, match=case.expected):
                read_unrotated(path)
        return
    read = read_image(path, case.reading)
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    assert read.shape == pixels_of(case.expected).shape
    assert np.abs(read - pixels_of(case.expected)).max() <= case.tolerance
    np.testing.assert_array_equal(photo, read)
    if case.reading == RAW:
        unrotated = np.asarray(read_unrotated(path))
        assert np.abs(unrotated.astype(int) - read).max() <= case.tolerance


def test_the_page_has_these_rows():
    page = (Path(__file__).parents[2] / "docs/reference/data.md").read_text()
    table = page.partition("| Image | What is read |\n|---|---|\n")[2].partition("\n\n")[0]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()] == list(CASES)


def test_the_protocol_states_how_images_were_read():
    assert ImageReading().protocol == ""
    both = ImageReading(scale=[7000, 8530.5], exif=False)
    assert both.protocol == "values 7000 to 8530.5 become 0 to 255; EXIF orientation ignored"
    assert both == ImageReading((7000, 8530.5), False)


@pytest.mark.parametrize(
    "scale", [5, "ab", (1,), (1, 2, 3), (2, 1), (1, 1), (0, float("nan")), (0, float("inf"))]
)
def test_a_wrong_scale_is_one_sentence(scale):
    with pytest.raises(UserError, match=r"Expected scale=\(low, high\) .* but got"):
        ImageReading(scale=scale)
    with pytest.raises(UserError, match="Expected exif=True or exif=False, but got 'no'"):
        ImageReading(exif="no")


def test_clipped_values_are_counted():
    decoded = decode_image(cv2_encoded(".png", THERMAL), ImageReading((7030, 8410)))
    outside = np.mean((THERMAL < 7030) | (THERMAL > 8410))
    assert 0 < outside == decoded.clipped < 0.2
    _, remark = read_photo(cv2_encoded(".png", THERMAL), ImageReading((7030, 8410)))
    assert remark == (
        f"values 7030 to 8410 become 0 to 255; {outside:.2%} of its values are outside and were"
        " clipped"
    )
    assert decode_image(cv2_encoded(".png", THERMAL), ImageReading((7000, 8500))).clipped == 0


def test_other_suffixes_are_skipped_by_name(tmp_path):
    (tmp_path / "a.png").write_bytes(cv2_encoded(".png", GREY))
    for suffix in OTHER_SUFFIXES:
        (tmp_path / f"b{suffix}").write_bytes(b"")
    names, skipped = find_photos(tmp_path)
    assert names == ["a.png"]
    assert set(skipped) == {f"b{suffix}" for suffix in OTHER_SUFFIXES}
    assert all(re.search("not read; save it as", reason) for reason in skipped.values())
