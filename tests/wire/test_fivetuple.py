"""Packets as scapy builds them."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.packet import Packet

from netlab.wire import fivetuple

V4 = IP(src="192.0.2.1", dst="192.0.2.2")
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
SYN = TCP(sport=40000, dport=443, flags="S")
DATA = UDP(sport=40000, dport=443) / b"x"


@pytest.mark.parametrize(
    ("linktype", "packet"),
    [
        (1, Ether() / V4 / SYN),
        (1, Ether() / Dot1Q(vlan=5) / V4 / SYN),
        (1, Ether() / Dot1AD(vlan=7) / Dot1Q(vlan=5) / V4 / SYN),
        (101, V4 / SYN),
        (228, V4 / SYN),
        (0, Loopback() / V4 / SYN),
        (113, CookedLinux(proto=0x0800) / V4 / SYN),
        (276, CookedLinuxV2(proto=0x0800) / V4 / SYN),
        (101, IP(src="192.0.2.1", dst="192.0.2.2", options=[IPOption_NOP()] * 4) / SYN),
    ],
)
def test_a_tcp_packet_of_any_link_has_its_tuple(linktype: int, packet: Packet) -> None:
    found = fivetuple.of_packet(linktype, bytes(packet))

    source, destination = (socket.inet_aton(f"192.0.2.{last}") for last in (1, 2))
    assert found == (6, source, 40000, destination, 443, True)


@pytest.mark.parametrize(
    "packet",
    [V6 / DATA, V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / DATA, V6 / IPv6ExtHdrFragment() / DATA],
)
def test_an_ipv6_datagram_has_its_tuple_behind_extension_headers(packet: Packet) -> None:
    found = fivetuple.of_packet(101, bytes(packet))

    source, destination = (socket.inet_pton(socket.AF_INET6, f"2001:db8::{last}") for last in (1, 2))
    assert found == (17, source, 40000, destination, 443, False)


@pytest.mark.parametrize(
    "packet",
    [
        Ether() / ARP(),
        Ether() / V4 / ICMP(),
        Ether() / IP(frag=5) / DATA,
        Ether() / V6 / IPv6ExtHdrFragment(offset=5) / DATA,
    ],
)
def test_what_has_no_ports_has_no_tuple(packet: Packet) -> None:
    assert fivetuple.of_packet(1, bytes(packet)) is None


@given(st.sampled_from([0, 1, 101, 108, 113, 276, 999]), st.binary(max_size=80))
def test_any_bytes_have_a_tuple_or_none(linktype: int, data: bytes) -> None:
    assert fivetuple.of_packet(linktype, data) is None or len(data) >= 20
