"""IP, UDP and TCP against scapy, an encoder and decoder that shares no code with ours."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, strategies as st
from scapy.layers import inet, inet6
from scapy.packet import Raw

from netlab.errors import DecodeError
from netlab.wire import ip, tcp, udp

bits16 = st.integers(0, 0xFFFF)
bits32 = st.integers(0, 2**32 - 1)
octet = st.integers(0, 255)
ports = st.tuples(st.integers(1, 0xFFFF), st.integers(1, 0xFFFF))
payloads = st.binary(max_size=40)
families = st.sampled_from([4, 6])


def addresses(family: int) -> st.SearchStrategy[bytes]:
    size = 4 if family == 4 else 16
    return st.binary(min_size=size, max_size=size)


pairs = families.flatmap(lambda family: st.tuples(addresses(family), addresses(family)))


def header(pair: tuple[bytes, bytes], protocol: int) -> ip.Header:
    source, destination = pair
    kind = ip.IPv4 if len(source) == 4 else ip.IPv6
    return kind(source=source, destination=destination, protocol=protocol, ttl=7)


def parsed(packet: bytes) -> Any:
    return inet.IP(packet) if packet[0] >> 4 == 4 else inet6.IPv6(packet)


def resealed(packet: bytes) -> bytes:
    """Return *packet* with every checksum as scapy computes it."""
    layers = parsed(packet)
    for layer in layers.layers():
        if "chksum" in layers[layer].fields:
            del layers[layer].chksum  # also forgets the bytes that scapy would otherwise send again
    return bytes(layers)


ipv4_headers = st.builds(
    ip.IPv4,
    source=addresses(4),
    destination=addresses(4),
    protocol=octet,
    ttl=octet,
    identification=bits16,
    tos=octet,
    flags_offset=bits16,
    options=st.just(b""),
)
ipv6_headers = st.builds(
    ip.IPv6,
    source=addresses(6),
    destination=addresses(6),
    protocol=octet,
    ttl=octet,
    traffic_class=octet,
    flow_label=st.integers(0, 0xFFFFF),
)
tcp_headers = st.builds(
    tcp.TCP,
    source_port=bits16,
    destination_port=bits16,
    sequence=bits32,
    acknowledgment=bits32,
    flags=octet.map(tcp.Flags),
    window=bits16,
    urgent=bits16,
    options=st.sampled_from([b"", b"\x02\x04\x05\xb4"]),
)


@given(ipv4_headers, payloads)
def test_scapy_reads_our_ipv4(ours: ip.IPv4, payload: bytes) -> None:
    packet = ours.encode(payload)
    theirs = inet.IP(packet)

    assert ipaddress.ip_address(theirs.src).packed == ours.source
    assert ipaddress.ip_address(theirs.dst).packed == ours.destination
    assert (theirs.proto, theirs.ttl, theirs.id) == (ours.protocol, ours.ttl, ours.identification)
    assert (theirs.tos, theirs.len) == (ours.tos, len(packet))
    assert int(theirs.flags) << 13 | theirs.frag == ours.flags_offset
    assert packet[:20] == resealed(packet[:20])
    assert ip.decode(packet) == (ours, payload)


@given(ipv6_headers, payloads)
def test_scapy_reads_our_ipv6(ours: ip.IPv6, payload: bytes) -> None:
    packet = ours.encode(payload)
    theirs = inet6.IPv6(packet[:40])  # scapy fails on extension headers that are cut off

    assert ipaddress.ip_address(theirs.src).packed == ours.source
    assert ipaddress.ip_address(theirs.dst).packed == ours.destination
    assert (theirs.nh, theirs.hlim, theirs.plen) == (ours.protocol, ours.ttl, len(payload))
    assert (theirs.fl, theirs.tc) == (ours.flow_label, ours.traffic_class)
    assert ip.decode(packet) == (ours, payload)


@given(pairs, ports, payloads)
def test_our_udp_is_what_scapy_seals(
    pair: tuple[bytes, bytes], both: tuple[int, int], payload: bytes
) -> None:
    datagram = udp.encode(*pair, both, payload)
    packet = header(pair, ip.UDP).encode(datagram)
    decoded, rest = udp.decode(datagram)

    assert packet == resealed(packet)
    assert (decoded.source_port, decoded.destination_port, rest) == (*both, payload)


@given(pairs, ports, st.integers(1, 0xFFFE))
def test_a_marked_datagram_is_valid_and_carries_its_mark_twice(
    pair: tuple[bytes, bytes], both: tuple[int, int], mark: int
) -> None:
    datagram = udp.encode_marked(*pair, both, mark)
    packet = header(pair, ip.UDP).encode(datagram)
    decoded, payload = udp.decode(datagram)

    assert packet == resealed(packet)
    assert (decoded.checksum,) == udp.mark(payload) == (mark,)


@given(pairs, tcp_headers, payloads)
def test_our_tcp_is_what_scapy_seals(pair: tuple[bytes, bytes], ours: tcp.TCP, payload: bytes) -> None:
    segment = ours.encode(*pair, payload)
    packet = header(pair, ip.TCP).encode(segment)
    start = tcp.decode_start(segment[:8])

    assert packet == resealed(packet)
    assert tcp.decode(segment) == (ours, payload)
    assert (start.source_port, start.destination_port) == (ours.source_port, ours.destination_port)
    assert start.sequence == ours.sequence


def test_padding_after_the_packet_is_cut_off() -> None:
    packet = bytes(inet.IP(src="192.0.2.1", dst="192.0.2.2", proto=17) / Raw(b"four"))

    assert ip.decode(packet + bytes(20))[1] == b"four"


def test_a_quote_that_promises_more_than_it_holds_gives_what_is_there() -> None:
    packet = bytes(inet.IP(src="192.0.2.1", dst="192.0.2.2") / inet.UDP() / Raw(bytes(100)))

    assert ip.decode(packet[:28])[1] == packet[20:28]


@pytest.mark.parametrize("size", range(20))
def test_a_header_cut_off_is_refused(size: int) -> None:
    packet = bytes(inet.IP(src="192.0.2.1", dst="192.0.2.2"))

    with pytest.raises(DecodeError):
        ip.decode(packet[:size])


@given(st.binary(max_size=120))
def test_hostile_bytes_give_a_value_or_a_decode_error(data: bytes) -> None:
    for decode in (ip.decode, udp.decode, tcp.decode, tcp.decode_start):
        try:
            decode(data)
        except DecodeError as error:
            assert str(error)  # noqa: PT017 - both outcomes are right, any other exception is not


@given(st.lists(st.tuples(bits32, bits32), min_size=1, max_size=4))
def test_scapy_reads_our_sack_blocks(blocks: list[tuple[int, int]]) -> None:
    options = tcp.encode_options((tcp.SACK, tcp.encode_sack(blocks)))
    segment = tcp.TCP(
        source_port=1,
        destination_port=2,
        sequence=3,
        acknowledgment=4,
        flags=tcp.Flags.ACK,
        window=5,
        options=options,
    ).encode(bytes(4), bytes(4))
    flat = tuple(edge for block in blocks for edge in block)

    assert ("SAck", flat) in inet.TCP(segment).options
    assert tcp.decode_options(options) == {tcp.SACK: tcp.encode_sack(blocks)}


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        tcp.encode_options((tcp.SACK, bytes(40)))


@given(st.binary(max_size=40))
def test_hostile_options_are_read_without_an_error(data: bytes) -> None:
    assert all(len(value) <= len(data) for value in tcp.decode_options(data).values())
