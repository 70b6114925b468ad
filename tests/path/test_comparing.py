"""Two times side by side: what was changed in the simulated internet is what is found, and nothing else."""

from __future__ import annotations

import networkx as nx
import pandas as pd
import pytest
from walked import WalkedChannel, trace

from netlab.errors import BadInput
from netlab.path.comparing import compare
from netlab.path.stats import path_stats
from netlab.schemas import COMPARISON, HOPS


def chain(*, delay_ms: float = 2.0, loss: float = 0.0) -> nx.Graph:
    graph = nx.path_graph(["client", "r1", "r2", "r3", "web"])
    nx.set_edge_attributes(graph, 2, "delay_ms")
    nx.set_edge_attributes(graph, 0.5, "jitter_ms")
    graph.edges["r1", "r2"].update(delay_ms=delay_ms, loss=loss)
    return graph


def hops(graph: nx.Graph, seed: int = 0, runs: int = 40) -> pd.DataFrame:
    return trace(WalkedChannel(graph, seed=seed), runs=runs, queries=1, every_s=1.0)


@pytest.mark.parametrize("seed", range(5))
def test_two_times_alike_do_not_differ(seed: int) -> None:
    found = compare(hops(chain(), seed), hops(chain(), seed + 100))

    assert found["change"].tolist() == ["same"] * 4
    assert not found["rtt_changed"].any()
    assert not found["loss_changed"].any()
    assert found.attrs["summary"] == "web: same path, round trip and loss"


def test_a_slower_link_shows_at_each_later_hop() -> None:
    found = compare(hops(chain()), hops(chain(delay_ms=12), 1))

    assert found["rtt_changed"].tolist() == [False, True, True, True]
    assert found["rtt_shift_ms"].tolist() == pytest.approx([0, 20, 20, 20], abs=0.5)
    assert not found["loss_changed"].any()
    assert "ms, from TTL 2 (198.18.0.3) on)" in found.attrs["summary"]


def test_a_hop_that_is_slow_to_answer_does_not_move_the_end() -> None:
    graph = nx.DiGraph(chain())
    graph.add_edge("r2", "detour", delay_ms=15)
    graph.add_edge("detour", "client", delay_ms=15)
    graph.edges["r2", "r1"]["metric"] = 9
    graph.add_edge("r3", "r1", delay_ms=4.25, jitter_ms=0.5)  # later answers do not come back by r2

    found = compare(hops(chain()), hops(graph, 1))

    assert found["rtt_changed"].tolist() == [False, True, False, False]
    assert found.attrs["summary"] == "web: same path; RTT of 1 hops changed, but not the end's"


def test_loss_shows_where_it_begins_and_at_the_end() -> None:
    found = compare(hops(chain()), hops(chain(loss=0.3), 1))

    assert found["loss_changed"].tolist() == [False, True, True, True]
    assert not found["rtt_changed"].any()
    assert found["loss_before"].tolist() == [0, 0, 0, 0]
    after = hops(chain(loss=0.3), 1)
    lost = after[after["ttl"] <= 4].groupby("ttl")["address"].agg(lambda answers: answers.isna().mean())
    assert found["loss_after"].tolist() == pytest.approx(lost.tolist())
    assert "loss 0.0% →" in found.attrs["summary"]


def test_a_slower_link_on_the_way_to_a_silent_target_is_said() -> None:
    before, after = chain(), chain(delay_ms=150)
    for graph in (before, after):
        graph.nodes["web"]["udp"] = "silent"

    found = compare(*(trace(WalkedChannel(graph), queries=20, max_ttl=6) for graph in (before, after)))

    said = "web: same path; RTT of 2 hops changed, from TTL 2 (198.18.0.3) on; the target does not answer"
    assert found.attrs["summary"] == said


def test_two_hops_that_answer_by_one_name_are_two() -> None:
    before = nx.path_graph(["client", "r1", "r2", "r3", "web"])
    nx.set_edge_attributes(before, 2, "delay_ms")
    nx.set_edge_attributes(before, 0.5, "jitter_ms")
    for node in ("r2", "r3"):
        before.nodes[node]["answers_from4"] = "192.0.2.9"
    slow, lossy = before.copy(), before.copy()
    slow.edges["r2", "r3"]["delay_ms"] = 100
    lossy.nodes["r3"].update(icmp_per_s=0.1, icmp_burst=1)

    longer, thinner = (compare(hops(before), hops(after, 1)) for after in (slow, lossy))

    assert longer["ttl_after"].tolist() == thinner["ttl_after"].tolist() == [1, 2, 3, 4]
    assert longer["rtt_changed"].tolist() == [False, False, True, True]
    assert ", from TTL 3 (192.0.2.9) on)" in longer.attrs["summary"]
    assert thinner["loss_changed"].tolist() == [False, False, True, False]
    assert thinner["address"].notna().all()


@pytest.mark.parametrize("queries", [3, 5])
def test_what_so_few_answers_cannot_tell_is_left_open(queries: int) -> None:
    before, after = (trace(WalkedChannel(chain(delay_ms=ms)), queries=queries) for ms in (2, 150))

    found = compare(before, after)

    assert found["rtt_changed"].isna().all()
    assert found["loss_changed"].isna().all()
    too_few = "too few answers to tell whether the {} changed"
    assert found.attrs["summary"] == f"web: same path; {too_few.format('round trip or the loss')}"
    gaps = {gap["detail"]: gap["count"] for gap in found.attrs["coverage"]}
    assert gaps == {too_few.format("round trip"): 4, too_few.format("loss"): 4}


