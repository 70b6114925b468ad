"""Packets that somebody on the way rejects: an outage that is answered."""

from __future__ import annotations

import networkx as nx
import pandas as pd
import pytest
from walked import WalkedChannel, trace, watch

from netlab import lab
from netlab.path.findings import Given
from netlab.path.stats import path_stats
from netlab.path.trace import traceroute
from netlab.path.verdicts import Verdict


def two_ways() -> nx.Graph:
    """One of two ways that packets take in turn prohibits what is probed."""
    graph = nx.Graph([("client", "r1"), ("r1", "a"), ("r1", "b"), ("a", "r3"), ("b", "r3"), ("r3", "web")])
    nx.set_edge_attributes(graph, 2, "delay_ms")
    graph.nodes["r1"]["balance"] = "packet"
    graph.nodes["b"]["prohibits"] = ["udp"]
    graph.nodes["web"]["udp"] = "reply"
    return graph


def chain() -> nx.Graph:
    graph = nx.path_graph(["client", "r1", "r2", "r3", "web"])
    nx.set_edge_attributes(graph, 2, "delay_ms")
    graph.nodes["web"]["udp"] = "reply"
    return graph


def monitored(graph: nx.Graph, duration_s: float) -> Given:
    return Given(*watch(WalkedChannel(graph, seed=1), every_s=0.1, duration_s=duration_s))


def test_what_is_rejected_has_not_arrived() -> None:
    found = monitored(two_ways(), 8)
    ends = found.end_to_end()
    through, verdicts = found.stats().iloc[-1], found.explain()
    arrived = ends.loc[ends["reached"].astype(bool)]

    assert 0 < len(arrived) < len(ends)
    assert (through["probes"], through["answers"]) == (len(ends), len(arrived))
    assert through["loss"] == pytest.approx(1 - len(arrived) / len(ends))
    assert (through["address"], through["addresses"]) == (arrived["address"].iloc[0], 1)
    assert through["max_ms"] == arrived["rtt_ms"].max()
    assert verdicts["verdict"].tolist() == [Verdict.OK, Verdict.OK, Verdict.REJECTED, Verdict.REJECTED]
    assert (
        verdicts["why"].str.contains("communication administratively prohibited").tolist()[2:] == [True] * 2
    )
    assert verdicts["end_loss"].iloc[0] == pytest.approx(0.5, abs=0.15)


def test_what_is_rejected_on_the_way_to_a_target_hides_no_probe_to_it() -> None:
    hops = monitored(two_ways(), 20).hops()

    furthest = hops[hops["run"] % 2 == 0].groupby("run")["ttl"].max()  # the others have a probe through to it
    assert (furthest.iloc[2:] == 4).all()


def test_a_run_of_which_packets_were_rejected_is_on_the_path_of_the_others() -> None:
    found = monitored(two_ways(), 20)
    runs = found.runs()

    (way,) = set(runs["hops"])
    assert way.split()[1] == "*"
    assert way.split()[-1] == found.hops()["target_address"].iloc[0]
    assert found.changes().empty


def test_an_outage_that_a_router_tells_of_is_no_time_without_loss() -> None:
    graph = chain()
    graph.graph["changes"] = [
        {"at_s": at_s, "between": ["r2", "r3"], "up": up} for at_s, up in ((5, False), (11, True))
    ]
    found = monitored(graph, 16)
    verdicts = found.explain().set_index("ttl")

    assert found.stats()["loss"].iloc[-1] == pytest.approx(6 / 16, abs=0.02)
    assert verdicts.loc[[2, 4], "verdict"].tolist() == [Verdict.REJECTED] * 2
    assert "34 of 134 rejected by" in verdicts.loc[2, "why"]
    assert "network unreachable" in verdicts.loc[2, "why"]
    assert (verdicts["end_loss"] > 0.2).all()


def test_a_target_that_nothing_gets_to_has_lost_all() -> None:
    graph = chain()
    graph.nodes["r2"]["prohibits"] = ["udp"]
    found = monitored(graph, 5)

    assert found.stats()["loss"].tolist() == [0, 0, 1, 1]
    assert found.explain()["verdict"].tolist() == ["ok", "ok", "rejected"]
    assert found.explain()["end_loss"].isna().all()


def test_a_firewall_on_the_target_itself_is_as_far_as_the_target() -> None:
    hops = trace(WalkedChannel(chain()))
    hops["reply"] = hops["reply"].astype(object).replace("udp-reply", "admin-prohibited")
    hops["reached"] = pd.array([False] * len(hops), "boolean")

    assert path_stats(hops)["loss"].tolist() == [0, 0, 0, 0]


def test_the_end_of_a_trace_counts_what_one_of_two_ways_rejects() -> None:
    hops = trace(WalkedChannel(two_ways()), queries=10)
    end = hops[hops["ttl"] == 4]

    stats = path_stats(hops).set_index("ttl")

    assert stats.loc[4, "loss"] == pytest.approx(1 - end["reached"].mean())
    assert stats.loc[3, "loss"] == 0.0


@pytest.mark.privileged
def test_no_run_of_a_trace_lacks_the_target_for_one_of_two_ways_that_rejects() -> None:
    with lab.simulated(two_ways(), seed=1) as net:
        hops = traceroute(net.address("web"), netns=net.client.netns, runs=40, queries=1, timeout_s=0.2)

    furthest = hops.groupby("run")["ttl"].max()
    first = hops.loc[hops["reached"], "run"].min()
    assert (furthest[furthest.index > first] >= 4).all()  # more where the target is heard late
