"""Ground truth that follows: fields against the pixels that moved, and a perfect oracle."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from stillrobust import corrupt
from stillrobust.corruptions import GEOMETRIC, displacement
from stillrobust.corruptions.displacement import extents, warp_boxes, warp_map
from stillrobust.data.views import CorruptedView, warp_target
from stillrobust.errors import UserError
from stillrobust.metrics.segmentation import MeanIoU
from stillrobust.samples import DatasetInfo, Prediction, Sample, Target

SIZE = (90, 120)
KEYED = {"seed": 0, "image_id": "a"}


def ramp(axis):
    """Grey level = 2 x place, so that a pixel says where it came from."""
    values = np.arange(SIZE[axis], dtype=np.uint8) * 2
    return np.repeat(
        np.broadcast_to(values[:, None] if axis == 0 else values, SIZE)[..., None], 3, 2
    ).copy()


@pytest.mark.parametrize("draws", ["fast", "exact"])
@pytest.mark.parametrize("regime", ["imagenet", "imagenet-c"])
# caustic_refraction adds light: test_c_bar
@pytest.mark.parametrize("name", [one for one in GEOMETRIC if one != "caustic_refraction"])
def test_a_field_says_where_pixels_came_from(name, regime, draws):
    """On a ramp every averaging corruption keeps the place: a pixel's value is that of the place
    that the field names.
    """
    how = {**KEYED, "draws": draws, "regime": regime}
    severity = 3 if regime == "imagenet" else 4
    field = displacement(SIZE, name, severity, **how)
    assert field.shape == (*SIZE, 2)
    assert field.dtype == np.float32
    for axis in (0, 1):
        image = ramp(axis)
        place = corrupt(image, name, severity, **how)[..., 0] / 2
        # the second blur mixes neighbours that came from elsewhere: compare their mean
        if name == "glass_blur":
            kernel = (9, 9)
            place, expected = (
                cv2.blur(part.astype(np.float64), kernel)
                for part in (place, np.indices(SIZE)[axis] + field[..., axis])
            )
        else:
            expected = np.indices(SIZE)[axis] + field[..., axis]
        inside = (slice(20, -20), slice(20, -20))
        # two blurs, a grey level each, are a pixel of the ramp
        assert np.abs(place - expected)[inside].max() <= 1.0
    assert np.abs(field).max() > 0.3


def test_the_shuffle_itself_is_exact():
    """Without blur (cifar's smallest sigma) glass_blur is a gather by its field."""
    image = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)
    for draws in ("fast", "exact"):
        how = {**KEYED, "draws": draws, "regime": "cifar"}
        field = displacement((32, 32), "glass_blur", 1, **how)
        assert np.array_equal(
            warp_map(image.transpose(2, 0, 1), field).transpose(1, 2, 0),
            corrupt(image, "glass_blur", 1, **how),
        )


def test_pixelate_by_hand():
    """Four pixels a block: from the middle, 1.5 pixels at most."""
    field = displacement((8, 8), "pixelate", 5)
    assert field[0, :, 1].tolist() == [1.5, 0.5, -0.5, -1.5] * 2


def test_warps_by_hand():
    field = np.zeros((4, 6, 2), np.float32)
    field[..., 1] = 2  # everything comes from two pixels to the right; the edge is reflected
    assert warp_map(np.arange(24).reshape(4, 6), field)[0].tolist() == [2, 3, 4, 5, 5, 4]
    boxes = np.array([[3, 1, 5, 3], [0, 0, 1, 1]], np.float32)
    assert warp_boxes(boxes, field).tolist() == [[1, 1, 3, 3], [0, 0, 0, 0]]
    assert extents(np.zeros((3, 3), bool)) == (0, 0, 0, 0)
    target = Target(
        "a",
        (4, 6),
        boxes=boxes,
        labels=np.array([4, 7]),
        crowd=np.array([False, True]),
        areas=np.array([4.0, 1.0]),
    )
    moved = warp_target(target, field)
    assert moved.boxes.tolist() == [[1, 1, 3, 3]]
    assert moved.labels.tolist() == [4]
    masks = np.zeros((2, 4, 6), bool)
    masks[0, 1:3, 3:5], masks[1, 0, 0] = True, True
    with_masks = warp_target(replace(target, masks=masks), field)
    # the reflection is really to be seen there
    assert with_masks.masks[0, 1].tolist() == [False, True, True, False, False, True]
    assert with_masks.areas.tolist() == [6]
    assert with_masks.boxes.tolist() == [[1, 1, 6, 3]]


class Blobs:
    """One image whose grey level is its label."""

    def __init__(self):
        noise = cv2.GaussianBlur(np.random.RandomState(0).random_sample((160, 160)), (0, 0), 6)
        self.labels = np.digitize(noise, np.quantile(noise, [0.33, 0.66])).astype(np.uint8)
        self.info = DatasetInfo("blobs", "segmentation", ("a", "b", "c"), 1, "0" * 64)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        image = np.repeat((self.labels * 100)[..., None], 3, 2)
        return Sample(image, Target("blobs/0.png", self.labels.shape, label_map=self.labels))


def miou(said, true):
    metric = MeanIoU(Blobs().info)
    metric.update([Prediction(label_map=said)], [Target("blobs/0.png", true.shape, label_map=true)])
    return metric.compute()["miou"]


def test_a_perfect_oracle_loses_only_where_the_truth_stays_behind():
    data = Blobs()
    still, warped = (
        CorruptedView(data, "elastic_transform", 5, warp_truth=follow)[0]
        for follow in (False, True)
    )
    assert np.array_equal(still.image, warped.image)
    field = displacement((160, 160), "elastic_transform", 5, seed=0, image_id="blobs/0.png")
    oracle = warp_map(data.labels, field)  # what is really to be seen at each pixel
    assert miou(oracle, warped.target.label_map) == 1
    assert miou(oracle, still.target.label_map) < 0.97
    # what a model reads off the pixels, bilinear edges and all
    read = np.rint(warped.image[..., 0] / 100).astype(np.uint8)
    assert miou(read, warped.target.label_map) > 0.93 > miou(read, still.target.label_map) - 0.06
    assert CorruptedView(data, "fog", 5, warp_truth=True)[0].target is not None
    assert (
        CorruptedView(data, "elastic_transform", 5).info.fingerprint
        != CorruptedView(data, "elastic_transform", 5, warp_truth=True).info.fingerprint
    )


def test_what_moves_nothing_says_so():
    with pytest.raises(UserError, match="moves pixels"):
        displacement((8, 8), "fog", 1, **KEYED)
