"""What the kernel drops and says why: real sockets and firewalls do it, drops.toml has the rows to expect."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from groups import denied, inside, unified
from loopback import AF, LINGER_0, LOOPBACK, Echo
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6

import netlab
from netlab.kernel import btf
from netlab.kernel.bpf import CgroupHook
from netlab.lab import plan
from netlab.lab.host import Host
from netlab.lab.network import PracticeNetwork
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged
CASES = tomllib.loads(Path(__file__).with_name("drops.toml").read_text())["case"]
RUNS = [(case, family) for case in CASES for family in case.get("families", plan.FAMILIES)]
TCP_SYNCNT, TCP_REPAIR, IPV6_HOPS = 7, 19, 16  # include/uapi/linux/tcp.h, in6.h
PADDING = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # a destination option that says nothing: RFC 8200 section 4.2
OVERFLOWS = "TcpExt.ListenOverflows"
ELSEWHERE = "198.18.5.99"  # of a network that the gateway reaches another way
# What an older kernel does not tell, by its name in drops.toml.
LACKS: dict[str, Callable[[], bool]] = {
    "receivers": lambda: "struct sock *" not in btf.tracepoint_arguments("kfree_skb"),
    "reset_reasons": lambda: not btf.enumerators("sk_rst_reason"),
    "overflows": lambda: (
        "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW" not in btf.enumerators("skb_drop_reason").values()
    ),
}


@pytest.fixture(scope="module")
def net() -> Iterator[PracticeNetwork]:
    with netlab.lab.practice() as network:
        with network.client.entered(), contextlib.suppress(FileNotFoundError):
            # since Linux 6.5: SYNs without backoff
            Path("/proc/sys/net/ipv4/tcp_syn_linear_timeouts").write_text("0")
        yield network


@pytest.fixture(scope="module")
def capture(net: PracticeNetwork) -> Iterator[Capture]:
    """One for all cases: each has its own port."""
    with netlab.capture(drops=True, netns=[net.client.netns, net.gateway.netns]) as running:
        yield running


@dataclass
class Place:
    """The client and its gateway, one address family and one port that no other case uses."""

    net: PracticeNetwork
    family: plan.Family
    port: int
    kept: contextlib.ExitStack  # sockets that stay open until the rows were read

    @property
    def kind(self) -> socket.AddressFamily:
        return socket.AF_INET if self.family == 4 else socket.AF_INET6

    @property
    def here(self) -> str:
        return plan.INSIDE.address(plan.CLIENT, self.family)

    @property
    def gateway(self) -> str:
        return plan.INSIDE.address(plan.GATEWAY, self.family)

    @property
    def web(self) -> str:
        return plan.address("web", self.family)

    def socket(self, host: Host, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        with host.entered():
            return socket.socket(self.kind, kind, protocol)

    def listener(self, backlog: int = 8) -> socket.socket:
        listening = self.socket(self.net.gateway)
        listening.bind((self.gateway, self.port))
        listening.listen(backlog)
        return listening

    def connected(self) -> tuple[socket.socket, socket.socket]:
        with self.listener() as listening:
            client = self.socket(self.net.client)
            client.connect(listening.getsockname())
            return client, listening.accept()[0]

    def one_syn(self, to: str, client: socket.socket) -> None:
        with client:
            client.setblocking(False)
            client.connect_ex((to, self.port))
            time.sleep(0.1)

    def rule(self, host: Host, hook: str, verdict: str, match: str = "") -> None:
        nft(
            host,
            f"add table inet case{self.port}",
            f"add chain inet case{self.port} {hook} {{ type filter hook {hook} priority filter; }}",
            f"add rule inet case{self.port} {hook} tcp dport {self.port} {match} counter {verdict}",
        )

    def forged(self, flags: str, **fields: int) -> bytes:
        header = (
            IP(src=self.here, dst=self.gateway) if self.family == 4 else IPv6(src=self.here, dst=self.gateway)
        )
        packet = header / TCP(sport=self.port, dport=self.port, flags=flags, **fields)
        return bytes(packet)[len(header) :]

    def send_forged(self, segment: bytes) -> None:
        with self.socket(self.net.client, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            raw.sendto(segment, (self.gateway, 0))


def nft(host: Host, *commands: str) -> None:
    host.run(["nft", "-f", "-"], input="\n".join(commands), check=True)


def dropped_by_nft_on_output(at: Place) -> None:
    at.rule(at.net.client, "output", "drop")
    with at.socket(at.net.client) as client:
        client.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 1)
        with pytest.raises(TimeoutError):
            client.connect((at.gateway, at.port))


def denied_by_a_program_of_its_control_group(at: Place) -> None:
    with unified() as groups:
        group = groups.make("denied")
        with denied(group, CgroupHook.INET_EGRESS), inside(group), at.socket(at.net.client) as client:
            client.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 1)
            with pytest.raises(TimeoutError):
                client.connect((at.gateway, at.port))


def dropped_by_nft_on_input(at: Place) -> None:
    at.rule(at.net.gateway, "input", "drop")
    at.one_syn(at.gateway, at.socket(at.net.client))


def dropped_by_nft_on_forward(at: Place) -> None:
    at.rule(at.net.gateway, "forward", "drop")
    at.one_syn(at.web, at.socket(at.net.client))


def rejected_by_nft_with_a_reset(at: Place) -> None:
    at.rule(at.net.gateway, "input", "reject with tcp reset")
    refused_by_a_closed_port(at)


def refused_by_a_closed_port(at: Place) -> None:
    with at.socket(at.net.client) as client, pytest.raises(ConnectionRefusedError):
        client.connect((at.gateway, at.port))


def reset_for_unread_data(at: Place) -> None:
    client, server = at.connected()
    with client:
        client.sendall(b"unread")
        server.recv(1)
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def reset_by_its_process(at: Place) -> None:
    client, server = at.connected()
    with client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        server.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def reset_by_a_server_that_has_restarted(at: Place) -> None:
    listening, client = at.kept.enter_context(at.listener()), at.kept.enter_context(at.socket(at.net.client))
    client.connect(listening.getsockname())
    server = listening.accept()[0]
    server.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)  # which lets it go without a word
    server.close()
    client.sendall(b"still there?")
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def no_room_in_the_accept_queue(at: Place) -> None:
    """Two handshakes at once for the last place: their last ACKs are held back until both have begun."""
    at.kept.enter_context(at.listener(backlog := 2))
    clients = [at.kept.enter_context(at.socket(at.net.client)) for _ in range(backlog + 2)]
    for client in clients[:backlog]:  # the kernel takes one more than this (sk_acceptq_is_full)
        client.connect((at.gateway, at.port))
    at.rule(at.net.client, "output", "drop", "tcp flags & (syn | ack) == ack")
    for client in clients[backlog:]:
        client.connect((at.gateway, at.port))
    nft(at.net.client, f"delete table inet case{at.port}")
    time.sleep(1.5)  # the SYN-ACK is sent again after a second, and answered again


def wrong_way_for_the_reverse_path_filter(at: Place) -> None:
    for each in ("all", "client"):
        at.net.gateway.run(["sysctl", "-q", f"net.ipv4.conf.{each}.rp_filter=1"], check=True)
    at.net.client.run(["ip", "address", "add", f"{ELSEWHERE}/32", "dev", "lo"], check=True)
    client = at.socket(at.net.client)
    client.bind((ELSEWHERE, 0))
    at.one_syn(at.gateway, client)


def ttl_ran_out_on_forward(at: Place) -> None:
    client = at.socket(at.net.client)
    if at.family == 4:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    else:
        client.setsockopt(socket.IPPROTO_IPV6, IPV6_HOPS, 1)
    at.one_syn(at.web, client)


def wrong_checksum(at: Place) -> None:
    for _ in range(3):
        at.send_forged(at.forged("S", chksum=0xBAD))
    time.sleep(0.05)


def syn_and_fin_at_once(at: Place) -> None:
    with at.listener():
        at.send_forged(at.forged("SF"))
        time.sleep(0.05)


def datagram_to_a_closed_port(at: Place) -> None:
    with at.socket(at.net.client, socket.SOCK_DGRAM) as client:
        client.sendto(b"one", (at.gateway, at.port))
        client.sendto(b"two", (at.gateway, at.port))
        time.sleep(0.05)


def datagrams_beyond_the_receive_buffer(at: Place) -> None:
    with (
        at.socket(at.net.gateway, socket.SOCK_DGRAM) as server,
        at.socket(at.net.client, socket.SOCK_DGRAM) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind((at.gateway, at.port))
        for _ in range(50):
            client.sendto(bytes(1000), (at.gateway, at.port))
        time.sleep(0.05)


def counted(host: Host, name: str | None, port: int) -> int:
    """Return what nft or the kernel's own statistics have counted on *host*."""
    if name is None:
        return 0
    if name == "nft":
        listed = json.loads(host.run(["nft", "-j", "list", "ruleset"], check=True).stdout)["nftables"]
        rules = [each["rule"] for each in listed if "rule" in each]
        mine = [rule for rule in rules if rule["table"] == f"case{port}"]
        return sum(part["counter"]["packets"] for rule in mine for part in rule["expr"] if "counter" in part)
    with host.entered():
        told = subprocess.run(["nstat", "-asz"], capture_output=True, text=True, check=True).stdout
    return int(dict(line.split()[:2] for line in told.splitlines()[1:])[name.replace(".", "")])


