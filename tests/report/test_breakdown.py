"""Every metric of the family is in the terminal, on the page, in CSV and in JSON, with the same
number, clean and corrupted.
"""

import csv
import json
import re
from statistics import fmean

import numpy as np
import pytest
from typer.testing import CliRunner

from stillrobust.analysis.reference import as_reference, corruption_errors, effective_robustness
from stillrobust.cli import app
from stillrobust.data.official.imagenet import wordnet_ids
from stillrobust.errors import UserError
from stillrobust.grid import COMMON, GROUPS, Cell
from stillrobust.metrics.recompute import recompute_by_class, recompute_details
from stillrobust.report import summarize, write_report
from stillrobust.report.breakdown import PAIRS, add_breakdown, relative_scores
from stillrobust.report.protocol_groups import protocol_groups
from stillrobust.report.table import percent
from stillrobust.samples import Prediction
from stillrobust.storage.store import Run, Store
from tests.metrics.test_recompute import CLASSES, filled_metric, pair
from tests.report.test_page import Page

METRICS_OF = {
    "classification": ["top1"],
    "detection": ["box_ap", "mask_ap"],
    "segmentation": ["miou"],
}
WORST = "Worst corruption (lowest of 15)"
COMMAND = (
    "runs show {} --severities 3 --reference classification-one --standard classification-one"
    " --standard classification-three"
)
DROPS = {"one": 3, "two": 4, "three": 6}  # of ten images that are seen wrong under corruption


def told(task, index, wrong):
    """What a model says that is right: the truth itself, or, where it is wrong, what another image
    would have had.
    """
    prediction, target = pair(task, index)
    if task == "classification":
        label = (target.label + wrong) % 3
        return Prediction(probabilities=np.where(np.arange(3) == label, 0.8, 0.1)), target
    if task == "segmentation":
        right = np.where(target.label_map == 255, 0, target.label_map).astype(np.uint8)
        return Prediction(label_map=(right + wrong) % 3, confidence=prediction.confidence), target
    scores = np.full(len(target.labels), 0.9, np.float32)
    labels = (target.labels + wrong) % 3
    return Prediction(boxes=target.boxes, labels=labels, scores=scores, masks=target.masks), target


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inside")
    store = Store(folder / "results")
    kept = {}
    for task in METRICS_OF:
        for name, drop in DROPS.items():
            run = f"{task}-{name}"
            store.write_run(Run(run, task, name, "full_network", "ImageNet/val", {}, CLASSES))
            for number, place in enumerate([("clean", 0), *((one, 3) for one in COMMON)]):
                below = drop + (place[0] == "fog") if place[1] else 1 + list(DROPS).index(name) // 2
                metric = filled_metric(
                    task, [told(task, index, (index + number) % 10 < below) for index in range(20)]
                )
                kept[run, place[0]] = metric
                store.write_cell(
                    Cell(run, *place),
                    "k",
                    metric.compute(),
                    {"seed": 0},
                    20,
                    1.0,
                    metric.statistics(),
                )
    summary = add_breakdown(
        store,
        summarize(store, 0),
        "classification-one",
        ["classification-one", "classification-three"],
    )
    page = write_report(store, summary, folder / "out")
    return store, summary, page, kept


def test_the_family_is_whole_and_right(made):
    """Each number against the metric itself, by another way than the report's."""
    _, summary, _, kept = made
    assert len(summary.rows) == 12
    for row in summary.rows:
        told = summary.breakdowns[row.run.name, row.robustness.metric]
        start = row.robustness.metric.split("_")[0] + "_" if row.run.task == "detection" else ""
        wanted = {"ece"} | ({"ap_small", "ap_medium", "ap_large"} if start else set())
        assert wanted - set(told.pairs) <= {
            "ap_medium",
            "ap_large",
        }, "sizes that no object has are not told"
        assert {"ece"} <= set(told.pairs)
        ones = np.ones((1, 20))
        for name, (clean, corrupted) in told.pairs.items():
            found = {
                place: recompute_details(kept[row.run.name, place].statistics(), ones)[
                    start + name
                ][0]
                for place in ("clean", *COMMON)
            }
            assert clean == pytest.approx(found["clean"])
            assert corrupted == pytest.approx(fmean(found[place] for place in COMMON))
        for number, name in enumerate(CLASSES):
            scores = {
                place: recompute_by_class(kept[row.run.name, place].statistics(), ones)[
                    row.robustness.metric
                ][0, number]
                for place in ("clean", *COMMON)
            }
            assert told.classes[name] == pytest.approx(
                (scores["clean"], fmean(scores[place] for place in COMMON))
            )
        assert told.worst_corruption == min(
            COMMON, key=lambda name: row.robustness.by_corruption[name].mpc
        )
        assert told.worst_score == pytest.approx(
            row.robustness.by_corruption[told.worst_corruption].mpc
        )


