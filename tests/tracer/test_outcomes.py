"""Every way a TCP connection begins and ends: real sockets do it, outcomes.toml has the rows to expect."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from loopback import LINGER_0, cookie, disconnect
from places import Place, marked, told

import netlab
from netlab.lab import plan
from netlab.lab.network import PracticeNetwork
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged
CASES = tomllib.loads(Path(__file__).with_suffix("").with_name("outcomes.toml").read_text())["case"]
MSG_FASTOPEN, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT, TCP_SYNCNT = 0x2000_0000, 23, 30, 7
TCP_USER_TIMEOUT, IPPROTO_MPTCP = 18, 262
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECEIVE_QUEUE, SEND_QUEUE, REPAIR_OFF = 1, 2, -1  # without a probe of the window
NOWHERE = {4: "203.0.113.1", 6: "2001:db8:ffff::1"}
SECOND = {4: "127.0.0.2", 6: "::1"}


@pytest.fixture(scope="module")
def net() -> Iterator[PracticeNetwork]:
    with netlab.lab.practice() as network:
        with network.client.entered():
            Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("3")
            with contextlib.suppress(FileNotFoundError):  # since Linux 6.5: SYNs without backoff
                Path("/proc/sys/net/ipv4/tcp_syn_linear_timeouts").write_text("0")
        yield network


@pytest.fixture(scope="module")
def capture() -> Iterator[Capture]:
    """One for all cases: what each has begun is told apart by time."""
    with netlab.capture(protocol="tcp", backfill=False) as running:
        yield running


def until_closed(connection: socket.socket) -> bytes:
    """Receive until the peer has closed."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def refused(at: Place) -> None:
    with at.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect((at.home, 1))


def refused_at_port_0(at: Place) -> None:
    """What a number that was never set asks for."""
    with at.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect((at.home, 0))


def refused_without_waiting(at: Place) -> None:
    with at.socket() as client:
        client.setblocking(False)
        client.connect_ex((at.web, at.net.ports.refuses))
        time.sleep(0.1)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def connected_without_waiting(at: Place) -> None:
    with at.listener() as listening, at.socket() as client:
        client.setblocking(False)
        client.connect_ex(listening.getsockname())
        with listening.accept()[0] as server:
            while client.connect_ex(listening.getsockname()) not in {0, errno.EISCONN}:
                time.sleep(0.01)
            client.send(b"hello")
            assert server.recv(5, socket.MSG_WAITALL) == b"hello"


def several_paths(at: Place) -> None:
    """MPTCP (RFC 8684): what the process has is another socket; its one path here is a TCP connection."""
    with at.net.client.entered():
        listening, client = (socket.socket(at.kind, socket.SOCK_STREAM, IPPROTO_MPTCP) for _ in range(2))
    with listening, client:
        listening.bind((at.home, 0))
        listening.listen()
        client.connect(listening.getsockname())
        with listening.accept()[0] as server:
            client.sendall(b"hello")
            assert server.recv(5, socket.MSG_WAITALL) == b"hello"
            server.sendall(b"yes")
            assert client.recv(3, socket.MSG_WAITALL) == b"yes"


def nobody_at_the_address(at: Place) -> None:
    """On the same link: the neighbour's address is asked for in vain (ARP, neighbour discovery)."""
    with at.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 4)
        with pytest.raises(OSError, match="No route"):
            client.connect((str(plan.INSIDE.network(at.family)[99]), 80))


def timed_out(at: Place) -> None:
    with at.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 1)
        with pytest.raises(TimeoutError):
            client.connect((at.web, at.net.ports.drops))


def closed_while_connecting(at: Place) -> None:
    with at.socket() as client:
        client.setblocking(False)
        client.connect_ex((at.web, at.net.ports.drops))


def interrupted_by_a_signal(at: Place) -> None:
    class InterruptError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptError

    usual = signal.signal(signal.SIGALRM, interrupt)
    try:
        with at.socket() as client:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(InterruptError):
                client.connect((at.web, at.net.ports.drops))
    finally:
        signal.signal(signal.SIGALRM, usual)


