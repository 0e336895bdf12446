"""Streams against numpy's, fast draws against exact ones, and regimes."""

import cv2
import numpy as np
import pytest

from stillrobust import corrupt, get_corruption_names
from stillrobust.corruptions import (
    COMMON,
    CORRUPTIONS,
    DETERMINISTIC,
    EXTRA,
    REFERENCE,
    REGIMES,
    SEVERITIES,
    draws,
)
from stillrobust.corruptions.draws import Key
from stillrobust.errors import UserError


def photo(height, width, seed=0):
    """Smooth parts and hard edges."""
    rng = np.random.RandomState(seed)
    smooth = cv2.resize(
        rng.randint(0, 256, (5, 7, 3)).astype(np.uint8),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    edges = cv2.resize(
        rng.randint(0, 256, (4, 5, 3)).astype(np.uint8),
        (width, height),
        interpolation=cv2.INTER_NEAREST,
    )
    return np.where(smooth[..., :1] > 128, smooth, edges)


@pytest.mark.parametrize("before", [0, 1, 2, 3, 311, 623, 624, 625])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 623, 2001])
def test_streams_are_numpys(before, count):
    """The same numbers from any place in the stream, and the same place afterwards."""

    def both():
        one, other = np.random.RandomState(11), np.random.RandomState(11)
        for rng in (one, other):
            rng.tomaxint(1)
            for _ in range(before):
                rng.randint(0, 2, dtype=np.uint32)
        return one, other

    ours, numpys = both()
    for _ in range(2):
        assert np.array_equal(draws.uniforms(ours, count), numpys.random_sample(count))
        assert draws.normals(ours, count) == pytest.approx(numpys.standard_normal(count), rel=1e-13)
        for largest in (1, 3, 5, 7):
            assert np.array_equal(
                draws.integers(ours, largest, count), numpys.randint(0, largest + 1, count)
            )
    assert ours.random_sample() == numpys.random_sample()
    assert ours.standard_normal() == pytest.approx(numpys.standard_normal(), rel=1e-13)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_photons_are_numpys(severity):
    image = photo(50, 61)
    photons = (60, 25, 12, 5, 3)[severity - 1]
    ours, numpys = np.random.RandomState(3), np.random.RandomState(3)
    counted = numpys.poisson(image / 255.0 * photons)
    assert np.array_equal(
        corrupt(image, "shot_noise", severity, rng=ours),
        (np.clip(counted / float(photons), 0, 1) * 255).astype(np.uint8),
    )
    assert ours.random_sample() == numpys.random_sample()


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in DETERMINISTIC])
def test_the_generator_goes_on_where_the_references_does(name):
    """Never at a negative place, which numpy would read before its state at; the next draws are
    those after the reference's.
    """
    image, seeds = photo(64, 64), range(500 if name == "shot_noise" else 5)
    for severity in SEVERITIES:
        photons = image / 255.0 * (60, 25, 12, 5, 3)[severity - 1]
        for seed in seeds:
            rng = np.random.RandomState(seed)
            corrupt(image, name, severity, rng=rng)
            assert 0 <= rng.get_state()[2] <= 624
            if name == "shot_noise":
                numpys = np.random.RandomState(seed)
                numpys.poisson(photons)
                assert (
                    rng.randint(0, 2**32, 3, np.uint32).tolist()
                    == numpys.randint(0, 2**32, 3, np.uint32).tolist()
                )


def test_noise_is_the_formula():
    """Exact gaussian, speckle and impulse noise, written out."""
    image = photo(33, 47)
    fractions = image / 255.0
    normal = np.random.RandomState(5).normal(size=image.shape, scale=0.18)
    expected = (np.clip(fractions + normal, 0, 1) * 255).astype(np.uint8)
    assert np.array_equal(
        corrupt(image, "gaussian_noise", 3, rng=np.random.RandomState(5)), expected
    )
    rng = np.random.RandomState(5)
    hit = rng.random_sample(image.shape) <= 0.09
    white = rng.random_sample(image.shape) <= 0.5
    expected = np.where(hit, np.where(white, 255, 0), image)
    assert np.array_equal(
        corrupt(image, "impulse_noise", 3, rng=np.random.RandomState(5)), expected
    )


def test_a_stream_that_is_not_the_twisters():
    with pytest.raises(UserError, match="MT19937"):
        corrupt(photo(8, 8), "gaussian_noise", 1, rng=np.random.RandomState(np.random.Philox(1)))


NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("grey", [40, 128, 220])
def test_fast_noise_has_exact_noises_histogram(name, grey):
    """Total variation between fast and exact is what it is between two streams of exact; neighbours
    know nothing of each other.
    """
    flat = np.full((300, 300, 3), grey, np.uint8)

    def histogram(image):
        return np.bincount(image.reshape(-1), minlength=256) / image.size

    for severity in (1, 3, 5):
        fast = corrupt(flat, name, severity, seed=0, image_id="a")
        exact, again = (
            corrupt(flat, name, severity, seed=0, image_id=i, draws="exact") for i in "bc"
        )
        chance = np.abs(histogram(exact) - histogram(again)).sum() / 2
        assert np.abs(histogram(fast) - histogram(exact)).sum() / 2 < 1.4 * chance + 1e-3
        noise = fast.astype(float) - fast.mean()
        for shifted in (np.roll(noise, 1, 0), np.roll(noise, 1, 1), np.roll(noise, 1, 2)):
            # 270,000 samples: six standard deviations
            assert abs((noise * shifted).mean() / noise.var()) < 0.012


STATISTICS = {
    "mean": lambda change: change.mean(),
    "size": lambda change: np.abs(change).mean(),
    "spread": lambda change: change.std(),
    "roughness": lambda change: np.abs(np.diff(change, axis=1)).mean(),
}


@pytest.mark.parametrize(
    "name", [n for n in CORRUPTIONS if n not in DETERMINISTIC and n not in NOISES]
)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_fast_fields_are_distributed_as_exact_ones(name, severity):
    """Means over 60 streams of four statistics of the change; 4.5 standard errors apart at most."""
    image = photo(64, 96)
    found = {}
    for how in ("fast", "exact"):
        changes = [
            corrupt(image, name, severity, seed=1, image_id=str(i), draws=how).astype(float) - image
            for i in range(60)
        ]
        found[how] = {
            label: np.array([function(change) for change in changes])
            for label, function in STATISTICS.items()
        }
    for label in STATISTICS:
        fast, exact = found["fast"][label], found["exact"][label]
        error = np.sqrt((fast.var() + exact.var()) / 60) + 1e-9
        assert abs(fast.mean() - exact.mean()) / error < 4.5, label


def test_keys_do_not_share_streams():
    """Two images of one study: their noise does not repeat at any shift."""
    flat = np.full((64, 64, 3), 128, np.uint8)
    one, other = (
        corrupt(flat, "gaussian_noise", 3, seed=0, image_id=i).reshape(-1).astype(float)
        for i in "ab"
    )
    one, other = (noise - noise.mean() for noise in (one, other))
    correlation = np.fft.irfft(np.fft.rfft(one) * np.conj(np.fft.rfft(other))) / (
        one.std() * other.std() * one.size
    )
    assert np.abs(correlation).max() < 0.06


def test_deterministic_ones_need_no_draws_and_are_almost_one_with_both_draws():
    image = photo(40, 52)
    for name in DETERMINISTIC:
        gap = np.abs(
            corrupt(image, name, 3).astype(int)
            - corrupt(image, name, 3, rng=np.random.RandomState(0))
        )
        assert gap.max() <= 1  # fast takes what is near a whole number for flat
        assert (gap > 0).mean() < 0.02


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_regimes_keep_the_contract(regime, name):
    if CORRUPTIONS[name].severities.get(regime, ()) is None:
        with pytest.raises(UserError, match="no published severities"):
            corrupt(photo(32, 32), name, 3, seed=0, image_id="a", regime=regime)
        return
    for size in ((32, 32), (64, 64), (1, 5), (45, 33)):
        for severity in SEVERITIES:
            for how in ("exact", "fast"):
                out = corrupt(
                    photo(*size), name, severity, seed=0, image_id="a", regime=regime, draws=how
                )
                assert out.shape == (*size, 3)
                assert out.dtype == np.uint8


def test_regimes_by_hand():
    flat = np.full((100, 100, 3), 128, np.uint8)
    for regime, sigma in (
        ("cifar", 0.08),
        ("tiny-imagenet", 0.12),
        ("imagenet", 0.18),
        ("imagenet-c", 0.18),
    ):
        assert corrupt(
            flat, "gaussian_noise", 3, seed=0, image_id="a", regime=regime
        ).std() == pytest.approx(255 * sigma, rel=0.03)
    image = photo(32, 32)
    # a disk of radius 0.3 is one pixel
    smoothed = cv2.GaussianBlur(image.astype(np.float64), (3, 3), 0.4)
    assert np.abs(corrupt(image, "defocus_blur", 1, regime="cifar") - smoothed).max() < 1.01
    assert np.array_equal(
        corrupt(photo(40, 40), "pixelate", 2, regime="imagenet-c"),
        corrupt(photo(40, 40), "pixelate", 2),
    )
    # enlarging by area average and by nearest neighbour part where the sizes do not divide
    odd = photo(97, 101)
    assert any(
        not np.array_equal(
            corrupt(odd, "pixelate", s, regime="imagenet-c"), corrupt(odd, "pixelate", s)
        )
        for s in SEVERITIES
    )
    with pytest.raises(UserError, match="Did you mean: cifar"):
        corrupt(image, "fog", 1, seed=0, image_id="a", regime="cifr")


