"""Progress of long jobs: a live display on a terminal, lines elsewhere, and a status file."""

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillrobust.runtime.forecast import (
    NOT_STARTED,
    JobStatus,
    PlannedJob,
    Work,
    format_duration,
)
from stillrobust.storage.files import replace_file
from stillrobust.untrusted import printable

ProgressCallback = Callable[[int, int, str], None]
"""Called as ``progress(done, total, text)``; ``text`` describes the state in a few words."""

LINE_SECONDS = 10.0  # between two lines of progress without a terminal
STATUS_SECONDS = 5.0  # between two versions of the status file
ROWS = 12  # most jobs shown at once; a lower terminal shows fewer
BAR, RATE = 10, 20  # characters


def no_progress(done: int, total: int, text: str) -> None:
    """Ignore progress: the default callback."""


@contextmanager
def progress_display(status_file: Path | None = None) -> Iterator["Display"]:
    """Show the progress of long jobs while the context is active.

    Args:
        status_file: JSON file that other terminals can read. Removed at the end.

    Yields:
        The display, which is also a callback; see :class:`Display`.
    """
    from rich.console import Console

    console = Console(stderr=True)
    display = _Live(status_file, console) if console.is_terminal else Display(status_file)
    finished = threading.Event()
    writer = threading.Thread(target=_write_regularly, args=(display, finished), daemon=True)
    writer.start()
    try:
        with display.active():
            yield display
    finally:
        finished.set()
        writer.join()
        if status_file:
            status_file.unlink(missing_ok=True)


def _write_regularly(display: "Display", finished: threading.Event) -> None:
    """Renew the status file even if no job makes progress, so that its age shows a dead process."""
    while not finished.wait(STATUS_SECONDS):
        display.write_status()


class Display:
    """Progress of jobs, printed as lines: one every ten seconds, and one for every failure.

    Call ``display(name, done, total, text)`` for progress of a job and
    ``display.finish(name, reason)`` for its end.

    Args:
        status_file: JSON file that other terminals can read.
    """

    def __init__(self, status_file: Path | None = None) -> None:
        self.work, self.status_file = Work(), status_file
        self.lock = threading.RLock()  # other threads draw and write while one updates
        self.last_line = float("-inf")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw the display while the context is active."""
        yield

    def print_line(self, text: str) -> None:
        """Print a line that stays on the screen."""
        print(printable(text), file=sys.stderr, flush=True)

    def start(
        self, jobs: Sequence[PlannedJob], runs: int, runs_done: int, cells: int, cells_done: int
    ) -> None:
        """Set the jobs to do; see :meth:`Work.start`."""
        with self.lock:
            self.work.start(jobs, runs, runs_done, cells, cells_done)
        self.write_status()

    def __call__(self, name: str, done: int, total: int, text: str) -> None:
        """Record and show that a job has done ``done`` of ``total``."""
        with self.lock:
            self.work.update(name, done, total, text)
        self.show_update(name)

    def finish(self, name: str, reason: str = "") -> None:
        """Record that a job is done, or failed if ``reason`` is given.

        A failure is printed at once. Jobs that were skipped because of it are only counted.
        """
        with self.lock:
            self.work.finish(name, reason)
        if reason and not reason.startswith(NOT_STARTED):
            self.print_line(f"failed: {name}: {reason}")

    def show_update(self, name: str) -> None:
        """Print the progress of a job, at most every ten seconds."""
        now = time.monotonic()
        if now - self.last_line < LINE_SECONDS:
            return
        self.last_line = now
        job, summary = self.work.jobs[name], self.work.summary()
        parts = [f"{name}: {job.done}/{job.total} {job.text}", "" if summary else rate_text(job)]
        self.print_line(", ".join(filter(None, parts)) + (f" [{summary}]" if summary else ""))

    def write_status(self) -> None:
        """Write the status file, if there is one. A failure is ignored: the jobs matter more."""
        if self.status_file is None:
            return
        with self.lock:
            status = {
                "host": platform.node(),
                "process": os.getpid(),
                "written": time.time(),
                **self.work.as_dict(),
            }
        try:
            replace_file(self.status_file, json.dumps(status, indent=1).encode())
        except OSError:
            return


class _Live(Display):
    """A summary and one row for each running job; printed lines scroll away above."""

    def __init__(self, status_file: Path | None, console: Any) -> None:
        super().__init__(status_file)
        self.console = console

    @contextmanager
    def active(self) -> Iterator[None]:
        from rich.live import Live

        with Live(
            get_renderable=self.renderable,
            console=self.console,
            refresh_per_second=4,
            vertical_overflow="crop",
        ):
            yield

    def print_line(self, text: str) -> None:
        self.console.print(printable(text), highlight=False, markup=False, emoji=False)

    def show_update(self, name: str) -> None:
        """Do nothing: the display is redrawn four times a second."""

    def renderable(self) -> Any:
        """Return the current display for rich."""
        from rich.text import Text

        with self.lock:
            lines = render(self.work, self.console.width, self.console.height)
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


def render(work: Work, width: int, height: int) -> list[str]:
    """Return the display as lines.

    Args:
        work: The jobs.
        width: Characters of the terminal; lines are shorter.
        height: Lines of the terminal; the display has fewer.
    """
    running, summary = work.running, work.summary()
    head = [summary] if summary else []
    room = max(1, min(ROWS, height - 2 - len(head)))
    rows = [render_job(name, job, width) for name, job in list(running.items())[:room]]
    more = [f"... and {len(running) - room} more running"] if len(running) > room else []
    return [line[: width - 1] for line in [*head, *rows, *more]]


def render_job(name: str, job: JobStatus, width: int) -> str:
    """Return one job as a line: name, bar, share, text, rate and remaining time."""
    filled = round(BAR * job.share)
    middle = f" {'━' * filled}{'╺' * (BAR - filled)} {100 * job.share:3.0f}% "
    end = f" {rate_text(job):>{RATE}}"
    name, text = printable(name), printable(job.text) or f"{job.done}/{job.total}"
    room = max(20, width - 1 - len(middle) - len(end))
    left = room * 3 // 5
    right = room - left
    return f"{shorten(name, left):<{left}}{middle}{shorten(text, right):<{right}}{end}"


def rate_text(job: JobStatus) -> str:
    """Return the rate and remaining time of a job; empty before any progress."""
    seconds = job.total_seconds(time.monotonic())
    if seconds is None:
        return ""
    rate = job.total / seconds if seconds else 0.0
    return f"{rate:.3g}/s, {format_duration((1 - job.share) * seconds)} left"


def shorten(text: str, width: int) -> str:
    """Shorten text to ``width`` characters, keeping its ends: run names differ there."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
