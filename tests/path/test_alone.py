"""Probes one at a time, over simulated paths whose answers come without marks, twice, late or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from typing import TypeAlias

import pytest
from hypothesis import given, strategies as st
from simulated import SimulatedChannel, SimulatedHop

from netlab.path import alone, engine, loop
from netlab.path.pace import Pace
from netlab.path.state import Answer, Run
from netlab.wire import icmp

SILENT = SimulatedHop(address="", rtt_ms=0, reply="")
PLAN = engine.Plan(first_ttl=1, max_ttl=8, queries=2, timeout_ns=10**9)


class MuteChannel(SimulatedChannel):
    """Answers from some addresses have no mark; the answers to some probes come twice.

    Parameters
    ----------
    mute
        Whose answers do not say which probe they are for.
    again_ms
        By number of the answer, how much later it comes once more.
    """

    def __init__(
        self,
        hops: list[SimulatedHop],
        mute: Collection[str],
        *,
        again_ms: dict[int, float] | None = None,
        lost: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__(hops, lost=lost)
        self._mute = mute
        self._again_ms = again_ms or {}
        self._heard = itertools.count()
        self._copies: list[tuple[int, Answer]] = []

    def receive(self, wait_ns: int) -> list[Answer]:
        """Return the answers, and the copies that are due."""
        due = min((at for at, _ in self._copies), default=self.now_ns() + wait_ns)
        answers = super().receive(min(wait_ns, max(0, due - self.now_ns())))
        answers = [a._replace(mark=None) if a.address in self._mute else a for a in answers]
        for answer in answers:
            if (later := self._again_ms.get(next(self._heard))) is not None:
                self._copies.append((self.now_ns() + round(later * 10**6), answer))
        copies = [answer for at, answer in self._copies if at <= self.now_ns()]
        self._copies = [(at, answer) for at, answer in self._copies if at > self.now_ns()]
        return [*answers, *copies]


Strategy: TypeAlias = type[alone.OneByOne] | type[alone.Twice] | type[engine.Prober]


def traced(strategy: Strategy, channel: SimulatedChannel, plan: engine.Plan = PLAN) -> Run:
    run = Run(0)
    track = strategy(plan, channel.send, run, itertools.count(1))
    loop.drive(
        [track], lambda wait: [([0], answer) for answer in channel.receive(wait)], channel.now_ns, Pace()
    )
    return run


def asked_again(channel: MuteChannel) -> Run:
    return traced(alone.Twice, channel)


def rows(run: Run) -> list[tuple[int, str | None]]:
    return [(probe.ttl, answer.address if answer else None) for probe, answer in run.reported()]


def path(*rtts_ms: float) -> list[SimulatedHop]:
    """Return hops called 1, 2 …, of which the last is the destination; no round-trip time is a silent hop."""
    hops = [SimulatedHop(address=str(n), rtt_ms=ms) if ms else SILENT for n, ms in enumerate(rtts_ms, 1)]
    return [*hops[:-1], replace(hops[-1], reply=icmp.Error.PORT_UNREACHABLE.value)]


@pytest.mark.parametrize("mute", [{"1"}, {"2", "3"}, {"4"}, {"1", "2", "3", "4"}])
def test_hops_whose_answers_have_no_mark_get_their_rows(mute: set[str]) -> None:
    run = asked_again(MuteChannel(path(10, 20, 30, 40), mute))

    assert rows(run) == [(ttl, str(ttl)) for ttl in (1, 2, 3, 4) for _ in range(2)]
    assert (run.too_short, run.short_placed) == (0, 2 * len(mute))


def test_a_silent_hop_stays_silent_beside_one_without_marks() -> None:
    run = asked_again(MuteChannel(path(10, 0, 30, 40), {"3"}))

    assert rows(run) == [(1, "1"), (1, "1"), (2, None), (2, None), (3, "3"), (3, "3"), (4, "4"), (4, "4")]


def test_a_copy_of_an_answer_is_not_taken_for_the_next_hop() -> None:
    run = asked_again(MuteChannel(path(10, 20, 0, 40), {"1", "2"}, again_ms=dict.fromkeys(range(20), 15)))

    assert {(ttl, address) for ttl, address in rows(run)} == {(1, "1"), (2, "2"), (3, None), (4, "4")}


@given(
    st.lists(st.sampled_from([0, 0.1, 5, 40, 200]), min_size=1, max_size=6),
    st.sets(st.integers(1, 7).map(str)),
    st.dictionaries(st.integers(0, 30), st.sampled_from([0, 1, 20, 300])),
    st.frozensets(st.integers(0, 30)),
)
def test_no_row_has_the_answer_of_another_hop(
    rtts: list[float], mute: set[str], again: dict[int, float], lost: frozenset[int]
) -> None:
    run = asked_again(MuteChannel(path(*rtts, 50), mute, again_ms=again, lost=lost))

    for ttl, address in rows(run):
        assert address in {None, str(min(ttl, len(rtts) + 1))}
    assert all(ttl <= len(rtts) + 1 for ttl, _ in rows(run)) or run.end_ttl != len(rtts) + 1


@given(st.lists(st.sampled_from([0, 1, 30, 50]), max_size=6), st.integers(1, 3), st.booleans())
def test_one_at_a_time_finds_what_the_engine_finds(rtts: list[float], queries: int, dead: bool) -> None:
    hops, plan = path(*rtts, 50), replace(PLAN, queries=queries)
    if dead:
        hops = [*hops[:-1], SILENT]
    at_once = traced(engine.Prober, SimulatedChannel(hops), plan)
    one_by_one = traced(alone.OneByOne, SimulatedChannel(hops), plan)

    assert set(rows(one_by_one)) == set(rows(at_once))
    if not dead:
        assert rows(one_by_one) == rows(at_once)


def test_silent_hops_before_a_destination_that_answers_cost_its_time_three_times_over() -> None:
    channel = SimulatedChannel(path(10, 0, 0, 40))
    traced(alone.OneByOne, channel, replace(PLAN, queries=1))

    assert channel.now_ns() == pytest.approx((40 + 10 + 2 * 120 + 40) * 10**6)
