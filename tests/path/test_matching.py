"""Which probe an answer is for; routers' quotes and targets' answers are made with scapy."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from flows import KINDS, SALT, ends, flow
from hypothesis import given, strategies as st
from scapy.layers import inet, inet6
from scapy.packet import Packet

from netlab.errors import DecodeError
from netlab.path.matching import Match, Register
from netlab.path.probes import MARKS, Protocol
from netlab.wire import icmp

marks = st.integers(1, MARKS)
kinds = pytest.mark.parametrize("protocol", KINDS)
families = pytest.mark.parametrize("family", [4, 6])
FLOWS = (0, 1, 255)


def register(
    protocol: Protocol = Protocol.UDP, family: int = 4, sent: tuple[int, ...] = (77,), **changes: Any
) -> Register:
    """Return a register of three flows, the *sent* marks of each."""
    found = Register()
    for number in FLOWS:
        found.add(flow(protocol, family, number=number, **changes))
        for mark in sent:
            found.sent(number, mark)
    return found


def probe(protocol: Protocol, family: int, number: int = 0, mark: int = 77, **changes: Any) -> bytes:
    return flow(protocol, family, number=number, **changes).packet(3, mark)


def answer_of(ours: Register, data: bytes) -> Match | None:
    found = ours.answers(data)
    assert len(found) <= 1
    return found[0] if found else None


def scapy(packet: bytes) -> Packet:
    return inet.IP(packet) if packet[0] >> 4 == 4 else inet6.IPv6(packet)


EXPIRED = icmp.Error.TIME_EXCEEDED


def quoted(packet: bytes, size: int = 1000) -> icmp.Quote:
    """Return what a router quotes of *packet* with *size* bytes behind the IP header."""
    family = 6 if packet[:1] >= b"\x60" else 4
    body = packet[: {4: 20, 6: 40}[family] + size]
    return icmp.quote(icmp.error(family, EXPIRED, body))


@kinds
@families
def test_what_a_nat_left_in_a_quote_may_be_the_ports_of_another_flow(protocol: Protocol, family: int) -> None:
    ours = Register()
    for number, mark in ((0, 5), (1, 77)):
        ours.add(flow(protocol, family, number=number))
        ours.sent(number, mark)
    header = {4: 20, 6: 40}[family]
    packet = probe(protocol, family, number=1)
    rewritten = packet[:header] + ours.flows[0].key + packet[header + 4 :]

    assert ours.error(EXPIRED, quoted(rewritten)) == Match(EXPIRED.value, 1, 77)


@kinds
@families
@given(mark=marks, number=st.sampled_from(FLOWS))
def test_eight_quoted_bytes_tell_the_flow_and_the_probe(
    protocol: Protocol, family: int, mark: int, number: int
) -> None:
    found = register(protocol, family, (mark,)).error(
        EXPIRED, quoted(probe(protocol, family, number, mark), 8)
    )

    assert found == Match("time-exceeded", number, mark)


@kinds
@families
@pytest.mark.parametrize(
    "strange",
    [
        {"number": 2},
        {"target": ends(4)[0]},
        {"target": ends(6)[0]},
        {"salt": SALT ^ 1, "source_port": 1, "checksum": 1},
        {"source_port": 1, "port": 444, "identifier": 1, "checksum": 1, "salt": 1},
        {"mark": 78},
    ],
    ids=str,
)
def test_a_packet_of_somebody_else_fits_no_probe(
    protocol: Protocol, family: int, strange: dict[str, Any]
) -> None:
    known = {field.name for field in dataclasses.fields(flow(protocol, family))} | {"mark"}
    given = {name: value for name, value in strange.items() if name in known}
    if len(given.get("target", ends(family)[0])) != len(ends(family)[0]):
        given["target"] = ends(family)[0]
    theirs = probe(protocol, family, **given)

    assert register(protocol, family).error(EXPIRED, quoted(theirs, 8)) is None
    assert register(protocol, family).error(EXPIRED, quoted(theirs)) is None


@families
def test_a_packet_of_another_protocol_fits_no_probe(family: int) -> None:
    assert register(Protocol.TCP, family).error(EXPIRED, quoted(probe(Protocol.UDP, family))) is None


@kinds
@families
def test_another_trace_with_the_same_ports_is_told_by_its_salt(protocol: Protocol, family: int) -> None:
    theirs = probe(protocol, family, salt=1, **({"identifier": 1} if protocol is Protocol.ICMP else {}))
    found = register(protocol, family).error(EXPIRED, quoted(theirs))

    assert found is None or (protocol, family) == (Protocol.TCP, 4)  # the identification still says 77


@kinds
@families
def test_a_nat_that_leaves_its_address_and_port_in_the_quote_hides_nothing(
    protocol: Protocol, family: int
) -> None:
    packet = scapy(probe(protocol, family))
    packet.src = "203.0.113.1" if family == 4 else "2001:db8:5::1"
    if protocol is Protocol.ICMP:
        packet.payload.id = 9
    else:
        packet.payload.sport = 1024
    for name in ("chksum", "cksum"):
        if name in packet.payload.fields:
            delattr(packet.payload, name)
    translated = bytes(packet)

    assert translated[-40:] != probe(protocol, family)[-40:]
    assert register(protocol, family).error(EXPIRED, quoted(translated)) == Match("time-exceeded", 0, 77)


@pytest.mark.parametrize(("family", "size"), [(4, 8), (6, 12)])
def test_a_nat_that_forgets_the_checksum_in_the_quote_hides_nothing(family: int, size: int) -> None:
    packet = scapy(probe(Protocol.UDP, family))
    packet[inet.UDP].chksum = 4242

    assert register(Protocol.UDP, family).error(EXPIRED, quoted(bytes(packet), size)) == Match(
        "time-exceeded", 0, 77
    )


def test_a_router_that_rewrites_the_identification_hides_nothing() -> None:
    packet = scapy(probe(Protocol.UDP, 4))
    packet.id = 4242

    assert register().error(EXPIRED, quoted(bytes(packet), 8)) == Match("time-exceeded", 0, 77)


def test_a_quote_whose_places_speak_for_two_probes_is_no_answer() -> None:
    packet = scapy(probe(Protocol.UDP, 4))
    packet.id = 78

    assert register(sent=(77, 78)).error(EXPIRED, quoted(bytes(packet), 8)) is None
    assert register(sent=(77, 78)).error(EXPIRED, quoted(bytes(packet), 12)) == Match("time-exceeded", 0, 77)


@pytest.mark.parametrize(
    ("flags", "acknowledged", "reply"),
    [
        ("SA", 0xBEEF0000 + 77 + 1, "syn-ack"),
        ("RA", 0xBEEF0000 + 77 + 1, "rst"),
        ("SA", 0xDEAD0000 + 77 + 1, None),  # another trace's
        ("S", 0, None),
    ],
)
def test_a_segment_of_the_target_is_taken_by_what_it_acknowledges(
    flags: str, acknowledged: int, reply: str | None
) -> None:
    answer = bytes(inet.TCP(sport=443, dport=50_000, flags=flags, ack=acknowledged))

    assert answer_of(register(Protocol.TCP), answer) == (Match(reply, 0, 77) if reply else None)


def test_a_challenge_is_no_answer_to_the_probe_that_it_acknowledges() -> None:
    ours = bytes(inet.TCP(sport=443, dport=50_001, flags="A", ack=0xBEF00000 + 77 + 1))
    strange = bytes(inet.TCP(sport=443, dport=50_001, flags="A", ack=0xDEAD0000 + 77 + 1))

    assert answer_of(register(Protocol.TCP), ours) == Match("challenge-ack", 1, None)
    assert answer_of(register(Protocol.TCP), strange) is None


def test_a_reset_that_acknowledges_nothing_is_for_some_probe_of_the_flow() -> None:
    answer = bytes(inet.TCP(sport=443, dport=50_001, flags="R"))

    assert answer_of(register(Protocol.TCP), answer) == Match("rst", 1, None)


@pytest.mark.parametrize("ports", [(444, 50_000), (443, 50_002), (443, 1)])
@pytest.mark.parametrize("kind", [inet.TCP, inet.UDP])
def test_what_comes_between_other_ports_is_not_taken(ports: tuple[int, int], kind: Any) -> None:
    fields = {"flags": "SA", "ack": 0xBEEF0000 + 78} if kind is inet.TCP else {}
    answer = bytes(kind(sport=ports[0], dport=ports[1], **fields) / bytes(20))

    assert answer_of(register(Protocol.TCP if kind is inet.TCP else Protocol.UDP), answer) is None


@pytest.mark.parametrize(("payload", "mark"), [(b"\0\x4d", None), (b"\0\x4d\0\0rest", 77), (b"hello", None)])
def test_a_datagram_of_the_target_may_begin_as_the_probe_did(payload: bytes, mark: int | None) -> None:
    answer = bytes(inet.UDP(sport=443, dport=50_001) / payload)

    assert answer_of(register(), answer) == Match("udp-reply", 1, mark)


@families
@pytest.mark.parametrize("number", FLOWS)
def test_an_echo_reply_is_taken_by_what_it_sends_back(family: int, number: int) -> None:
    request = bytearray(scapy(probe(Protocol.ICMP, family, number)).payload.build())
    assert answer_of(register(Protocol.ICMP, family), bytes(request)) is None  # on loopback we hear it, too
    request[0] = {4: 0, 6: 129}[family]

    assert answer_of(register(Protocol.ICMP, family), bytes(request)) == Match("echo-reply", number, 77)
    assert answer_of(register(Protocol.ICMP, family), bytes(request[:8])) is None
    assert answer_of(register(Protocol.ICMP, family, salt=1), bytes(request)) is None


def test_no_flow_no_answer() -> None:
    assert Register().error(EXPIRED, quoted(probe(Protocol.UDP, 4))) is None
    assert Register().answers(bytes(20)) == []


@given(st.binary(max_size=80), st.sampled_from(KINDS), st.sampled_from([4, 6]))
def test_hostile_bytes_fit_nothing(data: bytes, protocol: Protocol, family: int) -> None:
    ours = register(protocol, family)
    start = probe(protocol, family)[: {4: 20, 6: 40}[family]]
    for read in (
        lambda: ours.error(EXPIRED, quoted(data)),
        lambda: ours.error(EXPIRED, quoted(start + data)),
        lambda: answer_of(ours, data),
    ):
        try:
            assert read() is None
        except DecodeError as error:
            assert str(error)  # noqa: PT017 - both outcomes are right, any other exception is not
