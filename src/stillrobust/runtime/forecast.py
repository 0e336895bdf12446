"""Progress and time estimates of many jobs, without any output."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

NOT_STARTED = "not started, because this failed: "
"""Prefix of the reason of a job that was skipped because an earlier job failed."""


@dataclass(frozen=True)
class PlannedJob:
    """A job that has to be done."""

    name: str
    kind: str
    """Jobs of one kind run at about the same speed."""
    run: str = ""
    """The run that is finished once all its jobs are; empty if the job belongs to none."""
    cells: int = 0
    """Number of cells that the job evaluates."""
    size: float = 1.0
    """Amount of work, in images passed through a model."""


@dataclass
class JobStatus:
    """Progress of a job that has started."""

    kind: str
    started: float
    """Clock time of the first update, in seconds."""
    first: float
    """Share of the work that was done at the first update: a resumed job starts above 0."""
    size: float | None = None
    """Size of the planned job; ``None`` for a job that was not planned, such as drawing data."""
    done: int = 0
    total: int = 0
    text: str = ""
    finished: float | None = None
    """Clock time of the end, in seconds."""

    @property
    def share(self) -> float:
        """Share of the work that is done, 0..1."""
        if self.finished is not None:
            return 1.0
        return min(1.0, self.done / self.total) if self.total else 0.0

    def total_seconds(self, now: float) -> float | None:
        """Estimate the duration of the whole job from its rate since the first update.

        Args:
            now: Clock time in seconds.

        Returns:
            Seconds, or ``None`` before any progress.
        """
        progress = self.share - self.first
        return ((self.finished or now) - self.started) / progress if progress > 0 else None


class Work:
    """Planned, running and finished jobs.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.planned: dict[str, PlannedJob] = {}
        self.jobs: dict[str, JobStatus] = {}
        self.failed: dict[str, str] = {}
        """Reason by job."""
        self.unfinished: dict[str, set[str]] = {}
        """Jobs that have not finished, by run."""
        self.runs = self.runs_done = self.cells = self.cells_done = self.cells_before = 0
        self.started = clock()

    def start(
        self, jobs: Iterable[PlannedJob], runs: int, runs_done: int, cells: int, cells_done: int
    ) -> None:
        """Set the jobs to do, and the counts of all and of already finished runs and cells."""
        self.planned = {job.name: job for job in jobs}
        self.runs, self.runs_done, self.cells, self.cells_done = runs, runs_done, cells, cells_done
        self.cells_before, self.started = cells_done, self.clock()
        for job in self.planned.values():
            if job.run:
                self.unfinished.setdefault(job.run, set()).add(job.name)

    def update(self, name: str, done: int, total: int, text: str) -> None:
        """Record that a job has done ``done`` of ``total``; ``text`` describes its state."""
        if name not in self.jobs or done < self.jobs[name].done:  # a new job, or a restarted one
            job = self.planned.get(name)
            kind, size = (job.kind, job.size) if job else (name.split()[0], None)
            self.jobs[name] = JobStatus(kind, self.clock(), done / total if total else 0.0, size)
        current = self.jobs[name]
        current.done, current.total, current.text = done, total, text
        if name not in self.planned and done >= total:
            current.finished = self.clock()  # nobody calls finish() for unplanned jobs

    def finish(self, name: str, reason: str = "") -> None:
        """Record that a job is done, or failed if ``reason`` is given."""
        if name in self.jobs:
            self.jobs[name].finished = self.clock()
        job = self.planned.pop(name, None)
        if reason:
            self.failed[name] = reason
        elif job:
            self.cells_done += job.cells
            jobs = self.unfinished.get(job.run, set())
            jobs.discard(name)
            self.runs_done += bool(job.run) and not jobs

    @property
    def running(self) -> dict[str, JobStatus]:
        """Jobs that have started and not finished, in the order of their start."""
        return {name: job for name, job in self.jobs.items() if job.finished is None}

    def remaining_seconds(self) -> float | None:
        """Estimate the seconds until all jobs are done.

        A job takes as long for its size as the mean of its kind. A kind without progress uses the
        mean of the same work on other tasks, or of all jobs. The number of parallel jobs is assumed
        to stay the same.

        Returns:
            Seconds, or ``None`` before any progress.
        """
        now = self.clock()
        paces = [
            (job.kind, seconds / job.size)
            for job in self.jobs.values()
            if job.size and (seconds := job.total_seconds(now)) is not None
        ]
        running = self.running
        if self.planned and not paces:
            return None

        def expected_seconds(job: PlannedJob | JobStatus) -> float:
            if not (job.size and paces):
                return 0.0
            same_kind = [pace for kind, pace in paces if kind == job.kind]
            same_work = [pace for kind, pace in paces if kind.split()[0] == job.kind.split()[0]]
            chosen = same_kind or same_work or [pace for _, pace in paces]
            return job.size * sum(chosen) / len(chosen)

        started = [
            (1 - job.share) * (job.total_seconds(now) or expected_seconds(job))
            for job in running.values()
        ]
        waiting = sum(
            expected_seconds(job) for name, job in self.planned.items() if name not in running
        )
        return max([*started, (sum(started) + waiting) / max(1, len(running))])

    def rate(self) -> float:
        """Return cells per second since the start."""
        return (self.cells_done - self.cells_before) / max(self.clock() - self.started, 1e-9)

    def summary(self) -> str:
        """Return runs, cells, rate, remaining time and failures in one line; empty without runs."""
        if not self.runs:
            return ""
        parts = [f"runs {self.runs_done}/{self.runs}", f"cells {self.cells_done:,}/{self.cells:,}"]
        if rate := self.rate():
            parts.append(f"{rate:.1f} cells/s" if rate >= 1 else f"{60 * rate:.1f} cells/min")
        left = self.remaining_seconds()
        parts.append(f"{format_duration(left)} left" if left is not None else "time left unknown")
        return ", ".join([*parts, *([f"{len(self.failed)} failed"] if self.failed else [])])

    def as_dict(self) -> dict[str, Any]:
        """Return the status for other terminals as plain data."""
        running = {
            name: f"{job.done}/{job.total} {job.text}".strip() for name, job in self.running.items()
        }
        return {"summary": self.summary(), "running": running, "failed": self.failed}


def format_duration(seconds: float) -> str:
    """Format seconds as ``3 d 4 h``, ``3:04:05`` or ``4:05``."""
    whole = round(seconds)
    if whole >= 2 * 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    minutes = f"{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes.removeprefix("0")
