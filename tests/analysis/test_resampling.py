"""From a store: replicates of a run's cells, estimates from part of them, and what one number
hides.
"""

import csv
import io

import numpy as np
import pytest
from typer.testing import CliRunner

from stillrobust.analysis.breakdown import breakdown, class_breakdown
from stillrobust.analysis.budget import cell_order, image_order
from stillrobust.analysis.estimates import estimate_run
from stillrobust.analysis.intervals import mean_over_seeds
from stillrobust.analysis.resampling import resample_cells
from stillrobust.cli import app
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.evaluation import Protocol, evaluate, planned_cells
from stillrobust.grid import CLEAN, COMMON, Cell
from stillrobust.metrics import METRICS
from stillrobust.predictors import Predictor
from stillrobust.report import results_table, summarize, to_csv, to_text
from stillrobust.report.seed_means import with_seed_means
from stillrobust.samples import DatasetInfo, Prediction, Target
from stillrobust.storage.store import Run, Store
from tests.toys import Toys

CLASSES = ("cat", "dog", "owl")
SURE = np.array([0.9, 0.1], np.float32)
CELLS = [CLEAN, *((name, 3) for name in COMMON)]


def top1_store(root, skill, cells=tuple(CELLS), images=40, shift=0, about=lambda run: {}):
    """Runs of given skill: the more severe the corruption's place, the more are wrong; the same
    images are hard for all.
    """
    store = Store(root)
    for run, gain in skill.items():
        store.write_run(
            Run(
                run,
                "classification",
                about(run).get("model", run),
                "full_network",
                "toys",
                about(run),
                CLASSES,
            )
        )
        for place in cells:
            metric = METRICS["classification"](
                DatasetInfo("toys", "classification", CLASSES, images, "")
            )
            loss = 0.0 if place == CLEAN else 0.2 + 0.02 * COMMON.index(place[0])
            hard = np.random.default_rng(0).random(images)
            noise = np.random.default_rng([len(run), CELLS.index(place)]).normal(0, 0.08, images)
            for index in range(images):
                right = hard[index] + noise[index] < 0.9 - loss + gain * (loss > 0)
                label = index % 3
                chances = np.full(3, 0.1)
                chances[label if right else (label + 1) % 3] = 0.8
                target = Target(f"{index + shift:03}", (1, 1), label=label)
                metric.update([Prediction(probabilities=chances)], [target])
            numbers = metric.compute()
            store.write_cell(
                Cell(run, *place), "key", numbers, {}, images, 1.0, metric.statistics()
            )
    return store


def test_the_set_itself_comes_first_and_runs_are_paired(tmp_path):
    store = top1_store(tmp_path, {"one": 0.0, "other": 0.1})
    drawn = [resample_cells(store, run, CELLS, 30) for run in ("one", "other")]
    values = {(m.run, m.corruption): m.value for m in store.measurements()}
    assert drawn[0].values["top1"][:, 0] == pytest.approx(
        [values["one", name] for name, _ in CELLS]
    )
    assert drawn[0].values["top1"].shape == (16, 31)
    assert drawn[0].image_ids == drawn[1].image_ids
    correlation = np.corrcoef(*(one.values["top1"][1:, 1:].mean(0) for one in drawn))[0, 1]
    assert correlation > 0.5  # the same images are hard for both, and come as often


def test_cells_that_are_not_there_or_of_other_images(tmp_path):
    store = top1_store(tmp_path / "a", {"one": 0.0}, CELLS[:3])
    with pytest.raises(MissingCellsError, match="has no cell"):
        resample_cells(store, "one", CELLS, 5)
    top1_store(tmp_path / "a", {"one": 0.0}, CELLS[2:3], shift=1)
    assert resample_cells(store, "one", CELLS[:3], 5) is None


