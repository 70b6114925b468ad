from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import netlab
from netlab.errors import BadInput
from netlab.frames import coverage
from netlab.kernel import netns
from netlab.schemas import CONNECTIONS
from netlab.tracer import sockets as module
from netlab.tracer.sockets import connections

BECOME_NOBODY = "import os; os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)\n"
SS_STATES = {
    "ESTAB": "established",
    "SYN-SENT": "syn-sent",
    "SYN-RECV": "syn-recv",
    "FIN-WAIT-1": "fin-wait-1",
    "FIN-WAIT-2": "fin-wait-2",
    "TIME-WAIT": "time-wait",
    "UNCONN": "unconnected",
    "CLOSE-WAIT": "close-wait",
    "LAST-ACK": "last-ack",
    "LISTEN": "listen",
    "CLOSING": "closing",
}


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Make a network namespace that the test is not in."""
    name = f"netlab-ts{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def space(elsewhere: str) -> Iterator[str]:
    """Put the test into a network namespace of its own."""
    with netns.entered(elsewhere):
        yield elsewhere


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pair(held: ExitStack, address: str = "127.0.0.1", port: int = 0) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection whose listener stays open."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = held.enter_context(socket.create_server((address, port), family=family))
    client = held.enter_context(socket.create_connection(listener.getsockname()[:2]))
    return client, held.enter_context(listener.accept()[0])


def row(frame: pd.DataFrame, sock: socket.socket) -> Any:
    cookie = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, 57, 8))[0]
    (found,) = frame[frame.cookie == cookie].itertuples()
    return found


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def tried(sock: socket.socket) -> int:
    """Return tcpi_bytes_sent: what TCP has tried to send, as often as it has."""
    return int(struct.unpack_from("=Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 200)[0])


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_connection_is_one_row_at_each_end(held: ExitStack, address: str) -> None:
    client, server = pair(held, address)
    client.sendall(b"x" * 321)
    server.recv(321, socket.MSG_WAITALL)

    frame = connections()

    here, there = row(frame, client), row(frame, server)
    assert (here.local_address, here.remote_address) == (address, address)
    assert (here.local_port, here.remote_port) == (client.getsockname()[1], server.getsockname()[1])
    assert (there.local_port, there.remote_port) == (here.remote_port, here.local_port)
    assert (here.direction, there.direction) == ("outgoing", "incoming")
    assert (here.bytes_sent, there.bytes_received) == (321, 321)
    for end, sock in ((here, client), (there, server)):
        assert (end.protocol, end.state, end.family) == ("tcp", "established", 6 if ":" in address else 4)
        assert (end.pid, end.process) == (os.getpid(), Path("/proc/self/comm").read_text().strip())
        assert (end.uid, end.pid_source, end.seen) == (os.getuid(), "socket", "poll")
        assert end.inode == os.fstat(sock.fileno()).st_ino
        assert end.netns == netns.inode()
        assert 0 < end.rtt_ms < 1000
        assert pd.isna(end.opened_at)


def test_a_mapped_address_is_shown_as_ipv4_of_family_6(held: ExitStack) -> None:
    listener = held.enter_context(
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    )
    held.enter_context(socket.create_connection(("127.0.0.1", listener.getsockname()[1])))
    server = held.enter_context(listener.accept()[0])

    found = row(connections(), server)

    assert (found.family, found.local_address, found.remote_address) == (6, "127.0.0.1", "127.0.0.1")


@pytest.mark.privileged
@pytest.mark.usefixtures("space")
def test_the_rows_are_those_of_ss(held: ExitStack) -> None:
    pair(held, "127.0.0.1")
    pair(held, "::1")
    waiting, _ = pair(held)
    waiting.shutdown(socket.SHUT_WR)
    ended, other = pair(held)
    ended.close()
    other.close()
    held.enter_context(bound := socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)).bind(("::1", 5353))
    held.enter_context(sock := socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)).connect(("::1", 5353))

    while "fin-wait-1" in set(connections().state):  # until the FIN is acknowledged
        pass

    frame = connections(listening=True)

    listed = subprocess.check_output(["ss", "-H", "-tuan"], text=True).splitlines()
    truth = sorted(
        (protocol, SS_STATES[state], *ends)
        for protocol, state, _, _, *ends in (line.split()[:6] for line in listed)
    )
    assert len(truth) == 13
    assert bound.fileno() != sock.fileno()
    assert truth == sorted(
        (
            found.protocol,
            found.state,
            end(found, found.local_address, found.local_port),
            end(found, found.remote_address, found.remote_port),
        )
        for found in frame.itertuples()
    )


def end(found: Any, address: Any, port: Any) -> str:
    """Spell an end as ss does."""
    if pd.isna(address):
        return "0.0.0.0:*" if found.family == 4 else "[::]:*"
    return f"{address}:{port}" if found.family == 4 else f"[{address}]:{port}"


def test_listening_and_unconnected_sockets_are_listed_when_asked_for(held: ExitStack) -> None:
    listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
    bound = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    bound.bind(("127.0.0.1", 0))

    everything, connected = connections(listening=True), connections()

    for sock, state in ((listener, "listen"), (bound, "unconnected")):
        found = row(everything, sock)
        assert (found.state, found.local_port) == (state, sock.getsockname()[1])
        for missing in (found.remote_address, found.remote_port, found.direction, found.bytes_sent):
            assert pd.isna(missing)
    assert not set(connected.state) & {"listen", "unconnected"}
    assert set(connections(listening=True, state="listen").state) == {"listen"}


def test_a_connected_udp_socket_is_a_connection_without_counters(held: ExitStack) -> None:
    sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.connect(("127.0.0.1", 53))

    frame = connections(protocol="udp")

    found = row(frame, sock)
    assert (found.state, found.direction, found.remote_port) == ("established", "outgoing", 53)
    assert pd.isna(found.bytes_sent)
    gaps = coverage(frame)
    assert gaps[gaps.what == "bytes, packets"]["count"].tolist() == [len(frame)]


@pytest.mark.privileged
@pytest.mark.usefixtures("space")
def test_a_connection_still_asking_is_outgoing_and_counts_its_syns(held: ExitStack) -> None:
    subprocess.run(["ip", "route", "add", "192.0.2.0/24", "dev", "lo"], check=True)
    subprocess.run(["ip", "addr", "add", "198.51.100.1/32", "dev", "lo"], check=True)
    rules = "table ip t {\nchain out {\ntype filter hook output priority 0\nip daddr 192.0.2.9 drop\n}\n}\n"
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    sock = held.enter_context(socket.socket())
    sock.bind(("198.51.100.1", 999))  # neither ephemeral nor listened on: only the state tells
    sock.setblocking(False)
    sock.connect_ex(("192.0.2.9", 443))

    found = row(connections(), sock)

    assert (found.state, found.direction) == ("syn-sent", "outgoing")
    assert found.syn_retransmits == found.retransmits
    assert pd.isna(found.rtt_ms)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_was_accepted_is_incoming_when_its_listener_has_gone(held: ExitStack, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:  # as connect(2) might choose
        client = held.enter_context(socket.create_connection(listener.getsockname()[:2]))
        server = held.enter_context(listener.accept()[0])

    both = ("outgoing", "incoming")
    frame = connections()
    assert (row(frame, client).direction, row(frame, server).direction) == both
    server.setblocking(False)
    assert server.send(bytes(1 << 24)) < 1 << 24  # some of it waits, some is not acknowledged
    client.sendall(b"x")
    client.shutdown(socket.SHUT_WR)

    until(lambda: row(connections(), server).state == "close-wait")
    frame = connections()
    assert (row(frame, client).direction, row(frame, server).direction) == both
    detail = coverage(frame).query("what == 'direction'")["detail"]
    assert all("ports" in text for text in detail)


def restored(held: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection as CRIU makes them: connect() sends nothing."""
    repair, queue, sequence = 19, 20, 21  # TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ
    ends = held.enter_context(socket.socket()), held.enter_context(socket.socket())
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, repair, 1)
        end.bind(("127.0.0.1", 0))
    for end, peer, numbers in zip(ends, reversed(ends), ((1000, 2000), (2000, 1000)), strict=True):
        for which, number in enumerate(numbers, start=1):  # what it receives, what it sends
            end.setsockopt(socket.IPPROTO_TCP, queue, which)
            end.setsockopt(socket.IPPROTO_TCP, sequence, number)
        end.connect(peer.getsockname())
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, repair, 0)
    return ends


