"""The engine ray on a cluster of several nodes, all on this machine: placement, warm actors, a node
that is killed.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stillrobust.errors import UserError
from stillrobust.execution import on_ray, run_jobs
from stillrobust.storage.store import Store
from tests.execution.example_jobs import RecordProcess, Refuse
from tests.toys import SMALL_STUDY

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
    """A head that does no work, and two nodes of two workers each, which can import the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYTHONPATH",
            os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        )
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        made = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0}
        )
        nodes = [
            made.add_node(num_cpus=2, num_gpus=1, object_store_memory=80 * 2**20) for _ in range(2)
        ]
        made.wait_for_nodes()
        yield made, nodes
        ray.shutdown()
        made.shutdown()


def test_work_goes_to_every_place_and_a_killed_node_loses_none(cluster, tmp_path):
    made, nodes = cluster
    path, reports, ends = tmp_path / "seen", [], []
    jobs = [
        RecordProcess(name=f"{run}{n}", path=path, seconds=0.5, affinity=run, with_node=True)
        for run in "abcd"
        for n in range(8)
    ]
    jobs += [Refuse(name="bad"), Refuse(name="never", after=("bad",))]

    def on_end(name, reason):
        ends.append((name, reason))
        if len(ends) == 12:
            made.remove_node(nodes.pop(), allow_graceful=False)

    failures = run_jobs(
        jobs,
        0,
        lambda *report: reports.append(report),
        on_end,
        keep_going=True,
        engine="ray",
        address=made.address,
        gpu_fraction=0.5,
    )
    assert {failure.job: failure.reason for failure in failures} == {
        "bad": "this cannot be done",
        "never": "not started, because this failed: bad",
    }
    assert sorted(name for name, _ in ends) == sorted(job.name for job in jobs), (
        "each job ends once"
    )
    lines = [line.split() for line in path.read_text().splitlines()]
    assert len(lines) >= 32
    node, _, process, gpu, threads, _ = (set(column) for column in zip(*lines, strict=True))
    assert len(node) == 2
    assert 4 <= len(process) <= 6, "two actors a node, kept for further jobs"
    assert gpu == {"0"}, "each node has one GPU, which two actors share"
    assert threads == {"1"}
    assert any(report[1:] == (1, 2, "half") for report in reports)


@pytest.mark.parametrize("kind", ["closed", "silent", "talks", "unknown"])
def test_no_head_is_one_sentence(kind, monkeypatch):
    """Ray itself waits two minutes for a port that accepts and never answers."""
    monkeypatch.setattr(on_ray, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        if kind == "closed":
            listener.close()
        elif kind == "talks":
            threading.Thread(
                target=lambda: listener.accept()[0].sendall(b"SSH-2.0"), daemon=True
            ).start()
        elif kind == "unknown":
            address = "nowhere.invalid:6379"
        began = time.monotonic()
        with pytest.raises(UserError, match="ray start --head") as caught:
            run_jobs([Refuse(name="bad")], 1, engine="ray", address=address)
    assert time.monotonic() - began < 20  # of which importing ray takes the most
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_study_whose_driver_dies_goes_on_with_another(cluster, tmp_path):
    """The same numbers as on this machine alone, and no cell is measured twice."""
    file, out = tmp_path / "small.yaml", tmp_path / "ray"
    file.write_text(SMALL_STUDY)
    command = [sys.executable, "-m", "stillrobust", "study", "run", str(file), "--out"]
    on_ray = [*command, str(out), "--engine", "ray", "--address", cluster[0].address]
    driver = subprocess.Popen(on_ray, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    start = time.monotonic()
    while not list(out.glob("results/cells/*/*_1.json")) and time.monotonic() - start < 600:
        assert driver.poll() is None, "the study ended before it could be killed"
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(5)  # its actors end
    before = {path: path.stat().st_mtime_ns for path in out.glob("results/cells/*/[!.]*.json")}
    assert before
    again = subprocess.run(on_ray, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert all(path.stat().st_mtime_ns == written for path, written in before.items()), (
        "something finished was done twice"
    )
    alone = subprocess.run(
        [*command, str(tmp_path / "local"), "--workers", "1"], capture_output=True, text=True
    )
    assert alone.returncode == 0, alone.stderr
    numbers = [
        {
            (m.run, m.metric, m.corruption, m.severity): m.value
            for m in Store(tmp_path / kind / "results").measurements()
        }
        for kind in ("ray", "local")
    ]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 10
