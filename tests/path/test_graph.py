from __future__ import annotations

import networkx as nx
import pandas as pd
import pytest

from netlab.errors import BadInput
from netlab.frames import Gap, Missing, concat
from netlab.path.graph import path_graph
from netlab.schemas import HOPS


def hops(
    text: str, *, target: str = "t", flow: int = 0, run: int = 0, first_ttl: int = 1, **constant: object
) -> pd.DataFrame:
    """Return the frame of one trace: TTLs separated by spaces, answers by commas, `*` for silence.

    An answer is an address and its round trip: `a:1.5`; `d!9` is the destination.
    """
    rows = []
    for ttl, answers in enumerate(text.split(), first_ttl):
        for attempt, answer in enumerate(answers.split(",")):
            address, _, rtt_ms = answer.replace("!", ":").rpartition(":")
            known = answer != "*"
            rows.append(
                {
                    "target": target,
                    "run": run,
                    "flow": flow,
                    "ttl": ttl,
                    "attempt": attempt,
                    "address": address if known else None,
                    "rtt_ms": float(rtt_ms) if known else None,
                    "reached": "!" in answer if known else None,
                    **constant,
                }
            )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return HOPS.frame(columns, missing=[Missing("late answers", Gap.INCOMPLETE, 1, "why")])


def joined(*frames: pd.DataFrame) -> nx.DiGraph[str]:
    return path_graph(concat(frames))


def test_one_link_local_address_on_two_links_is_two_routers() -> None:
    graph = joined(
        hops("fe80::1:1 d!9", target="t", trace="x", interface="eth0", host="web"),
        hops("fe80::1:1 e!9", target="u", trace="y", interface="eth1", host="web"),
    )

    assert set(graph.successors("source")) == {"fe80::1%eth0", "fe80::1%eth1"}
    assert list(graph.successors("fe80::1%eth0")) == ["d"]


def test_one_link_local_address_at_two_hosts_is_two_routers() -> None:
    graph = joined(
        hops("fe80::1:1 d!9", trace="x", interface="eth0", host="web", netns=1),
        hops("fe80::1:1 d!9", trace="y", interface="eth0", host="db", netns=2),
    )

    assert list(graph.predecessors("d")) == ["fe80::1%web", "fe80::1%db"]


def test_a_trace_is_a_chain_from_the_source_to_the_destination() -> None:
    graph = path_graph(hops("a:1,a:3,a:2 b:5,b:4,b:6 d!9,d!8,d!7"))

    assert list(graph.edges) == [("source", "a"), ("a", "b"), ("b", "d")]
    assert graph.nodes["b"] == {
        "ttl": 2,
        "probes": 3,
        "answers": 3,
        "shared": 0,
        "loss": 0,
        "rtt_ms": 5,
        "rtt_min_ms": 4,
        "rtt_p95_ms": pytest.approx(5.9),
        "rtt_max_ms": 6,
        "flows": [0],
        "targets": ["t"],
        "first_seen": None,
        "last_seen": None,
        "reached": False,
        "name": None,
        "silent": False,
        "source": False,
        "confidence": None,
        "balances": None,
        "rewrites": None,
        "mpls": [],
        "asn": None,
        "as_name": None,
    }
    assert graph.nodes["d"]["reached"]
    assert (graph.nodes["source"]["answers"], graph.nodes["source"]["rtt_ms"]) == (0, None)
    assert graph.edges["a", "b"] == {
        "probes": 3,
        "answers": 3,
        "shared": 0,
        "loss": 0,
        "rtt_ms": 5,
        "rtt_increase_ms": 3,
        "flows": [0],
        "targets": ["t"],
        "first_seen": None,
        "last_seen": None,
        "certain": True,
        "confidence": None,
    }


def test_a_silent_ttl_is_a_node_and_no_link_passes_it() -> None:
    graph = path_graph(hops("a:1 *,* d!3"))

    assert list(graph.edges) == [("source", "a"), ("a", "* ttl 2"), ("* ttl 2", "d")]
    assert graph.nodes["* ttl 2"]["silent"]
    assert graph.nodes["* ttl 2"]["loss"] == 1
    assert graph.edges["a", "* ttl 2"]["rtt_increase_ms"] is None