def test_against_others_only_in_their_table(made):
    _, summary, _, _ = made
    numbers = {
        row.run.name: row.robustness for row in summary.rows if row.run.task == "classification"
    }
    errors = corruption_errors(
        numbers["classification-two"], as_reference(numbers["classification-one"])
    )
    told = summary.breakdowns["classification-two", "top1"].relative
    assert (told.mce, told.relative_mce, told.reference) == (
        errors.mce,
        errors.relative_mce,
        "classification-one",
    )
    standard = [numbers["classification-one"], numbers["classification-three"]]
    assert told.effective == pytest.approx(
        effective_robustness([numbers["classification-two"]], standard)[0]
    )
    assert summary.breakdowns["detection-two", "box_ap"].relative.mce is None
    with pytest.raises(UserError, match="Did you mean: classification-one"):
        relative_scores(summary.rows, "classification_one")


def test_effective_robustness_by_the_same_line(tmp_path):
    store = Store(tmp_path)
    for name, clean, left in (
        ("s1", 0.6, 0.3),
        ("s2", 0.8, 0.5),
        ("mine", 0.7, 0.55),
        ("all", 1.0, 0.9),
    ):
        store.write_run(Run(name, "classification", name, None, "toy", {}, ("a", "b"), "upstream"))
        for place in [("clean", 0), *((one, 1) for one in COMMON)]:
            store.write_cell(
                Cell(name, *place),
                "k",
                {"top1": left if place[1] else clean},
                {"seed": 0},
                10,
                1.0,
                {},
            )
    rows = summarize(store, 0).rows
    numbers = {row.run.name: row.robustness for row in rows}
    told = relative_scores(rows, standard=["s1", "s2"])
    (expected,) = effective_robustness([numbers["mine"]], [numbers["s1"], numbers["s2"]])
    assert told["mine", "top1"].effective == pytest.approx(expected)
    assert told["s1", "top1"].effective == pytest.approx(0)
    assert told["all", "top1"].effective is None  # a score of 1 has no logit
    assert told["mine", "top1"].mce is None  # AlexNet's errors are those of ImageNet
    with pytest.raises(UserError, match="at least two standard"):
        relative_scores(rows, standard=["s1"])


