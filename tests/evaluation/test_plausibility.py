"""First predictions that are valid and probably wrong: a warning for them, and none for others."""

import numpy as np
import pytest

from stillrobust.evaluation.plausibility import (
    PREDICTION_CHECKS,
    check_plausibility,
    predictions_differ,
)
from stillrobust.samples import Prediction
from tests.toys import Toys

TASKS = ("classification", "detection", "segmentation")


def perfect(target, task):
    """The ground truth as a prediction."""
    if task == "classification":
        return Prediction(probabilities=np.eye(2, dtype=np.float32)[target.label])
    if task == "segmentation":
        return Prediction(label_map=target.label_map)
    return Prediction(boxes=target.boxes, labels=target.labels, scores=np.array([0.9]))


class Model:
    """A predict function that returns ``answer(target, call, batch size)``."""

    def __init__(self, data, answer):
        self.truth = {f"{data.image_id(i)} at severity 0": data[i].target for i in range(len(data))}
        self.answer = answer
        self.calls = 0

    def __call__(self, images, names):
        self.calls += 1
        return [self.answer(self.truth[name], self.calls, len(images)) for name in names]


def warnings_of(task, answer):
    data = Toys(task)
    return check_plausibility(data, Model(data, answer)).warnings


@pytest.mark.parametrize("task", TASKS)
def test_a_perfect_model_gets_no_warning(task):
    assert warnings_of(task, lambda target, call, size: perfect(target, task)) == ()


@pytest.mark.parametrize("task", TASKS)
def test_another_answer_the_second_time(task):
    other = Toys(task, seed=1)

    def answer(target, call, size):
        index = int(target.image_id.split(".")[0])
        return perfect(other[index + 1].target if call == 2 else target, task)

    [text] = warnings_of(task, answer)
    assert text.startswith("The model answers differently the second time")


@pytest.mark.parametrize("task", TASKS)
def test_another_answer_in_a_batch(task):
    other = Toys(task, seed=1)[1].target

    def answer(target, call, size):
        return perfect(other if size == 1 else target, task)

    [text] = warnings_of(task, answer)
    assert text.startswith("An image gets another answer by itself than in a batch")


def test_rounding_is_no_difference():
    one = Prediction(probabilities=np.array([0.7, 0.3]))
    assert not predictions_differ(one, Prediction(probabilities=np.array([0.701, 0.299])))
    assert predictions_differ(one, Prediction(probabilities=np.array([0.68, 0.32])))
    boxes, labels = np.array([[0, 0, 40, 40], [5, 5, 9, 9]]), np.array([0, 1])
    first = Prediction(boxes=boxes, labels=labels, scores=np.array([0.9, 0.2]))
    moved = Prediction(boxes=boxes[:1] + 1, labels=labels[:1], scores=np.array([0.8]))
    assert not predictions_differ(first, moved)  # the second box has a low score
    relabelled = Prediction(boxes=boxes, labels=labels[::-1], scores=first.scores)
    assert predictions_differ(first, relabelled)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_labels_one_too_high(task):
    def answer(target, call, size):
        if task == "segmentation":
            return Prediction(label_map=np.minimum(target.label_map + 1, 2).astype(np.uint8))
        return Prediction(
            boxes=target.boxes, labels=target.labels + 1, scores=np.array([0.9], np.float32)
        )

    [text] = warnings_of(task, answer)
    assert text.startswith("The model's labels look one too high")


def test_a_detector_that_finds_nothing():
    none = Prediction(boxes=np.zeros((0, 4)), labels=np.zeros(0, int), scores=np.zeros(0))
    [text] = warnings_of("detection", lambda target, call, size: none)
    assert text.startswith("The model finds nothing in the first 8 images, with 8 objects")


def test_normalised_boxes():
    def answer(target, call, size):
        return Prediction(
            boxes=target.boxes / 64, labels=target.labels, scores=np.array([0.9], np.float32)
        )

    [text] = warnings_of("detection", answer)
    assert "normalized=True" in text


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_same_answer_for_everything(task):
    def answer(target, call, size):
        if task == "classification":
            return Prediction(probabilities=np.array([0.4, 0.6]))
        return Prediction(label_map=np.ones((64, 64), np.uint8))

    texts = warnings_of(task, answer)
    assert any(text.startswith("The model answers") for text in texts)


def test_every_check_was_seen_to_fail():
    assert len(PREDICTION_CHECKS) == 6  # a new check needs its test here
