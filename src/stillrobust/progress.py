"""Progress of long work: bars with rate and time left on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


@contextmanager
def progress(total_cells: int = 0) -> Iterator[Any]:
    """``listen(name, done, total, text)`` and ``listen.say(text)``: bars with rate and time left on a terminal, lines elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total_cells)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bars:
        yield _Bars(bars, total_cells)


class _Bars:
    """One bar for all cells, one for each job at work."""

    def __init__(self, bars: Any, total_cells: int) -> None:
        self.bars, self.say = bars, bars.print
        self.overall = bars.add_task("all cells", total=total_cells, text="") if total_cells else None
        self.shown: dict[str, Any] = {}
        self.counted: dict[str, int] = {}

    def __call__(self, name: str, done: int, total: int, text: str) -> None:
        if name not in self.shown:
            self.shown[name] = self.bars.add_task(name[:60], total=total, text=text)
        self.bars.update(self.shown[name], completed=done, total=total, text=text, visible=done < total)
        if self.overall is not None and name.startswith("evaluate"):
            self.bars.advance(self.overall, done - self.counted.get(name, 0))
            self.counted[name] = done


class _Lines:
    """A line every ten seconds, for logs."""

    def __init__(self, total_cells: int) -> None:
        self.total_cells = total_cells
        self.cells: dict[str, int] = {}
        self.first: dict[str, tuple[float, int]] = {}
        self.last = 0.0

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def __call__(self, name: str, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        start, begun = self.first.setdefault(name, (now, done))
        if name.startswith("evaluate"):
            self.cells[name] = done
        if now - self.last < LINE_SECONDS:
            return
        self.last = now
        rate = (done - begun) / max(now - start, 1e-9)
        left = f", {rate:.1f}/s, {(total - done) / rate:.0f} s left" if rate > 0 else ""
        overall = f" [{sum(self.cells.values())}/{self.total_cells} cells]" if self.total_cells else ""
        self.say(f"{name}: {done}/{total} {text}{left}{overall}")
