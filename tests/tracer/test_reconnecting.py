"""One socket that connects more than once: what is said is of the connection that it has then."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pandas as pd
import pytest
from loopback import LOOPBACK, disconnect
from overheard import free_port, until

import netlab
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged

PATHS = ["/a", "/b", "/c"]


@contextlib.contextmanager
def answering(family: int, greeting: bytes = b"") -> Iterator[int]:
    """Serve HTTP with answers of two bytes, behind a *greeting*; yield the port."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with socket.create_server((LOOPBACK[family], 0), family=kind) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):  # closed
                while True:
                    with listener.accept()[0] as connection, contextlib.suppress(ConnectionError):
                        connection.sendall(greeting)
                        while connection.recv(4096):
                            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def ask(client: socket.socket, family: int, port: int) -> int:
    """Connect, ask for each of PATHS; return the port at this end."""
    client.connect((LOOPBACK[family], port))
    for path in PATHS:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        assert client.recv(4096)
    own: int = client.getsockname()[1]
    return own


def asked(capture: Capture, port: int) -> pd.DataFrame:
    """Wait for the requests to *port*, as the client sees them, and return them."""

    def seen() -> pd.DataFrame:
        requests = capture.requests()
        return requests[(requests["direction"] == "outgoing") & (requests["remote_port"] == port)]

    until(lambda: len(seen()) >= len(PATHS))
    return seen()


@pytest.fixture(params=LOOPBACK)
def family(request: pytest.FixtureRequest) -> int:
    one: int = request.param
    return one


@pytest.fixture
def client(family: int) -> Iterator[socket.socket]:
    """A socket that is not connected yet."""
    with socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET) as one:
        yield one


@pytest.mark.parametrize("chosen", [True, False])
def test_a_socket_that_was_refused_first_is_read_where_it_is_answered(
    client: socket.socket, family: int, *, chosen: bool
) -> None:
    with (
        answering(family) as port,
        netlab.capture(protocols="http", port=port if chosen else None) as capture,
    ):
        with pytest.raises(ConnectionRefusedError):
            client.connect((LOOPBACK[family], free_port()))
        own = ask(client, family, port)
        requests = asked(capture, port)

    assert requests["resource"].tolist() == PATHS
    assert set(requests["local_port"]) == {own}
    assert set(requests["outcome"]) == {"answered"}


def test_each_connection_of_a_socket_has_its_own_requests(client: socket.socket, family: int) -> None:
    with answering(family) as one, answering(family) as other, netlab.capture(protocols="http") as capture:
        own = []
        for port in (one, other):
            own.append(ask(client, family, port))
            disconnect(client)
        requests = [asked(capture, port) for port in (one, other)]

    assert [frame["resource"].tolist() for frame in requests] == [PATHS, PATHS]
    assert [set(frame["local_port"]) for frame in requests] == [{port} for port in own]


def test_a_socket_that_spoke_something_else_first_is_read_when_it_speaks_http(
    client: socket.socket, family: int
) -> None:
    with (
        answering(family, b"SSH-2.0-here\r\n") as other,
        answering(family) as port,
        netlab.capture(protocols="http") as capture,
    ):
        client.connect((LOOPBACK[family], other))
        client.sendall(b"SSH-2.0-there\r\n")
        assert client.recv(4096)
        capture.requests()  # by now it is known to be nothing that is asked for
        disconnect(client)
        ask(client, family, port)
        requests = asked(capture, port)

    assert requests["resource"].tolist() == PATHS
