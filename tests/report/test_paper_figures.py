"""The figures and tables for a paper that every report writes: size, fonts, labels, nothing cut."""

import re
import struct

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from stillrobust.grid import COMMON
from stillrobust.report import summarize, write_report
from stillrobust.report.figure_style import DPI, STYLE, short_name
from stillrobust.report.paper_figures import FOREMOST, PaperFigure, list_paper_figures
from stillrobust.report.transfer_gain import Gain, TransferGain
from stillrobust.storage.store import Store
from tests.paper_store import fill

HOSTILE = "a $x_1$ \x1b[31m <b> & 100 % of a very long name that no column of a page can hold"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    store = Store(folder / "s")
    fill(store.root, "b", 0.8, 0.5, images=100, severities=(1, 5), backbone=HOSTILE)
    for index in range(FOREMOST + 2):
        name = f"m{index}"
        fill(store.root, name, 0.9, 0.7 - 0.05 * index, "segmentation", 80, (1, 2), name)
    fill(store.root, "d", 0.9, 0.6, "detection", 60, (3,))  # no statistics, one severity
    summary = summarize(store, replicates=30)
    write_report(store, summary, folder / "out")
    return summary, list_paper_figures(store.runs(), summary), folder / "out"


def drawn(figure: PaperFigure) -> Figure:
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(figure.width, figure.height), layout="constrained")
        FigureCanvasAgg(canvas)
        figure.draw(canvas)
        canvas.draw_without_rendering()
    return canvas


def test_only_figures_with_something_to_show(made):
    _, figures, _ = made
    kinds = {one.name.removeprefix("figures/") for one in figures}
    assert kinds == {
        "severity_curves-classification-toy-top1",  # one model: nothing to scatter
        "drop_by_group-classification-toy-top1",
        "severity_curves-segmentation-toy-miou",
        "clean_against_corrupted-segmentation-toy-miou",
        "drop_by_group-segmentation-toy-miou",
        "drop_by_group-detection-toy-box_ap",  # one severity: no curve
        "drop_by_group-detection-toy-mask_ap",
    }


def test_files_have_the_width_of_a_column_and_fonts_as_text(made):
    _, figures, out = made
    paths = sorted(path for one in figures for path in one.paths)
    assert paths == sorted(str(path.relative_to(out)) for path in out.glob("figures/*"))
    page = (out / "report.html").read_text()
    for one in figures:
        pdf = (out / f"{one.name}.pdf").read_bytes()
        png = (out / f"{one.name}.png").read_bytes()
        assert one.width in (3.25, 6.875)
        (box,) = set(re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf))
        assert float(box) == pytest.approx(72 * one.width)
        width, height = struct.unpack(">II", png[16:24])
        assert (width, height) == pytest.approx((DPI * one.width, DPI * one.height), abs=1)
        assert b"/FontFile2" in pdf, "TrueType, embedded"
        assert b"/Type3" not in pdf
        assert f'href="{one.name}.pdf"' in page


def test_nothing_is_cut_and_axes_have_units(made):
    _, figures, _ = made
    for one in figures:
        canvas = drawn(one)
        drawn_box = canvas.get_tightbbox()  # inches
        assert 0 <= drawn_box.x0 < drawn_box.x1 <= one.width, one.name
        assert 0 <= drawn_box.y0 < drawn_box.y1 <= one.height, one.name
        assert all(text.get_fontsize() >= 7 for text in canvas.findobj(Text))
        (place,) = canvas.axes
        assert place.get_ylabel().endswith("(%)")
        legend = canvas.legends[0].get_window_extent()
        assert legend.y0 >= place.get_window_extent().y1 - 1, "the legend is above the axes"


