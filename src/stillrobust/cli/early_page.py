"""The page of a study that is still running, written again as runs are finished."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.names import format_count
from stillrobust.runtime.forecast import PlannedJob

SHARE = 0.1  # of the time, at most, that goes into early pages


class EarlyPage:
    """Writes the page in a thread when a run is finished, while other runs go on.

    Args:
        results: Folder of the results store.
        out: Folder of the page.
        message: Called once, with the path of the first page.
    """

    def __init__(self, results: Path, out: Path, message: Callable[[str], None]) -> None:
        self.results, self.out, self.message = results, out, message
        self.run_of: dict[str, str] = {}
        self.missing: Counter[str] = Counter()
        self.finished = self.runs = 0
        self.thread: threading.Thread | None = None
        self.next_time = 0.0

    def start(
        self, jobs: Sequence[PlannedJob], runs: int, runs_done: int, cells: int, cells_done: int
    ) -> None:
        """Set the jobs to do, as ``run_study`` announces them."""
        self.run_of = {job.name: job.run for job in jobs if job.cells}
        self.missing = Counter(self.run_of.values())
        self.finished, self.runs = runs_done, runs

    def job_ended(self, name: str, reason: str) -> None:
        """Write the page if this was the last evaluation of a run, but not of all runs."""
        run = self.run_of.get(name)
        if run is None or reason:
            return
        self.missing[run] -= 1
        if self.missing[run]:
            return
        self.finished += 1
        busy = self.thread is not None and self.thread.is_alive()
        if self.finished < self.runs and not busy and time.monotonic() >= self.next_time:
            self.thread = threading.Thread(target=self._write, args=(self.finished,), daemon=True)
            self.thread.start()

    def wait(self) -> None:
        """Wait until no page is being written."""
        if self.thread is not None:
            self.thread.join()

    def _write(self, finished: int) -> None:
        from stillrobust.report import summarize, write_report
        from stillrobust.storage.store import Store

        begun = time.monotonic()
        store = Store(self.results)
        state = f"{finished} of {format_count(self.runs, 'run')} finished"
        # the last page reports what is wrong
        with suppress(UserError, OSError):
            summary = replace(summarize(store), unfinished=state)
            if not summary.rows and not summary.partial_rows:
                return
            page = write_report(store, summary, self.out)
            if self.next_time == 0:
                self.message(f"First results, {state}: {page}")
        self.next_time = time.monotonic() + (time.monotonic() - begun) / SHARE
