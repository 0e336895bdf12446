"""Disks that are full, read-only or gone, clocks that go back, files that change: one sentence, and
what was finished stays.
"""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from stillrobust import untrusted
from stillrobust.backbones import build_backbone
from stillrobust.data import open_dataset
from stillrobust.data.generated.scene_files import SceneCounts, write_scenes
from stillrobust.data.reading import write_image
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.predictors import Predictor
from stillrobust.runtime.run_log import log_failures
from stillrobust.samples import Prediction
from stillrobust.storage import index
from stillrobust.storage.leases import LeaseHeldError, lease
from stillrobust.storage.store import Store
from stillrobust.study import Site, select
from stillrobust.study.jobs import TrainJob
from stillrobust.study.selection import save_selection
from stillrobust.study.workload import missing_jobs
from stillrobust.training import Plan, Recipe, run_files, train
from stillrobust.training import loop as training
from tests.toys import SETTINGS, Toys

FEW = Protocol(("brightness", "contrast"), (1, 3), batch_size=4)
RECIPE = Recipe(steps=5, batch_size=4, checkpoint_seconds=0.0)
PLAN = Plan(
    "classification",
    "resnet_mini(weights='random')",
    "full_network",
    RECIPE,
    SETTINGS["classification"],
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    return train(PLAN, Toys("classification"), tmp_path_factory.mktemp("whole") / "run")


def model(at=lambda call: None):
    """A model that says "wide" with a fixed probability; ``at`` receives each call's number.

    The calls before the first cell, which check plausibility, have negative numbers.
    """
    calls = count(-3)

    def predict(images):
        at(next(calls))
        return [Prediction(probabilities=np.array([0.75, 0.25], np.float32)) for _ in images]

    return Predictor("classification", "constant", predict, "constant-1", ("wide", "tall"))


def marks(root):
    """Of every record: what would differ if it were measured again."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.glob("cells/*/[!.]*.json")
    }


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


# ---- a disk of its own
# ------------------------------------------------------------------------------


def mounts():
    """Whether a disk can be mounted here, in a name space of its own."""
    return (
        subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
        ).returncode
        == 0
    )


@pytest.mark.skipif(sys.platform != "linux" or not mounts(), reason="needs leave to mount a disk")
def test_a_disk_that_is_full_or_read_only(tmp_path, whole):
    (tmp_path / "disk").mkdir()
    script = [sys.executable, "-m", "tests.test_lost_storage", str(tmp_path / "disk"), str(whole)]
    done = subprocess.run(["unshare", "-rm", *script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def on_a_small_disk(disk, whole):
    """In the name space: the disk holds 4 MiB at first."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)
    data, results = Toys("classification", 4), disk / "results"
    with pytest.raises(UserError, match=r"Cannot write .*No space left on device.*free some space"):
        train(PLAN, data, disk / "run")  # its checkpoint takes 8 MB
    assert not list((disk / "run").glob("*.safetensors"))
    evaluate(model(), data, results, Protocol(("brightness",), (1, 3)))
    before = marks(results)
    assert len(before) == 3
    (disk / "filler").write_bytes(
        b"0" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - 8192)
    )
    for _ in range(2):
        with pytest.raises(UserError, match=r"No space left on device.*free some space"):
            evaluate(model(), data, results, FEW)
    assert marks(results) == before
    (disk / "filler").unlink()
    # With the device named, mount does not repeat the first mount's uid, which is invalid here.
    subprocess.run(["mount", "-o", "remount,ro", "none", str(disk)], check=True)
    # all there: nothing to write
    evaluate(model(), data, results, Protocol(("brightness",), (1, 3)))
    with pytest.raises(UserError, match=r"Read-only file system.*choose another folder"):
        evaluate(model(), data, results, FEW)
    assert len(Store(results).measurements()) == 3
    subprocess.run(["mount", "-o", "remount,rw,size=64m", "none", str(disk)], check=True)
    evaluate(model(), data, results, FEW)
    assert {name: mark for name, mark in marks(results).items() if name in before} == before
    assert len(marks(results)) == 5
    assert weights(train(PLAN, Toys("classification"), disk / "run")) == weights(whole)


# ---- a folder that is gone
# ------------------------------------------------------------------------------


