"""A study that makes backbones robust and transfers them: order, names, and what happens when one is missing."""

import pytest

from stillrobust.errors import UserError
from stillrobust.store import Store
from stillrobust.study import Site, read_study, select
from stillrobust.study.execute import jobs_of, run_study

TEXT = """
name: made
runs:
  - ids: [plain, mixed]
    task: classification
    data: source
    model: resnet_mini(weights='random')
    transfer: robustify
    axes: {technique: [null, augmix(jsd=False)]}
    changes: {steps: 2, batch_size: 4, norm_eval: false}
    settings: {resize: 32, crop: 32}
    images: 20
  - task: classification
    data: scenes
    changes: {steps: 2, batch_size: 4}
    settings: {resize: 32, crop: 32}
    axes: {model: ["run:plain", "run:mixed"], transfer: [fixed_feature]}
    images: 10
scenes: {train: 1, val: 1, train_crops: 10, val_crops: 10}
source_set: {train: 1, val: 1}
protocols:
  quick: {corruptions: [fog], severities: [3]}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "made.yaml"
    path.write_text(TEXT)
    return path


def test_runs_start_from_what_is_made(file):
    plain, mixed, first, second = read_study(file).selected()
    assert (first.made_by, second.made_by) == (plain.folder, mixed.folder)
    assert first.backbone == "resnet_mini"
    assert first.label == "resnet_mini(weights='random') regular"
    assert len({run.folder for run in (plain, mixed, first, second)}) == 4


def test_another_making_is_another_transfer(file):
    """One step more upstream, and the downstream run has another name: its weights are others."""
    before = read_study(file).selected()
    file.write_text(TEXT.replace("{steps: 2, batch_size: 4, norm_eval", "{steps: 3, batch_size: 4, norm_eval"))
    after = read_study(file).selected()
    assert all(one.folder != other.folder for one, other in zip(before, after, strict=True))


def test_a_panel_brings_the_makers_of_what_it_shows(file):
    panel = "panels:\n  - {title: t, metric: top1, runs: [classification-run-mixed-fixed_feature]}\n"
    file.write_text(TEXT + panel)
    assert [run.id for run in read_study(file).selected()] == ["mixed", "classification-run-mixed-fixed_feature"]


def test_the_whole_study(file, tmp_path):
    """Made, transferred and measured; done again there is nothing to do; a checkpoint that is gone is made again, with no cell."""
    selection, site = select([str(file)]), Site(tmp_path / "out")
    assert run_study(selection, site, 2) == []
    found = Store(site.results).measurements()
    assert len({m.run for m in found}) == 4
    assert len(found) == 4 * 2
    backbones = {run.backbone for run in Store(site.results).runs()}
    assert backbones == {"resnet_mini (regular)", "resnet_mini (augmix(jsd=False))"}
    assert jobs_of(selection.runs, selection.asked, site) == ([], [])
    maker = selection.runs[0]
    site.checkpoint_of(maker.folder).unlink()
    jobs, _ = jobs_of(selection.runs, selection.asked, site)
    assert [job.name for job in jobs] == [f"robustify {maker.folder}"]


def test_makers_come_first(file, tmp_path):
    jobs, refused = jobs_of(select([str(file)]).runs, select([str(file)]).asked, Site(tmp_path / "out"))
    assert jobs == []
    assert len(refused) == 4  # nothing is drawn here: data that is not there is told of each


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"run:mixed"', '"run:mixd"'), "Did you mean: mixed"),
        (("transfer: robustify", "transfer: upstream"), "run with transfer robustify before this one"),
    ],
)
def test_wrong_references(file, change, message):
    file.write_text(TEXT.replace(*change))
    with pytest.raises(UserError, match=message):
        read_study(file)
