"""How far work is, how fast it goes and how long the rest will take: counted from what jobs tell,
without any output.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

NOT_BEGUN = "not begun, because this failed: "
"""How the reason of a job begins that failed only because one before it did."""


@dataclass(frozen=True)
class Awaited:
    """A job that is to be done."""

    name: str
    kind: str
    """Jobs of one kind go about as fast as each other."""
    run: str = ""
    """The run that is finished once all its jobs are; empty for a job that finishes none."""
    cells: int = 0
    """That it measures."""
    size: float = 1.0
    """How much work it is, in a unit that is the same for all jobs: passes of an image through a
    model.
    """


@dataclass
class Heard:
    """What a job told of itself."""

    kind: str
    begun: float
    """When it was heard of first, in seconds of the clock, and how far it was then: it may go on
    from an earlier start.
    """
    first: float
    size: float | None = None
    """As of the job that was awaited; of one that nobody awaited (drawing data) it is not known,
    and says nothing of others.
    """
    done: int = 0
    total: int = 0
    text: str = ""
    ended: float | None = None

    @property
    def share(self) -> float:
        """Of its work, 0..1."""
        return (
            1.0
            if self.ended is not None
            else min(1.0, self.done / self.total)
            if self.total
            else 0.0
        )

    def seconds(self, now: float) -> float | None:
        """That the whole job takes at its pace so far; ``None`` where nothing was done under our
        eyes.
        """
        own = self.share - self.first
        return ((self.ended or now) - self.begun) / own if own > 0 else None


class Work:
    """Jobs that are waited for, at work and ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.waiting: dict[str, Awaited] = {}
        self.heard: dict[str, Heard] = {}
        self.failed: dict[str, str] = {}
        """Job -> reason."""
        self.open: dict[str, set[str]] = {}
        """Run -> its jobs that have not ended."""
        self.runs = self.runs_done = self.cells = self.cells_done = self.cells_before = 0
        self.begun = clock()

    def expect(
        self, jobs: Iterable[Awaited], runs: int, runs_done: int, cells: int, cells_done: int
    ) -> None:
        """All that there is to do, and how many runs and cells of all are done before."""
        self.waiting = {job.name: job for job in jobs}
        self.runs, self.runs_done, self.cells, self.cells_done = runs, runs_done, cells, cells_done
        self.cells_before, self.begun = cells_done, self.clock()
        for job in self.waiting.values():
            if job.run:
                self.open.setdefault(job.run, set()).add(job.name)

    def hear(self, name: str, done: int, total: int, text: str) -> None:
        """A job is at ``done`` of ``total``."""
        if name not in self.heard or done < self.heard[name].done:  # or it begins again
            known = self.waiting.get(name)
            kind, size = (known.kind, known.size) if known else (name.split()[0], None)
            self.heard[name] = Heard(kind, self.clock(), done / total if total else 0.0, size)
        job = self.heard[name]
        job.done, job.total, job.text = done, total, text
        if name not in self.waiting and done >= total:
            job.ended = self.clock()  # nobody else will say so

    def end(self, name: str, reason: str = "") -> None:
        """A job is done, or failed for a reason."""
        if name in self.heard:
            self.heard[name].ended = self.clock()
        job = self.waiting.pop(name, None)
        if reason:
            self.failed[name] = reason
        elif job:
            self.cells_done += job.cells
            jobs = self.open.get(job.run, set())
            jobs.discard(name)
            self.runs_done += bool(job.run) and not jobs

    @property
    def at_work(self) -> dict[str, Heard]:
        """Jobs that have begun and not ended, in the order in which they began."""
        return {name: job for name, job in self.heard.items() if job.ended is None}

    def left(self) -> float | None:
        """Seconds until all is done, as far as jobs so far let one say; ``None`` before the first
        has done anything.

        A job goes as fast for its size as those of its kind did in the mean; of a kind that was not
        seen yet, as the mean of those that do the same on other tasks, or of all. As many are at
        work together as now.
        """
        now = self.clock()
        paces = [
            (job.kind, seconds / job.size)
            for job in self.heard.values()
            if job.size and (seconds := job.seconds(now)) is not None
        ]
        at_work = self.at_work
        if self.waiting and not paces:
            return None

        def whole(job: Awaited | Heard) -> float:
            if not (job.size and paces):
                return 0.0
            same = [pace for kind, pace in paces if kind == job.kind]
            alike = [pace for kind, pace in paces if kind.split()[0] == job.kind.split()[0]]
            chosen = same or alike or [pace for _, pace in paces]
            return job.size * sum(chosen) / len(chosen)

        own = [(1 - job.share) * (job.seconds(now) or whole(job)) for job in at_work.values()]
        rest = sum(whole(job) for name, job in self.waiting.items() if name not in at_work)
        together = max(1, len(at_work))
        return max([*own, (sum(own) + rest) / together])

    def rate(self) -> float:
        """Cells a second since the work began."""
        return (self.cells_done - self.cells_before) / max(self.clock() - self.begun, 1e-9)

    def summary(self) -> str:
        """Runs, cells, rate, time left and failures in one line; empty where no runs are waited
        for.
        """
        if not self.runs:
            return ""
        parts = [f"runs {self.runs_done}/{self.runs}", f"cells {self.cells_done:,}/{self.cells:,}"]
        if rate := self.rate():
            parts.append(f"{rate:.1f} cells/s" if rate >= 1 else f"{60 * rate:.1f} cells/min")
        left = self.left()
        parts.append(f"{hours(left)} left" if left is not None else "time left not known yet")
        return ", ".join([*parts, *([f"{len(self.failed)} failed"] if self.failed else [])])

    def as_plain(self) -> dict[str, Any]:
        """What another terminal is shown."""
        at_work = {
            name: f"{job.done}/{job.total} {job.text}".strip() for name, job in self.at_work.items()
        }
        return {"summary": self.summary(), "at_work": at_work, "failed": self.failed}


def hours(seconds: float) -> str:
    """``3 d 4 h``, ``3:04:05`` or ``4:05``."""
    whole = round(seconds)
    if whole >= 2 * 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    minutes = f"{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes.removeprefix("0")
