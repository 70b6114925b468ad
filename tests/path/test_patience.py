"""How long a hop is waited for follows from who answered behind it."""

from __future__ import annotations

from hypothesis import given, strategies as st

from netlab.path.patience import FACTOR, FLOOR_NS, Patience

SECOND = 10**9
heard = st.lists(st.tuples(st.integers(1, 255), st.integers(1, 2 * SECOND)))


@given(heard, st.integers(0, 255))
def test_a_hop_gets_three_times_the_slowest_answer_from_there_on(
    answers: list[tuple[int, int]], ttl: int
) -> None:
    patience = Patience(SECOND)
    for where, round_trip_ns in answers:
        patience.learn(where, round_trip_ns)
    behind = [round_trip_ns for where, round_trip_ns in answers if where >= ttl]
    expected = max(FLOOR_NS, FACTOR * max(behind)) if behind else 123

    assert patience.with_hop_ns(ttl, blind_ns=123) == min(SECOND, expected)
    assert patience.knows(ttl) == bool(behind)