def test_tables_say_which_runs_are_alike(tmp_path):
    rows = summarize(top1_store(tmp_path, {"a": 0.0, "bb": 0.005, "ccc": 0.3}), 200).rows
    letters = {row.run.name: row.alike for row in rows}
    assert letters["a"] == letters["bb"] != letters["ccc"]
    letters = {row.run.name: row.alike_mpc for row in rows}
    assert letters == {"a": "b", "bb": "b", "ccc": "a"}, "the highest mPC is first"
    assert all(row.interval[0] < row.robustness.drop < row.interval[1] for row in rows)


def trained_with(seeds, **others):
    def about(run):
        recipe = {"lr": 0.1, "seed": seeds[run], **others.get(run, {})}
        return {
            "model": "resnet",
            "training": {"recipe": recipe},
            "evaluation": {"weights": run, "seed": 0},
        }

    return about


def test_runs_that_differ_in_their_seed_alone_have_a_mean(tmp_path):
    """Not a run of another learning rate, and not one whose seed nobody knows; the mean is by hand,
    its interval mean_over_seeds'.
    """
    skill = {"a": 0.0, "bb": 0.02, "ccc": 0.0, "dddd": 0.0}
    about = trained_with({"a": 0, "bb": 1, "ccc": 2, "dddd": None}, ccc={"lr": 0.2})
    rows = summarize(top1_store(tmp_path, skill, about=about), 50).rows
    *_, last = [row for row in with_seed_means(rows) if row not in rows]
    first, second = (next(row for row in rows if row.run.name == name) for name in ("a", "bb"))
    assert len(with_seed_means(rows)) == len(rows) + 1
    assert last.run.name == "mean of 2 seeds"
    assert last.robustness.drop == pytest.approx(
        (first.robustness.drop + second.robustness.drop) / 2
    )
    assert last.robustness.by_group["blur"].drop == pytest.approx(
        (first.robustness.by_group["blur"].drop + second.robustness.by_group["blur"].drop) / 2
    )
    spread = mean_over_seeds(
        [first.robustness.drop, second.robustness.drop], [first.drops, second.drops]
    )
    assert last.interval == (spread.low, spread.high)
    assert "(mean of 2" in to_text(results_table(rows))
    assert [line.split(",")[2] for line in to_csv(results_table(rows)).splitlines()].count(
        "mean of 2 seeds"
    ) == 1
    assert first.run.protocol["training"]["recipe"]["seed"] == 0, "the rows stay as they are"


def test_every_number_of_the_csv_has_its_interval(tmp_path):
    rows = summarize(top1_store(tmp_path, {"one": 0.0, "other": 0.1}), 100).rows
    lines = list(csv.DictReader(io.StringIO(to_csv(results_table(rows)))))
    assert len(lines) == 2
    for line in lines:
        for name in ("clean", "mpc", "rpc", "mean_drop"):
            assert float(line[f"{name}_low"]) < float(line[name]) < float(line[f"{name}_high"])
        assert float(line["rpc_low"]) == pytest.approx(1 - float(line["mean_drop_high"]))


def test_estimates_from_part_of_a_run(tmp_path):
    part = list(cell_order("top1", [3])[:9])
    store = top1_store(tmp_path / "part", {"one": 0.0}, part)
    (found,) = estimate_run(store, "one", [3])
    whole = top1_store(tmp_path / "whole", {"one": 0.0})
    truth = np.mean([m.value for m in whole.measurements() if m.severity])
    assert (found.cells, found.total_cells, found.metric) == (9, 16, "top1")
    assert found.low < truth < found.high
    assert not summarize(store, 20).rows  # no full table takes it
    with pytest.raises(UserError, match="All cells are available"):
        estimate_run(whole, "one", [3])


def test_a_budget_takes_the_first_cells_of_the_order():
    assert planned_cells(Protocol(severities=(3,), budget=4), "segmentation") == list(
        cell_order("miou", [3])[:4]
    )
    assert planned_cells(Protocol(budget=21), "detection") == list(cell_order("box_ap")[:21])
    assert planned_cells(Protocol(), "detection") == Protocol().cells()
    for wrong in (
        {"budget": 0},
        {"budget": 9, "corruptions": ("fog",)},
        {"budget": 9, "clean": False},
    ):
        with pytest.raises(UserError, match="budget"):
            Protocol(**wrong)


