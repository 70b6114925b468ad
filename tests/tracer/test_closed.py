"""What is kept of attempts that ended: the right ones, at a bounded cost."""

from __future__ import annotations

import errno
import socket
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from netlab.kernel.sockdiag import State
from netlab.tracer.closed import Closed
from netlab.tracer.layout import ATTEMPT
from netlab.tracer.records import Attempts

KEPT = 100_000
RECORD = ATTEMPT.itemsize + 8  # and its number


def ended(*sent: int) -> Attempts:
    attempts = np.zeros(len(sent), ATTEMPT)
    attempts["bytes_sent"] = sent
    return attempts


def filled(count: int) -> Closed:
    closed = Closed(KEPT)
    for _ in range(0, count, 100):
        closed.append(ended(*range(1, 101)))
    return closed


def most_memory(work: Callable[[], object]) -> int:
    """Return the most bytes that were in use at a time in *work*, beyond those in use before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), max_size=1500), max_size=12),
    st.integers(1, 4000),
    st.integers(0, 6000),
)
def test_attempts_since_a_number_are_those_of_all_from_there_on(
    blocks: list[list[int]], most: int, number: int
) -> None:
    closed = Closed(most)
    for block in blocks:
        closed.append(ended(*block))
    every = closed.since(0)
    since = closed.since(number)

    fresh = every.numbers >= number
    assert since.numbers.tolist() == every.numbers[fresh].tolist()
    assert since.attempts["bytes_sent"].tolist() == every.attempts["bytes_sent"][fresh].tolist()
    assert len(every.numbers) == min(most, closed.following)
    assert closed.dropped == closed.following - len(every.numbers)
    assert every.following == since.following == sum(map(len, blocks))


@pytest.mark.parametrize(
    "failed",
    [
        {"error": errno.ECONNREFUSED},
        {"last_state": State.SYN_SENT, "protocol": socket.IPPROTO_TCP},  # its own process gave it up
        {"unsent": 1},
    ],
)
def test_failures_stay_when_those_that_said_nothing_go(failed: dict[str, int]) -> None:
    closed, empty = Closed(100), ended(*[0] * 5)
    for name, value in failed.items():
        empty[name] = value
    closed.append(empty)
    for _ in range(5):
        closed.append(ended(*[0] * 100))

    assert closed.since(0).numbers[:5].tolist() == [0, 1, 2, 3, 4]


def test_what_is_new_costs_the_same_however_much_is_kept() -> None:
    little, much = filled(5_000), filled(KEPT)
    cost_of_little = most_memory(lambda: little.since(little.following - 100))
    cost_of_much = most_memory(lambda: much.since(much.following - 100))

    assert cost_of_much <= cost_of_little + 8_192 * RECORD < KEPT * RECORD / 8


def test_attempts_are_dropped_without_a_copy_of_all() -> None:
    closed = filled(KEPT + KEPT // 8)
    cost = most_memory(lambda: closed.append(ended(*range(1, 101))))

    assert closed.dropped == KEPT // 8 + 100
    assert cost < KEPT * RECORD / 4


def test_attempts_that_end_one_by_one_take_no_more_memory_than_their_records() -> None:
    closed = Closed(KEPT)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            closed.append(ended(1))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert held < 1.1 * 20_000 * RECORD
