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
from stillrobust.training.launch import launched_processes

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
    monkeypatch.setattr(on_slurm, "LOOK_SECONDS", 2.0)
    return tmp_path / "slurm"


def see(path, seconds, progress):
    progress(1, 2, "half")
    time.sleep(seconds)
    with path.open("a") as file:
        file.write(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']} {launched_processes()}\n")


def die_once(path, progress):
    if not path.exists():
        path.write_text("")
        os._exit(1)


def refuse(progress):
    raise UserError("this cannot be done")


def test_an_array_of_workers_does_all_and_one_that_dies_loses_nothing(slurm, tmp_path):
    path, heard, ends = tmp_path / "seen", [], []

    def listen(*news):
        heard.append(news)

    listen.ended = lambda name, reason: ends.append(name)
    jobs = [Job(f"{run}{n}", see, (path, 0.2), warm=run) for run in "ab" for n in range(4)]
    jobs += [
        Job("dies", die_once, (tmp_path / "died",)),
        Job("bad", refuse, ()),
        Job("never", refuse, (), after=("bad",)),
    ]
    failures = run_jobs(
        jobs,
        2,
        listen,
        keep_going=True,
        engine="slurm",
        folder=slurm,
        sbatch={"partition": "gpu", "time": "60"},
    )
    assert {failure.job: failure.reason for failure in failures} == {
        "bad": "this cannot be done",
        "never": "not begun, because this failed: bad",
    }
    assert sorted(ends) == sorted(job.name for job in jobs), "each job ends once"
    seen = [line.split(maxsplit=2) for line in path.read_text().splitlines()]
    assert len(seen) == 8
    assert len({process for process, *_ in seen}) <= 3, "workers are kept for job after job"
    assert {tuple(rest) for _, *rest in seen} == {("1", "None")}, (
        "one thread; a worker is no part of a launched training"
    )
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
    assert not list((slurm).glob("*/orders"))


def test_wrong_settings_are_one_sentence(slurm, monkeypatch):
    job = Job("bad", refuse, ())
    for options, said in (
        ({"workers": 0}, "say --workers N"),
        ({"workers": 1, "sbatch": {"time": "1:00:00"}}, "whole minutes"),
    ):
        with pytest.raises(UserError, match=said):
            run_jobs([job], engine="slurm", folder=slurm, **options)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="login node"):
        run_jobs([job], 1, engine="slurm", folder=slurm)


def test_workers_end_when_the_driver_is_gone(tmp_path, monkeypatch):
    """And do first what they were told."""
    import pickle

    monkeypatch.setattr(on_slurm, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(on_slurm, "POLL_SECONDS", 0.1)
    orders = tmp_path / "orders" / "3"
    orders.mkdir(parents=True)
    (tmp_path / "driver").write_text("1\n")
    (orders / "17").write_bytes(pickle.dumps(Job("bad", refuse, ())))
    on_slurm.Worker(tmp_path, 3)()
    assert (
        str(pickle.loads((tmp_path / "replies" / "3.17").read_bytes()).error)
        == "this cannot be done"
    )
