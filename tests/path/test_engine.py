"""The strategy on simulated paths: a clock that only jumps makes every wait exact."""

from __future__ import annotations

import itertools

import pytest
from simulated import SimulatedChannel, SimulatedHop

from netlab.path import engine, pace, patience
from netlab.path.engine import Turns
from netlab.path.state import Run

MS = engine.MILLISECOND


def routers(*rtts_ms: float) -> list[SimulatedHop]:
    return [SimulatedHop(address=f"10.0.0.{n}", rtt_ms=rtt) for n, rtt in enumerate(rtts_ms, 1)]


def destination(rtt_ms: float, reply: str = "port-unreachable") -> SimulatedHop:
    return SimulatedHop(address="10.0.0.99", rtt_ms=rtt_ms, reply=reply)


SILENT = SimulatedHop(address="", rtt_ms=0, reply="")


def traced(
    channel: SimulatedChannel,
    *,
    first_ttl: int = 1,
    max_ttl: int = 30,
    queries: int = 3,
    timeout_ms: int = 1000,
    turns: Turns = Turns.TOGETHER,
) -> Run:
    plan = engine.Plan(
        first_ttl=first_ttl, max_ttl=max_ttl, queries=queries, timeout_ns=timeout_ms * MS, turns=turns
    )
    run = Run(0)
    engine.probe_path(plan, channel, run, pace=pace.Pace(), marks=itertools.count(1))
    return run


def heard(run: Run) -> dict[int, list[str]]:
    """Return who answered, by TTL, with "" for a silent probe."""
    rows: dict[int, list[str]] = {}
    for probe, answer in run.reported():
        rows.setdefault(probe.ttl, []).append(answer.address if answer else "")
    return rows


def test_every_hop_answers_every_query_and_nothing_is_reported_past_the_destination() -> None:
    run = traced(SimulatedChannel([*routers(1, 2, 3), destination(4)]))

    assert heard(run) == {n: [f"10.0.0.{n}"] * 3 for n in (1, 2, 3)} | {4: ["10.0.0.99"] * 3}


def test_no_more_than_a_window_of_probes_goes_past_a_near_end() -> None:
    channel = SimulatedChannel([*routers(1, 2, 3), destination(4)])
    traced(channel, queries=5)
    past_the_end = [ttl for _, ttl in channel.sent if ttl > 4]

    assert len(past_the_end) < engine.WINDOW


def test_all_queries_to_a_ttl_leave_before_those_to_the_next() -> None:
    channel = SimulatedChannel([*routers(1, 2, 3), destination(4)])
    traced(channel)
    ttls = [ttl for _, ttl in channel.sent]

    assert ttls == sorted(ttls)
    assert ttls[:6] == [1, 1, 1, 2, 2, 2]


def test_a_trace_takes_hardly_more_than_the_longest_round_trip() -> None:
    rtts = [20 * n for n in range(1, 10)]
    channel = SimulatedChannel([*routers(*rtts[:-1]), destination(rtts[-1])])
    traced(channel)

    assert channel.now_ns() <= 1.5 * rtts[-1] * MS


def test_probes_to_a_target_that_answers_one_at_a_time_go_one_after_the_other() -> None:
    channel = SimulatedChannel([*routers(1, 2, 3), destination(40)])
    run = traced(channel, max_ttl=10, turns=Turns.SINGLE)
    times = [probe.sent_ns for probe, _ in run.reported() if probe.ttl == 4]

    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [40 * MS, 40 * MS]
    assert channel.now_ns() == 3 * 40 * MS


def test_syns_to_a_closed_port_go_together() -> None:
    channel = SimulatedChannel([*routers(1, 2, 3), destination(40, "rst")])
    run = traced(channel, turns=Turns.UNTIL_ACCEPTED)

    assert heard(run)[4] == ["10.0.0.99"] * 3
    assert channel.now_ns() == 40 * MS


class ListeningPort:
    """How Linux listens: a SYN that meets a connection nobody has reset yet is reset, and so is that."""

    def __init__(self, rtt_ms: float, *, challenges: bool = False) -> None:
        self.channel = SimulatedChannel(self._hop)
        self._accepting = destination(rtt_ms, "syn-ack")
        self._meeting = (
            SimulatedHop(address="10.0.0.99", rtt_ms=rtt_ms, reply="challenge-ack", tells=False)
            if challenges
            else destination(rtt_ms, "rst")
        )
        self._challenges = challenges
        self._reset_ns = 0  # when the prober's reset of the last connection gets here

    def _hop(self, _: int, ttl: int) -> SimulatedHop:
        if ttl < 3:
            return routers(1, 2)[ttl - 1]
        now = self.channel.now_ns()  # everything takes half a round trip to get here
        if now >= self._reset_ns:
            self._reset_ns = now + round(self._accepting.rtt_ms * MS)
            return self._accepting
        if not self._challenges:
            self._reset_ns = 0
        return self._meeting