def test_eight_answers_on_each_side_tell_a_shift() -> None:
    before, after = (trace(WalkedChannel(chain(delay_ms=ms)), queries=8) for ms in (2, 150))

    assert compare(before, after)["rtt_changed"].tolist() == [False, True, True, True]


def rejecting(share: float, count: int = 200) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a path whose second hop turns back that share of the runs, and the probes through to its end."""
    graph = nx.path_graph(["client", "r1", "r2", "web"])
    whole = hops(graph, runs=count).astype({"reply": object})
    back = whole["run"] < share * count
    turned = {"reply": "admin-prohibited", "reached": False}
    parts = whole[~(back & (whole["ttl"] > 2))].copy()
    parts.loc[back & (parts["ttl"] == 2), list(turned)] = list(turned.values())
    ends = whole[whole["ttl"] == 3].assign(ttl=64)
    ends.loc[back, [*turned, "address"]] = [*turned.values(), "198.18.0.3"]
    return parts, ends


@pytest.mark.parametrize("which", [0, 1], ids=["hops", "end to end"])
def test_probes_that_were_turned_back_have_not_arrived(which: int) -> None:
    found = compare(rejecting(0)[which], rejecting(0.5)[which])

    end = found[found["address"] == "198.18.0.4"].iloc[0]
    assert (end["loss_before"], end["loss_after"], end["probes_after"]) == (0, 0.5, 200)
    assert found.attrs["summary"].endswith("; loss 0.0% → 50.0% at the end")
    assert found.loc[found["address"] != "198.18.0.4", "loss_changed"].fillna(value=False).sum() == 0


def test_hops_of_a_longer_path_appear_move_and_vanish() -> None:
    longer = nx.path_graph(["client", "r1", "r2", "r3", "web"])
    longer.add_nodes_from(chain().nodes)
    addresses = {"r1": 1, "r2": 2, "r3": 3, "new": 9, "web": 4}
    before, after = (
        nx.path_graph(["client", "r1", "r2", "r3", "web"]),
        nx.path_graph(["client", "r1", "new", "r2", "web"]),
    )
    for graph in (before, after):
        nx.set_node_attributes(
            graph, {node: f"192.0.2.{addresses[node]}" for node in graph if node in addresses}, "address4"
        )

    found = compare(hops(before, runs=5), hops(after, runs=5))

    assert found[["address", "change", "ttl_before", "ttl_after"]].fillna(0).to_numpy().tolist() == [
        ["192.0.2.1", "same", 1, 1],
        ["192.0.2.9", "appeared", 0, 2],
        ["192.0.2.2", "moved", 2, 3],
        ["192.0.2.3", "vanished", 3, 0],
        ["192.0.2.4", "same", 4, 4],
    ]
    assert found.attrs["summary"].startswith("web: another path at TTL 2 to 3 (192.0.2.1 192.0.2.2")


def test_a_path_that_another_flow_has_is_said_to_be_of_one() -> None:
    graph = nx.Graph([("client", "r1"), ("r1", "a"), ("a", "web"), ("r1", "b"), ("b", "web")])
    both = trace(WalkedChannel(graph), flows=8)
    ways = both[both["ttl"] == 2].drop_duplicates("address")["flow"]
    one, other = (both[both["flow"] == flow].assign(flow=0) for flow in ways)

    said = compare(one, other).attrs["summary"]

    assert said.startswith("web: another path at TTL 2 (")
    assert " of another flow, as a load balancer may have it; " in said


def test_a_target_that_is_gone_is_said() -> None:
    dead = chain()
    dead.nodes["web"]["udp"] = "silent"

    found = compare(hops(chain(), runs=3), trace(WalkedChannel(dead), max_ttl=6))

    assert found.attrs["summary"] == "web: the target is not reached any more"
    assert found.set_index("address").loc["198.18.0.5", "change"] == "vanished"


CUT = {"what": "interrupted runs", "kind": "incomplete", "count": 1, "detail": "the rest was not sent"}


@pytest.mark.parametrize("turned", [False, True])
def test_a_target_that_an_interrupted_trace_did_not_reach_is_not_gone(*, turned: bool) -> None:
    whole = hops(chain(), runs=1)
    cut = whole[whole["ttl"] <= 2].copy()
    cut.attrs["coverage"] = [CUT]

    found = compare(cut, whole) if turned else compare(whole, cut)

    assert found.attrs["summary"] == "web: the target is not reached in what was interrupted"


def test_no_hops_compare_to_none() -> None:
    nothing = hops(chain(), runs=1).iloc[:0]

    assert compare(nothing, nothing).columns.tolist() == COMPARISON.names


def test_a_target_that_could_not_be_probed_does_not_answer() -> None:
    before = hops(chain(), runs=3)
    failed = HOPS.frame({"target": ["web"], "error": ["no route"]})

    assert compare(before, failed).attrs["summary"] == "web: nothing answers now"
    assert compare(failed, failed).empty


def test_what_is_no_frame_of_hops_is_refused() -> None:
    with pytest.raises(BadInput, match=r"compare\(\) needs the column 'target'"):
        compare(hops(chain(), runs=1), pd.DataFrame())


def test_what_the_targets_own_firewall_rejects_has_arrived_as_for_statistics() -> None:
    before = hops(chain())
    own = before["reached"].fillna(value=False) & (before["run"] % 2 == 0)
    after = before.assign(
        reply=before["reply"].astype(object).mask(own, "admin-prohibited").astype("category"),
        reached=before["reached"].mask(own, other=False),
    )

    found = compare(before, after).set_index("ttl_after")

    assert found.loc[4, "loss_after"] == path_stats(after).set_index("ttl").loc[4, "loss"] == 0
