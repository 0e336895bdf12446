"""The results store: a folder of measurements, each written whole or not at all.

::

    root/runs/<run>.json                                          one run
    root/groups/<run>.json                                        the groups of its images
    root/cells/<run>/<corruption>_<severity>.json                 the scores of one cell
    root/cells/<run>/<corruption>_<severity>.npz                  per-image statistics
    root/cells/<run>/<corruption>_<severity>.examples.npz         a few images with predictions
    root/cells/<run>/.listing                                     the index of the records

The JSON of a record is renamed into place last, so its existence means success. Every record holds
the SHA-256 of itself and of its arrays, and is validated when it is read (``records``). A damaged
one is renamed to ``*.damaged`` with a warning and counts as missing. Files that this library does
not write are left alone and named in a warning.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import Cell
from stillrobust.names import format_count, lookup
from stillrobust.samples import Array
from stillrobust.storage import index
from stillrobust.storage.arrays import LARGEST as LARGEST_ARRAYS
from stillrobust.storage.arrays import pack_arrays, unpack_arrays
from stillrobust.storage.files import (
    bytes_sha256,
    clear_leftovers,
    read_bytes,
    remove_file,
    set_aside,
    write_whole,
)
from stillrobust.storage.image_groups import ImageGroups
from stillrobust.storage.leases import Lease, lease, write_under_lease
from stillrobust.storage.records import (
    ARRAY_SUFFIXES,
    LARGEST,
    SAFE_NAME,
    CellRecord,
    DamagedRecordError,
    NotARecordError,
    array_file,
    check_run,
    run_of_file,
    safe_name,
    seal_record,
    unseal_record,
)
from stillrobust.untrusted import NotAFileError, printable

Record = TypeVar("Record")
MOST_NAMED = 3  # foreign files in a warning
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

    @classmethod
    def from_body(cls, body: Mapping[str, Any], name: str) -> "Run":
        """Make a run from the body of its record.

        Args:
            body: The parsed JSON. Unknown keys are ignored.
            name: Name of the run, from the name of the file.

        Raises:
            DamagedRecordError: If a value is wrong; see :func:`records.check_run`.
        """
        check_run(body, name, get_args(RunKind), get_args(Transfer))
        return cls(
            name,
            body["task"],
            body["backbone"],
            body["transfer"],
            body["dataset"],
            dict(body["protocol"]),
            tuple(body["classes"]),
            body["kind"],
        )


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
        write_under_lease(self._run_path(run.name), seal_record(asdict(run)))

    def runs(self) -> list[Run]:
        """Return all runs, sorted by name."""
        folder = self.root / "runs"
        names = [path.name for path in sorted(folder.glob("[!.]*.json"))]
        runs = {file: name for file in names if (name := run_of_file(file)) is not None}
        _warn_of_foreign(folder, [file for file in names if file not in runs])
        found = (
            _read_record(folder / file, partial(Run.from_body, name=name))
            for file, name in runs.items()
        )
        return [run for run in found if run is not None]

    def write_groups(self, run: str, groups: ImageGroups | None) -> None:
        """Write the groups of a run's images.

        Args:
            run: Name of the run.
            groups: Its groups; ``None`` removes them, so that every image stands for itself.
        """
        if groups is None:
            remove_file(self._groups_path(run))
        else:
            write_under_lease(self._groups_path(run), seal_record(groups.body(run)))

    def groups(self, run: str) -> ImageGroups | None:
        """Return the stored groups of a run's images; ``None`` if every image stands for itself.

        Raises:
            UserError: If the record is damaged: without the groups, intervals would be too narrow.
        """
        path = self._groups_path(run)
        try:
            content = read_bytes(path, LARGEST)
            if content is None:
                return None
            return ImageGroups.from_body(unseal_record(content, path), run)
        except (DamagedRecordError, NotARecordError, NotAFileError) as error:
            raise UserError(
                f"Expected the groups of {run} in {path}, but {error}; evaluate the run again with"
                " --group-by, which only writes the groups"
            ) from None

    @contextmanager
    def lease_cells(self, run: str, corruption: str) -> Iterator[Lease]:
        """Hold the lease on the cells of a run under one corruption while they are evaluated.

        Raises:
            LeaseHeldError: If another process holds it.
        """
        place = self._cells_of(run) / safe_name(corruption)
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
            metrics: Scores 0..1 by metric.
            protocol: The circumstances of the evaluation, as plain data.
            images: Number of images.
            seconds: Evaluation time.
            statistics: Per-image arrays from which the scores can be recomputed.
            examples: Arrays of a few images and predictions for the gallery.

        Raises:
            UserError: If a score is not finite or not in 0..1, or a file cannot be written.
        """
        values = {name: float(value) for name, value in metrics.items()}
        for name, value in values.items():
            if not 0 <= value <= 1:
                raise UserError(
                    f"Expected a {name} from 0 to 1 for {cell.run} on {cell.corruption}"
                    f" {cell.severity}, but got {value}; nothing was written: check the model and"
                    " the data"
                )
        packed = {
            array_file(cell, suffix): pack_arrays(arrays)
            for suffix, arrays in zip(ARRAY_SUFFIXES, (statistics, examples), strict=True)
            if arrays is not None
        }
        record = CellRecord(
            cell,
            key,
            values,
            dict(protocol),
            int(images),
            float(seconds),
            {name: bytes_sha256(content) for name, content in packed.items()},
        )
        path = self._cell_path(cell)
        arrays = {path.with_name(name): content for name, content in packed.items()}
        write_whole({**arrays, path: seal_record(record.body())})
        index.append_record(path, record)

    def has(self, cell: Cell, key: str) -> bool:
        """Return whether the cell is stored, undamaged, and has this key."""
        record = self._cell(cell)
        if record is None or record.key != key:
            return False
        return all(
            self._array_bytes(cell, name, digest) is not None
            for name, digest in record.arrays.items()
        )

    def measurements(self, run: str | None = None) -> list[Measurement]:
        """Return the measurements of all runs, or of one run."""
        folders = (
            sorted((self.root / "cells").glob("[!.]*")) if run is None else [self._cells_of(run)]
        )
        return [
            Measurement(
                run=record.cell.run,
                metric=metric,
                corruption=record.cell.corruption,
                severity=record.cell.severity,
                value=value,
                protocol=record.protocol,
                images=record.images,
                seconds=record.seconds,
                key=record.key,
            )
            for folder in folders
            if SAFE_NAME.fullmatch(folder.name)
            for record in self._records_in(folder)
            for metric, value in record.metrics.items()
        ]

    def _records_in(self, folder: Path) -> list[CellRecord]:
        """Return the records of a run, and warn of files that are none."""
        found, foreign = index.read_records(folder, lambda cell: self._cell(cell))
        _warn_of_foreign(folder, foreign)
        return found

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
        folder = self._cells_of(name)
        for left in (folder / index.LISTING, *folder.glob("*.damaged*")):
            remove_file(left)
        with suppress(OSError):  # not empty: files of others are left alone
            folder.rmdir()
        remove_file(self._groups_path(name))
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
            self.write_groups(new_name, self.groups(name))
            self.write_run(replace(run, name=new_name))
        self.remove_run(name)

    def _copy_cell(self, cell: Cell, run: str) -> None:
        record = self._cell(cell)
        if record is None:
            return
        renamed = replace(record, cell=replace(cell, run=run))
        target = self._cell_path(renamed.cell)
        files = {
            target.with_name(name): content
            for name, digest in record.arrays.items()
            if (content := self._array_bytes(cell, name, digest)) is not None
        }
        if len(files) == len(record.arrays):  # else the cell is damaged, which was warned about
            write_whole({**files, target: seal_record(renamed.body())})

    def _cells(self, run: str) -> list[Cell]:
        """All cells of a run, also of one without a record."""
        return list(
            dict.fromkeys(Cell(run, one.corruption, one.severity) for one in self.measurements(run))
        )

    def _require_run(self, name: str) -> Run:
        runs = {run.name: run for run in self.runs()}
        return lookup("run", name, runs)

    def discard(self, cell: Cell, fault: str) -> None:
        """Set the record of a cell aside, because its statistics are wrong.

        Args:
            cell: The cell.
            fault: What is wrong, in a few words.
        """
        set_aside(self._cell_path(cell), fault)

    def _run_path(self, name: str) -> Path:
        return self.root / "runs" / f"{safe_name(name)}.json"

    def _groups_path(self, name: str) -> Path:
        return self.root / "groups" / f"{safe_name(name)}.json"

    def _cells_of(self, run: str) -> Path:
        return self.root / "cells" / safe_name(run)

    def _cell_path(self, cell: Cell) -> Path:
        return self._cells_of(cell.run) / array_file(cell, ".json")

    def _cell(self, cell: Cell) -> CellRecord | None:
        return _read_record(self._cell_path(cell), lambda body: CellRecord.from_body(body, cell))

    def _array_bytes(self, cell: Cell, name: str, digest: str) -> bytes | None:
        path = self._cell_path(cell).with_name(name)
        content = read_bytes(path, LARGEST_ARRAYS)
        if content is not None and bytes_sha256(content) == digest:
            return content
        # A record without its arrays is damaged: the cell is evaluated again.
        now = self._cell(cell)
        if now and now.arrays.get(name) == digest:  # else it was replaced in the meantime
            self.discard(cell, f"{name} is missing or altered")
        return None

    def _arrays(self, cell: Cell, suffix: str) -> dict[str, Array] | None:
        record, name = self._cell(cell), array_file(cell, suffix)
        if record is None or name not in record.arrays:
            return None
        content = self._array_bytes(cell, name, record.arrays[name])
        if content is None:
            return None
        try:
            return unpack_arrays(content, record.images if suffix == ARRAY_SUFFIXES[0] else None)
        except ValueError as error:
            self.discard(cell, f"{name}: {error}")
            return None


def _read_record(path: Path, parse: Callable[[dict[str, Any]], Record]) -> Record | None:
    """Read a record; ``None`` if it does not exist, is damaged, or is not a record."""
    try:
        content = read_bytes(path, LARGEST)
        return None if content is None else parse(unseal_record(content, path))
    except DamagedRecordError as error:
        if read_bytes(path, LARGEST) == content:  # else it was replaced in the meantime
            set_aside(path, str(error))
    except (NotARecordError, NotAFileError):
        _warn_of_foreign(path.parent, [path.name])
    return None


def _warn_of_foreign(folder: Path, names: Iterable[str]) -> None:
    names = list(names)
    if names:
        listed = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
        warnings.warn(
            printable(
                f"Ignored {format_count(len(names), 'file')} in {folder} that this library did not"
                f" write: {listed}"
            ),
            stacklevel=2,
        )