def test_silent_ttls_after_the_last_answer_are_left_out() -> None:
    assert list(path_graph(hops("a:1 * *")).nodes) == ["source", "a"]


def test_a_trace_without_any_answer_is_the_source_alone() -> None:
    assert list(path_graph(hops("* * *")).nodes) == ["source"]


def test_lost_probes_are_loss_of_the_node_and_its_edge() -> None:
    graph = path_graph(hops("a:1,*,* d!2,d!2,*"))

    assert graph.nodes["a"]["loss"] == pytest.approx(2 / 3)
    assert (graph.edges["a", "d"]["probes"], graph.edges["a", "d"]["answers"]) == (3, 2)


def test_what_one_run_lost_is_loss_of_the_hop_that_answered_the_others() -> None:
    graph = joined(hops("a:1 b:2 c:3 d!4"), hops("a:1 * * d!4", run=1), hops("a:1 b:2 * d!4", run=2))

    assert list(graph) == ["source", "a", "b", "c", "d"]
    assert [graph.nodes[node]["loss"] for node in "abcd"] == pytest.approx([0, 1 / 3, 2 / 3, 0])
    assert (graph.edges["b", "c"]["probes"], graph.edges["b", "c"]["answers"]) == (3, 1)


@pytest.mark.parametrize(
    "others",
    [
        ["a:1 b:2 d!3", "a:1 e:2 d!3"],  # either may have lost it
        ["a:1 b:2 c:3 d!4"],  # the way was another one
    ],
)
def test_what_may_have_been_lost_by_another_is_nobodys(others: list[str]) -> None:
    runs = [*others, "a:1 * d!3"]
    graph = joined(*(hops(text, run=run) for run, text in enumerate(runs)))

    assert list(graph.predecessors("d"))[-1] == "* ttl 2"
    assert graph.nodes["b"]["loss"] == 0


def test_flows_that_take_different_ways_are_not_crossed() -> None:
    graph = joined(hops("r:1 a:2 x:3 d!4", flow=0), hops("r:1 b:2 y:3 d!4", flow=1))

    assert set(graph.edges) == {
        ("source", "r"),
        ("r", "a"),
        ("a", "x"),
        ("x", "d"),
        ("r", "b"),
        ("b", "y"),
        ("y", "d"),
    }
    assert graph.edges["source", "r"]["probes"] == 2


def test_runs_of_a_flow_are_not_crossed_either() -> None:
    graph = joined(hops("a:1 x:2 d!3", run=0), hops("b:1 y:2 d!3", run=1))

    assert ("a", "y") not in graph.edges
    assert ("b", "x") not in graph.edges


def test_silence_between_different_neighbours_is_different_nodes() -> None:
    graph = joined(hops("a:1 * x:3", flow=0), hops("b:1 * y:3", flow=1), hops("a:1 * x:3", flow=2))

    assert not nx.has_path(graph, "a", "y")
    assert {node for node, silent in graph.nodes(data="silent") if silent} == {"* ttl 2", "* ttl 2 #2"}


def test_links_that_may_not_exist_are_marked() -> None:
    graph = path_graph(hops("r:1,r:1 a:2,b:2 x:3,y:3 d!4,d!4"))

    assert graph.edges["r", "a"]["certain"]
    assert not graph.edges["a", "x"]["certain"]
    assert graph.edges["x", "d"]["certain"]


def test_no_link_is_claimed_over_ttls_that_were_not_probed() -> None:
    assert list(path_graph(hops("c:3 d!4", first_ttl=3)).edges) == [("c", "d")]


def test_the_graph_says_what_was_asked_and_what_is_missing() -> None:
    graph = path_graph(hops("a:1", target="db.example"))

    assert graph.graph["target"] == "db.example"
    assert graph.graph["coverage"][0]["what"] == "late answers"


def test_two_calls_by_the_same_flow_are_not_crossed() -> None:
    graph = joined(hops("a:1 x:2 d!3", trace="one"), hops("b:1 y:2 d!3", trace="two"))

    assert not {("a", "y"), ("b", "x")} & set(graph.edges)


