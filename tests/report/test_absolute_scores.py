"""Absolute beside relative: intervals of all scores, the drop above chance, and the sentence on
drops that fall with the clean score.
"""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.report import results_table, summarize, to_csv, to_text
from stillrobust.report.seed_means import with_seed_means
from stillrobust.storage.store import Store
from tests.paper_store import fill


@pytest.fixture
def store(tmp_path):
    """Two models of 300 images: the second is worse on clean images and equal on corrupted ones."""
    fill(tmp_path / "s", "good", 0.9, 0.45, backbone="good")
    fill(tmp_path / "s", "poor", 0.6, 0.4, backbone="poor")
    store = Store(tmp_path / "s")
    (run,) = (run for run in store.runs() if run.name == "poor")
    run.protocol["plausibility"] = {"chance": 0.2, "warnings": []}
    store.write_run(run)
    return store


def test_every_score_has_its_interval_and_chance_its_own_drop(store):
    rows = {row.run.name: row for row in summarize(store, replicates=60).rows}
    lines = csv.DictReader(io.StringIO(to_csv(results_table(list(rows.values())))))
    by_run = {line["run"]: line for line in lines}
    poor = by_run["poor"]
    for score in ("clean", "mpc", "rpc", "mean_drop", "corrected_drop"):
        value, low, high = (float(poor[f"{score}{end}"]) for end in ("", "_low", "_high"))
        assert low < value < high
    numbers = rows["poor"].robustness
    assert float(poor["corrected_drop"]) == pytest.approx(
        (numbers.clean - numbers.mpc) / (numbers.clean - 0.2)
    )
    assert by_run["good"]["corrected_drop"] == "", "its chance was not stored"


def test_a_drop_that_falls_with_the_clean_score_is_named(store):
    rows = summarize(store, replicates=60).rows
    by_name = {row.run.name: row.robustness for row in rows}
    assert by_name["poor"].drop < by_name["good"].drop
    text = " ".join(to_text(results_table(rows)).split())
    assert "poor drops less than good (" in text
    assert f"its clean top-1 is lower ({100 * by_name['poor'].clean:.1f} against" in text
    assert f"its mPC is not higher ({100 * by_name['poor'].mpc:.1f} against" in text
    assert "good drops less" not in text


def test_a_model_of_higher_mpc_is_not_named(tmp_path):
    fill(tmp_path / "s", "good", 0.9, 0.45, backbone="good")
    fill(tmp_path / "s", "robust", 0.8, 0.6, backbone="robust")
    assert "only because" not in to_text(results_table(summarize(Store(tmp_path / "s"), 60).rows))


def test_the_option_prints_the_corrected_drop(store, tmp_path):
    command = ["report", str(store.root), "--out", str(tmp_path / "out")]
    plain, corrected = (
        CliRunner().invoke(app, [*command, *options]) for options in ([], ["--chance-corrected"])
    )
    assert plain.exit_code == corrected.exit_code == 0
    assert "Corrected drop" not in plain.output
    assert "Corrected drop" in corrected.output
    told = {
        one["run"]: one for one in json.loads((tmp_path / "out/results.json").read_text())["rows"]
    }
    assert told["poor"]["chance"] == 0.2
    assert told["poor"]["corrected_drop_interval"][0] < told["poor"]["corrected_drop"]
    assert told["good"]["chance"] is None
    assert told["good"]["clean_interval"][1] <= 1


def test_a_mean_of_seeds_has_intervals_within_the_possible_values(tmp_path):
    for seed, clean in enumerate((1.0, 0.7)):
        fill(tmp_path / "s", f"s{seed}", clean, 0.3)
        store = Store(tmp_path / "s")
        (run,) = (run for run in store.runs() if run.name == f"s{seed}")
        run.protocol["training"] = {"recipe": {"seed": seed}}
        store.write_run(run)
    mean = with_seed_means(summarize(Store(tmp_path / "s"), replicates=60).rows)[-1]
    assert mean.run.name == "mean of 2 seeds"
    low, high = mean.interval_of("clean")
    assert (low, high) == (0.0, 1.0), "two seeds that differ by 30 points say nothing"
    assert mean.interval_of("corrupted")[1] <= 1
    assert mean.interval_of("drop") == mean.interval
    assert mean.interval[1] <= 1
