"""UDP flows in netlab.capture(): real sockets send and receive, udp.toml has the rows to expect."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from groups import denied, inside, unified
from loopback import LOOPBACK, cookie
from places import Place, marked, told
from programs import wait_until
from scapy.layers.inet import IP, UDP
from scapy.utils import checksum

import netlab
from netlab.kernel.bpf import CgroupHook
from netlab.lab import plan
from netlab.lab.network import PracticeNetwork
from netlab.tracer import macros, udp
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged
CASES = tomllib.loads(Path(__file__).with_name("udp.toml").read_text())["case"]
IP_RECVERR, IPV6_RECVERR = 11, 25  # include/uapi/linux/in.h, in6.h
UDP_SEGMENT, UDP_GRO = 103, 104  # include/uapi/linux/udp.h
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0  # include/uapi/linux/if_tun.h, as are
TUN_WITH_OFFLOAD, TUN_UDP_SEGMENTS = 0x0001 | 0x1000 | 0x4000, 0x01 | 0x20 | 0x40
SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h
SO_TIMESTAMPING, TX_SOFTWARE = 37, 1 << 1 | 1 << 4  # include/uapi/linux/net_tstamp.h: made, and reported
NO_OPERATION = b"\x01"  # of IPv4's options
EIGHT_BYTES_OF_PADDING = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # an extension header with PadN alone
GROUP = {4: "239.1.2.3", 6: "ff02::123"}


@pytest.fixture(scope="module")
def net() -> Iterator[PracticeNetwork]:
    with netlab.lab.practice() as network:
        yield network


@pytest.fixture(scope="module")
def capture() -> Iterator[Capture]:
    """One for all cases: what each has begun is told apart by time."""
    with netlab.capture(protocol="udp", backfill=False) as running:
        yield running


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as sockets:
        yield sockets


@contextlib.contextmanager
def flows_end_sooner(net: PracticeNetwork, *, unanswered_s: int, answered_s: int) -> Iterator[None]:
    """End silent flows of the client's namespace so soon, and those of the next test no sooner than usual."""
    sysctls = Path("/proc/sys/net/netfilter")
    short = {"nf_conntrack_udp_timeout": unanswered_s, "nf_conntrack_udp_timeout_stream": answered_s}
    with net.client.entered():
        usual = {name: (sysctls / name).read_text() for name in short}
        for name, seconds in short.items():
            (sysctls / name).write_text(str(seconds))
    try:
        yield
    finally:
        with net.client.entered():
            for name, told in usual.items():
                (sysctls / name).write_text(told)


class Peers:
    """Makes UDP sockets in one place, and closes them in the end."""

    def __init__(self, at: Place, opened: contextlib.ExitStack) -> None:
        self.at, self._opened = at, opened

    def unbound(self) -> socket.socket:
        made = self._opened.enter_context(self.at.socket(socket.SOCK_DGRAM))
        made.settimeout(10)
        return made

    def bound(self) -> socket.socket:
        made = self.unbound()
        made.bind((self.at.home, 0))
        return made

    def connected(self, to: socket.socket) -> socket.socket:
        made = self.unbound()
        made.connect(to.getsockname())
        return made


def connected_and_answered(peers: Peers) -> None:
    server = peers.bound()
    client = peers.connected(server)
    for _ in range(2):
        client.send(bytes(100))
    _, place = server.recvfrom(200)
    server.sendto(bytes(50), place)
    client.recv(100)


def unconnected_and_answered(peers: Peers) -> None:
    server, client = peers.bound(), peers.unbound()
    client.sendto(bytes(100), server.getsockname())
    _, place = server.recvfrom(200)
    server.sendto(bytes(50), place)
    client.recvfrom(100)


def unanswered(peers: Peers) -> None:
    server = peers.bound()
    peers.connected(server).send(bytes(7))
    server.recv(10)


def behind_options(peers: Peers) -> None:
    """IP options (RFC 791), a destination options header (RFC 8200): UDP's header is further behind."""
    server = peers.bound()
    client = peers.connected(server)
    if peers.at.family == 4:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, NO_OPERATION * 8)
    else:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, EIGHT_BYTES_OF_PADDING)
    client.send(bytes(40))
    server.recv(100)


def refused(peers: Peers) -> None:
    closed = peers.bound()
    client = peers.connected(closed)
    closed.close()
    client.send(b"?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(10)


def asks_for_errors(client: socket.socket) -> None:
    """Have ICMP errors queued, also those about a peer that the socket is not connected to."""
    client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    if client.family == socket.AF_INET6:
        client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)


def refused_by_some_of_many_peers(peers: Peers) -> None:
    """What a resolver does: the error's peer is in the message (MSG_ERRQUEUE), not in the socket."""
    first, second, closed = peers.bound(), peers.bound(), peers.bound()
    client = peers.unbound()
    asks_for_errors(client)
    gone = [first.getsockname(), closed.getsockname()]
    first.close()
    closed.close()
    for size, to in enumerate((gone[0], second.getsockname(), gone[1]), 1):
        client.sendto(bytes(size), to)
        if to in gone:
            assert client.recvmsg(10, 1024, socket.MSG_ERRQUEUE)[3][:2] == to[:2]
    assert len(second.recv(10)) == 2


