import contextlib
import io

import numpy as np
import pytest

from stillrobust.analysis.intervals import bootstrap_weights
from stillrobust.errors import UserError
from stillrobust.metrics import METRICS
from stillrobust.metrics.recompute import recompute_metrics
from stillrobust.samples import IGNORE, DatasetInfo, Prediction, Target

SIZE = 48
CLASSES = ("a", "b", "c")


def info(task, has_masks=True):
    return DatasetInfo("x", task, CLASSES, 0, "", has_masks=has_masks)


def random_boxes(rng, count):
    corner = rng.uniform(0, 28, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(4, 20, (count, 2))], 1).astype(np.float32)


def box_masks(boxes):
    masks = np.zeros((len(boxes), SIZE, SIZE), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def random_detection(rng, index):
    boxes = random_boxes(rng, rng.integers(0, 5))
    labels = rng.integers(0, 3, len(boxes))
    masks = box_masks(boxes)
    target = Target(
        f"{index:03}.png", (SIZE, SIZE), boxes=boxes, labels=labels, masks=masks,
        crowd=rng.random(len(boxes)) < 0.15, areas=masks.sum((1, 2)).astype(float),
    )  # fmt: skip
    near = boxes + rng.normal(0, 1.5, boxes.shape).astype(np.float32)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    extra = random_boxes(rng, rng.integers(0, 3))
    found = np.clip(np.concatenate([near, extra]), 0, SIZE)
    wrong = rng.integers(0, 3, len(found))
    kept = np.concatenate([labels, wrong[len(labels) :]])
    prediction = Prediction(
        boxes=found, labels=np.where(rng.random(len(found)) < 0.8, kept, wrong),
        scores=rng.random(len(found)).astype(np.float32), masks=box_masks(found),
    )  # fmt: skip
    return prediction, target


def random_classification(rng, index):
    chances = rng.random(3)
    target = Target(f"{index}", (4, 4), label=int(rng.integers(3)))
    return Prediction(probabilities=chances / chances.sum()), target


def random_segmentation(rng, index):
    truth = rng.integers(0, 3, (6, 5)).astype(np.uint8)
    found = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 3, truth.shape))
    truth[rng.random(truth.shape) < 0.1] = IGNORE
    target = Target(f"{index}", (6, 5), label_map=truth)
    return Prediction(label_map=found.astype(np.uint8)), target


RANDOM_PAIRS = {
    "classification": random_classification,
    "detection": random_detection,
    "segmentation": random_segmentation,
}  # a new task needs an entry


def filled(task, indices):
    metric = METRICS[task](info(task))
    for index in indices:
        prediction, target = RANDOM_PAIRS[task](np.random.default_rng([5, index]), index)
        metric.update([prediction], [target])
    return metric


@pytest.mark.parametrize("task", sorted(METRICS))
def test_contract(task):
    """Merging in any order equals one pass; an image twice is an error; statistics give the numbers
    again.
    """
    whole = filled(task, range(24))
    merged = filled(task, range(13, 24))
    merged.merge(filled(task, range(13)))
    for name, value in whole.compute().items():
        assert 0 < value < 1
        assert merged.compute()[name] == pytest.approx(value, abs=1e-12)
    statistics = whole.statistics()
    assert len(statistics["image_ids"]) == 24
    assert all(array.dtype != object for array in statistics.values())
    again = recompute_metrics(statistics, np.ones((2, 24)))
    assert again.keys() == whole.compute().keys()
    for name, value in whole.compute().items():
        assert again[name] == pytest.approx([value, value], abs=1e-9)
    with pytest.raises(UserError, match="counted twice"):
        whole.merge(filled(task, [3]))
    assert METRICS[task].version
    assert whole.compute().keys() == METRICS[task].names.keys()  # what reports can name


@pytest.mark.parametrize("task", sorted(METRICS))
def test_weights_equal_a_set_with_repeated_images(task):
    """An image of weight two counts as the image twice; weight nought as if it were not there."""
    weights = np.random.default_rng(1).integers(0, 4, 20)
    metric = METRICS[task](info(task))
    for index, count in enumerate(weights):
        for copy in range(count):
            prediction, target = RANDOM_PAIRS[task](np.random.default_rng([5, index]), index)
            metric.update(
                [prediction], [Target(**{**vars(target), "image_id": f"{index:03}-{copy}"})]
            )
    again = recompute_metrics(filled(task, range(20)).statistics(), weights[None])
    for name, value in metric.compute().items():
        assert again[name][0] == pytest.approx(value, abs=1e-9), name


