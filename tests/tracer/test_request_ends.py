"""Connections that say more than the ring holds: their ends, and what is said behind it."""

from __future__ import annotations

import socket
import threading

import pandas as pd
import pytest
from overheard import until

import netlab
from netlab.tracer.payload import PayloadSource

pytestmark = pytest.mark.privileged

ANSWER = b"$40000000\r\n" + bytes(40_000_000) + b"\r\n"
AT_ONCE = {"small": 1_000, "large": 60_000}  # bytes of a packet
SMALL = 200  # requests


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


def exchange(
    client: socket.socket, server: socket.socket, asked: bytes, answer: bytes, at_once: int = 1_000
) -> None:
    client.sendall(asked)
    receive(server, len(asked))
    for begin in range(0, len(answer), at_once):
        server.sendall(answer[begin : begin + at_once])
        receive(client, len(answer[begin : begin + at_once]))


@pytest.fixture
def requests(request: pytest.FixtureRequest, reading: threading.Event) -> pd.DataFrame:
    """What a client asks while nobody reads: an answer larger than the ring, and then small ones."""
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
            exchange(client, server, command(b"GET", b"big"), ANSWER, AT_ONCE[request.param])
            for _ in range(SMALL if request.param == "large" else 0):
                exchange(client, server, command(b"INCR", b"n"), b":1\r\n")
        reading.set()
        until(lambda: capture.connections()["closed_at"].notna().sum() >= 2)
        until(lambda: (capture.requests()["outcome"] != "pending").sum() >= 4)
        return capture.requests()


def counts(requests: pd.DataFrame) -> dict[tuple[str, str, str], int]:
    by: dict[tuple[str, str, str], int] = (
        requests.groupby(["direction", "operation", "outcome"], observed=True).size().to_dict()
    )
    return by


@pytest.mark.parametrize("requests", ["small"], indirect=True)
def test_a_long_answer_whose_end_did_not_fit_into_the_ring_is_an_answer(requests: pd.DataFrame) -> None:
    assert counts(requests) == {
        (direction, operation, "answered"): 1
        for direction in ("incoming", "outgoing")
        for operation in ("PING", "GET")
    }
    long = requests[requests["operation"] == "GET"]
    assert set(long["response_bytes"]) == {len(ANSWER)}
    assert long["latency_ms"].notna().all()
    assert long["duration_ms"].isna().all()  # nobody saw when it ended


@pytest.mark.parametrize("requests", ["large"], indirect=True)
def test_large_packets_leave_room_for_small_ones(requests: pd.DataFrame) -> None:
    assert counts(requests) == {
        (direction, operation, "answered"): count
        for direction in ("incoming", "outgoing")
        for operation, count in (("PING", 1), ("GET", 1), ("INCR", SMALL))
    }
    assert requests["duration_ms"].notna().all()
