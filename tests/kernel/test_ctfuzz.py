"""Damaged, cut and foreign messages: each is refused, or its row is what its bytes say."""

from __future__ import annotations

import ctfuzz
import ctmessages
import pytest
from hypothesis import given, strategies as st

from netlab.errors import KernelError


def test_the_truth_reads_every_undamaged_message() -> None:
    rows = ctfuzz.expected(b"".join(ctmessages.SEEDS))

    assert [row["protocol"] for row in rows] == ["tcp", "udp", "icmpv6", "icmp", "sctp", "99"]
    assert [row["zone"] for row in rows] == [0, 7, 5, 0, 3, 0]
    assert [row["nat"] for row in rows] == ["snat", None, None, None, None, None]
    assert (rows[0]["helper"], rows[0]["labels"], rows[0]["bytes"]) == ("ftp", "37", 180)


def test_random_damage_is_refused_or_read_as_it_stands() -> None:
    counts = ctfuzz.check(5_000, seed=20)

    assert counts["refused"] > 1_000
    assert counts["rows"] > 1_000


@given(
    st.lists(st.sampled_from(ctmessages.SEEDS), min_size=1, max_size=3).map(b"".join),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 400),
)
def test_changed_bytes_are_refused_or_read_as_they_stand(
    whole: bytes, changes: list[tuple[int, int]], end: int
) -> None:
    data = bytearray(whole)
    for place, octet in changes:
        data[place % len(data)] = octet
    ctfuzz.hold([bytes(data[: (len(data) - end % len(data)) // 4 * 4])])


@pytest.mark.parametrize("data", ctmessages.FOREIGN, ids=["route", "socket", "expectation", "statistics"])
def test_a_message_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(KernelError):
        ctfuzz.decoded(data)
