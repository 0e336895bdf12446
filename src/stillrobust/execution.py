"""Run callables in spawned processes of one thread each, some after others, with progress from all of them."""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from stillrobust.errors import UserError
from stillrobust.forecast import NOT_BEGUN

# One thread per process and N processes beat N threads on CPUs; each library reads its own name for it when it loads.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
)
REPORT_SECONDS = 0.2  # a worker tells of its progress at most this often

Listener = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Job:
    """``function(*arguments, progress=...)``, to be run once the jobs named in ``after`` are done."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: tuple[str, ...] = ()


_reports: Any = None


def _start_worker(reports: Any, parent: int) -> None:
    """In a new worker: one thread, no reaction to Ctrl-C (the parent handles it), and an end with the parent."""
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)  # the parent was killed; nobody waits for this work any more

    threading.Thread(target=follow, daemon=True).start()
    import cv2  # it alone does not read ONE_THREAD

    cv2.setNumThreads(1)


def _run(job: Job) -> Any:
    last = 0.0

    def progress(done: int, total: int, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last > REPORT_SECONDS:
            last = now
            _reports.put((job.name, done, total, text))

    return job.function(*job.arguments, progress=progress)


@dataclass(frozen=True)
class Failure:
    """A job that did not end well."""

    job: str
    reason: str
    """One sentence."""
    details: str = ""
    """The stack trace of what no user did wrong."""


ENDED = (
    "A worker process was ended from outside (out of memory, perhaps); what was finished is kept: "
    "run the same command again, with fewer workers if memory is short"
)


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    listen: Listener = lambda name, done, total, text: None,
    keep_going: bool = False,
) -> list[Failure]:
    """Run all jobs, earlier ones first where there is a choice. The first error stops what has not begun and is raised.

    With ``keep_going`` an error stops only what comes after its job, and all failures are returned. Jobs whose process was
    ended from outside are then tried once more, one at a time, so that one of them cannot take others with it.
    ``listen(name, done, total, text)`` hears of progress in the calling thread. Ctrl-C ends the workers at once.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    run = _Jobs(jobs, listen, keep_going)
    try:
        run.in_pool(workers, run.waiting)
        while run.suspects:
            name = next(iter(run.suspects))
            run.in_pool(1, {name: run.suspects.pop(name)}, alone=True)
            run.in_pool(workers, run.waiting)
        if run.waiting:
            raise AssertionError(f"jobs wait for jobs that do not exist: {sorted(run.waiting)}")
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return run.failures


class _Jobs:
    """What waits, what is done and what failed, over the pools that it takes."""

    def __init__(self, jobs: Sequence[Job], listen: Listener, keep_going: bool) -> None:
        self.waiting = {job.name: job for job in jobs}
        self.suspects: dict[str, Job] = {}
        """Jobs that were at work when a process was ended from outside: one of them may be why."""
        self.finished: set[str] = set()
        self.failures: list[Failure] = []
        self.listen, self.keep_going = listen, keep_going

    def in_pool(self, workers: int, waiting: dict[str, Job], alone: bool = False) -> None:
        """Run what is waiting in a pool of its own, as far as it can be run."""
        context = multiprocessing.get_context("spawn")
        running: dict[Future[Any], Job] = {}
        if not any(self._ready(job) for job in waiting.values()):
            return
        reports = context.Queue()
        pool = ProcessPoolExecutor(workers, context, _start_worker, (reports, os.getpid()))
        try:
            while running or any(self._ready(job) for job in waiting.values()):
                for job in [job for job in waiting.values() if self._ready(job)][: workers - len(running)]:
                    running[pool.submit(_run, job)] = job
                    del waiting[job.name]  # not before: a pool that is broken takes no job, and none may be lost
                done, _ = wait(running, timeout=REPORT_SECONDS, return_when=FIRST_COMPLETED)
                with contextlib.suppress(queue.Empty):
                    while True:
                        self.listen(*reports.get_nowait())
                for future in done:
                    self._take(running[future], future)
                    del running[future]
        except BrokenProcessPool:
            if not self.keep_going:
                raise UserError(ENDED) from None
            for job in running.values():
                self._fail(job, ENDED) if alone else self.suspects.update({job.name: job})
        finally:
            for process in list((pool._processes or {}).values()):  # waiting for minutes of work would not be stopping
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)

    def _ready(self, job: Job) -> bool:
        return self.finished.issuperset(job.after)

    def _take(self, job: Job, future: Future[Any]) -> None:
        error = future.exception()
        if error is None:
            self.finished.add(job.name)
            self._ended(job)
        elif isinstance(error, BrokenProcessPool) or not self.keep_going:
            raise error
        elif isinstance(error, UserError):
            self._fail(job, str(error))
        else:
            self._fail(job, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    def _fail(self, job: Job, reason: str, details: str = "") -> None:
        """Put a failure down, and with it what can no longer be done."""
        self.failures.append(Failure(job.name, reason, details))
        self._ended(job, reason)
        for after in [other for other in self.waiting.values() if job.name in other.after]:
            self._fail(self.waiting.pop(after.name), f"{NOT_BEGUN}{job.name}")

    def _ended(self, job: Job, reason: str = "") -> None:
        """Tell a listener that has ``ended(name, reason)``, as the display of a study does; no reason, no failure."""
        getattr(self.listen, "ended", lambda name, reason: None)(job.name, reason)
