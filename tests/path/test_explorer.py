"""Sending what a strategy asks for: waits, late answers and marks, on a clock that only jumps."""

from __future__ import annotations

import itertools

from simulated import SimulatedChannel, SimulatedHop

from netlab.path import engine, loop, patience
from netlab.path.explorer import Explorer
from netlab.path.mda import Ask, Limits, Search
from netlab.path.pace import Pace
from netlab.path.state import Answer

MS = engine.MILLISECOND
TIMEOUT = 1000 * MS


def hop(address: str, rtt_ms: float, reply: str = "time-exceeded") -> SimulatedHop:
    return SimulatedHop(address=address, rtt_ms=rtt_ms, reply=reply)


SILENT = hop("", 0, "")
TARGET = hop("10.0.0.99", 40, "port-unreachable")


def explored(channel: SimulatedChannel, strategy: Search | Fixed) -> Explorer:
    explorer = Explorer(strategy, channel.send, number=0, timeout_ns=TIMEOUT, marks=itertools.count(1))

    def hear(wait_ns: int) -> list[tuple[list[int], Answer]]:
        return [([0], answer) for answer in channel.receive(wait_ns)]

    loop.drive([explorer], hear, channel.now_ns, Pace())
    return explorer


def search(max_ttl: int = 30) -> Search:
    return Search(Limits(confidence=0.95, first_ttl=1, max_ttl=max_ttl, flows=100))


class Fixed:
    """Asks once for what it was given and remembers what it is told."""

    def __init__(self, *asks: Ask) -> None:
        self.asks = list(asks)
        self.told: list[tuple[int, int, str]] = []

    def next(self) -> list[Ask]:
        asks, self.asks = self.asks, []
        return asks

    def answered(self, flow: int, ttl: int, address: str, *, ends: bool, late: bool = False) -> None:
        self.told.append((flow, ttl, f"{address}{' late' * late}{' end' * ends}"))

    def unanswered(self, flow: int, ttl: int) -> None:
        self.told.append((flow, ttl, "silent"))


def test_the_strategy_hears_of_every_answer_and_of_every_silence() -> None:
    channel = SimulatedChannel([hop("10.0.0.1", 10), SILENT, TARGET])
    strategy = Fixed((0, 1), (3, 1), (3, 2), (0, 3))
    explored(channel, strategy)

    assert strategy.told == [
        (0, 1, "10.0.0.1"),
        (3, 1, "10.0.0.1"),
        (0, 3, "10.0.0.99 end"),
        (3, 2, "silent"),
    ]


def test_a_silent_hop_gets_three_times_what_a_later_hop_took() -> None:
    channel = SimulatedChannel([SILENT, TARGET])
    explored(channel, Fixed((0, 1), (0, 2)))

    assert channel.now_ns() == patience.FACTOR * 40 * MS


def test_an_answer_after_it_was_given_up_is_told_as_late() -> None:
    channel = SimulatedChannel([hop("10.0.0.1", 10), hop("10.0.0.2", 500)])
    strategy = Fixed((0, 1), (0, 2))
    explored(channel, strategy)

    assert strategy.told == [(0, 1, "10.0.0.1"), (0, 2, "silent"), (0, 2, "10.0.0.2 late")]


def test_past_all_answers_the_full_timeout_is_waited_once() -> None:
    channel = SimulatedChannel([hop("10.0.0.1", 10), SILENT])
    explorer = explored(channel, search(max_ttl=4))
    last_sent = max(at for at, _ in channel.sent)

    assert channel.now_ns() == last_sent + TIMEOUT
    assert sum(run.given_up_early for run in explorer.runs.values()) == 0


def test_every_flow_is_a_run_of_its_own_with_attempts_in_order() -> None:
    channel = SimulatedChannel([hop("10.0.0.1", 10), SILENT, TARGET])
    explorer = explored(channel, search())

    for flow, run in explorer.runs.items():
        assert run.flow == flow
        for _, group in itertools.groupby(run.reported(), lambda pair: pair[0].ttl):
            attempts = [probe.attempt for probe, _ in group]
            assert attempts == list(range(len(attempts)))


def test_three_hops_of_forty_ms_take_a_few_round_trips() -> None:
    channel = SimulatedChannel([hop("10.0.0.1", 10), hop("10.0.0.2", 20), TARGET])
    explored(channel, search())

    assert channel.now_ns() <= 3 * 40 * MS


def test_a_target_that_names_no_probe_is_placed_where_one_is_under_way() -> None:
    class Dumb(SimulatedChannel):
        def receive(self, wait_ns: int) -> list[Answer]:
            return [
                a._replace(mark=None) if a.address == TARGET.address else a for a in super().receive(wait_ns)
            ]

    strategy = Fixed((0, 1), (0, 2))
    explored(Dumb([hop("10.0.0.1", 10), TARGET]), strategy)

    assert (0, 2, "10.0.0.99 end") in strategy.told


def test_marks_that_come_round_again_replace_no_probe() -> None:
    channel = SimulatedChannel([hop("10.0.0.1", 10), hop("10.0.0.2", 20), TARGET])
    explorer = Explorer(
        Fixed((0, 1), (0, 2), (0, 3)),
        channel.send,
        number=0,
        timeout_ns=TIMEOUT,
        marks=itertools.cycle([1, 1, 2, 1, 3]),
    )

    while explorer.step(channel.now_ns()) == 0:
        pass

    assert [probe.ttl for probe in explorer.runs[0].probes.values()] == [1, 2, 3]