@pytest.mark.parametrize("challenges", [False, True])
@pytest.mark.parametrize("rtt_ms", [0.05, 3, 30, 300])
@pytest.mark.parametrize("queries", [1, 2, 3, 8])
def test_an_open_port_is_never_said_to_reset(rtt_ms: float, queries: int, *, challenges: bool) -> None:
    port = ListeningPort(rtt_ms, challenges=challenges)
    run = traced(port.channel, queries=queries, turns=Turns.UNTIL_ACCEPTED)
    replies = [answer.reply if answer else "" for probe, answer in run.reported() if probe.ttl == 3]

    assert replies == ["syn-ack"] * queries
    assert run.end_ttl == 3


@pytest.mark.parametrize("silent", [1, 2, 5])
def test_silent_hops_are_waited_for_together(silent: int) -> None:
    channel = SimulatedChannel([*routers(10), *[SILENT] * silent, *routers(20), destination(30)])
    run = traced(channel)

    # the last silent probes left while answers were coming, and get three times the round trip behind them
    last_sent = max(probe.sent_ns for probe, answer in run.reported() if not answer)
    assert channel.now_ns() == last_sent + patience.FACTOR * 30 * MS
    assert last_sent <= 30 * MS
    assert run.given_up_early == 3 * silent


def test_a_near_destination_still_leaves_silent_hops_the_floor() -> None:
    channel = SimulatedChannel([SILENT, destination(0.5)])
    traced(channel)

    assert channel.now_ns() == patience.FLOOR_NS


@pytest.mark.parametrize("turns", [Turns.TOGETHER, Turns.UNTIL_ACCEPTED])
def test_a_dead_target_costs_the_timeout_once(turns: Turns) -> None:
    channel = SimulatedChannel([*routers(1, 2, 3), SILENT])
    run = traced(channel, turns=turns)
    last_sent = max(at for at, _ in channel.sent)

    assert channel.now_ns() == last_sent + 1000 * MS
    assert last_sent < 100 * MS
    assert heard(run)[30] == ["", "", ""]
    assert run.given_up_early == 0