@pytest.mark.privileged
@pytest.mark.usefixtures("space")
def test_of_what_was_restored_from_a_checkpoint_the_direction_is_a_guess(held: ExitStack) -> None:
    one, other = restored(held)
    one.sendall(b"hello")
    assert other.recv(5, socket.MSG_WAITALL) == b"hello"
    until(lambda: row(connections(), one).send_queue_bytes == 0)

    frame = connections()

    assert (row(frame, one).bytes_sent, row(frame, other).bytes_sent) == (5, 0)
    assert coverage(frame).query("what == 'direction'")["count"].tolist() == [2]


@pytest.mark.privileged
@pytest.mark.usefixtures("space")
def test_what_a_firewall_here_drops_has_not_been_sent(held: ExitStack) -> None:
    client, server = pair(held)
    client.sendall(b"hello")
    assert server.recv(5, socket.MSG_WAITALL) == b"hello"
    rules = "table ip t {\nchain out {\ntype filter hook output priority 0\ntcp sport PORT drop\n}\n}\n"
    for sock, count in ((client, 5), (server, 0)):
        port = str(sock.getsockname()[1])
        subprocess.run(["nft", "-f", "-"], input=rules.replace("PORT", port), text=True, check=True)
        sock.sendall(bytes(1000))
        until(lambda sock=sock: tried(sock) > 2000)

        assert row(connections(), sock).bytes_sent == count


