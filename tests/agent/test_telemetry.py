"""The agent's counters as Prometheus would have them: every series once, and the same at each reading."""

from __future__ import annotations

from netlab.agent.telemetry import _lost
from netlab.frames import Gap, Missing


def test_a_reason_whose_own_numbers_grow_stays_one_series() -> None:
    first, later = (
        _lost([Missing("translations", Gap.LOST, count, f"messages were lost; {dumps} dumps made up for it")])
        for count, dumps in ((3, 1), (5, 12))
    )
    assert list(first) == list(later)
    assert list(later.values()) == [5]


def test_what_is_missing_twice_for_one_reason_is_one_sample() -> None:
    gaps = [Missing("connections", Gap.LOST, count, "no room") for count in (2, 3)]
    assert dict(_lost(gaps)) == {("connections", "lost", "no room"): 5}


def test_what_cannot_be_counted_is_no_sample() -> None:
    assert not _lost([Missing("connections", Gap.UNSEEN, None, "short ones")])
