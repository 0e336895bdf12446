"""fetch against a server that resets, ignores ranges, lies about lengths, stalls and sends wrong
bytes.
"""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stillrobust.errors import UserError
from stillrobust.storage import downloads, http, leases
from stillrobust.storage.downloads import fetch

CONTENT = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """The first part of a path says how it behaves."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[str, str | None]] = []  # noqa: RUF012
    etag = '"one"'

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        way = self.path.split("/")[1].split("?")[0]
        wanted = self.headers.get("Range")
        self.requests.append((way, wanted))
        getattr(self, way)(int(wanted[6:-1]) if wanted else 0)

    def answer(
        self,
        content=CONTENT,
        start=0,
        status=None,
        send=None,
        length=None,
        etag=None,
        kind="application/octet-stream",
    ):
        body = content[start:]
        self.send_response(status or (206 if start else 200))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if etag or self.etag:
            self.send_header("ETag", etag or self.etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(body if send is None else body[:send])
        self.wfile.flush()
        self.close_connection = True

    def good(self, start):
        self.answer(start=start)

    def resets(self, start):
        """Every connection breaks after 300 kB."""
        self.answer(start=start, send=300_000)

    def ignores(self, start):
        """It breaks once, then sends everything again whatever range is asked for."""
        self.answer(send=300_000 if not start else None)

    def changes(self, start):
        """The file was replaced after the first request: only a reader that says what it has learns
        of it.
        """
        if not start:
            self.answer(b"\0" * 1000, send=400)
        elif self.headers["If-Range"] in (None, '"two"'):
            self.answer(b"\1" * 1000, start=start, etag='"two"')
        else:
            self.answer(b"\1" * 1000, etag='"two"')

    def shifts(self, start):
        """It sends another part than was asked for, once."""
        if start and sum(way == "shifts" for way, _ in self.requests) == 2:
            self.answer(start=start + 10)
        else:
            self.answer(
                start=start, send=None if start == 0 and len(self.requests) > 2 else 300_000
            )

    def wrong(self, start):
        self.answer(CONTENT[:-1] + b"?", start=start)

    def missing(self, start):
        self.send_error(404)

    def busy(self, start):
        self.send_error(503)

    def stalls(self, start):
        self.answer(start=start, send=0 if start else 1000)
        time.sleep(0.6)

    def short(self, start):
        """It announces less than there is."""
        self.answer(start=start, length=len(CONTENT) // 2)

    def long(self, start):
        """It announces more than it sends."""
        self.answer(start=start, length=2 * len(CONTENT) - start)

    def enormous(self, start):
        self.answer(length=1 << 62)

    def nothing(self, start):
        self.answer(b"")

    def page(self, start):
        self.answer(b"<html>Sign in</html>", kind="text/html")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    monkeypatch.setattr(http, "TIMEOUT", 0.3)
    Server.requests.clear()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    running.handle_error = lambda *_: None  # a client that hangs up is what some tests do
    threading.Thread(
        target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("way", ["good", "resets", "ignores", "shifts"])
def test_the_file_comes_whole(server, tmp_path, way):
    seen = []
    target = fetch(
        [f"{server}/{way}/file"],
        tmp_path / "file",
        sha256=SHA256,
        progress=lambda *now: seen.append(now),
    )
    assert target.read_bytes() == CONTENT
    assert left(tmp_path) == ["file"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    if way == "resets":
        assert [wanted for _, wanted in Server.requests] == [
            None,
            "bytes=300000-",
            "bytes=600000-",
            "bytes=900000-",
        ]


@pytest.mark.parametrize(
    ("way", "size", "message"),
    [
        ("wrong", None, "expected SHA-256"),
        ("missing", None, "404"),
        ("busy", None, "503"),
        ("stalls", None, "timed out"),
        ("short", None, "expected SHA-256"),
        ("short", len(CONTENT), "announces 512000"),
        ("long", None, "1024000 of 2048000 bytes"),
        ("enormous", None, "free in"),
        ("nothing", None, "empty"),
        ("page", None, "web page"),
    ],
)
def test_what_is_not_the_file_is_refused(server, tmp_path, way, size, message):
    with pytest.raises(UserError, match=message) as caught:
        fetch([f"{server}/{way}/file"], tmp_path / "file", sha256=SHA256, size=size)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "file").exists()


def test_resumes_where_another_process_stopped(server, tmp_path, monkeypatch):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([f"{server}/resets/file"], tmp_path / "file", progress=stop)
    there = (tmp_path / ".file.part").stat().st_size
    assert 0 < there < len(CONTENT)
    assert fetch([f"{server}/resets/file"], tmp_path / "file").read_bytes() == CONTENT
    assert Server.requests[1] == ("resets", f"bytes={there}-")


def test_a_file_that_changed_is_begun_anew(server, tmp_path):
    assert fetch([f"{server}/changes/file"], tmp_path / "file").read_bytes() == b"\1" * 1000


def test_without_the_servers_word_nothing_is_glued_together(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "etag", "")
    with pytest.raises(UserError, match="300000 of 1024000"):
        fetch([f"{server}/resets/file"], tmp_path / "file")
    assert {wanted for _, wanted in Server.requests} == {None}


def test_sources_are_tried_in_order(server, tmp_path):
    local = tmp_path / "mine" / "file"
    local.parent.mkdir()
    local.write_bytes(b"damaged")
    sources = [str(local), f"{server}/missing/", f"{server}/good/"]
    assert fetch(sources, tmp_path / "file", sha256=SHA256[:8]).read_bytes() == CONTENT
    assert [way for way, _ in Server.requests] == ["missing", "good"]
    fetch(["http://127.0.0.1:9/"], tmp_path / "file", sha256=SHA256[:8])  # it is there, and fits
    assert (
        fetch([str(tmp_path)], tmp_path / "copies" / "file", size=len(CONTENT)).read_bytes()
        == CONTENT
    )
    (tmp_path / "file").write_bytes(b"damaged")
    assert fetch(sources, tmp_path / "file", sha256=SHA256).read_bytes() == CONTENT


def test_no_source(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    with pytest.raises(UserError, match=r"no address is known\); download it by other means"):
        fetch([], tmp_path / "file")
    with pytest.raises(UserError, match="the connection failed"):
        fetch(["http://127.0.0.1:9/file"], tmp_path / "file")
    (tmp_path / "blocked").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        fetch([str(tmp_path / "blocked")], tmp_path / "blocked" / "file")


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("STILLROBUST_CACHE", str(tmp_path))
    assert downloads.cache_folder() == tmp_path
    monkeypatch.delenv("STILLROBUST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert downloads.cache_folder() == tmp_path / "stillrobust"


def test_what_another_process_is_getting_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0.02)
    target, begun = tmp_path / "file", threading.Event()

    def get():
        with leases.lease(target):
            begun.set()
            time.sleep(0.3)
            target.write_bytes(b"whole")

    other = threading.Thread(target=get)
    other.start()
    begun.wait()
    assert fetch(["http://127.0.0.1:9/nobody"], target, size=5).read_bytes() == b"whole"
    other.join()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
