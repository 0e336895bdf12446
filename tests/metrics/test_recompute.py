"""Calibration, classes and sizes: by hand, and under weights as on a set with repeated images."""

import numpy as np
import pytest

from stillrobust.errors import UserError
from stillrobust.metrics import METRICS
from stillrobust.metrics.recompute import (
    images_per_class,
    recompute_by_class,
    recompute_details,
)
from stillrobust.samples import IGNORE, DatasetInfo, Prediction, Target
from tests.metrics.test_metrics import RANDOM_PAIRS

CLASSES = ("a", "b", "c")


def filled_metric(task, pairs, has_masks=True):
    metric = METRICS[task](DatasetInfo("x", task, CLASSES, 0, "", has_masks=has_masks))
    metric.update(*zip(*pairs, strict=True))
    return metric


def pair(task, index, name=None):
    prediction, target = RANDOM_PAIRS[task](np.random.default_rng([5, index]), index)
    if task == "segmentation":
        chances = np.random.default_rng(index).random(target.size).astype(np.float32)
        prediction = Prediction(label_map=prediction.label_map, confidence=chances)
    return prediction, Target(**{**vars(target), "image_id": name or f"{index:03}"})


@pytest.mark.parametrize("task", sorted(METRICS))
def test_weights_equal_a_set_with_repeated_images(task):
    weights = np.random.default_rng(1).integers(0, 4, 20)
    once = filled_metric(task, [pair(task, index) for index in range(20)]).statistics()
    repeated = [
        pair(task, i, f"{i:03}-{copy}") for i, count in enumerate(weights) for copy in range(count)
    ]
    whole = filled_metric(task, repeated).statistics()
    ones = np.ones((1, len(repeated)))
    for name, value in recompute_details(whole, ones).items():
        assert recompute_details(once, weights[None])[name] == pytest.approx(
            value, abs=1e-6, nan_ok=True
        ), name
        assert name == "ece" or name.startswith(("box_", "mask_"))
    for name, value in recompute_by_class(whole, ones).items():
        assert recompute_by_class(once, weights[None])[name] == pytest.approx(
            value, abs=1e-9, nan_ok=True
        ), name


@pytest.mark.parametrize("task", sorted(METRICS))
def test_classes_average_to_the_metric(task):
    metric = filled_metric(task, [pair(task, index) for index in range(20)])
    for name, values in recompute_by_class(metric.statistics(), np.ones((1, 20))).items():
        if name == "top1":  # weighted by how often a class occurs
            shares = np.bincount(metric.statistics()["label"], minlength=3) / 20
            assert float(np.nansum(values[0] * shares)) == pytest.approx(metric.compute()[name])
        else:
            assert float(np.nanmean(values)) == pytest.approx(metric.compute()[name])


@pytest.mark.parametrize("task", sorted(METRICS))
def test_images_per_class_are_those_with_the_class(task):
    pairs = [pair(task, index) for index in range(20)]
    found = images_per_class(filled_metric(task, pairs).statistics())
    if task == "classification":
        assert found is None
        return
    counts = [0, 0, 0]
    for prediction, target in pairs:
        if task == "detection":
            present = set(target.labels)
        else:
            there = target.label_map != IGNORE
            present = {*target.label_map[there], *prediction.label_map[there]}
        for label in present:
            counts[label] += 1
    assert found.tolist() == counts
    assert max(counts) > 0


def test_ece_of_images_by_hand():
    """Bin of 0.8: two images, one right, |1 - 1.6|; bin of 1: one image, right, |1 - 1|.

    0.6 / 3.
    """
    pairs = [
        (Prediction(probabilities=np.array(chances)), Target(str(index), (1, 1), label=0))
        for index, chances in enumerate([(0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (1.0, 0.0, 0.0)])
    ]
    statistics = filled_metric("classification", pairs).statistics()
    assert recompute_details(statistics, np.array([[1, 1, 1], [2, 0, 1]]))["ece"] == pytest.approx(
        [0.2, 0.4 / 3]
    )


def test_ece_of_pixels_by_hand():
    """Three pixels that count: 0.9 right, 0.9 wrong, 0.5 right: (|1 - 1.8| + |1 - 0.5|) / 3; the
    fourth is ignored.
    """
    target = Target("a", (1, 4), label_map=np.array([[0, 0, 1, IGNORE]], np.uint8))
    prediction = Prediction(
        label_map=np.array([[0, 1, 1, 2]], np.uint8),
        confidence=np.array([[0.9, 0.9, 0.5, 0.1]], np.float32),
    )
    found = recompute_details(
        filled_metric("segmentation", [(prediction, target)]).statistics(), np.ones((1, 1))
    )
    assert found["ece"] == pytest.approx([1.3 / 3])


def test_ece_of_detections_by_hand():
    """A hit of score 0.9 and a miss of 0.7: (0.1 + 0.7) / 2. Those in the crowd do not count."""
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32)
    target = Target(
        "a", (48, 48), boxes=boxes, labels=np.array([0, 0]), crowd=np.array([False, True])
    )
    found = np.array([[0, 0, 10, 10], [0, 30, 10, 40], [22, 22, 30, 30]], np.float32)
    prediction = Prediction(
        boxes=found, labels=np.zeros(3, int), scores=np.array([0.9, 0.7, 0.2], np.float32)
    )
    statistics = filled_metric("detection", [(prediction, target)], has_masks=False).statistics()
    assert recompute_details(statistics, np.ones((1, 1)))["box_ece"] == pytest.approx([0.4])


def test_models_without_confidence_have_no_ece():
    draw = RANDOM_PAIRS["segmentation"]
    pairs = [draw(np.random.default_rng(index), index) for index in range(3)]
    statistics = filled_metric("segmentation", pairs).statistics()
    assert recompute_details(statistics, np.ones((1, 3))) == {}


def test_confidence_that_is_none():
    prediction, target = pair("segmentation", 0)
    for wrong in (
        prediction.confidence[:2],
        prediction.confidence + 2,
        np.full_like(prediction.confidence, np.nan),
    ):
        with pytest.raises(UserError, match="confidence of shape"):
            filled_metric(
                "segmentation",
                [(Prediction(label_map=prediction.label_map, confidence=wrong), target)],
            )
    without = Prediction(label_map=prediction.label_map)
    with pytest.raises(UserError, match="for all images or for none"):
        filled_metric("segmentation", [(prediction, target), (without, pair("segmentation", 1)[1])])
    first, second = (
        filled_metric("segmentation", [(prediction, target)]),
        filled_metric("segmentation", [(without, pair("segmentation", 1)[1])]),
    )
    with pytest.raises(UserError, match="different models"):
        first.merge(second)
