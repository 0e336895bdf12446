"""The page without a browser: its numbers are the summary's, every name is text, it asks for
nothing, its files are the files.
"""

import base64
import csv
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from stillrobust.grid import COMMON, Cell
from stillrobust.report import add_breakdown, render_page, results_table, summarize
from stillrobust.report.breakdown import class_heat_map, size_heat_table
from stillrobust.report.figures import pareto_front, upstream_against_downstream
from stillrobust.report.headline import mean_drop
from stillrobust.report.heat_map import heat_colour
from stillrobust.report.table import percent
from stillrobust.storage.store import Run, Store
from tests.paper_store import fill

HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Tags with their attributes, and the tables with their captions and cells by row."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.cell = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = self.tables[-1][-1]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell[-1] += data

    def links(self):
        return [
            value
            for _, attributes in self.tags
            for name, value in attributes.items()
            if name in ("src", "href", "action")
        ]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    levels = (1, 3)
    fill(root, "up-a", 0.9, 0.5, backbone="a", transfer=None, kind="upstream", severities=levels)
    fill(root, "up-b", 0.9, 0.7, backbone="b", transfer=None, kind="upstream", severities=levels)
    fill(root, "seg-a", 0.8, 0.4, "segmentation", backbone="a", severities=levels)
    fill(root, "seg-b", 0.8, 0.6, "segmentation", backbone="b", severities=levels)
    fill(root, "seg-x", 0.7, 0.5, "segmentation", backbone=HOSTILE, severities=levels)
    return Store(root)


@pytest.fixture(scope="module")
def made(store):
    summary = summarize(store, replicates=50)
    text = render_page(store, summary)
    return summary, text, Page(text)


def test_numbers_are_the_summary_s(made):
    summary, _, parsed = made
    shown = {line[1]: line for line in parsed.tables[0] if line[2] == "full network"}
    assert len(parsed.tables[0]) == 1 + len(summary.rows)
    rows = [row for row in summary.rows if row.run.task == "segmentation"]
    table = results_table(rows)
    for row, line in zip(rows, table.rows, strict=True):
        assert shown[row.run.backbone] == table.cell_texts(line)
        assert str(mean_drop(row)) in shown[row.run.backbone]
    heat = next(
        table
        for table in parsed.tables
        if len(table) > 1 and table[1][:2] == ["Model", "gaussian noise"]
    )
    blocks = {line[0]: index for index, line in enumerate(heat) if len(line) == 1}
    assert list(blocks) == ["mean of the severities", "severity 1", "severity 3"]
    up = next(row for row in summary.rows if row.run.name == "up-b")
    line = next(line for line in heat[blocks["mean of the severities"] :] if line[0] == "b")
    assert line[1:] == [percent(up.robustness.by_corruption[name].drop, 0) for name in COMMON]


def test_names_are_text(made):
    _, text, parsed = made
    assert "alert(1)</script>" not in text
    assert sum(tag == "script" for tag, _ in parsed.tags) == 1  # ours
    assert any(line[1] == HOSTILE for line in parsed.tables[0])


def test_it_asks_for_nothing(made):
    _, text, parsed = made
    assert all(link.startswith(("#", "data:", "figures/")) for link in parsed.links())
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert len(text) < 1_000_000


def test_readable_without_eyes(made):
    _, _, parsed = made
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("caption") >= 3
    assert all(
        "aria-label" in attributes
        for tag, attributes in parsed.tags
        if tag == "svg" and attributes.get("role") == "img"
    )
    assert all(attributes.get("scope") for tag, attributes in parsed.tags if tag == "th")
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"table", "downloads"} <= set(ids)


def test_downloads_hold_the_numbers(made):
    summary, _, parsed = made
    files = {
        attributes["download"]: base64.b64decode(attributes["href"].split("base64,")[1]).decode()
        for tag, attributes in parsed.tags
        if tag == "a" and "download" in attributes and attributes["href"].startswith("data:")
    }
    table = list(csv.DictReader(io.StringIO(files["table.csv"])))
    assert [float(line["mean_drop"]) for line in table] == [
        row.robustness.drop for row in summary.rows
    ]
    assert len(list(csv.DictReader(io.StringIO(files["measurements.csv"])))) == len(
        summary.measurements
    )
    told = json.loads(files["results.json"])["rows"]
    assert [one["mpc"] for one in told] == [row.robustness.mpc for row in summary.rows]
    first = summary.measurements[0]
    scores = next(one["scores"] for one in told if one["run"] == first.run)
    assert scores[first.corruption][str(first.severity)] == first.value
    assert files["table.tex"].count(r"\\") == 2 + len(summary.rows)  # two tables
    assert "<script>" not in files["table.tex"]