@pytest.mark.parametrize(
    ("number", "case", "family"),
    [(number, *run) for number, run in enumerate(RUNS)],
    ids=[f"{case['what']}-{family}" for case, family in RUNS],
)
def test_the_rows_say_what_was_dropped_where_and_why(
    net: PracticeNetwork, capture: Capture, number: int, case: dict[str, Any], family: plan.Family
) -> None:
    for name, is_lacking in LACKS.items():
        case = case | (case.get(f"without_{name}", {}) if is_lacking() else {})
    what: Callable[[Place], None] = globals()[case["what"]]
    host, port = net.hosts[case["at"]], 20_000 + number
    counter = case.get("counter6", case.get("counter")) if family == 6 else case.get("counter")
    before = counted(host, counter, port)
    with contextlib.ExitStack() as kept:
        what(Place(net, family, port, kept))
        drops, after = seen_and_counted(capture, lambda: counted(host, counter, port))

    mine = drops[(drops["sport"] == port) | (drops["dport"] == port)]
    rows = mine[mine["netns"] == host.inode]
    expected = case["rows"]
    assert told(rows, expected) == expected
    assert rows.loc[rows["kind"] == "reset-sent", "sport"].eq(port).all()
    assert not (counter and expected) or rows["packets"].iloc[0] == after - before
    if "says" in case:
        attempts = capture.failures()
        attempts = attempts[attempts["remote_port"] == port]
        assert len(attempts) == 1, attempts[["netns", "direction", "error", "reason"]]
        attempt = attempts.iloc[0]
        assert attempt["reason"].endswith(case["says"].format(netns=host.inode, family=family))
        assert attempt["cookie"] in mine["cookie"].tolist()


