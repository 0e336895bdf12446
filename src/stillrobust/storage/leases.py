"""Leases: only one process works on a job; the lease of a dead process expires.

``with lease(path) as held:`` works in any folder that processes share, including network folders. A
lease is a small file, ``path.1``. A process that takes over from number n creates number n + 1,
which the file system allows only once. The holder increments a counter in its file every
:data:`HEARTBEAT_SECONDS`. Clocks of machines are never compared. A holder counts as dead when an
observer has seen the same counter for :data:`EXPIRY_SECONDS`, or, on the same machine, when its
process has ended. A holder that was suspended may have lost its lease; it calls
:meth:`Lease.check` before every write.
"""

import contextlib
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.storage.files import (
    clear_leftovers,
    flush_to_disk,
    make_folder,
    read_bytes,
    write_whole,
)

# one small write each time: a network folder can take it from hundreds of processes
HEARTBEAT_SECONDS = 5.0
# six heartbeats: longer than Python can keep a thread from running
EXPIRY_SECONDS = 30.0
WAIT_SECONDS = 1.0  # between two attempts of a waiting process

_own: set[str] = set()
"""Tokens of the leases that this process holds.

A lease file with this process's number but another token is left over from an interruption.
"""


class LeaseHeldError(UserError):
    """Another process works on the same job, or has taken it over. Try again later."""


@dataclass(frozen=True)
class Lease:
    """A lease that this process or its parent holds."""

    path: Path
    number: int
    token: str

    @property
    def file(self) -> Path:
        """The file of the lease."""
        return _file(self.path, self.number)

    def check(self) -> None:
        """Check that the lease is still held. Call this before every write.

        Raises:
            LeaseHeldError: If another process has taken the lease over.
            UserError: If the folder cannot be reached.
        """
        try:
            ours = (
                max(_numbers(self.path), default=0) == self.number
                and _holder(self.file) == self.token
            )
        except OSError as error:
            raise UserError(
                f"Cannot reach {self.path.parent} any more ({error.strerror or error}). Finished"
                " work is kept; start again when the folder is available"
            ) from None
        if not ours:
            raise LeaseHeldError(
                f"Another process took over {self.path.name} in {self.path.parent} while this one"
                " was suspended; this one writes nothing more"
            )


@contextmanager
def lease(path: Path, wait: bool = False) -> Iterator[Lease]:
    """Hold the lease on a job while the context is active.

    Args:
        path: Name of the job. The lease file is written beside it; the path itself need not exist.
        wait: Wait until the lease is free instead of raising ``LeaseHeldError``.

    Raises:
        LeaseHeldError: If another process holds the lease.
        UserError: If the lease file cannot be written.
    """
    held = _wait_and_acquire(path) if wait else _acquire(path)
    ended = threading.Event()
    heartbeat = threading.Thread(target=_send_heartbeats, args=(held, ended), daemon=True)
    heartbeat.start()
    try:
        yield held
    finally:
        ended.set()
        heartbeat.join()
        _own.discard(held.token)
        with contextlib.suppress(OSError):  # in a lost folder the lease expires by itself
            if _holder(held.file) == held.token:
                held.file.unlink()


def remove_dead_leases(folder: Path) -> None:
    """Remove the leases in ``folder`` whose holders on this machine were killed."""
    try:
        found = {
            path: name
            for path in folder.iterdir()
            if (name := re.fullmatch(r"\.(.+)\.lease\.\d+", path.name))
        }
    except OSError:
        return
    for path, name in found.items():
        # other leases stay until a process needs their jobs
        with contextlib.suppress(OSError, UserError):
            content = _read(path)
            if content is not None and _ended_locally(content):
                with lease(folder / name[1]):
                    pass


def write_under_lease(path: Path, content: bytes) -> None:
    """Write a file that several processes may write at once. An equal file is left as it is.

    Args:
        path: The file.
        content: Its new content.

    Raises:
        UserError: If the file cannot be written.
    """
    if read_bytes(path) == content:
        return
    with lease(path, wait=True):
        clear_leftovers(path.parent, path.name)
        write_whole({path: content})


def _wait_and_acquire(path: Path) -> Lease:
    while True:
        try:
            return _acquire(path)
        except LeaseHeldError:
            time.sleep(WAIT_SECONDS)


