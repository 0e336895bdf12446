"""Scores that are possible but usually mean a mistake."""

import pytest

from stillrobust.analysis.plausibility import PLAUSIBILITY, run_warnings, score_warnings
from stillrobust.storage.store import Measurement, Run


def cell(value, corruption="clean", severity=0, metric="miou", images=400):
    return Measurement("run", metric, corruption, severity, value, {}, images, 1.0)


def test_an_ordinary_run_has_no_warning():
    cells = [cell(0.7), cell(0.5, "fog", 3), cell(0.72, "contrast", 1)]
    assert score_warnings(cells, chance=0.3) == ()


@pytest.mark.parametrize("metric", ["top1", "box_ap", "mask_ap", "miou"])
def test_a_clean_score_of_zero(metric):
    [text] = score_warnings([cell(0.0, metric=metric)])
    assert "is 0.0" in text


def test_a_clean_score_of_chance():
    [text] = score_warnings([cell(0.42)], chance=0.42)
    assert "42.0 is no better than the same answer for every image (42.0)" in text
    assert score_warnings([cell(0.43)], chance=0.42) == ()
    # 0.5 of 400 images has a standard error of 0.025
    assert score_warnings([cell(0.54, metric="top1")], chance=0.5)
    assert score_warnings([cell(0.56, metric="top1")], chance=0.5) == ()


def test_a_corrupted_score_far_above_the_clean_one():
    cells = [cell(0.47), cell(1.0, "fog", 3), cell(0.9, "snow", 2), cell(0.5, "fog", 1)]
    [text] = score_warnings(cells)
    assert text.startswith("The mIoU on fog at severity 3 is 100.0, far above the clean 47.0, in 2")


def test_few_images_have_a_wider_margin():
    assert score_warnings([cell(0.47, images=9), cell(0.7, "fog", 3, images=9)]) == ()


def test_stored_warnings_come_first():
    protocol = {PLAUSIBILITY: {"warnings": ["Look at the labels."], "chance": 0.5}}
    run = Run("run", "segmentation", "model", None, "data", protocol, (), "external")
    first, second = run_warnings(run, [cell(0.5)])
    assert first == "Look at the labels."
    assert "no better" in second