def pycocotools_numbers(pairs):
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = {
        "images": [],
        "annotations": [],
        "categories": [{"id": k + 1, "name": n} for k, n in enumerate(CLASSES)],
    }
    found = []
    for number, (prediction, target) in enumerate(pairs, 1):
        truth["images"].append({"id": number, "height": SIZE, "width": SIZE})
        for row, boxes, labels, masks in (
            (truth["annotations"], target.boxes, target.labels, target.masks),
            (found, prediction.boxes, prediction.labels, prediction.masks),
        ):
            for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
                entry = {
                    "image_id": number,
                    "category_id": int(labels[i]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
                entry["segmentation"] = rle.encode(np.asfortranarray(masks[i].astype(np.uint8)))
                if row is found:
                    entry["score"] = float(prediction.scores[i])
                else:
                    entry |= {
                        "id": len(row) + 1,
                        "iscrowd": int(target.crowd[i]),
                        "area": float(target.areas[i]),
                    }
                row.append(entry)
    numbers = {}
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        for name, kind in (("box_ap", "bbox"), ("mask_ap", "segm")):
            evaluated = COCOeval(
                reference, reference.loadRes([dict(entry) for entry in found]), kind
            )
            evaluated.evaluate()
            evaluated.accumulate()
            evaluated.summarize()
            numbers[name] = evaluated.stats[0]
    return numbers


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_equals_pycocotools(seed):
    pairs = [random_detection(np.random.default_rng([seed, index]), index) for index in range(30)]
    metric = METRICS["detection"](info("detection"))
    metric.update(*zip(*pairs, strict=True))
    for name, value in pycocotools_numbers(pairs).items():
        assert metric.compute()[name] == pytest.approx(value, abs=1e-12)


def test_average_precision_by_hand():
    """Two objects, one found exactly: precision 1 up to recall one half, so 51 of 101 recall
    points; none found: 0.
    """
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    target = Target("a", (SIZE, SIZE), boxes=boxes, labels=np.array([0, 0]))
    metric = METRICS["detection"](info("detection", has_masks=False))
    metric.update(
        [Prediction(boxes=boxes[:1], labels=np.array([0]), scores=np.array([0.9]))], [target]
    )
    assert metric.compute() == {"box_ap": pytest.approx(51 / 101)}
    none = METRICS["detection"](info("detection", has_masks=False))
    none.update(
        [Prediction(boxes=boxes[:0], labels=np.array([], int), scores=np.array([]))], [target]
    )
    assert none.compute() == {"box_ap": 0.0}
    assert recompute_metrics(none.statistics(), np.ones((1, 1)))["box_ap"] == [0.0]


def test_miou_is_over_the_set_and_not_per_image():
    """Class 0: intersection 1 + 3, union 2 + 4. Class 1: 0 + 0 of 1 + 1. Class 2 nowhere.

    Mean of 4/6 and 0/2.
    """
    metric = METRICS["segmentation"](info("segmentation"))
    truth = np.array([[0, 0, IGNORE]], np.uint8), np.array([[0, 0, 0, 0]], np.uint8)
    found = np.array([[0, 1, 2]], np.uint8), np.array([[0, 0, 0, 1]], np.uint8)
    for index, (t, f) in enumerate(zip(truth, found, strict=True)):
        metric.update([Prediction(label_map=f)], [Target(str(index), t.shape, label_map=t)])
    assert metric.compute()["miou"] == pytest.approx((4 / 6 + 0) / 2)


def test_top1_by_hand():
    metric = METRICS["classification"](info("classification"))
    for index, (chances, label) in enumerate(
        [([0.1, 0.8, 0.1], 1), ([0.6, 0.2, 0.2], 2), ([0.2, 0.2, 0.6], 2)]
    ):
        metric.update(
            [Prediction(probabilities=np.array(chances))], [Target(str(index), (1, 1), label=label)]
        )
    assert metric.compute()["top1"] == pytest.approx(2 / 3)


def test_bad_predictions():
    with pytest.raises(UserError, match="3 probabilities"):
        METRICS["classification"](info("classification")).update(
            [Prediction(probabilities=np.ones(2))], [Target("a", (1, 1), label=0)]
        )
    with pytest.raises(UserError, match="label map"):
        METRICS["segmentation"](info("segmentation")).update(
            [Prediction(label_map=np.zeros((2, 2), np.uint8))],
            [Target("a", (3, 2), label_map=np.zeros((3, 2), np.uint8))],
        )
    prediction, target = random_detection(np.random.default_rng(0), 0)
    with pytest.raises(UserError, match="has masks"):
        METRICS["detection"](info("detection")).update(
            [Prediction(**{**vars(prediction), "masks": None})], [target]
        )


def test_weights_are_paired_by_image():
    ids = [f"{i}.png" for i in range(30)]
    weights = bootstrap_weights(ids, 50)
    backwards = bootstrap_weights(ids[::-1], 50)
    assert (weights == backwards[:, ::-1]).all()
    assert (weights.sum(1) == 15).all()
    assert not (weights == bootstrap_weights(ids, 50, seed=1)).all()


@pytest.mark.parametrize("task", sorted(METRICS))
def test_a_refused_update_or_merge_leaves_no_trace(task):
    metric = filled(task, range(6))
    before = metric.compute()
    _, target = RANDOM_PAIRS[task](np.random.default_rng([5, 7]), 7)
    with pytest.raises(UserError):
        metric.update([Prediction()], [target])
    with pytest.raises(UserError, match="counted twice"):
        metric.merge(filled(task, [9, 3]))
    assert metric.compute() == before
    assert len(metric.statistics()["image_ids"]) == 6
    metric.merge(filled(task, [7, 9]))
    assert len(metric.statistics()["image_ids"]) == 8


@pytest.mark.parametrize("task", sorted(METRICS))
def test_ids_are_text_even_of_an_empty_set(task):
    metric = METRICS[task](info(task))
    assert metric.statistics()["image_ids"].dtype.kind == "U"
    assert all(np.isnan(value) for value in metric.compute().values())


def test_equal_scores_rank_alike_whatever_the_order_of_arrival():
    """A hit in image a and a miss in image b, of equal score: the hit is ranked first by the
    images' names.
    """
    box, elsewhere = (
        np.array([[0, 0, 10, 10]], np.float32),
        np.array([[30, 30, 40, 40]], np.float32),
    )
    pairs = [
        (
            Prediction(boxes=found, labels=np.array([0]), scores=np.array([0.5])),
            Target(name, (SIZE, SIZE), boxes=box, labels=np.array([0])),
        )
        for name, found in (("a", box), ("b", elsewhere))
    ]
    for order in (pairs, pairs[::-1]):
        metric = METRICS["detection"](info("detection", has_masks=False))
        metric.update(*zip(*order, strict=True))
        assert metric.compute()["box_ap"] == pytest.approx(51 / 101)


def test_bad_masks_labels_and_probabilities():
    prediction, target = next(
        p
        for p in (random_detection(np.random.default_rng(i), i) for i in range(9))
        if len(p[1].boxes) > 1
    )
    for masks in (prediction.masks[:1], prediction.masks[:, :24, :24]):
        with pytest.raises(UserError, match="predicted masks of shape"):
            METRICS["detection"](info("detection")).update(
                [Prediction(**{**vars(prediction), "masks": masks})], [target]
            )
    with pytest.raises(UserError, match="ground truth masks"):
        METRICS["detection"](info("detection")).update(
            [prediction], [Target(**{**vars(target), "masks": None})]
        )
    map_of_7 = np.full((2, 2), 7, np.uint8)
    with pytest.raises(UserError, match="labels below 3"):
        METRICS["segmentation"](info("segmentation")).update(
            [Prediction(label_map=map_of_7)], [Target("a", (2, 2), label_map=map_of_7)]
        )
    for chances, label in ((np.full(3, np.nan), 0), (np.ones(3), None)):
        with pytest.raises(UserError):
            METRICS["classification"](info("classification")).update(
                [Prediction(probabilities=chances)], [Target("a", (1, 1), label=label)]
            )