@pytest.mark.privileged
@pytest.mark.usefixtures("space")
def test_the_ephemeral_ports_are_those_of_the_namespace(held: ExitStack) -> None:
    """Of UDP, of which nothing but the ports tells."""
    sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind(("127.0.0.1", 1999))
    sock.connect(("127.0.0.1", 53))
    before = row(connections(), sock).direction
    subprocess.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=1900 2100"], check=True)

    assert (before, row(connections(), sock).direction) == ("unknown", "outgoing")


def test_a_connection_not_yet_accepted_has_no_owner_and_coverage_says_so(held: ExitStack) -> None:
    listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
    client = held.enter_context(socket.create_connection(listener.getsockname()))

    frame = connections(port=listener.getsockname()[1])

    (queued,) = frame[frame.direction == "incoming"].itertuples()
    assert queued.remote_port == client.getsockname()[1]
    assert all(pd.isna(value) for value in (queued.pid, queued.process, queued.uid, queued.inode))
    gaps = coverage(frame)
    assert gaps[gaps.detail.str.contains("not accepted yet")]["count"].tolist() == [1]


def test_the_frame_has_the_types_of_its_schema(held: ExitStack) -> None:
    pair(held)
    full, empty = connections(), connections(port=1, state="closing")

    for frame in (full, empty):
        assert list(frame.columns) == CONNECTIONS.names
        assert frame.attrs["schema"] == "connections"
        for column in CONNECTIONS.columns:
            assert str(frame[column.name].dtype) == column.kind.value, column.name
    assert len(empty) == 0


def test_coverage_names_every_column_that_is_missing_everywhere(held: ExitStack) -> None:
    pair(held)
    frame = connections(protocol="tcp", pid=os.getpid())
    named = ", ".join(coverage(frame).what).replace("*", ".*").split(", ")
    # Not in a container, still open, past the SYN, bound to no interface.
    optional = {"container", "closed_at", "syn_retransmits", "bound_ifindex"}

    unnamed = [
        column
        for column in frame.columns[frame.isna().all()]
        if column not in optional and not any(re.fullmatch(name, column) for name in named)
    ]

    assert unnamed == []


@pytest.mark.parametrize(
    ("options", "keeps"),
    [
        ({"protocol": "tcp"}, {"client", "server"}),
        ({"protocol": "udp"}, {"udp"}),
        ({"pid": os.getpid()}, {"client", "server", "udp"}),
        ({"pid": 1}, set()),
        ({"process": Path("/proc/self/comm").read_text().strip()}, {"client", "server", "udp"}),
        ({"process": "no such process"}, set()),
        ({"state": "established"}, {"client", "server", "udp"}),
        ({"state": "ESTABLISHED"}, {"client", "server", "udp"}),
        ({"state": "CLOSE_WAIT"}, set()),
        ({"state": "closing"}, set()),
    ],
)
def test_a_filter_keeps_what_it_names(held: ExitStack, options: dict[str, Any], keeps: set[str]) -> None:
    client, server = pair(held)
    udp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.connect(("127.0.0.1", 53))
    inodes = {os.fstat(sock.fileno()).st_ino: name for sock, name in zip_names(client, server, udp)}

    frame = connections(**options)

    assert {inodes[inode] for inode in frame.inode.dropna() if inode in inodes} == keeps