def _acquire(path: Path) -> Lease:
    """Create the lease file with the next number, if the holder is dead."""
    try:
        make_folder(path.parent)
        while True:
            before = max(_numbers(path), default=0)
            content = _read(_file(path, before)) if before else ""
            if content is None:
                continue  # released in this moment
            if before and not _holder_is_dead(_file(path, before), content):
                raise LeaseHeldError(
                    f"Another process works on {path.name} in {path.parent}:"
                    f" {_holder_name(content)}; try again when it has finished"
                )
            mine = Lease(path, before + 1, secrets.token_hex(8))
            _own.add(mine.token)
            # The previous holder may have come back, released the lease and been succeeded: then
            # another process was faster.
            if _create(mine):
                if (not before or _holder(_file(path, before)) == _token(content)) and max(
                    _numbers(path)
                ) == mine.number:
                    for number in _numbers(path) - {mine.number}:
                        _file(path, number).unlink(missing_ok=True)
                    return mine
                mine.file.unlink(missing_ok=True)
            _own.discard(mine.token)
    except OSError as error:
        raise UserError(
            f"Cannot write {path.parent} ({error.strerror or error}); free some space or choose"
            " another folder"
        ) from None


def _create(mine: Lease) -> bool:
    """Return whether this process created the file. Only one process can."""
    content = (
        f"{mine.token} {_here()} {os.getpid()} {_process('self')[1]} {platform.node()}\n{0:012}\n"
    )
    try:
        with mine.file.open("x", encoding="utf-8") as file:
            file.write(content)
            flush_to_disk(file)
    except FileExistsError:
        return False
    except OSError:
        mine.file.unlink(missing_ok=True)
        raise
    return True


def _send_heartbeats(held: Lease, ended: threading.Event) -> None:
    """Increment the counter in the lease file until it is lost; it is never recreated."""
    count = 0
    while not ended.wait(HEARTBEAT_SECONDS):
        count += 1
        # a network folder may come back
        with contextlib.suppress(OSError), held.file.open("r+", encoding="utf-8") as file:
            first = file.readline()
            if _token(first) != held.token:
                return
            file.seek(len(first))
            file.write(f"{count:012}\n")
            flush_to_disk(file)


def _holder_is_dead(file: Path, content: str) -> bool:
    """Check the holder's process if it is on this machine; otherwise watch its heartbeats."""
    if (ended := _ended_locally(content)) is not None:
        return ended
    # Count looks, not seconds: holder and observer may have been suspended together.
    for _ in range(round(EXPIRY_SECONDS / WAIT_SECONDS)):
        time.sleep(WAIT_SECONDS)
        if _read(file) != content:
            return False
    return True


def _ended_locally(content: str) -> bool | None:
    """Return whether the holder, a process on this machine, has ended.

    ``None`` if it is on another machine or stopped.
    """
    token, here, process, started, *_ = [*content.split(), "", "", "", ""]
    if here == "-" or here != _here():
        return None
    if process == str(os.getpid()) and token not in _own:
        return True
    state, since = _process(process)
    if since != started or state in "ZX":  # ended, or its number was reused
        return True
    return None if state in "Tt" else False


def _here() -> str:
    """Identify the boot and container that number the processes; ``-`` if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116
    except OSError:
        return "-"


def _process(number: str) -> tuple[str, str]:
    """Return state and start time of a process from /proc; state ``X`` if absent."""
    try:
        fields = (
            Path(f"/proc/{number}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()
        )
    except OSError:
        return "X", "-"
    return fields[0], fields[19]  # proc_pid_stat(5), counted from the third field on


def _file(path: Path, number: int) -> Path:
    return path.with_name(f".{path.name}.lease.{number}")


def _numbers(path: Path) -> set[int]:
    pattern = re.compile(re.escape(f".{path.name}.lease.") + r"(\d+)")
    return {int(found[1]) for name in os.listdir(path.parent) if (found := pattern.fullmatch(name))}  # noqa: PTH208


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _holder(file: Path) -> str:
    return _token(_read(file) or "")


def _token(content: str) -> str:
    return content.partition(" ")[0]


def _holder_name(content: str) -> str:
    _, _, process, _, host, *_ = [*content.split(), "", "", "", "", "?"]
    return f"process {process or '?'} on {host}"
