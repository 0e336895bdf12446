"""Run jobs, some after others, with progress from all of them: on this machine, on a Ray cluster,
or by Slurm.

``book.py`` keeps what waits, is ready, failed and is tried again; an engine has workers and does
one job on each. What was finished lies in files, so that a run of jobs that was stopped is a new
run of those that are missing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stillrobust.errors import UserError
from stillrobust.execution.book import LOST, Book
from stillrobust.execution.jobs import Ended, Engine, Failure, Job, Listener
from stillrobust.execution.local import Local
from stillrobust.execution.on_ray import Ray
from stillrobust.execution.on_slurm import Slurm
from stillrobust.names import lookup
from stillrobust.storage.leases import LeaseHeldError

__all__ = ["ENGINES", "Failure", "Job", "Listener", "run_jobs"]

ENGINES: Mapping[str, Callable[..., Engine]] = {"local": Local, "ray": Ray, "slurm": Slurm}
"""Name -> ``engine(workers, devices, memory, **options)``: devices and bytes that a job takes at
most.
"""

WAIT_SECONDS = 0.2  # between two looks at what happened, where nothing does


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    listen: Listener = lambda name, done, total, text: None,
    keep_going: bool = False,
    engine: str = "local",
    **options: Any,
) -> list[Failure]:
    """Run all jobs, earlier ones first where there is a choice.

    The first error stops what has not begun and is raised.

    With ``keep_going`` an error stops only what comes after its job, and all failures are returned;
    jobs whose process ended are then tried again. A job that raises ``LeaseHeldError``, since somebody else
    is at it, is tried again after the others. ``listen(name, done, total, text)`` hears of progress
    in the calling thread, and ``listen.finish(name, reason)``, where it has that, of each job's end;
    no reason, no failure. ``workers``: at most so many; 0 for as many as there is room for.
    ``options`` are the engine's. Ctrl-C ends the workers at once.
    """
    if workers < 0:
        raise UserError(
            "Expected a number of workers, or 0 for as many as there is room for, but got"
            f" {workers}; give one from 0 on"
        )
    needs = (
        max((job.devices for job in jobs), default=1),
        max((job.memory for job in jobs), default=0),
    )
    crew = lookup("engine", engine, ENGINES)(workers, *needs, **options)
    book = Book(jobs, getattr(listen, "finish", lambda name, reason: None), crew.memory, crew.alone)
    with crew:
        while book.open:
            for worker in crew.idle():
                job = book.next(worker)
                if job is None:
                    break
                crew.start(worker, job)
            for news in crew.wait(WAIT_SECONDS):
                if isinstance(news, Ended):
                    _take(book, news, keep_going)
                elif news.job in book.running:  # and not told late, of one that has ended
                    listen(news.job, news.done, news.total, news.text)
    return book.failures


def _take(book: Book, ended: Ended, keep_going: bool) -> None:
    if ended.lost:
        if not keep_going:
            raise UserError(LOST)
        book.gone(ended.job)
    elif ended.error is None:
        book.done(ended.job)
    elif isinstance(ended.error, LeaseHeldError):
        book.held(ended.job)
    elif not keep_going:
        raise ended.error
    elif isinstance(ended.error, UserError):
        book.failed(ended.job, str(ended.error))
    else:
        book.failed(ended.job, f"{type(ended.error).__name__}: {ended.error}", ended.details)
