"""Jobs and events: plain values that workers and the driver exchange as JSON."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

from stillrobust.errors import UserError
from stillrobust.storage.leases import WAIT_SECONDS, LeaseHeldError

# One thread per process and N processes beat N threads on CPUs; each library reads its own name for
# it when it loads.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "RAYON_NUM_THREADS",
    ),
    "1",
)

ProgressCallback = Callable[[int, int, str], None]
"""``progress(done, total, text)``: a job is at ``done`` of ``total``."""
JobProgressCallback = Callable[[str, int, int, str], None]
"""``progress(job, done, total, text)``: the same, with the name of the job."""
JobEndCallback = Callable[[str, str], None]
"""``on_end(job, reason)``: a job has ended; ``reason`` is empty unless it failed."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work for one worker, as data.

    A subclass adds the inputs as fields and defines :meth:`run`. It is a frozen dataclass at the
    top level of a module that workers can import, with fields that
    :mod:`stillrobust.execution.serialization` can write.
    """

    name: str
    """Unique among the jobs of a call; shown to users."""
    after: tuple[str, ...] = ()
    """Names of the jobs that must have finished before."""
    affinity: str = ""
    """Jobs of the same affinity preferably run in the same worker, which keeps their model loaded;
    empty for none.
    """
    memory: int = 0
    """Estimated peak in bytes; 0 if it does not matter."""
    devices: int = 1
    """Processes that the job starts, each on a core, or on a GPU if there are any."""

    def run(self, progress: ProgressCallback) -> None:
        """Do the work in this process.

        Args:
            progress: Called with ``(done, total, text)`` as the work proceeds.

        Raises:
            UserError: If the user can correct the cause.
            Held: If another process is doing the same work.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Failure:
    """A job that failed."""

    job: str
    reason: str
    """One sentence."""
    details: str = ""
    """The stack trace of an unexpected error; empty if the user can correct the cause."""


@dataclass(frozen=True)
class Event:
    """What a worker reports about a job."""

    job: str


@dataclass(frozen=True)
class JobProgress(Event):
    """A job is at ``done`` of ``total``."""

    done: int
    total: int
    text: str


@dataclass(frozen=True)
class JobEnd(Event):
    """A job has ended."""

    outcome: Literal["finished", "failed", "held", "lost"]
    """``held``: another process is doing the same work; ``lost``: the worker's process or machine
    ended before the job did.
    """
    reason: str = ""
    """Of a failure: one sentence."""
    details: str = ""
    """Of an unexpected failure: the stack trace."""


class Engine(Protocol):
    """Workers, each of which runs one job at a time.

    An engine is a context manager. Leaving it ends all workers at once.
    """

    retries_alone: bool
    """Whether a lost job is retried only while no other job runs, because workers share memory."""
    memory: float
    """Bytes that running jobs share; infinite if the engine's scheduler limits memory itself."""

    def __enter__(self) -> "Engine": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def idle_workers(self) -> Sequence[int]:
        """Return the workers that can take a job now, started ones first."""
        ...

    def submit(self, worker: int, job: Job) -> None:
        """Start a job on an idle worker."""
        ...

    def poll(self, seconds: float) -> Sequence[Event]:
        """Return new events; wait at most ``seconds`` for the first one."""
        ...


def run_job(job: Job, report: Callable[[JobProgress], None], interval: float) -> JobEnd:
    """Run a job in this process, which is a worker's.

    Args:
        job: The job.
        report: Called with the job's progress.
        interval: Seconds between two reports, at least.

    Returns:
        How the job ended.
    """
    last = 0.0

    def progress(done: int, total: int, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last > interval:
            last = now
            report(JobProgress(job.name, done, total, text))

    try:
        job.run(progress)
    except LeaseHeldError:
        report(JobProgress(job.name, 0, 1, "another process is at it"))
        # The job is retried. If no other job is ready, this limits how often.
        time.sleep(WAIT_SECONDS)
        return JobEnd(job.name, "held")
    except UserError as error:
        return JobEnd(job.name, "failed", str(error))
    except OSError as error:
        return JobEnd(job.name, "failed", f"{error.strerror or error} ({error.filename})")
    except Exception as error:  # any error fails only its own job
        reason = f"{type(error).__name__}: {error}"
        return JobEnd(job.name, "failed", reason, traceback.format_exc())
    return JobEnd(job.name, "finished")
