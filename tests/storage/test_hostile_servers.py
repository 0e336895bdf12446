"""fetch against servers that never end: each is one sentence within seconds, and no partial file is
believed.
"""

import gzip
import hashlib
import re
import socket
import threading
import time

import pytest

from stillrobust.errors import UserError
from stillrobust.storage import downloads, http
from stillrobust.storage.downloads import fetch

CONTENT = bytes(range(256)) * 1000  # 256 kB
HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nETag: "one"\r\n'
LENGTH = b"Content-Length: %d\r\n\r\n"


class Stopped(Exception):
    """The test is over."""


class Server:
    """Sends whatever a behaviour writes, byte for byte, until the test ends."""

    def __init__(self, behaviour):
        self.behaviour, self.requests, self.ended = behaviour, 0, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.requests += 1
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        try:
            with connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                start = re.search(rb"Range: bytes=(\d+)-", request)
                self.behaviour(self, connection.sendall, int(start[1]) if start else 0)
        except (OSError, Stopped):
            return

    def wait(self, seconds=0.02):
        if self.ended.wait(seconds):
            raise Stopped

    def stop(self):
        self.ended.set()
        self.listener.close()


def one_byte_at_a_time(server, send, start):
    send(HEAD + LENGTH % len(CONTENT))
    for number in range(len(CONTENT)):
        send(CONTENT[number : number + 1])
        server.wait()


def one_byte_a_connection(server, send, start):
    """Each request goes on where the last one ended, and adds a byte."""
    if not start:
        send(HEAD + LENGTH % len(CONTENT) + CONTENT[:1])
    else:
        place = b"Content-Range: bytes %d-%d/%d\r\n" % (start, len(CONTENT) - 1, len(CONTENT))
        head = HEAD.replace(b"200 OK", b"206 Partial Content") + place
        send(head + LENGTH % (len(CONTENT) - start) + CONTENT[start : start + 1])


def from_the_beginning_each_time(server, send, start):
    send(HEAD + LENGTH % len(CONTENT) + CONTENT[:200_000])


def another_range(server, send, start):
    if not start:
        return send(HEAD + LENGTH % len(CONTENT) + CONTENT[:200_000])
    place = b"Content-Range: bytes 0-%d/%d\r\n" % (len(CONTENT) - 1, len(CONTENT))
    return send(HEAD.replace(b"200", b"206") + place + LENGTH % len(CONTENT) + CONTENT)


def a_range_that_is_no_number(server, send, start):
    if not start:
        return send(HEAD + LENGTH % len(CONTENT) + CONTENT[:200_000])
    return send(
        HEAD.replace(b"200", b"206") + b"Content-Range: bytes " + b"9" * 5000 + b"-\r\n\r\n"
    )