def zip_names(*socks: socket.socket) -> Iterator[tuple[socket.socket, str]]:
    return zip(socks, ("client", "server", "udp"), strict=True)


def test_the_port_filter_looks_at_both_ends(held: ExitStack) -> None:
    client, server = pair(held)
    port = server.getsockname()[1]

    frame = connections(port=port)

    assert sorted(frame.local_port) == sorted([port, client.getsockname()[1]])


@pytest.mark.privileged
def test_a_namespace_is_looked_into_from_outside(held: ExitStack, elsewhere: str) -> None:
    with netns.entered(elsewhere):
        client, server = pair(held)

    frame = connections(netns=elsewhere)

    assert set(frame.cookie) == {row(frame, client).cookie, row(frame, server).cookie}
    assert set(frame.netns) == {netns.inode(elsewhere)} != {netns.inode()}
    assert set(frame.pid) == {os.getpid()}
    assert not set(frame.cookie) & set(connections().cookie)


@pytest.mark.privileged
def test_all_namespaces_are_listed_in_one_frame(held: ExitStack, elsewhere: str) -> None:
    here = pair(held)
    with netns.entered(elsewhere):
        there = pair(held)

    frame = connections(netns="all", pid=os.getpid())

    for socks, inode in ((here, netns.inode()), (there, netns.inode(elsewhere))):
        for sock in socks:
            found = row(frame, sock)
            assert (found.netns, found.local_port) == (inode, sock.getsockname()[1])
            assert found.direction == ("outgoing" if sock is socks[0] else "incoming")


@pytest.mark.privileged
def test_without_privilege_the_owners_of_others_are_missing_and_coverage_says_so(held: ExitStack) -> None:
    _, server = pair(held)
    code = (
        "from netlab.frames import coverage\n"
        "from netlab.tracer.sockets import connections\n"
        "connections()\n"  # what is imported on the way may not be readable for others
        f"{BECOME_NOBODY}"
        f"frame = connections(port={server.getsockname()[1]})\n"
        "print(len(frame), frame.pid.isna().sum(), frame.uid.max(), frame.rtt_ms.notna().sum())\n"
        "gaps = coverage(frame)\n"
        "print(*gaps[gaps.what == 'pid, nspid, process, cmdline, cgroup, container'].detail)"
    )
    counts, detail = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()

    assert counts == "2 2 0 2"
    assert re.search(r"could not be looked at: \d+; root", detail)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"protocol": "tpc"}, "Did you mean 'tcp'"),
        ({"port": 70_000}, "port 70000"),
        ({"port": True}, "port True"),
        ({"pid": 0}, "pid 0"),
        ({"pid": "1"}, "pid '1'"),
        ({"process": ""}, "process ''"),
        ({"process": 7}, "process 7"),
        ({"state": "estab"}, "Did you mean 'established'"),
        ({"state": "listen"}, "Add listening=True"),
        ({"state": "unconnected"}, "Add listening=True"),
        ({"netns": "no-such-namespace"}, "no network namespace 'no-such-namespace'"),
    ],
)
def test_bad_input_is_refused_before_the_kernel_is_asked(
    options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(module.sockdiag.netlink, "dump", lambda *_, **options: asked.append(options))

    with pytest.raises(BadInput, match=re.escape(said)):
        connections(**options)
    assert not asked


@pytest.mark.privileged
@pytest.mark.parametrize("question", [netlab.listeners, partial(connections, listening=True)])
def test_a_namespace_that_only_a_socket_keeps_is_not_found_and_said_where_all_are_asked(
    question: Callable[..., pd.DataFrame],
) -> None:
    name = f"netlab-only{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inode = Path("/run/netns", name).stat().st_ino
        with netns.entered(name):
            server = socket.create_server(("", 4322))
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    with server:
        everywhere, here = question(netns="all"), question()

    assert inode not in set(everywhere["netns"])
    unseen = [set(coverage(frame).query("kind == 'unseen'")["what"]) for frame in (everywhere, here)]
    assert unseen[0] - unseen[1] == {"network namespaces that only sockets keep"}
