import csv
from html.parser import HTMLParser

import numpy as np
import pytest

from stillrobust.report import report
from stillrobust.robustness import COMMON
from stillrobust.store import Cell, Run, Store


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]


def fill(root, name, corrupted, leave_out=()):
    store = Store(root)
    store.write_run(Run(name, "classification", name, "fixed_feature", "toy", {"seed": 0}, ("<script>", "b")))
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
            store.write_cell(Cell(name, *place), "key", {"top1": value}, {"seed": 0}, 4, 1.0, {}, examples)


def test_report(tmp_path):
    fill(tmp_path / "s", "a", 0.6)
    fill(tmp_path / "s", "b", 0.4, leave_out=[("fog", 2)])
    path = report(tmp_path / "s", tmp_path / "out")
    text = path.read_text()
    links = Links()
    links.feed(text)
    assert links.tags.count("script") == 1  # the page's own
    assert "&lt;script&gt;" in text
    assert all(link.startswith(("#", "data:")) for link in links.links)
    assert "fog 2" in text
    rows = list(csv.DictReader((tmp_path / "out/table.csv").open()))
    assert [row["run"] for row in rows] == ["a"]
    assert float(rows[0]["mean_drop"]) == pytest.approx(0.25)
