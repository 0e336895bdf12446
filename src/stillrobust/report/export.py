"""Every measurement of a study as CSV or JSON, with the key that ``study explain`` takes."""

import json
from pathlib import Path
from typing import Any

from stillrobust.errors import UserError
from stillrobust.report.renderers import to_csv, to_records
from stillrobust.report.table import Cell, Column, Table
from stillrobust.storage.files import write_whole
from stillrobust.storage.store import Store
from stillrobust.study import Selection, Site
from stillrobust.user_files import display_name

KEYS = (
    "id", "run", "task", "model", "backbone", "transfer", "technique", "data", "metric",
    "corruption", "severity", "value", "images", "left_out", "key", "scale",
)  # fmt: skip


def export_measurements(selection: Selection, site: Site, file: Path) -> int:
    """Write the measurements of a selection; JSON also has each protocol.

    Args:
        selection: Runs and the cells that are part of their studies.
        site: Where the results are.
        file: A path that ends in ``.csv`` or ``.json``.

    Returns:
        The number of measurements.

    Raises:
        UserError: If the file has another ending.
    """
    protocol = selection.protocol
    runs = {run.name(protocol): run for run in selection.runs}
    wanted = set(protocol.cells())
    lines: list[list[Cell]] = []
    protocols: list[dict[str, Any]] = []
    for one in Store(site.results).measurements():
        run = runs.get(one.run)
        if run is None or (one.corruption, one.severity) not in wanted:
            continue
        technique, left_out = (
            display_name(run.technique),
            sum(one.protocol.get("left_out", {}).values()),
        )
        subject = [run.id, one.run, run.task, run.label, run.backbone, run.setting, technique]
        numbers = [one.metric, one.corruption, one.severity, one.value, one.images, left_out]
        lines.append([*subject, run.test_data, *numbers, one.key, run.scale])
        protocols.append(one.protocol)
    table = Table.from_rows("Measurements", map(Column, KEYS), lines)
    if file.suffix == ".csv":
        content = to_csv(table)
    elif file.suffix == ".json":
        records = [
            {**record, "protocol": protocol}
            for record, protocol in zip(to_records(table), protocols, strict=True)
        ]
        content = json.dumps(records, indent=1, ensure_ascii=False) + "\n"
    else:
        raise UserError(
            f"Expected a file that ends in .csv or .json, but got {file}; name one that does"
        )
    write_whole({file: content.encode()})
    return len(lines)
