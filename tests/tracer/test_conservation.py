"""No byte lost or counted twice: what several clients are told against what the sockets report themselves.

Real connections do random things in a namespace of their own. The truth is getsockopt(TCP_INFO) on each end,
read when nothing is on its way: offsets of struct tcp_info, include/uapi/linux/tcp.h.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from loopback import LINGER_0, LOOPBACK, cookie

import netlab
from netlab.kernel import netns
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged

CLOSE = 7  # TCP_CLOSE, include/net/tcp_states.h
WINDOW = 60_000  # bytes that may wait to be read: a full window would have probes of it sent at any time
COUNTED = ["bytes_sent", "bytes_received", "packets_sent", "packets_received", "retransmits"]
WHEN_OPENED = (0, -1)  # the SYN-ACK is sent by no socket yet: only who gets it counts it
CLIENTS = ("often", "seldom", "late")

Counts = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Info:
    """What a TCP socket says of itself."""

    state: int
    unacked: int
    unsent: int
    bytes_sent: int
    bytes_received: int  # with the peer's FIN, if it came
    packets_sent: int
    packets_received: int
    retransmits: int

    @classmethod
    def of(cls, end: socket.socket) -> Info:
        raw = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 216)
        word, long = (lambda at: struct.unpack_from("=I", raw, at)[0]), struct.Struct("=Q").unpack_from
        sent, again = long(raw, 200)[0], long(raw, 208)[0]
        return cls(
            raw[0], word(24), word(144), sent - again, long(raw, 128)[0], word(136), word(140), word(100)
        )


@dataclass
class End:
    """One end of a connection, and what the test has put into it and taken out."""

    socket: socket.socket
    cookie: int
    sent: int = 0
    unread: int = 0
    finished: bool = False  # has sent its FIN

    def read(self) -> None:
        while self.unread:
            self.unread -= len(self.socket.recv(self.unread))


@dataclass
class Connection:
    family: int
    client: End
    server: End

    @property
    def ends(self) -> list[tuple[End, End]]:
        return [(self.client, self.server), (self.server, self.client)]

    def send(self, end: End, peer: End, size: int, put: Callable[[socket.socket, bytes], None]) -> None:
        size = min(size, WINDOW - peer.unread)
        if not end.finished and size:
            put(end.socket, bytes(size))
            end.sent += size
            peer.unread += size

    def settled(self) -> bool:
        """Tell whether every segment that was sent has come, and none is still to be acknowledged."""
        for end, _ in self.ends:
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        one, other = Info.of(self.client.socket), Info.of(self.server.socket)
        if one.state == other.state == CLOSE:
            return True
        still = (one.packets_sent - other.packets_received, other.packets_sent - one.packets_received)
        return still == WHEN_OPENED and not any(end.unacked or end.unsent for end in (one, other))

    def counts(self) -> dict[int, Counts]:
        """Return what each end has counted by now, by its cookie."""
        until(self.settled)
        return {end.cookie: counts(end, peer) for end, peer in self.ends}


def counts(end: End, peer: End) -> Counts:
    info = Info.of(end.socket)
    received = info.bytes_received - peer.finished  # tcp_fin() counts it as a byte
    assert (info.bytes_sent, received) == (end.sent, peer.sent)
    return info.bytes_sent, received, info.packets_sent, info.packets_received, info.retransmits


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def in_a_child(end: socket.socket, data: bytes) -> None:
    """Send from another process that has the same socket, and ends."""
    child = os.fork()
    if child == 0:
        end.sendall(data)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@dataclass
class Client:
    """What one client of the capture was told, by cookie."""

    since: dict[int, Counts]  # what the sockets had counted when it registered
    closed_before: set[int]
    sums: dict[int, Counts] = field(default_factory=dict)
    lifetime: dict[int, Counts] = field(default_factory=dict)
    news: Counter[int] = field(default_factory=Counter)
    closes: Counter[int] = field(default_factory=Counter)
    dropped: int = 0

    def hear(self, told: pd.DataFrame) -> None:
        changes = told[[f"delta_{name}" for name in COUNTED]]
        assert (changes >= 0).all(axis=None)
        for name, change, total in zip(
            told["cookie"], changes.to_numpy(int), told[COUNTED].to_numpy(int), strict=True
        ):
            before = self.sums.get(name, (0,) * len(COUNTED))
            self.sums[name] = tuple(map(sum, zip(before, change.tolist(), strict=True)))
            self.lifetime[name] = tuple(total.tolist())
        self.news.update(told.loc[told["new"], "cookie"])
        self.closes.update(told.loc[told["closed_at"].notna(), "cookie"])
        gaps = netlab.coverage(told)
        self.dropped += int(gaps.loc[gaps["detail"].str.contains("before this client"), "count"].sum())


class World:
    """Connections in *space*, a capture that watches them, and its clients."""

    def __init__(self, space: str, capture: Capture) -> None:
        self.space, self.capture = space, capture
        self.open: list[Connection] = []
        self.totals: dict[int, Counts] = {}  # of the ends that have closed
        self.free: dict[int, tuple[str, int]] = {}  # the client's place in the connection that was reset last
        self.clients: dict[str, Client] = {}
        self.listeners = {family: self.socket(family) for family in LOOPBACK}
        for family, listener in self.listeners.items():
            listener.bind((LOOPBACK[family], 0))
            listener.listen()

    def socket(self, family: int) -> socket.socket:
        with netns.entered(self.space):
            made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(10)
        return made

    def connect(self, family: int, size: int) -> None:
        """Open a connection; with an odd *size* between the same addresses and ports as one before."""
        client = self.socket(family)
        if size % 2 and family in self.free:
            client.bind(self.free.pop(family))
        client.connect(self.listeners[family].getsockname())
        server = self.listeners[family].accept()[0]
        server.settimeout(10)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open.append(Connection(family, End(client, cookie(client)), End(server, cookie(server))))

    def ended(self, connection: Connection) -> None:
        self.open.remove(connection)
        for end, _ in connection.ends:
            end.socket.close()

    def finish(self, connection: Connection) -> None:
        """Close both ways, in order."""
        for end, _ in connection.ends:
            if not end.finished:
                end.socket.shutdown(socket.SHUT_WR)
                end.finished = True
        until(lambda: all(Info.of(end.socket).state == CLOSE for end, _ in connection.ends))
        self.totals |= connection.counts()
        self.ended(connection)

    def reset(self, connection: Connection, end: End, peer: End) -> None:
        """Abort at *end*: only its peer counts the RST, sent after the last state (tcp_disconnect())."""
        place = connection.client.socket.getsockname()[:2]
        last = connection.counts()
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        end.socket.close()
        until(lambda: Info.of(peer.socket).state == CLOSE)
        self.totals |= {end.cookie: last[end.cookie], peer.cookie: counts(peer, end)}
        assert self.totals[peer.cookie][3] == last[peer.cookie][3] + 1
        self.ended(connection)
        self.free[connection.family] = place

    def half_close(self, connection: Connection, end: End, peer: End) -> None:
        if peer.finished:
            self.finish(connection)
        elif not end.finished:
            end.socket.shutdown(socket.SHUT_WR)
            end.finished = True

    def now(self) -> dict[int, Counts]:
        """Return what the open ends have counted by now."""
        return {name: seen for connection in self.open for name, seen in connection.counts().items()}

    def look(self, name: str) -> None:
        if name not in self.clients:
            since = self.now()
            self.capture.register(name)
            self.clients[name] = Client(since, set(self.totals))
        else:
            self.clients[name].hear(self.capture.delta(name))

    def step(self, what: str, which: int, family: int, side: int, size: int) -> None:
        if what == "look":
            self.look(CLIENTS[which % len(CLIENTS)])
        elif what == "open" or not self.open:
            self.connect(family, size)
        else:
            connection = self.open[which % len(self.open)]
            end, peer = connection.ends[side]
            if what == "send":
                connection.send(end, peer, size, socket.socket.sendall)
            elif what == "send in a child":
                connection.send(end, peer, size, in_a_child)
            elif what == "read":
                end.read()
            elif what == "half-close":
                self.half_close(connection, end, peer)
            elif what == "finish":
                self.finish(connection)
            else:
                self.reset(connection, end, peer)

    def close(self) -> None:
        for connection in list(self.open):
            self.ended(connection)
        for listener in self.listeners.values():
            listener.close()

    def assert_conserved(self) -> None:
        """Every end is told to every client with exactly what it counted; what was dropped is counted."""
        totals = self.totals | self.now()
        for name in CLIENTS:
            self.look(name)
            self.look(name)
        for client in self.clients.values():
            ended = set(self.totals) - client.closed_before
            assert set(client.sums) <= set(totals) - client.closed_before
            assert set(client.closes) <= ended
            assert set(client.closes.values()) <= {1}
            assert client.closes.total() + client.dropped == len(ended)
            for socket_cookie in totals.keys() - ended - client.closed_before:
                assert_told(client, socket_cookie, totals[socket_cookie])
            for socket_cookie in client.closes:
                assert_told(client, socket_cookie, totals[socket_cookie])
            for socket_cookie, told in client.sums.items():  # of one that was dropped: at most
                assert all(a <= b for a, b in zip(told, totals[socket_cookie], strict=True))
                assert client.news[socket_cookie] == (socket_cookie not in client.since)

        rows = self.capture.connections()
        lifetime = dict(zip(rows["cookie"], map(tuple, rows[COUNTED].to_numpy(int).tolist()), strict=True))
        assert lifetime == {name: totals[name] for name in lifetime}
        gaps = netlab.coverage(rows)
        assert len(rows) + gaps.loc[gaps["kind"] == "lost", "count"].sum() == len(totals)


def assert_told(client: Client, socket_cookie: int, total: Counts) -> None:
    before = client.since.get(socket_cookie, (0,) * len(total))
    change = tuple(after - earlier for after, earlier in zip(total, before, strict=True))
    assert client.sums.get(socket_cookie, (0,) * len(total)) == change
    if any(change):
        assert client.lifetime[socket_cookie] == total


@pytest.fixture(scope="module")
def space() -> Iterator[str]:
    name = f"netlab-t{os.getpid()}-conservation"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


WHAT = ["open", "send", "send", "read", "look", "look", "half-close", "finish", "reset", "send in a child"]
STEP = st.tuples(
    st.sampled_from(WHAT),
    st.integers(0, 8),
    st.sampled_from([4, 6]),
    st.integers(0, 1),
    st.integers(0, WINDOW),
)


@settings(
    max_examples=5,
    deadline=None,
    derandomize="CI" in os.environ,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each try takes a second: shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.lists(STEP, min_size=60, max_size=120), st.sampled_from([4, 1000]))
def test_the_deltas_of_each_client_are_what_the_sockets_counted(
    space: str, steps: list[tuple[str, int, int, int, int]], most: int
) -> None:
    with netlab.capture(netns=space, max_closed=most) as capture:
        world = World(space, capture)
        try:
            for name in CLIENTS[:2]:  # the third registers when it looks for the first time
                world.look(name)
            for step in steps:
                world.step(*step)
            world.assert_conserved()
        finally:
            world.close()


def lose(space: str, rule: str) -> None:
    """Drop what comes into the namespace and matches *rule*."""
    rules = (
        f"flush ruleset\ntable inet t {{\n chain c {{\n type filter hook input priority 0\n {rule}\n }}\n}}\n"
    )
    subprocess.run(["ip", "netns", "exec", space, "nft", "-f", "-"], input=rules, text=True, check=True)


def test_segments_that_are_lost_and_sent_again_count_as_the_sockets_count_them(space: str) -> None:
    with netlab.capture(netns=space) as capture:
        world = World(space, capture)
        try:
            world.look("often")
            for number in range(8):
                world.connect(4 if number % 2 else 6, 0)
            lose(space, "numgen random mod 10 == 0 drop")
            for _ in range(40):
                for connection in world.open:
                    connection.send(connection.client, connection.server, 1400, socket.socket.sendall)
                world.look("often")
            lose(space, "")
            for connection in list(world.open):
                connection.server.read()
                world.finish(connection)
            world.assert_conserved()
        finally:
            world.close()
    assert sum(total[COUNTED.index("retransmits")] for total in world.totals.values()) > 0


def test_retransmissions_of_a_socket_shared_by_fork_are_counted_once_and_for_who_connected(
    space: str,
) -> None:
    with netlab.capture(netns=space) as capture:
        world = World(space, capture)
        try:
            world.connect(4, 0)
            shared = world.open[0]
            lose(space, "numgen random mod 4 == 0 drop")
            for _ in range(20):
                shared.send(shared.client, shared.server, 1400, in_a_child)
            lose(space, "")
            shared.server.read()
            world.finish(shared)
        finally:
            world.close()
    rows = capture.connections()
    row = rows[rows["cookie"] == shared.client.cookie]
    total = world.totals[shared.client.cookie]
    assert row[COUNTED].to_numpy(int).tolist() == [list(total)]
    assert total[COUNTED.index("retransmits")] > 0
    assert row["pid"].tolist() == [os.getpid()]
