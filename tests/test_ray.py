"""The engine ray on a cluster of several nodes, all on this machine: placement, warm actors, a node that is killed."""

import os
import time
from pathlib import Path

import pytest

from stillrobust.errors import UserError
from stillrobust.execution import Job, run_jobs

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster():
    """A head that does no work and two nodes of two workers each, whose processes find this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
        nodes = [made.add_node(num_cpus=2, num_gpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
        made.wait_for_nodes()
        yield made, nodes
        ray.shutdown()
        made.shutdown()


def place(path, seconds, progress):
    """Note down who works: node, process, GPU, threads."""
    progress(1, 2, "half")
    node, gpu = ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES", "-")
    time.sleep(seconds)
    with path.open("a") as file:
        file.write(f"{node} {os.getpid()} {gpu} {os.environ['OMP_NUM_THREADS']}\n")


def refuse(progress):
    raise UserError("this cannot be done")


class Heard:
    def __init__(self):
        self.news, self.ends = [], []

    def __call__(self, *news):
        self.news.append(news)

    def ended(self, name, reason):
        self.ends.append((name, reason))


def test_work_goes_to_every_place_and_a_killed_node_loses_none(cluster, tmp_path):
    made, nodes = cluster
    path, heard = tmp_path / "seen", Heard()
    jobs = [Job(f"{run}{n}", place, (path, 0.5), warm=run) for run in "abcd" for n in range(8)]
    jobs += [Job("bad", refuse, ()), Job("never", refuse, (), after=("bad",))]

    def listen(name, done, total, text):
        heard(name, done, total, text)

    def ended(name, reason):
        heard.ended(name, reason)
        if len(heard.ends) == 12:
            made.remove_node(nodes.pop(), allow_graceful=False)

    listen.ended = ended
    failures = run_jobs(jobs, 0, listen, keep_going=True, engine="ray", address=made.address, gpu_fraction=0.5)
    assert {failure.job: failure.reason for failure in failures} == {
        "bad": "this cannot be done",
        "never": "not begun, because this failed: bad",
    }
    assert sorted(name for name, _ in heard.ends) == sorted(job.name for job in jobs), "each job ends once"
    lines = [line.split() for line in path.read_text().splitlines()]
    assert len(lines) >= 32
    assert len({node for node, *_ in lines}) == 2
    assert 4 <= len({process for _, process, *_ in lines}) <= 6, "two actors a node, kept for job after job"
    assert {gpu for *_, gpu, _ in lines} == {"0"}, "each node has one GPU, which two actors share"
    assert {threads for *_, threads in lines} == {"1"}
    assert any(news[1:] == (1, 2, "half") for news in heard.news)


def test_no_cluster_is_one_sentence(cluster):
    with pytest.raises(UserError, match="ray start --head"):
        run_jobs([Job("bad", refuse, ())], 1, engine="ray", address="127.0.0.1:1")