def no_route_to_the_network(at: Place) -> None:
    with at.socket() as client, pytest.raises(OSError, match="unreachable"):
        client.connect((NOWHERE[at.family], 80))


def unreachable_route(at: Place) -> None:
    with (
        at.route(at.net.client, "unreachable", NOWHERE[at.family]),
        at.socket() as client,
        pytest.raises(OSError, match="No route"),
    ):
        client.connect((NOWHERE[at.family], 80))


def prohibited_route(at: Place) -> None:
    with (
        at.route(at.net.client, "prohibit", NOWHERE[at.family]),
        at.socket() as client,
        pytest.raises(PermissionError),
    ):
        client.connect((NOWHERE[at.family], 80))


def blackhole_route(at: Place) -> None:
    with (
        at.route(at.net.client, "blackhole", NOWHERE[at.family]),
        at.socket() as client,
        pytest.raises(OSError, match="Invalid argument"),
    ):
        client.connect((NOWHERE[at.family], 80))


def unreachable_beyond_a_router(at: Place) -> None:
    with (
        at.route(at.net.client, NOWHERE[at.family], "via", plan.INSIDE.address(plan.GATEWAY, at.family)),
        at.route(at.net.gateway, "unreachable", NOWHERE[at.family]),
        at.socket() as client,
    ):
        client.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 1)
        with pytest.raises(OSError, match=r"No route|unreachable"):
            client.connect((NOWHERE[at.family], 80))


def no_route_twice_on_one_socket(at: Place) -> None:
    with at.socket() as client:
        for port in (80, 81):
            with pytest.raises(OSError, match="unreachable"):
                client.connect((NOWHERE[at.family], port))


def reset_without_data(at: Place) -> None:
    client, server = at.connected()
    with client, server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def reset_with_data(at: Place) -> None:
    client, server = at.connected()
    with client, server:
        client.sendall(bytes(1000))
        server.recv(1000, socket.MSG_WAITALL)
        server.sendall(bytes(10))
        client.recv(10, socket.MSG_WAITALL)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def reset_for_unread_data(at: Place) -> None:
    client, server = at.connected()
    with client, server:
        client.sendall(bytes(1000))
        server.recv(1)
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def closed_by_both_at_once(at: Place) -> None:
    client, server = at.connected()
    with client, server:
        client.sendall(b"hello")
        server.sendall(b"welcome")
        assert client.recv(7, socket.MSG_WAITALL) + server.recv(5, socket.MSG_WAITALL)
        ends = [threading.Thread(target=end.shutdown, args=(socket.SHUT_WR,)) for end in (client, server)]
        for end in ends:
            end.start()
        for end in ends:
            end.join()
        assert until_closed(client) + until_closed(server) == b""


def half_closed_for_a_while(at: Place) -> None:
    client, server = at.connected()
    with client, server:
        client.sendall(bytes(100))
        client.shutdown(socket.SHUT_WR)
        assert len(until_closed(server)) == 100
        time.sleep(0.1)
        server.sendall(bytes(5000))
        server.close()
        assert len(until_closed(client)) == 5000


def connected_to_itself(at: Place) -> None:
    with at.socket() as both:
        both.bind((at.home, 0))
        both.connect(both.getsockname())
        both.sendall(b"abc")
        assert both.recv(3) == b"abc"


