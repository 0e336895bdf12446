"""Which job runs next: dependencies, memory, affinity, retries. Nothing here runs a job."""

import math
from collections import Counter
from collections.abc import Sequence

from stillrobust.execution.jobs import Failure, Job, JobEndCallback
from stillrobust.runtime.forecast import NOT_STARTED

# Attempts at a job whose process ends. Two lost workers in a row are rarely chance; after three the
# job is the cause.
ATTEMPTS = 3

LOST = (
    "Its process was ended from outside (out of memory, or its machine failed); what was finished"
    " is kept: run the same command again, with fewer workers if memory is short"
)


class JobQueue:
    """Jobs in order of priority.

    Args:
        jobs: The jobs; earlier ones have priority. Names are unique, and dependencies exist.
        on_end: Called once for each job, when it has finished or finally failed.
        memory: Bytes that running jobs may use together.
        retries_alone: Whether a lost job is retried only while no other job runs, so that a job
            that needs too much memory cannot end others.

    Raises:
        ValueError: If two jobs have the same name, or a job depends on one that does not exist.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        on_end: JobEndCallback = lambda name, reason: None,
        memory: float = math.inf,
        retries_alone: bool = False,
    ) -> None:
        self.priority = {job.name: number for number, job in enumerate(jobs)}
        unknown = {name for job in jobs for name in job.after} - self.priority.keys()
        if unknown or len(self.priority) < len(jobs):
            raise ValueError(
                "Expected jobs of different names that depend on each other, but two names are"
                f" equal or these do not exist: {sorted(unknown)}"
            )
        self.on_end, self.memory, self.retries_alone = on_end, memory, retries_alone
        self.waiting = {job.name: job for job in jobs if job.after}
        self.unfinished_dependencies = {job.name: set(job.after) for job in jobs if job.after}
        self.dependents: dict[str, list[str]] = {}
        for job in jobs:
            for name in job.after:
                self.dependents.setdefault(name, []).append(job.name)
        self.ready = {job.name: job for job in jobs if not job.after}
        self.lost: dict[str, Job] = {}
        """Lost jobs that wait to be retried alone."""
        self.held: dict[str, Job] = {}
        """Jobs that another process is doing; retried when no other job is ready."""
        self.running: dict[str, tuple[int, Job]] = {}
        """Name -> its worker and the job."""
        self.losses: Counter[str] = Counter()
        self.affinity: dict[int, str] = {}
        """Worker -> the affinity of its last job."""
        self.failures: list[Failure] = []

    @property
    def unfinished(self) -> bool:
        """Whether any job is running or can still run."""
        return bool(self.ready or self.running or self.lost or self.held or self.waiting)

    def take(self, worker: int) -> Job | None:
        """Choose the next job of a worker and mark it as running.

        Args:
            worker: The number of an idle worker.

        Returns:
            The job, or ``None`` if no job can start on this worker now.
        """
        job = self._next_job(worker)
        if job is not None:
            for jobs in (self.ready, self.lost, self.held):
                jobs.pop(job.name, None)
            self.running[job.name] = worker, job
            self.affinity[worker] = job.affinity
        return job

    def _next_job(self, worker: int) -> Job | None:
        """The first ready job that fits into memory.

        Of jobs with an affinity, prefer one with the worker's own. Otherwise prefer the affinity
        that the fewest other workers have, so that each model is loaded few times.
        """
        if not self.ready and not self.held:
            return next(iter(self.lost.values()), None) if not self.running else None
        free = self.memory - sum(job.memory for _, job in self.running.values())
        fitting = [
            job
            for job in (self.ready or self.held).values()
            if job.memory <= free or not self.running
        ]
        if not fitting or not self.ready:
            return next(iter(fitting), None)
        first = min(fitting, key=lambda job: self.priority[job.name])
        if not first.affinity:
            return first
        own = self.affinity.get(worker, "")
        others = Counter(value for other, value in self.affinity.items() if other != worker)
        return min(
            (job for job in fitting if job.affinity),
            key=lambda job: (job.affinity != own, others[job.affinity], self.priority[job.name]),
        )

    def mark_finished(self, name: str) -> None:
        """A running job has finished; jobs that waited only for it become ready."""
        del self.running[name]
        for other in self.dependents.get(name, ()):
            if other in self.waiting:  # it has not failed through another dependency
                self.unfinished_dependencies[other].discard(name)
                if not self.unfinished_dependencies[other]:
                    self.ready[other] = self.waiting.pop(other)
        self.on_end(name, "")

    def mark_failed(self, name: str, reason: str, details: str = "") -> None:
        """A running job has failed, and with it every job that depends on it.

        Args:
            name: The job.
            reason: One sentence.
            details: The stack trace of an unexpected error.
        """
        self.running.pop(name, None)
        self.failures.append(Failure(name, reason, details))
        self.on_end(name, reason)
        for other in self.dependents.get(name, ()):
            if self.waiting.pop(other, None):
                self.mark_failed(other, f"{NOT_STARTED}{name}")

    def mark_held(self, name: str) -> None:
        """Another process is doing a running job: it is retried after the others."""
        _, self.held[name] = self.running.pop(name)

    def mark_lost(self, name: str) -> None:
        """The worker of a running job has ended: retry, up to :data:`ATTEMPTS` times in all."""
        worker, job = self.running[name]
        self.affinity.pop(worker, None)
        self.losses[name] += 1
        if self.losses[name] == ATTEMPTS:
            self.mark_failed(name, LOST)
            return
        del self.running[name]
        (self.lost if self.retries_alone else self.ready)[name] = job
