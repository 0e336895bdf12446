"""A clean score of chance ends an evaluation, with the planted mistake named and a picture."""

import cv2
import numpy as np
import pytest

from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.evaluation.clean_score import likely_cause
from stillrobust.evaluation.prediction_picture import WIDTH, draw_predictions
from stillrobust.predictors import Predictor
from stillrobust.samples import Prediction
from stillrobust.storage.store import Store
from tests.evaluation.exports import dump, score
from tests.toys import Toys

ONE = np.array([0.9], np.float32)
SHORT = Protocol(("fog",), (3,), examples=0)


def boxes(target, convert=lambda boxes: boxes, labels=lambda labels: labels):
    return Prediction(boxes=convert(target.boxes), labels=labels(target.labels), scores=ONE)


def as_xywh(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def one_hot(label, classes=2):
    return Prediction(probabilities=np.eye(classes, dtype=np.float32)[label])


PLANTED = {
    "permuted boxes": (
        "detection",
        lambda target: boxes(target, labels=lambda labels: 1 - labels),
        "boxes fit the objects, but not their classes",
    ),
    "xywh": ("detection", lambda target: boxes(target, as_xywh), "x, y, width, height"),
    "yxyx": ("detection", lambda target: boxes(target, lambda b: b[:, [1, 0, 3, 2]]), "y1, x1"),
    "normalised": ("detection", lambda target: boxes(target, lambda b: b / 64), "normalized=True"),
    "scale": (
        "detection",
        lambda target: boxes(target, lambda b: b * 5),
        "input of about 320 x 320",
    ),
    "labels from 1": (
        "detection",
        lambda target: boxes(target, labels=lambda labels: labels + 1),
        "labels are one too high",
    ),
    "labels from -1": (
        "detection",
        lambda target: boxes(target, labels=lambda labels: labels - 1),
        "labels are one too low",
    ),
    "nothing": (
        "detection",
        lambda target: Prediction(
            boxes=np.zeros((0, 4)), labels=np.zeros(0, int), scores=np.zeros(0)
        ),
        "the model finds nothing",
    ),
    "permuted labels": (
        "classification",
        lambda target: one_hot(1 - target.label),
        "is answered as",
    ),
    "one label": ("classification", lambda target: one_hot(1), "answers tall for everything"),
    "permuted maps": (
        "segmentation",
        lambda target: Prediction(label_map=np.array([2, 0, 1], np.uint8)[target.label_map]),
        "(ground is answered as tall)",
    ),
    "shifted maps": (
        "segmentation",
        lambda target: Prediction(label_map=np.minimum(target.label_map + 1, 2).astype(np.uint8)),
        "labels are one too high",
    ),
}


def pairs(task, answer):
    data = Toys(task)
    return data.info, [(data[index], answer(data[index].target)) for index in range(len(data))]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_named(name):
    task, answer, cause = PLANTED[name]
    assert cause in likely_cause(*pairs(task, answer))


def test_noise_has_no_cause():
    rng = np.random.default_rng(0)
    assert likely_cause(*pairs("classification", lambda _: one_hot(rng.integers(2)))) == ""
    assert likely_cause(*pairs("detection", lambda _: boxes(Toys("detection")[0].target))) == ""


@pytest.mark.parametrize("name", [name for name in PLANTED if "labels from" not in name])
def test_the_picture_shows_truth_and_prediction(name):
    task, answer, _ = PLANTED[name]
    info, found = pairs(task, answer)
    image = cv2.imdecode(np.frombuffer(draw_predictions(info, found, 3), np.uint8), 1)
    assert image.shape[0] > 3 * WIDTH
    assert image.shape[1] >= WIDTH * (2 if task == "segmentation" else 1)


def swapped(data):
    """A detector that is right but for the names of its classes."""
    truth = {data[index].image.tobytes(): data[index].target for index in range(len(data))}

    def predict(images):
        # corrupted images are unknown: nothing is found there
        found = (truth.get(image.tobytes()) for image in images)
        nothing = Prediction(boxes=np.zeros((0, 4)), labels=np.zeros(0, int), scores=np.zeros(0))
        return [boxes(one, labels=lambda labels: 1 - labels) if one else nothing for one in found]

    return Predictor("detection", "swapped", predict, "1", masks=False)


def test_an_evaluation_stops_after_the_clean_cell(tmp_path):
    data, picture = Toys("detection"), tmp_path / "first.png"

    def stored():
        return [(one.corruption, one.severity) for one in Store(tmp_path).measurements()]

    for _ in range(2):  # the second call finds the clean cell and stops again
        with pytest.raises(UserError, match=r"not their classes.*first\.png.*--accept-chance"):
            evaluate(swapped(data), data, tmp_path, SHORT, chance_picture=picture)
        assert stored() == [("clean", 0)]
        assert cv2.imread(str(picture)) is not None
        picture.unlink()
    evaluate(swapped(data), data, tmp_path, SHORT)
    assert sorted(stored()) == [("clean", 0), ("fog", 3)]
    assert not picture.exists()


def test_a_good_clean_score_goes_on(tmp_path):
    data, picture = Toys("detection"), tmp_path / "first.png"
    right = {data[index].image.tobytes(): data[index].target for index in range(len(data))}
    other = data[0].target
    model = Predictor(
        "detection",
        "right",
        lambda images: [boxes(right.get(image.tobytes(), other)) for image in images],
        "1",
        masks=False,
    )
    evaluate(model, data, tmp_path, SHORT, chance_picture=picture)
    assert not picture.exists()
    assert len(Store(tmp_path).measurements()) == 2


def test_predictions_from_files_stop_too(exported, tmp_path):
    dump(exported, tmp_path / "files")  # answers of a model that knows nothing
    picture = tmp_path / "first.png"
    with pytest.raises(UserError, match=r"Expected a clean .* above"):
        score(exported, tmp_path / "files", tmp_path / "results", chance_picture=picture)
    assert {one.severity for one in Store(tmp_path / "results").measurements()} == {0}
    assert cv2.imread(str(picture)) is not None
    score(exported, tmp_path / "files", tmp_path / "results")
    assert {one.severity for one in Store(tmp_path / "results").measurements()} == {0, 3, 5}


def test_first_predictions_from_files_are_checked(exported, tmp_path):
    """A warning is stored as for a model, and those that need a second answer are left out."""
    dump(exported, tmp_path / "files")
    score(exported, tmp_path / "files", tmp_path / "results")
    [run] = Store(tmp_path / "results").runs()
    told = " ".join(run.protocol["plausibility"]["warnings"])
    assert "second time" not in told
    assert "in a batch" not in told
