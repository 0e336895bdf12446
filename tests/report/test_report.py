import csv
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.errors import UserError
from stillrobust.grid import COMMON, Cell
from stillrobust.report import report, results_table, summarize, to_text
from stillrobust.storage.store import Run, Store


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]


def fill(root, name, corrupted, leave_out=()):
    store = Store(root)
    store.write_run(
        Run(name, "classification", name, "fixed_feature", "toy", {"seed": 0}, ("<script>", "b"))
    )
    examples = {
        "images": np.full((1, 8, 8, 3), 9, np.uint8),
        "image_ids": np.array(["<script>.png"]),
        "label": np.array([0]),
        "predicted": np.array([0]),
        "score": np.array([0.9]),
    }
    for place in [("clean", 0), *((c, s) for c in COMMON for s in range(1, 6))]:
        if place not in leave_out:
            value = corrupted if place[1] else 0.8
            store.write_cell(
                Cell(name, *place), "key", {"top1": value}, {"seed": 0}, 4, 1.0, {}, examples
            )


def test_report(tmp_path):
    fill(tmp_path / "s", "a", 0.6)
    fill(tmp_path / "s", "b", 0.4, leave_out=[("fog", 2)])
    path = report(tmp_path / "s", tmp_path / "out")
    text = path.read_text()
    links = Links()
    links.feed(text)
    assert links.tags.count("script") == 1  # the page's own
    assert "&lt;script&gt;" in text
    assert all(link.startswith(("#", "data:", "figures/")) for link in links.links)
    assert "fog 2" in text
    warning = "toy, top-1: Only 4 images: scores and intervals are not reliable"
    assert warning in text
    assert warning in " ".join(
        to_text(results_table(summarize(Store(tmp_path / "s")).rows)).split()
    )
    (row,) = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert row["warnings"] == [
        warning.partition(": ")[2] + " with fewer than 30; evaluate more images."
    ]
    rows = list(csv.DictReader((tmp_path / "out/table.csv").open()))
    assert [row["run"] for row in rows] == ["a"]
    assert float(rows[0]["mean_drop"]) == pytest.approx(0.25)


def test_a_page_asked_for_nothing(tmp_path):
    """No folder, a folder of something else, and a store in which no run is whole: each says where
    and what to do.
    """
    runner = CliRunner()
    for folder in (tmp_path / "none", tmp_path):
        error = runner.invoke(
            app, ["report", str(folder), "--out", str(tmp_path / "out")]
        ).exception
        assert isinstance(error, UserError)
        assert f"at {folder}, but there is none; check the path" in str(error)
    assert not (tmp_path / "out").exists()
    fill(tmp_path / "s", "a", 0.6, leave_out=[("clean", 0)])
    told = runner.invoke(app, ["report", str(tmp_path / "s"), "--out", str(tmp_path / "out")])
    assert told.exit_code == 0
    assert "No run has a mean drop yet. What each run lacks:" in told.output
    assert "a (top1) has no measurement for clean (1 missing): evaluate them" in told.output
    page = (tmp_path / "out/report.html").read_text()
    assert "no complete run yet. Evaluate what is missing" in page
    assert "has no measurement for clean (1 missing): evaluate them" in page


def test_a_run_of_two_protocols_is_named_and_left_out(tmp_path):
    fill(tmp_path / "s", "a", 0.6)
    fill(tmp_path / "s", "b", 0.5)
    store = Store(tmp_path / "s")
    store.write_cell(Cell("b", "fog", 2), "key", {"top1": 0.5}, {"seed": 1}, 4, 1.0, {})
    text = report(tmp_path / "s", tmp_path / "out").read_text()
    assert (
        "Expected all cells of b under one protocol, but seed differ between cells: evaluate"
        " them again under one protocol" in text
    )
    assert [row["run"] for row in csv.DictReader((tmp_path / "out/table.csv").open())] == ["a"]
