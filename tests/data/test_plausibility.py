"""Readable data that probably means something else: a warning for it, and none for others."""

from dataclasses import replace

import numpy as np
import pytest

from stillrobust.data.check import check_dataset
from stillrobust.data.plausibility import (
    DATA_CHECKS,
    TargetSummary,
    chance_score,
    data_warnings,
    summarize_targets,
)
from stillrobust.data.reading import write_image
from stillrobust.samples import IGNORE, DatasetInfo, Target
from tests.toys import Toys

TASKS = ("classification", "detection", "segmentation")


def summary_of(task, targets, classes=("a", "b", "c")):
    found = TargetSummary(DatasetInfo("set", task, classes, len(targets), "0"))
    for target in targets:
        found.add(target)
    return found


def objects(boxes, labels, size=(100, 100), **fields):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Target("i", size, boxes=boxes, labels=np.array(labels, np.int64), **fields)


def label_map(*values):
    return Target("i", (1, len(values)), label_map=np.array([values], np.uint8))


GOOD = {
    "classification": [Target("i", (9, 9), label=n % 3) for n in range(30)],
    "detection": [objects([[10, 10, 50, 50]], [n % 3]) for n in range(30)],
    "segmentation": [label_map(0, 1, 2, IGNORE) for _ in range(30)],
}
FAULTY = {
    ("classification", "absent classes"): [Target("i", (9, 9), label=n % 2) for n in range(30)],
    ("classification", "labels from 1"): [Target("i", (9, 9), label=1 + n % 2) for n in range(30)],
    ("detection", "absent classes"): [objects([[1, 1, 50, 50]], [n % 2]) for n in range(30)],
    ("detection", "labels from 1"): [objects([[1, 1, 50, 50]], [1 + n % 2]) for n in range(30)],
    ("detection", "images without objects"): [objects([], []) for _ in range(30)],
    ("detection", "normalised boxes"): [
        objects([[0.1, 0.1, 0.9, 0.9]], [n % 3]) for n in range(30)
    ],
    ("detection", "boxes outside"): [objects([[60, 60, 130, 130]], [n % 3]) for n in range(30)],
    ("detection", "only crowds"): [
        objects([[1, 1, 50, 50]], [n % 3], crowd=np.ones(1, bool)) for n in range(30)
    ],
    ("detection", "objects without mask"): [
        *GOOD["detection"],
        objects([], [], masks=np.zeros((0, 100, 100), bool)),
        objects([[1, 1, 5, 5]], [0], masks=np.zeros((1, 100, 100), bool)),
    ],
    ("segmentation", "absent classes"): [label_map(0, 1, 1, 0) for _ in range(30)],
    ("segmentation", "labels from 1"): [label_map(1, 2, 1, 2) for _ in range(30)],
    ("segmentation", "images without labels"): [label_map(IGNORE, IGNORE) for _ in range(30)],
    ("segmentation", "ignored pixels"): [label_map(0, 1, 2, *[IGNORE] * 4) for _ in range(30)],
    ("segmentation", "one class"): [label_map(1, 1, 1) for _ in range(30)],
}


def test_every_check_has_a_faulty_set():
    assert set(FAULTY) == {(task, name) for task, checks in DATA_CHECKS.items() for name in checks}


@pytest.mark.parametrize(("task", "name"), FAULTY)
def test_a_fault_gives_its_warning(task, name):
    found = summary_of(task, FAULTY[task, name])
    assert DATA_CHECKS[task][name](found)
    assert DATA_CHECKS[task][name](found) in data_warnings(found)


@pytest.mark.parametrize("task", TASKS)
def test_sound_data_gives_no_warning(task):
    assert data_warnings(summary_of(task, GOOD[task])) == ()


def test_warnings_name_what_was_found():
    [text] = data_warnings(summary_of("segmentation", [label_map(0, 1, 2, *[IGNORE] * 9)]))
    assert text.startswith("75% of the pixels are 255")
    assert "maps(foreground=255):PATH" in text
    assert "b, c" in data_warnings(summary_of("classification", [Target("i", (9, 9), label=0)]))[0]


def test_a_part_of_a_set_says_nothing_about_absent_classes():
    data = Toys("classification", size=400)
    found = summarize_targets(data, images=3)
    assert found.images == 3
    assert not found.covers_all
    found.info = replace(found.info, classes=("wide", "tall", "round"))
    found.counts = np.array([2, 1, 0])
    assert data_warnings(found) == ()


def test_data_check_prints_the_warnings(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
        write_image(tmp_path / kind / "val" / "1.png", np.ones((9, 9, 3), np.uint8)[..., :3])
    write_image(tmp_path / "labels" / "val" / "1.png", np.ones((9, 9), np.uint8))
    (tmp_path / "classes.txt").write_text("ground\ncar\n")
    report = check_dataset(f"maps:{tmp_path}")
    assert report.whole
    [absent, one_class] = report.warnings
    assert "Every pixel that counts is of class car" in one_class
    assert f"warning  {absent}" in report.text()


def test_chance_by_hand():
    labels = [Target("i", (9, 9), label=label) for label in (0, 0, 0, 1)]
    assert chance_score(summary_of("classification", labels)) == 0.75
    # Class 0 everywhere: IoU 3/4 for class 0, 0 for class 1; class 2 does not occur.
    assert chance_score(summary_of("segmentation", [label_map(0, 0, 0, 1, IGNORE)])) == 0.375
    assert chance_score(summary_of("detection", GOOD["detection"])) == 0
