"""Run callables in spawned processes of one thread each, some after others, with progress from all of them."""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from stillrobust.errors import UserError

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


def run_jobs(jobs: Sequence[Job], workers: int, listen: Listener = lambda name, done, total, text: None) -> None:
    """Run all jobs, earlier ones first where there is a choice. The first error stops what has not begun and is raised.

    ``listen(name, done, total, text)`` hears of progress in the calling thread. Ctrl-C ends the workers at once.
    """
    waiting = {job.name: job for job in jobs}
    finished: set[str] = set()
    running: dict[Future[Any], str] = {}
    context = multiprocessing.get_context("spawn")
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    reports = context.Queue()
    pool = ProcessPoolExecutor(workers, context, _start_worker, (reports, os.getpid()))
    try:
        while waiting or running:
            for job in [job for job in waiting.values() if finished.issuperset(job.after)]:
                if len(running) >= workers:
                    break
                running[pool.submit(_run, waiting.pop(job.name))] = job.name
            if not running:
                raise AssertionError(f"jobs wait for jobs that do not exist: {sorted(waiting)}")
            done, _ = wait(running, timeout=REPORT_SECONDS, return_when=FIRST_COMPLETED)
            with contextlib.suppress(queue.Empty):
                while True:
                    listen(*reports.get_nowait())
            for future in done:
                finished.add(running.pop(future))
                future.result()
    except BrokenProcessPool:
        raise UserError(
            "A worker process was ended from outside (out of memory, perhaps); what was finished is kept: "
            "run the same command again, with fewer workers if memory is short"
        ) from None
    finally:
        for process in list((pool._processes or {}).values()):  # waiting for minutes of work would not be stopping
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
