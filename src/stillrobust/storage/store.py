"""A folder of measurements, each written whole or not at all.

::

    root/runs/<run>.json                                  what a run is
    root/cells/<run>/<corruption>_<severity>.json         the numbers of one cell: the clean data or
    one corruption root/cells/<run>/<corruption>_<severity>.npz          per-image statistics, for
    intervals root/cells/<run>/<corruption>_<severity>.examples.npz a few images and what the model
    said of them root/cells/<run>/.listing                             what the records say, to list
    many at once; see ``index``

A record's JSON is put in place last, so that its existence means success. Every record carries the
SHA-256 of itself and of its arrays; one that does not match is set aside (``*.damaged``) with a
warning and counts as missing.
"""

import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stillrobust.errors import HoleError, UserError
from stillrobust.grid import Cell
from stillrobust.samples import Array
from stillrobust.storage import index
from stillrobust.storage.files import canonical, clear_leftovers, read_bytes, set_aside, write_whole
from stillrobust.storage.leases import Lease, lease, write_alone

FORMAT = 1  # of the records; raised when an older reader would misread them
SAFE_NAME = re.compile(r"[^\W_][\w.-]*")  # becomes a file name: no separators, nothing hidden
CORRUPTION_FILE = "corruption_file"  # in a cell's protocol: the content of a corruption of your own


RunKind = Literal["transfer", "upstream", "robustify", "external"]
"""``transfer``: of a backbone to a task; ``upstream``: a published backbone with its own classifier;
``robustify``: a backbone that stillrobust made robust, with its own classifier; ``external``: a
model that was trained elsewhere.
"""
Transfer = Literal["fixed_feature", "full_network", "released_freeze"]


@dataclass(frozen=True)
class Run:
    """One model on one dataset."""

    name: str
    """A slug, unique in its store."""
    task: str
    backbone: str
    """The spec of the backbone."""
    transfer: Transfer | None
    """``None`` unless ``kind`` is ``transfer``."""
    dataset: str
    protocol: dict[str, Any]
    """Everything that decides the run's numbers."""
    classes: tuple[str, ...]
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
    """One number: a metric of a run in one cell, and the circumstances it was measured under."""

    run: str
    metric: str
    corruption: str
    severity: int
    value: float
    protocol: dict[str, Any]
    """The same for all cells of a run; it holds neither corruption nor severity, but the content of
    a corruption of your own.
    """
    images: int
    seconds: float
    key: str = ""
    """Of the cell: names everything that decided the number."""

    @property
    def circumstances(self) -> dict[str, Any]:
        """The protocol without what is one corruption's own: equal for numbers that may be set
        against each other.
        """
        return {name: value for name, value in self.protocol.items() if name != CORRUPTION_FILE}


class Store:
    """The measurements under one folder. Reading a folder that does not exist finds nothing."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def write_run(self, run: Run) -> None:
        """Write down what a run is; an earlier record of the same name is replaced, unless it says
        the same.
        """
        write_alone(self._run_path(run.name), _seal(asdict(run)))

    def runs(self) -> list[Run]:
        """All runs, by name."""
        bodies = (_unseal(path) for path in sorted((self.root / "runs").glob("[!.]*.json")))
        return [
            Run(**{**body, "classes": tuple(body["classes"])})
            for body in bodies
            if body is not None
        ]

    @contextmanager
    def writing(self, run: str, corruption: str) -> Iterator[Lease]:
        """Hold the cells of a run on one corruption, for who measures them; raises
        :class:`leases.Held` if others do.
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
        """Write one cell: the arrays first and the record last, so that the record's existence
        means success.

        ``key`` names the circumstances (see :func:`content_key`); ``metrics`` must be finite
        numbers.
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
            "arrays": {
                path.name: hashlib.sha256(content).hexdigest() for path, content in arrays.items()
            },
        }
        write_whole({**arrays, record: _seal(body)})
        index.append(record, body)

    def has(self, cell: Cell, key: str) -> bool:
        """Whether the cell is there, whole, and was measured under the same circumstances."""
        body = self._cell(cell)
        if body is None or body["key"] != key:
            return False
        return all(
            self._array_bytes(cell, name, digest) is not None
            for name, digest in body["arrays"].items()
        )

    def measurements(self, run: str | None = None) -> list[Measurement]:
        """All numbers, or those of one run."""
        folders = (
            sorted((self.root / "cells").glob("[!.]*")) if run is None else [self._cells_of(run)]
        )
        bodies = (body for folder in folders for body in index.bodies(folder, _unseal))
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
        """The per-image statistics of a cell."""
        arrays = self._arrays(cell, ".npz")
        if arrays is None:
            raise HoleError(
                f"{cell.run} was not measured on {cell.corruption} {cell.severity}: run the study"
                " again"
            )
        return arrays

    def examples(self, cell: Cell) -> dict[str, Array] | None:
        """The example images of a cell and what the model said of them, where they were kept."""
        return self._arrays(cell, ".examples.npz")

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
        if content is not None and hashlib.sha256(content).hexdigest() == digest:
            return content
        # Without its arrays the record is not whole: it goes, and the cell is measured again.
        now = self._cell(cell)
        if now and now["arrays"].get(name) == digest:  # else it was measured anew while we looked
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
    digest = hashlib.sha256(canonical(body)).hexdigest()
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
        whole = hashlib.sha256(canonical(body)).hexdigest() == sealed["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        made_by, whole = FORMAT, False
    if made_by > FORMAT:
        raise UserError(
            f"Expected records of format {FORMAT}, but {path} has {made_by}: use a newer"
            " stillrobust"
        )
    if not whole:
        if read_bytes(path) == content:  # else it was written anew while we looked
            set_aside(path, "it is half-written or altered")
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
    save: Any = np.savez_compressed  # its stub takes the keyword allow_pickle for one of the arrays
    save(buffer, **plain)
    return buffer.getvalue()


def _unpack(content: bytes) -> dict[str, Array]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
