"""Runs with fewer than the 15 corruptions: their numbers, intervals and pictures are shown, and
their mean is never called mPC.
"""

import csv
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.grid import Cell
from stillrobust.report import summarize
from stillrobust.storage.store import Run, Store
from tests.paper_store import fill

IMAGES = 100


def write(root, name, right, places=(("fog", 3), ("contrast", 3))):
    """A run that is right on the first 80 images, and under corruption on the first ``right``."""
    store = Store(root)
    store.write_run(Run(name, "classification", name, None, "toy", {}, ("a", "b"), "external"))
    ids = np.array([f"{i:03}.png" for i in range(IMAGES)])
    for place in [("clean", 0), *places]:
        correct = np.arange(IMAGES) < (right.get(place[0], 60) if place[1] else 80)
        statistics = {
            "image_ids": ids,
            "correct": correct,
            "label": np.arange(IMAGES, dtype=np.int32) % 2,
            "confidence": np.full(IMAGES, 0.9, np.float32),
            "classes": np.array(2),
        }
        examples = {
            "images": np.full((1, 8, 8, 3), 9, np.uint8),
            "image_ids": ids[:1],
            "label": np.array([0]),
            "predicted": np.array([0]),
            "score": np.array([0.9]),
        }
        store.write_cell(
            Cell(name, *place),
            "k",
            {"top1": correct.mean()},
            {"seed": 0},
            IMAGES,
            1.0,
            statistics,
            examples,
        )
    return store


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The terminal's text and the folder of the report."""
    root = tmp_path_factory.mktemp("few")
    write(root / "s", "a", {"fog": 40})
    write(root / "s", "b", {"fog": 20, "contrast": 30})
    result = CliRunner().invoke(app, ["report", str(root / "s"), "--out", str(root / "out")])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split()), root / "out"


def test_terminal_and_page_have_the_numbers_and_call_them_what_they_are(told):
    text, out = told
    page = " ".join((out / "report.html").read_text().split())
    for shown in (text, page):
        assert "a keeps 62.5 % of its top-1 (80.0 clean, 50.0 as mean over 2 of 15" in shown
        assert "top-1: mean over 2 of 15 corruptions, severity 3" in shown
        assert "is not mPC" in shown
        for sentence in ("again", "complete run yet", "Measured so far", "missing", "evaluate"):
            assert not re.search(rf"\b{sentence}\b", shown), "the protocol is finished"
    assert "a top-1 fog 80.0 [" in text
    assert "drops 68.8 [" in text, "b: 1 - 25 / 80"
    assert 'aria-label="Fewer than the 15 corruptions"' in page
    assert page.count("<h3>Images and predictions</h3>") == 1


def test_files_have_the_numbers_under_other_names(told):
    _, out = told
    content = json.loads((out / "results.json").read_text())
    assert content["rows"] == content["incomplete"] == []
    first, second = content["fewer_corruptions"]
    assert (first["run"], first["mean"], second["mean"]) == ("a", 0.5, 0.25)
    assert first["by_corruption"] == {"fog": 0.4, "contrast": 0.6}
    assert first["drop_interval"][0] < first["drop"] == 0.375 < first["drop_interval"][1]
    assert not any("mpc" in key for key in first)
    lines = list(csv.DictReader((out / "fewer_corruptions.csv").open()))
    assert [line["corruption"] for line in lines] == ["mean of 2", "fog", "contrast"] * 2
    assert float(lines[1]["score_low"]) < 0.4 < float(lines[1]["score_high"])
    assert not list(csv.DictReader((out / "table.csv").open()))


def test_details_of_few_corruptions(told):
    output = (
        CliRunner().invoke(app, ["runs", "show", str(told[1].parent / "s"), "--run", "b"]).output
    )
    assert "over 2 of 15 corruptions at severity 3" in output
    assert "worst corruption fog, 20.0 [" in output
    assert "(the lowest of 2 scores" in output


def test_complete_runs_and_others_are_never_ranked_together(tmp_path):
    fill(tmp_path, "whole", 0.9, 0.8, images=IMAGES)
    write(tmp_path, "few", {"fog": 79})
    summary = summarize(Store(tmp_path), 20)
    assert [row.run.name for row in summary.rows] == ["whole"]
    assert [row.run.name for row in summary.partial_rows] == ["few"]
    assert not summary.incomplete


def test_a_clean_score_of_zero_is_the_reason_that_is_printed(tmp_path):
    """The protocol is finished, so nobody is asked to evaluate again."""
    store = write(tmp_path / "s", "a", {})
    for place in (("clean", 0), ("fog", 3), ("contrast", 3)):
        store.write_cell(Cell("a", *place), "k", {"top1": 0.0}, {"seed": 0}, IMAGES, 1.0, {})
    told = CliRunner().invoke(app, ["report", str(store.root), "--out", str(tmp_path / "out")])
    assert told.exit_code == 0
    assert "a: Expected a clean top1 above 0 for a, but got 0" in told.output
    assert "complete" not in told.output
    assert "again" not in told.output


def test_a_run_that_stopped_within_a_corruption_is_incomplete(tmp_path):
    store = write(tmp_path, "a", {}, [("fog", 1), ("fog", 3), ("contrast", 1)])
    summary = summarize(store, 20)
    assert not summary.partial_rows
    assert "has no measurement for" in summary.incomplete[0].reason
