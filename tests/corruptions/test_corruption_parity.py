"""Exact draws against the reference's own code (imagecorruptions-imaug, which `make test`
installs): equal to the bit.
"""

import cv2
import numpy as np
import pytest

from stillrobust import corrupt
from stillrobust.corruptions import REFERENCE, SEVERITIES

reference = pytest.importorskip("imagecorruptions.corruptions")
corrupt_as_reference = pytest.importorskip("imagecorruptions").corrupt


def picture(height, width):
    """Smooth colours, flat blocks, a ramp and black with single specks: what float32 sums get wrong
    in their own ways each.
    """
    rng = np.random.RandomState(0)
    image = cv2.resize(
        rng.randint(0, 256, (5, 7, 3)).astype(np.uint8),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    image[: height // 3, : width // 2] = (200, 60, 41)
    image[height // 2 :, width // 2 :] = (np.arange(width - width // 2) * 2 % 256)[None, :, None]
    image[height - height // 4 :, : width // 2] = (
        rng.random_sample((height // 4, width // 2, 3)) < 0.01
    )
    return image


IMAGES = {
    "wide": picture(64, 96),
    "long": picture(33, 200),
    "flat": np.full((40, 48, 3), 77, np.uint8),
}


# frost draws one of six photographs in this package; impulse_noise has a stream of its own there
# (both: test_corruption_draws)
@pytest.mark.parametrize(
    "name", [name for name in REFERENCE if name not in {"frost", "impulse_noise"}]
)
@pytest.mark.parametrize("image", IMAGES)
def test_every_pixel_is_the_references(name, image, monkeypatch):
    # without numba it draws from the global stream
    shuffle = reference._shuffle_pixels_njit_glass_blur
    monkeypatch.setattr(
        reference, "_shuffle_pixels_njit_glass_blur", getattr(shuffle, "py_func", shuffle)
    )
    for severity in SEVERITIES:
        np.random.seed(severity)
        more = {"seed": severity} if name == "glass_blur" else {}
        expected = corrupt_as_reference(IMAGES[image], severity, name, **more)
        made = corrupt(IMAGES[image], name, severity, rng=np.random.RandomState(severity))
        assert np.array_equal(made, expected), severity


@pytest.mark.parametrize("name", REFERENCE)
def test_the_references_next_draw_is_ours(name):
    """numpy's global stream, which the reference draws from, ends where ours does.

    It draws impulses from another one.
    """
    if name in {"impulse_noise", "frost", "glass_blur"}:
        pytest.skip("the reference does not draw it from this stream")
    for severity in SEVERITIES:
        for seed in range(3):
            np.random.seed(seed)
            corrupt_as_reference(IMAGES["wide"], severity, name)
            rng = np.random.RandomState(seed)
            corrupt(IMAGES["wide"], name, severity, rng=rng)
            assert rng.random_sample(3).tolist() == np.random.random_sample(3).tolist()


@pytest.mark.parametrize(
    "name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur", "contrast"]
)
def test_fast_draws_keep_flat_areas_as_the_reference_does(name):
    """Where weights do not sum to one, both follow it; where its rounding errors take one level
    away, the processor decides.
    """
    for level in range(0, 256, 5):
        flat = np.full((40, 48, 3), level, np.uint8)
        for severity in SEVERITIES:
            fast = corrupt(flat, name, severity, seed=0, image_id="a").astype(int)
            exact = corrupt(flat, name, severity, seed=0, image_id="a", draws="exact")
            # glass_blur blurs twice
            most = {"defocus_blur": 0, "zoom_blur": 0, "glass_blur": 2}.get(name, 1)
            assert np.abs(fast - exact).max() <= most, severity
