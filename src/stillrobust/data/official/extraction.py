"""Safe extraction of zip and tar archives from untrusted sources.

Nothing is written outside the target folder, the disk cannot be filled, and the result is complete
or absent. Refused are absolute names, ``..``, drives, links, devices, duplicate names, truncated
archives, and more bytes or files than allowed. Bytes are counted as they are written, so wrong
headers do not matter.
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
from stillrobust.storage.files import make_folder

BLOCK = 1 << 20  # bytes copied at a time
# bytes of headers and padding a file may have in a tar: two headers of a block, a long name,
# padding
TAR_OVERHEAD = 4096

FilesCallback = Callable[[int], None]
"""Called with the number of files unpacked so far."""


@dataclass(frozen=True)
class Limits:
    """Upper limits for the content of an archive.

    Attributes:
        size: Bytes of all files together.
        files: Number of files and folders.
    """

    size: int
    files: int


class _RefusedError(Exception):
    """Why an archive is refused."""


def unpack(
    archive: Path, target: Path, limits: Limits, progress: FilesCallback = lambda files: None
) -> list[str]:
    """Unpack a zip or tar file, compressed or not.

    The content is unpacked into a staging folder and moved into ``target`` at the end, so an entry
    of ``target`` is always complete.

    Args:
        archive: File to unpack.
        target: Folder for the content.
        limits: Upper limits for the content.
        progress: Called after every file.

    Returns:
        The names at the top level of the archive, sorted.

    Raises:
        UserError: If the archive is unsafe or damaged, a name exists already, or the disk is full.
    """
    staging = staging_folder(archive, target)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        make_folder(staging)
        members = (
            _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive, limits)
        )
        _write_members(members, staging, limits, progress)
        names = sorted(path.name for path in staging.iterdir())
        existing = [name for name in names if (target / name).exists()]
        if existing:
            raise UserError(
                f"Expected to unpack {archive.name} into {target}, but {existing[0]!r} is there"
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
    """Folder that an archive is unpacked into first; existing files are from a killed run."""
    return target / f".{archive.name}.unpacking"


def _write_members(
    members: Iterator[tuple[str, IO[bytes] | None]],
    staging: Path,
    limits: Limits,
    progress: FilesCallback,
) -> None:
    size = files = 0
    for name, content in members:
        files += 1
        if files > limits.files:
            raise _RefusedError(f"it has more than {limits.files:,} files and folders")
        path = staging / _safe(name)
        try:
            make_folder(path if content is None else path.parent)
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
        progress(files)


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
    """A stream that refuses to return more than ``limit`` bytes; headers can be bombs, too."""

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
