"""Downloads that resume and are verified, from a local file, a mirror or a URL."""

import json
import os
import re
import shutil
import time
import urllib.parse
from collections.abc import Callable, Sequence
from email.message import Message
from pathlib import Path
from typing import NamedTuple

from stillrobust.errors import UserError
from stillrobust.storage.files import file_sha256, move_into_place
from stillrobust.storage.http import (
    BrokenError,
    FinalError,
    RangeError,
    Reply,
    UnreachableError,
    open_url,
)
from stillrobust.storage.leases import lease

Check = Callable[[Path], str]
"""Returns what is wrong with a file, in a few words; empty if nothing is."""
ByteProgress = Callable[[int, int | None], None]
"""Called with (bytes received, total bytes if known)."""

ATTEMPTS = 100  # requests for one file; the same command resumes after that
FRUITLESS = 4  # consecutive requests that add too little, after which a source is given up
FRUITFUL = 1 << 16  # bytes beyond the furthest one so far that a request must add
PAUSE = 1.0  # seconds after a fruitless request; doubled each time
MAX_BYTES = 200 << 30  # of any one file: COCO's largest archive has 18 GB


def cache_folder() -> Path:
    """Return the folder of fetched files: ``$STILLROBUST_CACHE`` or ``~/.cache/stillrobust``."""
    own = os.environ.get("STILLROBUST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own).expanduser() if own else Path(base).expanduser() / "stillrobust"


class _Expected(NamedTuple):
    """What is known of a file before it arrives."""

    size: int | None
    limit: int
    """Its size, or the largest size that is received."""
    has_digest: bool


def fetch(
    sources: Sequence[str],
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    limit: int = MAX_BYTES,
    check: Check = lambda path: "",
    progress: ByteProgress = lambda done, total: None,
) -> Path:
    """Get a file from the first source that has it. An existing valid file is kept.

    An interrupted download is kept beside ``target`` and resumed if the server still has the same
    file. A server that sends nothing, too little or too much is given up
    (``stillrobust.storage.http``).

    Args:
        sources: Local files or folders, mirrors (``http(s)://.../``), or URLs (``http(s)://...``).
        target: Path of the file.
        sha256: Expected SHA-256 in hex digits, or the first few of them.
        size: Expected size in bytes.
        limit: Largest size in bytes that is received, if ``size`` is not known.
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
    expected = _Expected(size, size or limit, bool(sha256))
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
                        _download(address, target, wrong, expected, progress)
                    else:
                        _copy(Path(source).expanduser(), target, wrong)
                    return target
                except (FinalError, BrokenError) as error:
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


def require_reachable(address: str) -> None:
    """Check that a server answers, with any status.

    Args:
        address: URL, ``http`` or ``https``.

    Raises:
        UserError: If no connection can be made.
    """
    try:
        with open_url(address, {"User-Agent": "stillrobust"}):
            return
    except UnreachableError as error:
        raise UserError(
            f"Cannot reach {address}: {error}; check the network and its proxy, or carry the files"
            " over (docs/how_to/offline.md)"
        ) from None
    except (BrokenError, FinalError):
        return


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
        raise FinalError(f"it has another file under this name ({fault})")
    move_into_place(part, target)
    _note_of(part).unlink(missing_ok=True)


def _copy(source: Path, target: Path, wrong: Check) -> None:
    if source.is_dir():
        source = source / target.name
    if not source.is_file():
        raise FinalError("there is no such file")
    part = target.with_name(f".{target.name}.{os.getpid()}.copy")
    try:
        shutil.copyfile(source, part)
        _verify_and_place(part, target, wrong)
    finally:
        part.unlink(missing_ok=True)


def _download(
    address: str, target: Path, wrong: Check, expected: _Expected, progress: ByteProgress
) -> None:
    part = target.with_name(f".{target.name}.part")
    furthest = fruitless = 0
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _attempt(address, part, expected, progress)
            break
        except BrokenError as error:
            fruitless = 0 if _length(part) >= furthest + FRUITFUL else fruitless + 1
            furthest = max(furthest, _length(part))
            unreachable = isinstance(error, UnreachableError) and not furthest
            if unreachable or fruitless == FRUITLESS or attempt == ATTEMPTS:
                raise
            time.sleep(PAUSE * 2 ** (fruitless - 1) if fruitless else 0)
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


def _attempt(address: str, part: Path, expected: _Expected, progress: ByteProgress) -> None:
    """Send one request and append the body to ``part``. Returns when the body is complete."""
    state = _stored_state(part, address)
    if not state:  # the rest might belong to another version of the file
        _delete(part)
    there = _length(part)
    headers = {"User-Agent": "stillrobust", "Accept-Encoding": "identity"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": state}
    try:
        with open_url(address, headers) as reply:
            _require_file(reply.headers)
            there = _begin(reply, part, there)
            total = _total(reply.headers, there)
            _require_end(reply.headers, total, expected)
            _require_space(part, total, there, expected)
            if not there:
                _store_state(part, address, reply.headers)
            received = _receive(reply, part, there, total, expected.limit, progress)
    except RangeError:  # the part is longer than the file, so it is another file
        _delete(part)
        raise
    if total is not None and received != total:
        raise BrokenError(f"the connection ended after {received} of {total} bytes")


def _require_file(headers: Message) -> None:
    """Refuse a web page, and a body that is not the file's own bytes."""
    if headers.get_content_type() == "text/html":
        raise FinalError("it returns a web page instead of the file; download it with a browser")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FinalError("it sends the file compressed, which was not asked for")


def _begin(reply: Reply, part: Path, there: int) -> int:
    """Return the offset of the reply's first byte. A server that ignores ranges starts at 0."""
    if reply.status != 206:
        _delete(part)
        return 0
    match = re.match(r"bytes (\d{1,18})-", reply.headers.get("Content-Range", ""))
    if not match or int(match[1]) != there:
        _delete(part)
        raise BrokenError("the server sent another range than requested")
    return there


def _total(headers: Message, there: int) -> int | None:
    length = headers.get("Content-Length", "")
    return there + int(length) if re.fullmatch(r"[0-9]{1,19}", length) else None


def _require_end(headers: Message, total: int | None, expected: _Expected) -> None:
    """Refuse a body that could end anywhere, unless size or content are known."""
    ends = total is not None or headers.get("Transfer-Encoding", "").lower() == "chunked"
    if not ends and expected.size is None and not expected.has_digest:
        raise FinalError("it does not say how long the file is, so a part would pass for the whole")


def _require_space(part: Path, total: int | None, there: int, expected: _Expected) -> None:
    """Refuse a file of another size, or one that does not fit on the disk."""
    if total is None:
        return
    if expected.size is not None and total != expected.size:
        _delete(part)
        raise FinalError(
            f"it has another file under this name (expected {expected.size} bytes, it announces"
            f" {total})"
        )
    free = min(shutil.disk_usage(part.parent).free, expected.limit - there)
    if total - there > free:
        raise FinalError(f"it announces {total} bytes, and {free} are free in {part.parent}")


def _store_state(part: Path, address: str, headers: Message) -> None:
    state = headers.get("ETag", "")
    state = headers.get("Last-Modified", "") if not state or state.startswith("W/") else state
    if not re.fullmatch(r"[ -~]{1,200}", state):
        state = ""  # it is sent back as a header
    _note_of(part).write_text(json.dumps({"address": address, "state": state}), encoding="utf-8")


def _receive(
    reply: Reply, part: Path, there: int, total: int | None, limit: int, progress: ByteProgress
) -> int:
    with part.open("ab") as file:
        for block in reply.blocks():
            there += len(block)
            if there > limit:
                file.close()
                _delete(part)
                raise FinalError(f"it sends more than {limit} bytes")
            file.write(block)
            progress(there, total)
    return there
