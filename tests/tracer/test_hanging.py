"""Requests whose answer cannot come any more, though not both ends have said that they are done."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import pytest
from loopback import LOOPBACK
from overheard import until

import netlab
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
ASKS = b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n"
FAMILIES = pytest.mark.parametrize("family", [4, 6])


@contextmanager
def asked(family: int, said: bytes = ASKS) -> Iterator[tuple[Capture, socket.socket, socket.socket]]:
    """Yield a capture, and both ends of a connection on which a request was made and read."""
    with (
        socket.create_server((LOOPBACK[family], 0), family=FAMILY[family]) as listener,
        netlab.capture(protocols="http", port=listener.getsockname()[1]) as capture,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        server, _ = listener.accept()
        with server:
            client.sendall(said)
            assert server.recv(1000) == said
            yield capture, client, server


def of(capture: Capture, direction: str) -> pd.DataFrame:
    rows = capture.requests()
    return rows[rows["direction"] == direction]


@FAMILIES
def test_a_client_that_gives_up_gets_no_answer(family: int) -> None:
    with asked(family) as (capture, client, _):
        assert of(capture, "outgoing")["outcome"].tolist() == ["pending"]
        client.close()
        until(lambda: of(capture, "outgoing")["outcome"].tolist() == ["unanswered"])

        assert of(capture, "incoming")["outcome"].tolist() == ["pending"]  # its server goes on
        assert sum(capture.totals().requests.values()) == 1


@FAMILIES
def test_a_server_that_hangs_up_answers_no_more(family: int) -> None:
    with asked(family) as (capture, client, server):
        server.close()
        assert client.recv(1) == b""
        until(lambda: set(capture.requests()["outcome"]) == {"unanswered"})

        client.sendall(ASKS)  # in vain: the kernel resets
        until(lambda: of(capture, "outgoing")["outcome"].tolist() == ["unanswered"] * 2)


@FAMILIES
def test_an_answer_that_goes_on_to_the_end_ends_with_what_the_server_says(family: int) -> None:
    with asked(family, b"GET /old HTTP/1.0\r\n\r\n") as (capture, client, server):
        server.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
        server.shutdown(socket.SHUT_WR)
        while client.recv(1000):
            pass
        until(lambda: capture.requests()["duration_ms"].notna().all())

        assert capture.requests()["response_bytes"].tolist() == [24, 24]
        assert set(capture.requests()["outcome"]) == {"answered"}
