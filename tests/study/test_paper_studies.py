"""The paper's studies: every run once, all of them possible, counted as the paper has them; and the
same in miniature.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol
from stillrobust.evaluation import keys as evaluation_keys
from stillrobust.storage.store import Store
from stillrobust.study import Site, load_selection, paper_studies, run_states, select, shipped
from stillrobust.study.cost import (
    PROCESS_BYTES,
    cell_hours,
    job_bytes,
    training_hours,
    weights_gigabytes,
)
from stillrobust.study.execute import run_study
from stillrobust.study.explain import compare_cells, explanation_text
from stillrobust.study.jobs import EvaluateJob
from stillrobust.study.miniature import read_miniature
from stillrobust.study.plan import plan_study, plan_text
from stillrobust.study.selection import save_selection
from stillrobust.study.state import read_failures, resolve_data, status_text
from stillrobust.study.workload import missing_jobs, training_plan
from stillrobust.tasks.recipes import RECIPES, recipe_of
from stillrobust.training import Plan
from tests.paper_store import fill
from tests.toys import Toys

STUDIES = ["figure2", "figure3", "figure4", "figure5", "figure6", "table1", "table2", "tables4-5"]
RUNS = {"C": 23, "S": 23, "K": 4, "I": 8}  # protocol, section 6


def test_the_shipped_studies_are_the_papers():
    assert sorted(paper_studies()) == STUDIES
    assert set(shipped()) == {"architectures", "demo", "miniature", "paper", *STUDIES}


@pytest.mark.parametrize(("protocol", "cells"), [("paper", 928), ("benchmark", 4408)])
def test_fifty_trainings_and_eight_evaluations(protocol, cells, tmp_path):
    selection = select([], protocol)
    found = plan_study(selection, Site(tmp_path, resolve_data(selection.studies[0].data, tmp_path)))
    assert (found.counts.trainings, found.counts.evaluations, found.counts.cells) == (
        50,
        8,
        cells,
    )
    assert sorted(run.id for run in found.selection.runs) == sorted(
        f"{k}{n + 1}" for k, count in RUNS.items() for n in range(count)
    )
    text = plan_text(found)
    assert re.search(
        rf"50 trainings \(0 done\), 8 evaluations of published weights \(0 done\), {cells:,}"
        r" cells",
        text,
    )
    assert re.search(r"weights: \d+ of 13 available", text)
    assert re.search(
        r"stillrobust data fetch coco \S+` gets COCO 2017; for a set of your own, correct the path",
        text,
    )


def test_both_protocols_share_runs_and_weights():
    small, large = select([], "paper"), select([], "benchmark")
    assert [run.name(small.protocol) for run in small.runs] == [
        run.name(large.protocol) for run in large.runs
    ]
    other = small.protocol.model_copy(update={"channel_order": "bgr"})
    assert not {run.name(small.protocol) for run in small.runs} & {
        run.name(other) for run in small.runs
    }
    assert len({run.folder for run in small.runs}) == 58


def test_a_run_is_the_same_whichever_study_asks():
    in_table = {run.id: run for run in select(["tables4-5"]).runs}
    in_figures = {run.id: run for run in select(["figure5", "figure6"]).runs}
    assert {in_table[key].folder for key in ("C17", "C22")} == {
        in_figures[key].folder for key in ("C17", "C22")
    }
    assert len(select(["figure5", "figure6", "tables4-5"]).runs) == 6 + 8


@pytest.mark.parametrize("miniature", [False, True])
def test_every_run_can_be(miniature, tmp_path):
    """Recipes, techniques, transfers and settings exist and fit each other."""
    for run in select([], miniature=miniature).runs:
        recipe = training_plan(run, Site(tmp_path)).recipe
        assert recipe.steps or recipe.epochs


def test_the_learning_rates_of_figure_5(tmp_path):
    rates = {
        run.id: training_plan(run, Site(tmp_path)).recipe.lr for run in select(["figure5"]).runs
    }
    assert rates == {
        "S17": 0.01,
        "S18": 0.005,
        "S19": 0.0025,
        "C17": 0.04,
        "C18": 0.02,
        "C19": 0.01,
    }
    small = {
        run.id: training_plan(run, Site(tmp_path)).recipe.lr
        for run in select(["figure5"], miniature=True).runs
    }
    assert small["C17"] == 2 * small["C18"] == 4 * small["C19"]


def test_costs_are_those_of_the_protocol():
    """Section 6.1: about 5,200 V100-hours with both uncertain runs, 45 for evaluation at severity
    1.
    """
    runs = select([]).runs
    assert sum(training_hours(run).value for run in runs) == pytest.approx(5120, abs=60)
    assert sum(16 * cell_hours(run) for run in runs) == pytest.approx(50, abs=8)
    assert all(weights_gigabytes(run) for run in runs if run.kind != "upstream")


def test_a_miniature_has_names_of_its_own_and_no_two_runs_alike():
    real, small = select([]), select([], miniature=True)
    assert not {run.folder for run in real.runs} & {run.folder for run in small.runs}
    assert len({run.folder for run in small.runs}) == len(small.runs) == 58
    assert all(run.scale == "miniature" for run in small.runs)


def test_stand_ins_repeat_what_the_recipes_have():
    small = read_miniature()
    for name, ours in small.recipes.items():
        assert ours.lr == RECIPES[name].lr
    drawn = {name for name, recipe in RECIPES.items() if "train_sizes" in recipe.settings}
    used = {run.recipe for run in select([]).runs} & drawn
    assert all(
        RECIPES[name].settings.keys() <= small.recipes[name].settings.keys() | {"crop_range"}
        for name in used
    )


def test_what_is_missing_is_told_before_anything_is_trained(tmp_path):
    """Without weights and data no run begins, and each says why; a folder without COCO in it is a
    sentence, too.
    """
    selection = select(["table1"])
    jobs, refused = missing_jobs(
        selection.runs, selection.protocol, Site(tmp_path, {"coco": f"coco:{tmp_path}"})
    )
    assert not jobs
    assert len(refused) == 4
    assert [failure.job.split(",")[0] for failure in refused] == ["C1", "C2", "C3", "C4"]
    assert all(
        "stillrobust checkpoints fetch" in failure.reason or str(tmp_path) in failure.reason
        for failure in refused
    )


def test_what_failed_is_listed_at_the_end_with_the_command_that_tries_again(tmp_path):
    asked = ["study", "run", "table1", "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "STILLROBUST_CACHE": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-m", "stillrobust", *asked],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert ended.returncode == 3, ended.stderr
    said = ended.stderr.splitlines()
    advice = "run: stillrobust checkpoints fetch"
    assert sum(line.startswith("failed: C") and advice in line for line in said) == 4
    assert said[-1].endswith(f"Run the same command again: stillrobust {' '.join(asked)}")


def test_what_was_asked_for_is_remembered_and_failures_are_shown(tmp_path):
    save_selection(select(["table1"], "benchmark", miniature=True), tmp_path)
    again, site = load_selection(tmp_path), Site(tmp_path)
    assert (again.names, again.protocol_name, again.miniature) == (("table1",), "benchmark", True)
    (tmp_path / "failures.json").write_text('[{"job": "train x", "reason": "no room"}]')
    text = status_text(site, run_states(again.runs, again.protocol, site), read_failures(site))
    assert text.startswith("0 of 4 runs finished, 0 of 304 cells")
    assert text.endswith("failed: train x: no room")
    with pytest.raises(UserError, match="study run"):
        load_selection(tmp_path / "nowhere")


def test_a_protocol_that_is_not_there_is_told():
    with pytest.raises(UserError, match="Did you mean: paper"):
        select(["table1"], "papers")
    with pytest.raises(UserError, match="Unknown protocol 'paper'"):
        select(["demo"], "paper")
    with pytest.raises(UserError, match="one at a time"):
        select(["demo", "table1"])


def test_data_that_lies_elsewhere():
    assert resolve_data({"coco": "coco:coco"}, Path("/data")) == {"coco": "coco:/data/coco"}
    assert resolve_data({"coco": "coco:coco"}, Path("/data"), ["coco=coco:/x"]) == {
        "coco": "coco:/x"
    }
    with pytest.raises(UserError, match="Did you mean: coco"):
        resolve_data({"coco": "coco:coco"}, Path("/data"), ["coc=coco:/x"])
    with pytest.raises(UserError, match="NAME=FORMAT:PATH"):
        resolve_data({"coco": "coco:coco"}, Path("/data"), ["/x"])


def keys(dataset, **changes):
    protocol = Protocol(("fog", "elastic_transform"), (1, 2), **changes)
    dataset = evaluation_keys.select_images(dataset, protocol)
    circumstances = evaluation_keys.resolve_circumstances(dataset, protocol, "weights")
    views = evaluation_keys.cell_views(dataset, protocol)
    return evaluation_keys.cell_keys(dataset, circumstances, views)


def test_a_key_covers_what_changes_its_number_and_nothing_else():
    toys, renamed = Toys("classification"), Toys("classification")
    renamed.info = dataclasses.replace(toys.info, name="elsewhere")
    first = keys(toys)
    assert len(set(first.values())) == 5
    assert first == keys(renamed) == keys(toys, batch_size=3, workers=2, examples=0)
    other = Toys("classification", seed=1)
    changes = [
        {"seed": 1},
        {"draws": "exact"},
        {"channel_order": "bgr"},
        {"regime": "cifar"},
        {"warp_truth": True},
    ]
    changes += [{"scale": "miniature"}, {"images": 3}]
    for different in [keys(other), *(keys(toys, **change) for change in changes)]:
        assert not set(first.values()) & set(different.values())


def test_keys_that_name_no_cell_or_several(tmp_path):
    fill(tmp_path, "a", 0.9, 0.8, images=4)
    fill(tmp_path, "b", 0.9, 0.8, images=4)
    store = Store(tmp_path)
    with pytest.raises(UserError, match="No cell of this store"):
        compare_cells(store, "nothing", "a/fog/1")
    assert compare_cells(store, "a/fog/1", "b/fog/1").relevant == {"evaluation.weights": ("a", "b")}
    assert set(compare_cells(store, "a/fog/1", "a/clean/0").relevant) == {"corruption", "severity"}


# ---- one tiny study in miniature
# ----------------------------------------------------------------------------------------------

TINY = """
name: tiny
from: paper.yaml
protocols: {{quick: {{corruptions: [fog, contrast], severities: {severities}}}}}
panels:
  - {{title: CIFAR-10, metric: top1, runs: {runs}}}
