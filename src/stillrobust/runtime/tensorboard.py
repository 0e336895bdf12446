"""Numbers over the steps of a training, as the event file that TensorBoard reads; nothing but
Python is needed to write it.

A file is a row of records: length (uint64), its masked CRC-32C, an ``Event`` protocol buffer, its
masked CRC-32C (TensorFlow, core/lib/io/record_writer.h and core/util/event.proto).
"""

import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.storage.files import write_whole

EVENTS = "events.out.tfevents.training"
"""The name of the file; TensorBoard looks for ``tfevents`` in it."""
POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reversed
MASK = 0xA282EAD8  # core/lib/hash/crc32c.h
VERSION = b"brain.Event:2"  # the first record of every file


class Scalars:
    """The event file in a run's folder.

    A training that goes on from ``step`` keeps what was written up to there, and no more.

    Watching must not stop the work: once the file cannot be written, nothing more is.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path: Path | None = folder / EVENTS
        kept = [event for event in _events(folder / EVENTS) if 0 < step_of(event) <= step]
        try:
            write_whole(
                {folder / EVENTS: b"".join(map(_record, [_event(0, _bytes(3, VERSION)), *kept]))}
            )
        except UserError:
            self.path = None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One point of every curve."""
        if self.path is None:
            return
        shown = [
            _bytes(1, _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
            for tag, value in values.items()
        ]
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(_record(_event(step, _bytes(5, b"".join(shown)))))
        except OSError:
            self.path = None


def step_of(event: bytes) -> int:
    """The step of an event that was written here: its second field, after the time."""
    value = shift = 0
    for byte in event[10:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value


def _events(path: Path) -> Iterator[bytes]:
    """The whole events of a file, up to the first that is cut off or altered."""
    content = path.read_bytes() if path.is_file() else b""
    place = 0
    while place + 12 <= len(content):
        (size,) = struct.unpack_from("<Q", content, place)
        event = content[place + 12 : place + 12 + size]
        if content[place : place + 16 + size] != _record(event):
            return
        yield event
        place += 16 + size


def _event(step: int, content: bytes) -> bytes:
    """``wall_time`` (field 1, double), ``step`` (field 2), and a field that is encoded already."""
    return b"\x09" + struct.pack("<d", time.time()) + b"\x10" + _varint(step) + content


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return (
        length
        + struct.pack("<I", _masked_crc(length))
        + event
        + struct.pack("<I", _masked_crc(event))
    )


def _bytes(field: int, content: bytes) -> bytes:
    """A field of text, bytes or a message."""
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def _masked_crc(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF
