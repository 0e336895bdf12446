"""The engine slurm with submitit as it is, on commands that do on this machine what Slurm's do on a
cluster.
"""

import os
import sys
import time
from pathlib import Path

import pytest

from stillrobust.errors import UserError
from stillrobust.execution import Job, on_slurm, run_jobs
from stillrobust.execution.jobs import JobEnd
from stillrobust.execution.serialization import from_json, to_json
from tests.execution.example_jobs import Die, RecordProcess, Refuse

pytest.importorskip("submitit")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder for the engine; workers find this file."""
    commands, state = tmp_path / "bin", tmp_path / "state"
    commands.mkdir()
    state.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        (commands / name).write_text(
            f"#!{sys.executable}\n{(ROOT / 'tests' / 'fake_slurm.py').read_text()}"
        )
        (commands / name).chmod(0o755)
    monkeypatch.setenv("FAKE_SLURM", str(state))
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    monkeypatch.setattr(on_slurm, "STATE_SECONDS", 2.0)
    return tmp_path / "slurm"


def test_an_array_of_workers_does_all_and_one_that_dies_loses_nothing(slurm, tmp_path):
    path, ends = tmp_path / "seen", []
    jobs = [
        RecordProcess(name=f"{run}{n}", path=path, seconds=0.2, affinity=run)
        for run in "ab"
        for n in range(4)
    ]
    jobs += [
        Die(name="dies", path=tmp_path / "died"),
        Refuse(name="bad"),
        Refuse(name="never", after=("bad",)),
    ]
    failures = run_jobs(
        jobs,
        2,
        on_end=lambda name, reason: ends.append(name),
        keep_going=True,
        engine="slurm",
        folder=slurm,
        sbatch={"partition": "gpu", "time": "60"},
    )
    assert {failure.job: failure.reason for failure in failures} == {
        "bad": "this cannot be done",
        "never": "not started, because this failed: bad",
    }
    assert sorted(ends) == sorted(job.name for job in jobs), "each job ends once"
    seen = [line.split() for line in path.read_text().splitlines()]
    assert len(seen) == 8
    assert len({process for _, process, *_ in seen}) <= 3, "workers are kept for further jobs"
    assert {tuple(rest) for *_, threads, launched in seen for rest in [(threads, launched)]} == {
        ("1", "None")
    }, "one thread; a worker is no part of a launched training"
    batch = "".join(file.read_text() for file in (tmp_path / "state").glob("*.batch"))
    for line in (
        "--partition=gpu",
        "--time=60",
        "--array=0-1%2",
        "--cpus-per-task=1",
        "--requeue",
        "--job-name=stillrobust",
    ):
        assert f"#SBATCH {line}" in batch
    time.sleep(1)
    running = [
        file
        for file in (tmp_path / "state").glob("*.pid")
        if Path(f"/proc/{file.read_text()}").exists()
    ]
    assert not [
        file for file in running if "Z" not in Path(f"/proc/{file.read_text()}/stat").read_text()
    ], "all are cancelled"
    assert not list(slurm.glob("*/jobs"))


def test_wrong_settings_are_one_sentence(slurm, monkeypatch):
    job = Refuse(name="bad")
    for options, said in (
        ({"workers": 0}, "give --workers N"),
        ({"workers": 1, "sbatch": {"time": "1:00:00"}}, "whole minutes"),
    ):
        with pytest.raises(UserError, match=said):
            run_jobs([job], engine="slurm", folder=slurm, **options)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="login node"):
        run_jobs([job], 1, engine="slurm", folder=slurm)


def test_workers_end_when_the_driver_is_gone(tmp_path, monkeypatch):
    """They finish their jobs first."""
    monkeypatch.setattr(on_slurm, "DRIVER_SECONDS", 0.5)
    monkeypatch.setattr(on_slurm, "POLL_SECONDS", 0.1)
    jobs = tmp_path / "jobs" / "3"
    jobs.mkdir(parents=True)
    (tmp_path / "driver").write_text("1\n")
    (jobs / "17").write_text(to_json(Refuse(name="bad")))
    on_slurm.SlurmWorker(tmp_path, 3)()
    end = from_json((tmp_path / "events" / "3.17").read_bytes(), JobEnd)
    assert end.reason == "this cannot be done"


def test_shared_files_hold_json(slurm, tmp_path):
    """All but the worker itself, which submitit starts from a file of its own."""
    with on_slurm.Slurm(1, 1, 0, slurm) as engine:
        engine.submit(0, Refuse(name="bad"))
        (job,) = slurm.glob("*/jobs/0/0")
        assert from_json(job.read_bytes(), Job) == Refuse(name="bad")