def test_a_network_folder_that_is_gone_in_the_middle_of_an_evaluation(tmp_path):
    there, gone, data = tmp_path / "share" / "results", tmp_path / "away", Toys("classification", 4)

    def lose(call):
        if call == 3:
            (tmp_path / "share").rename(gone)

    with pytest.raises(
        UserError,
        match=r"Cannot reach .*Finished work is kept; start again when the folder is available",
    ):
        evaluate(model(lose), data, there, FEW)
    assert not (tmp_path / "share").exists(), "nothing is written where the folder was"
    gone.rename(tmp_path / "share")
    before = marks(there)
    assert len(before) == 3
    evaluate(model(), data, there, FEW)
    assert {name: mark for name, mark in marks(there).items() if name in before} == before
    assert len(marks(there)) == 5


@pytest.mark.parametrize("at", [0, 2, 4])  # clean images, and each of the corruptions
def test_results_that_are_renamed_are_not_made_again(at, tmp_path):
    results, away = tmp_path / "results", tmp_path / "away"

    def rename(call):
        if call == at:
            results.rename(away)

    with pytest.raises(UserError, match=r"Cannot reach|renamed or removed"):
        evaluate(model(rename), Toys("classification", 4), results, FEW)
    assert not results.exists()
    assert list(away.glob("runs/*.json"))


@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_run_that_is_renamed_is_not_made_again(at, tmp_path):
    run, away = tmp_path / "runs" / "run", tmp_path / "runs" / "away"

    def rename(step, steps, text):
        if step == at:
            run.rename(away)

    with pytest.raises(UserError, match=r"Cannot|renamed or removed"):
        train(PLAN, Toys("classification"), run, rename)
    assert not run.exists()
    assert (away / "run.log").is_file()


def test_a_network_folder_that_is_gone_in_the_middle_of_a_training(tmp_path, whole):
    def lose(step, steps, text):
        if step == 4:
            (tmp_path / "share").rename(tmp_path / "away")

    with pytest.raises(UserError, match=r"Cannot reach .*start again when the folder is available"):
        train(PLAN, Toys("classification"), tmp_path / "share" / "run", lose)
    assert not (tmp_path / "share").exists(), "nothing is written where the folder was"
    (tmp_path / "away").rename(tmp_path / "share")
    seen = []
    folder = train(
        PLAN, Toys("classification"), tmp_path / "share" / "run", lambda step, *_: seen.append(step)
    )
    assert seen[0] > 1, "from the beginning"
    assert weights(folder) == weights(whole)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_file_that_cannot_be_read_is_not_one_that_is_missing(
    number, tmp_path, whole, monkeypatch
):
    data = Toys("classification", 4)
    evaluate(model(), data, tmp_path, FEW)
    before = marks(tmp_path)

    def failing(read):
        def fail(path):
            if path.suffix == ".json":
                raise OSError(number, os.strerror(number), str(path))
            return read(path)

        return fail

    monkeypatch.setattr(Path, "read_bytes", failing(Path.read_bytes))
    opened = "_open_without_blocking"
    monkeypatch.setattr(untrusted.files, opened, failing(getattr(untrusted.files, opened)))
    with pytest.raises(UserError, match=os.strerror(number)):
        evaluate(model(lambda call: pytest.fail("measured again")), data, tmp_path, FEW)
    with pytest.raises(
        UserError,
        match=f"Cannot read .*{os.strerror(number)}.*start again when the folder is there",
    ):
        train(PLAN, Toys("classification"), whole, lambda *_: pytest.fail("trained again"))
    monkeypatch.undo()
    assert marks(tmp_path) == before


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_an_image_on_a_disk_that_fails_is_not_a_bad_image(number, tmp_path, monkeypatch):
    (tmp_path / "val" / "class").mkdir(parents=True)
    for name in "ab":
        write_image(tmp_path / "val" / "class" / f"{name}.png", np.zeros((32, 32, 3), np.uint8))
    opened = untrusted.files._open_without_blocking

    def fail(path):
        if path.name == "b.png":
            raise OSError(number, os.strerror(number), str(path))
        return opened(path)

    monkeypatch.setattr(untrusted.files, "_open_without_blocking", fail)
    with pytest.raises(
        UserError,
        match=rf"Cannot read .*b.png \({os.strerror(number)}\); start again when its disk",
    ):
        len(open_dataset(f"folders(leave_out_bad=True):{tmp_path}", "val"))


