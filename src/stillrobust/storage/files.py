"""Files: written whole or not at all, read or found missing, and named by their content."""

import hashlib
import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from stillrobust.errors import UserError

LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}")  # the names of :func:`temporary`


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Write files, each whole or not at all, and put them in place in the order given.

    All are on the disk under temporary names before the first is put in place: a full disk changes
    nothing.
    """
    staged: list[tuple[Path, Path]] = []
    target = Path()
    try:
        for target, content in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.append((temporary(target), target))
            with staged[-1][0].open("xb") as file:
                file.write(content)
                sync(file)
        for written, target in staged:
            written.replace(target)
        for folder in {target.parent for target in files}:
            _sync_folder(folder)
    except OSError as error:
        raise UserError(
            f"Expected to write {target}, but {error.strerror or error}; what was there is"
            " unchanged: free some space or choose a folder you may write to, then start again"
        ) from error
    finally:
        for written, _ in staged:
            _remove(written)


def replace_file(target: Path, content: bytes) -> None:
    """Write one file whole that can be spared: it may be lost when the machine stops, but is never
    half there.

    Raises ``OSError`` where it cannot be written.
    """
    written = temporary(target)
    try:
        written.write_bytes(content)
        written.replace(target)
    finally:
        _remove(written)


def temporary(target: Path) -> Path:
    """A name beside ``target`` for what is not whole yet: hidden, never read, taken by nobody else."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}")


def clear_leftovers(folder: Path, of: str = "") -> None:
    """Remove what killed processes left in ``folder`` half-written, of files whose names begin with
    ``of``.

    To be called by who holds the lease on those files: nobody else is writing them.
    """
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.name.startswith(f".{of}") and LEFTOVER.fullmatch(path.name)
        ]
    except OSError:
        return  # nothing is there
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            _remove(path)


def set_aside(path: Path, reason: str) -> None:
    """Rename what is not to be believed to ``*.damaged``, with a warning of one line."""
    warnings.warn(
        f"{path} counts as missing and is set aside as {path.name}.damaged: {reason}", stacklevel=2
    )
    try:
        path.replace(path.with_name(f"{path.name}.damaged"))
    except OSError:
        return  # a folder that may only be read: the record still counts as missing


def read_bytes(path: Path) -> bytes | None:
    """The content of a file; ``None`` where there is none, ``UserError`` where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"Expected to read {path}, but {error.strerror or error}: check the folder"
        ) from error


def sync(file: IO[Any]) -> None:
    """Have what was written to an open file on the disk."""
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


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _sha256(path: str, *mark: int) -> str:
    return sha256_of(Path(path))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, computed once a process while the file stays as it is."""
    about = path.stat()
    return _sha256(
        str(path.resolve()), about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino
    )


def content_key(mapping: Mapping[str, Any]) -> str:
    """16 hex digits that name the content of a mapping, whatever the order of its keys."""
    return hashlib.sha256(canonical(mapping)).hexdigest()[:16]


def canonical(value: Any) -> bytes:
    """One text for one value: as JSON reads it back, for JSON turns every key of a mapping into
    text.
    """
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            "Expected plain values (text, finite numbers, lists, mappings) in a record, but"
            f" {error}; convert them"
        ) from error
