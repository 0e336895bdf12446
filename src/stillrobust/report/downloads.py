"""The files of a report's numbers: CSV, JSON, LaTeX and Markdown, and their links in the page."""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stillrobust.analysis.intervals import LEVEL
from stillrobust.report.breakdown import breakdown_of, breakdown_quantities_table
from stillrobust.report.labels import metric_name, task_name
from stillrobust.report.paper_figures import PaperFigure
from stillrobust.report.partial_results import partial_results_json, partial_results_table
from stillrobust.report.protocol_groups import protocol_groups
from stillrobust.report.renderers import to_csv, to_latex, to_markdown, to_records
from stillrobust.report.results_table import ALIKE, measurements_table, results_table
from stillrobust.report.rows import Row, Summary
from stillrobust.report.seed_means import with_seed_means
from stillrobust.report.summary import overlaps_test
from stillrobust.report.table import Table
from stillrobust.report.transfer_gain import summary_sentence, transfer_gain, transfer_gain_table
from stillrobust.report.upstream_gain import upstream_gain, upstream_gain_table
from stillrobust.storage.store import Store

MAX_LINK_BYTES = 4_000_000  # of all links in the page; other files are only in its folder
MEDIA_TYPES = {
    "csv": "text/csv",
    "json": "application/json",
    "md": "text/markdown",
    "tex": "application/x-tex",
}


@dataclass(frozen=True)
class ReportFile:
    """A file of numbers."""

    description: str
    content: str


@dataclass(frozen=True)
class DownloadLink:
    """A link of the page to a file."""

    name: str
    description: str
    address: str
    """A ``data:`` address, or a path from the page; empty for a file that is too large to be in the
    page.
    """


def report_files(store: Store, summary: Summary) -> dict[str, ReportFile]:
    """Make the files of a report.

    Args:
        store: The results store.
        summary: Rows of the store.

    Returns:
        By name. The files on gains exist only if the store has such runs.
    """
    runs = store.runs()
    lines = transfer_gain(runs, summary.rows)
    transfer = transfer_gain_table(lines)
    upstream = upstream_gain_table(upstream_gain(runs, summary.rows))
    results = results_table(summary.rows, summary.replicates)
    measurements = measurements_table(runs, summary.measurements)
    files = {
        "table.csv": ReportFile("results with full precision", to_csv(results)),
        "table.tex": ReportFile(
            "tables for a paper in LaTeX, one for each protocol", results_latex(summary)
        ),
        "results.json": ReportFile(
            "rows with intervals, protocols, scores and breakdowns",
            results_json(summary, transfer, upstream),
        ),
        "measurements.csv": ReportFile("every measurement", to_csv(measurements)),
        "breakdown.csv": ReportFile(
            "calibration, sizes, classes, mCE", to_csv(breakdown_quantities_table(summary))
        ),
    }
    if summary.partial_rows:
        files["fewer_corruptions.csv"] = ReportFile(
            "runs with fewer than the 15 corruptions",
            to_csv(partial_results_table(summary.partial_rows)),
        )
    texts = []
    if transfer.rows:
        files["transfer_gain.csv"] = ReportFile("gain after each transfer", to_csv(transfer))
        texts.append(f"{summary_sentence(lines)}\n\n{to_markdown(transfer)}")
    if upstream.rows:
        files["upstream_gain.csv"] = ReportFile("gain upstream by group", to_csv(upstream))
        texts.append(to_markdown(upstream))
    if texts:
        files["transfer_gain.md"] = ReportFile("both tables of gains", "\n".join(texts))
    return files


def results_latex(summary: Summary) -> str:
    """Render the results in LaTeX, a table for each task, dataset, metric and protocol.

    A comment above each table has the protocol.
    """
    parts = [r"% Tables of stillrobust report. Use: \input{table}", ""]
    for group in protocol_groups(summary.rows):
        run, numbers = group[0].run, group[0].robustness
        table = results_table(group, summary.replicates)
        caption = (
            f"{task_name(run)} on {run.dataset}: clean {metric_name(numbers.metric)}, its mean over"
            " the 15 corruptions (mPC), and the drop by corruption group and in the mean, in %."
            f" Brackets: {LEVEL:.0%} intervals. Models that share a letter are not distinguishable."
        )
        protocol = {"severities": ", ".join(map(str, numbers.severities)), **group[0].protocol}
        values = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in protocol.items())
        notes = [note for note in table.notes if note != ALIKE]
        parts.append(to_latex(table, caption, [f"Protocol: {values}", *notes]))
    return "\n".join(parts)


def download_links(
    files: Mapping[str, ReportFile], figures: Iterable[PaperFigure] = ()
) -> list[DownloadLink]:
    """Make links to the files of a report.

    Args:
        files: Files of numbers. The links contain them, up to ``MAX_LINK_BYTES`` in all.
        figures: Figures. Their files are in the folder of the page.
    """
    room, links = MAX_LINK_BYTES, []
    for name, file in files.items():
        content = file.content.encode()
        encoded = base64.b64encode(content).decode()
        fits = len(encoded) <= room
        room -= len(encoded) if fits else 0
        media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        address = f"data:{media_type};base64,{encoded}" if fits else ""
        kilobytes = max(1, round(len(content) / 1000))
        links.append(DownloadLink(name, f"{file.description}, {kilobytes} kB", address))
    links += [
        DownloadLink(path, figure.description, path) for figure in figures for path in figure.paths
    ]
    return links


def results_json(summary: Summary, transfer: Table, upstream: Table) -> str:
    """Render rows with protocols, scores and breakdowns, means of seeds, and gains as JSON.

    Args:
        summary: Rows of a store.
        transfer: Table of gains after each transfer.
        upstream: Table of gains upstream.
    """
    scores: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for one in summary.measurements:
        by_corruption = scores.setdefault((one.run, one.metric), {})
        by_corruption.setdefault(one.corruption, {})[one.severity] = one.value
    rows = []
    for row in summary.rows:
        breakdown = breakdown_of(row, summary)
        rows.append(
            {
                **_row_as_dict(row),
                "protocol": row.protocol,
                "scores": scores[row.run.name, row.robustness.metric],
                "breakdown": breakdown and asdict(breakdown),
            }
        )
    means = [row for row in with_seed_means(summary.rows) if row not in summary.rows]
    content = {
        "rows": rows,
        "fewer_corruptions": partial_results_json(summary.partial_rows),
        "seed_means": [_row_as_dict(row) for row in means],
        "transfer_gain": to_records(transfer),
        "upstream_gain": to_records(upstream),
        "incomplete": [asdict(one) for one in summary.incomplete],
        "implausible": summary.implausible,
    }
    return json.dumps(content, ensure_ascii=False)


def _row_as_dict(row: Row) -> dict[str, Any]:
    run, numbers = row.run, row.robustness
    return {
        "run": run.name,
        "task": run.task,
        "dataset": run.dataset,
        "backbone": run.backbone,
        "transfer": run.setting,
        "metric": numbers.metric,
        "severities": numbers.severities,
        "images": row.images,
        "clean": numbers.clean,
        "mpc": numbers.mpc,
        "rpc": numbers.rpc,
        "drop": numbers.drop,
        "clean_interval": row.interval_of("clean"),
        "mpc_interval": row.interval_of("corrupted"),
        "drop_interval": row.interval,
        "chance": row.chance,
        "corrected_drop": row.corrected_drop,
        "corrected_drop_interval": row.corrected_drop_interval,
        "alike": row.alike,
        "alike_mpc": row.alike_mpc,
        "warnings": row.warnings,
        "overlaps_test": overlaps_test(run),
    }
