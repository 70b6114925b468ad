from __future__ import annotations

from hypothesis import given, strategies as st
from scapy.layers.inet import IP, in4_pseudoheader
from scapy.utils import checksum as scapy_checksum

from netlab.wire import checksum


def test_the_sum_of_the_example_in_rfc_1071() -> None:
    assert checksum.ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


@given(st.binary(max_size=200))
def test_the_checksum_is_scapys(data: bytes) -> None:
    assert checksum.internet(data) == scapy_checksum(data)


@given(st.binary(max_size=200).filter(lambda data: any(data) and len(data) % 2 == 0))
def test_data_with_their_checksum_sum_to_zero(data: bytes) -> None:
    assert checksum.internet(data + checksum.internet(data).to_bytes(2, "big")) == 0


@given(st.binary(max_size=200).filter(lambda data: len(data) % 2 == 0), st.integers(1, 0xFFFE))
def test_the_chosen_word_makes_the_checksum_wanted(data: bytes, wanted: int) -> None:
    word = checksum.word_for(wanted, data).to_bytes(2, "big")

    assert checksum.internet(data + word) == wanted


@given(st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4), st.binary(max_size=64))
def test_the_one_pseudo_header_sums_to_that_of_ipv4(source: bytes, destination: bytes, data: bytes) -> None:
    header = IP(src=".".join(map(str, source)), dst=".".join(map(str, destination)))
    theirs = in4_pseudoheader(17, header, len(data))

    assert checksum.transport(source, destination, 17, data) == checksum.internet(theirs + data)


@given(st.binary(min_size=4, max_size=40), st.binary(min_size=2, max_size=2))
def test_an_updated_checksum_is_right_for_the_changed_bytes(data: bytes, word: bytes) -> None:
    changed = data[:2] + word + data[4:]
    value = checksum.updated(checksum.internet(data), data[2:4], word)

    # 0 and 0xFFFF are the same number in one's complement; which of them comes out is the caller's concern.
    assert value % 0xFFFF == checksum.internet(changed) % 0xFFFF
