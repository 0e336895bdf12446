"""The study of architectures: its plan and costs, its claims judged, and a cell in miniature."""

import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.errors import UserError
from stillrobust.paper import load_claims
from stillrobust.report.claims import judge
from stillrobust.report.paper_exhibits import paper_exhibits
from stillrobust.storage.store import Store
from stillrobust.study import Site, cost, read_study, select, shipped, vit_cost
from stillrobust.study.execute import run_study
from stillrobust.study.miniature import read_miniature
from stillrobust.study.workload import training_plan
from tests.paper_store import fill

MODELS = ["ResNet-50", "ConvNeXt-T", "Swin-T", "DeiT-S", "MAE-B", "CLIP-B", "DINOv2-S", "DINOv2-B"]
TASKS = ("detection", "segmentation", "classification")
TRANSFERS = ("fixed_feature", "full_network")


def test_eight_models_frozen_and_in_full_in_every_task(tmp_path):
    runs = select(["architectures"]).runs
    assert {run.id for run in runs} == {
        f"{task}-{model}-{transfer}" for task in TASKS for model in MODELS for transfer in TRANSFERS
    }
    panels = read_study(shipped()["architectures"]).panels
    shown = [(panel.metric, one) for panel in panels for one in panel.labels]
    assert len(set(shown)) == len(shown) == 8 * 2 * 4  # boxes and masks are of one training
    for miniature in (False, True):
        for run in select(["architectures"], miniature=miniature).runs:
            training_plan(run, Site(tmp_path))
    small = select(["architectures"], miniature=True).runs
    assert len({run.folder for run in small}) == 48, "no two substitutes are alike"


def test_every_training_has_an_estimate_with_its_source():
    runs = select(["architectures"]).runs
    hours = {run.id: cost.training_hours(run) for run in runs}
    assert all(one.value > 1 and one.source for one in hours.values())
    assert all(cost.cell_hours(run) and cost.weights_gigabytes(run) for run in runs)
    # what the ratios start from is the table's
    swin = {
        recipe: value.value for (recipe, name), value in cost.TRAINING.items() if name == "swin_t"
    }
    assert swin["coco_swin_t_2x"] == vit_cost.SWIN_COCO
    assert swin["ade20k_swin_t_80k"] == vit_cost.SWIN_ADE20K
    assert swin["cifar10"] == vit_cost.SWIN_CIFAR
    assert cost.MILLISECONDS["coco", "swin_t"] == vit_cost.SWIN_COCO_MILLISECONDS
    assert cost.MILLISECONDS["ade20k", "swin_t"] == pytest.approx(1000 / 21.06, abs=0.05)
    # by hand: 24 passes over 117,266 images at 0.314 s of one A100, taken as two V100
    assert hours["detection-MAE-B-full_network"].value == pytest.approx(490.96, abs=0.01)
    assert hours["segmentation-MAE-B-full_network"].value == pytest.approx(60 * 21.06 / 7.14)
    ratio = hours["detection-DINOv2-B-full_network"].value / 490.96
    assert ratio == pytest.approx((16 / 14) ** 2, rel=1e-4)


def test_claims_are_about_runs_and_metrics_that_exist():
    study = read_study(shipped()["architectures"])
    shown = {(panel.metric, one) for panel in study.panels for one in panel.labels}
    claims = load_claims(_claims_file())
    assert study.claims == str(_claims_file())
    assert len({one.id for one in claims}) == len(claims) == 9
    for one in claims:
        for statement in one.statements:
            metric, _ = one.subject_of(statement)
            assert {(metric, run) for run in statement.runs} <= shown
    assert "architectures.claims" not in shipped()


def test_claims_of_the_study_are_judged(tmp_path):
    """Planted: a frozen DINOv2 drops less than a fine-tuned ResNet-50; ConvNeXt-T more than it."""
    selection = select(["architectures"])
    chances = {
        "DINOv2-S-fixed_feature": 0.8,
        "DINOv2-B-fixed_feature": 0.8,
        "ResNet-50-full_network": 0.6,
        "ConvNeXt-T-full_network": 0.4,
    }
    for run in selection.runs:
        chance = chances.get(run.id.partition("-")[2])
        if run.task == "classification" and chance:
            name = run.name(selection.protocol)
            where = {"severities": (3,), "backbone": run.backbone, "transfer": run.transfer}
            fill(tmp_path, name, 0.9, chance, run.task, **where)
    found = paper_exhibits(Store(tmp_path), studies=["architectures"], replicates=50)
    assert [one.id for one in found.claims] == [one.id for one in load_claims(_claims_file())]
    verdicts = {one.id: judge(one, found.rows) for one in found.claims}
    dinov2 = {one.text: one.verdict for one in verdicts["dinov2-frozen-resnet-full"].statements}
    assert set(dinov2.values()) == {"supported", "not measured"}  # one task is measured
    assert verdicts["modern-full"].verdict == "refuted"
    assert verdicts["modern-full"].printed == "not printed"


def _claims_file():
    return shipped()["architectures"].with_name("architectures.claims.yaml")


def test_claims_of_a_study_of_ones_own(tmp_path):
    """They lie beside it, and a wrong path is one sentence."""
    shutil.copy(shipped()["architectures"], tmp_path / "mine.yaml")
    with pytest.raises(UserError, match=r"Cannot read the claims in .*architectures\.claims\.yaml"):
        load_claims(tmp_path / read_study(tmp_path / "mine.yaml").claims)
    text = (tmp_path / "mine.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("claims: ", "claims: ../"))
    with pytest.raises(UserError, match=r"Expected `claims` in the study .* in the same folder"):
        read_study(tmp_path / "mine.yaml")


def test_the_plan_from_the_command_line(tmp_path):
    found = CliRunner().invoke(app, ["study", "plan", "architectures", "--out", str(tmp_path)])
    assert found.exit_code == 0
    assert "48 trainings (0 done), 768 cells (0 done)" in found.stdout
    assert "have no estimate" not in found.stdout


@pytest.mark.slow
def test_a_plain_vit_in_miniature(tmp_path, monkeypatch):
    """The frozen DINOv2's detector: its substitute is made, trained and measured."""
    small = read_miniature()
    monkeypatch.setitem(
        small.__dict__, "scenes", {"train": 4, "val": 2, "train_crops": 20, "val_crops": 10}
    )
    selection = select(["architectures"], miniature=True)
    protocol = selection.protocol.model_copy(update={"corruptions": ["fog"]})
    chosen = tuple(
        replace(run, changes={**run.changes, "steps": 3})
        for run in selection.runs
        if run.id == "detection-DINOv2-S-fixed_feature"
    )
    selection = replace(selection, runs_of=(chosen,), protocol=protocol)
    site = Site(tmp_path, {"coco": "coco:no"})
    assert run_study(selection, site, workers=1) == []
    found = {(m.corruption, m.severity) for m in Store(site.results).measurements()}
    assert found == {("clean", 0), ("fog", 3)}
