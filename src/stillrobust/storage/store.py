"""The results store: a folder of measurements, each written whole or not at all.

::

    root/runs/<run>.json                                          one run
    root/cells/<run>/<corruption>_<severity>.json                 the scores of one cell
    root/cells/<run>/<corruption>_<severity>.npz                  per-image statistics
    root/cells/<run>/<corruption>_<severity>.examples.npz         a few images with predictions
    root/cells/<run>/.listing                                     the index of the records

The JSON of a record is renamed into place last, so its existence means success. Every record holds
the SHA-256 of itself and of its arrays. A record that does not match is renamed to ``*.damaged``
with a warning and counts as missing.
"""

import io
import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import Cell
from stillrobust.names import lookup
from stillrobust.samples import Array
from stillrobust.storage import index
from stillrobust.storage.files import (
    bytes_sha256,
    canonical_json,
    clear_leftovers,
    read_bytes,
    remove_file,
    set_aside,
    write_whole,
)
from stillrobust.storage.leases import Lease, lease, write_under_lease

FORMAT = 1  # of the records; raised when an older reader would misread them
SAFE_NAME = re.compile(r"[^\W_][\w.-]*")  # becomes a file name: no separators, nothing hidden
CORRUPTION_FILE = "corruption_file"  # key in a cell's protocol: the content of a user's corruption


RunKind = Literal["transfer", "upstream", "robustify", "external"]
"""``transfer``: of a backbone to a task; ``upstream``: a published backbone with its own
classifier; ``robustify``: a backbone that stillrobust made robust, with its own classifier;
``external``: a model that was trained elsewhere.
"""
Transfer = Literal["fixed_feature", "full_network", "released_freeze"]


@dataclass(frozen=True)
class Run:
    """A model under evaluation on one dataset."""

    name: str
    """A file-name-safe slug, unique in its store."""
    task: str
    backbone: str
    """Spec of the backbone, or the name of an external model."""
    transfer: Transfer | None
    """``None`` unless ``kind`` is ``transfer``."""
    dataset: str
    protocol: dict[str, Any]
    """Everything that determines the scores of the run."""
    classes: tuple[str, ...]
    """Classes of the dataset in the order of its labels. Empty if unknown."""
    kind: RunKind = "transfer"

    @property
    def is_upstream(self) -> bool:
        """Whether the model is a backbone with its own classifier."""
        return self.kind in ("upstream", "robustify")

    @property
    def setting(self) -> str:
        """The transfer; for other kinds of runs, the kind."""
        return self.transfer or self.kind


@dataclass(frozen=True)
class Measurement:
    """One score: a metric of a run in one cell, with its protocol."""

    run: str
    metric: str
    corruption: str
    severity: int
    value: float
    protocol: dict[str, Any]
    """Equal for all cells of a run, except for the content of a user's corruption file."""
    images: int
    seconds: float
    key: str = ""
    """Key of the cell: a hash of everything that determines the score."""

    @property
    def circumstances(self) -> dict[str, Any]:
        """The protocol without the corruption file. Scores with equal values are comparable."""
        return {name: value for name, value in self.protocol.items() if name != CORRUPTION_FILE}


