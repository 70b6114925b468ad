"""Turns, waits and the bound on all of them, on a clock that only jumps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from simulated import SimulatedChannel, SimulatedHop

from netlab.path import engine, loop, pace
from netlab.path.state import Answer, Run

MS = 10**6


class Counter:
    """A track that sends so many packets, one every so often, and notes when."""

    def __init__(self, packets: int, every_ns: int = 0) -> None:
        self.sent: list[int] = []
        self.taken: list[Any] = []
        self._packets = packets
        self._every = every_ns
        self._next = 0

    def step(self, now_ns: int) -> int | None:
        if len(self.sent) == self._packets:
            return None
        if now_ns < self._next:
            return self._next - now_ns
        self.sent.append(now_ns)
        self._next = now_ns + self._every
        return 0

    def take(self, answer: Answer) -> None:
        self.taken.append(answer)


class Clock:
    def __init__(self) -> None:
        self.now = 0
        self.waits: list[int] = []
        self.coming: dict[int, list[tuple[list[int], Any]]] = {}

    def hear(self, wait_ns: int) -> list[tuple[list[int], Any]]:
        self.waits.append(wait_ns)
        due = [at for at in self.coming if at <= self.now + wait_ns]
        self.now = min(due, default=self.now + wait_ns)
        return self.coming.pop(self.now, [])


def drive(*tracks: Any, clock: Clock | None = None, per_second: int = 10**6, **options: Any) -> Clock:
    clock = clock or Clock()
    loop.drive(tracks, clock.hear, lambda: clock.now, pace.Pace(per_second), **options)
    return clock


def test_all_wait_together() -> None:
    tracks = [Counter(3, every_ns=100 * MS) for _ in range(20)]  # fewer than a burst
    clock = drive(*tracks)

    assert clock.now == 200 * MS
    assert all(track.sent == [0, 100 * MS, 200 * MS] for track in tracks)


def test_all_together_keep_to_the_pace_and_none_is_forgotten() -> None:
    tracks = [Counter(30) for _ in range(10)]
    drive(*tracks, per_second=100)
    times = sorted(itertools.chain.from_iterable(track.sent for track in tracks))

    assert all(later - first >= 10**9 for first, later in zip(times, times[100:], strict=False))
    assert max(track.sent[-1] for track in tracks) - min(track.sent[-1] for track in tracks) < 10**9


def test_a_slow_track_holds_up_no_other() -> None:
    slow, quick = Counter(2, every_ns=10**9), Counter(100, every_ns=MS)
    drive(slow, quick)

    assert quick.sent[-1] == 99 * MS


def test_an_answer_gives_its_track_a_turn_at_once() -> None:
    clock = Clock()
    waiting, other = Counter(2, every_ns=10**9), Counter(1)
    clock.coming[5 * MS] = [([0], "answer")]
    drive(waiting, other, clock=clock)

    assert (waiting.taken, other.taken) == (["answer"], [])
    assert clock.waits.count(0) > 0
    assert clock.now == 10**9


def test_an_answer_for_several_reaches_all_of_them_also_the_finished() -> None:
    clock = Clock()
    clock.coming[5 * MS] = [([0, 1], "answer")]
    tracks = Counter(1), Counter(2, every_ns=10 * MS)
    drive(*tracks, clock=clock)

    assert [track.taken for track in tracks] == [["answer"], ["answer"]]


def test_it_listens_before_a_track_may_give_up_what_it_sent_before_this_process_was_stopped() -> None:
    clock = Clock()
    events: list[str] = []

    class Stalling(Counter):
        def step(self, now_ns: int) -> int | None:
            wait = super().step(now_ns)
            events.append("step")
            clock.now += 20 * MS  # as if this process did not run
            return wait

    def hear(wait_ns: int) -> list[tuple[list[int], Any]]:
        events.append("hear")
        return clock.hear(wait_ns)

    loop.drive([Stalling(3)], hear, lambda: clock.now, pace.Pace())

    assert events == ["step", "hear", "step", "hear", "step", "hear", "step"]


def test_it_looks_again_where_this_process_did_not_run_between_listening_and_a_turn() -> None:
    clock = Clock()
    events: list[str] = []
    burst = ["step"] * 3

    class Noting(Counter):
        def step(self, now_ns: int) -> int | None:
            events.append("step")
            return super().step(now_ns)

    def hear(wait_ns: int) -> list[tuple[list[int], Any]]:
        events.append("hear")
        answers = clock.hear(wait_ns)
        if events == [*burst, "hear"]:
            clock.now += 20 * MS
        return answers

    loop.drive([Noting(4)], hear, lambda: clock.now, pace.Pace())

    assert events == [*burst, "hear", "hear", "step", "step"]


@pytest.mark.parametrize("after", [0, 1, 7])
def test_it_stops_when_told_and_looks_often(after: int) -> None:
    asked = itertools.count()
    track = Counter(10**6, every_ns=10**9)
    clock = drive(track, stopped=lambda: next(asked) >= after)

    assert len(track.sent) <= after
    assert max(clock.waits, default=0) <= 50 * MS


def test_many_simulated_paths_take_as_long_as_the_longest() -> None:
    """Probers share nothing but the pace: each meets its own channel's answers."""
    hop = SimulatedHop(address="10.0.0.9", rtt_ms=40, reply="port-unreachable")
    channel = SimulatedChannel([hop])
    plan = engine.Plan(first_ttl=1, max_ttl=1, queries=3, timeout_ns=10**9, turns=engine.Turns.SINGLE)
    runs = [Run(0, flow=flow) for flow in range(20)]
    probers = [engine.Prober(plan, channel.send, run, itertools.count(1)) for run in runs]
    loop.drive(
        probers,
        lambda wait: [([answer.flow], answer) for answer in channel.receive(wait)],
        channel.now_ns,
        pace.Pace(10**4),
    )

    assert channel.now_ns() == 3 * 40 * MS
    assert all(len(run.answers) == 3 for run in runs)
