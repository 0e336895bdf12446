"""Workers on this machine: spawned processes with one thread, or one GPU, each."""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any

from stillrobust.errors import UserError
from stillrobust.execution.jobs import ONE_THREAD, Event, Job, JobEnd, run_job
from stillrobust.execution.serialization import from_json, to_json
from stillrobust.runtime import capacity
from stillrobust.runtime.stopping import interrupt_on_sigterm

REPORT_SECONDS = 0.2  # shortest interval between two progress reports of a worker
END_SECONDS = 5.0  # time to terminate, after which a process is killed


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Any
    job: str | None = None


class Local:
    """Processes of this machine, started with their first job and kept for further ones.

    Args:
        workers: The highest number of processes. 0: one for each GPU, otherwise one for each core
            as far as memory allows.
        devices: Cores or GPUs of one job.
        memory: Not used; the queue compares the memory of each job with ``self.memory``.
        gpus: GPUs as CUDA_VISIBLE_DEVICES names them. Each worker sees only its own.

    Raises:
        UserError: If a job needs more GPUs than there are.
    """

    retries_alone = True

    def __init__(self, workers: int, devices: int, memory: int, gpus: Sequence[str] = ()) -> None:
        self.gpus = capacity.groups(gpus, devices)
        if gpus and not self.gpus:
            raise UserError(
                f"Expected {devices} GPUs for one job, but this machine has {len(gpus)}; lower"
                " devices in the recipe"
            )
        slots = len(self.gpus) or max(1, capacity.cores() // devices)
        self.count = min(workers or slots, len(self.gpus) or workers or slots)
        # A given number of workers overrides the estimate.
        self.memory = capacity.memory_left() or math.inf if not workers else math.inf
        self.workers: dict[int, _Worker] = {}

    def __enter__(self) -> "Local":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self.workers.values():  # a job may take minutes more: do not wait for it
            worker.process.terminate()
        for worker in self.workers.values():
            worker.process.join(END_SECONDS)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self.workers.clear()

    def idle_workers(self) -> list[int]:
        """Return the workers that can take a job now, started ones first."""
        idle = [number for number, worker in self.workers.items() if worker.job is None]
        return idle + [number for number in range(self.count) if number not in self.workers]

    def submit(self, worker: int, job: Job) -> None:
        """Start a job on an idle worker."""
        if worker not in self.workers:
            self.workers[worker] = self._start_process(worker)
        self.workers[worker].job = job.name
        # If the process died while idle, ``poll`` reports the job as lost.
        with contextlib.suppress(OSError):
            self.workers[worker].pipe.send_bytes(to_json(job).encode())

    def _start_process(self, number: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        own_end, worker_end = context.Pipe()
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus[number])} if self.gpus else {}
        with _environment(ONE_THREAD | visible):
            process = context.Process(target=_run_worker, args=(worker_end, os.getpid()))
            process.start()
        worker_end.close()
        return _Worker(process, own_end)

    def poll(self, seconds: float) -> list[Event]:
        """Return new events; wait at most ``seconds`` for the first one."""
        pipes = {worker.pipe: number for number, worker in self.workers.items()}
        events: list[Event] = []
        for pipe in connection.wait(list(pipes), seconds):
            events += self._received(pipes[pipe])
        for number, worker in list(self.workers.items()):
            # a process that the worker started may still hold the pipe open
            if not worker.process.is_alive():
                events += self._received(number)
                worker.pipe.close()
                del self.workers[number]
                if worker.job is not None:
                    events.append(JobEnd(worker.job, "lost"))
        return events

    def _received(self, number: int) -> list[Event]:
        """All events in the pipe of a worker."""
        worker, events = self.workers[number], list[Event]()
        with contextlib.suppress(EOFError, OSError):
            while worker.pipe.poll():
                event = from_json(worker.pipe.recv_bytes(), Event)
                events.append(event)
                if isinstance(event, JobEnd):
                    worker.job = None
        return events


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _run_worker(pipe: Any, parent: int) -> None:
    """Run jobs in this process until the parent ends, or ends it.

    The parent handles Ctrl-C, and sends SIGTERM. A job then leaves its blocks, so that its lease
    and its own child processes end with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt_on_sigterm()
    with contextlib.suppress(KeyboardInterrupt):
        _run_jobs(pipe, parent)


def _run_jobs(pipe: Any, parent: int) -> None:
    """Run the jobs that arrive in a pipe."""

    def watch_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)  # the parent was killed

    threading.Thread(target=watch_parent, daemon=True).start()
    content = pipe.recv_bytes()
    import cv2  # does not read ONE_THREAD

    cv2.setNumThreads(1)

    def report(event: Event) -> None:
        try:
            pipe.send_bytes(to_json(event).encode())
        except OSError:
            os._exit(1)  # the parent was killed; exit before the job's log notes a failure

    while True:
        report(run_job(from_json(content, Job), report, REPORT_SECONDS))
        try:
            content = pipe.recv_bytes()
        except (EOFError, OSError):
            return
