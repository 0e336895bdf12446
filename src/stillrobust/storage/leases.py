"""A lease on a piece of work: while one process holds it no other does the same, and that of one
that died passes on.

``with lease(path) as held:`` works on any folder that the processes share, a network folder too: a
lease is a small file, ``path.1``, and whoever takes over from number n makes number n + 1, which
the file system lets one process do only. The holder writes a count into its file every
:data:`BEAT_SECONDS`. No clocks are compared: a holder is gone when an observer has seen the same
count for :data:`EXPIRES_SECONDS` of its own, or, on the same machine, when its process is. A holder
that was asleep for so long may have been overtaken; :meth:`Lease.check` says so, and is called
before anything is written.
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
from stillrobust.storage.files import clear_leftovers, read_bytes, sync, write_whole

# between two signs of life: a small write each, that a network folder carries from hundreds of
# processes
BEAT_SECONDS = 5.0
# without a sign of life: six beats, longer than Python can be kept from running a thread
EXPIRES_SECONDS = 30.0
WAIT_SECONDS = 1.0  # between two tries of who waits

_own: set[str] = set()
"""Tokens of the leases that this process holds now.

A file of another token with its number was left when the folder was away.
"""


class Held(UserError):
    """Another process is at the same work, or has taken it over from this one; it can be tried
    again later.
    """


@dataclass(frozen=True)
class Lease:
    """A lease that this process, or the one that started it, holds."""

    path: Path
    number: int
    token: str

    @property
    def file(self) -> Path:
        """Where it is written."""
        return _file(self.path, self.number)

    def check(self) -> None:
        """Raise :class:`Held` if it is no longer ours, ``UserError`` if the folder is gone: nothing
        may be written then.
        """
        try:
            ours = (
                max(_numbers(self.path), default=0) == self.number
                and _holder(self.file) == self.token
            )
        except OSError as error:
            raise UserError(
                f"Cannot reach {self.path.parent} any more ({error.strerror or error}); what was"
                " finished is kept: start again when the folder is there"
            ) from None
        if not ours:
            raise Held(
                f"Another process took {self.path.name} in {self.path.parent} over while this one"
                " slept; it wrote no more"
            )


@contextmanager
def lease(path: Path, wait: bool = False) -> Iterator[Lease]:
    """Hold ``path``, a name for a piece of work beside which its lease is written; ``path`` itself
    need not exist.

    Raises :class:`Held` where another process is at it, unless ``wait`` says to wait for that;
    ``UserError`` where nothing can be written.
    """
    held = _waited(path) if wait else _acquired(path)
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(held, ended), daemon=True)
    beat.start()
    try:
        yield held
    finally:
        ended.set()
        beat.join()
        _own.discard(held.token)
        with contextlib.suppress(OSError):  # where the folder is gone the lease ends by itself
            if _holder(held.file) == held.token:
                held.file.unlink()


def sweep(folder: Path) -> None:
    """Remove the leases in ``folder`` that processes of this machine held until they were killed;
    nobody has followed them.
    """
    try:
        found = {
            path: name
            for path in folder.iterdir()
            if (name := re.fullmatch(r"\.(.+)\.lease\.\d+", path.name))
        }
    except OSError:
        return  # nothing is there
    for path, name in found.items():
        # what cannot be taken here and now stays, and is followed when it is wanted
        with contextlib.suppress(OSError, UserError):
            content = _read(path)
            if content is not None and _ended_here(content):
                with lease(folder / name[1]):
                    pass


def write_alone(path: Path, content: bytes) -> None:
    """Write one file whole that several processes may want to write at once; what says the same is
    left as it is.
    """
    if read_bytes(path) == content:
        return
    with lease(path, wait=True):
        clear_leftovers(path.parent, path.name)
        write_whole({path: content})


def _waited(path: Path) -> Lease:
    while True:
        try:
            return _acquired(path)
        except Held:
            time.sleep(WAIT_SECONDS)


def _acquired(path: Path) -> Lease:
    """The next number after that of a holder that is gone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            before = max(_numbers(path), default=0)
            content = _read(_file(path, before)) if before else ""
            if content is None:
                continue  # given back in this moment
            if before and not _gone(_file(path, before), content):
                raise Held(
                    f"Another process is at {path.name} in {path.parent}: {_shown(content)}; try"
                    " again when it is done"
                )
            mine = Lease(path, before + 1, secrets.token_hex(8))
            _own.add(mine.token)
            # Who was faster is not to be disturbed: the one we take over from may have come back,
            # ended and been followed.
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
    """Whether the file is made by us; one process only can."""
    content = (
        f"{mine.token} {_here()} {os.getpid()} {_process('self')[1]} {platform.node()}\n{0:012}\n"
    )
    try:
        with mine.file.open("x", encoding="utf-8") as file:
            file.write(content)
            sync(file)
    except FileExistsError:
        return False
    except OSError:
        mine.file.unlink(missing_ok=True)
        raise
    return True


def _beat(held: Lease, ended: threading.Event) -> None:
    """Count up in the holder's own file. It is never made anew: if it is gone, so is the lease."""
    count = 0
    while not ended.wait(BEAT_SECONDS):
        count += 1
        # a network folder may come back
        with contextlib.suppress(OSError), held.file.open("r+", encoding="utf-8") as file:
            first = file.readline()
            if _token(first) != held.token:
                return
            file.seek(len(first))
            file.write(f"{count:012}\n")
            sync(file)


def _gone(file: Path, content: str) -> bool:
    """Whether the holder is: at once where its process can be seen, else by watching it for a
    while.
    """
    if (ended := _ended_here(content)) is not None:
        return ended
    # Looks are counted and not seconds: holder and observer may have been asleep together.
    for _ in range(round(EXPIRES_SECONDS / WAIT_SECONDS)):
        time.sleep(WAIT_SECONDS)
        if _read(file) != content:
            return False
    return True


def _ended_here(content: str) -> bool | None:
    """Whether the holder, a process of this machine, has ended; ``None`` where that cannot be seen,
    or it is stopped.
    """
    token, here, process, started, *_ = [*content.split(), "", "", "", ""]
    if here == "-" or here != _here():
        return None
    if process == str(os.getpid()) and token not in _own:
        return True
    state, since = _process(process)
    if since != started or state in "ZX":  # ended, or its number is another process's by now
        return True
    return None if state in "Tt" else False


def _here() -> str:
    """One start of one machine, and of one container on it: where process numbers mean the same.

    ``-``: not known.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116
    except OSError:
        return "-"


def _process(number: str) -> tuple[str, str]:
    """State and start of a process of this machine, as /proc has them; ``X`` where there is none."""
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


def _shown(content: str) -> str:
    _, _, process, _, host, *_ = [*content.split(), "", "", "", "", "?"]
    return f"process {process or '?'} on {host}"
