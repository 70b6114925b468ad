"""DNS read from packets: whose queries they are, over UDP and TCP, IPv4 and IPv6."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pandas as pd
import pytest

import netlab
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged

NAME = b"\3www\6secret\7example\0"
QUERY = struct.pack("!6H", 0x1234, 0x100, 1, 0, 0, 0) + NAME + b"\0\1\0\1"
ANSWER = struct.pack("!6H", 0x1234, 0x8180, 1, 1, 0, 0) + NAME + b"\0\1\0\1"
ANSWER += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("192.0.2.7")
FRAMED = struct.pack("!H", len(QUERY)) + QUERY
LOOPBACKS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def serve_datagrams(server: socket.socket) -> None:
    while True:
        _, asker = server.recvfrom(4096)
        server.sendto(ANSWER, asker)


def serve_streams(server: socket.socket) -> None:
    while True:
        client, _ = server.accept()
        with client:
            client.recv(len(FRAMED), socket.MSG_WAITALL)
            client.sendall(struct.pack("!H", len(ANSWER)) + ANSWER)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as streams,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as datagrams,
    ):
        port = streams.getsockname()[1]
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.bind(("::", port))
        for work, end in ((serve_datagrams, datagrams), (serve_streams, streams)):
            threading.Thread(target=work, args=(end,), daemon=True).start()
        yield port


def ask(family: socket.AddressFamily, port: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as asker:
        asker.sendto(QUERY, (LOOPBACKS[family], port))
        assert asker.recv(4096) == ANSWER
    with socket.socket(family, socket.SOCK_STREAM) as asker:
        asker.connect((LOOPBACKS[family], port))
        asker.sendall(FRAMED[:20])
        asker.sendall(FRAMED[20:])
        assert asker.recv(4096).endswith(ANSWER)


def answered(capture: Capture, count: int) -> pd.DataFrame:
    deadline = time.monotonic() + 30
    while (capture.dns()["rcode"] == "NOERROR").sum() < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return capture.dns()


@pytest.fixture(scope="module")
def capture(server: int) -> Iterator[Capture]:
    with netlab.capture(protocols=["dns", "http"], dns_ports=server, mask_names="example") as running:
        for family in LOOPBACKS:
            ask(family, server)
        answered(running, 8)
        yield running


def test_each_query_is_a_row_at_both_ends(capture: Capture) -> None:
    rows = capture.dns()

    told = rows.groupby(["transport", "direction", "server_address"], observed=True).size()
    assert len(told) == 8  # the server's own socket sees IPv4 mapped into IPv6
    assert (told == 1).all()
    assert set(rows["pid"]) == {os.getpid()}
    assert set(rows["answers"]) == {"192.0.2.7"}
    assert (rows["latency_ms"] > 0).all()


def test_names_are_masked_where_told(capture: Capture) -> None:
    assert set(capture.dns()["name"]) == {"*.example"}
    assert set(zip(capture.names()["address"], capture.names()["name"], strict=True)) == {
        ("192.0.2.7", "*.example")
    }
    assert "secret" not in capture.dns().to_csv() + capture.names().to_csv()


@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_of_one_direction_there_is_one_end(server: int, direction: str) -> None:
    with netlab.capture(protocols="dns", dns_ports=server, direction=direction) as capture:
        ask(socket.AF_INET, server)
        rows = answered(capture, 2)

    assert rows["direction"].tolist() == [direction] * 2
    assert set(rows["transport"]) == {"udp", "tcp"}


def test_a_capture_of_udp_alone_reads_datagrams_alone(server: int) -> None:
    with netlab.capture(protocol="udp", protocols="dns", dns_ports=server) as capture:
        ask(socket.AF_INET, server)
        rows = answered(capture, 2)

    assert set(rows["transport"]) == {"udp"}
    with pytest.raises(netlab.BadInput, match="http is spoken over TCP"):
        netlab.capture(protocol="udp", protocols=["dns", "http"])