class Store:
    """The measurements in one folder. A folder that does not exist reads as empty.

    Args:
        root: Folder of the store. Created by the first write.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def write_run(self, run: Run) -> None:
        """Write the record of a run, replacing a different one of the same name."""
        write_under_lease(self._run_path(run.name), _seal(asdict(run)))

    def runs(self) -> list[Run]:
        """Return all runs, sorted by name."""
        bodies = (_unseal(path) for path in sorted((self.root / "runs").glob("[!.]*.json")))
        return [
            Run(**{**body, "classes": tuple(body["classes"])})
            for body in bodies
            if body is not None
        ]

    @contextmanager
    def lease_cells(self, run: str, corruption: str) -> Iterator[Lease]:
        """Hold the lease on the cells of a run under one corruption while they are evaluated.

        Raises:
            LeaseHeldError: If another process holds it.
        """
        place = self._cells_of(run) / _safe(corruption)
        with lease(place) as held:
            clear_leftovers(place.parent, f"{corruption}_")
            yield held

    def write_cell(
        self,
        cell: Cell,
        key: str,
        metrics: Mapping[str, float],
        protocol: Mapping[str, Any],
        images: int,
        seconds: float,
        statistics: Mapping[str, Array],
        examples: Mapping[str, Array] | None = None,
    ) -> None:
        """Write one cell: the arrays first and the record last.

        Args:
            cell: Run, corruption and severity.
            key: Hash of everything that determines the scores; see :func:`content_key`.
            metrics: Finite scores by metric.
            protocol: The circumstances of the evaluation, as plain data.
            images: Number of images.
            seconds: Evaluation time.
            statistics: Per-image arrays from which the scores can be recomputed.
            examples: Arrays of a few images and predictions for the gallery.

        Raises:
            UserError: If a score is not finite, or a file cannot be written.
        """
        values = {name: float(value) for name, value in metrics.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise UserError(
                    f"Expected a finite {name} for {cell.run} on {cell.corruption} {cell.severity},"
                    f" but got {value}; nothing was written: check the model and the data"
                )
        record = self._cell_path(cell)
        arrays = {record.with_suffix(".npz"): _pack(statistics)}
        if examples is not None:
            arrays[record.with_suffix(".examples.npz")] = _pack(examples)
        body = {
            **asdict(cell),
            "key": key,
            "metrics": values,
            "protocol": dict(protocol),
            "images": int(images),
            "seconds": float(seconds),
            "arrays": {path.name: bytes_sha256(content) for path, content in arrays.items()},
        }
        write_whole({**arrays, record: _seal(body)})
        index.append_record(record, body)

    def has(self, cell: Cell, key: str) -> bool:
        """Return whether the cell is stored, undamaged, and has this key."""
        body = self._cell(cell)
        if body is None or body["key"] != key:
            return False
        return all(
            self._array_bytes(cell, name, digest) is not None
            for name, digest in body["arrays"].items()
        )

    def measurements(self, run: str | None = None) -> list[Measurement]:
        """Return the measurements of all runs, or of one run."""
        folders = (
            sorted((self.root / "cells").glob("[!.]*")) if run is None else [self._cells_of(run)]
        )
        bodies = (body for folder in folders for body in index.read_bodies(folder, _unseal))
        return [
            Measurement(
                run=body["run"],
                metric=metric,
                corruption=body["corruption"],
                severity=body["severity"],
                value=value,
                protocol=body["protocol"],
                images=body["images"],
                seconds=body["seconds"],
                key=body["key"],
            )
            for body in bodies
            for metric, value in body["metrics"].items()
        ]

    def statistics(self, cell: Cell) -> dict[str, Array]:
        """Return the per-image statistics of a cell.

        Raises:
            MissingCellsError: If the cell is not stored.
        """
        arrays = self._arrays(cell, ".npz")
        if arrays is None:
            raise MissingCellsError(
                f"{cell.run} has no cell for {cell.corruption} {cell.severity}: evaluate it first"
            )
        return arrays

    def examples(self, cell: Cell) -> dict[str, Array] | None:
        """Return the example images and predictions of a cell, or ``None`` if it has none."""
        return self._arrays(cell, ".examples.npz")

    def remove_cells(self, cells: Iterable[Cell]) -> None:
        """Remove cells. Those that do not exist are skipped.

        Raises:
            LeaseHeldError: If another process is evaluating one of them.
            UserError: If a file cannot be removed.
        """
        cells = list(cells)
        with self._lease_all(cells):
            for cell in cells:
                record = self._cell_path(cell)
                # the record first: a cell without its record does not exist
                for suffix in (".json", ".npz", ".examples.npz"):
                    remove_file(record.with_suffix(suffix))

    @contextmanager
    def _lease_all(self, cells: Iterable[Cell]) -> Iterator[None]:
        """Hold the leases on all cells, so that a change leaves all or none."""
        with ExitStack() as leases:
            for run, corruption in dict.fromkeys((cell.run, cell.corruption) for cell in cells):
                leases.enter_context(self.lease_cells(run, corruption))
            yield

    def remove_run(self, name: str) -> None:
        """Remove a run with all its cells.

        Raises:
            LeaseHeldError: If another process is evaluating it.
            UserError: If there is no such run, or a file cannot be removed.
        """
        self._require_run(name)
        self.remove_cells(self._cells(name))
        shutil.rmtree(self._cells_of(name), ignore_errors=True)  # its index, damaged records
        remove_file(self._run_path(name))

    def rename_run(self, name: str, new_name: str) -> None:
        """Give a run with all its cells another name. An interruption leaves the old one.

        Raises:
            LeaseHeldError: If another process is evaluating it.
            UserError: If there is no such run, or one has the new name.
        """
        run = self._require_run(name)
        if self._run_path(new_name).exists():
            raise UserError(
                f"Expected a new name for {name} in {self.root}, but {new_name} exists; choose"
                " another name, or remove that run first"
            )
        self.remove_cells(self._cells(new_name))  # of a renaming that was interrupted
        cells = self._cells(name)
        with self._lease_all(cells):
            for cell in cells:
                self._copy_cell(cell, new_name)
            self.write_run(replace(run, name=new_name))
        self.remove_run(name)

    def _copy_cell(self, cell: Cell, run: str) -> None:
        body = self._cell(cell)
        if body is None:
            return
        target = self._cell_path(replace(cell, run=run))
        files = {
            target.with_name(name): content
            for name, digest in body["arrays"].items()
            if (content := self._array_bytes(cell, name, digest)) is not None
        }
        if len(files) == len(body["arrays"]):  # else the cell is damaged, which was warned about
            write_whole({**files, target: _seal({**body, "run": run})})

    def _cells(self, run: str) -> list[Cell]:
        """All cells of a run, also of one without a record."""
        return list(
            dict.fromkeys(Cell(run, one.corruption, one.severity) for one in self.measurements(run))
        )

    def _require_run(self, name: str) -> Run:
        runs = {run.name: run for run in self.runs()}
        return lookup("run", name, runs)

    def _run_path(self, name: str) -> Path:
        return self.root / "runs" / f"{_safe(name)}.json"

    def _cells_of(self, run: str) -> Path:
        return self.root / "cells" / _safe(run)

    def _cell_path(self, cell: Cell) -> Path:
        return self._cells_of(cell.run) / f"{_safe(cell.corruption)}_{int(cell.severity)}.json"

    def _cell(self, cell: Cell) -> dict[str, Any] | None:
        return _unseal(self._cell_path(cell))

    def _array_bytes(self, cell: Cell, name: str, digest: str) -> bytes | None:
        path = self._cell_path(cell).with_name(name)
        content = read_bytes(path)
        if content is not None and bytes_sha256(content) == digest:
            return content
        # A record without its arrays is damaged: the cell is evaluated again.
        now = self._cell(cell)
        if now and now["arrays"].get(name) == digest:  # else it was replaced in the meantime
            set_aside(self._cell_path(cell), f"{name} is missing or altered")
        return None

    def _arrays(self, cell: Cell, suffix: str) -> dict[str, Array] | None:
        body = self._cell(cell)
        name = self._cell_path(cell).with_suffix(suffix).name
        if body is None or name not in body["arrays"]:
            return None
        content = self._array_bytes(cell, name, body["arrays"][name])
        return None if content is None else _unpack(content)


def _safe(name: str) -> str:
    if not SAFE_NAME.fullmatch(name):
        raise UserError(
            f"Expected a name of letters, digits, '.', '_' and '-', but got {name!r}: choose"
            " another name"
        )
    return name


def _seal(body: dict[str, Any]) -> bytes:
    digest = bytes_sha256(canonical_json(body))
    sealed = {"format": FORMAT, "sha256": digest, "body": body}
    return json.dumps(sealed, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _unseal(path: Path) -> dict[str, Any] | None:
    content = read_bytes(path)
    if content is None:
        return None
    try:
        sealed = json.loads(content)
        made_by = int(sealed["format"])
        body: dict[str, Any] = sealed["body"]
        whole = bytes_sha256(canonical_json(body)) == sealed["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        made_by, whole = FORMAT, False
    if made_by > FORMAT:
        raise UserError(
            f"Expected records of format {FORMAT}, but {path} has {made_by}: use a newer"
            " stillrobust"
        )
    if not whole:
        if read_bytes(path) == content:  # else it was replaced in the meantime
            set_aside(path, "it is incomplete or altered")
        return None
    return body


def _pack(arrays: Mapping[str, Array]) -> bytes:
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise UserError(
                f"Expected plain arrays in a record, but {name!r} holds Python objects: convert it"
                " first"
            )
    buffer = io.BytesIO()
    save: Any = np.savez_compressed  # its stub mistakes the arrays for allow_pickle
    save(buffer, **plain)
    return buffer.getvalue()


def _unpack(content: bytes) -> dict[str, Array]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
