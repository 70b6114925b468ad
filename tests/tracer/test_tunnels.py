"""What is said through a proxy that was asked to CONNECT, against what curl says it did."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import certify
from overheard import nginx, until

import netlab
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def proxy() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=_serve, args=(listener,))
        serving.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        serving.join()


def _serve(listener: socket.socket) -> None:
    tunnels = []
    with contextlib.suppress(OSError):
        while True:
            tunnels.append(threading.Thread(target=_tunnel, args=listener.accept()))
            tunnels[-1].start()
    for tunnel in tunnels:
        tunnel.join()


def _tunnel(client: socket.socket, _: object) -> None:
    asked = client.recv(4096).split()[1].decode()
    with client, socket.create_connection(("127.0.0.1", int(asked.rpartition(":")[2]))) as server:
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_pass, args=(server, client))
        back.start()
        _pass(client, server)
        back.join()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _fetch(proxy: int, *urls: str) -> None:
    command = ["curl", "-sk", "--http1.1", "--proxytunnel", "--proxy", f"http://127.0.0.1:{proxy}", *urls]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def _rows(capture: Capture, number: int) -> list[list[tuple[str, str, str]]]:
    """Return protocol, operation and status of what was said at either end, when they are so many."""
    until(lambda: len(capture.requests()) >= 2 * number)
    rows = capture.requests()
    ends = [rows[rows["direction"] == direction] for direction in ("outgoing", "incoming")]
    return [list(zip(end["protocol"], end["operation"], end["status"], strict=True)) for end in ends]


def test_requests_in_a_tunnel_are_rows(proxy: int, tmp_path: Path) -> None:
    with nginx(tmp_path) as web, netlab.capture(protocols="http", port=proxy) as capture:
        _fetch(proxy, f"http://127.0.0.1:{web}/plain.txt", f"http://127.0.0.1:{web}/none")
        rows = _rows(capture, 3)

    said = [("http", "CONNECT", "200"), ("http", "GET", "200"), ("http", "GET", "404")]
    assert rows == [said, said]
    assert netlab.coverage(capture.requests()).empty


def test_a_handshake_in_a_tunnel_is_a_row_and_counted_where_it_is_not_asked_for(
    proxy: int, tmp_path: Path
) -> None:
    with (
        nginx(tmp_path, "ssl", certify(tmp_path)) as web,
        netlab.capture(protocols=("http", "tls"), port=proxy) as both,
        netlab.capture(protocols="http", port=proxy) as plain,
    ):
        _fetch(proxy, f"https://127.0.0.1:{web}/plain.txt")
        rows = _rows(both, 2)
        _rows(plain, 1)

    said = [("http", "CONNECT", "200"), ("tls", "handshake", "OK")]
    assert rows == [said, said]
    coverage = netlab.coverage(plain.requests())
    assert coverage.loc[coverage["detail"].str.contains("CONNECT"), "count"].tolist() == [2]
