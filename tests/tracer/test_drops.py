"""What the kernel drops, and says why: real sockets and firewalls do it, drops.toml has the rows to expect."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from loopback import LINGER_0, LOOPBACK, Echo
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

import netlab
from netlab.kernel import btf
from netlab.lab import plan
from netlab.lab.host import Host
from netlab.lab.network import PracticeNetwork
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged
CASES = tomllib.loads(Path(__file__).with_name("drops.toml").read_text())["case"]
RUNS = [(case, family) for case in CASES for family in case.get("families", plan.FAMILIES)]
TCP_SYNCNT, IPV6_HOPS = 7, 16  # include/uapi/linux/tcp.h, in6.h
ELSEWHERE = "198.18.5.99"  # of a network that the gateway reaches another way


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
        header = IP(src=self.here, dst=self.gateway) if self.family == 4 else IPv6(src=self.here, dst=self.gateway)
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
    with at.socket(at.net.gateway, socket.SOCK_DGRAM) as server, at.socket(at.net.client, socket.SOCK_DGRAM) as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind((at.gateway, at.port))
        for _ in range(50):
            client.sendto(bytes(1000), (at.gateway, at.port))
        time.sleep(0.05)


def counted(host: Host, name: str, port: int) -> int:
    """Return what nft or the kernel's own statistics have counted on *host*."""
    if name == "nft":
        listed = json.loads(host.run(["nft", "-j", "list", "ruleset"], check=True).stdout)["nftables"]
        rules = [each["rule"] for each in listed if "rule" in each]
        mine = [rule for rule in rules if rule["table"] == f"case{port}"]
        return sum(part["counter"]["packets"] for rule in mine for part in rule["expr"] if "counter" in part)
    with host.entered():
        files = {file: Path(f"/proc/thread-self/net/{file}").read_text() for file in ("snmp", "netstat", "snmp6")}
    if "." not in name:
        return int(dict(line.split() for line in files["snmp6"].splitlines())[name])
    group, counter = name.split(".")
    names, values = (
        line.split()
        for line in (files["snmp"] + files["netstat"]).splitlines()
        if line.startswith(f"{group}:")
    )
    return int(dict(zip(names, values, strict=True))[counter])


@pytest.mark.parametrize(
    ("number", "case", "family"),
    [(number, *run) for number, run in enumerate(RUNS)],
    ids=[f"{case['what']}-{family}" for case, family in RUNS],
)
def test_the_rows_say_what_was_dropped_where_and_why(
    net: PracticeNetwork, capture: Capture, number: int, case: dict[str, Any], family: plan.Family
) -> None:
    what: Callable[[Place], None] = globals()[case["what"]]
    host, port = net.hosts[case["at"]], 20_000 + number
    counter = case.get("counter6", case.get("counter")) if family == 6 else case.get("counter")
    before = counted(host, counter, port) if counter else 0
    with contextlib.ExitStack() as kept:
        what(Place(net, family, port, kept))
        drops, after = capture.drops(), counted(host, counter, port) if counter else 0

    mine = drops[(drops["sport"] == port) | (drops["dport"] == port)]
    rows = mine[mine["netns"] == host.inode]
    expected = case["rows"]
    assert told(rows, expected) == expected
    if counter:
        assert rows["packets"].iloc[0] == after - before
    if "says" in case:
        attempts = capture.failures()
        attempt = attempts[attempts["remote_port"] == port].squeeze()
        assert attempt["reason"].endswith(case["says"].format(netns=host.inode))
        assert attempt["cookie"] in mine["cookie"].tolist()


def told(frame: pd.DataFrame, expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the columns of each row that are expected of it."""
    rows = frame.astype(object).where(frame.notna(), "NA").to_dict("records")
    assert len(rows) == len(expected), frame[["kind", "reason", "location", "tcp_flags", "packets"]]
    return [{name: row[name] for name in wanted} for row, wanted in zip(rows, expected, strict=True)]