def test_the_originals_elastic_is_an_affine_map_at_severity_one_of_cifar():
    """Strength 0 there: what is left maps straight lines to straight lines, so that a ramp stays a
    plane inside.
    """
    ramp = np.repeat(np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))[..., None], 3, 2)
    moved = corrupt(ramp, "elastic_transform", 1, seed=0, image_id="a", regime="cifar")[
        20:44, 20:44, 0
    ].astype(float)
    assert np.abs(np.diff(moved, 2, axis=1)).max() <= 2  # truncation alone bends it
    assert np.abs(np.diff(moved, 2, axis=0)).max() <= 2


def test_bgr_is_the_image_reversed():
    image = photo(48, 64)
    for name in ("jpeg_compression", "frost", "spatter"):
        ours = corrupt(image, name, 3, seed=0, image_id="a", channel_order="bgr")
        assert np.array_equal(
            ours, corrupt(image[..., ::-1], name, 3, seed=0, image_id="a")[..., ::-1]
        )
        assert not np.array_equal(ours, corrupt(image, name, 3, seed=0, image_id="a"))


def test_the_references_calls_work():
    image = photo(40, 40)
    expected = corrupt(image, "fog", 3, rng=np.random.RandomState(4))
    calls = (
        lambda: corrupt(image, corruption_name="fog", severity=3),
        lambda: corrupt(image, corruption_number=9, severity=3),
        lambda: corrupt(image, 3, "fog"),
        lambda: corrupt(image, severity=3, corruption_name="fog"),
    )
    for call in calls:
        np.random.seed(4)
        assert np.array_equal(call(), expected)
    assert corrupt(image[..., 0], corruption_name="contrast").shape == (40, 40, 3)
    assert get_corruption_names() == list(COMMON)
    assert get_corruption_names("validation") == list(EXTRA)
    assert get_corruption_names("all") == list(REFERENCE)
    assert get_corruption_names("blur") == [
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
    ]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"corruption_number": 19}, {"corruption_number": -1}, {"corruption_name": "fgo"}],
)
def test_wrong_calls_of_the_reference(arguments):
    with pytest.raises(ValueError, match=r"Expected|Did you mean"):
        corrupt(photo(8, 8), **arguments)


def test_generators_and_draws():
    image = photo(30, 30)
    one = corrupt(image, "snow", 3, rng=np.random.default_rng(1))
    assert np.array_equal(one, corrupt(image, "snow", 3, rng=np.random.default_rng(1)))
    assert not np.array_equal(
        one, corrupt(image, "snow", 3, rng=np.random.default_rng(1), draws="exact")
    )
    exact = corrupt(image, "snow", 3, seed=0, image_id="a", draws="exact")
    assert not np.array_equal(exact, corrupt(image, "snow", 3, seed=0, image_id="a"))
    with pytest.raises(UserError, match=r"RandomState or np\.random\.Generator"):
        corrupt(image, "snow", 3, rng=0)


def test_views_and_frozen_arrays_are_read_and_left_alone():
    image = photo(40, 60)
    frozen = image.copy()
    frozen.flags.writeable = False
    backwards = np.asfortranarray(image[::-1])[::-1]
    for name in CORRUPTIONS:
        expected = corrupt(image, name, 2, seed=0, image_id="a")
        assert np.array_equal(corrupt(frozen, name, 2, seed=0, image_id="a"), expected)
        assert np.array_equal(corrupt(backwards, name, 2, seed=0, image_id="a"), expected)
        assert expected.flags.writeable


def test_a_keys_words_are_used_once():
    key = Key(tuple(range(8)))
    assert [key.stream(i) for i in range(4)] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert key.uniform(2, -45, 45) == -45 + 90 * 2 / 2**32


@pytest.mark.parametrize("name", ["gaussian_blur", "glass_blur", "motion_blur"])
def test_flat_areas_are_the_references(name):
    """Where float64 sums end a hair below a whole number the reference loses a grey level; written
    out for one sigma each.
    """
    levels = [
        corrupt(np.full((40, 40, 3), v, np.uint8), name, 3, rng=np.random.RandomState(0))
        for v in range(256)
    ]
    if name == "motion_blur":
        weights = np.exp(-(np.arange(31) ** 2) / (2 * 8.0**2)) / (np.sqrt(2 * np.pi) * 8)
        weights /= weights.sum()
        expected = [int(min(sum(weight * v for weight in weights), 255)) for v in range(256)]
    else:
        sigma, expected = (3.0, range(256)) if name == "gaussian_blur" else (1.0, range(256))
        for _ in range(1 if name == "gaussian_blur" else 2):
            expected = [flat_gaussian(v, sigma) for v in expected]
    assert [int(level[20, 20, 0]) for level in levels] == expected
    assert all((level == level[20, 20, 0]).all() for level in levels)


def flat_gaussian(level, sigma):
    """scipy's order: the middle first, then pairs from the outermost in; rows, then columns."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    weights /= weights.sum()
    value = level / 255.0
    for _ in range(2):
        total = value * weights[radius]
        for distance in range(radius, 0, -1):
            total += (value + value) * weights[radius + distance]
        value = total
    return int(min(value, 1) * 255)
