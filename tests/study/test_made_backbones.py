"""A study that makes backbones robust and transfers them: order, names, and what happens when one
is missing.
"""

import pytest

from stillrobust.analysis.robustness import robustness
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, corrupted_places
from stillrobust.report.rows import Row
from stillrobust.report.seed_means import with_seed_means
from stillrobust.storage.store import Measurement, Store
from stillrobust.study import Site, load_selection, read_study, run_states, select
from stillrobust.study.execute import run_study
from stillrobust.study.runs import selected_runs
from stillrobust.study.workload import missing_jobs

TEXT = """
name: made
runs:
  - ids: [plain, mixed]
    task: classification
    data: source
    model: resnet_mini(weights='random')
    kind: robustify
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
    plain, mixed, first, second = selected_runs(read_study(file))
    assert (first.backbone_run, second.backbone_run) == (plain.folder, mixed.folder)
    assert first.backbone == "resnet_mini"
    assert first.label == "resnet_mini(weights='random') regular"
    assert len({run.folder for run in (plain, mixed, first, second)}) == 4


def test_another_making_is_another_transfer(file):
    """One step more upstream, and the downstream run has another name: its weights are others."""
    before = selected_runs(read_study(file))
    file.write_text(
        TEXT.replace("{steps: 2, batch_size: 4, norm_eval", "{steps: 3, batch_size: 4, norm_eval")
    )
    after = selected_runs(read_study(file))
    assert all(one.folder != other.folder for one, other in zip(before, after, strict=True))


def test_a_panel_brings_the_makers_of_what_it_shows(file):
    panel = (
        "panels:\n  - {title: t, metric: top1, runs: [classification-run-mixed-fixed_feature]}\n"
    )
    file.write_text(TEXT + panel)
    assert [run.id for run in selected_runs(read_study(file))] == [
        "mixed",
        "classification-run-mixed-fixed_feature",
    ]


def test_the_whole_study(file, tmp_path):
    """Made, transferred and measured; done again there is nothing to do; a checkpoint that is gone
    is made again, with no cell.
    """
    selection, site = select([str(file)]), Site(tmp_path / "out")
    assert run_study(selection, site, 2) == []
    found = Store(site.results).measurements()
    assert len({m.run for m in found}) == 4
    assert len(found) == 4 * 2
    backbones = {run.backbone for run in Store(site.results).runs()}
    assert backbones == {"resnet_mini (regular)", "resnet_mini (augmix(jsd=False))"}
    assert missing_jobs(selection.runs, selection.protocol, site) == ([], [])
    maker = selection.runs[0]
    site.checkpoint_of(maker.folder).unlink()
    jobs, _ = missing_jobs(selection.runs, selection.protocol, site)
    assert [job.name for job in jobs] == [f"robustify {maker.folder}"]


@pytest.mark.slow
def test_seeds_are_the_same_runs_again(file, tmp_path):
    """What one seed measured is not measured again; a transfer starts from the maker of its own
    seed; the report knows them.
    """
    one, three, site = select([str(file)]), select([str(file)], seeds=3), Site(tmp_path / "out")
    assert run_study(one, site, 2) == []
    before = {path: path.stat().st_mtime_ns for path in site.out.glob("r*/**/*") if path.is_file()}
    jobs, refused = missing_jobs(three.runs, three.protocol, site)
    first = {run.folder for run in one.runs} | {run.name(one.protocol) for run in one.runs}
    assert refused == []
    assert not first & {job.name.split()[1] for job in jobs}
    second = {run.folder for run in select([str(file)], seeds=2).runs}
    assert [job.name.split()[1] in second for job in jobs if job.name.startswith("robustify")] == [
        True,
        True,
        False,
        False,
    ]
    assert run_study(three, site, 2) == []
    kept = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if kept[path] != before[path]} == set(), (
        "something finished was done twice"
    )
    assert load_selection(site.out).runs == three.runs
    assert all(state.finished for state in run_states(three.runs, three.protocol, site))
    every = [
        Measurement("any", "top1", *place, 0.5, {}, 10, 1.0)
        for place in [CLEAN, *corrupted_places([3])]
    ]
    # two steps teach nothing: numbers by hand
    rows = [Row(run, robustness(every, [3]), 10) for run in Store(site.results).runs()]
    means = [row for row in with_seed_means(rows) if row not in rows]
    assert len(rows) == 4 * 3
    assert [row.run.name for row in means] == ["mean of 3 seeds"] * 4
    assert len({row.run.backbone for row in means}) == 2


def test_seeds_of_a_study(file):
    one, two = select([str(file)]), select([str(file)], seeds=2)
    assert two.runs[:4] == one.runs
    plain, _, transferred, _ = two.runs[4:]
    assert [run.id for run in (plain, transferred)] == [
        "plain-seed1",
        "classification-run-plain-fixed_feature-seed1",
    ]
    assert (plain.changes["seed"], transferred.changes["seed"], transferred.backbone_run) == (
        1,
        1,
        plain.folder,
    )
    assert two.generated == one.generated
    assert len({run.folder for run in two.runs}) == 8


def test_what_trains_nothing_has_one_seed(tmp_path):
    """Published weights are what they are; the paper's 8 evaluations stay 8."""
    one, two = select([]).runs, select([], seeds=2).runs
    assert [sum(run.kind == "upstream" for run in runs) for runs in (one, two)] == [8, 8]
    assert len(two) - 8 == 2 * (len(one) - 8)


def test_wrong_seeds(file):
    with pytest.raises(UserError, match="at least one seed, but got 0"):
        select([str(file)], seeds=0)
    file.write_text(TEXT.replace("steps: 2, batch_size: 4, norm", "steps: 2, seed: 5, norm"))
    assert select([str(file)]).runs[0].changes["seed"] == 5
    with pytest.raises(UserError, match=r"plain of made has changes: \{seed: 5\}; take that out"):
        select([str(file)], seeds=2)


def test_makers_come_first(file, tmp_path):
    jobs, refused = missing_jobs(
        select([str(file)]).runs, select([str(file)]).protocol, Site(tmp_path / "out")
    )
    assert jobs == []
    assert len(refused) == 4  # nothing is drawn here: data that is not there is told of each


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"run:mixed"', '"run:mixd"'), "Did you mean: mixed"),
        (
            ("kind: robustify", "kind: upstream"),
            "run of kind robustify before this one",
        ),
        (
            ("kind: robustify", "kind: robustify\n    transfer: full_network"),
            "has kind robustify and transfer full_network; leave the transfer out",
        ),
        (("kind: robustify", "transfer: full_network"), "run of kind robustify before this one"),
    ],
)
def test_wrong_references(file, change, message):
    file.write_text(TEXT.replace(*change))
    with pytest.raises(UserError, match=message):
        read_study(file)
