"""The gallery's steps: how much a model changed its mind, by hand, and the worst first."""

import numpy as np
import pytest

from stillrobust.grid import COMMON, Cell
from stillrobust.report.gallery import prediction_change, severity_steps
from stillrobust.report.summary import summarize
from stillrobust.storage.store import Run, Store

IDS = np.array(["x", "y"])


def test_change_of_a_class():
    clean = {"image_ids": IDS, "predicted": np.array([1, 2]), "score": np.array([0.9, 0.8])}
    noisy = {"image_ids": IDS[::-1], "predicted": np.array([3, 1]), "score": np.array([0.9, 0.6])}
    assert prediction_change(clean, noisy, "x") == pytest.approx(0.3)
    assert prediction_change(clean, noisy, "y") == 1
    assert prediction_change(clean, noisy, "z") is None


def test_change_of_a_label_map():
    clean = {"image_ids": IDS, "label_map": np.zeros((2, 2, 2), int)}
    noisy = {"image_ids": IDS, "label_map": np.array([[[0, 1], [0, 0]], [[0, 0], [0, 0]]])}
    assert (prediction_change(clean, noisy, "x"), prediction_change(clean, noisy, "y")) == (0.25, 0)


def test_change_of_boxes():
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10]], float)
    clean = {
        "image_ids": IDS,
        "box_image": np.array([0, 0, 1]),
        "labels": np.array([1, 1, 1]),
        "boxes": boxes,
    }
    moved = boxes + np.array([[2, 0, 2, 0], [5, 0, 5, 0], [0, 0, 0, 0]])  # IoU 8/12, 5/15, 1
    noisy = {**clean, "boxes": moved, "labels": np.array([1, 1, 2])}
    assert prediction_change(clean, noisy, "x") == 0.5  # one of two is still there
    assert prediction_change(clean, noisy, "y") == 1  # there, but as another class
    none = {
        **clean,
        "box_image": np.zeros(0, int),
        "labels": np.zeros(0, int),
        "boxes": np.zeros((0, 4)),
    }
    assert (prediction_change(clean, none, "x"), prediction_change(none, clean, "x")) == (1, 0)


def test_worst_first_for_every_model(tmp_path):
    store = Store(tmp_path)
    for name in ("a", "b"):
        store.write_run(
            Run(name, "classification", f"<{name}>", None, "toy", {}, ("cat", "dog"), "upstream")
        )
        for place in [("clean", 0), *((corruption, 1) for corruption in COMMON)]:
            worst = place[0] == "frost" and name == "b"
            kept = {
                "images": np.full((1, 8, 8, 3), len(place[0]), np.uint8),
                "image_ids": np.array(["one"]),
                "label": np.array([0]),
                "predicted": np.array([int(worst)]),
                "score": np.array([0.9 - 0.4 * (place[0] == "fog")]),
            }
            store.write_cell(Cell(name, *place), "k", {"top1": 0.5}, {"seed": 0}, 1, 1.0, {}, kept)
    steps = severity_steps(store, summarize(store, 0).rows, {})
    assert [step.place for step in steps[:2]] == ["frost 1", "fog 1"]
    # every corruption has a step, for the filter; of each up to STEPS images
    assert len(steps) == len(COMMON)
    label, change, clean, corrupted = steps[0].models[1]
    assert (label, change) == ("<b>", 1)
    assert clean.labels == (("", "✓ cat 90 %"),)
    assert corrupted.labels == (("", "✗ dog 90 %, is cat"),)
    assert all([model[0] for model in step.models] == ["<a>", "<b>"] for step in steps)
