"""Downloads that resume, are checked, and appear whole or not at all; from a local file, a mirror
or the origin.
"""

import html
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from email.message import Message
from pathlib import Path
from typing import Any

from stillrobust.errors import UserError
from stillrobust.storage.files import sha256_of, sync
from stillrobust.storage.leases import lease

Check = Callable[[Path], str]
"""What is wrong with a file, in a few words; empty where nothing is."""
Progress = Callable[[int, int | None], None]
"""(bytes there, bytes in all where they are known)."""

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
FRUITLESS = 4  # attempts in a row that brought nothing before a source is given up
PAUSE = 1.0  # seconds before the first repetition; doubled with every further one
MAX_PAGE = 1 << 20  # of a confirmation page
MAX_BYTES = 200 << 30  # of any one file: COCO's largest archive has 18 GB


def cache_folder() -> Path:
    """Where fetched files are kept: ``$STILLROBUST_CACHE``, or ``stillrobust`` in the user's cache
    folder.
    """
    own = os.environ.get("STILLROBUST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own).expanduser() if own else Path(base).expanduser() / "stillrobust"


class _Broken(Exception):
    """One attempt failed; another may not."""


class _Final(Exception):
    """A source does not serve the file, however often it is asked."""


def fetch(
    sources: Sequence[str],
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    check: Check = lambda path: "",
    progress: Progress = lambda done, total: None,
) -> Path:
    """Get ``target`` from the first of ``sources`` that has it; a ``target`` that is there and fits
    is left as it is.

    sources: a local file; ``http(s)://.../``, a mirror that has it under its name; or
    ``http(s)://...``, its address.
    sha256: hex digits, 64 or, where only so many are known, the first few. size: bytes. check: what
    else may be wrong with a file. What was received before an interruption is kept beside
    ``target`` and resumed, where the server still has the same file. Raises ``UserError`` naming
    what each source said.
    """

    def wrong(path: Path) -> str:
        return _misfit(path, sha256, size) or check(path)

    if target.is_file() and not wrong(target):
        return target
    said = []
    try:
        with lease(target, wait=True):
            if target.is_file() and not wrong(target):
                return target  # another process got it meanwhile
            for source in sources:
                try:
                    if re.match(r"https?://", source):
                        address = (
                            source + urllib.parse.quote(target.name)
                            if source.endswith("/")
                            else source
                        )
                        _download(address, target, wrong, size, progress)
                    else:
                        _copy(Path(source).expanduser(), target, wrong)
                    return target
                except (_Final, _Broken) as error:
                    said.append(f"{source}: {error}")
    except OSError as error:
        raise UserError(
            f"Cannot write {error.filename or target} ({error.strerror or error}); free some space"
            " or choose another folder"
        ) from None
    tried = "; ".join(said) or "no address is known"
    raise UserError(
        f"{target.name} could not be had ({tried}); get it by other means and name the file with"
        " --from"
    )


def _misfit(path: Path, sha256: str | None, size: int | None) -> str:
    """What is wrong with a file; empty where nothing is."""
    length = path.stat().st_size
    if size is not None and length != size:
        return f"expected {size} bytes, got {length}"
    if length == 0:
        return "it is empty"
    if sha256 and not (found := sha256_of(path)).startswith(sha256.lower()):
        return f"expected SHA-256 {sha256[:16]}, got {found[: max(len(sha256), 8)][:16]}"
    return ""


def _put(part: Path, target: Path, wrong: Check) -> None:
    """Check what was received and put it in place."""
    if fault := wrong(part):
        _forget(part)
        raise _Final(f"it has another file under this name ({fault})")
    with part.open("rb+") as file:
        sync(file)
    part.replace(target)
    _note_of(part).unlink(missing_ok=True)


def _copy(source: Path, target: Path, wrong: Check) -> None:
    if source.is_dir():
        source = source / target.name
    if not source.is_file():
        raise _Final("there is no such file")
    part = target.with_name(f".{target.name}.{os.getpid()}.copy")
    try:
        shutil.copyfile(source, part)
        _put(part, target, wrong)
    finally:
        part.unlink(missing_ok=True)


# ---- over the network
# ----------------------------------------------------------------------------------------------------


def _download(
    address: str, target: Path, wrong: Check, size: int | None, progress: Progress
) -> None:
    part = target.with_name(f".{target.name}.part")
    fruitless, pause = 0, PAUSE
    while True:
        before = _length(part)
        try:
            _attempt(address, part, size, progress)
            break
        except _Broken:
            fruitless = 0 if _length(part) > before else fruitless + 1
            if fruitless >= FRUITLESS:
                raise
            time.sleep(pause if fruitless else 0)
            pause *= 2 if fruitless else 1
    _put(part, target, wrong)


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note_of(part: Path) -> Path:
    return part.with_suffix(".json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


def _remembered(part: Path, address: str) -> str:
    """The server's word for the state of its file (ETag or date) when ``part`` was begun; empty
    where none is known.
    """
    try:
        note = json.loads(_note_of(part).read_text(encoding="utf-8"))
        return str(note["state"]) if note["address"] == address else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _attempt(address: str, part: Path, size: int | None, progress: Progress) -> None:
    """One request; appends to ``part`` what it brings. Returns when the body is whole."""
    state = _remembered(part, address)
    if not state:  # no way to know that what follows belongs to what is there
        _forget(part)
    there = _length(part)
    headers = {"User-Agent": "stillrobust", "Accept-Encoding": "identity"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": state}
    try:
        with _open(address, headers) as reply:
            there = _begin(reply, part, there)
            total = _total(reply.headers, there)
            _room(part, total, there, size)
            if not there:
                _remember(part, address, reply.headers)
            received = _receive(reply, part, there, total, progress)
    except urllib.error.HTTPError as error:
        # nothing left to send: the part is longer than the file, so that it is not the same one
        if error.code == 416:
            _forget(part)
        if error.code >= 500 or error.code in (408, 416, 429):
            raise _Broken(f"the server says {error.code} {error.reason}") from None
        raise _Final(f"the server says {error.code} {error.reason}") from None
    # before the body
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        raise _Broken(
            "the connection failed"
            f" ({getattr(error, 'reason', None) or error or type(error).__name__})"
        ) from None
    if total is not None and received != total:
        raise _Broken(f"the connection ended after {received} of {total} bytes")


def _open(address: str, headers: dict[str, str]) -> Any:
    """Open an address; where a page asks for confirmation first (Google Drive does for large
    files), confirm.
    """
    reply = urllib.request.urlopen(
        urllib.request.Request(address, headers=headers), timeout=TIMEOUT
    )
    if reply.headers.get_content_type() != "text/html":
        return reply
    with reply:
        page = reply.read(MAX_PAGE).decode("utf-8", "replace")
    confirmed = _confirmation(page, reply.geturl())
    if confirmed is None:
        raise _Final(
            "it answers with a web page and not with the file; get the file with a browser"
        )
    reply = urllib.request.urlopen(
        urllib.request.Request(confirmed, headers=headers), timeout=TIMEOUT
    )
    if reply.headers.get_content_type() == "text/html":
        reply.close()
        raise _Final("it answers with a web page even once confirmed; get the file with a browser")
    return reply


def _confirmation(page: str, address: str) -> str | None:
    """The address behind a page's download form, its hidden fields filled in."""
    form = re.search(
        r'<form[^>]*id="download-form"[^>]*action="([^"]+)"[^>]*>(.*?)</form>', page, re.DOTALL
    )
    if not form:
        return None
    fields = re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form[2])
    query = urllib.parse.urlencode(
        [(html.unescape(name), html.unescape(value)) for name, value in fields]
    )
    target = urllib.parse.urljoin(address, html.unescape(form[1]))
    return (
        f"{target}{'&' if '?' in target else '?'}{query}"
        if re.match(r"https?://", target)
        else None
    )


def _begin(reply: Any, part: Path, there: int) -> int:
    """Where this reply's first byte belongs; a server that ignores ranges sends everything again."""
    if reply.status != 206:
        _forget(part)
        return 0
    match = re.match(r"bytes (\d+)-", reply.headers.get("Content-Range", ""))
    if not match or int(match[1]) != there:
        _forget(part)
        raise _Broken("the server sent another part than was asked for")
    return there


def _total(headers: Message, there: int) -> int | None:
    length = headers.get("Content-Length", "")
    return there + int(length) if length.isdecimal() else None


def _room(part: Path, total: int | None, there: int, size: int | None) -> None:
    """Refuse before the first byte what is not the file, or what the disk cannot hold."""
    if total is None:
        return
    if size is not None and total != size:
        _forget(part)
        raise _Final(
            f"it has another file under this name (expected {size} bytes, it announces {total})"
        )
    free = shutil.disk_usage(part.parent).free
    if total > MAX_BYTES or total - there > free:
        raise _Final(f"it announces {total} bytes, and {free} are free in {part.parent}")


def _remember(part: Path, address: str, headers: Message) -> None:
    state = headers.get("ETag", "")
    state = headers.get("Last-Modified", "") if not state or state.startswith("W/") else state
    _note_of(part).write_text(json.dumps({"address": address, "state": state}), encoding="utf-8")


def _receive(reply: Any, part: Path, there: int, total: int | None, progress: Progress) -> int:
    with part.open("ab") as file:
        while True:
            try:
                data = reply.read1(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(f"the connection failed ({error or type(error).__name__})") from None
            if not data:
                return there
            file.write(data)
            there += len(data)
            if there > MAX_BYTES:
                raise _Final(f"it sends more than {MAX_BYTES} bytes")
            progress(there, total)