def test_numbers_in_the_figures_are_those_of_the_rows(made):
    summary, figures, _ = made
    rows = [row for row in summary.rows if row.run.task == "segmentation"]  # by drop
    by_name = {one.name.partition("/")[2].partition("-seg")[0]: one for one in figures}
    (place,) = drawn(by_name["severity_curves"]).axes
    grey, curves = place.lines[: len(rows) - FOREMOST], place.lines[len(rows) - FOREMOST :]
    assert len(grey) == 2
    for row, curve in zip(rows, curves, strict=False):
        assert list(curve.get_xdata()) == [0, 1, 2]
        levels = [row.robustness.by_severity[level].mpc for level in (1, 2)]
        assert curve.get_ydata() == pytest.approx(
            [100 * value for value in (row.robustness.clean, *levels)]
        )
    canvas = drawn(by_name["drop_by_group"])
    (place,) = canvas.axes
    bars = np.array([bar.get_height() for bar in place.patches]).reshape(FOREMOST, 5)
    assert bars[:, 4] == pytest.approx([100 * row.robustness.drop for row in rows[:FOREMOST]])
    assert bars[0, 0] == pytest.approx(100 * rows[0].robustness.by_group["noise"].drop)
    labels = [text.get_text() for text in canvas.legends[0].get_texts()]
    assert labels == [row.run.backbone for row in rows[:FOREMOST]]
    assert "of the 6 of 8 models" in by_name["drop_by_group"].description


def test_fewer_corruptions_have_a_bar_each(tmp_path):
    fill(tmp_path / "s", "a", 0.9, 0.6, images=100, severities=(3,))
    for path in (tmp_path / "s/cells").rglob("*"):
        if path.is_file() and not any(name in str(path) for name in ("clean", "fog", "frost")):
            path.unlink()
    store = Store(tmp_path / "s")
    summary = summarize(store, replicates=30)
    (row,) = summary.partial_rows
    (figure,) = list_paper_figures(store.runs(), summary)
    assert figure.name == "figures/drop_by_type-classification-toy-top1"
    (place,) = drawn(figure).axes
    assert [text.get_text() for text in place.get_xticklabels()] == ["frost", "fog"]
    assert row.robustness.corruptions == tuple(name for name in COMMON if name in ("frost", "fog"))
    parts = row.robustness.by_corruption
    assert [bar.get_height() for bar in place.patches] == pytest.approx(
        [100 * parts["frost"].drop, 100 * parts["fog"].drop]
    )
    low, high = row.interval_of("drop.fog")
    assert low < parts["fog"].drop < high


def test_gains_from_upstream_to_downstream(monkeypatch, made):
    lines = [
        TransferGain(
            "net", "prime", task, "toy", transfer, "top1",
            upstream=Gain(0.25, (0.2, 0.3)), downstream=Gain(value, (value - 0.1, value + 0.1)),
        )
        for task in ("classification", "detection")
        for transfer, value in (("fixed feature", 0.15), ("full network", 0.05))
    ]  # fmt: skip
    monkeypatch.setattr("stillrobust.report.paper_figures.transfer_gain", lambda *_: lines)
    figure = list_paper_figures([], made[0])[-1]
    assert figure.name == "figures/transfer_gain"
    canvas = drawn(figure)
    assert [place.get_title() for place in canvas.axes] == ["classification, toy", "detection, toy"]
    for place in canvas.axes:
        (line,) = [line for line in place.lines if line.get_marker() == "o"]
        assert line.get_ydata() == pytest.approx([25, 15, 5])
    assert "points" in canvas.axes[0].get_ylabel()


def test_names_are_short_text():
    assert short_name("resnet50") == "resnet50"
    assert len(short_name(HOSTILE)) <= 44
    assert "\x1b" not in short_name("\x1b[31m")


def test_a_table_for_each_protocol_in_latex(made):
    text = (made[2] / "table.tex").read_text()
    assert text.startswith("% Tables of stillrobust report. Use: \\input{table}\n")
    assert text.count(r"\begin{table*}") == text.count(r"\bottomrule") == 4
    assert "% Protocol: severities 1, 2; seed 0\n" in text
    assert "hline" not in text
    assert "% Task: Semantic segmentation\n" in text
    assert r"Model & Clean & mPC & Noise & Blur & Digital & Weather & Mean drop & Alike \\" in text
    assert len(re.findall(r"^m\d .*\\textbf\{", text, re.MULTILINE)) >= 1, "the best is bold"
