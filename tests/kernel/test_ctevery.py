"""Real packets of every protocol, translated in every way, in zones and marked, against conntrack(8)."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cttext
import ctxml
import pytest
from between import Between, between, inside
from loopback import AF
from scapy.layers.l2 import GRE, GRE_PPTP
from scapy.layers.sctp import SCTP, SCTPChunkInit

import netlab
from netlab.kernel import netns

NET = Between(76)
SERVER = {4: "10.76.2.2", 6: "fd76:2::2"}
INWARD = {4: "10.76.1.1", 6: "fd76:1::1"}  # the router's address on the client's side
OUTWARD = {4: "10.76.2.1", 6: "fd76:2::1"}
CLIENT = {4: "10.76.1.2", 6: "fd76:1::2"}
FAMILIES = (4, 6)
# Ports say what happens: 4001 masquerade, 4002 snat, 4003 dnat, 4004 dnat and masquerade, 4005 hairpin.
TO = {4000: SERVER, 4001: SERVER, 4002: SERVER, 4003: INWARD, 4004: INWARD, 4005: OUTWARD}
KINDS = {4001: "masquerade", 4002: "snat", 4003: "dnat", 4004: "both", 4005: "hairpin"}
ZONED, ZONED_ONE_WAY, MARKED = 4010, 4011, 4012
PROTOCOLS = ("tcp", "udp", "udplite", "sctp")
UDPLITE, GRE_NUMBER, DCCP, UNNAMED, SCTP_NUMBER = 136, 47, 33, 99, 132
RULES = """
define ported = { tcp, udp, udplite, sctp }
table inet netlab_every {
    chain zones {
        type filter hook prerouting priority raw
        udp dport 4010 ct zone set 7
        udp sport 4010 ct zone set 7
        udp dport 4011 ct original zone set 8
    }
    chain marks {
        type filter hook prerouting priority mangle
        udp dport 4012 ct mark set 0x2a
        udp dport 4012 ct label set 5
    }
    chain targets {
        type nat hook prerouting priority dstnat
        ip daddr 10.76.1.1 meta l4proto $ported th dport 4003 dnat ip to 10.76.2.2:5003
        ip6 daddr fd76:1::1 meta l4proto $ported th dport 4003 dnat ip6 to [fd76:2::2]:5003
        ip daddr 10.76.1.1 meta l4proto $ported th dport 4004 dnat ip to 10.76.2.2:5004
        ip6 daddr fd76:1::1 meta l4proto $ported th dport 4004 dnat ip6 to [fd76:2::2]:5004
        ip daddr 10.76.2.1 meta l4proto $ported th dport 4005 dnat ip to 10.76.1.2:5005
        ip6 daddr fd76:2::1 meta l4proto $ported th dport 4005 dnat ip6 to [fd76:1::2]:5005
    }
    chain sources {
        type nat hook postrouting priority srcnat
        meta l4proto $ported th dport { 4001, 5004, 5005 } masquerade
        ip daddr 10.76.2.2 meta l4proto $ported th dport 4002 snat ip to 192.0.2.9
        ip6 daddr fd76:2::2 meta l4proto $ported th dport 4002 snat ip6 to 2001:db8::9
        meta l4proto { icmp, icmpv6 } masquerade
        meta l4proto gre masquerade
    }
}
"""
SETTINGS = (
    "net.netfilter.nf_conntrack_acct=1",
    "net.netfilter.nf_conntrack_timestamp=1",
    "net.netfilter.nf_conntrack_sctp_timeout_closed=3600",  # where an INIT without an answer is
    "net.netfilter.nf_conntrack_checksum=0",  # that of UDP-Lite is not right, and not 0
    *(
        f"net.netfilter.nf_conntrack_{kind}_timeout=3600"
        for kind in ("udp", "icmp", "icmpv6", "generic", "gre")
    ),
)


def connect(held: ExitStack, family: int, port: int) -> None:
    """Connect over TCP, to a server that listens where the translation leads; both ends stay open."""
    space = NET.client if port == 4005 else NET.server
    with netns.entered(space):
        end = (CLIENT if port == 4005 else SERVER)[family], port if port < 4003 else port + 1000
        held.enter_context(socket.create_server(end, family=AF[family]))
    with netns.entered(NET.client):
        client = held.enter_context(socket.socket(AF[family]))
    client.settimeout(10)
    client.connect((TO[port][family], port))
    client.sendall(b"hello")


def send(family: int, number: int, payload: bytes, target: str) -> None:
    """Send one packet of a protocol that sockets do not speak."""
    with netns.entered(NET.client), socket.socket(AF[family], socket.SOCK_RAW, number) as raw:
        raw.sendto(payload, (target, 0))


def udp(family: int, port: int, target: str) -> None:
    with netns.entered(NET.client), socket.socket(AF[family], socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (target, port))


def talk(held: ExitStack) -> None:
    for family, port in itertools.product(FAMILIES, TO):
        target = TO[port][family]
        connect(held, family, port)
        udp(family, port, target)
        lite = (30_000).to_bytes(2, "big") + port.to_bytes(2, "big") + b"\0\0\1\1lite"
        send(family, UDPLITE, lite, target)
        begin = SCTP(sport=30_001, dport=port, tag=0) / SCTPChunkInit(
            init_tag=1, n_out_streams=1, n_in_streams=1
        )
        send(family, SCTP_NUMBER, bytes(begin), target)
    for family in FAMILIES:
        for port in (ZONED, ZONED_ONE_WAY, MARKED):
            udp(family, port, SERVER[family])
        send(family, GRE_NUMBER, bytes(GRE(proto=0x0800)) + b"tunnelled", SERVER[family])
        send(family, GRE_NUMBER, bytes(GRE_PPTP(call_id=77, payload_len=4)) + b"pptp", SERVER[family])
        send(family, DCCP, bytes([0, 9, 0, 8]) + bytes(20), SERVER[family])
        send(family, UNNAMED, b"x", SERVER[family])
        protocol, request = ((socket.IPPROTO_ICMP, 8), (socket.IPPROTO_ICMPV6, 128))[family == 6]
        with netns.entered(NET.client), socket.socket(AF[family], socket.SOCK_DGRAM, protocol) as ping:
            ping.settimeout(10)
            ping.sendto(bytes([request, 0, 0, 0, 0, 0, 0, 1]), (SERVER[family], 0))
            ping.recv(100)


@pytest.fixture(scope="module")
def router() -> Iterator[str]:
    with between(NET.number), ExitStack() as held:
        inside(NET.router, "nft", "-f", "-", text=RULES)
        inside(NET.router, "sysctl", "-qw", *SETTINGS)
        talk(held)
        yield NET.router


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ctxml.label_names(tmp_path_factory.mktemp("etc"))


@pytest.fixture
def truth(router: str, etc: Path) -> dict[int, dict[str, Any]]:
    return cttext.listed(router, etc)


@pytest.mark.privileged
@pytest.mark.parametrize("column", cttext.COLUMNS)
def test_a_column_is_what_conntrack_says(router: str, truth: dict[int, dict[str, Any]], column: str) -> None:
    assert not cttext.differences(netlab.conntrack(netns=router), truth, column)


@pytest.mark.privileged
@pytest.mark.parametrize("column", ctxml.COLUMNS)
def test_a_column_is_what_the_xml_of_conntrack_says(router: str, etc: Path, column: str) -> None:
    assert not ctxml.differences(netlab.conntrack(netns=router), router, etc, column)


@pytest.mark.privileged
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_is_translated_in_each_way(router: str, protocol: str, family: int) -> None:
    found = netlab.nat(netns=router, protocol=protocol, family=family)

    kinds = dict(zip(found["dport"], found["kind"], strict=True))
    assert {port: kinds[port] for port in KINDS} == KINDS


@pytest.mark.privileged
def test_what_has_no_ports_is_there_in_both_families_as_well(router: str) -> None:
    frame = netlab.conntrack(netns=router)

    others = frame[~frame["protocol"].isin(PROTOCOLS)]
    assert set(zip(others["protocol"], others["family"], strict=True)) == {
        ("icmp", 4), ("icmpv6", 6), ("gre", 4), ("gre", 6), ("dccp", 4), ("dccp", 6), ("99", 4), ("99", 6),
    }  # fmt: skip
    masqueraded = others[others["nat"].notna()]
    assert set(masqueraded["protocol"]) == {"icmp", "icmpv6", "gre"}
    assert 77 in set(others.loc[others["protocol"] == "gre", "dport"])


@pytest.mark.privileged
@pytest.mark.parametrize("family", FAMILIES)
def test_zones_marks_and_labels_are_those_of_the_rules(router: str, family: int) -> None:
    frame = netlab.conntrack(netns=router, protocol="udp", family=family).set_index("dport")

    assert frame.loc[[ZONED, ZONED_ONE_WAY, MARKED], "zone"].tolist() == [7, 8, 0]
    assert frame.loc[ZONED_ONE_WAY, "zone_direction"] == "original"
    assert frame.loc[[ZONED, MARKED], "mark"].tolist() == [0, 42]
    assert frame.loc[MARKED, "labels"] == "5"


@pytest.mark.privileged
def test_timeouts_run_down_together(router: str, truth: dict[int, dict[str, Any]]) -> None:
    frame = netlab.conntrack(netns=router)

    left = dict(zip(frame["id"], frame["timeout_s"], strict=True))
    assert all(0 <= int(truth[key]["timeout_s"]) - left[key] <= 60 for key in truth)
