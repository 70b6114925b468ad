"""Paths over time: the truth is the simulated internet's, asked for the same flow at the same time."""

from __future__ import annotations

import networkx as nx
import pandas as pd
import pytest
from walked import START_NS, WalkedChannel, trace, watch

import netlab
from netlab.errors import BadInput
from netlab.frames import concat
from netlab.lab.internet import reading
from netlab.lab.internet.routing import Atlas
from netlab.lab.internet.truth import Flow, Truth
from netlab.path.course import path_changes, path_runs
from netlab.path.stats import path_stats


def links(*rows: list[str], **attributes: float) -> nx.DiGraph:
    graph = nx.DiGraph()
    for row in rows:
        nx.add_path(graph, row, **attributes)
        nx.add_path(graph, row[::-1], **attributes)
    return graph


def with_detour(*detour: str, loss: float = 0.0) -> nx.DiGraph:
    """A way over a, and from second 10 on one over the detour; back at second 20."""
    graph = links(["client", "r1", "a", "r2", "web"], ["r1", *detour, "r2"], delay_ms=2, loss=loss)
    for near, far in (("r1", detour[0]), (detour[0], "r1")):
        graph.edges[near, far]["metric"] = 9
    graph.graph["changes"] = [
        {"at_s": 9.5, "between": ["r1", "a"], "up": False},
        {"at_s": 19.5, "between": ["r1", "a"], "up": True},
    ]
    return graph


def true_hops(graph: nx.DiGraph, at_s: float) -> str:
    table = Truth(Atlas(reading.epochs(graph)), 0).hops(Flow("web"), at_s=at_s)
    return " ".join(str(hops[0]) for hops in table)


def seconds(times: pd.Series) -> list[float]:
    return [(at.value - START_NS) / 10**9 for at in times]


def with_silent_detour() -> nx.DiGraph:
    """A way of two hops, and from second 10 on one of three, of which the new one does not answer."""
    graph = links(["client", "r1", "web"], ["r1", "s", "web"], delay_ms=2)
    graph.nodes["s"]["silent"] = True
    for near, far in (("r1", "s"), ("s", "r1")):
        graph.edges[near, far]["metric"] = 9
    graph.graph["changes"] = [{"at_s": 9.5, "between": ["r1", "web"], "up": False}]
    return graph


def test_an_end_that_has_moved_behind_a_silent_hop_is_another_path() -> None:
    channel = WalkedChannel(with_silent_detour())
    hops = trace(channel, runs=30, queries=1, every_s=1.0)

    web = channel.target.address
    (change,) = path_changes(hops).itertuples()
    assert (change.run, change.first_ttl, change.last_ttl) == (10, 2, 2)
    assert [change.hops_before.split()[1:], change.hops_after.split()[1:]] == [[web], ["*", web]]
    stats = path_stats(hops).set_index("ttl")
    assert stats["address"].tolist()[1:] == [web, web]
    assert stats.loc[3, ["probes", "answers"]].tolist() == [20, 20]


def test_an_answer_lost_at_the_end_now_and_then_is_no_other_path() -> None:
    graph = links(["client", "r1", "web"], delay_ms=2)
    graph.edges["r1", "web"]["loss"] = 0.4
    hops = trace(WalkedChannel(graph, seed=3), runs=100, queries=1, every_s=1.0)

    assert hops["ttl"].max() > 2
    assert path_changes(hops).empty
    assert path_stats(hops)["ttl"].tolist() == [1, 2]


def test_another_flow_of_the_same_number_is_no_change_of_the_path() -> None:
    graph = links(["client", "r1", "a", "r2", "web"], ["r1", "b", "r2"], delay_ms=2)
    hops = trace(WalkedChannel(graph), flows=8, runs=2, every_s=1.0)
    first, second = path_runs(hops).drop_duplicates("hops")["flow"]
    calls = [
        hops[hops["flow"] == flow].assign(flow=0, trace=trace)
        for flow, trace in ((first, "one"), (second, "other"))
    ]

    runs = path_runs(concat(calls))

    assert runs.groupby("flow")["hops"].nunique().tolist() == [1, 1]
    assert path_changes(concat(calls)).empty


@pytest.mark.parametrize("detour", [["b"], ["b", "c"]], ids=["as long", "longer"])
@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_each_change_is_told_with_its_time_and_both_paths(detour: list[str], loss: float) -> None:
    graph = with_detour(*detour, loss=loss)

    changes = path_changes(trace(WalkedChannel(graph, seed=5), runs=30, queries=2, every_s=1.0))

    truth = [true_hops(graph, at_s) for at_s in (0, 10, 20)]
    assert changes["hops_before"].tolist() == truth[:2]
    assert changes["hops_after"].tolist() == truth[1:]
    assert changes["run"].tolist() == pytest.approx([10, 20], abs=1 if loss else 0)
    assert seconds(changes["at"]) == pytest.approx([10, 20], abs=1.5 if loss else 0.2)
    assert (changes["last_at"] < changes["at"]).all()
    assert changes["first_ttl"].tolist() == [2, 2]
    assert changes["kind"].tolist() == ["unknown", "return"]


