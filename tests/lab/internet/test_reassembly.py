"""Fragments made by scapy are put together to what they were, in any order."""

from __future__ import annotations

from hypothesis import given, strategies as st
from scapy.layers import inet, inet6
from shapes import parsed

from netlab.lab.internet.parcel import received
from netlab.lab.internet.reassembly import Reassembly

HEADER4 = inet.IP(src="192.0.2.1", dst="192.0.2.2", id=77)
HEADER6 = inet6.IPv6(src="2001:db8::1", dst="2001:db8::2")


def fragments(family: int, payload: bytes, size: int) -> list[bytes]:
    datagram = inet.UDP(sport=5, dport=53) / payload
    if family == 4:
        return [bytes(piece) for piece in inet.fragment(HEADER4 / datagram, fragsize=size)]
    packet = HEADER6 / inet6.IPv6ExtHdrFragment(id=9) / datagram
    return [bytes(piece) for piece in inet6.fragment6(packet, size + 48)]


@given(st.sampled_from([4, 6]), st.binary(min_size=3000, max_size=5000), st.randoms(use_true_random=False))
def test_the_last_fragment_to_arrive_completes_the_packet(family: int, payload: bytes, order: object) -> None:
    pieces = fragments(family, payload, 1280)
    order.shuffle(pieces)  # type: ignore[attr-defined]
    reassembly = Reassembly()
    *waiting, whole = [reassembly.join(received(piece)) for piece in pieces]

    assert waiting == [None] * (len(pieces) - 1)
    assert whole is not None
    assert whole.has_right_checksum
    assert bytes(parsed(whole.encode())[inet.UDP].payload) == payload


def renumbered(piece: bytes) -> bytes:
    packet = inet.IP(piece)
    packet.id = 78
    del packet.chksum
    return bytes(packet)


def test_fragments_of_two_packets_do_not_mix() -> None:
    reassembly = Reassembly()
    one, other = fragments(4, bytes(2000), 1000), fragments(4, bytes(2000), 1000)
    other = [renumbered(piece) for piece in other]

    assert reassembly.join(received(one[0])) is None
    assert reassembly.join(received(other[1])) is None
    assert reassembly.join(received(other[2])) is None
    assert reassembly.join(received(one[1])) is None
    assert reassembly.join(received(one[2])) is not None


def test_a_packet_that_is_whole_stays_as_it_is() -> None:
    parcel = received(bytes(HEADER4 / inet.UDP() / b"x"))

    assert Reassembly().join(parcel) is parcel
