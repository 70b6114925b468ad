"""What was open before a capture: real sockets, listed at its start; before.toml has the rows to expect."""

from __future__ import annotations

import contextlib
import itertools
import socket
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from loopback import LINGER_0
from places import Place, marked, told

import netlab
from netlab.lab import plan
from netlab.lab.network import PracticeNetwork

pytestmark = pytest.mark.privileged
CASES = tomllib.loads(Path(__file__).with_name("before.toml").read_text())["case"]
TCP_SYNCNT = 7  # include/uapi/linux/tcp.h
SERVICES = itertools.count(7777)  # no ephemeral ports


@dataclass
class Before:
    """Sockets of one case and family: made before the capture, and what is done to them in it."""

    at: Place
    kept: contextlib.ExitStack
    ports: set[int] = field(default_factory=set)
    since: Callable[[], object] = lambda: None

    def keep(self, one: socket.socket) -> socket.socket:
        self.kept.enter_context(one).settimeout(10)
        if one.getsockname()[1]:
            self.ports.add(one.getsockname()[1])
        return one

    def asked(self, port: int = 0) -> tuple[socket.socket, socket.socket]:
        """Return a listener and a client that has connected and sent 100 bytes."""
        listening = self.at.socket()
        listening.bind((self.at.home, port))
        listening.listen()
        client = self.at.socket()
        client.connect(listening.getsockname())
        client.sendall(bytes(100))
        return self.keep(listening), self.keep(client)

    def connected(self) -> tuple[socket.socket, socket.socket]:
        listening, client = self.asked()
        server = self.keep(listening.accept()[0])
        server.recv(100, socket.MSG_WAITALL)
        return client, server

    def datagrams(self) -> tuple[socket.socket, socket.socket]:
        """Return a connected client and its server."""
        server, client = (self.at.socket(socket.SOCK_DGRAM) for _ in range(2))
        server.bind((self.at.home, next(SERVICES)))
        client.connect(server.getsockname())
        return self.keep(client), self.keep(server)


def open(before: Before) -> None:  # noqa: A001 - a state's name
    client, server = before.connected()
    server.sendall(bytes(7))
    client.recv(7, socket.MSG_WAITALL)


def used_since(before: Before) -> None:
    client, server = before.connected()

    def use() -> None:
        client.sendall(bytes(30))
        server.recv(30, socket.MSG_WAITALL)

    before.since = use


def closed_since(before: Before) -> None:
    client, server = before.connected()

    def close() -> None:
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.close()
        assert client.recv(1) == b""
        client.close()

    before.since = close


def reset_since(before: Before) -> None:
    client, server = before.connected()

    def reset() -> None:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)

    before.since = reset


def half_closed(before: Before) -> None:
    client, server = before.connected()
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""


def closed_by_the_client_alone(before: Before) -> None:
    client, server = before.connected()
    client.close()
    assert server.recv(1) == b""


def asking(before: Before) -> None:
    client = before.at.socket()
    client.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 20)  # until long after the slowest machine has looked
    client.setblocking(False)
    client.connect_ex((before.at.web, before.at.net.ports.drops))
    before.keep(client)


def not_accepted_yet(before: Before) -> None:
    before.asked()


def bound_port_whose_listener_is_gone(before: Before) -> None:
    listening, _ = before.asked(next(SERVICES))
    before.keep(listening.accept()[0])
    listening.close()


def chosen_port_whose_listener_is_gone(before: Before) -> None:
    """As that of FTP's data connections is."""
    listening, _ = before.asked()
    before.keep(listening.accept()[0]).sendall(b"a few bytes")
    listening.close()


def connected_from_a_port_that_listens_too(before: Before) -> None:
    """As members of a cluster do, who are each other's clients."""
    ours, theirs, client = (before.keep(before.at.socket()) for _ in range(3))
    for one in (ours, client):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for one, port in ((ours, next(SERVICES)), (theirs, 0)):
        one.bind((before.at.home, port))
        before.ports.add(one.getsockname()[1])
    client.bind(ours.getsockname())
    theirs.listen()
    client.connect(theirs.getsockname())
    ours.listen()
    before.keep(theirs.accept()[0])


def connected_to_itself(before: Before) -> None:
    both = before.at.socket()
    both.bind((before.at.home, 0))
    both.connect(both.getsockname())
    both.sendall(b"abc")
    assert both.recv(3, socket.MSG_WAITALL) == b"abc"
    before.keep(both)


def only_listening(before: Before) -> None:
    listening = before.at.listener()
    before.keep(listening)


def over_before(before: Before) -> None:
    client, server = before.connected()
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.close()
    assert client.recv(1) == b""
    client.close()


def datagrams_and_silence(before: Before) -> None:
    client, server = before.datagrams()
    client.send(bytes(50))
    server.recv(50)


def datagrams_since(before: Before) -> None:
    client, _ = before.datagrams()
    before.since = lambda: client.send(bytes(9))


def unconnected(before: Before) -> None:
    alone = before.at.socket(socket.SOCK_DGRAM)
    alone.bind((before.at.home, 0))
    before.keep(alone)


@pytest.fixture(scope="module")
def net() -> Iterator[PracticeNetwork]:
    with netlab.lab.practice() as network:
        yield network


@pytest.fixture(scope="module")
def rows(net: PracticeNetwork) -> Iterator[dict[tuple[str, int], pd.DataFrame]]:
    """Do what every case does, around one capture; the rows are those of its own ports."""
    with contextlib.ExitStack() as kept:
        done = {}
        for case in CASES:
            for family in plan.FAMILIES:
                before = Before(Place(net, family), kept)
                globals()[case["what"]](before)
                done[case["what"], family] = before
        with netlab.capture(netns=net.client.netns) as capture:
            for before in done.values():
                before.since()
            frame = capture.connections()
            yield {
                which: frame[
                    (frame["family"] == which[1])
                    & (frame["local_port"].isin(before.ports) | frame["remote_port"].isin(before.ports))
                ]
                for which, before in done.items()
            }


@pytest.mark.parametrize("family", plan.FAMILIES)
@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_what_was_there_before_is_what_the_rows_say(
    rows: dict[tuple[str, int], pd.DataFrame], case: dict[str, Any], family: plan.Family
) -> None:
    seen = rows[case["what"], family]
    found = told(seen.sort_values("direction", key=lambda way: way.astype(str)), list(seen.columns))
    assert set(seen["seen"]) <= {"backfill"}
    assert len(found) == len(case["rows"])
    assert [
        {name: row[name] for name in expected} for row, expected in zip(found, case["rows"], strict=True)
    ] == case["rows"]