def test_every_number_in_every_form(made):
    store, summary, page, _ = made
    terminal = CliRunner().invoke(app, COMMAND.format(store.root).split())
    assert terminal.exit_code == 0, terminal.output
    lines = list(csv.DictReader((page.parent / "breakdown.csv").open()))
    rows = {
        (row["run"], row["metric"]): row
        for row in json.loads((page.parent / "results.json").read_text())["rows"]
    }
    # one a section, in order
    tables = [table for table in Page(page.read_text()).tables if WORST in table[0]]
    hidden = {
        (one[0].run.task, one[0].robustness.metric): table
        for one, table in zip(protocol_groups(summary.rows), tables, strict=True)
    }
    blocks = dict(
        zip(
            [block.split("\n")[0] for block in _runs(terminal.output)],
            _runs(terminal.output),
            strict=True,
        )
    )
    for (run, metric), told in summary.breakdowns.items():
        mine = [line for line in lines if (line["run"], line["metric"]) == (run, metric)]
        kept = rows[run, metric]["breakdown"]
        name = run.split("-")[1]
        table = hidden[run.split("-")[0], metric]
        shown = dict(
            zip(table[0], next(line for line in table[1:] if line[0] == name), strict=True)
        )
        for quantity, (clean, corrupted) in told.pairs.items():
            (line,) = [line for line in mine if line["quantity"] == quantity]
            assert (float(line["clean"]), float(line["corrupted"])) == (clean, corrupted)
            assert kept["pairs"][quantity] == [clean, corrupted]
            assert shown[f"{PAIRS[quantity]} clean"] == percent(clean)
            assert shown[f"{PAIRS[quantity]} corrupted"] == percent(corrupted)
            assert f"clean {100 * clean:.1f} [" in blocks[run]
        classes = {
            line["of"]: (float(line["clean"]), float(line["corrupted"]))
            for line in mine
            if line["quantity"] == "class"
        }
        assert classes == dict(told.classes)
        assert {name: tuple(pair) for name, pair in kept["classes"].items()} == classes
        for one, (clean, corrupted) in told.classes.items():
            found = re.search(
                rf"    {one}: clean {100 * clean:.1f} \[.*\], corrupted {100 * corrupted:.1f} \[",
                blocks[run],
            )
            assert found, "a class has its scores with intervals"
        worst = next(line for line in mine if line["quantity"] == "worst_corruption")
        assert worst["of"] == kept["worst_corruption"] == told.worst_corruption
        assert shown[WORST] == told.worst_corruption.replace("_", " ")
        assert (
            f"worst corruption {told.worst_corruption}, {100 * told.worst_score:.1f} ["
            in blocks[run]
        )
        if told.relative.mce is not None:
            (line,) = [line for line in mine if line["quantity"] == "mce"]
            assert float(line["corrupted"]) == kept["relative"]["mce"] == told.relative.mce
            assert shown["mCE"] == percent(told.relative.mce)
            assert (
                f"mCE {percent(told.relative.mce)},"
                f" relative mCE {percent(told.relative.relative_mce)}" in blocks[run]
            )
        if told.relative.effective is not None:
            (line,) = [line for line in mine if line["quantity"] == "effective_robustness"]
            assert (
                float(line["corrupted"]) == kept["relative"]["effective"] == told.relative.effective
            )
            assert shown["Effective robustness"] == percent(told.relative.effective)
            assert f"effective robustness {percent(told.relative.effective)} points" in blocks[run]
    assert {line["quantity"] for line in lines} >= {
        "effective_robustness",
        "worst_corruption",
        "mce",
        "relative_mce",
        "ece",
        "ap_small",
        "class",
    }
    assert set(GROUPS) == {"noise", "blur", "weather", "digital"}


def _runs(output):
    blocks = []
    for line in output.splitlines():
        if line.startswith("  "):
            blocks[-1] += f"\n{line}"
        else:
            blocks.append(line)
    return blocks


def test_a_run_with_holes_keeps_nothing_back_from_the_others(tmp_path):
    store = Store(tmp_path)
    for name, places in (
        ("holes", [("clean", 0)]),
        ("whole", [("clean", 0), *((one, 3) for one in COMMON)]),
    ):
        store.write_run(Run(name, "classification", name, None, "toy", {}, ("a", "b"), "upstream"))
        for place in places:
            store.write_cell(
                Cell(name, *place),
                "k",
                {"top1": 0.4 if place[1] else 0.8},
                {"seed": 0},
                10,
                1.0,
                {},
            )
    output = CliRunner().invoke(app, ["runs", "show", str(tmp_path), "--severities", "3"]).output
    assert "holes\n  holes (top1) has no measurement for" in output
    assert "whole\n  top1: worst corruption" in output
    alone = CliRunner().invoke(
        app, ["runs", "show", str(tmp_path), "--severities", "3", "--run", "holes"]
    )
    assert isinstance(alone.exception, UserError)


def test_alexnet_stands_in_where_it_applies_and_no_run_is_named(tmp_path):
    """Top-1 on ImageNet at all severities; beside a named run of another table there is nothing,
    not AlexNet.
    """
    store = Store(tmp_path)
    for name, dataset in (("a", "mine"), ("b", "toy"), ("c", "ImageNet-C")):
        classes = wordnet_ids() if name == "a" else ("a", "b")
        store.write_run(Run(name, "classification", name, None, dataset, {}, classes, "upstream"))
        for place in [("clean", 0), *((one, level) for one in COMMON for level in range(1, 6))]:
            store.write_cell(
                Cell(name, *place),
                "k",
                {"top1": 0.4 if place[1] else 0.8},
                {"seed": 0},
                10,
                1.0,
                {},
            )
    rows = summarize(store, 0).rows
    numbers = {row.run.name: row.robustness for row in rows}
    told = {name: one for (name, _), one in relative_scores(rows).items()}
    assert (told["a"].mce, told["a"].reference) == (corruption_errors(numbers["a"]).mce, "AlexNet")
    assert told["b"].mce is None
    assert told["c"].mce is None
    beside = {name: one for (name, _), one in relative_scores(rows, reference="b").items()}
    assert (beside["b"].mce, beside["b"].reference) == (pytest.approx(1), "b")
    assert beside["a"].mce is None
