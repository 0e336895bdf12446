"""The ten of ImageNet-C-bar: the authors' pixels, cases by hand, fast draws beside exact ones."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from stillrobust import corrupt
from stillrobust.corruptions import (
    C_BAR,
    COMMON,
    CORRUPTIONS,
    c_bar,
    displacement,
    resolve_corruptions,
)
from stillrobust.corruptions.arithmetic import FAST
from stillrobust.corruptions.spectral_noise import LARGEST_FACTOR, spectral_noise, transform_2d

photos = pytest.importorskip("skimage.data")
GOLDEN = json.loads((Path(__file__).parents[1] / "fixtures" / "c_bar_digests.json").read_text())
"""Made with the authors' code; see its entry ``source``."""
IMAGES = {
    "astro224": photos.astronaut()[:224, 110:334],
    "chelsea96": photos.chelsea()[60:252:2, 130:322:2, :3],
    "astro63": photos.astronaut()[40:103, 180:243],
    "coffee224": photos.coffee()[100:324, 200:424],
    "coffee32": photos.coffee()[140:236:3, 240:336:3],
}
SEED = 1234
IMAGENET = [key for key in GOLDEN["pixels"] if key.startswith(("astro", "chelsea"))]
CIFAR = [key for key in GOLDEN["pixels"] if key.startswith("cifar/") and key.split("/")[2] in C_BAR]


