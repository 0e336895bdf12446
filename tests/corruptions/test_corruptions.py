import hashlib

import cv2
import numpy as np
import pytest

from stillrobust import corrupt
from stillrobust.corruptions import (
    C_BAR,
    COMMON,
    CORRUPTIONS,
    DETERMINISTIC,
    EXTRA,
    GROUPS,
    REFERENCE,
    c_bar,
    corruption_protocol,
    image_key,
    textures,
)
from stillrobust.corruptions.filters import gaussian_filter, gaussian_weights, zoom_axis
from stillrobust.errors import UserError


def photo(height=40, width=56, seed=0):
    rng = np.random.RandomState(seed)
    coarse = rng.randint(0, 256, (5, 7, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def test_names():
    assert len(COMMON) == 15
    assert EXTRA == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    assert tuple(CORRUPTIONS) == (*REFERENCE, *C_BAR)
    assert (*COMMON, *EXTRA) == REFERENCE  # the reference's order
    assert tuple(c_bar.C_BAR) == C_BAR
    groups = {
        "noise": COMMON[:3],
        "blur": COMMON[3:7],
        "weather": COMMON[7:11],
        "digital": COMMON[11:],
    }
    assert groups == GROUPS
    assert sorted(name for members in GROUPS.values() for name in members) == sorted(COMMON)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(40, 56), (1, 1), (2, 90), (65, 3), (33, 33), (600, 20)])
def test_contract(name, size):
    """Shape and dtype kept, input untouched, the same pixels again, whatever the size."""
    image = photo(*size)
    before = image.copy()
    for severity in (1, 5):
        out = corrupt(image, name, severity, seed=3, image_id="a.png")
        assert out.shape == image.shape
        assert out.dtype == np.uint8
        assert np.array_equal(image, before)
        assert np.array_equal(out, corrupt(image, name, severity, seed=3, image_id="a.png"))
    assert np.array_equal(corrupt(image, name, 0), image)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_grows_and_draws_are_keyed(name):
    image = photo(64, 64)
    means = [
        np.abs(corrupt(image, name, s, seed=0, image_id="x").astype(int) - image).mean()
        for s in (1, 2, 3, 4, 5)
    ]
    assert means[-1] > 0
    # frost, fog and elastic draw whole fields, so that one image's order can vary; saturate turns
    # from less to more
    if name not in {
        "saturate",
        "frost",
        "fog",
        "elastic_transform",
        "snow",
        "spatter",
        "motion_blur",
    }:
        assert means[-1] > means[0]
    other = corrupt(image, name, 3, seed=0, image_id="y")
    assert np.array_equal(corrupt(image, name, 3, seed=0, image_id="x"), other) == (
        name in DETERMINISTIC
    )


def test_contrast_and_pixelate_by_hand():
    halves = np.zeros((4, 8, 3), np.uint8)
    halves[:, 4:] = 101  # mean 50.5; severity 1 keeps 0.4 of the distance: 30.3 and 70.7
    assert set(np.unique(corrupt(halves, "contrast", 1))) == {30, 70}
    blocks = np.kron(np.arange(4, dtype=np.uint8).reshape(2, 2), np.ones((4, 4), np.uint8)) * 60
    blocks = np.repeat(blocks[..., None], 3, axis=2)
    assert np.array_equal(corrupt(blocks, "pixelate", 5), blocks)  # 0.25 of 8 px: one pixel a block


def test_brightness_and_saturate_by_hand():
    black = np.zeros((2, 2, 3), np.uint8)
    assert (corrupt(black, "brightness", 2) == 51).all()  # 0.2 * 255
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 100
    assert corrupt(red, "brightness", 1).tolist() == [[[125, 0, 0]]]  # V 100 -> 125.5
    grey = np.full((1, 1, 3), 200, np.uint8)
    # the reference's reddish grey
    assert corrupt(grey, "saturate", 4).tolist() == [[[200, 180, 180]]]
    assert corrupt(grey, "saturate", 1).tolist() == [[[200, 200, 200]]]


