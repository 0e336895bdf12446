"""SIGTERM as Ctrl-C: schedulers, containers and ``kill`` send it, and give a few seconds."""

import signal
import threading
from types import FrameType


def interrupt_on_sigterm() -> threading.Event:
    """Make SIGTERM raise ``KeyboardInterrupt`` in this process's main thread, as Ctrl-C does.

    Blocks that end files, leases and child processes are then left in order.

    Returns:
        An event that is set once SIGTERM has arrived.
    """
    arrived = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not arrived.is_set():  # a second one must not interrupt the end of the first
            arrived.set()
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    return arrived
