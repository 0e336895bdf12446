"""Progress of long work: one live display on a terminal, lines elsewhere, and a file that another
terminal is told from.
"""

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillrobust.runtime.forecast import NOT_BEGUN, Awaited, Heard, Work, hours
from stillrobust.storage.files import replace_file

LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal
TOLD_SECONDS = 5.0  # between two versions of the file for other terminals
ROWS = 12  # jobs shown at once, at most; a lower terminal shows fewer
BAR, PACE = 10, 20  # characters


@contextmanager
def progress(told: Path | None = None) -> Iterator["Display"]:
    """What hears of long work: see :class:`Display`.

    ``told``: the file for other terminals, gone when the work has ended.
    """
    from rich.console import Console

    console = Console(stderr=True)
    display = _Live(told, console) if console.is_terminal else Display(told)
    ended = threading.Event()
    teller = threading.Thread(target=_keep_telling, args=(display, ended), daemon=True)
    teller.start()
    try:
        with display.shown():
            yield display
    finally:
        ended.set()
        teller.join()
        if told:
            told.unlink(missing_ok=True)


def _keep_telling(display: "Display", ended: threading.Event) -> None:
    """Jobs may be silent for long; that somebody is at work is told all the same."""
    while not ended.wait(TOLD_SECONDS):
        display.tell()


class Display:
    """``display(name, done, total, text)`` hears that a job is so far, ``display.ended(name,
    reason)`` that it ended or failed.

    Without a terminal: a line every ten seconds, and one for every failure.
    """

    def __init__(self, told: Path | None = None) -> None:
        self.work, self.told = Work(), told
        self.lock = threading.RLock()  # a thread draws or tells while another hears
        self.last_line = float("-inf")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While work goes on."""
        yield

    def say(self, text: str) -> None:
        """A line that stays."""
        print(text, file=sys.stderr, flush=True)

    def expect(
        self, jobs: Sequence[Awaited], runs: int, runs_done: int, cells: int, cells_done: int
    ) -> None:
        """All that there is to do: see :meth:`Work.expect`."""
        with self.lock:
            self.work.expect(jobs, runs, runs_done, cells, cells_done)
        self.tell()

    def __call__(self, name: str, done: int, total: int, text: str) -> None:
        """A job is at ``done`` of ``total``."""
        with self.lock:
            self.work.hear(name, done, total, text)
        self.show(name)

    def ended(self, name: str, reason: str = "") -> None:
        """A job is done; with a reason, it failed, and that is said at once (what comes after it is
        only counted).
        """
        with self.lock:
            self.work.end(name, reason)
        if reason and not reason.startswith(NOT_BEGUN):
            self.say(f"failed: {name}: {reason}")

    def show(self, name: str) -> None:
        """Something happened to a job."""
        now = time.monotonic()
        if now - self.last_line < LINE_SECONDS:
            return
        self.last_line = now
        job, summary = self.work.heard[name], self.work.summary()
        own = [f"{name}: {job.done}/{job.total} {job.text}", *([] if summary else [pace(job)])]
        self.say(", ".join(filter(None, own)) + (f" [{summary}]" if summary else ""))

    def tell(self) -> None:
        """Write the file for other terminals.

        It is worth less than the work: where it cannot be written, it is not.
        """
        if self.told is None:
            return
        with self.lock:
            plain = {
                "host": platform.node(),
                "process": os.getpid(),
                "written": time.time(),
                **self.work.as_plain(),
            }
        try:
            replace_file(self.told, json.dumps(plain, indent=1).encode())
        except OSError:
            return


class _Live(Display):
    """A summary and one row for each job at work, never more than fit; what is said scrolls away
    above.
    """

    def __init__(self, told: Path | None, console: Any) -> None:
        super().__init__(told)
        self.console = console

    @contextmanager
    def shown(self) -> Iterator[None]:
        from rich.live import Live

        with Live(
            get_renderable=self.picture,
            console=self.console,
            refresh_per_second=4,
            vertical_overflow="crop",
        ):
            yield

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def show(self, name: str) -> None:
        """The display is drawn four times a second, whatever happens."""

    def picture(self) -> Any:
        """What is shown now."""
        from rich.text import Text

        with self.lock:
            lines = picture(self.work, self.console.width, self.console.height)
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


def picture(work: Work, width: int, height: int) -> list[str]:
    """The display as lines of at most ``width`` characters, at most ``height - 1`` of them."""
    at_work, summary = work.at_work, work.summary()
    head = [summary] if summary else []
    room = max(1, min(ROWS, height - 2 - len(head)))
    rows = [row(name, job, width) for name, job in list(at_work.items())[:room]]
    more = [f"... and {len(at_work) - room} more at work"] if len(at_work) > room else []
    return [line[: width - 1] for line in [*head, *rows, *more]]


def row(name: str, job: Heard, width: int) -> str:
    """One job in one line: name, bar, share, what it says, time left."""
    filled = round(BAR * job.share)
    middle = f" {'━' * filled}{'╺' * (BAR - filled)} {100 * job.share:3.0f}% "
    end = f" {pace(job):>{PACE}}"
    text = job.text if job.text else f"{job.done}/{job.total}"
    room = max(20, width - 1 - len(middle) - len(end))
    shown = room * 3 // 5
    return f"{shortened(name, shown):<{shown}}{middle}{shortened(text, room - shown):<{room - shown}}{end}"


def pace(job: Heard) -> str:
    """The rate of a job and the time that it has left, as far as they can be said."""
    now = time.monotonic()
    seconds = job.seconds(now)
    if seconds is None:
        return ""
    rate = job.total / seconds if seconds else 0.0
    return f"{rate:.3g}/s, {hours((1 - job.share) * seconds)} left"


def shortened(text: str, width: int) -> str:
    """Text that fits, its middle left out: names of runs differ at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