def test_a_network_that_never_answers_costs_the_timeout_and_the_blind_holds() -> None:
    channel = SimulatedChannel([SILENT])
    traced(channel)

    windows = -(-90 // engine.WINDOW)
    assert channel.now_ns() == 1000 * MS + (windows - 1) * engine.BLIND_HOLD_NS
    assert len(channel.sent) == 90


def test_a_slow_answer_that_comes_before_the_run_ends_still_counts() -> None:
    slow = SimulatedHop(address="10.0.0.2", rtt_ms=50)
    run = traced(SimulatedChannel([*routers(1), slow, destination(30)]))

    assert heard(run)[2] == ["10.0.0.2"] * 3


@pytest.mark.parametrize("lost", range(12))
def test_one_lost_probe_is_one_silent_row(lost: int) -> None:
    channel = SimulatedChannel([*routers(1, 2, 3), destination(4)], lost=frozenset({lost}))
    rows = heard(traced(channel))
    silent = sum(address == "" for addresses in rows.values() for address in addresses)

    # a probe past the destination is no row
    assert silent == (0 if channel.sent[lost][1] > 4 else 1)
    assert {ttl: set(addresses) - {""} for ttl, addresses in rows.items()} == {
        1: {"10.0.0.1"},
        2: {"10.0.0.2"},
        3: {"10.0.0.3"},
        4: {"10.0.0.99"},
    }


def test_a_router_that_refuses_ends_the_path() -> None:
    refusing = SimulatedHop(address="10.0.0.3", rtt_ms=3, reply="admin-prohibited")
    run = traced(SimulatedChannel([*routers(1, 2), refusing]))

    assert max(heard(run)) == run.end_ttl == 3


def test_a_window_of_probes_is_ahead_of_the_answers() -> None:
    channel = SimulatedChannel([*routers(*range(10, 310, 10))])
    traced(channel, max_ttl=30, queries=1)
    at_once = [ttl for at, ttl in channel.sent if at == 0]

    assert at_once == list(range(1, engine.WINDOW + 1))


def test_never_more_than_the_stated_packets_in_any_second() -> None:
    channel = SimulatedChannel([*routers(*[0.01] * 200), destination(0.01)])
    plan = engine.Plan(first_ttl=1, max_ttl=255, queries=30, timeout_ns=1000 * MS)
    engine.probe_path(plan, channel, Run(0), pace=pace.Pace(), marks=itertools.count(1))
    times = [at for at, _ in channel.sent]

    assert len(times) > 5000
    assert all(times[i + pace.PER_SECOND] - times[i] >= 10**9 for i in range(len(times) - pace.PER_SECOND))


def test_duplicates_and_strangers_change_nothing() -> None:
    channel = SimulatedChannel([*routers(1), destination(2)])
    run = traced(channel)
    before = run.reported()
    answer = next(answer for _, answer in before if answer)

    assert run.take(answer) is None
    assert run.take(answer._replace(mark=60_000)) is None
    assert run.take(answer._replace(flow=1)) is None
    assert run.reported() == before


@pytest.mark.parametrize("rtt_ms", [9, 14, 300])
@pytest.mark.parametrize("near", [0, 1, 3])
def test_a_target_that_does_not_say_which_probe_it_answers_is_found_by_one_probe_at_a_time(
    near: int, rtt_ms: float
) -> None:
    dumb = SimulatedHop(address="10.0.0.99", rtt_ms=rtt_ms, reply="rst", tells=False)
    run = traced(SimulatedChannel([*routers(1, 2), *[SILENT] * near, dumb]))
    expected = {1: ["10.0.0.1"] * 3, 2: ["10.0.0.2"] * 3} | {3 + n: [""] * 3 for n in range(near)}

    assert heard(run) == expected | {3 + near: ["10.0.0.99"] * 3}
    assert run.placed == 3


def test_a_syn_that_overtook_the_reset_of_the_one_before_is_sent_again() -> None:
    met = itertools.count()
    challenging = {1, 2, 4}  # of the probes that get to the target

    def hop(_: int, ttl: int) -> SimulatedHop:
        if ttl == 1:
            return routers(1)[0]
        if ttl == 2 and next(met) in challenging:
            return SimulatedHop(address="10.0.0.99", rtt_ms=5, reply="challenge-ack", tells=False)
        return destination(5, "syn-ack") if ttl == 2 else SILENT

    run = traced(SimulatedChannel(hop), queries=4, max_ttl=4, turns=Turns.SINGLE)

    assert heard(run) == {1: ["10.0.0.1"] * 4, 2: ["10.0.0.99"] * 4}
    assert next(met) == 4 + len(challenging)


def test_an_answer_that_fits_several_probes_is_given_to_none() -> None:
    dumb = SimulatedHop(address="10.0.0.99", rtt_ms=9, reply="rst", tells=False)
    run = traced(SimulatedChannel([dumb]), queries=1, max_ttl=16)

    assert run.unplaced == 16
    assert heard(run) == {1: ["10.0.0.99"]}


def test_each_flow_has_its_own_path() -> None:
    channel = SimulatedChannel(lambda flow, ttl: destination(4) if ttl > 1 else routers(*range(1, 9))[flow])
    plan = engine.Plan(first_ttl=1, max_ttl=5, queries=2, timeout_ns=1000 * MS)
    marks = itertools.count(1)
    runs = [Run(0, flow=flow) for flow in (0, 7)]
    for run in runs:
        engine.probe_path(plan, channel, run, pace=pace.Pace(), marks=marks)

    assert [heard(run) for run in runs] == [
        {1: [f"10.0.0.{1 + flow}"] * 2, 2: ["10.0.0.99"] * 2} for flow in (0, 7)
    ]
    assert {probe.flow for run in runs for probe, _ in run.reported()} == {0, 7}


def test_a_rejection_on_one_of_two_ways_does_not_hide_the_target_on_the_other() -> None:
    prohibited = SimulatedHop(address="10.0.0.3", rtt_ms=3, reply="admin-prohibited")
    ways = [[*routers(1, 2, 3), destination(4)], [*routers(1, 2), prohibited, prohibited]]
    turn = itertools.count()
    channel = SimulatedChannel(lambda _, ttl: ways[next(turn) % 2][min(ttl, 4) - 1])

    run = traced(channel, queries=9)

    assert run.end_ttl == 4
    assert set(heard(run)[4]) == {"10.0.0.99", "10.0.0.3"}


def test_a_path_ends_where_all_are_rejected() -> None:
    rejected = SimulatedHop(address="10.0.0.2", rtt_ms=2, reply="host-unreachable")

    assert max(heard(traced(SimulatedChannel([*routers(1, 2), rejected])))) == 3
