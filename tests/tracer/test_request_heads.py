"""Bodies that the programs do not hand up: rows have the sizes that were sent, and nothing is missing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import pytest

import netlab
from netlab.tracer.layout import PIECE
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged

BODY = bytes(range(256)) * 20  # with line feeds, and blank lines
HEADS_WITHIN = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" * 100
OK = b"HTTP/1.1 200 OK\r\n"


def ask(path: str, method: str = "GET", body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return f"{method} {path} HTTP/1.1\r\nHost: here\r\n".encode() + length + b"\r\n" + body


def answer(body: bytes, name: bytes = b"Content-Length: ", before: bytes = b"") -> bytes:
    return OK + before + name + str(len(body)).encode() + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    return OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


@dataclass(frozen=True, slots=True)
class Told:
    """What each side sends in one go."""

    asks: tuple[bytes, ...]
    answers: tuple[bytes, ...]
    hints: bytes = b""  # in front of the answers, and no part of them
    pieces: int | None = None  # of the answers, where that is a matter of interest


FIRST = Told((ask("/first"),), (answer(b"hello"),))
CASES = {
    "a length": Told((ask("/a"),), (answer(BODY),), pieces=1),
    "a length in lower case, without a blank": Told(
        (ask("/b"),), (answer(BODY, b"content-length:", b"Server: here\r\n"),), pieces=1
    ),
    "a body full of heads": Told((ask("/c"),), (answer(HEADS_WITHIN),), pieces=1),
    "chunks": Told((ask("/d"),), (chunked(BODY),)),
    "a length and chunks": Told(
        (ask("/e"),), (chunked(BODY).replace(OK, OK + b"Content-Length: 99999\r\n", 1),)
    ),
    "two answers in one packet": Told((ask("/f"), ask("/g")), (answer(BODY[:600]), answer(BODY))),
    "early hints in the same packet": Told(
        (ask("/h"),), (answer(BODY),), hints=b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n"
    ),
    "a long head": Told((ask("/i"),), (answer(BODY, before=b"X-Long: " + b"." * 600 + b"\r\n"),)),
    "a length of many digits": Told((ask("/j"),), (answer(BODY, b"Content-Length: 00000000000"),)),
    "an upload": Told((ask("/k", "POST", BODY),), (answer(b""),)),
}


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Capture, socket.socket, socket.socket]]:
    """A connection of which the programs know that it speaks HTTP/1."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        capture = stack.enter_context(netlab.capture(protocols="http", port=port, nat=False))
        client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=60))
        server = stack.enter_context(listener.accept()[0])
        for _ in range(2):  # the second one finds out what user space has said
            exchange(FIRST, client, server)
            capture.requests()
        yield capture, client, server


def exchange(told: Told, client: socket.socket, server: socket.socket) -> None:
    for sender, receiver, text in (
        (client, server, b"".join(told.asks)),
        (server, client, told.hints + b"".join(told.answers)),
    ):
        sender.sendall(text)
        received = 0
        while received < len(text):
            received += len(receiver.recv(65536))


def taken(capture: Capture) -> int:
    """Return how many pieces came up the ring by now."""
    watch = capture._watch
    assert watch
    assert watch._payload
    return int(watch._payload._ring._position[0]) // (PIECE.itemsize + 8)


@pytest.mark.kernels
@pytest.mark.parametrize("case", CASES)
def test_rows_are_of_the_sizes_that_were_sent(
    ends: tuple[Capture, socket.socket, socket.socket], case: str
) -> None:
    capture, client, server = ends
    told = CASES[case]
    before, pieces = len(capture.requests()), taken(capture)

    exchange(told, client, server)
    rows = capture.requests().iloc[before:]

    expected = [(asked.split()[1].decode(), "200") for asked in told.asks]
    sizes = list(zip(map(len, told.asks), map(len, told.answers), strict=True))
    for direction in ("outgoing", "incoming"):
        these = rows[rows["direction"] == direction]
        assert list(zip(these["resource"], these["status"], strict=True)) == expected
        if told.hints:  # whose bytes belong to the answer
            continue
        assert list(zip(these["request_bytes"], these["response_bytes"], strict=True)) == sizes
    assert missing(rows) == {}
    if told.pieces:
        assert taken(capture) - pieces == 2 * (1 + told.pieces)


def missing(rows: pd.DataFrame) -> dict[str, int]:
    gaps = netlab.coverage(rows)
    return dict(zip(gaps["detail"], gaps["count"], strict=True))
