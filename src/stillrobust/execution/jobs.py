"""What is to be done, what a worker does with it, and what it tells: plain values that any process
can send to another.
"""

import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

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

Listener = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Job:
    """``function(*arguments, progress=...)``, to be run once the jobs named in ``after`` are done."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: tuple[str, ...] = ()
    warm: str = ""
    """What the function keeps in its process for the next job with the same, such as a model; empty
    for nothing.
    """
    memory: int = 0
    """Bytes that it takes, so that as many run at once as there is room for; 0 where that does not
    matter.
    """
    devices: int = 1
    """Processes that it starts, each with a core, or a GPU where there are any."""


@dataclass(frozen=True)
class Failure:
    """A job that did not end well."""

    job: str
    reason: str
    """One sentence."""
    details: str = ""
    """The stack trace of what no user did wrong."""


@dataclass(frozen=True)
class News:
    """A job is at ``done`` of ``total``."""

    job: str
    done: int
    total: int
    text: str


@dataclass(frozen=True)
class Ended:
    """A job came to its end: well, with an error, or because its process is gone."""

    job: str
    error: Exception | None = None
    details: str = ""
    """The stack trace of the error."""
    lost: bool = False
    """The process, or its machine, ended before the job did."""


class Engine(Protocol):
    """Workers somewhere, each of which does one job after another.

    Used in a ``with``, whose end ends them all at once.
    """

    alone: bool
    """Whether a job whose process ended is tried again while no other runs: where they share a
    memory.
    """
    memory: float
    """Bytes that the jobs at work share; infinite where somebody else sees to it."""

    def __enter__(self) -> "Engine": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def idle(self) -> Sequence[int]:
        """The workers that can take a job now, those that are running already first."""
        ...

    def start(self, worker: int, job: Job) -> None:
        """Give an idle worker a job."""
        ...

    def wait(self, seconds: float) -> Sequence[News | Ended]:
        """What happened, waiting for something to happen at most so long."""
        ...


def perform(job: Job, report: Callable[[News], None], seconds: float) -> Ended:
    """In a worker: do a job, tell of its progress at most every so many seconds, and say how it
    ended.
    """
    last = 0.0

    def progress(done: int, total: int, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last > seconds:
            last = now
            report(News(job.name, done, total, text))

    try:
        job.function(*job.arguments, progress=progress)
    # whatever a job raises is its own failure; what ends a process ends this one
    except Exception as error:
        if isinstance(error, LeaseHeldError):
            report(News(job.name, 0, 1, "another process is at it"))
            # it is tried again; where nothing else is to do, not a hundred times a second
            time.sleep(WAIT_SECONDS)
        details = "" if isinstance(error, UserError) else traceback.format_exc()
        return Ended(job.name, _sendable(error), details)
    return Ended(job.name)


def _sendable(error: Exception) -> Exception:
    """The error itself, or what is left of it where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a foreign exception's own methods raise
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
