"""Reports of a results store: tables, files and one offline page.

Neither models nor datasets are read.
"""

from pathlib import Path

from stillrobust.analysis.intervals import REPLICATES
from stillrobust.report.breakdown import add_breakdown
from stillrobust.report.downloads import report_files
from stillrobust.report.page import render_page
from stillrobust.report.paper_figures import list_paper_figures
from stillrobust.report.renderers import to_csv, to_latex, to_markdown, to_text
from stillrobust.report.results_table import measurements_table, results_table
from stillrobust.report.rows import Row, Summary
from stillrobust.report.summary import summarize
from stillrobust.report.table import Table
from stillrobust.storage.files import write_whole
from stillrobust.storage.store import Store

__all__ = [
    "Row",
    "Summary",
    "Table",
    "add_breakdown",
    "measurements_table",
    "render_page",
    "report",
    "results_table",
    "summarize",
    "to_csv",
    "to_latex",
    "to_markdown",
    "to_text",
    "write_report",
]


def report(store_root: Path | str, out_dir: Path | str, replicates: int = REPLICATES) -> Path:
    """Write ``report.html``, the files of its numbers, and its figures for a paper.

    Args:
        store_root: Folder of the results store.
        out_dir: Folder to write to. Created if missing.
        replicates: Number of bootstrap resamples behind the intervals; 0 for no intervals.

    Returns:
        The path of the page.
    """
    store = Store(store_root)
    return write_report(store, add_breakdown(store, summarize(store, replicates)), out_dir)


def write_report(store: Store, summary: Summary, out_dir: Path | str) -> Path:
    """Write the page, files and figures of a summary.

    Args:
        store: The results store.
        summary: Rows of the store, usually with their breakdown.
        out_dir: Folder to write to. Created if missing.

    Returns:
        The path of the page.
    """
    folder = Path(out_dir)
    path = folder / "report.html"
    files = {
        folder / name: file.content.encode() for name, file in report_files(store, summary).items()
    }
    for figure in list_paper_figures(store.runs(), summary):
        files |= {folder / name: content for name, content in figure.files.items()}
    write_whole({**files, path: render_page(store, summary).encode()})
    return path
