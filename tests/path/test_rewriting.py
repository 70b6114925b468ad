"""What a quote shows to have been rewritten; the rewriting is done by scapy."""

from __future__ import annotations

from typing import Any

import pytest
from flows import flow
from scapy.layers import inet, inet6

from netlab.path.probes import Protocol
from netlab.path.rewriting import rewritten
from netlab.wire import icmp

MARK = 4711
both = pytest.mark.parametrize("family", [4, 6])
kinds = pytest.mark.parametrize("protocol", list(Protocol))


def quote_of(packet: bytes, size: int = 1000) -> icmp.Quote:
    family = packet[0] >> 4
    body = packet[: {4: 20, 6: 40}[family] + size]
    return icmp.quote(icmp.error(family, icmp.Error.TIME_EXCEEDED, body))


def parsed(protocol: Protocol, family: int) -> Any:
    packet = flow(protocol, family).packet(1, MARK)
    return inet.IP(packet) if family == 4 else inet6.IPv6(packet)


@both
@kinds
@pytest.mark.parametrize("size", [8, 1000])
def test_an_intact_quote_shows_nothing(protocol: Protocol, family: int, size: int) -> None:
    probe = flow(protocol, family)

    assert rewritten(probe, MARK, quote_of(probe.packet(1, MARK), size)) == ""


@both
@pytest.mark.parametrize("protocol", [Protocol.UDP, Protocol.TCP])
def test_a_translated_source_shows_with_its_checksum(protocol: Protocol, family: int) -> None:
    packet = parsed(protocol, family)
    packet.src = "203.0.113.7" if family == 4 else "2001:db8:7::7"
    packet.payload.sport = 6000
    del packet.payload.chksum

    assert rewritten(flow(protocol, family), MARK, quote_of(bytes(packet))) == "source, source-port, checksum"


@pytest.mark.parametrize(("field", "value", "word"), [("id", 99, "id"), ("src", "203.0.113.7", "source")])
def test_fields_of_the_ipv4_header_show(field: str, value: object, word: str) -> None:
    packet = parsed(Protocol.UDP, 4)
    setattr(packet, field, value)

    assert rewritten(flow(Protocol.UDP), MARK, quote_of(bytes(packet))) == word


def test_another_flow_label_shows() -> None:
    packet = parsed(Protocol.UDP, 6)
    packet.fl ^= 1

    assert rewritten(flow(Protocol.UDP, 6), MARK, quote_of(bytes(packet))) == "flow-label"


def test_what_routers_change_on_every_packet_is_not_rewriting() -> None:
    packet = parsed(Protocol.UDP, 4)
    packet.ttl, packet.tos = 0, 4
    del packet.chksum

    assert rewritten(flow(Protocol.UDP), MARK, quote_of(bytes(packet))) == ""
