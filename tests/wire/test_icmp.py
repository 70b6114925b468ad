from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from scapy.layers import inet, inet6
from scapy.utils import checksum as scapy_checksum

from netlab.errors import DecodeError
from netlab.wire import icmp, ip

NAMES = tomllib.loads(Path(__file__).parents[1].joinpath("data/wire/icmp_names.toml").read_text())["cases"]
V4 = (b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02")
V6 = (b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x02")


@pytest.mark.parametrize(("family", "kind", "code", "word"), NAMES)
def test_a_type_and_code_have_the_word_of_their_rfc(family: int, kind: int, code: int, word: str) -> None:
    message = icmp.Message(family=family, type=kind, code=code, rest=bytes(4), body=b"")

    assert (message.error or "") == word


def test_every_word_is_used_by_some_case() -> None:
    assert {word for *_, word in NAMES} - {""} == set(icmp.Error)


@pytest.mark.parametrize("total", [24, 0, 27, 0x2C00], ids=["no header", "none", "cut", "swapped"])
def test_the_eight_bytes_that_every_quote_has_are_read_whatever_length_it_states(total: int) -> None:
    sent = bytes(inet.IP(dst="9.9.9.9", src="1.1.1.1") / inet.TCP(sport=5, dport=80, seq=7))
    body = sent[:2] + total.to_bytes(2, "big") + sent[4:]

    found = icmp.quote(icmp.error(4, icmp.Error.TIME_EXCEEDED, body))

    assert found.transport[:8] == sent[20:28]


@given(st.integers(8, 40))
def test_the_packet_an_error_quotes_is_read_from_scapys_message(size: int) -> None:
    probe = (
        inet.IP(src="192.0.2.1", dst="192.0.2.9", id=4711, ttl=1)
        / inet.UDP(sport=50000, dport=33434)
        / (b"x" * 32)
    )
    quoted = bytes(probe)[: 20 + size]
    message = bytes(inet.ICMP(type=11) / quoted)

    quote = icmp.quote(icmp.decode(4, message))

    assert isinstance(quote.header, ip.IPv4)
    assert (quote.header.identification, quote.header.ttl) == (4711, 1)
    assert quote.transport == quoted[20:]


@pytest.mark.parametrize(
    "extensions",
    [
        inet6.IPv6ExtHdrHopByHop(),
        inet6.IPv6ExtHdrDestOpt() / inet6.IPv6ExtHdrFragment(m=1),
        inet6.IPv6ExtHdrRouting(addresses=["2001:db8::9"]),
    ],
    ids=["options", "fragment", "routing"],
)
def test_the_transport_of_a_quote_is_behind_its_extension_headers(extensions: inet6._IPv6ExtHdr) -> None:
    datagram = inet.UDP(sport=40000, dport=33434) / b"probe"
    packet = bytes(inet6.IPv6(src="2001:db8::1", dst="2001:db8::2") / extensions / datagram)

    quote = icmp.quote(icmp.error(6, icmp.Error.TIME_EXCEEDED, packet))

    assert quote.header.protocol == ip.UDP
    assert quote.transport[:4] == bytes(datagram)[:4]
    assert quote.transport.endswith(b"probe")


def test_a_later_fragment_that_an_error_quotes_has_no_transport() -> None:
    packet = bytes(inet6.IPv6() / inet6.IPv6ExtHdrFragment(offset=3, nh=ip.UDP) / b"in the middle")

    assert icmp.quote(icmp.error(6, icmp.Error.TIME_EXCEEDED, packet)).header.protocol == ip.FRAGMENT


def test_the_packet_an_icmpv6_error_quotes_is_read_from_scapys_message() -> None:
    probe = inet6.IPv6(src="2001:db8::1", dst="2001:db8::9", hlim=1, fl=77) / inet.TCP(sport=50000, dport=443)
    packet = bytes(inet6.IPv6(src="2001:db8::5", dst="2001:db8::1") / inet6.ICMPv6TimeExceeded() / probe)

    quote = icmp.quote(icmp.decode(6, packet[40:]))

    assert isinstance(quote.header, ip.IPv6)
    assert quote.header.flow_label == 77
    assert quote.transport == bytes(probe)[40:]


@given(st.binary(max_size=60), st.integers(0, 255), st.integers(0, 255))
def test_our_messages_have_scapys_checksum(body: bytes, kind: int, code: int) -> None:
    message = icmp.Message(family=4, type=kind, code=code, rest=bytes(4), body=body)
    ours = message.encode(*V4)

    assert int.from_bytes(ours[2:4], "big") == scapy_checksum(ours[:2] + bytes(2) + ours[4:])
    assert icmp.decode(4, ours) == message


def test_our_icmpv6_checksum_is_scapys() -> None:
    message = icmp.Message(family=6, type=3, code=0, rest=bytes(4), body=bytes(range(48)))
    packet = ip.IPv6(source=V6[0], destination=V6[1], protocol=ip.ICMPV6, ttl=64).encode(message.encode(*V6))
    theirs = inet6.IPv6(packet)
    sealed = theirs[inet6.ICMPv6TimeExceeded].cksum
    del theirs[inet6.ICMPv6TimeExceeded].cksum

    assert inet6.IPv6(bytes(theirs))[inet6.ICMPv6TimeExceeded].cksum == sealed


@given(st.binary(min_size=8, max_size=80), st.integers(0, 79), st.integers(1, 255))
def test_a_changed_byte_is_noticed(body: bytes, place: int, change: int) -> None:
    message = bytearray(icmp.Message(family=4, type=11, code=0, rest=bytes(4), body=body).encode(*V4))
    message[place % len(message)] ^= change

    with pytest.raises(DecodeError, match="checksum"):
        icmp.decode(4, bytes(message))


@pytest.mark.parametrize(("family", "other"), [(4, V6), (6, V4)])
def test_an_error_about_the_other_family_is_refused(family: int, other: tuple[bytes, bytes]) -> None:
    kind = ip.IPv4 if len(other[0]) == 4 else ip.IPv6
    packet = kind(source=other[0], destination=other[1], protocol=17, ttl=1).encode(bytes(8))
    message = icmp.Message(family=family, type=11 if family == 4 else 3, code=0, rest=bytes(4), body=packet)

    with pytest.raises(DecodeError, match="about an IPv"):
        icmp.quote(message)


@pytest.mark.parametrize("kind", [0, 5, 8])
def test_a_message_that_is_no_error_has_no_quote(kind: int) -> None:
    with pytest.raises(DecodeError, match="no error"):
        icmp.quote(icmp.Message(family=4, type=kind, code=0, rest=bytes(4), body=bytes(40)))


@given(st.sampled_from([4, 6]), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=100))
def test_hostile_messages_give_a_quote_or_a_decode_error(
    family: int, kind: int, code: int, body: bytes
) -> None:
    message = icmp.Message(family=family, type=kind, code=code, rest=bytes(4), body=body)
    try:
        assert icmp.quote(message).header.family == family
    except DecodeError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right, any other exception is not


@pytest.mark.parametrize("family", [4, 6])
def test_an_error_that_we_send_reads_as_what_it_says(family: int) -> None:
    for what in icmp._SENT_AS[family]:
        assert icmp.error(family, what, b"").error is what
