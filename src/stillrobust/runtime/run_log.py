"""The log of a run: lines with time stamps, appended by any process that works on the run.

The runs of a study have their logs in its folder ``logs/``; a single run has ``run.log``.
"""

import os
import platform
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.storage.files import make_folder
from stillrobust.storage.leases import LeaseHeldError
from stillrobust.untrusted import printable

RUN_LOG = "run.log"
"""File name of the log in the folder of a run."""
TAIL_BYTES = 4096  # read from the end of a log for its last line


def note(log: Path, text: str) -> None:
    """Append an entry with time (UTC), host and process to a log.

    A failure to write is ignored: the work goes on.

    Args:
        log: The log file. Its folder is created, but not the folder's parents.
        text: The entry. Lines after the first are indented, so that none can pass for an entry.
    """
    stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    lines = printable(text.rstrip(), lines=True).replace("\n", "\n    ")
    entry = f"{stamp} {platform.node()}[{os.getpid()}] {lines}\n".encode()
    try:
        # without parents: a lost network folder must not be recreated
        if log.parent.parent.is_dir():
            make_folder(log.parent)
        # one write per entry, so that processes do not interleave
        with log.open("ab", buffering=0) as file:
            file.write(entry)
    except (OSError, UserError):
        return


@contextmanager
def log_failures(log: Path, work: str) -> Iterator[None]:
    """Log an exception that ends the context, and raise it.

    Unexpected errors are logged with their stack trace. A user error is logged only if the folder
    of the log exists. A lease held by another process is not an error.

    Args:
        log: The log file.
        work: Name of the work, such as ``training``.
    """
    try:
        yield
    except LeaseHeldError:
        raise
    except UserError as error:
        if log.parent.is_dir():
            note(log, f"{work} failed: {printable(str(error))}")
        raise
    except Exception:
        note(log, f"{work} failed:\n{traceback.format_exc()}")
        raise
    except BaseException as error:
        note(log, f"{work} stopped: {type(error).__name__}")
        raise


def last_line(log: Path) -> str:
    """Return the last line of a log without host and process; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    stamp, found, text = lines[-1].partition("] ") if lines else ("", "", "")
    return f"{stamp[11:19]} {text}" if found else stamp
