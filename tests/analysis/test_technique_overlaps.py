"""What a technique shows of the test in training is told by cards, lists and reports, from the text
of the technique alone.
"""

import csv
import inspect
import io
import json

import pytest

from stillrobust.analysis.technique_overlaps import overlaps, overlaps_of
from stillrobust.cli.families import techniques
from stillrobust.errors import UserError
from stillrobust.names import parts_of
from stillrobust.report import render_page, results_table, summarize, to_csv, to_latex, to_text
from stillrobust.report.downloads import report_files
from stillrobust.report.summary import overlaps_test
from stillrobust.report.transfer_gain import transfer_gain, transfer_gain_table
from stillrobust.robustify import TECHNIQUES, build_technique, cards_of
from stillrobust.robustify.policies import OVERLAPS, POLICIES, operations, transform_of
from stillrobust.storage.store import Run, Store
from tests.report.test_transfer_gain import downstream, upstream

FOUR = ("brightness", "contrast", "gaussian_blur", "saturate")


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("prime", ()),
        ("augmix", ()),
        ("augmix(all_ops=True)", FOUR),
        ("randaugment", FOUR),
        ("trivialaugment(all_ops=False)", ()),
        ("l2", ("brightness", "contrast", "saturate")),
        ("l2(jitter=False)", ()),
        ("speckle+gaussian(std=0.1)", ("gaussian_noise", "speckle_noise")),
        ("my-technique+gaussian", ("gaussian_noise",)),
        ("gaussian+my-technique", ("gaussian_noise",)),
        ("2x+regular", ()),
    ],
)
def test_overlaps_of_a_spec(spec, shown):
    assert overlaps_of(spec) == shown


@pytest.mark.parametrize("geometry", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_rows_of_autoaugment_are_what_torchvision_draws(policy, geometry):
    drawn = operations(transform_of("autoaugment", True, geometry, (("policy", POLICIES[policy]),)))
    told = overlaps("autoaugment", {"policy": policy, "geometry": geometry})
    assert told == tuple(sorted(OVERLAPS[operation] for operation in drawn & OVERLAPS.keys()))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_defaults_are_the_techniques_own(name):
    known = inspect.signature(TECHNIQUES[name].make).parameters
    assert overlaps(name, {}) == overlaps(name, {key: one.default for key, one in known.items()})
    told = next(line for line in techniques() if line.startswith(f"{name}:"))
    assert told.endswith("of the test in training") == bool(overlaps(name, {}))


def test_a_card_says_it_with_the_arguments_at_hand():
    assert "Shows in training, of the test: gaussian_noise" in cards_of("gaussian")[0].text()
    assert "of the test:" not in cards_of("trivialaugment(all_ops=False)")[0].text()
    assert build_technique("gaussian+l2").overlaps_test == (
        "gaussian_noise",
        "brightness",
        "contrast",
        "saturate",
    )


def test_parts():
    assert parts_of("a(x=('+', \"b)+'\", 'it\\'s+')) + b") == [
        "a(x=('+', \"b)+'\", 'it\\'s+'))",
        "b",
    ]
    for wrong in ("a+", "+a", "a(", "a)+b", ""):
        with pytest.raises(UserError, match="Expected a technique like"):
            parts_of(wrong)


def test_what_made_the_backbone_and_what_acts_in_the_transfer_both_count():
    def run(transfer, during, *makers):
        made_by = None
        for technique in makers:
            made_by = {"technique": technique, "made_by": made_by}
        about = {"training": {"technique": during}, "made_by": made_by}
        return Run("one", "classification", "net", transfer, "scenes", about, ())

    assert overlaps_test(run("full_network", "speckle", "", "gaussian", "prime")) == (
        "gaussian_noise",
        "speckle_noise",
    )
    assert overlaps_test(run("robustify", "gaussian")) == ("gaussian_noise",)
    assert overlaps_test(run("upstream", "", "gaussian")) == ("gaussian_noise",)
    assert (
        overlaps_test(
            Run("other", "classification", "net", "imported", "scenes", {"training": "unknown"}, ())
        )
        == ()
    )


def test_reports_name_the_models_and_what_they_saw(tmp_path):
    store = Store(tmp_path / "results")
    for technique, corrupted in (("", 40), ("gaussian", 60)):
        upstream(store, technique, corrupted)
        downstream(store, technique, corrupted)
    summary = summarize(store, 200)
    told = "net (gaussian) (gaussian_noise)"
    text = to_text(results_table(summary.rows), 1000)
    assert "\N{DAGGER} Saw corruptions of the test in training" in text
    assert told in text
    assert text.count("net (gaussian) \N{DAGGER}") == 2
    assert "net (regular) \N{DAGGER}" not in text
    assert r"net (gaussian) \dag{}" in to_latex(results_table(summary.rows))
    made = render_page(store, summary)
    assert told in made
    assert "transferred; saw gaussian_noise in training" in made
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
