"""A technique's card owns what it shows of the test; training records it, and the report reads the
record.
"""

import csv
import io
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.grid import COMMON
from stillrobust.names import split_sum
from stillrobust.report import render_page, results_table, summarize, to_csv, to_latex, to_text
from stillrobust.report.downloads import report_files
from stillrobust.report.summary import overlaps_test
from stillrobust.report.transfer_gain import transfer_gain, transfer_gain_table
from stillrobust.robustify import (
    TECHNIQUES,
    Card,
    Technique,
    TechniqueEntry,
    build_technique,
    cards_of,
)
from stillrobust.robustify.policies import OVERLAPS, POLICIES, build_transform, operations
from stillrobust.storage.store import Store
from stillrobust.training import Plan, Recipe, train
from stillrobust.training.upstream_training import robustify, robustify_plan
from tests.own_toys import DIM, written
from tests.report.test_transfer_gain import downstream, upstream
from tests.toys import Toys

FOUR = ("brightness", "contrast", "gaussian_blur", "saturate")
SMALL = {"resize": 64, "crop": 64}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("prime", ()),
        ("augmix", ()),
        ("augmix(all_ops=True)", FOUR),
        ("randaugment", FOUR),
        ("trivialaugment", FOUR),
        ("trivialaugment(all_ops=False)", ()),
        ("autoaugment", ("contrast", "gaussian_blur", "saturate")),
        ("autoaugment(policy='svhn')", ("contrast",)),
        ("autoaugment(policy='svhn', geometry=False)", ()),
        ("l2", ("brightness", "contrast", "saturate")),
        ("l2(jitter=False)", ()),
        ("speckle+gaussian(std=0.1)", ("gaussian_noise", "speckle_noise")),
        ("gaussian+l2", ("brightness", "contrast", "gaussian_noise", "saturate")),
    ],
)
def test_overlaps_of_a_spec(spec, expected):
    assert build_technique(spec).overlaps_test == expected
    assert sorted(name for card in cards_of(spec) for name in card.overlaps_test) == [*expected]


@pytest.mark.parametrize("geometry", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_overlaps_of_autoaugment_are_what_torchvision_draws(policy, geometry):
    drawn = operations(
        build_transform("autoaugment", True, geometry, (("policy", POLICIES[policy]),))
    )
    found = build_technique(f"autoaugment(policy={policy!r}, geometry={geometry})").overlaps_test
    assert found == tuple(sorted(OVERLAPS[operation] for operation in drawn & OVERLAPS.keys()))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_the_list_names_overlaps(name):
    lines = CliRunner().invoke(app, ["techniques", "list"]).output.splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    assert line.endswith("of the test in training") == bool(cards_of(name)[0].overlaps_test)


def test_a_card_names_overlaps_for_the_given_arguments():
    assert "Shows in training, of the test: gaussian_noise" in cards_of("gaussian")[0].text()
    assert "of the test:" not in cards_of("trivialaugment(all_ops=False)")[0].text()


def test_parts():
    assert split_sum("a(x=('+', \"b)+'\", 'it\\'s+')) + b", "a technique", "a") == [
        "a(x=('+', \"b)+'\", 'it\\'s+'))",
        "b",
    ]
    for wrong in ("a+", "+a", "a(", "a)+b", ""):
        with pytest.raises(UserError, match="Expected a technique like"):
            split_sum(wrong, "a technique", "a")


def darken(images, generator):
    return images * 0.5


def test_a_technique_is_added_in_one_place(tmp_path, monkeypatch):
    """One entry in ``TECHNIQUES``: list, card, training and the report's marks follow from it."""
    card = Card(
        name="night",
        title="Half of the light",
        paper="None",
        code="None",
        parameters={},
        left_out=(),
        cost="1.0",
        published="nothing",
        overlaps_test=("brightness",),
        preparation="switch the lamp off",
    )
    entry = TechniqueEntry(lambda: Technique(augment_batch=darken), card)
    monkeypatch.setitem(TECHNIQUES, "night", entry)

    listed = CliRunner().invoke(app, ["techniques", "list"]).output.splitlines()
    assert any(line.startswith("night: Half") and "brightness" in line for line in listed)
    printed = CliRunner().invoke(app, ["techniques", "show", "night"]).output
    assert "Preparation: switch the lamp off" in printed
    assert "of the test: brightness" in printed

    recipe = Recipe(steps=2, batch_size=4, norm_eval=False, workers=1, settings=SMALL)
    plan = robustify_plan("resnet_mini(weights='random')", "night+gaussian", recipe)
    maker = robustify(plan, Toys("classification", 8), tmp_path / "made")
    plan = Plan(
        "classification",
        f"resnet_mini(weights='{maker}')",
        "fixed_feature",
        Recipe(steps=2, batch_size=4, settings=SMALL),
        technique=written(tmp_path, "dim.py", DIM + "\nOVERLAPS_TEST = ('contrast',)"),
    )
    folder = train(plan, Toys("classification", 8), tmp_path / "transferred")
    monkeypatch.delitem(TECHNIQUES, "night")

    store = Store(tmp_path / "results")
    grid = Protocol(COMMON, (3,))
    for model in (maker, folder):
        evaluate(model, Toys("classification", 4, seed=1), tmp_path / "results", grid)
    marks = {run.setting: overlaps_test(run) for run in store.runs()}
    assert marks == {
        "robustify": ("brightness", "gaussian_noise"),
        "fixed_feature": ("brightness", "contrast", "gaussian_noise"),
    }
    text = to_text(results_table(summarize(store, 0).rows), 1000)
    assert "(brightness, contrast, gaussian_noise)" in text


def test_reports_mark_models_that_saw_the_test(tmp_path):
    store = Store(tmp_path / "results")
    for technique, corrupted in (("", 40), ("gaussian", 60)):
        upstream(store, technique, corrupted)
        downstream(store, technique, corrupted)
    for run in store.runs():
        seen = ["gaussian_noise"] if "gaussian" in run.name else []
        store.write_run(replace(run, protocol={**run.protocol, "overlaps_test": seen}))
    summary = summarize(store, 200)
    marked = "net (gaussian) (gaussian_noise)"
    text = to_text(results_table(summary.rows), 1000)
    assert "\N{DAGGER} Saw corruptions of the test in training" in text
    assert marked in text
    assert text.count("net (gaussian) \N{DAGGER}") == 2
    assert "net (regular) \N{DAGGER}" not in text
    assert r"net (gaussian) \dag{}" in to_latex(results_table(summary.rows))
    html = render_page(store, summary)
    assert marked in html
    assert "transferred; saw gaussian_noise in training" in html
    lines = {
        line["model"]: line["overlaps_test"]
        for line in csv.DictReader(io.StringIO(to_csv(results_table(summary.rows))))
    }
    assert lines == {"net (gaussian)": "gaussian_noise", "net (regular)": ""}
    gains = transfer_gain_table(transfer_gain(store.runs(), summary.rows))
    (line,) = csv.DictReader(io.StringIO(to_csv(gains)))
    assert line["overlaps_test"] == "gaussian_noise"
    rows = json.loads(report_files(store, summary)["results.json"].content)["rows"]
    assert {tuple(row["overlaps_test"]) for row in rows} == {("gaussian_noise",), ()}