def test_evaluating_on_a_budget_and_going_on(tmp_path):
    """Cells measured under a budget are cells like any other: going on only adds the rest."""
    always_wide = Predictor(
        "classification",
        "wide",
        lambda images: [Prediction(probabilities=SURE)] * len(images),
        "0" * 64,
    )
    data = Toys("classification", 4)
    run = evaluate(always_wide, data, tmp_path, Protocol(severities=(3,), budget=5))
    store = Store(tmp_path)
    assert {(m.corruption, m.severity) for m in store.measurements()} == set(
        cell_order("top1", [3])[:5]
    )
    (found,) = estimate_run(store, run, [3])
    assert (found.value, found.cells) == (pytest.approx(0.5), 5)
    before = store.measurements()
    evaluate(always_wide, data, tmp_path, Protocol(severities=(3,), budget=6))
    after = store.measurements()
    assert len(after) == 6
    assert all(one in after for one in before)


def test_a_budget_of_images_takes_the_first_of_their_order(tmp_path):
    """More images contain the fewer, and their numbers say how they were chosen; without a budget
    nothing changes.
    """
    always_wide = Predictor(
        "classification",
        "wide",
        lambda images: [Prediction(probabilities=SURE)] * len(images),
        "0" * 64,
    )
    data = Toys("classification", 9)
    seen = {}
    for count in (2, 4, 9):
        store = Store(tmp_path / str(count))
        run = evaluate(
            always_wide, data, store.root, Protocol(severities=(3,), budget=1, images=count)
        )
        seen[count] = {
            int(name.split(".")[0]) for name in store.statistics(Cell(run, "clean", 0))["image_ids"]
        }
        assert seen[count] == set(image_order(9)[:count])
        (clean,) = store.measurements()
        assert clean.protocol.get("images_chosen") == (
            None if count == 9 else "first of the budget's order"
        )
    run = evaluate(always_wide, data, tmp_path, Protocol(("fog",), (3,), images=3))
    store = Store(tmp_path)
    assert list(store.statistics(Cell(run, "clean", 0))["image_ids"]) == ["0.png", "3.png", "6.png"]
    assert all("images_chosen" not in one.protocol for one in store.measurements())


def test_breakdown_clean_and_corrupted(tmp_path):
    store = top1_store(tmp_path, {"one": 0.0})
    (line,) = breakdown(store, "one", [3], 100)
    values = {m.corruption: m.value for m in store.measurements()}
    assert line.name == "ece"
    assert line.clean == pytest.approx(abs(values["clean"] - 0.8), abs=1e-6)  # always 0.8 sure
    assert line.corrupted == pytest.approx(
        np.mean([abs(values[name] - 0.8) for name in COMMON]), abs=1e-6
    )
    classes = class_breakdown(store, store.runs()[0], [3])["top1"]
    counts = np.bincount(np.arange(40) % 3)
    clean = (
        sum(score * count for (score, _), count in zip(classes.values(), counts, strict=True)) / 40
    )
    assert list(classes) == list(CLASSES)
    assert clean == pytest.approx(values["clean"])


def test_details_in_the_terminal(tmp_path):
    top1_store(tmp_path, {"one": 0.0, "other": 0.1})
    text = (
        CliRunner()
        .invoke(app, ["runs", "show", str(tmp_path), "--run", "one", "--severities", "3"])
        .output
    )
    assert "worst corruption" in text
    assert "ece: clean" in text
    assert "largest loss first" in text
    assert "other" not in text
    for arguments in (
        ["runs", "show", str(tmp_path / "none")],
        ["runs", "show", str(tmp_path), "--run", "onne", "--severities", "3"],
    ):
        assert isinstance(CliRunner().invoke(app, arguments).exception, UserError)
