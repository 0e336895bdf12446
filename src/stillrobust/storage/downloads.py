"""Downloads that resume and are verified, from a local file, a mirror or a URL."""

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
from stillrobust.storage.files import file_sha256, move_into_place
from stillrobust.storage.leases import lease

Check = Callable[[Path], str]
"""Returns what is wrong with a file, in a few words; empty if nothing is."""
ByteProgress = Callable[[int, int | None], None]
"""Called with (bytes received, total bytes if known)."""

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
FRUITLESS = 4  # consecutive attempts without data before a source is given up
PAUSE = 1.0  # seconds before the first retry; doubled each time
MAX_PAGE = 1 << 20  # of a confirmation page
MAX_BYTES = 200 << 30  # of any one file: COCO's largest archive has 18 GB


def cache_folder() -> Path:
    """Return the folder of fetched files: ``$STILLROBUST_CACHE`` or ``~/.cache/stillrobust``."""
    own = os.environ.get("STILLROBUST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own).expanduser() if own else Path(base).expanduser() / "stillrobust"


class _Broken(Exception):
    """One attempt failed; another may succeed."""


class _Final(Exception):
    """A source does not serve the file; retrying is useless."""


def fetch(
    sources: Sequence[str],
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    check: Check = lambda path: "",
    progress: ByteProgress = lambda done, total: None,
) -> Path:
    """Get a file from the first source that has it. An existing valid file is kept.

    An interrupted download is kept beside ``target`` and resumed if the server still has the same
    file.

    Args:
        sources: Local files or folders, mirrors (``http(s)://.../``), or URLs (``http(s)://...``).
        target: Path of the file.
        sha256: Expected SHA-256 in hex digits, or the first few of them.
        size: Expected size in bytes.
        check: Further check of the file.
        progress: Called as bytes arrive.

    Returns:
        ``target``.

    Raises:
        UserError: If no source has a valid file; the message names the fault of each source.
    """

    def wrong(path: Path) -> str:
        return _fault(path, sha256, size) or check(path)

    if target.is_file() and not wrong(target):
        return target
    faults = []
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
                    faults.append(f"{source}: {error}")
    except OSError as error:
        raise UserError(
            f"Cannot write {error.filename or target} ({error.strerror or error}); free some space"
            " or choose another folder"
        ) from None
    tried = "; ".join(faults) or "no address is known"
    raise UserError(
        f"Cannot get {target.name} ({tried}); download it by other means and give the file with"
        " --from"
    )


def _fault(path: Path, sha256: str | None, size: int | None) -> str:
    """Return what is wrong with a file; empty if nothing is."""
    length = path.stat().st_size
    if size is not None and length != size:
        return f"expected {size} bytes, got {length}"
    if length == 0:
        return "it is empty"
    if sha256 and not (found := file_sha256(path)).startswith(sha256.lower()):
        return f"expected SHA-256 {sha256[:16]}, got {found[: max(len(sha256), 8)][:16]}"
    return ""


def _verify_and_place(part: Path, target: Path, wrong: Check) -> None:
    """Verify a received file and move it into place."""
    if fault := wrong(part):
        _delete(part)
        raise _Final(f"it has another file under this name ({fault})")
    move_into_place(part, target)
    _note_of(part).unlink(missing_ok=True)


def _copy(source: Path, target: Path, wrong: Check) -> None:
    if source.is_dir():
        source = source / target.name
    if not source.is_file():
        raise _Final("there is no such file")
    part = target.with_name(f".{target.name}.{os.getpid()}.copy")
    try:
        shutil.copyfile(source, part)
        _verify_and_place(part, target, wrong)
    finally:
        part.unlink(missing_ok=True)


def _download(
    address: str, target: Path, wrong: Check, size: int | None, progress: ByteProgress
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
    _verify_and_place(part, target, wrong)


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note_of(part: Path) -> Path:
    return part.with_suffix(".json")


def _delete(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


def _stored_state(part: Path, address: str) -> str:
    """Return the ETag or date of the server's file when ``part`` was started; empty if unknown."""
    try:
        note = json.loads(_note_of(part).read_text(encoding="utf-8"))
        return str(note["state"]) if note["address"] == address else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _attempt(address: str, part: Path, size: int | None, progress: ByteProgress) -> None:
    """Send one request and append the body to ``part``. Returns when the body is complete."""
    state = _stored_state(part, address)
    if not state:  # the rest might belong to another version of the file
        _delete(part)
    there = _length(part)
    headers = {"User-Agent": "stillrobust", "Accept-Encoding": "identity"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": state}
    try:
        with _open(address, headers) as reply:
            there = _begin(reply, part, there)
            total = _total(reply.headers, there)
            _require_space(part, total, there, size)
            if not there:
                _store_state(part, address, reply.headers)
            received = _receive(reply, part, there, total, progress)
    except urllib.error.HTTPError as error:
        # range not satisfiable: the part is longer than the file, so it is another file
        if error.code == 416:
            _delete(part)
        if error.code >= 500 or error.code in (408, 416, 429):
            raise _Broken(f"the server returned {error.code} {error.reason}") from None
        raise _Final(f"the server returned {error.code} {error.reason}") from None
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
    """Open a URL. Confirm the warning page that Google Drive shows for large files."""
    reply = urllib.request.urlopen(
        urllib.request.Request(address, headers=headers), timeout=TIMEOUT
    )
    if reply.headers.get_content_type() != "text/html":
        return reply
    with reply:
        page = reply.read(MAX_PAGE).decode("utf-8", "replace")
    confirmed = _confirmation(page, reply.geturl())
    if confirmed is None:
        raise _Final("it returns a web page instead of the file; download it with a browser")
    reply = urllib.request.urlopen(
        urllib.request.Request(confirmed, headers=headers), timeout=TIMEOUT
    )
    if reply.headers.get_content_type() == "text/html":
        reply.close()
        raise _Final("it returns a web page even after confirmation; download it with a browser")
    return reply


def _confirmation(page: str, address: str) -> str | None:
    """Return the URL of a page's download form with its hidden fields; ``None`` without a form."""
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
    """Return the offset of the reply's first byte. A server that ignores ranges starts at 0."""
    if reply.status != 206:
        _delete(part)
        return 0
    match = re.match(r"bytes (\d+)-", reply.headers.get("Content-Range", ""))
    if not match or int(match[1]) != there:
        _delete(part)
        raise _Broken("the server sent another range than requested")
    return there


def _total(headers: Message, there: int) -> int | None:
    length = headers.get("Content-Length", "")
    return there + int(length) if length.isdecimal() else None


def _require_space(part: Path, total: int | None, there: int, size: int | None) -> None:
    """Refuse a file of another size, or one that does not fit on the disk."""
    if total is None:
        return
    if size is not None and total != size:
        _delete(part)
        raise _Final(
            f"it has another file under this name (expected {size} bytes, it announces {total})"
        )
    free = shutil.disk_usage(part.parent).free
    if total > MAX_BYTES or total - there > free:
        raise _Final(f"it announces {total} bytes, and {free} are free in {part.parent}")


def _store_state(part: Path, address: str, headers: Message) -> None:
    state = headers.get("ETag", "")
    state = headers.get("Last-Modified", "") if not state or state.startswith("W/") else state
    _note_of(part).write_text(json.dumps({"address": address, "state": state}), encoding="utf-8")


def _receive(reply: Any, part: Path, there: int, total: int | None, progress: ByteProgress) -> int:
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
