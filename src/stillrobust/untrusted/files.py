"""Regular files of bounded size. Devices and pipes are refused, and nothing blocks."""

import os
import stat
from io import BufferedReader
from pathlib import Path

from stillrobust.errors import UserError

LARGEST = 1 << 26  # bytes of a file that a user names; tables of other tools have a few megabytes
CHUNK = 1 << 16
# a pipe without a writer would block
NONBLOCKING = getattr(os, "O_NONBLOCK", 0)


class NotAFileError(UserError):
    """A device, a pipe, a folder, or a file that is larger than what may be read."""


def read_regular_file(path: Path, largest: int = LARGEST) -> bytes:
    """Read a regular file.

    Args:
        path: The file.
        largest: Most bytes that it may have.

    Raises:
        OSError: If the file cannot be opened or read.
        NotAFileError: If it is a device, a pipe or a folder, or too large.
    """
    with open_regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise _too_large(path, largest)
        content = file.read(size + 1)
        if len(content) != size or not content:  # it grows, or is of /proc: its size is 0
            while len(content) <= largest and (more := file.read(CHUNK)):
                content += more
        if len(content) > largest:
            raise _too_large(path, largest)
        return content


def _too_large(path: Path, largest: int) -> NotAFileError:
    return NotAFileError(
        f"Expected at most {largest:,} bytes in {path}, but it has more; check that it is the right"
        " file"
    )


def open_regular_file(path: Path) -> BufferedReader:
    """Open a regular file for reading bytes. The caller closes it.

    Args:
        path: The file.

    Raises:
        OSError: If the file cannot be opened.
        NotAFileError: If it is a device, a pipe or a folder.
    """
    file = _open_without_blocking(path)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _not_a_file(path)
    return file


def read_user_file(path: Path, expected: str, largest: int = LARGEST) -> bytes:
    """Read a regular file that a user names.

    Args:
        path: The file.
        expected: What it should hold, for errors, such as ``CSV``.
        largest: Most bytes that it may have.

    Raises:
        UserError: If the file cannot be read, is no regular file, or is too large.
    """
    try:
        return read_regular_file(path, largest)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(
            f"Expected {expected} at {path}, but {path_fault(error) or error}; check the path"
        ) from None


def read_user_text(path: Path, expected: str, largest: int = LARGEST) -> str:
    """Read a UTF-8 file that a user names. A byte order mark is left out.

    Args:
        path: The file.
        expected: What it should hold, for errors, such as ``CSV``.
        largest: Most bytes that it may have.

    Raises:
        UserError: As :func:`read_user_file`, or if the file is not UTF-8.
    """
    try:
        return read_user_file(path, expected, largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"Expected {expected} in UTF-8 at {path}, but byte {error.start} is not; save the file"
            " as UTF-8"
        ) from None


def path_fault(error: Exception) -> str:
    """Describe what is wrong with a path.

    Args:
        error: What an operation on the path raised.

    Returns:
        A few words, such as ``No such file or directory``; empty if the error is not about a path.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnicodeEncodeError):
        return "a name has characters that are not valid Unicode"
    if isinstance(error, ValueError) and "null" in str(error) and "embedded" in str(error):
        return "a name has a NUL character"
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):
        return "Too many levels of symbolic links"  # as the operating system words it
    return ""


def _open_without_blocking(path: Path) -> BufferedReader:
    try:
        return open(path, "rb", opener=lambda name, flags: os.open(name, flags | NONBLOCKING))
    except IsADirectoryError:
        raise _not_a_file(path) from None


def _not_a_file(path: Path) -> NotAFileError:
    return NotAFileError(
        f"Expected a regular file at {path}, but it is a folder, a device or a pipe; name a file"
    )
