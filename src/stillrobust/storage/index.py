"""An index of the records in a folder, so that listing a large store reads one file per run.

``cells/<run>/.listing`` has one line per record: a checksum, then as JSON the record's name, its
file stat (size, time, inode) and its body without the digests of its arrays, then a tab and its
protocol. A line is used while the stat of the record is unchanged. Otherwise the record is read and
the index rewritten. A lost, torn or outdated index costs time only: the records are the truth.
"""

import json
import os
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stillrobust.storage.files import replace_file

LISTING = ".listing"
# file systems may tick in milliseconds or slower: a record that just changed is always read
SETTLED_SECONDS = 2.0
FileStat = list[int]


def append_record(record: Path, body: Mapping[str, Any]) -> None:
    """Add a record that was just written to the index of its folder.

    A failure is ignored: the record is then read when it is listed.

    Args:
        record: Path of the record's JSON file.
        body: Content of the record.
    """
    try:
        line = _line(record.name, _file_stat(record.stat()), body)
        # one write per line, so that processes do not interleave
        with record.with_name(LISTING).open("ab", buffering=0) as file:
            file.write(line)
    except OSError:
        return


def read_bodies(
    folder: Path, read: Callable[[Path], dict[str, Any] | None]
) -> list[dict[str, Any]]:
    """Return the contents of all undamaged records in a folder, sorted by name.

    Args:
        folder: Folder of records. A missing folder is empty.
        read: Reads one record; returns ``None`` for a damaged one.
    """
    try:
        with os.scandir(folder) as entries:
            records = {
                entry.name: entry.stat()
                for entry in entries
                if entry.name.endswith(".json") and entry.name[0] != "."
            }
    except OSError:
        return []
    known = _read_index(folder / LISTING)
    newest = time.time() - SETTLED_SECONDS
    found: dict[str, dict[str, Any]] = {}
    stale = False
    for name in sorted(records):
        stat, body = known.get(name, (None, None))
        matches = stat == _file_stat(records[name])
        if body is None or not matches or records[name].st_mtime > newest:
            body = read(folder / name)
        if body is not None:
            found[name] = body
            stale = stale or not matches
    if stale:
        _rewrite(
            folder / LISTING,
            {name: (_file_stat(records[name]), body) for name, body in found.items()},
        )
    return list(found.values())


def _file_stat(stat: os.stat_result) -> FileStat:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _line(name: str, stat: FileStat, body: Mapping[str, Any]) -> bytes:
    kept = {key: value for key, value in body.items() if key not in ("arrays", "protocol")}
    content = "\t".join(
        json.dumps(part, separators=(",", ":")) for part in ([name, stat, kept], body["protocol"])
    ).encode()
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _read_index(path: Path) -> dict[str, tuple[FileStat, dict[str, Any]]]:
    """Return stat and body by record name. The last line of a record wins."""
    known: dict[str, tuple[FileStat, dict[str, Any]]] = {}
    protocols: dict[bytes, dict[str, Any]] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return {}
    for line in lines:
        content = line[9:]
        if content and line[:8] == b"%08x" % zlib.crc32(content):
            own, _, protocol = content.partition(b"\t")
            try:
                if protocol not in protocols:
                    protocols[protocol] = json.loads(protocol)
                name, stat, body = json.loads(own)
                known[name] = (stat, body | {"protocol": protocols[protocol]})
            except (ValueError, TypeError):
                continue  # written by something else
    return known


def _rewrite(path: Path, known: Mapping[str, tuple[FileStat, dict[str, Any]]]) -> None:
    try:
        replace_file(
            path, b"".join(_line(name, stat, body) for name, (stat, body) in known.items())
        )
    except OSError:
        return  # a read-only store
