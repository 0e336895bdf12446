"""The jobs of a study travel as JSON."""

from dataclasses import replace
from pathlib import Path

import pytest

from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol
from stillrobust.execution import Job
from stillrobust.execution.serialization import from_json, to_json
from stillrobust.study.jobs import EvaluateJob, MakeBackboneJob, MakeCheckpointJob, TrainJob
from stillrobust.tasks.recipes import RECIPES, recipe_of
from stillrobust.training import Plan

PATHS = {"folder": Path("/out/runs/a"), "log": Path("/out/logs/a.log")}
RANDOM = "resnet_mini(weights='random')"


def train_job(plan, kind=TrainJob):
    return kind(name="train a", plan=plan, data="coco:/data", upstream_digest="", **PATHS)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_comes_back_equal(recipe):
    """Settings of the task are JSON as in a study file; the task itself makes tuples of lists."""
    task = {"coco": "detection", "ade20k": "segmentation"}.get(
        recipe.split("_")[0], "classification"
    )
    plan = Plan(task, RANDOM, "full_network", recipe_of(recipe, lr=1), {}, "prime")
    job = train_job(plan)
    found = from_json(to_json(job), Job)
    assert repr(replace(found.plan.recipe, settings={})) == repr(replace(plan.recipe, settings={}))
    assert repr(found.plan.make_task()) == repr(plan.make_task())
    assert to_json(found) == to_json(job)


def test_other_jobs_come_back_equal():
    robustify = Plan("classification", RANDOM, None, kind="robustify")
    evaluate = EvaluateJob(
        name="evaluate a fog",
        after=("train a",),
        affinity="a",
        memory=3,
        data="coco:/data",
        results=Path("/out/results"),
        protocol=Protocol(("fog",), (1, 2), clean=False, images=7),
        run_name="a",
        shared_images=Path("/out/corrupted"),
        shared_bytes=10,
        **PATHS,
    )
    checkpoint = MakeCheckpointJob(name="make b", target=Path("/out/b"), data="folders:/data")
    for job in (train_job(robustify, MakeBackboneJob), evaluate, checkpoint):
        found = from_json(to_json(job), Job)
        assert found == job
        assert type(found) is type(job)


@pytest.mark.parametrize(("transfer", "kind"), [("full_network", "upstream"), (None, "transfer")])
def test_only_transfers_have_a_transfer(transfer, kind):
    with pytest.raises(UserError, match=f"got transfer {transfer} for kind {kind}"):
        Plan("classification", RANDOM, transfer, kind=kind)
