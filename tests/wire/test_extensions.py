"""ICMP extensions against scapy, which reads and writes RFC 4884 and RFC 4950 by itself."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from scapy.contrib.mpls import MPLS, ICMPExtension_MPLS
from scapy.layers import inet, inet6

from netlab.errors import DecodeError
from netlab.wire import extensions, icmp, ip

V6 = (bytes(15) + b"\x01", bytes(15) + b"\x02")

labels = st.lists(
    st.builds(extensions.Label, st.integers(0, 2**20 - 1), st.integers(0, 7), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


def entries_scapy_reads(stack: list[MPLS]) -> list[tuple[int, int, int, int]]:
    """Return (label, class, bottom of stack, TTL) of each entry."""
    layers = [entry for top in stack for entry in top.iterpayloads() if isinstance(entry, MPLS)]
    return [(entry.label, entry.cos, entry.s, entry.ttl) for entry in layers]


def entries_of(stack: list[extensions.Label]) -> list[tuple[int, int, int, int]]:
    last = len(stack) - 1
    return [(e.label, e.traffic_class, int(i == last), e.ttl) for i, e in enumerate(stack)]


@given(labels, st.binary(min_size=28, max_size=200))
def test_scapy_reads_the_label_stack_of_our_icmp_error(stack: list[extensions.Label], rest: bytes) -> None:
    quoted = bytes(inet.IP(src="192.0.2.1", dst="192.0.2.9", ttl=1) / inet.UDP(dport=33434) / rest)
    message = extensions.extended(
        icmp.error(4, icmp.Error.TIME_EXCEEDED, quoted), [extensions.encode_labels(stack)]
    )
    theirs = inet.ICMP(message.encode(b"", b""))

    assert theirs.length * 4 == 128
    assert entries_scapy_reads(theirs[ICMPExtension_MPLS].stack) == entries_of(stack)
    assert extensions.split(message) == (quoted[:128].ljust(128, b"\0"), [extensions.encode_labels(stack)])


@given(labels)
def test_we_read_the_label_stack_of_scapys_icmp_error(stack: list[extensions.Label]) -> None:
    entries = [MPLS(label=e.label, cos=e.traffic_class, s=0, ttl=e.ttl) for e in stack]
    quoted = inet.IP(src="192.0.2.1", dst="192.0.2.9", ttl=1) / inet.UDP(dport=33434) / bytes(100)
    packet = inet.ICMP(type=11, ext=inet.ICMPExtension_Header() / ICMPExtension_MPLS(stack=entries)) / bytes(
        quoted
    )

    _, objects = extensions.split(icmp.decode(4, bytes(packet)))

    assert extensions.decode_labels(objects) == stack


@given(labels)
def test_the_length_of_an_icmpv6_error_counts_words_of_eight_bytes(stack: list[extensions.Label]) -> None:
    quoted = ip.IPv6(source=V6[0], destination=V6[1], protocol=17, ttl=1).encode(bytes(8))
    message = extensions.extended(
        icmp.error(6, icmp.Error.TIME_EXCEEDED, quoted), [extensions.encode_labels(stack)]
    )
    packet = ip.IPv6(source=V6[0], destination=V6[1], protocol=58, ttl=64).encode(message.encode(*V6))
    theirs = inet6.IPv6(packet)[inet6.ICMPv6TimeExceeded]

    assert theirs.length * 8 == 128
    _, objects = extensions.split(icmp.decode(6, packet[40:]))
    assert extensions.decode_labels(objects) == stack


def test_extensions_without_a_length_are_found_after_128_bytes() -> None:
    structure = extensions.extended(
        icmp.error(4, icmp.Error.TIME_EXCEEDED, bytes(28)),
        [extensions.encode_labels([extensions.Label(99)])],
    ).body[128:]
    message = icmp.error(4, icmp.Error.TIME_EXCEEDED, bytes(128) + structure)

    assert extensions.decode_labels(extensions.split(message)[1]) == [extensions.Label(99)]


def test_a_long_quote_without_extensions_stays_whole() -> None:
    message = icmp.error(4, icmp.Error.TIME_EXCEEDED, bytes(range(200)))

    assert extensions.split(message) == (bytes(range(200)), [])


def test_the_mtu_of_a_packet_too_big_is_no_length() -> None:
    message = icmp.error(6, icmp.Error.PACKET_TOO_BIG, bytes(60), mtu_bytes=0x11000000)

    assert extensions.split(message) == (bytes(60), [])


@given(
    st.sampled_from([4, 6]), st.integers(0, 255), st.binary(min_size=4, max_size=4), st.binary(max_size=200)
)
def test_hostile_extensions_give_objects_or_a_decode_error(
    family: int, kind: int, rest: bytes, body: bytes
) -> None:
    message = icmp.Message(family=family, type=kind, code=0, rest=rest, body=body)
    try:
        extensions.decode_labels(extensions.split(message)[1])
    except DecodeError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right, any other exception is not


def test_a_fragmentation_needed_has_no_room_for_extensions() -> None:
    with pytest.raises(ValueError, match="no room"):
        extensions.extended(icmp.error(4, icmp.Error.FRAGMENTATION_NEEDED, bytes(28)), [])
