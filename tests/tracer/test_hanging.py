"""Requests whose answer cannot come any more, though not both ends have said that they are done."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import pytest
from loopback import AF, LOOPBACK
from overheard import until
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

import netlab
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged
ASKS = b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n"
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21  # include/uapi/linux/tcp.h
FAMILIES = pytest.mark.parametrize("family", [4, 6])


@contextmanager
def asked(family: int, said: bytes = ASKS) -> Iterator[tuple[Capture, socket.socket, socket.socket]]:
    """Yield a capture, and both ends of a connection on which a request was made and read."""
    with (
        socket.create_server((LOOPBACK[family], 0), family=AF[family]) as listener,
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


def next_sequence(end: socket.socket) -> int:
    """Return the number of the next byte that the peer is to send."""
    receive_queue, off_without_a_probe = 1, -1
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, receive_queue)
    number = end.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ)
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, off_without_a_probe)
    return number % (1 << 32)


def forge_reset(family: int, source: int, target: int, sequence: int) -> None:
    ends = {"src": LOOPBACK[family], "dst": LOOPBACK[family]}
    header = IP(**ends) if family == 4 else IPv6(**ends)
    packet = header / TCP(sport=source, dport=target, flags="R", seq=sequence)
    with socket.socket(AF[family], socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.sendto(bytes(packet)[len(header) :], (LOOPBACK[family], 0))


@FAMILIES
def test_a_reset_that_tcp_does_not_take_ends_nothing(family: int) -> None:
    """Within the window but not the next number, it is answered by a challenge (RFC 5961 section 3.2)."""
    with asked(family) as (capture, client, server):
        source, target = server.getsockname()[1], client.getsockname()[1]
        forge_reset(family, source, target, (next_sequence(client) + 100) % (1 << 32))
        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert client.recv(1000)
        until(lambda: of(capture, "outgoing")["outcome"].tolist() == ["answered"])

    assert len(of(capture, "outgoing")) == 1
