"""Workers on a Ray cluster: one actor for each place that the cluster has, kept for job after job,
replaced when its node fails.

The nodes share the folders of data and results under the same paths and have stillrobust installed.
Actors end with the driver; one that is started again finds in the store what is missing.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from types import TracebackType
from typing import Any

from stillrobust.errors import UserError
from stillrobust.execution.jobs import ONE_THREAD, Ended, Job, News, perform

# a worker tells of its progress at most this often: hundreds of them send 100 messages a second
REPORT_SECONDS = 2.0
LOOK_SECONDS = 5.0  # between two looks at which nodes there are
ANSWER_SECONDS = 10.0  # that a cluster has for an answer
STARTS = 3  # workers in a row that cannot be started before the cluster is said not to be fit


@dataclass
class _Worker:
    actor: Any
    node: Any
    """The future of its node's id, and the id once it has begun."""
    job: str | None = None
    result: Any = None


class Ray:
    """At most ``workers`` actors (0: as many as the cluster has room for), each of a core or, where
    there are any, a GPU.

    ``gpu_fraction``: of one GPU, for each worker. A job of several devices takes as many whole
    ones.
    """

    alone = False
    memory = float("inf")  # Ray itself places by memory

    def __init__(
        self, workers: int, devices: int, memory: int, address: str = "", gpu_fraction: float = 1.0
    ) -> None:
        if not util.find_spec("ray"):
            raise UserError(
                "The engine ray needs the package ray; install it: pip install 'stillrobust[ray]'"
            )
        if not 0 < gpu_fraction <= 1:
            raise UserError(
                "Expected a fraction of a GPU above 0 and at most 1 for each worker, but got"
                f" {gpu_fraction:g}; give such a fraction"
            )
        self.most, self.devices, self.needed, self.address, self.fraction = (
            workers,
            devices,
            memory,
            address,
            gpu_fraction,
        )
        self.workers: dict[int, _Worker] = {}
        self.number = self.failed_starts = 0
        self.looked = self.asked = -LOOK_SECONDS

    def __enter__(self) -> "Ray":
        import ray

        # nothing here asks the network unless it is told to
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            _reach(self.address)
            environment = {"env_vars": ONE_THREAD}
            ray.init(
                self.address or "auto",
                runtime_env=environment,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"Expected a Ray cluster at {self.address or 'this machine'}, but: {said}; start"
                " one with `ray start --head`, or give --address HOST:PORT"
            ) from None
        self.ray = ray
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self.mailbox = ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self.letters: Any = None
        self.gpus = any(node["Resources"].get("GPU") for node in self._nodes())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ray.shutdown()  # ends the actors too

    def idle(self) -> Sequence[int]:
        """Actors that have begun and have nothing to do."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self.looked = time.monotonic()
            self._adapt()
        return [
            number
            for number, worker in self.workers.items()
            if isinstance(worker.node, str) and worker.job is None
        ]

    def start(self, worker: int, job: Job) -> None:
        """Give it a job."""
        self.workers[worker].job = job.name
        self.workers[worker].result = self.workers[worker].actor.do.remote(job)

    def wait(self, seconds: float) -> Sequence[News | Ended]:
        """What the actors tell, which have begun, and which are gone."""
        awaited = {
            worker.result or worker.node: number
            for number, worker in self.workers.items()
            if _open(worker)
        }
        told: list[News | Ended] = self._letters()
        if not awaited:
            time.sleep(seconds)
            return told
        self.ray.wait(list(awaited), timeout=seconds)
        arrived, _ = self.ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
        for future in arrived:
            told += self._taken(awaited[future], future)
        return told

    def _letters(self) -> list[News | Ended]:
        """What lies in the mailbox, asked for at most as often as workers write."""
        told: list[News | Ended] = []
        if self.letters is not None and self.ray.wait([self.letters], timeout=0)[0]:
            told, self.letters = self.ray.get(self.letters), None
        if self.letters is None and time.monotonic() - self.asked > REPORT_SECONDS:
            self.letters, self.asked = self.mailbox.take.remote(), time.monotonic()
        return told

    def _taken(self, number: int, future: Any) -> list[News | Ended]:
        worker = self.workers[number]
        try:
            content = self.ray.get(future)
        except self.ray.exceptions.RayError as error:
            del self.workers[number]
            self.looked = -LOOK_SECONDS  # look for another place at once
            if worker.job is not None:
                return [Ended(worker.job, lost=True)]
            self.failed_starts += 1
            if self.failed_starts == STARTS:
                raise UserError(
                    "Workers on the Ray cluster cannot be started:"
                    f" {str(error).strip().splitlines()[-1]}; install the same stillrobust on every"
                    " node"
                ) from None
            return []
        if worker.job is None:
            worker.node, self.failed_starts = content, 0
            return []
        worker.job = worker.result = None
        return [content]

    def _adapt(self) -> None:
        """As many actors as there is room for now: a node that joined brings some, one that failed
        takes its idle ones along.
        """
        nodes = self._nodes()
        alive = {node["NodeID"] for node in nodes}
        for number, worker in list(self.workers.items()):
            if worker.job is None and isinstance(worker.node, str) and worker.node not in alive:
                del self.workers[number]
        places = sum(_places(node["Resources"], self._need()) for node in nodes)
        while len(self.workers) < min(places, self.most or places):
            actor = self.ray.remote(_Actor).options(**self._need()).remote(self.mailbox)
            self.workers[self.number] = _Worker(actor, actor.node.remote())
            self.number += 1

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _need(self) -> dict[str, Any]:
        """Of an actor, as Ray's options: a core for each process, and its GPUs, or else the memory."""
        need: dict[str, Any] = {"num_cpus": self.devices}
        if self.gpus:
            return need | {"num_gpus": self.devices if self.devices > 1 else self.fraction}
        return need | ({"memory": self.needed} if self.needed else {})


def _places(resources: Mapping[str, float], need: Mapping[str, float]) -> int:
    """Actors that fit on a node."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    return int(min(resources.get(names[name], 0) / amount + 1e-9 for name, amount in need.items()))


def _reach(address: str) -> None:
    """Raise ``OSError`` where nobody answers at HOST:PORT: Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()


def _open(worker: _Worker) -> bool:
    """Whether something is waited for."""
    return worker.result is not None or not isinstance(worker.node, str)


class _Mailbox:
    """What the workers tell, until the driver takes it; it lies on the driver's node."""

    def __init__(self) -> None:
        self.letters: list[News] = []

    def put(self, news: News) -> None:
        self.letters.append(news)

    def take(self) -> list[News]:
        letters, self.letters = self.letters, []
        return letters


class _Actor:
    def __init__(self, mailbox: Any) -> None:
        import cv2  # it alone does not read ONE_THREAD

        cv2.setNumThreads(1)
        self.mailbox = mailbox

    def node(self) -> str:
        """Where it is, once it has begun."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def do(self, job: Job) -> Ended:
        return perform(job, self.mailbox.put.remote, REPORT_SECONDS)
