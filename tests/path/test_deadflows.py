"""One of several equal ways is a black hole: the flows on it are lost, and no rate limit has them in turn."""

from __future__ import annotations

import networkx as nx
import pytest
from walked import WalkedChannel, trace, watch, watched

from netlab.path.stats import path_stats
from netlab.path.verdicts import Verdict, explain


def black_hole() -> nx.DiGraph:
    graph = nx.Graph([("client", "r1"), ("r1", "a"), ("r1", "b"), ("a", "r3"), ("b", "r3"), ("r3", "web")])
    nx.set_edge_attributes(graph, 2, "delay_ms")
    directed = graph.to_directed()
    directed.edges["a", "r3"]["loss"] = 1.0
    directed.nodes["web"]["udp"] = "reply"
    return directed


@pytest.mark.parametrize(("flows", "seed", "dead"), [(2, 0, "flow 1 is"), (4, 0, "flows 1, 2 are")])
def test_flows_on_a_dead_way_are_lost_and_not_limited(flows: int, seed: int, dead: str) -> None:
    channel = WalkedChannel(black_hole(), seed=seed)

    found = explain(watched(channel, every_s=0.2, duration_s=24, flows=flows, max_ttl=6)).set_index("ttl")

    assert found.loc[[1, 2, 3, 4], "verdict"].tolist() == ["ok", "ok", "path-loss", "earlier-loss"]
    assert found.loc[3, "why"].startswith(f"{dead} lost from here on")
    assert found.loc[1, "end_loss"] == found.loc[4, "loss"] == 0.5
    # Only the lost flows are looked for behind the target, with the end-to-end probe last.
    beyond = found.loc[5:]
    assert set(beyond["verdict"]) == {"earlier-loss"}
    assert set(beyond["why"]) == {"only of flows that are lost from TTL 3 on"}


def test_statistics_end_where_other_flows_reach_the_target() -> None:
    hops, _ = watch(WalkedChannel(black_hole()), every_s=0.2, duration_s=24, flows=2, max_ttl=6)

    assert hops["ttl"].max() > 4
    assert path_stats(hops)["ttl"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("limited", [["r3", "web"], ["a", "b", "r3", "web"], ["web"]])
@pytest.mark.parametrize("burst", [1, 6])
def test_flows_that_find_every_bucket_empty_are_not_lost(limited: list[str], burst: int) -> None:
    graph = black_hole()
    graph.edges["a", "r3"]["loss"] = 0.0
    for node in limited:
        graph.nodes[node].update(icmp_per_s=1, icmp_burst=burst)
    del graph.nodes["web"]["udp"]

    found = explain(trace(WalkedChannel(graph), runs=20, flows=4, every_s=5))

    assert not {Verdict.PATH_LOSS, Verdict.FORWARD_LOSS, Verdict.RETURN_LOSS} & set(found["verdict"])
