"""Importers of results of other tools, each with its documented protocol.

An importer is ``read(path, model, dataset) -> list[ImportedTable]``. It is strict: an unknown
layout, column, corruption or value is an error. Circumstances that the source does not document are
stored as ``unknown``. Imported cells have no per-image statistics and therefore no intervals.
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
from stillrobust.importers import mmdetection, robustbench, run_cards, semsegbench
from stillrobust.importers.tables import UNKNOWN, ImportedTable
from stillrobust.names import lookup, unknown_name_error
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Measurement, Run, Store

SOURCES: dict[str, Callable[[Path, str, str], list[ImportedTable]]] = {
    "card": run_cards.read,
    "mmdetection": mmdetection.read,
    "robustbench": robustbench.read,
    "semsegbench": semsegbench.read,
}
# key in a protocol: the source of the scores; it does not affect comparability
IMPORTED = "imported"


@dataclass(frozen=True)
class ImportedRun:
    """A run that was written to the store."""

    run: str
    metrics: tuple[str, ...]
    severities: tuple[int, ...]
    missing: int
    """Number of missing cells of the 15 corruptions at ``severities`` and the clean data.

    A run with missing cells has no mPC.
    """
    notes: tuple[str, ...]


def import_results(
    source: str,
    path: Path,
    results: Path,
    model: str = "",
    dataset: str = "",
    known: Mapping[str, str] | None = None,
) -> list[ImportedRun]:
    """Write the results of another tool to a store.

    Args:
        source: Name of the tool; see :data:`SOURCES`.
        path: File or folder of the tool.
        results: Folder of the results store.
        model: Name of the model, if the file has none; otherwise selects its lines.
        dataset: Name of the dataset, if the file has none; otherwise selects its lines.
        known: Circumstances that the source leaves ``unknown``.

    Returns:
        The written runs.

    Raises:
        UserError: If the file or the arguments are invalid. Nothing is written then.
    """
    if source not in SOURCES:
        raise UserError(
            f"{unknown_name_error('source', source, SOURCES)}; `stillrobust predictions score`"
            " scores predictions of your own, in COCO's format and others"
            " (docs/how_to/predictions.md)"
        )
    tables = SOURCES[source](path, model, dataset)
    store = Store(results)
    existing = {run.name: run for run in store.runs()}
    whole = _origin(source, path)
    origins = [_origin(source, one.file) if one.file else whole for one in tables]
    prepared = [
        (_run(source, table, origin), table, _with_known_fields(table.protocol, known or {}))
        for table, origin in zip(tables, origins, strict=True)
    ]
    for run, _, _ in prepared:
        _check_name(run, existing)
    names = [run.name for run, _, _ in prepared]
    if len(set(names)) < len(names):
        raise UserError(
            f"Expected lines of different models in {path}, but two are named"
            f" {max(names, key=names.count)}; choose one with --model"
        )
    return [
        _write(store, run, table, {**protocol, IMPORTED: origin})
        for (run, table, protocol), origin in zip(prepared, origins, strict=True)
    ]


def _origin(source: str, path: Path) -> dict[str, str]:
    return {"source": source, "file": path.name, "sha256": _digest(path)}


def _run(source: str, table: ImportedTable, origin: Mapping[str, str]) -> Run:
    slug = re.sub(r"[^\w.-]+", "-", table.model, flags=re.ASCII).strip("-.") or UNKNOWN
    return Run(
        f"{source}-{slug}",
        table.task,
        table.backbone,
        None,
        table.dataset,
        {IMPORTED: {**origin, **table.facts}},
        table.classes,
        table.kind,
    )


def _check_name(run: Run, existing: Mapping[str, Run]) -> None:
    other = existing.get(run.name)
    if other is not None and other.protocol.get(IMPORTED) != run.protocol[IMPORTED]:
        raise UserError(
            f"Expected no run named {run.name} in the results, but there is one that does not come"
            " from this file; give another --model or another folder"
        )


def _with_known_fields(protocol: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """Return the protocol with the fields that the caller gave."""
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


def _write(
    store: Store, run: Run, table: ImportedTable, protocol: Mapping[str, Any]
) -> ImportedRun:
    for (corruption, severity), scores in table.cells.items():
        key = content_key({**protocol, "corruption": corruption, "severity": severity})
        store.write_cell(
            Cell(run.name, corruption, severity), key, scores, protocol, table.images, 0.0, {}
        )
    store.write_run(run)
    levels = tuple(sorted({severity for name, severity in table.cells if name in COMMON}))
    metrics = tuple(sorted({metric for scores in table.cells.values() for metric in scores}))
    missing = max(
        (_missing_count(run.name, table, metric, levels) for metric in metrics),
        default=len(COMMON) + 1,
    )
    return ImportedRun(run.name, metrics, levels, missing, table.notes)


def _missing_count(run: str, table: ImportedTable, metric: str, levels: Sequence[int]) -> int:
    measurements = [
        Measurement(run, metric, *place, scores[metric], {}, table.images, 0.0)
        for place, scores in table.cells.items()
        if metric in scores
    ]
    return (
        len(missing_places(measurements, levels))
        if levels
        else len(COMMON) + (CLEAN not in table.cells)
    )


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the tables and cards in a folder with their names."""
    files = [path] if not path.is_dir() else sorted([*path.glob("*.csv"), *path.glob("*.json")])
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" if path.is_dir() else b"")
        digest.update(file.read_bytes())
    return digest.hexdigest()
