"""Statistics per hop: against the simulated internet's own account, and by hand."""

from __future__ import annotations

import networkx as nx
import pandas as pd
import pytest
from walked import WalkedChannel, trace

from netlab.errors import BadInput
from netlab.frames import concat
from netlab.path.payload import to_network_path
from netlab.path.payload_in import from_network_path
from netlab.path.stats import path_stats
from netlab.schemas import HOP_STATS


def chain(**link: float) -> nx.Graph:
    graph = nx.path_graph(["client", "r1", "r2", "web"])
    nx.set_edge_attributes(graph, 2, "delay_ms")
    graph.edges["r1", "r2"].update(link)
    return graph


def test_counts_equal_what_the_network_did() -> None:
    channel = WalkedChannel(chain(loss=0.2), seed=3)

    stats = path_stats(trace(channel, runs=50, queries=1, every_s=1.0))

    sent = [journey.packet[8] for journey in channel.journeys]  # the TTL of an IPv4 packet
    answered = [journey.packet[8] for journey in channel.journeys if journey.answer]
    assert stats["ttl"].tolist() == [1, 2, 3]
    assert stats["probes"].tolist() == [sent.count(ttl) for ttl in (1, 2, 3)]
    assert stats["answers"].tolist() == [answered.count(ttl) for ttl in (1, 2, 3)]
    assert stats["loss"].tolist()[0] == 0.0
    assert (stats["loss_low"] <= stats["loss"]).all()
    assert (stats["loss"] <= stats["loss_high"]).all()


def test_round_trip_times_are_those_of_the_links() -> None:
    stats = path_stats(trace(WalkedChannel(chain(), seed=1)))

    for column in ("min_ms", "mean_ms", "p50_ms", "p99_ms", "max_ms", "last_ms"):
        assert stats[column].tolist() == pytest.approx([4.0, 8.0, 12.0], abs=0.01)
    assert stats["jitter_ms"].tolist() == pytest.approx([0, 0, 0], abs=0.01)


def test_jitter_is_the_mean_step_between_consecutive_round_trips() -> None:
    hops = trace(WalkedChannel(chain(), seed=1), queries=4)
    hops.loc[hops["ttl"] == 2, "rtt_ms"] = [10.0, 14.0, pd.NA, 12.0]
    hops.loc[hops["rtt_ms"].isna(), "address"] = pd.NA

    stats = path_stats(hops).set_index("ttl")

    assert stats.loc[2, "jitter_ms"] == pytest.approx((4 + 2) / 2)
    assert stats.loc[2, "last_ms"] == 12.0
    assert stats.loc[2, "loss"] == 0.25


def test_a_silent_hop_is_a_row_without_times() -> None:
    graph = chain()
    graph.nodes["r2"]["silent"] = True

    silent = path_stats(trace(WalkedChannel(graph))).set_index("ttl").loc[2]

    assert (silent["probes"], silent["answers"], silent["loss"]) == (3, 0, 1.0)
    assert (
        silent[["address", "last_ms", "p50_ms", "jitter_ms", "addresses"]].isna().tolist()[:4] == [True] * 4
    )


def test_jitter_is_no_difference_between_flows() -> None:
    graph = nx.Graph([("client", "r1"), ("r1", "a"), ("a", "r2"), ("r1", "b"), ("b", "r2"), ("r2", "web")])
    nx.set_edge_attributes(graph, 2, "delay_ms")
    graph.edges["b", "r2"].update(delay_ms=22)
    hops = trace(WalkedChannel(graph), runs=2, flows=8, queries=2)

    stats = path_stats(hops)

    assert (stats["max_ms"] - stats["min_ms"]).iloc[-1] > 10
    assert stats["jitter_ms"].tolist() == pytest.approx([0] * 4, abs=0.01)


def test_hops_of_several_hosts_are_refused() -> None:
    hops = trace(WalkedChannel(chain(), seed=1))

    with pytest.raises(BadInput, match=r"path_stats\(\) takes hops of one source, and these are of 2"):
        path_stats(concat([hops.assign(host="a"), hops.assign(host="b")]))


def test_a_trace_that_was_a_payload_has_all_its_hops() -> None:
    hops = trace(WalkedChannel(chain(), seed=1)).assign(host="here", trace="id")

    stats = path_stats(from_network_path(to_network_path(hops)))

    assert stats[["ttl", "answers"]].to_numpy().tolist() == [[1, 3], [2, 3], [3, 3]]


def test_targets_are_kept_apart() -> None:
    both = concat([trace(WalkedChannel(chain())), trace(WalkedChannel(chain(), "r2"))])

    assert path_stats(both)["target"].tolist() == ["r2", "r2", "web", "web", "web"]


def test_no_probe_gives_no_row_and_all_columns() -> None:
    stats = path_stats(trace(WalkedChannel(chain())).iloc[:0])

    assert stats.columns.tolist() == HOP_STATS.names
    assert stats.empty


def test_what_is_no_frame_of_hops_is_refused() -> None:
    with pytest.raises(BadInput, match="needs the column 'target'"):
        path_stats(pd.DataFrame({"ttl": [1]}))
