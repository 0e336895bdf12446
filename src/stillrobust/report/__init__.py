"""From a store of measurements to tables and one offline page.

Reads the store; never loads a model or an image folder.
"""

from pathlib import Path

from stillrobust.analysis.intervals import REPLICATES
from stillrobust.report.downloads import numbers
from stillrobust.report.inside import with_inside
from stillrobust.report.page import page
from stillrobust.report.rows import Row, Summary
from stillrobust.report.summary import summarize
from stillrobust.report.tables import measurements_csv, text_table
from stillrobust.storage.files import write_whole
from stillrobust.storage.store import Store

__all__ = [
    "Row",
    "Summary",
    "measurements_csv",
    "page",
    "report",
    "summarize",
    "text_table",
    "with_inside",
    "write_report",
]


def report(store_root: Path | str, out_dir: Path | str, replicates: int = REPLICATES) -> Path:
    """Write ``report.html`` and the files of its numbers into a folder and return the page's path.

    ``replicates`` is the number of bootstrap resamples behind the intervals; 0 leaves the intervals
    out.
    """
    store = Store(store_root)
    return write_report(store, with_inside(store, summarize(store, replicates)), out_dir)


def write_report(store: Store, summary: Summary, out_dir: Path | str) -> Path:
    """What :func:`report` writes, of a summary that is there already."""
    folder = Path(out_dir)
    path = folder / "report.html"
    files = {
        folder / name: content.encode() for name, (_, _, content) in numbers(store, summary).items()
    }
    write_whole({**files, path: page(store, summary).encode()})
    return path
