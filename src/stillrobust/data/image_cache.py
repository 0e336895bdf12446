"""Corrupted images kept on disk for the next model: named by what decides their pixels, bounded,
and checked when they are read.

    FOLDER/3f/3f2a….image    SHA-256 of the rest, height and width, then the pixels as they lie in
    memory

An image is written whole (a temporary file, then a rename), so that any number of processes may
share a folder. Each use makes a file younger; the oldest go first. Nothing here decides a number:
what is not there, or is not what it was, is computed.
"""

import hashlib
import json
import os
import struct
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stillrobust.errors import UserError
from stillrobust.samples import Image
from stillrobust.storage.files import replace_file

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = struct.Struct("<II")  # H, W
DIGEST = 32  # bytes
# that may fill a folder at once without passing its bound: each takes a sixteenth of what is free
PROCESSES = 16
FULL, CLEARED = 7 / 8, 3 / 4  # of the bound: when the oldest go, and down to where
STALE_SECONDS = 3600.0  # after which a temporary file is a killed process's


class ImageCache:
    """Images under one folder, at most ``limit`` bytes of them for up to ``PROCESSES`` processes at
    once.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._room = 0  # bytes that may be written before the folder is looked through again
        self._stopped = False
        self._clean: tuple[Image, str] | None = None

    def image(self, clean: Image, how: Mapping[str, Any], make: Callable[[], Image]) -> Image:
        """``make()``, or what it gave before for the same ``clean`` pixels and ``how``: plain
        values, all that decides it.
        """
        key = hashlib.sha256(
            json.dumps({"clean": self._digest(clean), **how}, sort_keys=True).encode()
        ).hexdigest()
        found = self._read(self._path(key))
        if found is None:
            found = make()
            self._write(self._path(key), found)
        return found

    def _digest(self, clean: Image) -> str:
        """Of the clean pixels; the severities of an image ask for it one after the other."""
        if self._clean is None or self._clean[0] is not clean:
            self._clean = clean, hashlib.sha256(_packed(clean)).hexdigest()
        return self._clean[1]

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.image"

    def _read(self, path: Path) -> Image | None:
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:  # not there, or just cleared away by another process
            return None
        found = _unpacked(content)
        if found is None:
            path.unlink(missing_ok=True)
        return found

    def _write(self, path: Path, image: Image) -> None:
        packed = _packed(image)
        size = DIGEST + len(packed)
        try:
            if self._room < size and not self._stopped:
                self._room = self._make_room(size)
            if self._room < size:
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, hashlib.sha256(packed).digest() + packed)
            self._room -= size
        except OSError as error:
            self._room, self._stopped = 0, True
            warnings.warn(
                f"Corrupted images are no longer kept in {self.folder}: {error.strerror}; they are"
                " computed",
                stacklevel=2,
            )

    def _make_room(self, size: int) -> int:
        """Clear the oldest away where there is no room for ``size`` bytes; how many this process
        may write now.
        """
        files, now = [], time.time()
        for path in self.folder.glob("??/*"):
            try:
                about = path.stat()
            except OSError:
                continue
            if path.suffix == ".image":
                files.append((about.st_mtime_ns, about.st_size, path))
            elif now - about.st_mtime > STALE_SECONDS:
                path.unlink(missing_ok=True)
        total = sum(there for _, there, _ in files)
        if self.limit - total < max((1 - FULL) * self.limit, size * PROCESSES):
            for _, there, path in sorted(files):
                if total <= CLEARED * self.limit:
                    break
                path.unlink(missing_ok=True)
                total -= there
        return max(0, int(self.limit - total) // PROCESSES)


def _packed(image: Image) -> bytes:
    return SIZE.pack(*image.shape[:2]) + np.ascontiguousarray(image).tobytes()


def _unpacked(content: bytes) -> Image | None:
    """uint8 (H, W, 3), or ``None`` where the content is not what was written."""
    packed = memoryview(content)[DIGEST:]
    if len(packed) < SIZE.size or hashlib.sha256(packed).digest() != content[:DIGEST]:
        return None
    pixels: Image = (
        np.frombuffer(packed[SIZE.size :], np.uint8).reshape(*SIZE.unpack_from(packed), 3).copy()
    )
    return pixels


def parse_size(text: str) -> int:
    """``20GB`` -> 20,000,000,000. Raises ``UserError``."""
    number, unit = text.strip()[:-2], text.strip()[-2:].upper()
    try:
        size = int(float(number) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UserError(
            f"Expected a size such as 500MB, 20GB or 1TB, but got {text!r}; write a number and its"
            " unit"
        )
    return size