def refused_unheard(peers: Peers) -> None:
    """No process is told of an ICMP error that an unconnected socket has not asked for."""
    closed, client = peers.bound(), peers.unbound()
    to = closed.getsockname()
    closed.close()
    client.sendto(b"?", to)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def mapped_and_refused(peers: Peers) -> None:
    if peers.at.family == 4:
        return
    client = peers.unbound()
    asks_for_errors(client)
    client.sendto(b"?", ("::ffff:127.0.0.1", 1))
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def empty_datagram(peers: Peers) -> None:
    server = peers.bound()
    peers.connected(server).send(b"")
    server.recv(10)


def peeked_before_it_was_read(peers: Peers) -> None:
    server = peers.bound()
    peers.connected(server).send(bytes(30))
    assert len(server.recv(10, socket.MSG_PEEK)) == 10
    assert len(server.recv(100, socket.MSG_PEEK)) == 30
    server.recv(100)


def never_read(peers: Peers) -> None:
    server = peers.bound()
    client = peers.connected(server)
    for _ in range(2):
        client.send(bytes(30))


def cut_by_a_short_buffer(peers: Peers) -> None:
    server = peers.bound()
    peers.connected(server).send(bytes(1000))
    assert len(server.recv(10)) == 10


def put_together_by_more(peers: Peers) -> None:
    server = peers.bound()
    client = peers.connected(server)
    client.send(bytes(10), socket.MSG_MORE)
    client.send(bytes(20))
    assert len(server.recv(100)) == 30


def segmented_by_the_kernel(peers: Peers) -> None:
    server = peers.bound()
    client = peers.connected(server)
    client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
    client.send(bytes(2500))
    assert [len(server.recv(3000)) for _ in range(3)] == [1000, 1000, 500]


def in_fragments(peers: Peers) -> None:
    client = peers.unbound()
    client.connect((peers.at.web, peers.at.net.ports.udp_echo))
    client.send(bytes(5000))
    assert len(client.recv(6000)) == 5000


def two_peers_in_turn(peers: Peers) -> None:
    first, second, client = peers.bound(), peers.bound(), peers.unbound()
    for size, server in enumerate((first, second), 1):
        client.connect(server.getsockname())
        client.send(bytes(size))
        server.recv(10)


def closed_by_its_process(peers: Peers) -> None:
    server = peers.bound()
    with peers.connected(server) as client:
        client.send(bytes(5))
    server.recv(10)


def closed_with_many_peers(peers: Peers) -> None:
    first, second = peers.bound(), peers.bound()
    with peers.unbound() as client:
        for size, server in enumerate((first, second), 1):
            client.sendto(bytes(size), server.getsockname())
            server.recv(10)


def multicast(peers: Peers) -> None:
    four, group = peers.at.family == 4, GROUP[peers.at.family]
    sender, members = peers.unbound(), [peers.unbound() for _ in range(2)]
    with peers.at.net.client.entered():
        link = next(index for index, name in socket.if_nameindex() if name != "lo")
    port = 0
    for member in members:
        member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        member.bind((group, port) if four else (group, port, 0, link))
        port = member.getsockname()[1]
        if four:
            request = socket.inet_aton(group) + socket.inet_aton("127.0.0.1")
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        else:
            request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", link)
            member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
    if four:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link)
    sender.sendto(bytes(9), (group, port) if four else (group, port, 0, link))
    assert [len(member.recv(10)) for member in members] == [9, 9]


def to_itself(peers: Peers) -> None:
    alone = peers.bound()
    alone.sendto(bytes(4), alone.getsockname())
    alone.recv(10)


def mapped(peers: Peers) -> None:
    if peers.at.family == 4:
        return
    with peers.at.net.client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        client = peers.unbound()
        client.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        client.send(bytes(3))
        server.recv(10)


@contextlib.contextmanager
def names_translated(at: Place, port: int) -> Iterator[None]:
    """Have this host send what goes to a name server (port 53) to another port of the web server."""
    family, server = {4: ("ip", at.web), 6: ("ip6", f"[{at.web}]")}[at.family]
    nft = f"""
        table {family} translated {{
            chain output {{
                type nat hook output priority -100
                meta l4proto udp th dport 53 dnat to {server}:{port}
            }}
        }}
    """
    at.net.client.run(["nft", "-f", "-"], input=nft, text=True, check=True)
    try:
        yield
    finally:
        at.run("nft", "delete", "table", family, "translated")


def translated_on_this_host(peers: Peers) -> None:
    at = peers.at
    with names_translated(at, at.net.ports.udp_echo):
        client = peers.unbound()
        client.sendto(bytes(11), (at.web, 53))
        assert client.recvfrom(20)[1][:2] == (at.web, 53)


def translated_and_refused(peers: Peers) -> None:
    at = peers.at
    with names_translated(at, 1):
        client = peers.unbound()
        asks_for_errors(client)
        client.sendto(bytes(11), (at.web, 53))
        ready = select.poll()
        ready.register(client, select.POLLERR)
        assert ready.poll(10_000)
        assert client.recvmsg(20, 1024, socket.MSG_ERRQUEUE)[3][:2] == (at.web, 53)


def not_sent_for_want_of_a_route(peers: Peers) -> None:
    nowhere = {4: "203.0.113.1", 6: "2001:db8:ffff::1"}[peers.at.family]
    with (
        peers.at.route(peers.at.net.client, "unreachable", nowhere),
        pytest.raises(OSError, match="No route"),
    ):
        peers.unbound().sendto(b"?", (nowhere, 9))