def opened_by_both_at_once(at: Place) -> None:
    """Two sockets that connect to each other's port; neither listens (RFC 9293 section 3.5, figure 7)."""
    one, other = at.socket(), at.socket()
    slow = [
        "tc",
        "qdisc",
        "add",
        "dev",
        "lo",
        "root",
        "tbf",
        "rate",
        "8kbit",
        "burst",
        "1600",
        "limit",
        "9999",
    ]
    at.run(*slow)
    try:
        for end in (one, other):
            end.bind((at.home, 0))
            end.setblocking(False)
        with at.net.client.entered(), socket.socket(at.kind, socket.SOCK_DGRAM) as filler:
            filler.sendto(bytes(1500), (at.home, 9))  # takes the burst: what follows waits
        one.connect_ex(other.getsockname())
        other.connect_ex(one.getsockname())
        time.sleep(0.5)
    finally:
        at.run("tc", "qdisc", "del", "dev", "lo", "root")
    for end in (one, other):
        end.settimeout(10)
        end.sendall(b"hello")
    with one, other:
        assert one.recv(5, socket.MSG_WAITALL) == other.recv(5, socket.MSG_WAITALL) == b"hello"


def one_socket_connected_twice(at: Place) -> None:
    with at.listener() as listening, at.socket() as client:
        for size in (1, 2):
            client.connect(listening.getsockname())
            client.sendall(bytes(size))
            with listening.accept()[0] as server:
                server.recv(size, socket.MSG_WAITALL)
                server.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""
                client.shutdown(socket.SHUT_WR)
                assert server.recv(1) == b""
            disconnect(client)


def same_ports_again(at: Place) -> None:
    with at.listener() as listening:
        port = 0
        for size in (1, 2):
            with at.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind((at.home, port))
                port = client.getsockname()[1]
                client.connect(listening.getsockname())
                client.sendall(bytes(size))
                with listening.accept()[0] as server:
                    server.recv(size, socket.MSG_WAITALL)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
                    client.close()
                    with contextlib.suppress(ConnectionResetError):
                        server.recv(1)


@contextlib.contextmanager
def fast_listener(at: Place) -> Iterator[socket.socket]:
    """A listener for Fast Open that one connection has come to: the client's host knows its cookie."""
    with at.listener() as listening:
        listening.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 8)
        with at.socket() as first:
            first.sendto(b"fast", MSG_FASTOPEN, listening.getsockname())
            with listening.accept()[0] as server:
                assert server.recv(4, socket.MSG_WAITALL) == b"fast"
                first.shutdown(socket.SHUT_WR)
                assert server.recv(1) == b""
        yield listening


def data_in_the_syn(at: Place) -> None:
    """Fast Open (RFC 7413): first only the cookie is asked for, then data is in the SYN."""
    with at.listener() as listening:
        listening.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 8)
        for _ in range(2):
            with at.socket() as client:
                client.sendto(b"fast", MSG_FASTOPEN, listening.getsockname())
                with listening.accept()[0] as server:
                    assert server.recv(4, socket.MSG_WAITALL) == b"fast"
                    client.shutdown(socket.SHUT_WR)
                    assert server.recv(1) == b""


def never_accepted(at: Place) -> None:
    with at.listener() as listening, at.socket() as client:
        client.connect(listening.getsockname())
        client.sendall(b"unread")
        time.sleep(0.05)
        listening.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def no_free_local_port(at: Place) -> None:
    with at.net.client.entered():
        usual = Path("/proc/sys/net/ipv4/ip_local_port_range")
        before = usual.read_text()
        usual.write_text("50000 50000")
    try:
        with at.socket() as taken, at.socket() as client:
            taken.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 1)
            taken.bind((at.home, 50000))
            with pytest.raises(ConnectionRefusedError):
                taken.connect((at.home, 1))
            with at.socket() as holder:
                holder.setblocking(False)
                with contextlib.suppress(OSError):
                    client.connect((at.home, 1))
    finally:
        with at.net.client.entered():
            usual.write_text(before)


def bound_to_a_port_that_is_connected_there(at: Place) -> None:
    with at.listener() as listening, at.socket() as client, at.socket() as second:
        for one in (client, second):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((at.home, 0))
        second.bind(client.getsockname())
        client.connect(listening.getsockname())
        with listening.accept()[0], pytest.raises(OSError, match="Cannot assign"):
            second.connect(listening.getsockname())


