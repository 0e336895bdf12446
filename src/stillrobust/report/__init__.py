"""From a store of measurements to tables and one offline page. Reads the store; never loads a model or an image folder."""

from pathlib import Path

from stillrobust.intervals import REPLICATES
from stillrobust.report.page import page, write_page
from stillrobust.report.summary import Row, Summary, summarize
from stillrobust.report.tables import measurements_csv, text_table, write_csv
from stillrobust.store import Store, write_whole

__all__ = [
    "Row",
    "Summary",
    "measurements_csv",
    "page",
    "report",
    "summarize",
    "text_table",
    "write_csv",
    "write_page",
    "write_report",
]


def report(store_root: Path | str, out_dir: Path | str, replicates: int = REPLICATES) -> Path:
    """Write ``table.csv``, ``measurements.csv`` and ``report.html`` into a folder and return the page's path.

    ``replicates`` is the number of bootstrap resamples behind the intervals; 0 leaves the intervals out.
    """
    store = Store(store_root)
    return write_report(store, summarize(store, replicates), out_dir)


def write_report(store: Store, summary: Summary, out_dir: Path | str) -> Path:
    """What :func:`report` writes, of a summary that is there already."""
    folder = Path(out_dir)
    write_csv(summary.rows, folder / "table.csv")
    write_whole({folder / "measurements.csv": measurements_csv(store.runs(), summary.measurements).encode()})
    path = folder / "report.html"
    write_whole({path: page(store, summary).encode()})
    return path