def test_noise_by_its_moments():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = corrupt(grey, "gaussian_noise", 1, seed=0, image_id="a").astype(float)
    assert noisy.std() == pytest.approx(0.08 * 255, rel=0.02)
    impulses = corrupt(grey, "impulse_noise", 3, seed=0, image_id="a")
    assert (impulses != 128).mean() == pytest.approx(0.09, rel=0.05)
    assert (impulses == 255).sum() == pytest.approx((impulses == 0).sum(), rel=0.1)
    shots = corrupt(grey, "shot_noise", 1, seed=0, image_id="a").astype(float)
    # Poisson: variance = mean
    assert shots.std() == pytest.approx(255 * np.sqrt(128 / 255 / 60), rel=0.03)


def test_filters_by_hand():
    assert gaussian_weights(1.0, 4.0, True).sum() == pytest.approx(1)
    assert len(gaussian_weights(1.0, 4.0, True)) == 9
    step = np.zeros((5, 5))
    step[2, 2] = 1
    weights = gaussian_weights(0.5, 4.0, True)
    assert gaussian_filter(step, 0.5, True) == pytest.approx(np.outer(weights, weights))
    first, second, near, far = zoom_axis(8, 2.0)
    # the middle four, ends aligned
    assert first * near + second * far == pytest.approx(np.linspace(2, 5, 8))


def test_defocus_keeps_the_references_gain():
    """At severity 4 the disk's array cuts it, so that flat 200 becomes 202; at 1 rounding makes it
    199.
    """
    flat = np.full((64, 64, 3), 200, np.uint8)
    assert corrupt(flat, "defocus_blur", 4)[32, 32, 0] == 202
    assert corrupt(flat, "defocus_blur", 1)[32, 32, 0] == 199


def test_grey_becomes_rgb():
    grey = photo()[..., 0]
    out = corrupt(grey, "gaussian_blur", 1)
    assert np.array_equal(out, corrupt(np.repeat(grey[..., None], 3, 2), "gaussian_blur", 1))
    assert np.array_equal(out, corrupt(grey[..., None], "gaussian_blur", 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((photo(), "fgo", 1), "Did you mean: fog"),
        ((photo(), "fog", 6), "severity"),
        ((photo(), "fog", True), "severity"),
        ((photo(), "fog", 1), "pass rng"),
        ((photo() / 255.0, "fog", 1), "uint8"),
        ((np.zeros((4, 4, 4), np.uint8), "contrast", 1), "drop alpha"),
        ((np.zeros((0, 4, 3), np.uint8), "contrast", 1), "shape"),
        (([[1]], "contrast", 1), "list"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(UserError, match=message):
        corrupt(*arguments)


def test_generated_frost_says_so(monkeypatch):
    monkeypatch.setattr(textures, "find_frost_folder", lambda: None)
    textures.load_textures.cache_clear()
    textures.enlarged_texture.cache_clear()
    try:
        with pytest.warns(UserWarning, match="not comparable"):
            assert corruption_protocol()["frost_textures"].startswith("generated:")
        assert corrupt(photo(), "frost", 3, seed=0, image_id="a").shape == (40, 56, 3)
    finally:
        textures.load_textures.cache_clear()
        textures.enlarged_texture.cache_clear()


def test_the_key_is_the_same_everywhere():
    """SHA-256 of "7/fog/3/a/b.png", as little-endian words."""
    assert image_key(7, "fog", 3, "a/b.png").words[:3] == (FROZEN)


FROZEN = tuple(
    int.from_bytes(hashlib.sha256(b"7/fog/3/a/b.png").digest()[i : i + 4], "little")
    for i in (0, 4, 8)
)


def test_frost_is_scaled_to_eleven_tenths_of_what_is_needed(monkeypatch):
    """A 300 x 560 texture for 600 x 400 pixels: the height is short by a factor of 2, and 1.1 times
    that is taken.
    """
    monkeypatch.setattr(
        textures, "load_textures", lambda: ("test", (np.zeros((300, 560, 3), np.uint8),))
    )
    textures.enlarged_texture.cache_clear()
    try:
        assert textures.frost_layer(0, 600, 400, None, True).shape == (660, 1232, 3)
        assert textures.frost_layer(0, 200, 400, None, False).shape == (330, 616, 3)
    finally:
        textures.enlarged_texture.cache_clear()
