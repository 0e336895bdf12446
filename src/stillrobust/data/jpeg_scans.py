"""Find out whether the picture data of a JPEG are complete, also behind a repaired end marker.

Decoders give the rest of a cut JPEG as grey, with a warning on the terminal at most. Only a file
whose last pixel is that grey is counted through, so reading stays fast.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stillrobust.samples import Array

# Markers as libjpeg finds them. Scan data hold FF only before 00 and the restart markers D0 to D7;
# FF FF is padding.
MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
ALONE = frozenset({0x01, 0xD8})  # markers without content, like the end marker D9
HUFFMAN, RESTART_INTERVAL, SCAN, END = 0xC4, 0xDD, 0xDA, 0xD9
FRAMES = frozenset({*range(0xC0, 0xD0)} - {HUFFMAN, 0xC8, 0xCC})
SEQUENTIAL, PROGRESSIVE = frozenset({0xC0, 0xC1}), 0xC2  # with Huffman codes
AC_TABLE = 16  # added to the number of a table of AC coefficients
MISSING_GREY = 128  # of samples that are not in the file


@dataclass(frozen=True)
class Component:
    """A colour component as the frame states it."""

    horizontal: int
    vertical: int
    """Sampling factors."""


@dataclass(frozen=True)
class Scan:
    """The header of a scan, and where its data begin."""

    tables: dict[int, tuple[int, int]]
    """Component -> its Huffman tables (DC, AC)."""
    first: int
    last: int
    """Coefficients, 0..63."""
    low: int
    """Bits that a later scan refines."""
    start: int


@dataclass
class JpegLayout:
    """What the headers of a JPEG state."""

    has_end: bool = False
    frame: int = 0
    """Marker of the frame; 0 if there is none."""
    bits: int = 8
    height: int = 0
    width: int = 0
    components: dict[int, Component] = field(default_factory=dict)
    scans: list[Scan] = field(default_factory=list)
    restart_interval: int = 0
    huffman: dict[int, bytes] = field(default_factory=dict)
    """Class and number of a table -> its 16 counts and its symbols, as of the last scan."""
    end: int = 0
    """Where the data of the last scan end."""


def parse_jpeg(content: bytes) -> JpegLayout:
    """Read the headers of a JPEG up to its end marker.

    Markers within segments, such as those of a thumbnail, and trailing data do not count.

    Args:
        content: The file's bytes.

    Returns:
        The layout. Values that are damaged keep their defaults.
    """
    layout, place = JpegLayout(), 2
    while marker := MARKER.search(content, place):
        kind, place = content[marker.start() + 1], marker.end()
        layout.end = marker.start()
        if kind == END:
            layout.has_end = True
            return layout
        if kind in ALONE:
            continue
        length = int.from_bytes(content[place : place + 2], "big")
        segment = content[place + 2 : place + length]
        place += length
        if kind in FRAMES and len(segment) > 5 and len(segment) >= 6 + 3 * segment[5]:
            _parse_frame(layout, kind, segment)
        elif kind == HUFFMAN:
            _parse_huffman_tables(layout, segment)
        elif kind == RESTART_INTERVAL and len(segment) == 2:
            layout.restart_interval = int.from_bytes(segment, "big")
        elif kind == SCAN and segment and len(segment) == 4 + 2 * segment[0]:
            pairs = zip(segment[1:-3:2], segment[2:-3:2], strict=True)
            tables = {number: (both >> 4, both & 15) for number, both in pairs}
            layout.scans.append(Scan(tables, segment[-3], segment[-2], segment[-1] & 15, place))
    return layout


def _parse_frame(layout: JpegLayout, kind: int, segment: bytes) -> None:
    layout.frame, layout.bits = kind, segment[0]
    layout.height, layout.width = (
        int.from_bytes(segment[begin : begin + 2], "big") for begin in (1, 3)
    )
    for begin in range(6, 6 + 3 * segment[5], 3):
        sampling = segment[begin + 1]
        layout.components[segment[begin]] = Component(sampling >> 4, sampling & 15)


def _parse_huffman_tables(layout: JpegLayout, segment: bytes) -> None:
    while len(segment) > 17:
        size = 17 + sum(segment[1:17])
        layout.huffman[segment[0]] = segment[1:size]
        segment = segment[size:]


def has_all_scans(layout: JpegLayout) -> bool:
    """Whether the scans hold every bit of every coefficient of every component.

    Of a progressive JPEG that is cut, the last scans are missing, and all of it is blurred.
    """
    if layout.frame != PROGRESSIVE and layout.frame not in SEQUENTIAL:
        return True
    missing = {number: [-1] * 64 for number in layout.components}
    for scan in layout.scans:
        last = 63 if layout.frame in SEQUENTIAL else scan.last
        for number in scan.tables.keys() & missing.keys():
            missing[number][scan.first : last + 1] = [scan.low] * (last + 1 - scan.first)
    return not any(any(bits) for bits in missing.values())


def may_lack_data(layout: JpegLayout, last_pixels: Sequence[Sequence[int]]) -> bool:
    """Whether the decoded picture could end with samples that the file does not have.

    Args:
        layout: Headers of the JPEG.
        last_pixels: RGB of the picture's corners; one of them is the last pixel in the file.
    """
    if layout.frame not in SEQUENTIAL:
        return False
    if len(layout.components) > 3 or len(layout.scans) > 1:  # missing samples have other colours
        return True
    return any(all(value == MISSING_GREY for value in pixel) for pixel in last_pixels)


def has_all_blocks(content: bytes, layout: JpegLayout) -> bool:
    """Whether the last scan of a sequential JPEG has the data of all its blocks.

    Args:
        content: The file's bytes.
        layout: Its headers; the frame is sequential.
    """
    from stillrobust.data.jpeg_blocks import count_whole_units  # loads numba

    scan = layout.scans[-1]
    if any(number not in layout.components for number in scan.tables):
        return False
    numbers = sorted(layout.huffman)
    try:
        tables = np.stack([_lookup_table(layout.huffman[number]) for number in numbers])
        blocks = np.array(
            [
                (numbers.index(direct), numbers.index(AC_TABLE + other))
                for number, (direct, other) in scan.tables.items()
                for _ in range(_blocks_per_unit(layout, scan, number))
            ]
        )
        remaining = _count_units(layout, scan)
    except (IndexError, ValueError, ZeroDivisionError):  # a table or the frame is damaged
        return False
    for part in RESTART.split(content[scan.start : layout.end]):
        units = min(remaining, layout.restart_interval or remaining)
        data = part.replace(b"\xff\x00", b"\xff")
        padded = np.frombuffer(data + bytes(8), np.uint8)
        if count_whole_units(padded, 8 * len(data), tables, blocks, units) < units:
            return False
        remaining -= units
    return remaining == 0


def _blocks_per_unit(layout: JpegLayout, scan: Scan, number: int) -> int:
    if len(scan.tables) == 1:
        return 1
    component = layout.components[number]
    return component.horizontal * component.vertical


def _count_units(layout: JpegLayout, scan: Scan) -> int:
    """Number of the scan's coded units (MCUs)."""
    components = layout.components.values()
    across = 8 * max(component.horizontal for component in components)
    down = 8 * max(component.vertical for component in components)
    if len(scan.tables) == 1:
        component = layout.components[next(iter(scan.tables))]
        across, down = across // component.horizontal, down // component.vertical
    return -(-layout.width // across) * -(-layout.height // down)


def _lookup_table(packed: bytes) -> Array:
    """The next 16 bits -> length of the code times 256 plus its symbol, 0 if there is none."""
    table = np.zeros(1 << 16, np.uint16)
    code, symbol = 0, 16
    for length in range(1, 17):
        for _ in range(packed[length - 1]):
            begin = code << (16 - length)
            table[begin : begin + (1 << (16 - length))] = (length << 8) | packed[symbol]
            code, symbol = code + 1, symbol + 1
        code <<= 1
    return table
