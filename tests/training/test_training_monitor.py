"""Reports on long work: the log of a run, TensorBoard's curves, the live display, and the status in
another terminal.
"""

import io
import json
import shlex
import subprocess
import sys
import time
import warnings

import pytest
import torch
from rich.console import Console

from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.runtime import progress as progress_module
from stillrobust.runtime.forecast import NOT_STARTED, PlannedJob, Work, format_duration
from stillrobust.runtime.progress import Display, progress_display, render, shorten
from stillrobust.runtime.run_log import RUN_LOG, last_line, log_failures, note
from stillrobust.study import Site, load_selection, run_states
from stillrobust.study.state import read_failures, status_text
from stillrobust.training import Plan, Recipe, train
from stillrobust.training.training_monitor import TrainingMonitor
from tests.toys import SETTINGS, Toys

PLAN = Plan(
    "classification",
    "resnet18(weights='random')",
    "fixed_feature",
    Recipe(steps=6, batch_size=4, checkpoint_seconds=0.0),
    SETTINGS["classification"],
)


def curves(folder):
    """tag -> (steps, values), as TensorBoard reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    found = {tag: accumulator.Scalars(tag) for tag in accumulator.Tags()["scalars"]}
    return {
        tag: ([one.step for one in events], [one.value for one in events])
        for tag, events in found.items()
    }


# ---- curves


def monitor(folder, step=0, steps=8):
    return TrainingMonitor(folder, folder / RUN_LOG, step, steps, 4)


def record(monitor, steps, value):
    for step in steps:
        monitor.record(step, {"a long name with ü": torch.tensor(value)}, [0.5, 0.25])


def test_tensorboard_reads_the_curves(tmp_path):
    record(monitor(tmp_path), (1, 2, 3), 1.5)
    read = curves(tmp_path)
    assert read["loss"] == read["loss/a long name with ü"] == ([1, 2, 3], [1.5] * 3)
    assert read["rate"] == ([1, 2, 3], [0.5] * 3)


def test_resuming_continues_the_curves_and_starting_anew_drops_them(tmp_path):
    """Points after the step that a training resumes from are replaced, also behind a torn one."""
    record(monitor(tmp_path), range(1, 9), 1.0)
    (file,) = tmp_path.glob("*tfevents*")
    file.write_bytes(file.read_bytes()[:-5])  # killed while it wrote the last point
    record(monitor(tmp_path, 5), range(6, 9), 2.0)
    assert curves(tmp_path)["loss"] == ([1, 2, 3, 4, 5, 6, 7, 8], [1.0] * 5 + [2.0] * 3)
    monitor(tmp_path)
    assert curves(tmp_path) == {}


def test_a_folder_that_cannot_be_written_does_not_stop_the_training(tmp_path):
    (tmp_path / "file").write_text("no folder")
    record(monitor(tmp_path / "file"), (1, 2), 1.0)
    note(tmp_path / "file" / RUN_LOG, "text")


def test_a_full_disk_ends_the_curves_and_not_the_training(tmp_path, monkeypatch):
    watched = monitor(tmp_path)

    def fail():
        raise OSError("No space left on device")

    monkeypatch.setattr(watched.writer, "flush", fail)
    record(watched, (1, 2), 1.0)
    assert (tmp_path / RUN_LOG).read_text().count("end here: No space left on device") == 1


def test_without_tensorboard_one_line_of_the_log_says_how_to_get_curves(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(PLAN, Toys("classification"), tmp_path)
    assert not list(tmp_path.glob("*tfevents*"))
    log = (tmp_path / RUN_LOG).read_text()
    assert log.count("pip install 'stillrobust[tensorboard]'") == 1
    assert "training finished" in log


def test_importing_does_not_load_tensorboard():
    code = (
        "import sys, stillrobust, stillrobust.training;"
        " assert not [m for m in sys.modules if m.partition('.')[0] == 'tensorboard']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_training_leaves_its_curves_and_its_log_once_each_step(tmp_path):
    def stop(done, total, text):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), log_failures(tmp_path / RUN_LOG, "training"):
        train(PLAN, Toys("classification"), tmp_path, stop)
    assert curves(tmp_path)["loss"][0] == [1, 2, 3, 4]
    train(PLAN, Toys("classification"), tmp_path)
    read = curves(tmp_path)
    assert set(read) == {"loss", "loss/cross_entropy", "rate", "images per second"}
    assert all(steps == [1, 2, 3, 4, 5, 6] for steps, _ in read.values())
    assert read["loss"][1] == read["loss/cross_entropy"][1]
    assert max(read["rate"][1]) <= PLAN.recipe.lr
    log = (tmp_path / RUN_LOG).read_text().splitlines()
    assert "training: Plan(task='classification'" in log[0]
    assert "training stopped: KeyboardInterrupt" in log[1]
    assert "training resumes after step 3 of 6" in log[3]
    assert "step 6 of 6: loss cross_entropy" in log[4]
    assert "training finished" in log[5]
    undisturbed = tmp_path / "undisturbed"
    train(PLAN, Toys("classification"), undisturbed)
    assert curves(undisturbed)["loss"] == read["loss"]


# ---- logs


def test_a_log_has_time_host_and_process_and_the_stack_trace_of_what_no_user_did(tmp_path):
    log = tmp_path / "logs" / "a.log"
    with pytest.raises(ZeroDivisionError), log_failures(log, "training"):
        _ = 1 / 0
    with pytest.raises(UserError), log_failures(log, "evaluation"):
        raise UserError("no such data; check the path")
    text = log.read_text()
    assert "Traceback" in text
    assert "_ = 1 / 0" in text
    assert text.splitlines()[-1].endswith("evaluation failed: no such data; check the path")
    assert time.strftime("%Y-%m-%d", time.gmtime()) in text
    assert last_line(log).endswith(" evaluation failed: no such data; check the path")
    assert last_line(tmp_path / "none.log") == ""


def test_a_mistake_that_is_seen_first_leaves_no_folder(tmp_path):
    with pytest.raises(UserError), log_failures(tmp_path / "mine" / RUN_LOG, "training"):
        raise UserError("no such technique; give another")
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_puts_every_cell_down(tmp_path):
    run = train(PLAN, Toys("classification"), tmp_path / "run")
    evaluate(
        run, Toys("classification", 4, seed=5), tmp_path / "results", Protocol(("fog",), (1, 3))
    )
    text = (run / RUN_LOG).read_text()
    assert "3 of 3 cells, 4 images of toys, clean, fog" in text
    assert all(f"run on {cell}, 4 images in " in text for cell in ("clean 0", "fog 1", "fog 3"))


# ---- how long the rest takes


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_rest_is_counted_by_kind():
    """Trainings take 100 s and evaluations 10 s, two at once: what is left follows by hand."""
    clock = Clock()
    work = Work(clock)
    runs = [f"run{number}" for number in range(4)]
    jobs = [PlannedJob(f"train {run}", "train detection") for run in runs]
    jobs += [PlannedJob(f"evaluate {run} fog", "evaluate detection", run, 5) for run in runs]
    work.start(jobs, runs=6, runs_done=2, cells=30, cells_done=10)
    assert work.remaining_seconds() is None
    assert work.summary() == "runs 2/6, cells 10/30, time left unknown"
    for run in runs[:2]:
        work.update(f"train {run}", 0, 100, "loss 1")
    clock.now = 50
    for run in runs[:2]:
        work.update(f"train {run}", 50, 100, "loss 1")
    # Of two trainings a half, two more whole; four evaluations, of which none was seen, as long as
    # trainings; two at once.
    assert work.remaining_seconds() == pytest.approx((2 * 50 + 2 * 100 + 4 * 100) / 2)
    clock.now = 100
    for run in runs[:2]:
        work.finish(f"train {run}")
        work.update(f"evaluate {run} fog", 0, 500, "")
    clock.now = 110
    for run in runs[:2]:
        work.finish(f"evaluate {run} fog")
    assert (work.runs_done, work.cells_done) == (4, 20)
    assert work.remaining_seconds() == pytest.approx(
        2 * 100 + 2 * 10
    )  # nobody is at work: one after the other
    assert work.rate() == pytest.approx(10 / 110)
    work.finish("train run2", "no room")
    work.finish("evaluate run2 fog", f"{NOT_STARTED}train run2")
    assert work.runs_done == 4
    assert "2 failed" in work.summary()
    assert work.remaining_seconds() == pytest.approx(100 + 10)


def test_a_training_that_goes_on_counts_from_where_it_was():
    clock = Clock()
    work = Work(clock)
    work.update("train a", 80, 100, "")
    clock.now = 10
    work.update("train a", 90, 100, "")
    assert work.remaining_seconds() == pytest.approx(10)
    work.update("train a", 5, 100, "")  # it was tried again from the start
    clock.now = 11
    work.update("train a", 10, 100, "")
    assert work.remaining_seconds() == pytest.approx(18)


def test_hours():
    assert [format_duration(s) for s in (5, 65, 3600 * 3 + 64, 86400 * 3)] == [
        "0:05",
        "1:05",
        "3:01:04",
        "3 d 0 h",
    ]


# ---- the display


def test_a_kind_that_was_not_seen_goes_as_fast_for_its_size():
    """A training of 3,000 passes is half done in 15 s; two evaluations of 100 passes then take 1 s
    each.
    """
    clock = Clock()
    work = Work(clock)
    jobs = [PlannedJob("train a", "train detection", size=3000)]
    jobs += [
        PlannedJob(f"evaluate a {name}", "evaluate detection", "a", 1, 100)
        for name in ("fog", "snow")
    ]
    work.start(jobs, runs=1, runs_done=0, cells=2, cells_done=0)
    work.update("train a", 0, 100, "")
    clock.now = 15
    work.update("train a", 50, 100, "")
    assert work.remaining_seconds() == pytest.approx(15 + 2 * 1)


def test_what_nobody_awaited_says_nothing_of_the_rest():
    """Drawing data took 20 s; that is no pace for trainings, which are counted in passes."""
    clock = Clock()
    work = Work(clock)
    work.update("data", 0, 5600, "images")
    clock.now = 20
    work.update("data", 5600, 5600, "images")
    jobs = [PlannedJob(f"train {name}", "train detection", size=3000) for name in "ab"]
    work.start(jobs, runs=2, runs_done=0, cells=0, cells_done=0)
    assert work.remaining_seconds() is None
    work.update("train a", 0, 100, "")
    assert work.remaining_seconds() is None
    clock.now = 35
    work.update("train a", 50, 100, "")
    assert work.remaining_seconds() == pytest.approx(15 + 30)


def big_work():
    work = Work(Clock())
    names = [
        f"detection-resnet50-weights-regular-fixed_feature-{number:08x}" for number in range(105)
    ]
    jobs = [
        PlannedJob(f"evaluate {name} elastic_transform", "evaluate detection", name, 5)
        for name in names
    ]
    work.start(jobs, runs=105, runs_done=0, cells=7980, cells_done=0)
    for job in jobs:
        work.update(job.name, 130, 500, "elastic_transform, 12 of 76 cells done")
    return work


@pytest.mark.parametrize("height", [4, 10, 24, 100])
def test_the_display_is_bounded_with_105_jobs_at_80_columns(height):
    lines = render(big_work(), 80, height)
    assert len(lines) < height
    assert len(lines) <= progress_module.ROWS + 2
    assert all(len(line) < 80 for line in lines)
    assert lines[0].startswith("runs 0/105, cells 0/7,980")
    assert "more running" in lines[-1]
    if height > 4:
        assert "26%" in lines[1]


def test_a_shortened_name_keeps_both_ends():
    assert shorten("detection-resnet50-0a1b2c3d", 15) == "detecti…a1b2c3d"
    assert shorten("short", 15) == "short"


def test_a_terminal_is_drawn_in_place_and_failures_stay(monkeypatch):
    output = io.StringIO()
    display = progress_module._Live(
        None, Console(file=output, force_terminal=True, width=80, height=24)
    )
    with display.active():
        display.start(
            [PlannedJob("train a", "train x"), PlannedJob("evaluate a fog", "evaluate x", "a", 1)],
            1,
            0,
            1,
            0,
        )
        display("train a", 1, 10, "loss 2.0")
        display.finish("train a", "no room [on] the disk")
        display.finish("evaluate a fog", f"{NOT_STARTED}train a")
    text = output.getvalue()
    assert "failed: train a: no room [on] the disk" in text
    assert "failed: evaluate" not in text
    assert "2 failed" in text
    assert "\x1b[2J" not in text  # never cleared: that flickers


def test_without_a_terminal_lines_come_now_and_then_and_failures_at_once(capsys):
    display = Display()
    for step in range(100):
        display("train a", step, 100, f"loss {step}")
    display.finish("train a", "no room")
    said = capsys.readouterr().err.splitlines()
    assert said == ["train a: 0/100 loss 0", "failed: train a: no room"]


def test_another_terminal_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_module, "STATUS_SECONDS", 0.05)
    told = tmp_path / "progress.json"
    with progress_display(told) as display:
        display.start([PlannedJob("evaluate a fog", "evaluate x", "a", 5)], 3, 2, 15, 10)
        display("evaluate a fog", 1, 4, "fog")
        time.sleep(0.3)
        plain = json.loads(told.read_text())
    assert plain["summary"].startswith("runs 2/3, cells 10/15")
    assert plain["running"] == {"evaluate a fog": "1/4 fog"}
    assert not told.exists()
    assert not list(tmp_path.iterdir())


# ---- a study

STUDY = """
name: two
scenes: {train: 2, val: 2, train_crops: 20, val_crops: 10}
protocols: {short: {corruptions: [fog], severities: [1, 3]}}
runs:
  - task: classification
    data: scenes
    model: "resnet18(weights='random')"
    transfer: fixed_feature
    settings: {resize: 48, crop: 48}
    changes: {steps: 4, batch_size: 8}
    ids: [good]
  - {ids: [bad], task: classification, data: scenes, model: "resnet18(weights='random')",
      transfer: full_network,
     settings: {resize: 48, crop: 48}, changes: {steps: 4, batch_size: 8, lr: 1.0e+30, warmup: 0}}
"""


def test_a_failing_run_stops_no_other_and_the_end_says_what_to_run(tmp_path):
    (tmp_path / "a study.yaml").write_text(STUDY)
    command = [sys.executable, "-m", "stillrobust"]
    asked = ["study", "run", "a study.yaml", "--out", "out", "--workers", "1"]
    first = subprocess.run([*command, *asked], cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 3, first.stderr
    site = Site(tmp_path / "out")
    selection = load_selection(site.out)
    found = {state.run.id: state for state in run_states(selection.runs, selection.protocol, site)}
    assert found["good"].finished
    assert found["bad"].done == 0
    *_, why, again = first.stderr.splitlines()
    assert why.startswith("failed: train classification")
    assert "lower the learning rate" in why
    assert why.endswith("(2 jobs that depend on it were not started)")
    assert "Traceback" not in first.stderr
    said = again.partition("Run the same command again: ")[2]
    assert shlex.split(said) == ["stillrobust", *asked]
    logs = {name: site.log(state.run.folder).read_text() for name, state in found.items()}
    assert "training finished" in logs["good"]
    assert "on fog 3, 10 images in" in logs["good"]
    assert "training failed: The loss" in logs["bad"]
    text = status_text(site, list(found.values()), read_failures(site))
    assert "1 of 2 runs finished, 3 of 6 cells" in text
    assert "no process is running" in text
    assert "lower the learning rate" in text
    before = {path: path.stat().st_mtime_ns for path in site.results.glob("cells/**/*.json")}
    second = subprocess.run(
        [*command, *shlex.split(said)[1:]], cwd=tmp_path, capture_output=True, text=True
    )
    assert second.returncode == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_status_says_who_is_at_work_and_who_has_gone_silent(tmp_path):
    site = Site(tmp_path)
    plain = {
        "host": "here",
        "process": 7,
        "summary": "1/2",
        "running": {"train a": "1/4"},
        "failed": {"train b": "no"},
    }
    site.progress.write_text(json.dumps({**plain, "written": time.time()}))
    assert status_text(site, [], []).splitlines()[1:] == [
        "running: here[7], 1/2",
        "  train a: 1/4",
        "failed: train b: no",
    ]
    site.progress.write_text(json.dumps({**plain, "written": time.time() - 600}))
    assert "has not reported for 10:00" in status_text(site, [], [])