def raw_socket(peers: Peers) -> None:
    with peers.at.net.client.entered():
        raw = socket.socket(peers.at.kind, socket.SOCK_RAW, socket.IPPROTO_UDP)
    with raw:
        raw.sendto(struct.pack("!HHHH", 4000, 9, 8, 0), (peers.at.home, 0))


def flows_since(capture: Capture, net: PracticeNetwork, start: pd.Timestamp) -> pd.DataFrame:
    seen = capture.connections()
    seen = seen[(seen["netns"] == net.client.inode) & (seen["opened_at"] >= start)]
    return seen.sort_values("opened_at", kind="stable").reset_index(drop=True)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_what_was_sent_is_what_the_rows_say(
    net: PracticeNetwork,
    capture: Capture,
    opened: contextlib.ExitStack,
    case: dict[str, Any],
    family: plan.Family,
) -> None:
    what: Callable[[Peers], None] = globals()[case["what"]]
    start = pd.Timestamp.now("UTC")
    what(Peers(Place(net, family), opened))

    seen = flows_since(capture, net, start)
    expected = case.get(f"rows{family}", case.get("rows"))
    columns = sorted({name for row in expected for name in row})
    ordered = told(seen, columns)
    assert len(ordered) == len(expected)
    assert [
        {name: found[name] for name in row} for found, row in zip(ordered, expected, strict=True)
    ] == expected


def test_both_ends_have_each_others_addresses_and_their_own_cookie(
    net: PracticeNetwork, capture: Capture, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 6), opened)
    start, server = pd.Timestamp.now("UTC"), peers.bound()
    client = peers.connected(server)
    client.send(b"?")
    server.recv(10)

    sent, received = flows_since(capture, net, start).itertuples()
    assert (sent.local_address, sent.local_port) == client.getsockname()[:2]
    assert (received.remote_address, received.remote_port) == client.getsockname()[:2]
    assert (sent.remote_address, sent.remote_port) == server.getsockname()[:2]
    assert (received.local_address, received.local_port) == server.getsockname()[:2]
    assert (sent.cookie, received.cookie) == (cookie(client), cookie(server))


