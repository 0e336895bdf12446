"""One HTTP request that ends: bounded in time, in redirects, and in what precedes the file.

Every client that was tried (urllib, requests, urllib3, httpx) bounds the wait for one read and not
the whole: a server that sends a header a second, or ``100 Continue`` without end, holds each of
them. The request therefore runs in a thread of its own, and the reader gives up when too little
arrives. The standard library does the rest: proxies, certificates, redirects, chunks, lengths.
"""

import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import Any

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
START_SECONDS = 60.0  # from the request to the headers of the file, with all redirects
RATE_SECONDS = 60.0  # a body whose bytes of this many seconds are fewer ...
MIN_RATE = 1024  # ... than this number a second is given up
REDIRECTS = 5


class BrokenError(Exception):
    """A request failed; another may succeed."""


class UnreachableError(BrokenError):
    """No connection could be made."""


class RangeError(BrokenError):
    """The server does not have the part of the file that was requested."""


class FinalError(Exception):
    """A server does not send the file; another request is useless."""


class Reply:
    """A reply whose headers have arrived.

    Args:
        status: 200 or 206.
        headers: Its headers.
        received: Where the thread of the request puts the body.
    """

    def __init__(self, status: int, headers: Message, received: "_Received") -> None:
        self.status, self.headers = status, headers
        self._received = received

    def blocks(self) -> Iterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            BrokenError: If the connection fails, or the body is slower than ``MIN_RATE``.
        """
        start, count = time.monotonic(), 0
        while True:
            left = start + RATE_SECONDS - time.monotonic()
            if left <= 0 and count >= MIN_RATE * RATE_SECONDS:
                start, count = time.monotonic(), 0
                continue
            try:
                block = self._received.take(max(left, 0))
            except queue.Empty:
                raise BrokenError(f"it sends less than {MIN_RATE} bytes a second") from None
            if not block:
                return
            count += len(block)
            yield block


class _Received:
    """What the thread of a request passes to its reader, a few blocks ahead at most."""

    def __init__(self) -> None:
        self.items: queue.Queue[Any] = queue.Queue(maxsize=8)
        self.abandoned = threading.Event()

    def put(self, item: Any) -> bool:
        """Pass an item on. Returns whether the reader still wants more."""
        while not self.abandoned.is_set():
            try:
                self.items.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def take(self, seconds: float) -> Any:
        """Return the next item, or raise the error of the request."""
        item = self.items.get(timeout=seconds)
        if isinstance(item, Exception):
            raise _as_outcome(item) from None
        return item


@contextmanager
def open_url(address: str, headers: Mapping[str, str]) -> Iterator[Reply]:
    """Send a request.

    Args:
        address: URL, ``http`` or ``https``.
        headers: Headers of the request.

    Yields:
        The reply, of status 200 or 206.

    Raises:
        BrokenError: If the request failed; another may succeed.
        FinalError: If the server does not send the file.
    """
    received = _Received()
    threading.Thread(target=_run, args=(address, headers, received), daemon=True).start()
    try:
        try:
            status, found = received.take(START_SECONDS)
        except queue.Empty:
            raise FinalError(f"it sent no file within {START_SECONDS:g} seconds") from None
        yield Reply(status, found, received)
    finally:
        received.abandoned.set()


def _run(address: str, headers: Mapping[str, str], received: _Received) -> None:
    """Send the request and pass on (status, headers), the body, and at last ``b""`` or an error."""
    try:
        request = urllib.request.Request(address, headers=dict(headers))
        with _opener().open(request, timeout=TIMEOUT) as reply:
            wanted = received.put((reply.status, reply.headers))
            while wanted:
                block = reply.read1(CHUNK)
                wanted = received.put(block) and bool(block)
    except Exception as error:  # the reader raises it
        received.put(error)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections, max_repeats = REDIRECTS, 2

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()  # urllib would read all of its body
        if req.type == "https" and not newurl.startswith("https:"):
            raise FinalError("it redirects from https to an address without encryption")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """An opener for http and https alone; urllib's default one also opens ftp and files."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _as_outcome(error: Exception) -> Exception:
    """Translate an error of the standard library. What the server wrote is not repeated."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code // 100 == 3:
            return FinalError(f"it redirects too often, or to no web address ({error.code})")
        again = BrokenError if error.code >= 500 or error.code in (408, 429) else FinalError
        kind = RangeError if error.code == 416 else again
        return kind(f"the server returned {error.code}")
    if isinstance(error, urllib.error.URLError):
        return UnreachableError(f"the connection failed ({error.reason})")
    if isinstance(error, OSError):
        return BrokenError(f"the connection failed ({error.strerror or error})")
    if isinstance(error, http.client.IncompleteRead):
        return BrokenError("the connection ended before the end of the file")
    if isinstance(error, http.client.HTTPException):
        return BrokenError("its reply is not valid HTTP")
    if isinstance(error, ValueError):
        return FinalError("its address is not valid")
    return error