def test_traces_to_several_targets_share_their_nodes() -> None:
    graph = joined(hops("r:1 a:2 d!3", target="d"), hops("r:3 a:6 e!9", target="e"))

    assert graph.graph["target"] == "d, e"
    assert graph.nodes["a"]["targets"] == ["d", "e"]
    assert graph.nodes["a"]["rtt_ms"] == 4
    assert (graph.edges["r", "a"]["probes"], graph.edges["r", "a"]["rtt_increase_ms"]) == (2, 2)
    assert graph.edges["a", "e"]["targets"] == ["e"]


def test_sources_are_one_node_for_each_host_and_namespace() -> None:
    graph = joined(
        hops("r:1 d!2", host="web1", netns=1, source_address="10.0.0.1"),
        hops("r:1 d!2", host="web1", netns=1, source_address="10.0.0.2", run=1),
        hops("r:1 d!2", host="web2", netns=1),
        hops("q:1 r:2 d!3", host="web2", netns=2),
    )

    assert [node for node, source in graph.nodes(data="source") if source] == [
        "source web1",
        "source web2 netns 1",
        "source web2 netns 2",
    ]
    assert graph.edges["source web1", "r"]["probes"] == 2
    assert ("source web2 netns 2", "r") not in graph.edges
    assert graph.nodes["r"]["ttl"] == 1


def test_the_silent_first_hops_of_two_hosts_are_two_nodes() -> None:
    graph = joined(hops("* d!2", host="web1"), hops("* d!2", host="web2"))

    assert not nx.has_path(graph, "source web1", "* ttl 1 #2")


def test_the_first_step_names_the_gateway_and_the_interface() -> None:
    graph = joined(
        hops("* d!2", gateway="192.0.2.1", interface="eth0"),
        hops("* d!2", gateway="192.0.2.1", interface="eth1", run=1),
        hops("e!1", interface="lo", target="e"),
    )

    assert graph.edges["source", "* ttl 1"]["gateway"] == "192.0.2.1"
    assert graph.edges["source", "* ttl 1"]["interface"] == "eth0, eth1"
    assert (graph.edges["source", "e"]["gateway"], graph.edges["source", "e"]["interface"]) == (None, "lo")
    assert "gateway" not in graph.edges["* ttl 1", "d"]


def test_flows_are_told_apart_by_what_is_on_the_wire() -> None:
    graph = joined(
        hops("r:1 a:2 d!3", source_port=4000),
        hops("r:1 b:2 d!3", source_port=5000),
        hops("r:1 a:2 d!3", source_port=4000, run=1),
    )

    assert [flow["source_port"] for flow in graph.graph["flows"]] == [4000, 5000]
    assert (graph.nodes["r"]["flows"], graph.nodes["a"]["flows"]) == ([0, 1], [0])
    assert graph.edges["b", "d"]["flows"] == [1]


def test_a_node_and_an_edge_say_when_they_were_seen() -> None:
    early, late = pd.Timestamp("2026-11-21T10:00Z"), pd.Timestamp("2026-11-21T11:00Z")
    graph = joined(
        hops("a:1,* d!2", sent_at=early), hops("a:1 e!2", sent_at=late, run=1), hops("b:1,* *", sent_at=late)
    )

    assert (graph.nodes["a"]["first_seen"], graph.nodes["a"]["last_seen"]) == (early, late)
    assert (graph.edges["a", "d"]["first_seen"], graph.edges["a", "d"]["last_seen"]) == (early, early)
    assert (graph.nodes["b"]["first_seen"], graph.nodes["b"]["last_seen"]) == (late, late)


def test_nodes_have_the_labels_and_the_owners_of_their_addresses() -> None:
    labelled = hops("a:1 b:2", mpls="L=5,E=0,S=1,T=1", asn=64500, as_name="EXAMPLE")
    graph = joined(labelled, hops("a:1 b:2", run=1, mpls="L=7,E=0,S=1,T=1"), hops("a:1 c:2", run=2))

    assert graph.nodes["b"]["mpls"] == ["L=5,E=0,S=1,T=1", "L=7,E=0,S=1,T=1"]
    assert (graph.nodes["b"]["asn"], graph.nodes["b"]["as_name"]) == (64500, "EXAMPLE")
    assert (graph.nodes["c"]["mpls"], graph.nodes["c"]["asn"]) == ([], None)


def test_a_recording_without_the_newer_columns_is_a_graph_too() -> None:
    newer = ["trace", "host", "netns", "source_address", "gateway", "interface", "mpls", "asn", "as_name"]

    assert list(path_graph(hops("a:1 d!2").drop(columns=newer)).edges) == [("source", "a"), ("a", "d")]


