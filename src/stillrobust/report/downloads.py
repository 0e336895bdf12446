"""The numbers of the page inside the page: CSV, JSON and LaTeX as links that need no network."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape

from stillrobust.report.latex import escaped
from stillrobust.report.summary import Row, Summary
from stillrobust.report.tables import HEADINGS, TEXT_COLUMNS, cells, measurements_csv, table_csv
from stillrobust.store import Store


def downloads(store: Store, summary: Summary) -> str:
    """Links to the table and to every number."""
    files = {
        "table.csv": ("text/csv", "the table, full precision", table_csv(summary.rows)),
        "table.tex": ("application/x-tex", "the table for a paper", latex_table(summary.rows)),
        "measurements.csv": ("text/csv", "every number", measurements_csv(store.runs(), summary.measurements)),
        "results.json": ("application/json", "rows with their intervals and every score", results_json(summary)),
    }
    links = "".join(
        f'<li><a download="{name}" href="data:{kind};base64,{base64.b64encode(text.encode()).decode()}">{name}</a>: '
        f"{escape(about)}, {max(1, round(len(text.encode()) / 1000))} kB</li>"
        for name, (kind, about, text) in files.items()
    )
    return f'<h2 id="downloads">Take the numbers along</h2><ul>{links}</ul>'


def latex_table(rows: Sequence[Row]) -> str:
    r"""The table as one ``tabular`` that needs no package."""
    lines = [HEADINGS, *(cells(row, rows) for row in rows)]
    body = [" & ".join(map(escaped, line)) + r" \\" for line in lines]
    columns = "l" * TEXT_COLUMNS + "r" * (len(HEADINGS) - TEXT_COLUMNS)
    parts = [rf"\begin{{tabular}}{{{columns}}}", r"\hline", body[0], r"\hline", *body[1:], r"\hline", r"\end{tabular}", ""]
    return "\n".join(parts)


def results_json(summary: Summary) -> str:
    """Every row with its scores by corruption, one for each severity; fractions."""
    scores: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for one in summary.measurements:
        scores.setdefault((one.run, one.metric), {}).setdefault(one.corruption, {})[one.severity] = one.value
    found = []
    for row in summary.rows:
        run, numbers = row.run, row.robustness
        about = {"run": run.name, "task": run.task, "dataset": run.dataset, "backbone": run.backbone, "transfer": run.transfer}
        kept = {"metric": numbers.metric, "severities": numbers.severities, "images": row.images, "clean": numbers.clean}
        kept |= {"mpc": numbers.mpc, "rpc": numbers.rpc, "drop": numbers.drop, "drop_interval": row.interval, "alike": row.alike}
        found.append({**about, **kept, "scores": scores[run.name, numbers.metric]})
    return json.dumps({"rows": found, "incomplete": [asdict(one) for one in summary.incomplete]}, ensure_ascii=False)
