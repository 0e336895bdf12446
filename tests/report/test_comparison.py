"""Two runs beside each other: numbers by hand, planted differences found, equal runs alike,
protocols never mixed.
"""

import numpy as np
import pytest

from stillrobust.analysis.intervals import simultaneous_intervals
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import COMMON, Cell
from stillrobust.report.comparison import compare_runs, comparison_text
from stillrobust.storage.store import Run, Store
from tests.paper_store import fill

IMAGES = 200


def write(root, name, right, protocol=None, leave_out=None, only=("clean", *COMMON)):
    """A run of which the first ``right[corruption]`` of 200 images are right; 160 on the clean
    data.
    """
    store = Store(root)
    store.write_run(Run(name, "classification", name, None, "toy", {}, ("a", "b"), "upstream"))
    for place in [("clean", 0), *((c, 3) for c in COMMON)]:
        if place[0] != leave_out and place[0] in only:
            correct = np.arange(IMAGES) < (right.get(place[0], 120) if place[1] else 160)
            statistics = {
                "image_ids": np.array([f"{i}.png" for i in range(IMAGES)]),
                "correct": correct,
            }
            circumstances = {"weights": name, "seed": 0, **(protocol or {})}
            store.write_cell(
                Cell(name, *place),
                "k",
                {"top1": correct.mean()},
                circumstances,
                IMAGES,
                1.0,
                statistics,
            )
    return store


def test_by_hand(tmp_path):
    write(tmp_path, "a", {"fog": 120})
    store = write(tmp_path, "b", {"fog": 40, "snow": 121})
    found = compare_runs(store, "a", "b")
    assert (found.score["fog"].first, found.score["fog"].second) == (0.6, 0.2)
    assert found.drop["fog"].difference == pytest.approx(0.4 / 0.8)
    assert found.drop["mean of all 15"].difference == pytest.approx((0.5 - 0.005 / 0.8) / 15)
    # the largest change first
    assert list(found.score)[:4] == ["clean", "mean of all 15", "fog", "snow"]
    low, high = found.drop["fog"].interval
    assert 0 < low < 0.5 < high
    assert not found.drop["fog"].alike
    assert found.drop["snow"].alike
    assert found.drop["frost"].alike  # the very same answers
    assert found.score["clean"].difference == 0
    text = comparison_text(found)
    assert "fog" in text
    assert "50.0 [" in text
    assert "fog" not in text.split("Not distinguishable")[1]


def test_the_other_way_round_is_the_negative(tmp_path):
    fill(tmp_path, "a", 0.8, 0.6)
    fill(tmp_path, "b", 0.8, 0.4)
    there, back = (compare_runs(Store(tmp_path), *pair) for pair in (("a", "b"), ("b", "a")))
    for name, one in there.drop.items():
        assert one.difference == pytest.approx(-back.drop[name].difference)
        assert one.interval == pytest.approx(
            tuple(-end for end in reversed(back.drop[name].interval))
        )
        assert not one.alike


def test_one_protocol_or_a_sentence_that_names_the_fields(tmp_path):
    write(tmp_path, "a", {})
    store = write(tmp_path, "b", {}, {"channel_order": "bgr", "seed": 1})
    with pytest.raises(UserError, match=r"channel_order \(nothing and bgr\), seed \(0 and 1\)"):
        compare_runs(store, "a", "b")


def test_holes_and_unknown_names(tmp_path):
    write(tmp_path, "run-a", {})
    store = write(tmp_path, "run-b", {}, leave_out="clean")
    with pytest.raises(MissingCellsError, match="clean"):
        compare_runs(store, "run-a", "run-b")
    with pytest.raises(UserError, match="run-a"):
        compare_runs(store, "run_a", "run-b")
    with pytest.raises(UserError, match="folder of results"):
        compare_runs(Store(tmp_path / "none"), "a", "b")


def test_few_corruptions_are_compared_and_called_what_they_are(tmp_path):
    """One run has all 15, the other fog and contrast only: these two are compared, and their mean
    is not that of all 15.
    """
    write(tmp_path, "a", {"fog": 120, "contrast": 80, "snow": 10})
    store = write(tmp_path, "b", {"fog": 40, "contrast": 80}, only=("clean", "fog", "contrast"))
    found = compare_runs(store, "a", "b")
    assert list(found.score) == ["clean", "mean of 2 of 15", "fog", "contrast"]
    assert found.drop["mean of 2 of 15"].difference == pytest.approx(0.4 / 0.8 / 2)
    assert 0 < found.drop["fog"].interval[0] < 0.5 < found.drop["fog"].interval[1]
    text = " ".join(comparison_text(found).split())
    assert "Both runs have 2 of the 15 corruptions at these severities" in text
    assert "Those of the 2 corruptions are simultaneous" in text
    assert "severity 3;" in text


def test_runs_without_a_common_corruption_name_what_is_missing(tmp_path):
    write(tmp_path, "a", {}, only=("clean", "fog"))
    store = write(tmp_path, "b", {}, only=("clean", "contrast"))
    with pytest.raises(
        MissingCellsError, match=r"a \(top1\) has no measurement for gaussian_noise 3"
    ):
        compare_runs(store, "a", "b")


def test_few_images_are_warned_of(tmp_path):
    fill(tmp_path, "a", 0.8, 0.6, images=20)
    fill(tmp_path, "b", 0.8, 0.4, images=20)
    assert "Only 20 images" in comparison_text(compare_runs(Store(tmp_path), "a", "b"))


def test_without_statistics_there_is_no_interval(tmp_path):
    fill(tmp_path, "a", 0.8, 0.6, task="detection")
    fill(tmp_path, "b", 0.8, 0.4, task="detection")
    found = compare_runs(Store(tmp_path), "a", "b")
    assert found.metric == "box_ap"
    assert found.drop["fog"].interval is None
    assert "Significance unknown" in comparison_text(found)


def test_intervals_that_hold_together():
    """Of 15 numbers without any difference one interval leaves out 0 in 5 % of the cases, not in 1
    - 0.95^15 = 54 %.
    """
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        data = rng.normal(size=(15, 100))
        draws = data[:, rng.integers(0, 100, (200, 100))].mean(2)
        low, high = simultaneous_intervals(data.mean(1), draws).T
        wrong += bool(((low > 0) | (high < 0)).any())
    assert 0.02 < wrong / 300 < 0.11