@pytest.mark.parametrize("several", [False, True])
def test_a_clock_that_is_set_back_hides_and_makes_no_change(*, several: bool) -> None:
    hops, _ = watch(WalkedChannel(with_detour("b", "c")), duration_s=30)
    hops = hops.assign(trace="one")
    stepped = hops.copy()
    stepped.loc[stepped["run"] >= 10, "sent_at"] -= pd.Timedelta("2.5s")
    if several:
        earlier = hops.assign(trace="other", sent_at=hops["sent_at"] - pd.Timedelta("1h"))
        hops, stepped = concat([earlier, hops]), concat([earlier, stepped])

    found, true = path_changes(stepped), path_changes(hops)

    columns = ["run", "kind", "hops_before", "hops_after"]
    assert len(true) == (4 if several else 2)
    assert found[columns].to_numpy().tolist() == true[columns].to_numpy().tolist()


def test_lost_answers_make_no_other_path() -> None:
    graph = links(["client", "r1", "r2", "r3", "web"], delay_ms=2, loss=0.15)

    hops = trace(WalkedChannel(graph, seed=1), runs=80, queries=1, every_s=1.0)

    assert hops["address"].isna().any()
    assert path_changes(hops).empty
    assert len(set(path_runs(hops)["path"])) == 1


def test_a_run_has_the_id_of_its_path_also_in_another_capture() -> None:
    graph = with_detour("b")
    graph.graph["changes"] = []

    first, second = (path_runs(trace(WalkedChannel(graph, seed=seed))) for seed in (1, 2))

    assert first["path"].tolist() == second["path"].tolist()
    assert first["hops"].tolist() == [true_hops(graph, 0)]


def test_a_hop_that_each_packet_reaches_another_way_is_no_change() -> None:
    graph = links(["client", "r1", "a", "r2", "web"], ["r1", "b", "r2"], delay_ms=2)
    graph.nodes["r1"]["balance"] = "packet"

    hops = trace(WalkedChannel(graph, seed=2), runs=60, queries=1, every_s=1.0)

    assert hops.loc[hops["ttl"] == 2, "address"].nunique() == 2
    assert path_changes(hops).empty
    assert path_runs(hops)["hops"].str.split().str[1].unique().tolist() == ["*"]


def balanced(*extra: str) -> nx.DiGraph:
    return links(*(["client", "r1", middle, "r2", "web"] for middle in ("a", "b", "c", *extra)), delay_ms=2)


def test_a_flow_that_a_load_balancer_moves_to_a_known_branch_is_remapped() -> None:
    graph = balanced()
    graph.graph["changes"] = [{"at_s": 19.5, "between": ["r1", "c"], "up": False}]

    hops, _ = watch(WalkedChannel(graph, seed=3), duration_s=60, flows=8)

    assert hops.loc[hops["ttl"] == 2, "address"].nunique() == 3
    changes = path_changes(hops)
    assert len(changes) > 0
    assert set(changes["kind"]) == {"remap"}


def test_a_router_that_no_flow_had_met_is_a_new_route() -> None:
    graph = balanced("d")
    for ends in (("r1", "d"), ("d", "r1")):
        graph.edges[ends]["metric"] = 2
    middles = ("a", "b", "c")
    graph.graph["changes"] = [{"at_s": 19.5, "between": ["r1", m], "up": False} for m in middles]

    hops, _ = watch(WalkedChannel(graph, seed=3), duration_s=60, flows=4)

    changes = path_changes(hops)
    assert sorted(changes["flow"]) == [0, 1, 2, 3]
    assert set(changes["kind"]) == {"route"}


def test_targets_do_not_mix() -> None:
    graph = links(["client", "r1", "web"], ["r1", "db"], delay_ms=2)

    both = concat([trace(WalkedChannel(graph, name)) for name in ("web", "db")])

    assert path_changes(both).empty
    assert path_runs(both)["path"].nunique() == 2


def test_a_trace_without_any_answer_is_one_unknown_path() -> None:
    graph = links(["client", "r1", "web"], delay_ms=2)
    graph.nodes["r1"]["silent"] = graph.nodes["web"]["silent"] = True

    runs = path_runs(trace(WalkedChannel(graph), max_ttl=4))

    assert runs[["hops", "reached"]].to_numpy().tolist() == [["*", False]]


def test_what_is_no_frame_of_hops_is_refused() -> None:
    with pytest.raises(BadInput, match=r"path_changes\(\) needs the column 'target'"):
        path_changes(pd.DataFrame())


@pytest.mark.privileged
def test_runs_of_traces_at_several_times_are_not_taken_for_one() -> None:
    first = netlab.traceroute("127.0.0.1", runs=2)
    second = netlab.traceroute("127.0.0.1", runs=2, source_port=int(first["source_port"][0]))
    moved = second.assign(address=pd.array(["127.0.0.9"] * len(second), "string"))
    hops = concat([moved, first])

    assert path_runs(hops)["run"].tolist() == [0, 1, 2, 3]
    assert path_changes(hops)[["run", "hops_before", "hops_after"]].to_numpy().tolist() == [
        [2, "127.0.0.1", "127.0.0.9"]
    ]