@contextlib.contextmanager
def losing(at: Place, packets: str, *, hook: str = "input") -> Iterator[None]:
    """Drop *packets* of TCP that come in, or at another hook, as nftables' language names them."""
    rules = f"""
        table inet losing {{
            chain losses {{
                type filter hook {hook} priority 0
                tcp {packets} drop
            }}
        }}
    """
    at.net.client.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        at.run("nft", "delete", "table", "inet", "losing")


def peer_that_vanishes(at: Place) -> None:
    client, server = at.connected()
    with client, server:
        client.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 500)
        with losing(at, f"dport {server.getsockname()[1]} th dport > 0"):
            client.sendall(b"anybody there?")
            with pytest.raises(TimeoutError):
                client.recv(1)


def tried(sock: socket.socket) -> int:
    """Return tcpi_bytes_sent: what TCP has tried to send, as often as it has."""
    return int(struct.unpack_from("=Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 200)[0])


def data_that_a_firewall_here_drops(at: Place) -> None:
    client, server = at.connected()
    with client, server:
        client.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 1500)
        client.sendall(b"anybody there?")
        assert server.recv(14, socket.MSG_WAITALL) == b"anybody there?"
        with losing(at, f"dport {server.getsockname()[1]} th dport > 0", hook="output"):
            client.sendall(b"hello?")
            with pytest.raises(TimeoutError):
                client.recv(1)


def data_that_a_firewall_here_drops_for_a_while(at: Place) -> None:
    client, server = at.connected()
    with client, server:
        client.sendall(b"anybody there?")
        assert server.recv(14, socket.MSG_WAITALL) == b"anybody there?"
        with losing(at, f"sport {server.getsockname()[1]} th dport > 0", hook="output"):
            server.sendall(bytes(1000))
            while tried(server) <= 1000:
                time.sleep(0.01)
        assert len(client.recv(1000, socket.MSG_WAITALL)) == 1000
        client.close()
        assert server.recv(1) == b""


def peer_that_reads_nothing(at: Place) -> None:
    """It acknowledges every probe of its closed window."""
    client, server = at.connected()
    with client, server:
        client.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 500)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.send(bytes(1 << 20))
        client.settimeout(30)
        with pytest.raises(TimeoutError, match="timed out"):
            client.recv(1)


def third_packet_of_the_handshake_lost(at: Place) -> None:
    """The client is connected; the server sends its SYN once more, and only then is."""
    with at.listener() as listening, at.socket() as client:
        # One packet, of 52 or 72 bytes: taking the rule away may last longer than the wait for the next one.
        with losing(at, f"dport {listening.getsockname()[1]} tcp flags == ack quota until 100 bytes"):
            client.connect(listening.getsockname())
        listening.settimeout(10)
        listening.accept()[0].close()
        client.recv(1)


def fast_open_that_is_reset(at: Place) -> None:
    """With data in the SYN the server can read before the handshake ends, which it never does."""
    with (
        fast_listener(at) as listening,
        at.socket() as client,
        losing(at, f"sport {listening.getsockname()[1]} tcp flags == syn|ack"),
    ):
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.sendto(b"fast", MSG_FASTOPEN, listening.getsockname())
        with listening.accept()[0] as server:
            assert server.recv(4, socket.MSG_WAITALL) == b"fast"
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)


def aborted_by_an_administrator(at: Place) -> None:
    client, server = at.connected()
    with client, server:
        at.run("ss", "-K", "src", f"[{at.home}]", "sport", "=", str(client.getsockname()[1]))
        with pytest.raises(ConnectionError):
            server.recv(1)


def shared_by_fork(at: Place) -> None:
    client, server = at.connected()
    with client, server:
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                client.sendall(bytes(10))
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        client.sendall(bytes(10))
        client.close()
        assert len(until_closed(server)) == 30


