"""Others' numbers in a store of ours: mmdetection's, RobustBench's, SemSegBench's, each row with
the protocol that is documented.

An importer is ``read(path, model, dataset) -> list[Table]``. It is strict: a layout, column,
corruption or value that it does not know is one sentence. What the source does not say is written
down as ``unknown``, never guessed. Imported cells keep no per-image statistics, so that they have
no intervals.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillrobust.analysis.robustness import missing_places
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, COMMON, Cell
from stillrobust.importers import mmdetection, robustbench, semsegbench
from stillrobust.importers.tables import UNKNOWN, Table
from stillrobust.names import lookup
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Measurement, Run, Store

SOURCES: dict[str, Callable[[Path, str, str], list[Table]]] = {
    "mmdetection": mmdetection.read,
    "robustbench": robustbench.read,
    "semsegbench": semsegbench.read,
}
# the field of a protocol that says where a number comes from; it decides nothing
IMPORTED = "imported"


@dataclass(frozen=True)
class Imported:
    """A run that was written, and what a reader must know of it."""

    run: str
    metrics: tuple[str, ...]
    severities: tuple[int, ...]
    holes: int
    """Cells that are missing of the 15 corruptions at ``severities`` and the clean data; with any
    the run has no mPC.
    """
    notes: tuple[str, ...]


def import_results(
    source: str,
    path: Path,
    results: Path,
    model: str = "",
    dataset: str = "",
    known: Mapping[str, str] | None = None,
) -> list[Imported]:
    """Write what a file of another tool says into the store ``results``.

    ``model`` and ``dataset`` name what the file does not (mmdetection) or choose from its lines;
    ``known`` gives fields of the protocol that the source leaves ``unknown``. Raises ``UserError``
    before anything is written.
    """
    tables = lookup("source", source, SOURCES)(path, model, dataset)
    origin = {"source": source, "file": path.name, "sha256": _digest(path)}
    store = Store(results)
    there = {run.name: run for run in store.runs()}
    prepared = [
        (_run(source, table, origin), table, _stated(table.protocol, known or {}))
        for table in tables
    ]
    for run, _, _ in prepared:
        _check_name(run, there)
    names = [run.name for run, _, _ in prepared]
    if len(set(names)) < len(names):
        raise UserError(
            f"Expected lines of different models in {path}, but two are called"
            f" {max(names, key=names.count)}; choose one with --model"
        )
    return [
        _write(store, run, table, {**protocol, IMPORTED: origin})
        for run, table, protocol in prepared
    ]


def _run(source: str, table: Table, origin: Mapping[str, str]) -> Run:
    slug = re.sub(r"[^\w.-]+", "-", table.model, flags=re.ASCII).strip("-.") or UNKNOWN
    return Run(
        f"{source}-{slug}",
        table.task,
        table.backbone,
        None,
        table.dataset,
        {IMPORTED: dict(origin)},
        (),
        table.kind,
    )


def _check_name(run: Run, there: Mapping[str, Run]) -> None:
    other = there.get(run.name)
    if other is not None and other.protocol.get(IMPORTED) != run.protocol[IMPORTED]:
        raise UserError(
            f"Expected no run called {run.name} in the results, but there is one that does not come"
            " from this file; give another --model or another folder"
        )


def _stated(protocol: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The protocol with what the caller knows of its unknown fields."""
    stated = dict(protocol)
    for field, value in known.items():
        lookup("field of the protocol", field, stated)
        if stated[field] != UNKNOWN:
            raise UserError(
                f"Expected a field that is unknown, but {field} is documented: {stated[field]};"
                " leave it out"
            )
        stated[field] = int(value) if value.isdecimal() else value
    return stated


def _write(store: Store, run: Run, table: Table, protocol: Mapping[str, Any]) -> Imported:
    for (corruption, severity), scores in table.cells.items():
        key = content_key({**protocol, "corruption": corruption, "severity": severity})
        store.write_cell(
            Cell(run.name, corruption, severity), key, scores, protocol, table.images, 0.0, {}
        )
    store.write_run(run)
    levels = tuple(sorted({severity for name, severity in table.cells if name in COMMON}))
    metrics = tuple(sorted({metric for scores in table.cells.values() for metric in scores}))
    holes = max(
        (_holes(run.name, table, metric, levels) for metric in metrics), default=len(COMMON) + 1
    )
    return Imported(run.name, metrics, levels, holes, table.notes)


def _holes(run: str, table: Table, metric: str, levels: Sequence[int]) -> int:
    there = [
        Measurement(run, metric, *place, scores[metric], {}, table.images, 0.0)
        for place, scores in table.cells.items()
        if metric in scores
    ]
    return (
        len(missing_places(there, levels)) if levels else len(COMMON) + (CLEAN not in table.cells)
    )


def _digest(path: Path) -> str:
    """SHA-256 of the file; of a folder, of the names and contents of its tables and cards."""
    files = [path] if not path.is_dir() else sorted([*path.glob("*.csv"), *path.glob("*.json")])
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" if path.is_dir() else b"")
        digest.update(file.read_bytes())
    return digest.hexdigest()
