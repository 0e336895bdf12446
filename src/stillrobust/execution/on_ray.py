"""Workers on a Ray cluster: actors that are kept for further jobs and replaced when a node fails.

All nodes have stillrobust installed and see the folders of data and results under the same paths.
Actors end with the driver. A driver that is started again skips finished cells.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from types import TracebackType
from typing import Any

from stillrobust.errors import UserError
from stillrobust.execution.jobs import ONE_THREAD, Event, Job, JobEnd, JobProgress, run_job
from stillrobust.execution.serialization import from_json, to_json

REPORT_SECONDS = 2.0  # between two progress reports of a worker: hundreds send 100 in a second
NODE_SECONDS = 5.0  # between two looks at the list of nodes
CONNECT_SECONDS = 10.0
# what a client of gRPC sends first, with empty settings (RFC 9113, section 3.4)
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
FAILED_STARTS = 3  # in a row, after which the driver gives up


@dataclass
class _Worker:
    actor: Any
    node: Any
    """The id of its node; until the actor has started, the future of it."""
    job: str | None = None
    result: Any = None

    @property
    def future(self) -> Any:
        """What the driver waits for; ``None`` for an idle worker."""
        return self.result or (None if isinstance(self.node, str) else self.node)


class Ray:
    """Actors of one core each or, if the cluster has GPUs, of one GPU each.

    Args:
        workers: The highest number of actors; 0 for as many as the cluster has room for.
        devices: Cores or whole GPUs of one job.
        memory: Bytes of one job.
        address: HOST:PORT of the cluster; empty for this machine's.
        gpu_fraction: Part of a GPU for each worker, if jobs take one device.

    Raises:
        UserError: If ray is not installed, or ``gpu_fraction`` is not above 0 and at most 1.
    """

    retries_alone = False
    memory = float("inf")  # Ray itself limits memory

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
        self.limit, self.devices, self.job_memory = workers, devices, memory
        self.address, self.gpu_fraction = address, gpu_fraction
        self.workers: dict[int, _Worker] = {}
        self.next_worker = self.failed_starts = 0
        self.nodes_checked = self.progress_checked = -NODE_SECONDS

    def __enter__(self) -> "Ray":
        import ray

        try:
            _require_reachable(self.address or os.environ.get("RAY_ADDRESS", ""))
            with _own_sigterm_handler():
                ray.init(
                    self.address or "auto",
                    runtime_env={"env_vars": ONE_THREAD},
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"Expected a Ray cluster at {self.address or 'this machine'}, but: {reason}; start"
                " one with `ray start --head`, or give --address HOST:PORT"
            ) from None
        self.ray = ray
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self.inbox = ray.remote(_Inbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self.inbox_content: Any = None
        self.has_gpus = any(node["Resources"].get("GPU") for node in self._nodes())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ray.shutdown()  # ends the actors too

    def idle_workers(self) -> Sequence[int]:
        """Return the workers that can take a job now, started ones first."""
        if time.monotonic() - self.nodes_checked > NODE_SECONDS:
            self.nodes_checked = time.monotonic()
            self._adapt_to_nodes()
        return [
            number
            for number, worker in self.workers.items()
            if isinstance(worker.node, str) and worker.job is None
        ]

    def submit(self, worker: int, job: Job) -> None:
        """Start a job on an idle worker."""
        self.workers[worker].job = job.name
        self.workers[worker].result = self.workers[worker].actor.run.remote(to_json(job))

    def poll(self, seconds: float) -> Sequence[Event]:
        """Return new events; wait at most ``seconds`` for the first one."""
        pending = {
            worker.future: number for number, worker in self.workers.items() if worker.future
        }
        events = self._progress()
        if not pending:
            time.sleep(seconds)
            return events
        self.ray.wait(list(pending), timeout=seconds)
        arrived, _ = self.ray.wait(list(pending), num_returns=len(pending), timeout=0)
        for future in arrived:
            events += self._result(pending[future], future)
        return events

    def _progress(self) -> list[Event]:
        """New events in the inbox, which is read at most as often as workers write."""
        events: list[Event] = []
        if self.inbox_content is not None and self.ray.wait([self.inbox_content], timeout=0)[0]:
            events = [from_json(text, Event) for text in self.ray.get(self.inbox_content)]
            self.inbox_content = None
        if self.inbox_content is None and time.monotonic() - self.progress_checked > REPORT_SECONDS:
            self.inbox_content = self.inbox.take.remote()
            self.progress_checked = time.monotonic()
        return events

    def _result(self, number: int, future: Any) -> list[Event]:
        """The event of a future that has arrived: an actor has started, or its job has ended."""
        worker = self.workers[number]
        try:
            content = self.ray.get(future)
        except self.ray.exceptions.RayError as error:
            del self.workers[number]
            self.nodes_checked = -NODE_SECONDS  # look for another node at once
            if worker.job is not None:
                return [JobEnd(worker.job, "lost")]
            self.failed_starts += 1
            if self.failed_starts == FAILED_STARTS:
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
        return [from_json(content, Event)]

    def _adapt_to_nodes(self) -> None:
        """Start actors on new nodes, and forget idle actors of nodes that have failed."""
        nodes = self._nodes()
        alive = {node["NodeID"] for node in nodes}
        for number, worker in list(self.workers.items()):
            if worker.job is None and isinstance(worker.node, str) and worker.node not in alive:
                del self.workers[number]
        slots = sum(_slots(node["Resources"], self._resources()) for node in nodes)
        while len(self.workers) < min(slots, self.limit or slots):
            actor = self.ray.remote(_Actor).options(**self._resources()).remote(self.inbox)
            self.workers[self.next_worker] = _Worker(actor, actor.node.remote())
            self.next_worker += 1

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _resources(self) -> dict[str, Any]:
        """Ray's options of an actor: a core for each process, and GPUs or otherwise memory."""
        resources: dict[str, Any] = {"num_cpus": self.devices}
        if self.has_gpus:
            gpus = self.devices if self.devices > 1 else self.gpu_fraction
            return resources | {"num_gpus": gpus}
        return resources | ({"memory": self.job_memory} if self.job_memory else {})


def _slots(available: Mapping[str, float], needed: Mapping[str, float]) -> int:
    """The number of actors that fit on a node."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    return int(
        min(available.get(names[name], 0) / amount + 1e-9 for name, amount in needed.items())
    )


def _require_reachable(address: str) -> None:
    """Raise ``OSError`` if no server of gRPC answers at HOST:PORT: Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        return
    with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return
        connection.sendall(HTTP2_PREFACE)
        start = connection.recv(4)
        if start[3:] != b"\x04":  # a server begins with its settings, frames of type 4
            raise OSError("something else than a Ray head answers there")


@contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Keep this process's handler of SIGTERM; Ray installs one that exits at once."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


class _Inbox:
    """Collects progress of the workers for the driver, on the driver's node."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def put(self, event: str) -> None:
        self.events.append(event)

    def take(self) -> list[str]:
        events, self.events = self.events, []
        return events


class _Actor:
    def __init__(self, inbox: Any) -> None:
        import cv2  # does not read ONE_THREAD

        cv2.setNumThreads(1)
        self.inbox = inbox

    def node(self) -> str:
        """Return the id of its node, once the actor has started."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, job: str) -> str:
        """Run a job given as JSON; return its end as JSON."""

        def report(event: JobProgress) -> None:
            self.inbox.put.remote(to_json(event))

        return to_json(run_job(from_json(job, Job), report, REPORT_SECONDS))
