"""The end of a connection whose last packets did not fit into the ring: that is no silence."""

from __future__ import annotations

import socket
import threading

import pytest
from overheard import until

import netlab
from netlab.tracer.payload import PayloadSource

pytestmark = pytest.mark.privileged

ANSWER = b"$80000000\r\n" + bytes(80_000_000) + b"\r\n"  # more than the ring holds


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Whether what connections say is read."""
    goes_on = threading.Event()
    goes_on.set()
    drain = PayloadSource.drain

    def held(source: PayloadSource) -> None:
        goes_on.wait(60)
        drain(source)

    monkeypatch.setattr(PayloadSource, "drain", held)
    return goes_on


def receive(connection: socket.socket, size: int) -> None:
    while size:
        chunk = connection.recv(min(size, 1 << 20))
        assert chunk
        size -= len(chunk)


def exchange(client: socket.socket, server: socket.socket, asked: bytes, answer: bytes) -> None:
    client.sendall(asked)
    receive(server, len(asked))
    answering = threading.Thread(target=server.sendall, args=(answer,))
    answering.start()
    receive(client, len(answer))
    answering.join()


def test_a_long_answer_whose_end_did_not_fit_into_the_ring_is_an_answer(reading: threading.Event) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        netlab.capture(protocols="redis", port=listener.getsockname()[1]) as capture,
    ):
        with (
            socket.create_connection(listener.getsockname(), timeout=60) as client,
            listener.accept()[0] as server,
        ):
            exchange(client, server, command(b"PING"), b"+PONG\r\n")
            until(lambda: len(capture.requests()) == 2)
            reading.clear()
            exchange(client, server, command(b"GET", b"big"), ANSWER)
        reading.set()
        until(lambda: capture.connections()["closed_at"].notna().sum() >= 2)
        until(lambda: (capture.requests()["outcome"] != "pending").sum() >= 4)
        requests = capture.requests()

    assert requests.groupby(["direction", "operation", "outcome"], observed=True).size().to_dict() == {
        (direction, operation, "answered"): 1
        for direction in ("incoming", "outgoing")
        for operation in ("PING", "GET")
    }
    long = requests[requests["operation"] == "GET"]
    assert set(long["response_bytes"]) == {len(ANSWER)}
    assert long["latency_ms"].notna().all()
    assert long["duration_ms"].isna().all()  # nobody saw when it ended
