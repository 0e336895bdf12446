"""The log of a run: lines with time stamps, appended by whatever process works on it.

Of a study they lie in ``logs/`` under its folder; a run that was trained alone has its own,
``run.log``.
"""

import os
import platform
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.storage.leases import Held

RUN_LOG = "run.log"
"""In the folder of a run."""
TAIL_BYTES = 4096  # of a log's end, for its last line


def note(log: Path, text: str) -> None:
    """Append one entry: time (UTC), host, process, text.

    A log that cannot be written stops no work.
    """
    stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    entry = f"{stamp} {platform.node()}[{os.getpid()}] {text.rstrip()}\n".encode()
    try:
        # without parents: where a network folder is gone, none is made in its place
        log.parent.mkdir(exist_ok=True)
        # one write of one entry: those of several processes do not mix
        with log.open("ab", buffering=0) as file:
            file.write(entry)
    except OSError:
        return


@contextmanager
def failures_noted(log: Path, work: str) -> Iterator[None]:
    """Put down in ``log`` what ends ``work`` early, with the stack trace of what no user did wrong;
    it is raised all the same.

    A mistake that is seen before anything is written makes no folder for its log; that another
    process is at the work is none.
    """
    try:
        yield
    except Held:
        raise
    except UserError as error:
        if log.parent.is_dir():
            note(log, f"{work} failed: {error}")
        raise
    except Exception:
        note(log, f"{work} failed:\n{traceback.format_exc()}")
        raise
    except BaseException as error:
        note(log, f"{work} stopped: {type(error).__name__}")
        raise


def last_line(log: Path) -> str:
    """The last entry of a log, without host and process; of a stack trace its last line.

    Empty where there is none.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    stamp, found, text = lines[-1].partition("] ") if lines else ("", "", "")
    return f"{stamp[11:19]} {text}" if found else stamp
