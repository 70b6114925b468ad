"""Messages of a TCP stream come out whole, whatever it is cut into, and are never guessed behind a gap."""

from __future__ import annotations

import itertools

import dns.message
import pytest
from hypothesis import given, strategies as st

from netlab.protocols.dns.stream import Stream


def framed(number: int, name: str = "www.example.") -> bytes:
    wire = dns.message.make_query(name, "A", id=number).to_wire()
    return len(wire).to_bytes(2) + wire


MESSAGES = [framed(number, f"{'w' * number}.example.") for number in range(1, 9)]
WHOLE = b"".join(MESSAGES)


def ids(*said: bytes, stream: Stream | None = None) -> list[int]:
    stream = stream or Stream()
    return [message.id for data in said for message in stream.said(data)]


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_a_stream_gives_the_same_messages_however_it_is_cut(places: list[int]) -> None:
    cuts = sorted({0, len(WHOLE), *places})

    assert ids(*(WHOLE[a:b] for a, b in itertools.pairwise(cuts))) == list(range(1, 9))


@given(st.integers(0, len(WHOLE)), st.integers(1, len(WHOLE)), st.booleans())
def test_behind_a_gap_every_message_is_one_that_was_said(begin: int, size: int, is_known: bool) -> None:
    """The truth: what lies before the gap as a whole; behind it only whole messages."""
    end, stream = min(begin + size, len(WHOLE)), Stream()
    starts = [len(b"".join(MESSAGES[:number])) for number in range(9)]

    before = ids(WHOLE[:begin], stream=stream)
    stream.missed(end - begin if is_known else None)
    after = ids(WHOLE[end:], stream=stream)

    assert before == [number for number in range(1, 9) if starts[number] <= begin]
    assert set(after) <= {number for number in range(1, 9) if starts[number - 1] >= begin}
    assert stream.unread_bytes <= len(WHOLE)


def test_a_gap_within_one_message_costs_only_that_one() -> None:
    stream = Stream()
    stream.said(MESSAGES[0] + MESSAGES[1][:10])

    stream.missed(5)

    assert ids(MESSAGES[1][15:] + MESSAGES[2], stream=stream) == [3]
    assert stream.unread_bytes == len(MESSAGES[1]) - 5


def test_a_stream_met_in_the_middle_is_read_from_the_first_whole_message() -> None:
    stream = Stream(whole=False)

    assert ids(MESSAGES[0][7:], MESSAGES[1], MESSAGES[2][:9], MESSAGES[2][9:], stream=stream) == [2, 3]
    assert stream.unread_bytes == len(MESSAGES[0]) - 7


def test_a_stream_met_in_the_middle_is_read_where_lengths_come_by_themselves() -> None:
    """So systemd-resolved reads DNS over TLS."""
    stream = Stream(whole=False)

    assert ids(MESSAGES[0][2:], MESSAGES[1][:2], MESSAGES[1][2:], MESSAGES[2], stream=stream) == [2, 3]
    assert stream.unread_bytes == len(MESSAGES[0]) - 2


@pytest.mark.parametrize("garbage", [b"\0\0\0\0", b"\0\x05hello", b"\0\x0c" + b"\xff" * 12])
def test_what_cannot_be_read_is_counted_and_the_next_message_is_read(garbage: bytes) -> None:
    stream = Stream()

    assert ids(garbage + MESSAGES[0], stream=stream) == [1]
    assert stream.unread_bytes == len(garbage)
