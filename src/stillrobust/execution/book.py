"""The books of a run of jobs: what waits, what is ready, at work, done, failed and tried again.

Nothing here runs anything.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from stillrobust.execution.jobs import Failure, Job
from stillrobust.runtime.forecast import NOT_STARTED

# of a job whose process ended; two such ends in a row are rarely chance, a job on which three end
# is the reason
TRIES = 3

LOST = (
    "Its process was ended from outside (out of memory, or its machine failed); what was finished"
    " is kept: run the same command again, with fewer workers if memory is short"
)


class Book:
    """Jobs in the order in which they are wanted.

    ``ended(name, reason)`` hears of each once, at its real end.

    ``memory``: bytes that the jobs at work may take together. ``alone``: whether a job whose
    process ended is tried again only while nothing else runs, so that one of too much memory cannot
    take others with it.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        ended: Callable[[str, str], None] = lambda name, reason: None,
        memory: float = math.inf,
        alone: bool = False,
    ) -> None:
        self.place = {job.name: place for place, job in enumerate(jobs)}
        unknown = {name for job in jobs for name in job.after} - self.place.keys()
        if unknown or len(self.place) < len(jobs):
            raise AssertionError(
                f"jobs wait for jobs that do not exist, or have one name: {sorted(unknown)}"
            )
        self.ended, self.memory, self.alone = ended, memory, alone
        self.waiting = {job.name: job for job in jobs if job.after}
        self.missing = {job.name: set(job.after) for job in jobs if job.after}
        self.followers: dict[str, list[str]] = {}
        for job in jobs:
            for name in job.after:
                self.followers.setdefault(name, []).append(job.name)
        self.ready = {job.name: job for job in jobs if not job.after}
        self.again: dict[str, Job] = {}
        """Jobs whose process ended, to be tried alone."""
        self.elsewhere: dict[str, Job] = {}
        """Jobs that somebody else is at, to be looked at again when no other is ready."""
        self.running: dict[str, tuple[int, Job]] = {}
        """Job -> the worker that is at it, and the job."""
        self.lost: Counter[str] = Counter()
        self.warm: dict[int, str] = {}
        """Worker -> what it keeps from its last job."""
        self.failures: list[Failure] = []

    @property
    def open(self) -> bool:
        """Whether there is anything left to do or to wait for."""
        return bool(self.ready or self.running or self.again or self.elsewhere or self.waiting)

    def next(self, worker: int) -> Job | None:
        """The job that ``worker`` is to do now, taken down as at work; ``None`` where there is none
        for it.
        """
        job = self._chosen(worker)
        if job is not None:
            self.ready.pop(job.name, None)
            self.again.pop(job.name, None)
            self.elsewhere.pop(job.name, None)
            self.running[job.name] = worker, job
            self.warm[worker] = job.warm
        return job

    def _chosen(self, worker: int) -> Job | None:
        """The first that is ready and has room; of jobs that keep something, one for which this
        worker has it already.

        Else one whose model fewest others hold, so that they spread over the runs and each model is
        loaded few times.
        """
        if not self.ready and not self.elsewhere:
            return next(iter(self.again.values()), None) if not self.running else None
        room = self.memory - sum(job.memory for _, job in self.running.values())
        fitting = [
            job
            for job in (self.ready or self.elsewhere).values()
            if job.memory <= room or not self.running
        ]
        if not fitting or not self.ready:
            return next(iter(fitting), None)
        first = min(fitting, key=lambda job: self.place[job.name])
        if not first.warm:
            return first
        own = self.warm.get(worker, "")
        held = Counter(warm for other, warm in self.warm.items() if other != worker)
        alike = (job for job in fitting if job.warm)
        return min(alike, key=lambda job: (job.warm != own, held[job.warm], self.place[job.name]))

    def done(self, name: str) -> None:
        """A job ended well."""
        del self.running[name]
        for other in self.followers.get(name, ()):
            if other in self.waiting:  # and was not given up
                self.missing[other].discard(name)
                if not self.missing[other]:
                    self.ready[other] = self.waiting.pop(other)
        self.ended(name, "")

    def failed(self, name: str, reason: str, details: str = "") -> None:
        """A job ended with an error; what comes after it can no longer be done."""
        self.running.pop(name, None)
        self._give_up(name, reason, details)

    def _give_up(self, name: str, reason: str, details: str) -> None:
        self.failures.append(Failure(name, reason, details))
        self.ended(name, reason)
        for other in self.followers.get(name, ()):
            if self.waiting.pop(other, None):
                self._give_up(other, f"{NOT_STARTED}{name}", "")

    def held(self, name: str) -> None:
        """Somebody else is at a job: it is neither done nor failed."""
        _, self.elsewhere[name] = self.running.pop(name)

    def gone(self, name: str) -> None:
        """The process that was at a job ended before it: another one tries again, :data:`TRIES`
        times in all.
        """
        worker, job = self.running.pop(name)
        self.warm.pop(worker, None)
        self.lost[name] += 1
        if self.lost[name] == TRIES:
            self._give_up(name, LOST, "")
        elif self.alone:
            self.again[name] = job
        else:
            self.ready[name] = job
