"""Every number of a study as CSV or JSON, with the key that ``stillrobust study explain`` takes."""

import json
from pathlib import Path
from typing import Any

from stillrobust.errors import UserError
from stillrobust.report.tables import as_csv
from stillrobust.storage.files import write_whole
from stillrobust.storage.store import Store
from stillrobust.study import Selection, Site
from stillrobust.user_files import display_name

ABOUT = ("id", "run", "task", "model", "backbone", "transfer", "technique", "data")
COLUMNS = (
    *ABOUT,
    "metric",
    "corruption",
    "severity",
    "value",
    "images",
    "left_out",
    "key",
    "scale",
)


def export(selection: Selection, site: Site, file: Path) -> int:
    """Write the numbers that a selection asks for and that are there; returns how many.

    JSON also has each protocol.
    """
    protocol = selection.protocol
    runs = {run.name(protocol): run for run in selection.runs}
    wanted = set(protocol.cells())
    rows: list[dict[str, Any]] = []
    protocols: list[dict[str, Any]] = []
    for one in Store(site.results).measurements():
        run = runs.get(one.run)
        if run is None or (one.corruption, one.severity) not in wanted:
            continue
        said = [
            run.id,
            one.run,
            run.task,
            run.label,
            run.backbone,
            run.setting,
            display_name(run.technique),
            run.test_data,
        ]
        left_out = sum(one.protocol.get("left_out", {}).values())
        numbers = [
            one.metric,
            one.corruption,
            one.severity,
            one.value,
            one.images,
            left_out,
            one.key,
            run.scale,
        ]
        rows.append(dict(zip(COLUMNS, [*said, *numbers], strict=True)))
        protocols.append(one.protocol)
    if file.suffix == ".csv":
        content = as_csv(COLUMNS, [list(row.values()) for row in rows])
    elif file.suffix == ".json":
        listed = [
            {**row, "protocol": protocol} for row, protocol in zip(rows, protocols, strict=True)
        ]
        content = json.dumps(listed, indent=1, ensure_ascii=False) + "\n"
    else:
        raise UserError(
            f"Expected a file that ends in .csv or .json, but got {file}; name one that does"
        )
    write_whole({file: content.encode()})
    return len(rows)
