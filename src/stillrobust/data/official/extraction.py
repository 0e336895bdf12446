"""Archives of strangers, unpacked: nothing leaves the folder, nothing fills the disk, and the
result is whole or not there.

What is refused: absolute names, ``..``, drives, links, devices, a name that comes twice, more bytes
or files than the caller allows (counted as they are written, whatever the headers say), and
archives that are cut off.
"""

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from stillrobust.errors import UserError

BLOCK = 1 << 20  # bytes copied at a time
# bytes of headers and padding a file may have in a tar: two headers of a block, a long name,
# padding
TAR_OVERHEAD = 4096

Listen = Callable[[int], None]  # the number of files unpacked so far


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to."""

    size: int
    """Bytes of all files together."""
    files: int


class _RefusedError(Exception):
    """Why an archive is refused."""


def unpack(
    archive: Path, target: Path, limits: Limits, listen: Listen = lambda files: None
) -> list[str]:
    """Unpack a zip or (compressed) tar into the folder ``target``; returns the names it has at the
    top.

    All is unpacked beside ``target`` first and moved into place at the end, so that a name that is
    there is whole. Raises ``UserError`` for an archive that is refused or damaged, for a name that
    ``target`` has already, and for a full disk.
    """
    staging = staging_folder(archive, target)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        members = (
            _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive, limits)
        )
        _write_members(members, staging, limits, listen)
        names = sorted(path.name for path in staging.iterdir())
        there = [name for name in names if (target / name).exists()]
        if there:
            raise UserError(
                f"Expected to unpack {archive.name} into {target}, but {there[0]!r} is there"
                " already; move it away"
            )
        for name in names:
            (staging / name).rename(target / name)
        return names
    except _RefusedError as refusal:
        raise UserError(
            f"Expected plain files inside {archive}, but {refusal}; nothing was unpacked, do not"
            " use it"
        ) from None
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"Expected a whole zip or tar archive at {archive}, but it is damaged; download it"
            " again"
        ) from None
    except OSError as error:
        raise UserError(
            f"Expected to unpack {archive} into {target}, but: {error.strerror or error}; free some"
            " space, or download it again"
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def staging_folder(archive: Path, target: Path) -> Path:
    """Where an archive is unpacked before it is moved into ``target``; what is there is left of a
    run that was killed.
    """
    return target / f".{archive.name}.unpacking"


def _write_members(
    members: Iterator[tuple[str, IO[bytes] | None]], staging: Path, limits: Limits, listen: Listen
) -> None:
    size = files = 0
    for name, content in members:
        files += 1
        if files > limits.files:
            raise _RefusedError(f"it has more than {limits.files:,} files and folders")
        path = staging / _safe(name)
        try:
            (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
            if content is None:
                continue
            file = path.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise _RefusedError(f"it holds {name!r:.100} twice") from None
        with file:
            while block := content.read(BLOCK):
                size += len(block)
                if size > limits.size:
                    raise _RefusedError(f"it unpacks to more than {limits.size:,} bytes")
                file.write(block)
        listen(files)


def _safe(name: str) -> PurePosixPath:
    """The path of a member, relative and inside."""
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    inside = (
        not path.is_absolute()
        and not windows.drive
        and not windows.root
        and ".." not in (*path.parts, *windows.parts)
    )
    if not inside or any(ord(character) < 32 for character in name):
        raise _RefusedError(f"it holds the name {name!r:.100}")
    return path


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Names with their content, or with ``None`` for folders."""
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            # the file type of Unix, where the archive was made there
            kind = member.external_attr >> 28
            if kind not in (0, 0o04, 0o10):
                raise _RefusedError(f"{member.filename!r:.100} is a link or a device")
            if member.is_dir():
                yield member.filename, None
                continue
            with opened.open(member) as content:
                yield member.filename, content


def _tar_members(archive: Path, limits: Limits) -> Iterator[tuple[str, IO[bytes] | None]]:
    """The same of a tar, read once from front to back."""
    with archive.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = _Bounded(
            gzip.GzipFile(fileobj=file) if packed else file,
            limits.size + TAR_OVERHEAD * limits.files,
        )
        with tarfile.open(fileobj=stream, mode="r|") as opened:  # type: ignore[call-overload]
            for member in opened:
                if not member.isdir() and not member.isreg():
                    raise _RefusedError(f"{member.name!r:.100} is a link or a device")
                yield member.name, opened.extractfile(member) if member.isreg() else None
        # a tar ends with two empty blocks; tarfile takes the end of the file for its end as well
        if any(stream.last):
            raise EOFError


class _Bounded:
    """A stream that refuses to give more than so many bytes: headers, too, can be bombs when they
    are compressed.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        self.stream, self.limit = stream, limit
        self.last = b""
        """The last block that was read."""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        content = self.stream.read(size)
        self.limit -= len(content)
        if self.limit < 0:
            raise _RefusedError("it unpacks to more than its files may hold")
        self.last = (self.last + content)[-tarfile.BLOCKSIZE :]
        return content