# ---- what another process is at
# ------------------------------------------------------------------------------


def test_what_another_is_at_is_left_alone_and_no_failure(tmp_path):
    data, log = Toys("classification", 4), tmp_path / "run.log"
    with (
        lease(tmp_path / "run"),
        pytest.raises(LeaseHeldError, match="Another process works on run"),
        log_failures(log, "training"),
    ):
        train(PLAN, data, tmp_path / "run")
    with (
        Store(tmp_path / "results").lease_cells("constant", "brightness"),
        pytest.raises(LeaseHeldError),
        log_failures(log, "evaluation"),
    ):
        evaluate(model(), data, tmp_path / "results", FEW)
    assert list(marks(tmp_path / "results")) == ["clean_0.json"]
    assert not log.exists()
    evaluate(model(), data, tmp_path / "results", FEW)
    assert len(marks(tmp_path / "results")) == 5


# ---- clocks and changes
# ------------------------------------------------------------------------------


def test_a_clock_that_goes_back_changes_nothing(tmp_path, whole, monkeypatch):
    data = Toys("classification", 4)
    clock = count(2_000_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    folder = train(PLAN, Toys("classification"), tmp_path / "run")
    assert weights(folder) == weights(whole)
    evaluate(folder, data, tmp_path / "results", FEW)
    before = marks(tmp_path / "results")
    for number, path in enumerate(sorted((tmp_path / "results").rglob("*.json"))):
        # the last looks like the first, and all like tomorrow's
        os.utime(path, (2.1e9 - 1e7 * number,) * 2)
    numbers = Store(tmp_path / "results").measurements()
    evaluate(folder, data, tmp_path / "results", FEW)
    assert {name: inode for name, (inode, _) in marks(tmp_path / "results").items()} == {
        n: i for n, (i, _) in before.items()
    }
    monkeypatch.undo()
    for path in (tmp_path / "results").rglob(index.LISTING):
        path.unlink()
    assert Store(tmp_path / "results").measurements() == numbers
    again = evaluate(whole, data, tmp_path / "others", FEW)
    others = {
        (one.corruption, one.severity): (one.value, one.key)
        for one in Store(tmp_path / "others").measurements(again)
    }
    assert {(one.corruption, one.severity): (one.value, one.key) for one in numbers} == others


def test_weights_that_change_under_an_evaluation_are_refused(tmp_path, whole):
    folder, data = tmp_path / "run", Toys("classification", 4)
    folder.mkdir()
    for name in ("model.json", "model.safetensors"):
        (folder / name).write_bytes((whole / name).read_bytes())
    good = weights(folder)

    def change(done, total, text):
        if text.startswith("contrast"):
            (folder / "model.safetensors").write_bytes(good[:-4] + b"abcd")

    with pytest.raises(
        UserError,
        match=("changed during the evaluation, and the new ones were not evaluated"),
    ):
        evaluate(folder, data, tmp_path / "results", FEW, progress=change)
    before = marks(tmp_path / "results")
    assert sorted(before) == ["brightness_1.json", "brightness_3.json", "clean_0.json"]
    (folder / "model.safetensors").write_bytes(good)
    evaluate(folder, data, tmp_path / "results", FEW)
    assert {
        name: mark for name, mark in marks(tmp_path / "results").items() if name in before
    } == before
    assert len({one.protocol["weights"] for one in Store(tmp_path / "results").measurements()}) == 1


def stopped(folder, step):
    """A training that was stopped after ``step``."""

    def stop(done, total, text):
        if done == step + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(PLAN, Toys("classification"), folder, stop)
    assert json.loads((folder / "resume.json").read_text())["step"] == step
    return next(folder.glob("resume-*.safetensors"))


def steps_of(folder):
    seen = []
    train(PLAN, Toys("classification"), folder, lambda step, *_: seen.append(step))
    return seen


@pytest.mark.parametrize("which", ["weights", "json"])
def test_a_checkpoint_that_is_damaged_is_set_aside_and_said(which, tmp_path, whole):
    kept = stopped(tmp_path, 3)
    if which == "weights":
        kept.write_bytes(kept.read_bytes()[:-4] + b"abcd")
    else:
        (tmp_path / "resume.json").write_bytes(
            (tmp_path / "resume.json").read_bytes().replace(b'"step": 3', b'"step": 4')
        )
    with pytest.warns(
        UserWarning, match=r"resume.json counts as missing and is set aside as resume.json.damaged"
    ):
        assert steps_of(tmp_path) == [1, 2, 3, 4, 5]
    assert weights(tmp_path) == weights(whole)
    assert (tmp_path / "resume.json.damaged").exists()
    assert not list(tmp_path.glob("resume*.safetensors"))


def files_but_curves(folder):
    """Names of the files, without TensorBoard's, which contain the time and the process."""
    return sorted(path.name for path in folder.iterdir() if "tfevents" not in path.name)


def test_a_kill_between_weights_and_json_goes_on_from_the_last_whole_pair(
    tmp_path, whole, monkeypatch
):
    stopped(tmp_path, 2)

    def kill(files):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_files, "write_whole", kill)  # the JSON of the next checkpoint
    with pytest.raises(KeyboardInterrupt):
        train(PLAN, Toys("classification"), tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.glob("resume-*.safetensors"))) == 2
    assert steps_of(tmp_path) == [3, 4, 5]
    assert weights(tmp_path) == weights(whole)
    assert files_but_curves(tmp_path) == files_but_curves(whole)