def test_pareto_front_by_hand():
    assert pareto_front([(0.5, 0.9), (0.9, 0.2), (0.6, 0.5), (0.5, 0.5), (0.9, 0.1)]) == [1, 2, 0]
    assert pareto_front([(1, 1), (1, 1), (0, 0)]) == [0, 1]


def test_upstream_pairs_are_the_same_backbone(made):
    summary, _, _ = made
    segmentation = [row for row in summary.rows if row.run.task == "segmentation"]
    figure = upstream_against_downstream(segmentation, summary.rows)
    texts = [point.text for point in figure.points]
    up = {
        row.run.backbone: row.value("drop")
        for row in summary.rows
        if row.run.transfer == "upstream"
    }
    for row in segmentation:
        if row.run.backbone in up:
            assert (
                f"{row.run.backbone}: {percent(up[row.run.backbone])} →"
                f" {percent(row.value('drop'))}" in texts
            )
    assert len(texts) == 2  # the third backbone was not measured upstream
    assert (
        upstream_against_downstream(
            [row for row in summary.rows if row.run.task == "classification"], summary.rows
        )
        is None
    )


def test_no_pair_with_two_ways_upstream(tmp_path):
    """Which of the two would stand across cannot be known, so the backbone is left out and named;
    the other's pair stays.
    """
    for name, backbone in (("up-a", "<a>"), ("up-a2", "<a>"), ("up-b", "b")):
        fill(tmp_path, name, 0.9, 0.5, backbone=backbone, transfer=None, kind="upstream")
    fill(tmp_path, "seg-a", 0.8, 0.4, "segmentation", backbone="<a>")
    fill(tmp_path, "seg-b", 0.8, 0.6, "segmentation", backbone="b")
    every = summarize(Store(tmp_path), replicates=20).rows
    rows = [row for row in every if row.run.task == "segmentation"]
    figure = upstream_against_downstream(rows, every)
    assert len(figure.points) == 1
    left_out = "Left out, with more than one run upstream: <a>."
    assert left_out in figure.caption
    alone = upstream_against_downstream([row for row in rows if row.run.backbone == "<a>"], every)
    assert (alone.caption, alone.drawing) == (left_out, None)


def test_text_on_colour_can_be_read():
    """Contrast of at least 4.5 : 1 (WCAG 2.2, 1.4.3) on every step of the scale."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for step in range(21):
        back, text = heat_colour(step / 20)
        dark, light = sorted([luminance(back), 1.0 if text == "#fff" else 0.0])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, step


def test_an_empty_store_says_so(tmp_path):
    text = render_page(Store(tmp_path), summarize(Store(tmp_path)))
    assert "There is no complete run yet" in text


def test_by_class_by_hand(tmp_path):
    """Ten images of two classes each, all right when clean; corrupted, the second class keeps 4 of
    10, the third is not there.
    """
    store = Store(tmp_path)
    store.write_run(
        Run("r", "classification", "a", None, "toy", {}, ("kept", "<lost>", "absent"), "upstream")
    )
    label = np.repeat([0, 1], 10)
    for place in [("clean", 0), *((name, 1) for name in COMMON)]:
        correct = np.ones(20, bool)
        correct[14:] = not place[1]
        ids = np.array([f"{number}.png" for number in range(20)])
        kept = {
            "image_ids": ids,
            "correct": correct,
            "label": label,
            "confidence": np.full(20, 0.9),
            "classes": np.array(3),
        }
        store.write_cell(
            Cell("r", *place), "k", {"top1": correct.mean()}, {"seed": 0}, 20, 1.0, kept
        )
    summary = add_breakdown(store, summarize(store, replicates=20))
    (lines,) = Page(class_heat_map(summary.rows, summary)).tables
    assert lines[0] == ["Model", "<lost>", "kept"]  # most lost first, the absent class left out
    assert lines[-1] == ["a", "60", "0"]
    assert size_heat_table(summary.rows, summary).rows == []  # nothing has a size here