def test_connect_ms_is_the_time_until_the_first_answer(
    net: PracticeNetwork, capture: Capture, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    start, server = pd.Timestamp.now("UTC"), peers.bound()
    client = peers.connected(server)
    before = time.monotonic()
    client.send(b"?")
    sent = time.monotonic()
    _, place = server.recvfrom(10)
    time.sleep(0.05)
    answered = time.monotonic()
    server.sendto(b"!", place)
    client.recv(10)
    after = time.monotonic()

    outgoing = flows_since(capture, net, start).iloc[0]
    assert (answered - sent) * 1e3 <= outgoing["connect_ms"] <= (after - before) * 1e3


def test_reused_ports_count_each_datagram_for_the_socket_that_got_it(
    net: PracticeNetwork, capture: Capture, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    start, servers = pd.Timestamp.now("UTC"), [peers.unbound() for _ in range(2)]
    port = 0
    for server in servers:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", port))
        port = server.getsockname()[1]
    for _ in range(40):
        peers.connected(servers[0]).send(b"?")

    incoming = flows_since(capture, net, start).query("direction == 'incoming'")
    for server in servers:
        server.setblocking(False)
        waiting = 0
        with contextlib.suppress(BlockingIOError):
            while server.recv(10):
                waiting += 1
        mine = incoming[incoming["cookie"] == cookie(server)]
        assert mine["packets_received"].sum() == waiting > 0


def test_a_full_queue_takes_nothing_from_the_flow_that_was_asked_for(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    server, wanted, other = peers.bound(), peers.bound(), peers.bound()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    port = wanted.getsockname()[1]
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False, port=port) as capture:
        wanted.sendto(bytes(100), server.getsockname())
        for _ in range(100):
            other.sendto(bytes(100), server.getsockname())
        flows = capture.connections()
    received = flows.query("direction == 'incoming'")[["packets_received", "bytes_received", "receive_drops"]]
    assert received.to_numpy().tolist() == [[1, 100, 0]]


def test_an_error_stays_when_the_kernel_reports_a_timestamp(
    net: PracticeNetwork, capture: Capture, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    start, closed = pd.Timestamp.now("UTC"), peers.bound()
    client = peers.connected(closed)
    closed.close()
    client.send(b"?")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    opened.enter_context(peers.at.socket(socket.SOCK_DGRAM)).bind(client.getpeername())
    client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE)
    client.send(b"?")
    client.recvmsg(1, 1024, socket.MSG_ERRQUEUE)  # it is there

    outgoing = flows_since(capture, net, start).query("direction == 'outgoing'")
    assert outgoing[["packets_sent", "error"]].to_numpy().tolist() == [[2, "ECONNREFUSED"]]


def discarded(capture: Capture) -> int:
    """Return how many datagrams the coverage says may be counted as received, and were not."""
    said = netlab.coverage(capture.connections()).set_index(["what", "kind"])["count"]
    return int(said.get(("packets_received, bytes_received of UDP flows", "approximate"), 0))


@pytest.mark.parametrize("family", [4, 6])
def test_datagrams_that_find_the_receive_queue_full_are_drops_and_not_received(
    net: PracticeNetwork, capture: Capture, opened: contextlib.ExitStack, family: plan.Family
) -> None:
    peers = Peers(Place(net, family), opened)
    start, server, before = pd.Timestamp.now("UTC"), peers.bound(), discarded(capture)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = peers.connected(server)
    for _ in range(100):
        client.send(bytes(200))

    def dealt_with() -> bool:
        """A kernel with much to do has a thread of its own take them in, later."""
        row = flows_since(capture, net, start).iloc[1]
        return bool(row["packets_received"] + row["receive_drops"] == 100)

    wait_until(dealt_with)
    incoming = flows_since(capture, net, start).iloc[1]
    server.setblocking(False)
    waiting = 0
    with contextlib.suppress(BlockingIOError):
        while server.recv(300):
            waiting += 1
    untold = discarded(capture) - before
    assert not untold or family == 6  # before Linux 6.5
    assert incoming["packets_received"] - untold == waiting
    assert incoming["bytes_received"] - 200 * untold == 200 * waiting
    assert incoming["receive_drops"] + untold == 100 - waiting > 0


def test_datagrams_that_a_virtual_machine_hands_over_as_one_are_counted_as_many(
    net: PracticeNetwork, capture: Capture, opened: contextlib.ExitStack
) -> None:
    peers, start = Peers(Place(net, 4), opened), pd.Timestamp.now("UTC")
    with net.client.entered():
        tun = os.open("/dev/net/tun", os.O_RDWR)
    opened.callback(os.close, tun)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", b"machine", TUN_WITH_OFFLOAD))
    try:
        fcntl.ioctl(tun, TUNSETOFFLOAD, TUN_UDP_SEGMENTS)
        parts, segmentation, size = [2500], 5, 1000  # VIRTIO_NET_HDR_GSO_UDP_L4
    except OSError:  # before Linux 6.2 each comes by itself
        parts, segmentation, size = [1000, 1000, 500], 0, 0
    peers.at.run("ip", "address", "add", "198.18.77.1/24", "dev", "machine")
    peers.at.run("ip", "link", "set", "machine", "up")
    receiver = peers.unbound()
    receiver.bind(("198.18.77.1", 0))
    receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    packet = IP(src="198.18.77.2", dst="198.18.77.1") / UDP(sport=9, dport=receiver.getsockname()[1])
    ends = [socket.inet_aton(end) for end in (packet.src, packet.dst)]
    for part in parts:
        whole = bytearray(bytes(packet / bytes(part)))
        pseudo = struct.pack("!4s4sHH", *ends, 17, 8 + part)
        whole[26:28] = struct.pack("!H", ~checksum(pseudo) & 0xFFFF)  # the receiver is asked to do the rest
        os.write(tun, struct.pack("=BBHHHH", 1, segmentation, 28, size, 20, 6) + whole)  # virtio_net_hdr
    assert sum(len(receiver.recv(3000)) for _ in parts) == 2500

    (received,) = flows_since(capture, net, start).itertuples()
    assert (received.packets_received, received.bytes_received) == (3, 2500)


@pytest.mark.parametrize(("hook", "sent"), [(CgroupHook.INET_EGRESS, 1), (CgroupHook.INET_INGRESS, 4)])
def test_what_a_program_of_the_sockets_control_group_denies_is_not_counted(
    net: PracticeNetwork, capture: Capture, opened: contextlib.ExitStack, hook: CgroupHook, sent: int
) -> None:
    peers, group = Peers(Place(net, 4), opened), opened.enter_context(unified()).make("denied")
    start = pd.Timestamp.now("UTC")
    with inside(group):  # a socket stays in the group that it was made in
        server, client = peers.bound(), peers.unbound()
    with denied(group, hook):
        for _ in range(3):
            with contextlib.suppress(PermissionError):
                client.sendto(b"?", server.getsockname())
    client.sendto(b"?", server.getsockname())
    server.recv(10)

    outgoing, incoming = flows_since(capture, net, start).sort_values("direction").itertuples()
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(10)
    assert (outgoing.packets_sent, incoming.packets_received) == (sent, 1)


def test_a_kernel_that_takes_nobodys_word_for_types_shows_the_same(
    net: PracticeNetwork, opened: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macros, "cast_macros", lambda *_: {})
    peers, group = Peers(Place(net, 4), opened), opened.enter_context(unified()).make("silenced")
    with inside(group):
        silenced = peers.unbound()
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False) as capture:
        translated_on_this_host(peers)
        with denied(group, CgroupHook.INET_EGRESS), contextlib.suppress(PermissionError):
            silenced.sendto(b"?", peers.bound().getsockname())
        (flow,) = capture.connections().itertuples()
    assert (flow.remote_port, flow.packets_sent, flow.packets_received) == (53, 1, 1)


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_discarded_after_it_was_counted_is_in_the_coverage(
    net: PracticeNetwork, opened: contextlib.ExitStack, family: plan.Family
) -> None:
    peers = Peers(Place(net, family), opened)
    server, picky = peers.bound(), peers.bound()
    nothing = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))  # BPF_RET: keep 0 bytes
    picky.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(nothing)))
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False) as capture:
        with net.client.entered():
            raw = opened.enter_context(socket.socket(peers.at.kind, socket.SOCK_RAW, socket.IPPROTO_UDP))
        size = 500  # shorter ones are checked before their socket is looked for
        header = struct.pack("!HHHH", 4000, server.getsockname()[1], 8 + size, 0xBAD)
        raw.sendto(header + bytes(size), (peers.at.home, 0))
        peers.unbound().sendto(b"?", picky.getsockname())
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.recv(size)
        running = capture.connections()
    for flows in (running, capture.connections()):
        gaps = netlab.coverage(flows).query("kind == 'approximate' and what.str.endswith('of UDP flows')")
        assert gaps[["what", "count"]].to_numpy().tolist() == [
            ["packets_received, bytes_received of UDP flows", 2]
        ]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_packets_of_udp_lite_are_in_no_flow_and_counted(family: socket.AddressFamily) -> None:
    home = LOOPBACK[4 if family == socket.AF_INET else 6]
    with (
        netlab.capture(protocol="udp") as capture,
        socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE) as server,
        socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE) as client,
    ):
        server.bind((home, 0))
        client.connect(server.getsockname())
        numbers = {cookie(server), cookie(client)}
        for _ in range(3):
            client.send(b"light")
            server.recv(10)

    frame = capture.connections()
    gaps = netlab.coverage(frame)
    assert numbers.isdisjoint(frame["cookie"])
    assert gaps.loc[gaps["detail"].str.contains("UDP-Lite"), "count"].tolist() == [6]  # at each end