def test_a_file_of_weights_that_is_replaced_while_a_training_begins(tmp_path, monkeypatch):
    file = tmp_path / "start.safetensors"
    state = build_backbone("resnet_mini(weights='random')")[0].model.state_dict()
    save_file(state, file)
    begun = dataclasses.replace(PLAN, backbone=f"resnet_mini(weights='{file}')")
    build = training.build_model

    def replaced(plan, backbone, info):
        save_file({key: value + 1 for key, value in state.items()}, file)
        return build(plan, backbone, info)

    monkeypatch.setattr(training, "build_model", replaced)
    with pytest.raises(UserError, match="changed while a training began from them; start again"):
        train(begun, Toys("classification"), tmp_path / "run")
    assert not (tmp_path / "run" / "model.json").exists()


STUDY = """
name: begun
scenes: {{train: 1, val: 1, train_crops: 8, val_crops: 4}}
protocols: {{short: {{corruptions: [brightness], severities: [1]}}}}
runs:
  - {{task: classification, data: scenes, settings: {{resize: 32, crop: 32}},
      changes: {{steps: 1, batch_size: 4}},
     model: "resnet_mini(weights='{}')", axes: {{transfer: [fixed_feature, full_network]}}}}
"""


@pytest.fixture
def begun(tmp_path):
    """A study of two trainings from one file of weights, its data drawn: the file, and what says
    which jobs are missing.
    """
    file, site = tmp_path / "start.safetensors", Site(tmp_path / "share" / "out")
    save_file(build_backbone("resnet_mini(weights='random')")[0].model.state_dict(), file)
    (tmp_path / "begun.yaml").write_text(STUDY.format(file))
    selection = select([str(tmp_path / "begun.yaml")])
    save_selection(selection, site.out)
    write_scenes(site.out / "data", counts=SceneCounts(**selection.generated.counts))

    def trainings():
        jobs, refused = missing_jobs(selection.runs, selection.protocol, site)
        assert refused == []
        return [job for job in jobs if isinstance(job, TrainJob)]

    return file, trainings


def perform(job):
    job.run(lambda *_: None)


def test_an_upstream_checkpoint_that_changes_while_a_study_runs(begun):
    file, trainings = begun
    first, second = trainings()
    perform(first)
    assert len(trainings()) == 2, "one is trained and not evaluated"
    save_file(
        {
            name: value * 0.9 if value.is_floating_point() else value
            for name, value in load_file(file).items()
        },
        file,
    )
    for job in (first, second):
        with pytest.raises(
            UserError, match=r"changed while the study ran; put them back, or start the study again"
        ):
            perform(job)
    steps = []
    for job in trainings():  # started again: both from the new one
        job.run(lambda step, *_: steps.append(step))
    assert steps == [1, 1]


def test_nothing_is_begun_where_a_study_was(begun, tmp_path):
    _, trainings = begun
    first, _ = trainings()
    (tmp_path / "share").rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"Cannot reach .* start again when it is there"):
        perform(first)
    assert not (tmp_path / "share").exists()


if __name__ == "__main__":
    on_a_small_disk(Path(sys.argv[1]), Path(sys.argv[2]))
