"""Run jobs that depend on each other: on this machine, on a Ray cluster, or by Slurm.

A job is data (:class:`Job`), which workers receive as JSON. ``job_queue`` decides which job runs
next; an engine has workers that run one job at a time. Finished work is kept in files, so a call
that was interrupted is resumed by a new call with the missing jobs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stillrobust.errors import UserError
from stillrobust.execution.job_queue import LOST, JobQueue
from stillrobust.execution.jobs import (
    Engine,
    Failure,
    Job,
    JobEnd,
    JobEndCallback,
    JobProgress,
    JobProgressCallback,
    ProgressCallback,
)
from stillrobust.execution.local import Local
from stillrobust.execution.on_ray import Ray
from stillrobust.execution.on_slurm import Slurm
from stillrobust.names import lookup

__all__ = [
    "ENGINES",
    "Failure",
    "Job",
    "JobEndCallback",
    "JobProgressCallback",
    "ProgressCallback",
    "run_jobs",
]

ENGINES: Mapping[str, Callable[..., Engine]] = {"local": Local, "ray": Ray, "slurm": Slurm}
"""Name -> ``engine(workers, devices, memory, **options)``. ``devices`` and ``memory`` (bytes) are
what the largest job needs.
"""

POLL_SECONDS = 0.2


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    progress: JobProgressCallback = lambda name, done, total, text: None,
    on_end: JobEndCallback = lambda name, reason: None,
    keep_going: bool = False,
    engine: str = "local",
    **options: Any,
) -> list[Failure]:
    """Run jobs on an engine. Earlier jobs have priority.

    A job that another process is doing (``Held``) is retried after the others. Ctrl-C ends the
    workers at once.

    Args:
        jobs: Jobs of different names.
        workers: The highest number of workers; 0 for as many as there is room for.
        progress: Called in this thread with ``(job, done, total, text)``.
        on_end: Called in this thread with ``(job, reason)`` when a job has ended. ``reason`` is
            empty unless it failed.
        keep_going: Whether a failure stops only the jobs that depend on it. Lost jobs (their
            process ended) are then retried.
        engine: A name of :data:`ENGINES`.
        **options: Options of the engine.

    Returns:
        The failures. Always empty without ``keep_going``.

    Raises:
        UserError: If ``workers`` or an option is wrong. Without ``keep_going`` also for the first
            failure that the user can correct.
        RuntimeError: Without ``keep_going``, for the first unexpected failure.
    """
    if workers < 0:
        raise UserError(
            "Expected a number of workers, or 0 for as many as there is room for, but got"
            f" {workers}; give one from 0 on"
        )
    devices = max((job.devices for job in jobs), default=1)
    memory = max((job.memory for job in jobs), default=0)
    pool = lookup("engine", engine, ENGINES)(workers, devices, memory, **options)
    queue = JobQueue(jobs, on_end, pool.memory, pool.retries_alone)
    with pool:
        while queue.unfinished:
            for worker in pool.idle_workers():
                job = queue.take(worker)
                if job is None:
                    break
                pool.submit(worker, job)
            for event in pool.poll(POLL_SECONDS):
                if isinstance(event, JobEnd):
                    _handle_end(queue, event, keep_going)
                # progress may arrive after the end of its job
                elif isinstance(event, JobProgress) and event.job in queue.running:
                    progress(event.job, event.done, event.total, event.text)
    return queue.failures


def _handle_end(queue: JobQueue, end: JobEnd, keep_going: bool) -> None:
    if end.outcome == "finished":
        queue.mark_finished(end.job)
    elif end.outcome == "held":
        queue.mark_held(end.job)
    elif not keep_going:
        if end.details:
            raise RuntimeError(f"{end.job} failed: {end.reason}\n{end.details}")
        raise UserError(LOST if end.outcome == "lost" else end.reason)
    elif end.outcome == "lost":
        queue.mark_lost(end.job)
    else:
        queue.mark_failed(end.job, end.reason, end.details)