def digest(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("key", IMAGENET)
def test_every_pixel_is_the_authors(key):
    image, name, severity = key.split("/")
    rng = np.random.RandomState(SEED)
    made = corrupt(IMAGES[image], name, int(severity), rng=rng)
    assert digest(made) == GOLDEN["pixels"][key]
    assert rng.random_sample() == GOLDEN["next_uniform"][f"{image}/{name}"]


@pytest.mark.parametrize("key", CIFAR)
def test_every_pixel_is_the_authors_with_the_magnitudes_of_cifar(key):
    _, image, name, severity = key.split("/")
    rng = np.random.RandomState(SEED)
    made = corrupt(IMAGES[image], name, int(severity), rng=rng, regime="cifar")
    assert digest(made) == GOLDEN["pixels"][key]


@pytest.mark.parametrize("case", GOLDEN["extra"], ids=lambda case: case["key"])
def test_other_seeds_and_photos(case):
    """With the seed whose gradient is NaN in the authors' code."""
    image = IMAGES[case["input"].removeprefix("input/")]
    rng = np.random.RandomState(case["seed"])
    made = corrupt(image, case["corruption"], case["severity"], rng=rng)
    stride = case["stride"]
    assert digest(made[::stride, ::stride]) == GOLDEN["pixels"][case["key"]]


STRENGTHS = {
    "blue_noise_sample": lambda m: (3 * m / 10 - 2.5,),
    "plasma_noise": lambda m: (6.4 * m,),
    "checkerboard_cutout": lambda m: (m / 10,),
    "cocentric_sine_waves": lambda m: (12.8 * m,),
    "single_frequency_greyscale": lambda m: (19.6 * m,),
    "brownish_noise": lambda m: (6.4 * m,),
    "perlin_noise": lambda m: (0.05 * m,),
    "sparkles": lambda m: (0.01 * m,),
    "inverse_sparkles": lambda m: (0.013 * 10 * m,),
    "caustic_refraction": lambda m: (0.05 * m, 0.2 * m),
}
"""Magnitude -> parameters, as in the authors' corrupt.py."""


@pytest.mark.parametrize("name", C_BAR)
def test_all_five_severities_have_the_published_magnitudes(name):
    """The authors' pixels above are of severities 1, 3 and 5 alone."""
    for regime, key in (("imagenet", "magnitudes"), ("cifar", "magnitudes_of_cifar")):
        if name not in GOLDEN[key]:
            assert CORRUPTIONS[name].severities[regime] is None
            continue
        for severity, magnitude in enumerate(GOLDEN[key][name], start=1):
            parameters = CORRUPTIONS[name].parameters(severity, regime)
            assert parameters == pytest.approx(STRENGTHS[name](magnitude))


def test_the_fixture_is_whole():
    assert len(IMAGENET) == 90  # three images, ten corruptions, severities 1, 3, 5
    assert len(CIFAR) == 15
    assert len(GOLDEN["extra"]) == 31


@pytest.mark.parametrize("name", C_BAR)
def test_fast_draws_change_the_image_by_as_much(name):
    """Both take the same numbers; only normal ones and the functions' last bits differ."""
    image = IMAGES["chelsea96"]
    change = {
        draws: np.mean(
            [
                np.abs(
                    corrupt(image, name, 3, seed=0, image_id=str(index), draws=draws).astype(float)
                    - image
                ).mean()
                for index in range(12)
            ]
        )
        for draws in ("fast", "exact")
    }
    assert change["fast"] == pytest.approx(change["exact"], rel=0.08)
    if "sparkles" not in name:
        made = [
            corrupt(image, name, 3, seed=0, image_id="a", draws=draws).astype(int)
            for draws in ("fast", "exact")
        ]
        assert np.abs(made[0] - made[1]).mean() < 0.05


def test_single_frequency_by_hand():
    """Two equal frequencies of opposite order: the numbers of the generator, put into the sine."""
    rng = np.random.RandomState(7)
    first = rng.uniform(-np.pi, np.pi)
    pair = [first, rng.uniform(-abs(first), abs(first))]
    order = rng.permutation(2)
    phase = rng.uniform(0, 2 * np.pi)
    grey = np.full((3, 5, 3), 100, np.uint8)
    made = corrupt(grey, "single_frequency_greyscale", 1, rng=np.random.RandomState(7))
    # magnitude 1 of 10, at row 2 and column 4
    expected = 100 + 19.6 * np.sin(4 * pair[order[0]] + 2 * pair[order[1]] + phase)
    assert made[2, 4].tolist() == [int(expected)] * 3


def test_blue_noise_blacks_out_its_published_share():
    """As the authors' code: 1.2, 2.2, 3.8, 9.7, 20.6 % of the pixels."""
    white = np.full((224, 224, 3), 255, np.uint8)
    for severity, share in enumerate((0.012, 0.022, 0.038, 0.097, 0.206), start=1):
        black = np.mean(
            [
                (corrupt(white, "blue_noise_sample", severity, seed=0, image_id=i) == 0).mean()
                for i in "abc"
            ]
        )
        assert black == pytest.approx(share, abs=0.005)


def test_checkerboard_covers_about_half_of_the_fraction():
    black = np.zeros((224, 224, 3), np.uint8)
    covered = np.mean(
        [
            (corrupt(black, "checkerboard_cutout", 3, seed=0, image_id=str(i)) == 128).mean()
            for i in range(60)
        ]
    )
    assert covered == pytest.approx(0.2, abs=0.03)  # fraction 0.4


def test_inverse_sparkles_are_white_far_from_the_star():
    image = np.zeros((400, 40, 3), np.uint8)
    made = corrupt(image, "inverse_sparkles", 5, seed=0, image_id="a")
    assert made.max() > 250
    assert made.min() == 0


@pytest.mark.parametrize("length", [1, 2, 7, 23, 29, 45, 64, 97])
def test_the_transform_is_numpys(length):
    rng = np.random.RandomState(length)
    values = rng.randn(length, 6) + 1j * rng.randn(length, 6)
    real, imaginary = transform_2d((values.real.copy(), values.imag.copy()))
    expected = np.fft.ifft2(values) * values.size
    assert np.abs(real + 1j * imaginary - expected).max() < 1e-11
    assert LARGEST_FACTOR < 29  # so that both ways are tried


def test_noise_has_its_spectrum():
    """Blue noise grows with the frequency, and its deviation is 1."""
    for exact in (True, False):
        field = spectral_noise((96, 64), np.random.RandomState(0), np.sqrt, exact)
        assert field.std() == pytest.approx(1, rel=1e-5)
        spectrum = np.abs(np.fft.fft2(field))
        assert spectrum[20:40, 15:30].mean() > 3 * spectrum[1:8, 1:6].mean()


def test_functions_of_fast_draws_are_close_to_numpys():
    x = np.linspace(-300, 300, 20001)
    assert np.abs(FAST.sin(x) - np.sin(x)).max() < 1e-4
    assert np.abs(FAST.cos(x) - np.cos(x)).max() < 1e-4
    y = np.linspace(-3, 3, 101)[:, None]
    across = np.linspace(-2, 2, 101)[None]
    assert np.abs(FAST.arctan2(y, across) - np.arctan2(y, across)).max() < 2e-5
    above = np.geomspace(1e-9, 1e9, 500)
    assert FAST.power(above, 1.4) == pytest.approx(above**1.4, rel=1e-12)
    assert FAST.power(np.zeros(1), 0.5).tolist() == [0.0]


@pytest.mark.parametrize("draws", ["exact", "fast"])
def test_the_field_of_caustic_refraction_is_what_moves_the_pixels(draws):
    """At severity 3 and 224 px the shift is about 1 px in the mean, and at most 13 were seen."""
    size = (224, 224)
    fields = [
        displacement(size, "caustic_refraction", 3, seed=0, image_id=i, draws=draws) for i in "abcd"
    ]
    inside = np.linalg.norm(np.stack(fields)[:, 1:-1, 1:-1], axis=-1)
    assert inside.mean() == pytest.approx(1.0, abs=0.35)
    assert inside.max() < 20
    # without light, a ramp shows where each pixel comes from
    ramp = np.repeat(np.arange(224, dtype=np.uint8)[None, :, None], 224, axis=0).repeat(3, axis=2)
    lens, _ = CORRUPTIONS["caustic_refraction"].parameters(3)
    rng, again = (np.random.RandomState(5) for _ in range(2))
    made = c_bar.caustic_refraction(ramp, rng, lens, 0.0)[..., 0].astype(float)
    field = displacement(size, "caustic_refraction", 3, rng=again)
    rows, columns = np.indices(size) + np.moveaxis(field, -1, 0)
    shown = (rows >= 0) & (rows <= 223) & (columns >= 0) & (columns <= 223)
    assert np.abs(made - columns)[shown].max() <= 1.01  # grey levels are truncated
    assert shown.mean() > 0.9


def test_the_set_is_no_part_of_mpc():
    assert not set(C_BAR) & set(COMMON)
    assert resolve_corruptions(["c-bar"]) == C_BAR
    assert resolve_corruptions(["common", "c-bar"]) == (*COMMON, *C_BAR)
    assert not set(C_BAR) - set(CORRUPTIONS)
