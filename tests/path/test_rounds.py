"""The pace of a monitor, on a virtual clock: the simulated internet's account says what was sent when."""

from __future__ import annotations

from collections import Counter

import networkx as nx
import pandas as pd
import pytest
from walked import WalkedChannel, watch

from netlab.errors import ProbeError
from netlab.frames import Cause, Missing
from netlab.lab.internet.journey import Outcome
from netlab.path import rows
from netlab.path.rounds import END_TTL, Rounds
from netlab.path.state import Answer, Run
from netlab.path.stats import path_stats
from netlab.path.watching import Ledger, Watch

SECOND = 10**9


def chain(*nodes: str, **link: float) -> nx.Graph:
    graph = nx.path_graph(["client", *(nodes or ("r1", "r2", "r3")), "web"])
    for edge in graph.edges:
        graph.edges[edge].update({"delay_ms": 5} | link)
    return graph


def sent(channel: WalkedChannel) -> list[tuple[int, int]]:
    """Return the second in which each packet entered, and its TTL."""
    return [(journey.at_ns // SECOND, journey.packet[8]) for journey in channel.journeys]


def reached(channel: WalkedChannel, node: str = "web") -> list[int]:
    """Return the seconds in which a packet came to the node's door."""
    return [j.at_ns // SECOND for j in channel.journeys if node in j.there]


def test_each_round_has_one_probe_to_each_hop_and_one_to_the_target() -> None:
    channel = WalkedChannel(chain())

    watch(channel, duration_s=20)

    for second in range(1, 20):
        last = END_TTL if second % 2 else 4
        assert sorted(ttl for at, ttl in sent(channel) if at == second) == [1, 2, 3, last]
    assert Counter(reached(channel))[10] == 1


def test_the_first_round_finds_the_path_with_few_packets_past_its_end() -> None:
    channel = WalkedChannel(chain(*(f"r{n}" for n in range(1, 13))))

    hops, _ = watch(channel, duration_s=1)

    assert hops.loc[hops["reached"].fillna(value=False), "ttl"].tolist() == [13]
    assert len(reached(channel)) <= 4  # Linux answers six at once


def test_loss_does_not_change_the_pace() -> None:
    channel = WalkedChannel(chain(loss=0.3), seed=1)

    watch(channel, duration_s=30)

    packets = Counter(at for at, _ in sent(channel))
    assert all(packets[second] <= 10 for second in range(30))
    assert all(Counter(ttl for _, ttl in sent(channel))[ttl] >= 30 for ttl in (1, 2, 3))


def test_every_loss_is_the_networks() -> None:
    channel = WalkedChannel(chain(loss=0.1), seed=2)

    hops, ends = watch(channel, duration_s=60)

    lost = sum(j.outcome is Outcome.LOST for j in channel.journeys)
    found = hops["address"].isna().sum() + ends["address"].isna().sum()
    past_the_end = sum(ttl not in {1, 2, 3, 4, END_TTL} for _, ttl in sent(channel))
    assert lost - past_the_end <= found <= lost


def test_linux_rate_limit_is_never_met_at_one_round_a_second() -> None:
    graph = chain()
    for node in ("r1", "r2", "r3", "web"):
        graph.nodes[node].update(icmp_per_s=1, icmp_burst=6)
    channel = WalkedChannel(graph)

    hops, ends = watch(channel, duration_s=120)

    assert hops["address"].notna().all()
    assert ends["reached"].all()


def test_hops_of_a_path_that_became_longer_are_found_within_two_rounds() -> None:
    graph = nx.Graph(chain())
    nx.add_path(graph, ["r1", "a", "b", "r3"], delay_ms=5, metric=2)
    graph.graph["changes"] = [{"at_s": 9.5, "between": ["r1", "r2"], "up": False}]

    hops, ends = watch(WalkedChannel(graph), duration_s=20)

    late = hops[hops["run"] >= 12]
    assert late.groupby("ttl")["address"].first().nunique() == 5
    assert late.loc[late["ttl"] == 5, "reached"].all()
    assert ends["reached"].all()


def test_a_target_that_has_moved_behind_a_silent_hop_is_found_there() -> None:
    graph = nx.Graph([("client", "r1"), ("r1", "web"), ("r1", "s"), ("s", "web")])
    graph.nodes["s"]["silent"] = True
    graph.graph["changes"] = [{"at_s": 9.5, "between": ["r1", "web"], "up": False}]
    channel = WalkedChannel(graph)

    hops, ends = watch(channel, duration_s=60)

    assert ends["address"].notna().all()
    assert path_stats(hops[hops["run"] > 40])["address"].tolist()[2:] == [channel.target.address]
    assert path_stats(hops[hops["run"] > 40])["loss"].tolist() == [0.0, 1.0, 0.0]


def test_no_two_monitors_number_their_probes_alike() -> None:
    firsts = set()
    for _ in range(20):
        channel = WalkedChannel(chain())
        watch(channel, duration_s=0.5)
        firsts.add(int.from_bytes(channel.journeys[0].packet[4:6], "big"))  # IPv4's identification

    assert len(firsts) > 10


def test_a_target_that_is_gone_is_sought_and_found_again() -> None:
    graph = chain()
    graph.graph["changes"] = [
        {"at_s": 9.5, "node": "web", "udp": "silent"},
        {"at_s": 29.5, "node": "web", "udp": "port-unreachable"},
    ]

    hops, ends = watch(WalkedChannel(graph), duration_s=40)

    assert ends.loc[ends["run"].between(10, 29), "address"].isna().all()
    assert ends.loc[ends["run"] >= 30, "reached"].all()
    assert path_stats(hops)["ttl"].tolist() == [1, 2, 3, 4]


def test_a_dead_target_is_sought_up_to_max_ttl_and_not_beyond() -> None:
    graph = chain()
    graph.nodes["web"]["udp"] = "silent"
    channel = WalkedChannel(graph)

    watch(channel, duration_s=30, max_ttl=12)

    assert max(ttl for _, ttl in sent(channel) if ttl != END_TTL) == 12


def test_flows_take_turns() -> None:
    hops, ends = watch(WalkedChannel(chain()), duration_s=12, flows=3)

    assert hops.groupby("run")["flow"].first().tolist() == [0, 1, 2] * 4
    assert set(ends["flow"]) == {0, 1, 2}


def rounds_over(channel: WalkedChannel, **how: int) -> Rounds:
    return Rounds(channel, **{"every_ns": SECOND, "timeout_ns": SECOND, "max_ttl": 8} | how)


def test_a_round_counts_as_a_whole_when_its_losses_are_known() -> None:
    channel = WalkedChannel(chain(loss=0.3), seed=4)
    rounds = rounds_over(channel)
    while channel.now_ns() < 0.9 * SECOND:
        rounds.send_due()
        rounds.take(channel.receive(min(rounds.wait_ns(), SECOND // 10)))
    assert rounds.settled == []
    assert rounds.under_way == len(channel.journeys)

    rounds.end()
    while rounds.under_way:
        rounds.send_due()
        rounds.take(channel.receive(rounds.wait_ns()))

    assert [each.hops.number for each in rounds.settled] == [0]
    assert channel.now_ns() <= 2.1 * SECOND


def test_an_answer_after_the_timeout_is_counted_and_the_probe_lost() -> None:
    channel = WalkedChannel(chain(delay_ms=150))
    rounds = rounds_over(channel, timeout_ns=SECOND // 2)
    while channel.now_ns() < 3 * SECOND:
        rounds.send_due()
        rounds.take(channel.receive(rounds.wait_ns()))

    lost = {p.ttl for each in rounds.settled for p, answer in each.hops.reported() if answer is None}
    assert lost >= {2, 3}
    assert rounds.late >= 4


def test_each_probe_of_a_long_round_has_the_whole_timeout() -> None:
    channel = WalkedChannel(chain(*(f"r{n}" for n in range(1, 9)), delay_ms=50))  # the end is 900 ms away

    hops, _ = watch(channel, duration_s=5, every_s=5, timeout_s=1)

    assert hops["ttl"].tolist() == [*range(1, 10)]
    assert hops["address"].notna().all()


def test_no_probe_has_more_than_the_timeout_because_others_left_later() -> None:
    channel = WalkedChannel(chain(*(f"r{n}" for n in range(1, 9)), delay_ms=50))

    hops, _ = watch(channel, duration_s=15, every_s=5, timeout_s=0.65)

    assert set(hops.loc[hops["address"].notna(), "ttl"]) == {1, 2, 3, 4, 5, 6}
    assert (hops["ttl"] > 6).eq(hops["address"].isna()).all()


class Held(WalkedChannel):
    """A process that is stopped for 1.6 seconds now and then, and reads what came when it goes on."""

    def receive(self, wait_ns: int) -> list[Answer]:
        answers = super().receive(wait_ns)
        return [answer._replace(received_ns=self.now_ns()) for answer in answers]


def test_what_came_while_this_process_did_not_run_is_not_lost() -> None:
    channel = Held(chain(delay_ms=50))
    rounds = rounds_over(channel)
    stops = [2.05, 5.15, 8.25]
    while channel.now_ns() < 12 * SECOND:
        rounds.send_due()
        if stops and channel.now_ns() >= stops[0] * SECOND:
            del stops[0]
            channel.wait(1.6)
            continue
        rounds.take(channel.receive(min(rounds.wait_ns(), SECOND // 20)))

    reported = [answer for each in rounds.settled for _, answer in each.hops.reported()]
    assert stops == []
    assert None not in reported
    assert rounds.late == 0


def test_an_answer_that_does_not_say_which_probe_is_counted() -> None:
    rounds = rounds_over(WalkedChannel(chain()))

    rounds.take([Answer(flow=0, mark=None, address="a", reply="udp-reply", ttl=1, stamp_ns=1, received_ns=1)])

    assert rounds.unplaced == 1


def test_rounds_that_were_due_while_nothing_ran_are_counted_and_not_made_up_for() -> None:
    channel = WalkedChannel(chain())
    rounds = rounds_over(channel)
    rounds.send_due()
    channel.wait(7.5)
    before = len(channel.journeys)

    rounds.send_due()

    assert rounds.skipped == 6
    assert len(channel.journeys) - before <= 9
    assert 0 < rounds.wait_ns() <= SECOND // 2


class Refusing(WalkedChannel):
    """A host that lets nothing out from a time on."""

    refuses_from_ns = 0

    def send(self, flow: int, ttl: int, mark: int) -> int:
        if self.now_ns() >= self.refuses_from_ns:
            raise ProbeError("no way out")
        return super().send(flow, ttl, mark)


def test_a_host_that_refuses_the_first_probe_is_an_error() -> None:
    with pytest.raises(ProbeError, match="no way out"):
        rounds_over(Refusing(chain())).send_due()


def test_probes_that_the_host_refuses_later_are_counted_and_not_lost() -> None:
    channel = Refusing(chain())
    channel.refuses_from_ns = 5 * SECOND
    rounds = rounds_over(channel)
    while channel.now_ns() < 10 * SECOND:
        rounds.send_due()
        rounds.take(channel.receive(rounds.wait_ns()))

    reported = [answer for each in rounds.settled for _, answer in each.hops.reported()]
    assert None not in reported
    assert rounds.unsent == 5 * 4
    assert str(rounds.refusal) == "no way out"


def test_a_ledger_forgets_the_oldest_and_counts_them() -> None:
    channel = WalkedChannel(chain())
    rounds = rounds_over(channel)
    while channel.now_ns() < 1100 * SECOND:
        rounds.send_due()
        rounds.take(channel.receive(rounds.wait_ns()))

    def framed(runs: list[Run], missing: list[Missing]) -> pd.DataFrame:
        return rows.frame(runs, channel.target, "udp", channel.ports, missing=missing)

    ledger = Ledger(framed, most=2000)
    counts = []
    for each in rounds.settled:
        ledger.add(each.hops)
        counts.append(sum(map(len, ledger.copy()[0])))

    kept = ledger.frame(*ledger.copy(), [])
    sent = sum(len(each.hops.reported()) for each in rounds.settled)
    assert len(kept) + ledger.forgotten == sent
    full = counts[counts.index(max(counts)) :]
    assert 1900 < min(full) <= max(full) <= 2000
    assert kept["run"].tolist()[-1] == rounds.settled[-1].hops.number


class Closable(WalkedChannel):
    """A channel for a thread of its own."""

    def close(self) -> None:
        """Nothing was opened."""


def test_probes_to_the_hops_and_to_the_end_are_kept_for_the_same_time() -> None:
    channel = Closable(chain())
    rounds = rounds_over(channel)

    def framed(runs: list[Run], missing: list[Missing]) -> pd.DataFrame:
        return rows.frame(runs, channel.target, "udp", channel.ports, missing=missing)

    watch = Watch(channel, rounds, framed, most=2000, duration_ns=1100 * SECOND)
    assert watch.ended.wait(60)
    watch.check()
    hops, ends = watch.hops(), watch.ends()

    assert hops["run"].min() == 528
    assert ends["run"].min() == 529  # the round before has its probe to the end among the hops
    for found in (hops, ends):
        (gap,) = (gap for gap in found.attrs["coverage"] if gap["cause"] == Cause.LET_GO)
        assert gap["detail"].startswith(f"sent before {hops['sent_at'].min():%Y-%m-%d %H:%M:%S} UTC, ")
        assert gap["count"] > 0