def restored_from_a_checkpoint(at: Place) -> None:
    """Both ends go on where they were, as CRIU has them do: connect() sends nothing (TCP_REPAIR)."""
    ends = at.socket(), at.socket()
    with ends[0], ends[1]:
        for end in ends:
            end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            end.bind((at.home, 0))
        for end, peer, numbers in zip(ends, reversed(ends), ((1000, 2000), (2000, 1000)), strict=True):
            for queue, number in zip((RECEIVE_QUEUE, SEND_QUEUE), numbers, strict=True):
                end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
                end.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, number)
            end.connect(peer.getsockname())
        for end in ends:
            end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF)
        ends[0].sendall(b"hello")
        assert ends[1].recv(5, socket.MSG_WAITALL) == b"hello"


def blocked_by_a_policy(at: Place) -> None:
    """The table for local addresses has no route, the next one has: that is not why connect() fails."""
    family, rule, policy = f"-{at.family}", ("pref", "100", "lookup", "main"), ("dst", at.web, "dir", "out")
    at.run("ip", family, "rule", "add", *rule)
    at.run("ip", "xfrm", "policy", "add", *policy, "action", "block")
    try:
        with at.socket() as client, pytest.raises(PermissionError):
            client.connect((at.web, 80))
    finally:
        at.run("ip", "xfrm", "policy", "delete", *policy)
        at.run("ip", family, "rule", "del", *rule)


def fast_open_that_never_sends(at: Place) -> None:
    """With a cookie from before, connect() leaves the SYN to the first write."""
    with fast_listener(at) as listening, at.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        client.connect(listening.getsockname())


def no_free_local_port_after_a_connection(at: Place) -> None:
    """connect(AF_UNSPEC) leaves ECONNRESET behind in the socket."""
    with at.listener() as listening, at.socket() as client, at.socket() as taken:
        with at.net.client.entered():
            usual = Path("/proc/sys/net/ipv4/ip_local_port_range")
            before = usual.read_text()
            usual.write_text("50001 50001")
        try:
            client.connect(listening.getsockname())
            disconnect(client)
            taken.connect(listening.getsockname())
            with pytest.raises(OSError, match="Cannot assign"):
                client.connect(listening.getsockname())
        finally:
            with at.net.client.entered():
                usual.write_text(before)


@pytest.mark.parametrize("family", [4, 6])
def test_connect_ms_is_the_handshake_alone_where_fast_open_leaves_the_syn_to_a_write(
    net: PracticeNetwork, capture: Capture, family: plan.Family
) -> None:
    at = Place(net, family)
    with fast_listener(at) as listening, at.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        client.connect(listening.getsockname())
        time.sleep(0.2)
        client.sendall(b"late")
        with listening.accept()[0] as server:
            assert server.recv(4, socket.MSG_WAITALL) == b"late"
            frame = capture.connections()
            row = frame[frame["cookie"] == cookie(client)].iloc[0]

    assert row["connect_ms"] == pytest.approx(row["rtt_ms"], abs=0.002)  # that of the handshake, the only one


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_what_happened_is_what_the_rows_say(
    net: PracticeNetwork, capture: Capture, case: dict[str, Any], family: plan.Family
) -> None:
    what: Callable[[Place], None] = globals()[case["what"]]
    start = pd.Timestamp.now("UTC")
    what(Place(net, family))
    expected = case.get("rows6", case["rows"]) if family == 6 else case["rows"]
    columns = sorted({name for row in expected for name in row})
    deadline = time.monotonic() + 30
    while True:
        time.sleep(0.2)  # what the other end's kernel still does
        seen = capture.connections()
        seen = seen[(seen["netns"] == net.client.inode) & (seen["opened_at"] >= start)]
        ordered = told(seen.sort_values("opened_at"), columns)
        rows = [  # a row of the data file has only the columns that count there
            {name: row.get(name) for name in wanted}
            for row, wanted in zip_longest(ordered, expected, fillvalue={})
        ]
        if rows == expected or time.monotonic() > deadline:
            break

    assert rows == expected, f"{seen.T.to_string()}\n{netlab.coverage(seen).to_string()}"
