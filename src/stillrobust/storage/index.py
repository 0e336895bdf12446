"""An index of the records in a folder, so that listing a large store reads one file per run.

``cells/<run>/.listing`` has one line per record: a checksum, then as JSON the record's name, its
file stat (size, time, inode) and its body without the digests of its arrays, then a tab and its
protocol. A line is used while the stat of the record is unchanged. Otherwise the record is read and
the index rewritten. A lost, torn or outdated index costs time only: the records are the truth. A
line goes through the same validation as a record.
"""

import contextlib
import json
import os
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stillrobust.grid import Cell
from stillrobust.storage.files import canonical_json, replace_file
from stillrobust.storage.records import LARGEST, CellRecord, cell_of_file, check_protocol
from stillrobust.untrusted import NotAFileError, parse_json, read_regular_file

LISTING = ".listing"
# file systems may tick in milliseconds or slower: a record that just changed is always read
SETTLED_SECONDS = 2.0
FileStat = list[int]


def append_record(path: Path, record: CellRecord) -> None:
    """Add a record that was just written to the index of its folder.

    A failure is ignored: the record is then read when it is listed.

    Args:
        path: Path of the record's JSON file.
        record: The record.
    """
    try:
        line = _line(path.name, _file_stat(path.stat()), record)
        # one write per line, so that processes do not interleave
        with path.with_name(LISTING).open("ab", buffering=0) as file:
            file.write(line)
    except OSError:
        return


def read_records(
    folder: Path, read: Callable[[Cell], CellRecord | None]
) -> tuple[list[CellRecord], list[str]]:
    """Return all undamaged records in a folder.

    Args:
        folder: Folder of the records of a run. A missing folder is empty.
        read: Reads the record of a cell; returns ``None`` for a damaged one.

    Returns:
        The records sorted by file name, and the names of JSON files that no record has.
    """
    stats = _json_files(folder)
    cells = {name: cell_of_file(folder.name, name) for name in sorted(stats)}
    known = _read_index(folder / LISTING, cells)
    newest = time.time() - SETTLED_SECONDS
    found: dict[str, CellRecord] = {}
    stale = False
    for name, cell in cells.items():
        if cell is None:
            continue
        stat, record = known.get(name, (None, None))
        matches = stat == _file_stat(stats[name])
        if record is None or not matches or stats[name].st_mtime > newest:
            record = read(cell)
        if record is not None:
            found[name] = record
            stale = stale or not matches
    if stale:
        _rewrite(
            folder / LISTING,
            {name: (_file_stat(stats[name]), record) for name, record in found.items()},
        )
    return list(found.values()), [name for name, cell in cells.items() if cell is None]


def _json_files(folder: Path) -> dict[str, os.stat_result]:
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and entry.name[0] != ".":
                    with contextlib.suppress(OSError):  # removed meanwhile, or a broken link
                        found[entry.name] = entry.stat()
    except OSError:
        return {}
    return found


def _file_stat(stat: os.stat_result) -> FileStat:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _line(name: str, stat: FileStat, record: CellRecord) -> bytes:
    body = record.body()
    kept = {key: value for key, value in body.items() if key not in ("arrays", "protocol")}
    content = "\t".join(
        json.dumps(part, separators=(",", ":")) for part in ([name, stat, kept], body["protocol"])
    ).encode()
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _read_index(
    path: Path, cells: Mapping[str, Cell | None]
) -> dict[str, tuple[FileStat, CellRecord]]:
    """Return stat and record by file name. The last line of a record wins."""
    known: dict[str, tuple[FileStat, CellRecord]] = {}
    protocols: dict[bytes, dict[str, Any]] = {}
    parse = json.JSONDecoder().raw_decode
    try:
        lines = read_regular_file(path, LARGEST).split(b"\n")
    except (OSError, NotAFileError):
        return {}
    for line in lines:
        content = line[9:]
        if content and line[:8] == b"%08x" % zlib.crc32(content):
            own, _, protocol = content.partition(b"\t")
            try:
                if protocol not in protocols:
                    protocols[protocol] = _protocol(protocol)
                (name, stat, body), _ = parse(own.decode())
                if (cell := cells.get(name)) is not None:
                    known[name] = stat, CellRecord.from_body(body, cell, protocols[protocol])
            except (ValueError, TypeError, AttributeError, RecursionError):
                continue  # written by something else
    return known


def _protocol(content: bytes) -> dict[str, Any]:
    """Parse and check a protocol once for all records that share it."""
    protocol: dict[str, Any] = parse_json(content)
    check_protocol(protocol)
    canonical_json(protocol)  # no infinite number, no invalid text
    return protocol


def _rewrite(path: Path, known: Mapping[str, tuple[FileStat, CellRecord]]) -> None:
    try:
        replace_file(
            path, b"".join(_line(name, stat, record) for name, (stat, record) in known.items())
        )
    except OSError:
        return  # a read-only store
