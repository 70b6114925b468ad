"""What programs call TLS libraries for besides reading and writing, and in which order."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPSConnection
from io import BufferedReader
from pathlib import Path

import pandas as pd
import pytest
from certificates import certify, trusting
from overheard import free_port, nginx, running, until
from tlslibraries import GnuTls, OpenSsl
from turns import speak_in_turn

import netlab
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged

PAUSE_S = 0.3
FORKING = """
import http.server, os, ssl, sys

class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200 if self.path == "/there" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *said): ...

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[2:])
server.socket = context.wrap_socket(server.socket, server_side=True)
kept = []
while True:
    try:
        kept.append(server.socket.accept())
    except OSError:  # who only looks whether there is a server
        continue
    if not os.fork():
        Answer(*kept[-1], server)
        os._exit(0)
"""


@dataclass(frozen=True)
class Here:
    """A web server in TLS, a port for others, and a capture that sees both."""

    web: int
    other: int
    files: tuple[Path, Path]
    cap: Capture

    def rows(self, number: int, end: str, port: int) -> pd.DataFrame:
        """Return the *number* requests of the connection with this port at one end."""
        until(lambda: len(self.requests(end, port)) >= number)
        return self.requests(end, port)

    def requests(self, end: str, port: int) -> pd.DataFrame:
        rows = self.cap.requests()
        return rows[rows[end] == port]

    @contextlib.contextmanager
    def plain(self, port: int) -> Iterator[socket.socket]:
        """Connect, not in TLS yet; the libraries want a socket that blocks: without a timeout of Python's."""
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 30, 0))
            yield client


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    place = tmp_path_factory.mktemp("servers")
    files, other = certify(place), free_port()
    with (
        nginx(place, "ssl", files) as web,
        netlab.capture(protocols="http", clear_text=True, port=[web, other]) as cap,
    ):
        yield Here(web, other, files, cap)


def _request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


def _answer(lines: BufferedReader) -> int:
    """Read one answer, and return its status."""
    head = list(iter(lines.readline, b"\r\n"))
    (size,) = [int(line.split()[1]) for line in head if line.lower().startswith(b"content-length:")]
    lines.read(size)
    return int(head[0].split()[1])


def _told(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(rows[["resource", "status", "outcome"]].itertuples(index=False, name=None))


def _corked(session: GnuTls) -> None:
    request = _request("/deep/first")
    session.send_corked(request[:5], request[5:])


def _filed(session: GnuTls) -> None:
    """Send a body that GnuTLS reads from a file itself."""
    with tempfile.TemporaryFile() as file:
        file.write(b"GET /none HTTP/1.1\r\n" * 1000)
        file.flush()
        head = b"POST /upload HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % file.tell()
        file.seek(0)
        session.sendall(head)
        session.send_file(file.fileno())


@pytest.mark.parametrize(
    ("first", "path"),
    [
        (_corked, "/deep/first"),
        (_filed, "/upload"),
        (lambda session: session.send2(_request("/deep/first")), "/deep/first"),
    ],
    ids=["gnutls_record_uncork", "gnutls_record_send_file", "gnutls_record_send2"],
)
def test_what_gnutls_sends_in_another_way_is_said_once(here: Here, first: object, path: str) -> None:
    with here.plain(here.web) as plain:
        mine = plain.getsockname()[1]
        with contextlib.closing(GnuTls(plain)) as session:
            lines = session.makefile("rb")
            first(session)  # type: ignore[operator]
            assert _answer(lines) == 200
            session.sendall(_request("/none"))
            assert _answer(lines) == 404

    for end in ("local_port", "remote_port"):
        assert _told(here.rows(2, end, mine)) == [(path, "200", "answered"), ("/none", "404", "answered")]


def test_what_is_sealed_by_one_large_call_is_read_to_its_end(here: Here) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (1 << 12, b"c" * (1 << 12)) for _ in range(14)) + b"0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks

    def serve(listener: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*here.files)
        with context.wrap_socket(listener.accept()[0], server_side=True) as session:
            for _ in range(2):
                session.recv(1 << 10)
                session.sendall(answer)

    with socket.create_server(("127.0.0.1", here.other)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        client = HTTPSConnection("127.0.0.1", here.other, timeout=30, context=trusting())
        with contextlib.closing(client):
            for path in ("/a", "/b"):
                client.request("GET", path)
                assert len(client.getresponse().read()) == 14 << 12
            mine = client.sock.getsockname()[1]
        server.join()

    for end in ("local_port", "remote_port"):
        rows = here.rows(2, end, mine)
        assert _told(rows) == [("/a", "200", "answered"), ("/b", "200", "answered")]
        assert list(rows["response_bytes"]) == [len(answer)] * 2


def test_a_session_goes_on_until_the_last_who_holds_it_frees_it(here: Here) -> None:
    with here.plain(here.web) as plain, contextlib.closing(OpenSsl(plain)) as session:
        session.share()
        session.send(_request("/deep/first"))
        session.free()
        assert session.receive().startswith(b"HTTP/1.1 200")
        mine = plain.getsockname()[1]
        rows = here.rows(1, "local_port", mine)

    assert _told(rows) == [("/deep/first", "200", "answered")]


def test_a_child_that_goes_on_in_a_session_of_its_parent_is_read(here: Here) -> None:
    command = (sys.executable, "-c", FORKING, str(here.other), *map(str, here.files))
    with running(command, here.other):
        client = HTTPSConnection("127.0.0.1", here.other, timeout=30, context=trusting())
        with contextlib.closing(client):
            for path in ("/there", "/nowhere", "/there"):
                client.request("GET", path)
                client.getresponse().read()
            mine = client.sock.getsockname()[1]
        asked, served = (here.rows(3, end, mine) for end in ("local_port", "remote_port"))

    assert (
        _told(served)
        == _told(asked)
        == [
            ("/there", "200", "answered"),
            ("/nowhere", "404", "answered"),
            ("/there", "200", "answered"),
        ]
    )


def test_a_session_that_is_over_and_kept_does_not_hide_the_next_one_on_its_connection(here: Here) -> None:
    kept: list[object] = []

    mine = speak_in_turn(here.other, here.files, kept)

    for end in ("local_port", "remote_port"):
        assert _told(here.rows(3, end, mine)) == [
            ("/a", "200", "answered"),
            ("/b", "404", "answered"),
            ("/c", "503", "answered"),
        ]


def test_what_does_not_go_at_once_was_said_when_it_was_given_first(here: Here) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*here.files)
    body = bytes(1 << 23)  # more than two sockets' buffers hold
    waited: list[float] = []

    def serve(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as sealed:
            time.sleep(PAUSE_S)
            size = 0
            while size < len(body):
                size += len(sealed.recv(1 << 16))
            sealed.sendall(b"HTTP/1.1 200 Word\r\nContent-Length: 0\r\n\r\n")
            sealed.recv(1)

    with socket.create_server(("127.0.0.1", here.other)) as listener:
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        with here.plain(here.other) as plain, trusting().wrap_socket(plain) as sealed:
            mine, begun = sealed.getsockname()[1], time.monotonic()
            sealed.send(
                _request("/large").replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(body)) + body
            )
            sealed.recv(4096)
            waited.append((time.monotonic() - begun) * 1000)
        serving.join(30)
        (row,) = here.rows(1, "local_port", mine).to_dict("records")

    assert (row["resource"], row["outcome"]) == ("/large", "answered")
    assert PAUSE_S * 1000 < row["duration_ms"] <= waited[0]