def redirects_to_itself(server, send, start):
    send(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")


def redirects_elsewhere_each_time(server, send, start):
    to = b"/%d" % server.requests
    send(b"HTTP/1.1 302 Found\r\nLocation: " + to + b"\r\nContent-Length: 0\r\n\r\n")


def redirects_with_an_endless_body(server, send, start):
    send(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n")
    while True:
        send(bytes(1000))
        server.wait()


def redirects_to_a_file(server, send, start):
    send(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\nContent-Length: 0\r\n\r\n")


def endless_headers(server, send, start):
    send(b"HTTP/1.1 200 OK\r\n")
    while True:
        send(b"X-More: " + b"a" * 60_000 + b"\r\n")


def one_endless_header(server, send, start):
    send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        send(b"a" * 60_000)


def headers_byte_by_byte(server, send, start):
    send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        send(b"a")
        server.wait()


def continues_without_end(server, send, start):
    while True:
        send(b"HTTP/1.1 100 Continue\r\n\r\n")
        server.wait()


def says_nothing(server, send, start):
    while True:
        server.wait(1)


def hangs_up(server, send, start):
    return


def another_protocol(server, send, start):
    send(b"SSH-2.0-OpenSSH_9.6\r\n" * 100)


def endless_chunks(server, send, start):
    send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        send(b"10000\r\n" + bytes(65536) + b"\r\n")


def endless_without_a_length(server, send, start):
    send(HEAD + b"\r\n")
    while True:
        send(bytes(65536))


def chunks_without_an_end(server, send, start):
    send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3E800\r\n" + CONTENT)


def chunks_that_are_no_chunks(server, send, start):
    send(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + CONTENT)


def trailers_without_end(server, send, start):
    send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3E800\r\n" + CONTENT + b"\r\n0\r\n")
    while True:
        send(b"X-More: a\r\n")
        server.wait()


def a_part_without_a_length(server, send, start):
    send(HEAD + b"\r\n" + CONTENT[:1000])


def a_length_that_is_no_number(server, send, start):
    send(HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + CONTENT)


def a_negative_length(server, send, start):
    send(HEAD + b"Content-Length: -1\r\n\r\n" + CONTENT)


def a_length_too_long(server, send, start):
    send(HEAD + LENGTH % (len(CONTENT) + 1) + CONTENT)


def a_file_beyond_every_disk(server, send, start):
    send(HEAD + LENGTH % (1 << 62) + CONTENT)


def a_gzip_bomb(server, send, start):
    packed = gzip.compress(bytes(20_000_000))
    send(HEAD + b"Content-Encoding: gzip\r\n" + LENGTH % len(packed) + packed)


def a_state_that_is_a_header(server, send, start):
    """Its ETag, sent back as it is, would add a header to the next request."""
    head = HEAD.replace(b'"one"', b'"one"\r\n X-Injected: 1')
    send(head + LENGTH % len(CONTENT) + CONTENT[:200_000])


def a_page_of_brackets(server, send, start):
    page = b"<form id=" * 1_000_000
    send(HEAD.replace(b"application/octet-stream", b"text/html") + LENGTH % len(page) + page)


HOSTILE = {
    one_byte_at_a_time: "less than 1024 bytes a second",
    one_byte_a_connection: "the connection ended",
    from_the_beginning_each_time: "the connection ended",
    another_range: "another range|the connection ended",
    a_range_that_is_no_number: "another range|the connection ended",
    redirects_to_itself: "redirects too often",
    redirects_elsewhere_each_time: "redirects too often",
    redirects_with_an_endless_body: "redirects too often",
    redirects_to_a_file: "to no web address",
    endless_headers: "not valid HTTP",
    one_endless_header: "not valid HTTP",
    headers_byte_by_byte: "no file within",
    continues_without_end: "no file within",
    says_nothing: "timed out",
    hangs_up: "the connection failed",
    another_protocol: "not valid HTTP",
    endless_chunks: "more than 3000000 bytes",
    endless_without_a_length: "does not say how long",
    chunks_without_an_end: "ended before the end",
    chunks_that_are_no_chunks: "ended before the end",
    trailers_without_end: "less than 1024 bytes a second",
    a_part_without_a_length: "does not say how long",
    a_length_that_is_no_number: "does not say how long",
    a_negative_length: "does not say how long",
    a_length_too_long: "the connection ended|ended before the end",
    a_file_beyond_every_disk: "are free in",
    a_gzip_bomb: "compressed",
    a_state_that_is_a_header: "the connection ended|ended before the end",
    a_page_of_brackets: "web page",
}


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.001)
    monkeypatch.setattr(http, "TIMEOUT", 0.2)
    monkeypatch.setattr(http, "START_SECONDS", 0.4)
    monkeypatch.setattr(http, "RATE_SECONDS", 0.3)
    running = []

    def start(behaviour):
        running.append(Server(behaviour))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.mark.parametrize("behaviour", HOSTILE, ids=lambda behaviour: behaviour.__name__)
def test_a_hostile_server_is_one_sentence(behaviour, serve, tmp_path):
    server, began = serve(behaviour), time.monotonic()
    with pytest.raises(UserError, match=HOSTILE[behaviour]) as caught:
        fetch([f"{server.url}/file"], tmp_path / "file", limit=3_000_000)
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert not (tmp_path / "file").exists()
    assert server.requests <= 4 * (http.REDIRECTS + 1)


def test_the_number_of_requests_is_bounded(serve, tmp_path, monkeypatch):
    """A server that always adds enough to count is left after ``ATTEMPTS``; the part stays."""
    monkeypatch.setattr(downloads, "ATTEMPTS", 6)
    monkeypatch.setattr(downloads, "FRUITFUL", 1)
    server = serve(one_byte_a_connection)
    with pytest.raises(UserError, match="the connection ended"):
        fetch([f"{server.url}/file"], tmp_path / "file")
    assert server.requests == 6
    assert (tmp_path / ".file.part").read_bytes() == CONTENT[:6]


@pytest.mark.parametrize("known", [{"size": len(CONTENT)}, {"sha256": "digest"}])
def test_a_body_without_a_length_is_taken_if_the_file_is_known(known, serve, tmp_path):
    if "sha256" in known:
        known = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    server = serve(lambda server, send, start: send(HEAD + b"\r\n" + CONTENT))
    target = fetch([f"{server.url}/file"], tmp_path / "file", **known)
    assert target.read_bytes() == CONTENT
    short = serve(a_part_without_a_length)
    with pytest.raises(UserError, match="another file under this name"):
        fetch([f"{short.url}/file"], tmp_path / "other", **known)
    assert not (tmp_path / "other").exists()


def test_an_address_that_cannot_be_reached_is_tried_once(tmp_path, monkeypatch):
    calls = []

    def refuse(*address, **options):
        calls.append(address)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    began = time.monotonic()
    with pytest.raises(UserError, match="Name or service not known"):
        fetch(["https://weights.example.org/file"], tmp_path / "file")
    assert time.monotonic() - began < 1
    assert len(calls) == 1
    with pytest.raises(UserError, match="its address is not valid"):
        fetch(["http://[::1/file"], tmp_path / "file")
