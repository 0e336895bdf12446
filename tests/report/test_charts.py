"""Charts are values: their numbers are the rows' numbers, and every text in them is text."""

import itertools
import json
import math
import re
from importlib.resources import files

import numpy as np
import pytest

from stillrobust.analysis.intervals import SCORE_RANGE, interval
from stillrobust.report import render_page, summarize
from stillrobust.report.breakdown import add_breakdown
from stillrobust.report.charts import chart_text, layout, safe_json
from stillrobust.report.figures import score_bars, score_charts
from stillrobust.storage.store import Store
from tests.paper_store import fill
from tests.report.test_page import Page

MARKS = "\u202e\u2028\u2029\x1b\x07\u200f"
HOSTILE = f"</script><b onclick='x'>&amp;%{{x}}<a href=\"javascript:alert(1)\">{MARKS}"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("charts")
    for index, name in enumerate(("a", HOSTILE, "c")):
        fill(root, f"run-{index}", 0.9 - 0.1 * index, 0.7 - 0.1 * index, backbone=name,
             severities=(1, 3))  # fmt: skip
    fill(root, "only-scores", 0.5, 0.4, "detection", backbone="d", severities=(1, 3))
    return Store(root)


@pytest.fixture(scope="module")
def rows(store):
    return [row for row in summarize(store, 50).rows if row.run.task == "classification"]


def test_curves_have_the_scores_of_the_rows(rows):
    group = score_charts(rows)
    severity, points = group.charts
    ranked = sorted(rows, key=lambda row: row.robustness.drop)
    assert [entry.run for entry in group.legend] == [row.run.name for row in ranked]
    lines = [trace for trace in severity.traces if trace["mode"] == "lines+markers"]
    bands = [trace for trace in severity.traces if trace.get("fill")]
    for index, row in enumerate(ranked):
        numbers = row.robustness
        expected = [numbers.clean, *(part.mpc for part in numbers.by_severity.values())]
        assert lines[index]["x"] == [0, 1, 3]
        assert lines[index]["y"] == pytest.approx([100 * value for value in expected])
        low, high = interval(row.resampled["severity.3"], expected[2], SCORE_RANGE)
        assert (bands[index]["y"][2], bands[index]["y"][3]) == pytest.approx(
            (100 * low, 100 * high)
        )
        assert lines[index]["meta"] == bands[index]["meta"] == points.traces[index]["meta"] == index
        assert points.traces[index]["x"] == pytest.approx([100 * numbers.clean])
        assert points.traces[index]["y"] == pytest.approx([100 * numbers.mpc])
        cells = severity.table.rows[index].cells
        assert [cell.value for cell in cells[1:]] == expected, "the table has the same numbers"
    assert len(lines) == len(bands) == len(rows)


def test_bars_have_the_scores_of_the_rows(rows):
    chart = score_bars(rows, rows)
    clean, corrupted = chart.traces
    assert clean["x"] == pytest.approx([100 * row.robustness.clean for row in rows])
    assert corrupted["x"] == pytest.approx([100 * row.robustness.mpc for row in rows])
    assert chart.layout["xaxis"]["range"] == [0, 100]


def test_of_many_models_the_first_and_the_last_are_shown(rows):
    many = [row for row in rows for _ in range(10)]
    legend = score_charts(many).legend
    assert len(legend) == 30
    shown = [index for index, entry in enumerate(legend) if entry.shown]
    assert shown == [0, 1, 2, 3, 4, 27, 28, 29]
    chart = score_bars(many, rows)
    assert len(chart.traces[0]["x"]) == 12
    assert "The 18 models between the first and the last are in the table." in chart.caption


def test_captions_explain_only_what_is_there(store, rows):
    (row,) = [one for one in summarize(store, 50).rows if one.robustness.metric == "box_ap"]
    (severity,) = score_charts([row]).charts
    assert severity.caption == "Mean box AP over the 15 corruptions in %; severity 0 is clean."
    assert "Bands" in score_charts(rows).charts[0].caption
    assert "Lines" not in score_bars([row], [row]).caption


def test_text_is_text_for_the_library():
    assert chart_text("<b>&") == "&lt;b&gt;&amp;"
    assert chart_text("a\u202eb\x1b") == r"a\u202eb\x1b"
    assert chart_text("x" * 50, 10) == f"{'x' * 9}…"


def test_no_name_leaves_the_json_of_a_chart(store):
    summary = add_breakdown(store, summarize(store, 50))
    text = render_page(store, summary)
    assert not any(mark in text for mark in MARKS)
    parsed = Page(text)
    assert len(parsed.json) >= 5

    def texts(value, key=""):
        if isinstance(value, dict):
            return [one for name, part in value.items() for one in texts(part, name)]
        if isinstance(value, list):
            return [one for part in value for one in texts(part, key)]
        return [(key, value)] if isinstance(value, str) else []

    seen = [pair for chart in parsed.json for pair in texts(chart.get("traces", chart))]
    names = [value for key, value in seen if "onclick" in value]
    assert names, "the name is in the charts"
    for value in names:
        assert "&lt;b onclick" in value
        assert "<b onclick" not in value
        assert not any(mark in value for mark in MARKS)
    assert not any("onclick" in attributes for _, attributes in parsed.tags), "no tag of a name"
    assert all("%{" not in str(value) for key, value in seen if key == "hovertemplate")


def test_json_never_has_nan():
    value = {"y": [math.nan, math.inf, 1.0], "</script>": "\u2028&'"}
    text = safe_json(value)
    assert json.loads(text) == {"y": [None, None, 1.0], "</script>": r"\u2028&'"}
    assert not any(character in text for character in "<>&'")
    json.loads(safe_json(layout(300)))


# Simulations of colour vision deficiency (Machado, Oliveira and Fernandes 2009, severity 1), of
# linear sRGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


@pytest.mark.parametrize("vision", VISION)
def test_series_are_told_apart_with_every_kind_of_colour_vision(vision):
    """Distances in CIELAB (1976) of at least 15; a just noticeable one is 2.3."""
    style = files("stillrobust.report").joinpath("templates/page.css").read_text("utf-8")
    found = re.findall(r"--series-\d: #(\w{6})", style)
    assert len(found) == 12, "six for light and six for dark"
    for palette in (found[:6], found[6:]):
        channels = np.array(
            [[int(one[at : at + 2], 16) / 255 for at in (0, 2, 4)] for one in palette]
        )
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        seen = np.clip(linear @ np.transpose(VISION[vision]), 0, 1)
        roots = np.cbrt(np.maximum(seen @ np.transpose(XYZ) / [0.9505, 1, 1.089], 0.008856))
        x, y, z = roots.T
        lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
        for one, other in itertools.combinations(range(6), 2):
            assert np.linalg.norm(lab[one] - lab[other]) > 15, (palette[one], palette[other])
