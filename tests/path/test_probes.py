"""What probes carry and which answers they accept; routers' quotes are made with scapy."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, strategies as st
from scapy.layers import inet, inet6

from netlab.errors import DecodeError
from netlab.path.probes import MARKS, Flow, Protocol
from netlab.wire import icmp, ip, udp

marks = st.integers(1, MARKS)
kinds = pytest.mark.parametrize("protocol", list(Protocol))
families = pytest.mark.parametrize("family", [4, 6])


def flow(protocol: Protocol = Protocol.UDP, family: int = 4, **changes: Any) -> Flow:
    ends = ("192.0.2.1", "198.51.100.9") if family == 4 else ("2001:db8::1", "2001:db8:9::9")
    source, target = (ipaddress.ip_address(end).packed for end in ends)
    fields = {"source": source, "target": target, "source_port": 50_000, "port": 443, "salt": 0xBEEF}
    return Flow(protocol=protocol, **{**fields, **changes})


def quoted(packet: bytes, size: int) -> icmp.Quote:
    """Return the quote of *packet* with only *size* bytes behind the IP header."""
    family = packet[0] >> 4
    header = 20 if family == 4 else 40
    kind = 11 if family == 4 else 3
    body = packet[: header + size]
    return icmp.quote(icmp.Message(family=family, type=kind, code=0, rest=bytes(4), body=body))


@kinds
@families
@given(mark=marks, ttl=st.integers(1, 255))
def test_eight_quoted_bytes_tell_the_probe(protocol: Protocol, family: int, mark: int, ttl: int) -> None:
    probed = flow(protocol, family)

    assert probed.quoted(quoted(probed.packet(ttl, mark), 8))[0] == mark


@kinds
@families
@given(mark=marks, ttl=st.integers(1, 255))
def test_what_load_balancers_hash_is_the_same_for_every_probe(
    protocol: Protocol, family: int, mark: int, ttl: int
) -> None:
    first, other = (hashed(flow(protocol, family).packet(*given)) for given in ((1, 1), (ttl, mark)))

    assert first == other


def hashed(packet: bytes) -> tuple[Any, ...]:
    layers = inet.IP(packet) if packet[0] >> 4 == 4 else inet6.IPv6(packet)
    label = layers.fl if isinstance(layers, inet6.IPv6) else None
    traffic_class = layers.tc if isinstance(layers, inet6.IPv6) else layers.tos
    ports = layers.payload.sport, layers.payload.dport
    return layers.src, layers.dst, label, traffic_class, type(layers.payload), ports, len(packet)


@kinds
@families
def test_probes_are_packets_that_scapy_seals_the_same_way(protocol: Protocol, family: int) -> None:
    packet = flow(protocol, family).packet(5, 4711)

    assert bytes(unsealed(packet)) == packet


@kinds
@families
@pytest.mark.parametrize(
    "change", [{"source_port": 50_001}, {"port": 444}, {"target": None}, {"protocol": None}], ids=str
)
def test_a_packet_of_another_flow_fits_no_probe(
    protocol: Protocol, family: int, change: dict[str, Any]
) -> None:
    ours = flow(protocol, family)
    if "protocol" in change:
        theirs = flow(Protocol.TCP if protocol is Protocol.UDP else Protocol.UDP, family)
    elif "target" in change:
        theirs = flow(protocol, family, target=ours.source)
    else:
        theirs = flow(protocol, family, **change)

    assert ours.quoted(quoted(theirs.packet(3, 77), 8)) == ()


def unsealed(packet: bytes) -> Any:
    """Return *packet* as scapy's, which computes all checksums anew."""
    layers = inet.IP(packet) if packet[0] >> 4 == 4 else inet6.IPv6(packet)
    for layer in layers.layers():
        if "chksum" in layers[layer].fields:
            del layers[layer].chksum
    return layers


@pytest.mark.parametrize(("family", "address", "size"), [(4, "203.0.113.1", 8), (6, "2001:db8:5::1", 12)])
def test_a_nat_that_leaves_its_address_and_checksum_in_the_quote_hides_nothing(
    family: int, address: str, size: int
) -> None:
    translated = unsealed(flow(family=family).packet(3, 77))
    translated.src = address
    quote = quoted(bytes(translated), size)

    assert udp.decode(quote.transport)[0].checksum != 77
    assert flow(family=family).quoted(quote)[0] == 77


def test_a_sequence_number_of_another_trace_is_not_taken() -> None:
    packet = flow(Protocol.TCP, 6, salt=1).packet(3, 77)

    assert flow(Protocol.TCP, 6, salt=2).quoted(quoted(packet, 8)) == ()


@pytest.mark.parametrize(
    ("flags", "acknowledged", "meaning"),
    [
        ("SA", 0xBEEF0000 + 77 + 1, ("syn-ack", (77,))),
        ("RA", 0xBEEF0000 + 77 + 1, ("rst", (77,))),
        ("A", 0xBEEF0000 + 77 + 1, None),  # a challenge
        ("R", 0, None),  # acknowledges nothing
        ("SA", 0xDEAD0000 + 77 + 1, None),  # another trace's
        ("S", 0, None),
    ],
)
def test_a_segment_of_the_target_is_taken_by_what_it_acknowledges(
    flags: str, acknowledged: int, meaning: object
) -> None:
    answer = bytes(inet.TCP(sport=443, dport=50_000, flags=flags, ack=acknowledged))

    assert flow(Protocol.TCP).segment(answer) == meaning


def test_a_segment_between_other_ports_is_not_taken() -> None:
    answer = bytes(inet.TCP(sport=444, dport=50_000, flags="SA", ack=0xBEEF0000 + 78))

    assert flow(Protocol.TCP).segment(answer) is None


def test_the_flow_label_is_set_and_follows_the_five_tuple() -> None:
    label = flow(family=6).label

    assert 0 < label < 2**20
    assert flow(family=6).label == label != flow(family=6, source_port=50_001).label


@given(st.binary(max_size=40), st.sampled_from(list(Protocol)))
def test_hostile_transport_bytes_give_marks_or_a_decode_error(data: bytes, protocol: Protocol) -> None:
    number = ip.TCP if protocol is Protocol.TCP else ip.UDP
    header = ip.IPv4(source=bytes(4), destination=flow().target, protocol=number, ttl=1)
    for read in (
        lambda: flow(protocol).quoted(icmp.Quote(header, data)),
        lambda: flow(protocol).segment(data),
    ):
        try:
            read()
        except DecodeError as error:
            assert str(error)  # noqa: PT017 - both outcomes are right, any other exception is not
