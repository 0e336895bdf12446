"""Kernels in whole numbers against the libraries whose work they do."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from stillrobust import corrupt
from stillrobust.corruptions import CORRUPTIONS, resampling, weather
from stillrobust.corruptions.digital import invert_affine
from stillrobust.corruptions.filters import gaussian_filter
from stillrobust.corruptions.kernels import drops

SIZES = ((64, 96), (33, 200), (97, 45), (17, 31), (6, 6), (5, 4), (3, 5), (2, 3), (1, 1))


def pictures(size):
    rng = np.random.RandomState(0)
    yield rng.randint(0, 256, (*size, 3)).astype(np.uint8)
    yield cv2.resize(
        rng.randint(0, 256, (5, 7, 3)).astype(np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC
    )
    yield (rng.random_sample((*size, 3)) > 0.5).astype(np.uint8) * 255


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("regime", ["imagenet", "cifar", "tiny-imagenet"])
def test_jpeg_is_libjpeg_turbos_to_the_bit(size, regime):
    for image in pictures(size):
        for severity in (1, 2, 3, 4, 5):
            file = io.BytesIO()
            Pillow.fromarray(image).save(
                file,
                "JPEG",
                quality=CORRUPTIONS["jpeg_compression"].parameters(severity, regime)[0],
            )
            fast = corrupt(image, "jpeg_compression", severity, seed=0, image_id="a", regime=regime)
            assert np.array_equal(fast, np.array(Pillow.open(file)))


@pytest.mark.parametrize("factor", [0.95, 0.6, 0.5, 0.3, 0.25])
def test_box_is_pillows_to_the_bit(factor):
    """Pictures at most twice as tall as wide: Pillow 13 does the rows of others first."""
    for size in ((64, 96), (224, 224), (97, 101), (31, 33), (480, 640)):
        small = max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
        for image in pictures(size):
            ours, pillows = (
                resampling.box_resize(image, small),
                Pillow.fromarray(image).resize(small[::-1], Pillow.Resampling.BOX),
            )
            assert np.array_equal(ours, np.array(pillows))
            assert np.array_equal(
                resampling.box_resize(ours, size),
                np.array(pillows.resize(size[::-1], Pillow.Resampling.BOX)),
            )


def test_box_by_hand():
    image = np.repeat(np.array([[0, 10, 20, 40], [2, 12, 22, 50]], np.uint8)[..., None], 3, 2)
    # columns first: 5, 30 and 7, 36; then rows
    assert resampling.box_resize(image, (1, 2))[..., 0].tolist() == [[6, 33]]


@pytest.mark.parametrize("cubic", [True, False])
def test_resize_is_opencvs_within_a_grey_level(cubic):
    how = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    for image in pictures((97, 120)):
        for size in ((300, 331), (107, 132), (40, 50)):
            ours, opencvs = (
                resampling.resize(image, size, cubic).astype(int),
                cv2.resize(image, size[::-1], interpolation=how),
            )
            assert np.abs(ours - opencvs).max() <= 1
    assert (resampling.resize(np.full((5, 7, 3), 93, np.uint8), (50, 60), cubic) == 93).all()


def test_affine_is_opencvs():
    """Within what OpenCV rounds places to, a 32nd of a pixel, on a ramp of 2 grey levels a pixel;
    edges are mirrored.
    """
    ramp = np.repeat(np.tile(np.arange(100, dtype=np.uint8) * 2, (80, 1))[..., None], 3, 2)
    matrix = np.array([[1.02, 0.03, -2.5], [-0.04, 0.97, 3.25]])
    expected = cv2.warpAffine(
        ramp.astype(np.float32), matrix, (100, 80), borderMode=cv2.BORDER_REFLECT_101
    )
    assert np.abs(resampling.warp_affine(ramp, invert_affine(matrix)) - expected).max() < 2 / 16
    assert invert_affine(np.array([[2.0, 0, 6], [0, 4, 8]])).tolist() == [
        [0.5, 0, -3],
        [0, 0.25, -2],
    ]


@pytest.mark.parametrize("size", [*SIZES, (224, 224)])
@pytest.mark.parametrize(("sigma", "threshold"), [(4, 0.69), (3, 0.68), (2, 0.68), (1, 0.65)])
def test_drops_are_opencvs(size, sigma, threshold):
    layer = gaussian_filter(
        np.random.RandomState(0).standard_normal(size) * 0.3 + 0.65, sigma, True
    )
    layer[layer < threshold] = 0
    levels = (np.clip(layer, 0, 1) * 255).astype(np.uint8)
    edges = drops.canny_edges(levels)
    assert np.array_equal(edges, cv2.Canny(levels, 50, 150) > 0)
    distance = np.minimum(
        cv2.distanceTransform(np.where(edges, 0, 255).astype(np.uint8), cv2.DIST_L2, 5), 20
    )
    assert np.abs(drops.edge_distances(edges) / 65536 - distance).max() < 1e-3
    ours, opencvs = (
        levels * drops.emboss_distances(drops.edge_distances(edges)).astype(np.float32),
        weather._opencv_drops(levels),
    )
    # OpenCV's mean of nine distances is a rounding error off, which can tip a level
    assert (ours != opencvs).mean() < 0.005
    assert np.abs(ours - opencvs).mean() < 0.05