def seen_and_counted(capture: Capture, count: Callable[[], int]) -> tuple[pd.DataFrame, int]:
    """Return the drops of a moment in which the other count stood still."""
    for _ in range(20):
        before, drops = count(), capture.drops()
        if count() == before:
            return drops, before
    raise AssertionError("packets are dropped all the time")


def told(frame: pd.DataFrame, expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the columns of each row that are expected of it."""
    rows = frame.astype(object).where(frame.notna(), "NA").to_dict("records")
    assert len(rows) == len(expected), frame[["kind", "reason", "location", "tcp_flags", "packets"]]
    return [{name: row[name] for name in wanted} for row, wanted in zip(rows, expected, strict=True)]


def test_what_finds_the_queue_full_and_is_no_row_is_counted_in_the_coverage(net: PracticeNetwork) -> None:
    with netlab.capture(drops=True, netns=net.gateway.netns) as capture, contextlib.ExitStack() as kept:
        place = Place(net, 4, 21_000, kept)
        before = counted(net.gateway, OVERFLOWS, place.port)
        no_room_in_the_accept_queue(place)
        place.one_syn(place.gateway, place.socket(net.client))
        drops, after = seen_and_counted(capture, lambda: counted(net.gateway, OVERFLOWS, place.port))

    rows = drops.loc[drops["reason"] == "TCP_LISTEN_OVERFLOW", "packets"].sum()
    unseen = beside_the_kernels(drops).set_index("kind")["count"]["unseen"]  # the SYN is
    assert rows + unseen == after - before


def test_syns_that_cookies_answered_and_nobody_came_back_with_are_counted(net: PracticeNetwork) -> None:
    with contextlib.ExitStack() as kept, netlab.capture(drops=True, netns=net.gateway.netns) as capture:
        at = Place(net, 4, 34_100, kept)
        net.gateway.run(["sysctl", "-qw", "net.ipv4.tcp_syncookies=2"], check=True)  # for each SYN
        kept.callback(net.gateway.run, ["sysctl", "-qw", "net.ipv4.tcp_syncookies=1"], check=True)
        with at.listener():
            for number in range(3):
                at.send_forged(at.forged("S", seq=number))
            with at.socket(net.client) as client:  # which does come back
                client.connect((at.gateway, at.port))
                gaps = netlab.coverage(capture.connections()).set_index("what")

    assert gaps.loc["connections", ["kind", "count"]].tolist() == ["unseen", 3]


@pytest.mark.parametrize(("family", "header_bytes"), [(4, 20 + 8), (6, 40 + 8)])
def test_a_dropped_datagram_that_came_in_fragments_is_one_packet(
    family: plan.Family, header_bytes: int, net: PracticeNetwork
) -> None:
    near, far = net.routers[:2]
    closed = (plan.address(far.name, family), 21_003)
    with netlab.capture(drops=True, protocol="udp", netns=far.netns) as capture:
        with near.entered(), socket.socket(AF[family], socket.SOCK_DGRAM) as client:
            for _ in range(3):
                client.sendto(bytes(20_000), closed)
        time.sleep(0.1)

    drops = capture.drops()
    assert coverage_of(capture) == {}
    assert drops[["reason", "dport", "packets", "bytes"]].to_numpy().tolist() == [
        ["NO_SOCKET", closed[1], 3, 3 * (20_000 + header_bytes)]
    ]


def test_a_datagram_that_was_delivered_leaves_no_gap_of_its_fragments(net: PracticeNetwork) -> None:
    """Behind an extension header Linux keeps fragments in a list, and frees them with it."""
    with (
        netlab.capture(drops=True, protocol="udp", netns=net.db.netns) as capture,
        net.db.entered(),
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
    ):
        subprocess.run(["ip", "link", "set", "lo", "mtu", "1500"], check=True)
        server.bind((LOOPBACK[6], 21_004))
        server.settimeout(10)
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, PADDING)
        client.sendto(bytes(20_000), server.getsockname())
        assert len(server.recv(65_536)) == 20_000

    assert coverage_of(capture) == {}
    assert capture.drops().empty


def test_the_loopbacks_of_two_namespaces_are_not_mixed_up(net: PracticeNetwork) -> None:
    hosts = (net.client, net.db)
    with (
        netlab.capture(drops=True, netns=[host.netns for host in hosts]) as capture,
        contextlib.ExitStack() as kept,
    ):
        place = Place(net, 4, 21_001, kept)
        for host in hosts:
            place.rule(host, "output", "drop")
            client = kept.enter_context(place.socket(host))
            client.bind((LOOPBACK[4], 45_000))
            client.setblocking(False)
            client.connect_ex((LOOPBACK[4], place.port))
        waiting = capture.failures()

    assert waiting["netns"].tolist() == [host.inode for host in hosts]
    assert waiting["reason"].str.count("dropped here by nft").eq(1).all()
    assert not waiting["reason"].str.contains("in network namespace").any()


def test_packets_of_no_known_namespace_are_counted_where_one_is_asked_for(net: PracticeNetwork) -> None:
    size, port = 500, 21_002  # shorter ones have their checksum tested before they are in a queue
    with (
        net.db.entered(),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw,
        netlab.capture(drops=True, port=port, netns=net.db.netns) as capture,
    ):
        server.bind((LOOPBACK[4], port))
        server.settimeout(0.01)
        raw.sendto(struct.pack("!HHHH", 9, port, 8 + size, 0xBAD) + bytes(size), (LOOPBACK[4], 0))
        with pytest.raises(TimeoutError):
            server.recv(size)
        assert coverage_of(capture) == {"lost": 1}


def coverage_of(capture: Capture) -> dict[str, int]:
    gaps = beside_the_kernels(capture.drops())
    return dict(zip(gaps["kind"], gaps["count"], strict=True))


def beside_the_kernels(drops: pd.DataFrame) -> pd.DataFrame:
    """Return the coverage without what an older kernel never tells."""
    gaps = netlab.coverage(drops)
    return gaps[gaps["kind"] != "unavailable"]


def test_the_coverage_says_what_this_kernel_does_not_tell(closed_port: int) -> None:
    with netlab.capture(port=closed_port, drops=True) as capture:
        gaps = netlab.coverage(capture.drops())

    named = {"receivers": "drops", "reset_reasons": "reset-sent"}
    lacking = [what for name, what in named.items() if LACKS[name]()]
    assert gaps.loc[gaps["kind"] == "unavailable", "what"].tolist() == lacking


def test_the_names_are_those_of_the_kernels_own_enums() -> None:
    for enum in ("skb_drop_reason", "sk_rst_reason"):
        dumped = subprocess.run(
            ["bpftool", "-j", "btf", "dump", "file", str(btf.VMLINUX)], capture_output=True, check=True
        )
        types = [each for each in json.loads(dumped.stdout)["types"] if each.get("name") == enum]
        values = [value for each in types if each["kind"] == "ENUM" for value in each["values"]]
        assert btf.enumerators(enum) == {each["val"] & 0xFFFF_FFFF: each["name"] for each in values}


def test_drops_have_to_be_asked_for(closed_port: int) -> None:
    with netlab.capture(port=closed_port) as capture:
        refused(closed_port, 4)
        with pytest.raises(netlab.CaptureError, match="drops=True"):
            capture.drops()
        cost = capture.cost()

    assert not cost["program"].str.contains("drop").any()
    assert "NO_SOCKET" not in capture.failures()["reason"].item()


def refused(port: int, family: int) -> None:
    with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6) as client:
        assert client.connect_ex((LOOPBACK[family], port))


def datagrams(*ports: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for port in ports:
            client.sendto(b"?", (LOOPBACK[4], port))


def test_what_does_not_fit_into_the_table_is_counted_to_the_last_packet(net: PracticeNetwork) -> None:
    ports, room = range(30_000, 30_300), 100
    with netlab.capture(drops=True, max_drops=room, netns=net.db.netns) as capture:
        with net.db.entered():
            datagrams(*ports, *ports)
        drops = capture.drops()

    assert len(drops) == room
    assert drops["packets"].eq(2).all()
    (gap,) = beside_the_kernels(drops).to_dict("records")
    assert (gap["kind"], gap["count"]) == ("lost", 2 * (len(ports) - room))
    assert "reason: drops" in netlab.coverage(capture.connections())["what"].tolist()


@pytest.mark.parametrize(
    ("options", "ports"),
    [
        ({"port": 30_001}, [30_001]),
        ({"protocol": "tcp"}, []),
        ({"remote": "127.0.0.0/8"}, [30_001, 30_002]),
        ({"remote": "192.0.2.0/24"}, []),
        ({"exclude_remote": {"*": ["udp 30001"]}}, [30_001, 30_002]),  # its other end may be the remote one
        ({"exclude_remote": {"127.0.0.1": ["*"]}}, []),
        ({"port": range(30_002, 30_200, 2)}, [30_002]),  # more than the kernel is asked to compare
    ],
    ids=str,
)
def test_drops_pass_the_filters_of_the_capture(
    net: PracticeNetwork, options: dict[str, Any], ports: list[int]
) -> None:
    with netlab.capture(drops=True, netns=net.db.netns, **options) as capture, net.db.entered():
        datagrams(30_001, 30_002)

    drops = capture.drops()
    assert drops["dport"].dropna().tolist() == ports
    assert drops["netns"].eq(net.db.inode).all()


def test_a_filter_by_process_says_that_packets_have_none(closed_port: int) -> None:
    with netlab.capture(port=closed_port, pid=os.getpid(), drops=True) as capture:
        refused(closed_port, 4)

    drops = capture.drops()
    assert beside_the_kernels(drops)["kind"].tolist() == ["approximate"]
    assert drops["pid"].eq(os.getpid()).all()


def test_nothing_is_recorded_in_a_pause_but_counted(net: PracticeNetwork) -> None:
    with netlab.capture(drops=True, netns=net.db.netns) as capture, net.db.entered():
        datagrams(30_001)
        capture.pause()
        datagrams(30_002, 30_002, 30_003)
        capture.resume()
        datagrams(30_004)

    drops = capture.drops()
    assert drops["dport"].dropna().tolist() == [30_001, 30_004]
    assert coverage_of(capture) == {"unseen": 3}


def test_a_client_of_deltas_takes_nothing_from_the_drops(closed_port: int) -> None:
    with netlab.capture(port=closed_port, drops=True) as capture:
        capture.register("one")
        refused(closed_port, 6)
        before = capture.drops()
        assert capture.delta("one")["error"].tolist() == ["ECONNREFUSED"]

        pd.testing.assert_frame_equal(capture.drops(), before)
    pd.testing.assert_frame_equal(capture.drops(), before)


def test_a_client_of_deltas_is_told_what_failures_tells(closed_port: int) -> None:
    with netlab.capture(port=closed_port, drops=True) as capture:
        capture.register("one")
        refused(closed_port, 4)
        told = capture.delta("one")
        failures = capture.failures()

    assert "NO_SOCKET" in failures["reason"].item()
    assert told["reason"].tolist() == failures["reason"].tolist()


def test_an_icmp_message_has_type_and_code_instead_of_ports(net: PracticeNetwork) -> None:
    with netlab.capture(drops=True, netns=net.gateway.netns) as capture:
        nft(
            net.gateway,
            "add table inet pings",
            "add chain inet pings input { type filter hook input priority filter; }",
            "add rule inet pings input icmp type echo-request drop",
            "add rule inet pings input icmpv6 type echo-request drop",
        )
        ping(net, 4, socket.IPPROTO_ICMP, bytes(ICMP()))
        ping(net, 6, socket.IPPROTO_ICMPV6, bytes(ICMPv6EchoRequest()))
        nft(net.gateway, "delete table inet pings")

    drops = capture.drops()
    pings = drops[drops["reason"] == "NETFILTER_DROP"]
    assert pings[["protocol", "icmp_type", "icmp_code", "packets"]].to_numpy().tolist() == [
        ["icmp", 8, 0, 2],
        ["icmpv6", 128, 0, 2],
    ]
    assert pings["sport"].isna().all()


def ping(net: PracticeNetwork, family: plan.Family, protocol: int, message: bytes) -> None:
    with net.client.entered():
        raw = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_RAW, protocol)
    with raw:
        for _ in range(2):
            raw.sendto(message, (plan.INSIDE.address(plan.GATEWAY, family), 0))
        time.sleep(0.05)


OLDER = {
    "reason": {
        "kfree_skb": ("struct sk_buff *", "void *"),
        "tcp_send_reset": ("const struct sock *", "const struct sk_buff *"),
    },
    "drops": {"kfree_skb": ("struct sk_buff *", "void *", "enum skb_drop_reason")},
}


@pytest.mark.parametrize("lack", OLDER)
def test_an_older_kernels_tracepoints_are_read_and_the_lack_is_said(
    lack: str, closed_port: int, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older kernels hand over fewer arguments of the same; this kernel lets a program read only those."""
    arguments, enums = btf.tracepoint_arguments, btf.enumerators
    monkeypatch.setattr(btf, "tracepoint_arguments", lambda name: OLDER[lack].get(name, arguments(name)))
    monkeypatch.setattr(btf, "enumerators", lambda name: {} if lack == "reason" else enums(name))
    with netlab.capture(port=[closed_port, echo.port], drops=True) as capture:
        refused(closed_port, 4)
        echo.talk(4, 10)

    drops = capture.drops()
    refusal = drops[drops["dport"] == closed_port]
    assert refusal["kind"].tolist() == ["dropped"]
    assert refusal["reason"].isna().all() == (lack == "reason")
    assert lack in netlab.coverage(drops)["what"].tolist()
