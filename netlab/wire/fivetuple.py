"""The five-tuple of a captured packet, by its link type (https://www.tcpdump.org/linktypes.html)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from netlab.wire import ip

_NULL, _ETHERNET, _LOOP, _SLL, _SLL2 = 0, 1, 108, 113, 276
_RAW = {12, 14, 101, 228, 229}  # the packet itself
_ETHERTYPES = {0x0800, 0x86DD}
_VLAN = {0x8100, 0x88A8, 0x9100}
_TCP_SYN = 0x02
_EXTENSIONS = {0, 43, 60}  # hop-by-hop options, routing, destination options


class FiveTuple(NamedTuple):
    """Who sent a TCP segment or UDP datagram to whom; addresses are network-order bytes."""

    protocol: int
    source: bytes
    sport: int
    destination: bytes
    dport: int
    is_syn: bool  # TCP: the packet begins a connection or answers that


def of_packet(linktype: int, data: bytes) -> FiveTuple | None:
    """Return the outermost five-tuple of a packet; None of other protocols, later fragments and cut ones."""
    try:
        packet = _without_link(linktype, data)
        if not packet:
            return None
        return _of_ipv4(packet) if packet[0] >> 4 == 4 else _of_ipv6(packet) if packet[0] >> 4 == 6 else None
    except (IndexError, struct.error):  # cut off before its ports
        return None


def _without_link(linktype: int, data: bytes) -> bytes:
    if linktype in _RAW:
        return data
    if linktype in {_NULL, _LOOP}:
        return data[4:]
    if linktype == _ETHERNET:
        return _after_ethertype(data, 12, 14)
    if linktype == _SLL:
        return _after_ethertype(data, 14, 16)
    return _after_ethertype(data, 0, 20) if linktype == _SLL2 else b""


def _after_ethertype(data: bytes, place: int, begin: int) -> bytes:
    (kind,) = struct.unpack_from("!H", data, place)
    while kind in _VLAN:  # a tag: two bytes of it, then the type of what follows
        (kind,) = struct.unpack_from("!H", data, begin + 2)
        begin += 4
    return data[begin:] if kind in _ETHERTYPES else b""


def _of_ipv4(packet: bytes) -> FiveTuple | None:
    (fragment,) = struct.unpack_from("!H", packet, 6)
    if fragment & 0x1FFF:
        return None
    return _of_transport(packet[9], packet[12:16], packet[16:20], packet[(packet[0] & 0xF) * 4 :])


def _of_ipv6(packet: bytes) -> FiveTuple | None:
    protocol, rest = packet[6], packet[40:]
    while protocol in _EXTENSIONS or protocol == ip.FRAGMENT:
        if protocol == ip.FRAGMENT:
            if struct.unpack_from("!H", rest, 2)[0] & 0xFFF8:
                return None
            size = 8
        else:
            size = 8 + rest[1] * 8
        protocol, rest = rest[0], rest[size:]
    return _of_transport(protocol, packet[8:24], packet[24:40], rest)


def _of_transport(protocol: int, source: bytes, destination: bytes, rest: bytes) -> FiveTuple | None:
    if protocol not in {ip.TCP, ip.UDP}:
        return None
    sport, dport = struct.unpack_from("!HH", rest)
    is_syn = protocol == ip.TCP and bool(rest[13] & _TCP_SYN)
    return FiveTuple(protocol, source, sport, destination, dport, is_syn)
