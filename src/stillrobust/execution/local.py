"""Spawned processes of this machine: one thread each, or one GPU each, kept for job after job."""

import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any

from stillrobust.errors import UserError
from stillrobust.execution.jobs import ONE_THREAD, Ended, Job, News, perform
from stillrobust.runtime import capacity

REPORT_SECONDS = 0.2  # a worker tells of its progress at most this often
END_SECONDS = 5.0  # that a process which is told to end has for it


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Any
    job: str | None = None


class Local:
    """At most ``workers`` processes; 0: one for each GPU, else for each core, as far as there is
    memory for their jobs.

    ``gpus``: those there are, as CUDA_VISIBLE_DEVICES names them. Each worker sees its own alone,
    as many as a job takes.
    """

    alone = True

    def __init__(self, workers: int, devices: int, memory: int, gpus: Sequence[str] = ()) -> None:
        self.gpus = capacity.groups(gpus, devices)
        if gpus and not self.gpus:
            raise UserError(
                f"Expected {devices} GPUs for one job, but this machine has {len(gpus)}; lower"
                " devices in the recipe"
            )
        places = len(self.gpus) or max(1, capacity.cores() // devices)
        self.count = min(workers or places, len(self.gpus) or workers or places)
        # Who says how many knows better than an estimate.
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
        for worker in self.workers.values():  # waiting for minutes of work would not be stopping
            worker.process.terminate()
        for worker in self.workers.values():
            worker.process.join(END_SECONDS)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self.workers.clear()

    def idle(self) -> list[int]:
        """Those that run already and have nothing to do, then those that are not begun."""
        resting = [number for number, worker in self.workers.items() if worker.job is None]
        return resting + [number for number in range(self.count) if number not in self.workers]

    def start(self, worker: int, job: Job) -> None:
        """Give it a job; its process is begun with the first one."""
        if worker not in self.workers:
            self.workers[worker] = self._begun(worker)
        self.workers[worker].job = job.name
        # it died while it had nothing to do: ``wait`` will see it, and the job is lost
        with contextlib.suppress(OSError):
            self.workers[worker].pipe.send_bytes(pickle.dumps(job))

    def _begun(self, number: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        seen = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus[number])} if self.gpus else {}
        with _environment(ONE_THREAD | seen):
            process = context.Process(target=_serve, args=(theirs, os.getpid()))
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def wait(self, seconds: float) -> list[News | Ended]:
        """What the workers tell, and which are gone."""
        pipes = {worker.pipe: number for number, worker in self.workers.items()}
        told: list[News | Ended] = []
        for pipe in connection.wait(list(pipes), seconds):
            told += self._heard(pipes[pipe])
        for number, worker in list(self.workers.items()):
            # its pipe may be held open by a process that it started
            if not worker.process.is_alive():
                told += self._heard(number)
                worker.pipe.close()
                del self.workers[number]
                if worker.job is not None:
                    told.append(Ended(worker.job, lost=True))
        return told

    def _heard(self, number: int) -> list[News | Ended]:
        """All that lies in the pipe of a worker."""
        worker, told = self.workers[number], []
        with contextlib.suppress(EOFError, OSError):
            while worker.pipe.poll():
                news = worker.pipe.recv()
                told.append(news)
                if isinstance(news, Ended):
                    worker.job = None
        return told


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Any:
    """For what is started inside: it inherits them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _serve(pipe: Any, parent: int) -> None:
    """In a worker: no reaction to Ctrl-C (the parent handles it), an end with the parent, and job
    after job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)  # the parent was killed; nobody waits for this work any more

    threading.Thread(target=follow, daemon=True).start()
    content = pipe.recv_bytes()
    import cv2  # it alone does not read ONE_THREAD

    cv2.setNumThreads(1)

    def tell(news: News | Ended) -> None:
        try:
            pipe.send(news)
        except OSError:
            os._exit(1)  # as above; what the job keeps is kept, and its log tells of no failure

    while True:
        tell(perform(pickle.loads(content), tell, REPORT_SECONDS))
        try:
            content = pipe.recv_bytes()
        except (EOFError, OSError):
            return
