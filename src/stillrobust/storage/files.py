"""Files: atomic writes, fsync, and names by content.

Everything that writes a file which must survive a crash goes through this module. Writers put the
content under a temporary name first, flush it to the disk, and rename it.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from stillrobust.errors import UserError
from stillrobust.untrusted import open_regular_file, printable, read_regular_file
from stillrobust.untrusted.files import LARGEST

LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}")  # the names of :func:`temporary_path`

_outputs: Counter[Path] = Counter()
"""Folders that this process is writing into."""


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Create a folder, and do not create it again while the context is active.

    If somebody renames or removes the folder in the meantime, writing into it raises an error.

    Args:
        folder: The folder of a running command.

    Raises:
        UserError: If the folder cannot be created.
    """
    place = folder.absolute()
    try:
        make_folder(place)
    except OSError as error:
        raise UserError(
            f"Cannot write {folder} ({error.strerror or error}); free some space or choose another"
            " folder"
        ) from None
    _outputs[place] += 1
    try:
        yield
    finally:
        _outputs[place] -= 1
        if not _outputs[place]:
            del _outputs[place]


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, unless an ``output_folder`` among them is gone.

    Raises:
        UserError: If it is gone.
        OSError: If the folder cannot be created.
    """
    place = folder.absolute()
    for output in list(_outputs):  # threads write, too
        if place.is_relative_to(output):
            require_folder(output)
    place.mkdir(parents=True, exist_ok=True)


def require_folder(output: Path) -> None:
    """Check that the output folder of a running command still exists.

    Raises:
        UserError: If it does not.
    """
    if not output.is_dir():
        raise UserError(
            f"{output} was renamed or removed while this command wrote into it. Finished work is"
            " kept where it is now; move the folder back, then start again"
        )


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Write files so that each is complete or unchanged.

    All contents are on the disk under temporary names before the first file is renamed. A full disk
    therefore changes nothing.

    Args:
        files: Content by path. Files are renamed in this order. Parent folders are created.

    Raises:
        UserError: If a file cannot be written.
    """
    staged: list[tuple[Path, Path]] = []
    target = Path()
    try:
        for target, content in files.items():
            make_folder(target.parent)
            staged.append((temporary_path(target), target))
            with staged[-1][0].open("xb") as file:
                file.write(content)
                flush_to_disk(file)
        for written, target in staged:
            written.replace(target)
        for folder in {target.parent for target in files}:
            _sync_folder(folder)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}. Existing files are unchanged; free"
            " some space or choose a folder you may write to, then start again"
        ) from error
    finally:
        for written, _ in staged:
            _remove(written)


def move_into_place(written: Path, target: Path) -> None:
    """Flush a complete file to the disk and rename it to ``target``, which is replaced.

    Args:
        written: A file in the same file system as ``target``; see :func:`temporary_path`.
        target: The final path.

    Raises:
        OSError: If flushing or renaming fails.
    """
    with written.open("rb+") as file:
        flush_to_disk(file)
    written.replace(target)
    _sync_folder(target.parent)


def replace_file(target: Path, content: bytes) -> None:
    """Replace a file atomically, without waiting for the disk.

    For files that may be lost in a power failure: readers never see half a file.

    Raises:
        OSError: If the file cannot be written.
    """
    written = temporary_path(target)
    try:
        written.write_bytes(content)
        written.replace(target)
    finally:
        _remove(written)


def temporary_path(target: Path) -> Path:
    """Return a hidden, unique path beside ``target`` for content that is not complete yet."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}")


def clear_leftovers(folder: Path, prefix: str = "") -> None:
    """Remove temporary files that killed processes left behind.

    The caller must hold the lease on these files, so that no other process is writing them.

    Args:
        folder: Folder to clear. A missing folder is skipped.
        prefix: Beginning of the final names whose leftovers are removed (default: all).
    """
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.name.startswith(f".{prefix}") and LEFTOVER.fullmatch(path.name)
        ]
    except OSError:
        return
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            _remove(path)


def set_aside(path: Path, reason: str) -> None:
    """Rename a damaged file to ``*.damaged`` and warn with ``reason``."""
    warnings.warn(
        printable(f"{path} counts as missing and is set aside as {path.name}.damaged: {reason}"),
        stacklevel=2,
    )
    try:
        path.replace(path.with_name(f"{path.name}.damaged"))
    except OSError:
        return  # a read-only folder: the record still counts as missing


def read_bytes(path: Path, largest: int = LARGEST) -> bytes | None:
    """Return the content of a file, or ``None`` if it does not exist.

    Args:
        path: The file.
        largest: Most bytes that it may have.

    Raises:
        NotAFileError: If it is a device, a pipe or a folder, or too large.
        UserError: If the file exists and cannot be read.
    """
    try:
        return read_regular_file(path, largest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror or error}; check the folder"
        ) from error


def remove_file(path: Path) -> None:
    """Remove a file, if it exists.

    Raises:
        UserError: If it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot remove {path}: {error.strerror or error}; check the permissions of its folder"
        ) from error


def flush_to_disk(file: IO[Any]) -> None:
    """Flush an open file and wait until its content is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows does not open folders; the files themselves are on the disk
    try:
        os.fsync(descriptor)
    except OSError:
        return  # some network file systems refuse this
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # hidden and never read; it costs only space


def bytes_sha256(content: bytes) -> str:
    """Return the SHA-256 of ``content`` as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    with open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _cached_sha256(path: str, *stat: int) -> str:
    return file_sha256(Path(path))


def cached_file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file. It is recomputed only if size, times or inode change."""
    stat = path.stat()
    return _cached_sha256(
        str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
    )


def file_matches(path: Path, sha256: str) -> bool:
    """Return whether a file exists and has this SHA-256 (64 hex digits).

    Raises:
        UserError: If the file exists and cannot be read.
    """
    try:
        return cached_file_sha256(path) == sha256
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(
            f"Cannot read {path} ({error.strerror or error}). Finished work is kept; start again"
            " when the folder is available"
        ) from None


def content_key(mapping: Mapping[str, Any]) -> str:
    """Return 16 hex digits that identify the content of a mapping in any key order."""
    return bytes_sha256(canonical_json(mapping))[:16]


def canonical_json(value: Any) -> bytes:
    """Serialise a value as JSON with sorted keys, so that equal values give equal bytes.

    Raises:
        UserError: If the value holds anything but text, finite numbers, lists and mappings.
    """
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))  # turns every key into text
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            "Expected plain values (text, finite numbers, lists, mappings) in a record, but"
            f" {error}; convert them"
        ) from error