def test_the_owner_is_who_sends_and_a_shared_socket_is_one_row(
    net: PracticeNetwork, capture: Capture, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    start, server, client = pd.Timestamp.now("UTC"), peers.bound(), peers.unbound()
    child = os.fork()
    if not child:
        client.sendto(bytes(10), server.getsockname())
        os._exit(0)
    os.waitpid(child, 0)
    client.sendto(bytes(20), server.getsockname())

    sent = flows_since(capture, net, start).query("direction == 'outgoing'")
    assert sent[["pid", "pid_source", "bytes_sent"]].to_numpy().tolist() == [[child, "send", 30]]


def test_a_socket_that_was_passed_on_belongs_to_who_sends_with_it(
    net: PracticeNetwork, capture: Capture, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    start, server = pd.Timestamp.now("UTC"), peers.bound()
    here, there = socket.socketpair()
    child = os.fork()
    if not child:
        (descriptor,) = array.array("i", there.recvmsg(1, socket.CMSG_SPACE(4))[1][0][2])
        with socket.socket(fileno=descriptor) as passed:
            passed.sendto(b"?", server.getsockname())
        os._exit(0)
    with here, there, peers.unbound() as client:
        socket.send_fds(here, [b"!"], [client.fileno()])
        os.waitpid(child, 0)

    sent = flows_since(capture, net, start).query("direction == 'outgoing'")
    assert sent[["pid", "pid_source", "state"]].to_numpy().tolist() == [[child, "send", "closed"]]


def test_who_only_receives_is_known_by_who_made_the_socket(
    net: PracticeNetwork, capture: Capture, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    start, server = pd.Timestamp.now("UTC"), peers.bound()
    peers.connected(server).send(b"?")

    received = flows_since(capture, net, start).query("direction == 'incoming'").iloc[0]
    assert (received["pid"], received["pid_source"]) == (os.getpid(), "create")
    assert received["cmdline"]


def test_a_silent_flow_ends_by_the_timeouts_of_its_namespace_sooner_without_an_answer(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    with (
        flows_end_sooner(net, unanswered_s=1, answered_s=5),
        netlab.capture(protocol="udp", netns=net.client.netns, backfill=False) as capture,
    ):
        server = peers.bound()
        answered, alone = peers.connected(server), peers.connected(server)
        alone.send(b"?")
        answered.send(b"?")
        for _ in range(2):
            _, place = server.recvfrom(10)
            if place == answered.getsockname():
                server.sendto(b"!", place)
        deadline = time.monotonic() + 30

        def states() -> dict[int, set[str]]:
            flows = capture.connections().astype({"state": str})
            mine = flows[["local_port", "remote_port"]]
            return {
                end.getsockname()[1]: set(flows["state"][(mine == end.getsockname()[1]).any(axis=1)])
                for end in (alone, answered)
            }

        while states()[alone.getsockname()[1]] != {"closed"} and time.monotonic() < deadline:
            time.sleep(0.1)
        now = states()
        assert now[alone.getsockname()[1]] == {"closed"}
        assert now[answered.getsockname()[1]] == {"established", "unconnected"}
        while states()[answered.getsockname()[1]] != {"closed"} and time.monotonic() < deadline:
            time.sleep(0.1)
        assert states()[answered.getsockname()[1]] == {"closed"}
        ended = capture.connections()
    assert (ended["closed_at"] - ended["last_packet_at"]).dt.total_seconds().abs().max() == 0


def test_a_flow_that_goes_on_after_it_was_over_is_another_row_and_no_byte_is_lost(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    with (
        flows_end_sooner(net, unanswered_s=1, answered_s=120),
        netlab.capture(protocol="udp", netns=net.client.netns, backfill=False) as capture,
    ):
        server = peers.bound()
        client = peers.connected(server)
        client.send(bytes(10))
        deadline = time.monotonic() + 30
        while capture.connections()["closed_at"].isna().any() and time.monotonic() < deadline:
            time.sleep(0.1)
        client.send(bytes(20))
    flows = capture.connections()
    assert flows.query("direction == 'outgoing'")["bytes_sent"].tolist() == [10, 20]
    assert flows.query("direction == 'incoming'")["bytes_received"].tolist() == [10, 20]


def test_a_flow_may_have_more_datagrams_than_32_bits_count(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False) as capture:
        server = peers.bound()
        client = peers.connected(server)
        client.send(b"first")
        server.recv(10)
        flows = capture._watch._sources["netlab_flows"]._flows  # type: ignore[union-attr]
        for key, flow in zip(*flows.items(), strict=True):  # as if many had passed since
            flow["packets_sent" if flow["packets_sent"] else "packets_received"] = (1 << 32) - 1
            flows.set(key, flow)
        client.send(b"next")
        server.recv(10)
    outgoing, incoming = capture.connections().sort_values("direction").itertuples()
    assert (outgoing.packets_sent, incoming.packets_received) == (1 << 32, 1 << 32)


def test_more_flows_than_fit_are_added_up_all_the_same_and_said(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False, max_open=8) as capture:
        server = peers.bound()
        clients = [peers.connected(server) for _ in range(20)]
        for size in range(1, 4):
            for client in clients:
                client.send(bytes(size))
        running = capture.connections()
    for flows in (running, capture.connections()):
        assert len(flows) == 40
        assert flows.query("direction == 'outgoing'")["bytes_sent"].tolist() == [6] * 20
        assert flows.query("direction == 'incoming'")["packets_received"].tolist() == [3] * 20
        gaps = netlab.coverage(flows)
        said = gaps[gaps["detail"].str.contains("more than 8 flows")]
        assert said["count"].tolist() == [3 * (40 - 8)]


def test_flows_from_ever_other_ports_do_not_fill_the_memory_and_are_counted(
    net: PracticeNetwork, opened: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "_SINGLE_MOST", 16)
    peers = Peers(Place(net, 4), opened)
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False, max_open=8) as capture:
        server = peers.bound()
        for _ in range(40):
            peers.connected(server).send(b"?")
        flows = capture.connections()
    gaps = netlab.coverage(flows)
    untold = gaps.loc[gaps["detail"].str.contains("yet more flows"), "count"].sum()
    assert len(flows) == 8 + 16
    assert flows["packets_sent"].sum() + flows["packets_received"].sum() + untold == 2 * 40


def test_without_room_a_full_queue_is_not_seen_and_said(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False, max_open=1) as capture:
        alone, server = peers.bound(), peers.bound()
        alone.sendto(b"?", alone.getsockname())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client = peers.connected(server)
        for _ in range(100):
            client.send(bytes(200))
        flows = capture.connections()
    incoming = flows.query("direction == 'incoming'")
    assert incoming[["packets_received", "receive_drops"]].to_numpy().tolist() == [[100, 0]]
    gap = netlab.coverage(flows).query("kind == 'lost'").iloc[0]
    assert "packets_received, bytes_received, receive_drops" in gap["what"]
    assert "receive queue full" in gap["detail"]


def test_a_flow_that_fits_only_later_stays_one_row_and_no_client_is_told_it_twice(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers, room = Peers(Place(net, 4), opened), 8
    server = peers.bound()
    with netlab.capture(
        protocol="udp", netns=net.client.netns, backfill=False, max_open=room, direction="outgoing"
    ) as capture:
        capture.register("me")
        first = [peers.connected(server) for _ in range(room)]
        for each in first:
            each.send(b"?")
        late = peers.connected(server)
        late.send(bytes(10))  # there is no room
        for each in first:
            each.close()
        told = [capture.delta("me")]
        late.send(bytes(20))  # now there is
        told.append(capture.delta("me"))
        late.close()
        told.append(capture.delta("me"))
        flows = capture.connections()
        assert capture.debug_state("me")["underflows"] == 0
    assert flows[["bytes_sent", "state"]].to_numpy().tolist() == [[1, "closed"]] * room + [[30, "closed"]]
    assert pd.concat(told)["delta_bytes_sent"].sum() == flows["bytes_sent"].sum()


def test_flows_of_sockets_that_live_shorter_than_a_look_are_closed_as_they_are(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers, sockets = Peers(Place(net, 4), opened), 10_000
    place = peers.bound().getsockname()
    with netlab.capture(
        protocol="udp", netns=net.client.netns, backfill=False, direction="outgoing"
    ) as capture:
        child = os.fork()
        if not child:
            with net.client.entered():
                for _ in range(sockets):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                        client.sendto(b"?", place)
            os._exit(0)
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            capture.connections()
        flows = capture.connections()
    assert flows["state"].eq("closed").sum() == len(flows) == sockets


def test_a_socket_that_is_closed_in_a_flood_is_one_row_and_each_datagram_is_in_it(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers, sockets = Peers(Place(net, 4), opened), 500
    sender, place = peers.bound(), peers.bound()
    home = place.getsockname()
    place.close()
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False) as capture:
        before = without_port(net)
        child = os.fork()
        if not child:
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    sender.sendto(b"?", home)
        try:
            for _ in range(sockets):
                with peers.at.socket(socket.SOCK_DGRAM) as receiver:
                    receiver.settimeout(10)
                    receiver.bind(home)
                    receiver.connect(sender.getsockname())
                    for _ in range(30):
                        receiver.recv(10)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        unreceived = without_port(net) - before
    flows = capture.connections()
    received = flows.query("direction == 'incoming'")
    sent = flows.query("direction != 'incoming'")["packets_sent"].sum()  # its socket is older: unknown
    assert received["state"].eq("closed").sum() == len(received) == sockets
    assert received["packets_received"].sum() + received["receive_drops"].sum() + unreceived == sent


def without_port(net: PracticeNetwork) -> int:
    """Return how many datagrams have found nobody on their port."""
    with net.client.entered():
        names, values = [
            line.split()
            for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
            if line.startswith("Udp:")
        ]
    return int(values[names.index("NoPorts")])


def test_a_client_gets_what_changed_and_each_flow_closed_once(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False) as capture:
        server = peers.bound()
        client = peers.connected(server)
        capture.register("me")
        client.send(bytes(10))
        first = capture.delta("me")
        client.send(bytes(5))
        client.close()
        second = capture.delta("me").sort_values("direction")
        third = capture.delta("me")
    assert first["delta_bytes_sent"].tolist() == [10, 0]
    assert first["delta_bytes_received"].tolist() == [0, 10]
    assert first["delta_retransmits"].isna().all()
    outgoing = second[second["direction"] == "outgoing"]
    assert outgoing[["state", "delta_bytes_sent", "bytes_sent", "new"]].to_numpy().tolist() == [
        ["closed", 5, 15, False]
    ]
    assert third.empty


def test_flows_of_a_pause_are_left_out_and_their_packets_counted(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False) as capture:
        server = peers.bound()
        followed, unseen = peers.connected(server), peers.connected(server)
        followed.send(bytes(1))
        capture.pause()
        followed.send(bytes(2))
        unseen.send(bytes(4))
        capture.resume()
    flows = capture.connections()
    assert flows.query("direction == 'outgoing'")["bytes_sent"].tolist() == [3]
    gaps = netlab.coverage(flows)
    assert gaps[gaps["kind"] == "unseen"]["count"].tolist() == [2]  # it left, and it arrived


def test_flows_of_older_sockets_say_that_they_may_have_begun_before(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    server = peers.bound()
    client, silent = peers.connected(server), peers.connected(server)
    client.send(bytes(100))
    _, place = server.recvfrom(200)
    with netlab.capture(protocol="udp", netns=net.client.netns) as capture:
        server.sendto(bytes(7), place)  # the first packet that is seen goes the other way
    flows = capture.connections().set_index("local_port")
    mine = flows.loc[client.getsockname()[1]]
    assert mine[["seen", "direction", "bytes_sent", "bytes_received"]].tolist() == [
        "backfill",
        "outgoing",
        0,
        7,
    ]
    assert (mine["pid"], mine["pid_source"]) == (os.getpid(), "socket")
    quiet = flows.loc[silent.getsockname()[1]]
    assert quiet["seen"] == "backfill"
    assert quiet[["bytes_sent", "packets_received", "opened_at"]].isna().all()
    details = " ".join(netlab.coverage(flows.reset_index())["detail"])
    assert "UDP flows of sockets older than the capture" in details
    assert "silent in the capture" in details


@pytest.mark.parametrize("backfill", [True, False])
@pytest.mark.parametrize("direction", [None, "incoming", "outgoing"])
def test_whoever_is_heard_first_of_an_older_flow_the_ports_tell_who_began_it(
    net: PracticeNetwork, opened: contextlib.ExitStack, direction: str | None, *, backfill: bool
) -> None:
    peers = Peers(Place(net, 4), opened)
    server = peers.unbound()
    server.bind(("127.0.0.1", 7003))
    client = peers.connected(server)
    client.send(b"hello")
    _, place = server.recvfrom(10)
    only: dict[str, Any] = {"netns": net.client.netns, "port": 7003, "direction": direction}
    with netlab.capture(protocol="udp", backfill=backfill, **only) as capture:
        server.sendto(b"push", place)
        client.recv(10)
        client.send(b"query")
        server.recv(10)
        running = capture.connections()
        client.close()
        server.close()
    flows = capture.connections()
    kept = [way for way in ("incoming", "outgoing") if direction in {None, way}]
    for seen in (running, flows):
        assert sorted(seen["direction"]) == kept
        assert seen["connect_ms"].isna().all()  # it would be the time between the push and the query
        assert seen["assured"].all()
        assert seen["seen"].eq("backfill").all()
        said = netlab.coverage(seen).set_index("what")["count"]
        assert said["opened_at, bytes, packets"] == len(kept)
        assert said["direction"] == 2


def test_a_flow_begun_in_a_pause_is_not_taken_for_one_that_begins_after_it(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    with netlab.capture(protocol="udp", netns=net.client.netns, port=7004) as capture:
        server = peers.unbound()
        server.bind(("127.0.0.1", 7004))
        client = peers.connected(server)
        capture.pause()
        client.send(b"query")
        _, place = server.recvfrom(10)
        capture.resume()
        server.sendto(b"answer", place)
        client.recv(10)
        client.send(b"again")
        server.recv(10)
    flows = capture.connections().set_index("local_port")
    assert flows.loc[7004, "direction"] == "incoming"
    assert flows.loc[place[1], "direction"] == "outgoing"
    assert flows["connect_ms"].isna().all()
    said = netlab.coverage(flows.reset_index()).set_index("what")["count"]
    assert said["opened_at, bytes, packets"] == said["direction"] == 2


def test_with_two_ports_that_the_kernel_chose_who_began_an_older_flow_may_be_unknown(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    pushing, asked = peers.bound(), peers.bound()
    clients = peers.connected(pushing), peers.connected(asked)
    for client in clients:
        client.send(b"hello")
    place = pushing.recvfrom(10)[1]
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False) as capture:
        pushing.sendto(b"push", place)
        clients[1].send(b"query")
    flows = capture.connections().set_index("local_port")
    ways = [flows.loc[each.getsockname()[1], "direction"] for each in (pushing, asked, *clients)]
    assert ways == ["unknown", "incoming", "outgoing", "outgoing"]


def test_of_connected_sockets_between_two_chosen_ports_nobody_tells_who_began(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    ends = peers.unbound(), peers.unbound()
    for one, port in zip(ends, (7123, 7124), strict=True):
        one.bind(("127.0.0.1", port))
    ends[0].connect(ends[1].getsockname())
    ends[1].connect(ends[0].getsockname())
    with netlab.capture(protocol="udp", netns=net.client.netns, port=7123) as capture:
        ends[0].send(b"sync")
        ends[1].recv(10)
        ends[1].send(b"sync")
    listed = netlab.connections(netns=net.client.netns, protocol="udp", port=7123)
    assert list(capture.connections()["direction"]) == list(listed["direction"]) == ["unknown"] * 2


def test_a_flow_that_another_process_has_sent_on_before_is_said_to_be_no_exact_number(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    server = peers.bound()
    ours, theirs = (opened.enter_context(end) for end in socket.socketpair())
    child = os.fork()
    if not child:
        with socket.socket(fileno=socket.recv_fds(theirs, 1, 1)[1][0]) as shared:
            shared.send(bytes(7))
        theirs.send(b"!")
        os._exit(0)
    with netlab.capture(protocol="udp", netns=net.client.netns, pid=child) as capture:
        client = peers.connected(server)
        client.send(bytes(100))
        socket.send_fds(ours, [b"?"], [client.fileno()])
        ours.recv(1)
        os.waitpid(child, 0)
        client.send(bytes(100))
        flows = capture.connections().query("direction == 'outgoing'")
    assert flows[["bytes_sent", "pid"]].to_numpy().tolist() == [[107, child]]
    said = netlab.coverage(flows).set_index("what")
    assert said.loc["opened_at, bytes, packets", ["kind", "count"]].tolist() == ["approximate", 1]
    assert "a process that is not asked for" in said.loc["opened_at, bytes, packets", "detail"]


def test_a_new_socket_beside_older_ones_has_its_direction_from_its_first_packet(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    older = peers.unbound()
    older.bind(("127.0.0.1", 7005))
    with netlab.capture(protocol="udp", netns=net.client.netns, port=7005) as capture:
        newer = peers.bound()  # the kernel has chosen its port, and it is asked first
        older.sendto(b"?", newer.getsockname())
        _, place = newer.recvfrom(10)
        newer.sendto(b"!", place)
    flows = capture.connections().set_index("local_port")
    assert flows.loc[newer.getsockname()[1], ["direction", "seen"]].tolist() == ["incoming", "live"]


@pytest.mark.parametrize(
    ("only", "sizes"),
    [
        ({"port": 7001}, [1]),
        ({"remote": "127.0.0.2"}, [2]),
        ({"exclude_remote": {"127.0.0.2": "udp *"}}, [1]),
        ({"exclude_remote": {"127.0.0.2": "tcp *"}}, [1, 2]),
        ({"process": "nobody"}, []),
        ({"pid": os.getpid(), "direction": "outgoing"}, [1, 2]),
        ({"direction": "incoming"}, []),
    ],
)
def test_filters_apply_to_flows(
    net: PracticeNetwork, opened: contextlib.ExitStack, only: dict[str, Any], sizes: list[int]
) -> None:
    peers = Peers(Place(net, 4), opened)
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False, **only) as capture:
        for size, place in enumerate([("127.0.0.1", 7001), ("127.0.0.2", 7002)], 1):
            with peers.unbound() as server, peers.unbound() as client:
                server.bind(place)
                client.sendto(bytes(size), place)
                server.recv(10)
    flows = capture.connections()
    assert flows.query("direction == 'outgoing'")["bytes_sent"].tolist() == sizes


def test_tcp_alone_has_nothing_run_per_packet() -> None:
    with netlab.capture(protocol="tcp", cost=True) as capture:
        programs = capture.cost()["program"].tolist()
    assert "netlab_state_changed" in programs
    assert not [name for name in programs if "datagram" in name]


def test_flows_of_other_processes_take_no_room_from_those_asked_for(
    net: PracticeNetwork, opened: contextlib.ExitStack
) -> None:
    peers = Peers(Place(net, 4), opened)
    only: dict[str, Any] = {"process": "nobody", "max_closed": 5}
    with netlab.capture(protocol="udp", netns=net.client.netns, backfill=False, **only) as capture:
        server = peers.bound()
        for _ in range(50):
            with peers.connected(server) as client:
                client.send(b"?")
    flows = capture.connections()
    assert flows.empty
    assert "lost" not in set(netlab.coverage(flows)["kind"])