def test_an_empty_frame_is_an_empty_graph() -> None:
    assert list(path_graph(HOPS.empty()).nodes) == []


@pytest.mark.parametrize("wrong", [pd.DataFrame({"ttl": [1]}), None, []])
def test_what_is_no_trace_is_refused(wrong: object) -> None:
    with pytest.raises(BadInput, match="needs the column"):
        path_graph(wrong)  # type: ignore[arg-type]


def test_what_one_of_several_lost_at_a_ttl_is_the_loss_of_none() -> None:
    graph = joined(hops("r:1,r:1,r:1 a:5,b:5,* d!9,d!9,d!9"), hops("r:1,r:1,r:1 a:5,*,* d!9,d!9,d!9", run=1))

    figures = {
        node: [graph.nodes[node][key] for key in ("probes", "answers", "shared", "loss")] for node in "abd"
    }
    assert figures == {"a": [2, 2, 3, None], "b": [1, 1, 1, None], "d": [6, 6, 0, 0.0]}


def test_flows_of_hosts_with_one_address_are_apart() -> None:
    # Containers, both with one address; what one lost at TTL 2 is at the end of the path of the other.
    def way(text: str, host: str, at: int) -> pd.DataFrame:
        sent_at = pd.Timestamp(at, unit="s", tz="UTC")
        return hops(text, host=host, source_address="172.17.0.2", target_address="d", sent_at=sent_at)

    graph = joined(way("r:1 d!9", "one", 1), way("s:1 * u:7 d!9", "two", 2))

    assert [flow["host"] for flow in graph.graph["flows"]] == ["one", "two"]
    assert nx.has_path(graph, "source two", "u")


def test_what_the_target_lost_is_its_loss() -> None:
    runs = [
        hops("a:1 b:2 d!3", run=0),
        hops("a:1 b:2 *", run=1),
        hops("a:1 * *", run=2),
        hops("a:1 b:2 d!3", run=3),
    ]

    graph = joined(*runs)

    assert list(graph.edges) == [("source", "a"), ("a", "b"), ("b", "d")]
    assert [graph.nodes[node]["loss"] for node in "abd"] == [0.0, 0.25, 0.5]
    assert graph.edges["b", "d"]["loss"] == 0.5


def test_a_target_met_behind_its_own_lost_answer_is_one_hop_away_all_the_same() -> None:
    graph = joined(hops("a:1 d!2", run=0), hops("a:1 * d!2", run=1), hops("a:1 d!2", run=2))

    assert list(graph.edges) == [("source", "a"), ("a", "d")]
    assert (graph.nodes["d"]["probes"], graph.nodes["d"]["answers"]) == (3, 2)


def test_lost_probes_do_not_say_when_a_hop_was_seen_last() -> None:
    early, late = (pd.Timestamp(f"2026-01-0{day}", tz="UTC") for day in (1, 2))

    graph = joined(hops("a:1 d!2", run=0, sent_at=early), hops("* *", run=1, sent_at=late))

    assert [graph.nodes[node]["last_seen"] for node in "ad"] == [early, early]
    assert graph.nodes["d"]["loss"] == 0.5


def test_who_rewrites_is_told_by_the_hops_of_one_trace() -> None:
    one = hops("a:1 b:2 * d!3", trace="one").assign(rewritten=["nothing", "nothing", pd.NA, pd.NA])
    other = hops("a:1 * c:2 d!3", trace="other").assign(rewritten=["nothing", pd.NA, "source", pd.NA])

    graph = joined(one, other)

    assert [graph.nodes[node]["rewrites"] for node in "abc"] == [None, None, None]


def test_a_silence_between_the_same_neighbours_is_one_in_each_of_many_traces() -> None:
    lossy = ["a:1 * c:3 d!4", "a:1 * * d!4", "* * c:3 d!4", "a:1 * x:3 d!4"]

    graph = joined(*(hops(lossy[run % 4], run=run) for run in range(40)))

    assert sorted(filter(lambda node: graph.nodes[node]["silent"], graph)) == [
        "* ttl 2",
        "* ttl 2 #2",
        "* ttl 2 #3",
        "* ttl 2 #4",
        "* ttl 3",
    ]
