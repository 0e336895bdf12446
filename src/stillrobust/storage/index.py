"""What the records of one folder say, kept once more in one file, so that listing a large store
need not open every record.

``cells/<run>/.listing`` holds a line for each record: a checksum, then as JSON the record's name,
its mark (size, time, inode) and its body without the digests of its arrays, and after a tab its
protocol, which is mostly that of the line before. A line is believed while the record still has
that mark; else the record is read, and the file is written anew. What is lost, torn or old here
costs time and never truth: the records alone count.
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
# a file system's clock ticks in milliseconds: what changed just now is read, whatever its mark says
SETTLED_SECONDS = 2.0
Mark = list[int]


def append(record: Path, body: Mapping[str, Any]) -> None:
    """Put down what the record that was just written says.

    Where that cannot be, the record is read when it is listed.
    """
    try:
        line = _line(record.name, _mark(record.stat()), body)
        # one write a line: several processes do not mix
        with record.with_name(LISTING).open("ab", buffering=0) as file:
            file.write(line)
    except OSError:
        return


def bodies(folder: Path, read: Callable[[Path], dict[str, Any] | None]) -> list[dict[str, Any]]:
    """The bodies of all whole records in ``folder``, by name; ``read`` reads one, or says that it
    is not whole.
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
    known = _known(folder / LISTING)
    newest = time.time() - SETTLED_SECONDS
    found: dict[str, dict[str, Any]] = {}
    stale = False
    for name in sorted(records):
        mark, body = known.get(name, (None, None))
        matches = mark == _mark(records[name])
        if body is None or not matches or records[name].st_mtime > newest:
            body = read(folder / name)
        if body is not None:
            found[name] = body
            stale = stale or not matches
    if stale:
        _rewrite(
            folder / LISTING, {name: (_mark(records[name]), body) for name, body in found.items()}
        )
    return list(found.values())


def _mark(stat: os.stat_result) -> Mark:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _line(name: str, mark: Mark, body: Mapping[str, Any]) -> bytes:
    kept = {key: value for key, value in body.items() if key not in ("arrays", "protocol")}
    content = "\t".join(
        json.dumps(part, separators=(",", ":")) for part in ([name, mark, kept], body["protocol"])
    ).encode()
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _known(path: Path) -> dict[str, tuple[Mark, dict[str, Any]]]:
    """Name -> mark and body; of several lines on one record the last."""
    known: dict[str, tuple[Mark, dict[str, Any]]] = {}
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
                name, mark, body = json.loads(own)
                known[name] = (mark, body | {"protocol": protocols[protocol]})
            except (ValueError, TypeError):
                continue  # none of ours, whatever its checksum says
    return known


def _rewrite(path: Path, known: Mapping[str, tuple[Mark, dict[str, Any]]]) -> None:
    try:
        replace_file(
            path, b"".join(_line(name, mark, body) for name, (mark, body) in known.items())
        )
    except OSError:
        return  # a store that may only be read
