"""A cache of corrupted images on disk, so that several models share the work.

    FOLDER/3f/3f2a….image    SHA-256 of the rest, then height and width, then the pixels

The file name is a hash of everything that determines the pixels. Any number of processes may share
a folder, because a file is written under a temporary name and renamed. The cache has a size limit,
and the least recently used files are deleted first. It never changes a result: a missing or damaged
image is computed.
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
from stillrobust.storage.files import make_folder, replace_file

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = struct.Struct("<II")  # H, W
DIGEST = 32  # bytes
# Processes that can fill a folder at once without exceeding its limit: each takes a 16th of the
# free space.
PROCESSES = 16
FULL, CLEARED = 7 / 8, 3 / 4  # fractions of the limit: when files are deleted, and how many
STALE_SECONDS = 3600.0  # after this time a temporary file belongs to a killed process


class ImageCache:
    """Corrupted images in one folder.

    Args:
        folder: Folder of the cache. Created if missing.
        limit: Upper limit in bytes, for up to ``PROCESSES`` processes at once.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._room = 0  # bytes that may be written before the folder is looked through again
        self._stopped = False
        self._clean: tuple[Image, str] | None = None

    def image(self, clean: Image, how: Mapping[str, Any], make: Callable[[], Image]) -> Image:
        """Return a corrupted image from the cache, or compute and store it.

        Args:
            clean: The clean image, uint8 (H, W, 3).
            how: JSON values that determine the result together with ``clean``.
            make: Computes the corrupted image.

        Returns:
            uint8 (H, W, 3).
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
        """SHA-256 of the clean pixels, kept for the next severity of the same image."""
        if self._clean is None or self._clean[0] is not clean:
            self._clean = clean, hashlib.sha256(_pack(clean)).hexdigest()
        return self._clean[1]

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.image"

    def _read(self, path: Path) -> Image | None:
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:  # not there, or just cleared away by another process
            return None
        found = _unpack(content)
        if found is None:
            path.unlink(missing_ok=True)
        return found

    def _write(self, path: Path, image: Image) -> None:
        packed = _pack(image)
        size = DIGEST + len(packed)
        try:
            if self._room < size and not self._stopped:
                self._room = self._make_room(size)
            if self._room < size:
                return
            make_folder(path.parent)
            replace_file(path, hashlib.sha256(packed).digest() + packed)
            self._room -= size
        except OSError as error:
            self._room, self._stopped = 0, True
            warnings.warn(
                f"Corrupted images are no longer stored in {self.folder}: {error.strerror}; they"
                " are computed instead",
                stacklevel=2,
            )

    def _make_room(self, size: int) -> int:
        """Delete old files if the cache is nearly full; the bytes that this process may write."""
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


def _pack(image: Image) -> bytes:
    return SIZE.pack(*image.shape[:2]) + np.ascontiguousarray(image).tobytes()


def _unpack(content: bytes) -> Image | None:
    """uint8 (H, W, 3), or ``None`` if the content is damaged."""
    packed = memoryview(content)[DIGEST:]
    if len(packed) < SIZE.size or hashlib.sha256(packed).digest() != content[:DIGEST]:
        return None
    pixels: Image = (
        np.frombuffer(packed[SIZE.size :], np.uint8).reshape(*SIZE.unpack_from(packed), 3).copy()
    )
    return pixels


def parse_size(text: str) -> int:
    """Parse a size with a unit.

    Args:
        text: Such as ``20GB``; units are MB, GB and TB.

    Returns:
        The number of bytes.

    Raises:
        UserError: If the text is not a positive size.
    """
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