"""


def tiny(folder, runs, severities):
    file = folder / "tiny.yaml"
    file.write_text(TINY.format(runs=runs, severities=severities))
    shutil.copy(shipped()["paper"], folder / "paper.yaml")
    return select([str(file)], miniature=True)


@pytest.mark.slow
def test_a_study_in_miniature_and_what_a_changed_axis_runs(tmp_path, monkeypatch):
    small = read_miniature()
    monkeypatch.setitem(
        small.__dict__, "scenes", {"train": 2, "val": 2, "train_crops": 20, "val_crops": 10}
    )
    first, site = (
        tiny(tmp_path, ["K1"], [1]),
        Site(tmp_path / "out", {"cifar10": "cifar10:no", "cifar10_c": "cifar10_c:no"}),
    )
    assert run_study(first, site, workers=1) == []
    store = Store(site.results)
    numbers = {(m.corruption, m.severity): m for m in store.measurements()}
    assert set(numbers) == {("clean", 0), ("fog", 1), ("contrast", 1)}
    assert all(m.protocol["scale"] == "miniature" for m in numbers.values())

    assert missing_jobs(first.runs, first.protocol, site) == ([], []), (
        "a finished study does nothing"
    )
    more = tiny(tmp_path, ["K1"], [1, 2])
    jobs, refused = missing_jobs(more.runs, more.protocol, site)
    assert not refused
    evaluated = [job.protocol for job in jobs if isinstance(job, EvaluateJob)]
    assert [(one.corruptions, one.severities, one.clean) for one in evaluated] == [
        (("fog",), (2,), False),
        (("contrast",), (2,), False),
    ]
    other = tiny(tmp_path, ["K1", "K2"], [1])
    jobs, _ = missing_jobs(other.runs, other.protocol, site)
    assert not any(other.runs[0].folder in job.name for job in jobs)
    assert sum(other.runs[1].folder in job.name for job in jobs) >= 1

    fog, contrast = numbers["fog", 1].key, numbers["contrast", 1].key
    found = compare_cells(store, fog[:8], contrast)
    assert found.relevant == {"corruption": ("fog", "contrast")}
    assert "the same key" in explanation_text(compare_cells(store, fog, fog))


@pytest.mark.slow
def test_all_studies_in_miniature(tmp_path):
    """Minutes on two cores: every run of the paper, trained and evaluated through the same code."""
    selection, site = select([], miniature=True), Site(tmp_path)
    assert run_study(selection, site, workers=2) == []
    assert plan_study(selection, site).counts.measured == 928


def test_study_files_name_no_run_twice():
    for name, path in shipped().items():
        content = yaml.safe_load(path.read_text())
        assert content["name"] == name
        for panel in content.get("panels", []):
            assert len(list(panel["runs"])) == len(set(panel["runs"]))


def test_memory_of_jobs_is_estimated():
    """The published footprints come out: 16 images of COCO take eight times the 4.4 GB of two."""
    gigabytes = (
        job_bytes(Plan("detection", "resnet50", "full_network", recipe_of("coco_r50_1x")))
        - PROCESS_BYTES
    ) / 1e9
    assert gigabytes == pytest.approx(8 * 4.4, rel=0.05)
    small = Plan(
        "classification", "resnet50", "full_network", recipe_of("small"), {"resize": 48, "crop": 48}
    )
    assert PROCESS_BYTES < job_bytes(small, 8) < job_bytes(small) < 1.1 * PROCESS_BYTES


@pytest.mark.parametrize(
    ("task", "settings", "batch", "published"),
    [
        # mmsegmentation configs/upernet/README, R-50
        ("segmentation", {"crop": (512, 512)}, 4, 8.1e9),
        # activations of a ResNet-50, Radosavovic et al. 2020
        ("classification", {"crop": 224}, 64, 64 * 2 * 4 * 11.1e6),
    ],
)
def test_memory_of_jobs_of_the_other_tasks(task, settings, batch, published):
    plan = Plan(task, "resnet50", "full_network", recipe_of("small", batch_size=batch), settings)
    assert job_bytes(plan) - PROCESS_BYTES == pytest.approx(published, rel=0.03)
    assert job_bytes(plan, batch) - PROCESS_BYTES == pytest.approx(published / 2, rel=0.03)
