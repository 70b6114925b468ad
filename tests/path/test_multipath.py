"""All ways to a target, over real sockets: simulated internets whose truth is known, and real kernels."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import networkx as nx
import pandas as pd
import pytest
import shapes

import netlab
from netlab import lab
from netlab.errors import BadInput
from netlab.lab.internet.truth import Flow
from netlab.path.branches import Account

Network = Any  # the fixtures' classes live in conftest.py

both = pytest.mark.parametrize("family", [4, 6])
protocols = pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])

SHAPES = ["diamond", "nested", "unequal", "asymmetric", "chain", "per_packet", "per_destination"]
SEED = 3
SURE = 0.9999  # the most that may be asked for: a test that misses a branch by chance has to be rare


@contextlib.contextmanager
def internet(name: str) -> Iterator[Any]:
    with lab.simulated(lab.load_shape(shapes.DIRECTORY / f"{name}.toml"), seed=SEED) as net:
        yield net


@pytest.fixture(scope="module", params=SHAPES)
def net(request: Any) -> Iterator[Any]:
    with internet(request.param) as built:
        yield built


def true_links(net: Any, family: int, protocol: str) -> set[tuple[str, str]]:
    """Return the links that any of many flows goes over, by asking the shape."""
    found = set()
    for port in range(20_000, 20_400):
        flow = Flow("web", protocol=protocol, source_port=port, port=port, family=family)
        for way in net.truth.paths(flow):
            addresses = ["source", *(net.address(node, family) for node in way)]
            found |= set(pairwise(addresses))
    return found


def undirected(net: Any, graph: Any) -> set[tuple[str, str]]:
    """Return the links of a graph, both ways, and the source's."""
    ends = [(net.address(near), net.address(far)) for near, far in graph.edges]
    return {*ends, *((far, near) for near, far in ends), ("source", net.address("r1"))}


def claimed(found: Account) -> set[tuple[str, str]]:
    return {(link["from"], link["to"]) for link in found["links"] if link["certain"]}


@pytest.mark.privileged
@both
@protocols
def test_all_links_are_found_and_no_others(net: Any, family: int, protocol: str) -> None:
    hops = netlab.multipath(
        net.address("web", family), netns=net.client.netns, protocol=protocol, confidence=SURE
    )
    found = hops.attrs["multipath"]

    assert claimed(found) == true_links(net, family, protocol)
    assert found["reached_confidence"] == SURE
    assert netlab.coverage(hops).empty


@pytest.mark.privileged
def test_the_graph_has_the_links_with_their_confidence(net: Any) -> None:
    hops = netlab.multipath(net.address("web"), netns=net.client.netns, confidence=SURE)
    graph = netlab.path_graph(hops)
    certain = {(near, far) for near, far, edge in graph.edges(data=True) if edge["certain"]}

    assert certain == claimed(hops.attrs["multipath"])
    assert all(graph.edges[edge]["confidence"] > 0.9 for edge in certain)
    assert graph.graph["multipath"]["confidence"] == SURE
    assert all(graph.nodes[node]["confidence"] >= 0.99 for node in graph if node != net.address("web"))


@pytest.mark.privileged
def test_each_flow_keeps_to_the_way_that_the_truth_has_for_it() -> None:
    with internet("diamond") as net:
        hops = netlab.multipath(net.address("web"), netns=net.client.netns)
        for row in hops.dropna(subset=["address"]).itertuples():
            flow = Flow("web", source_port=row.source_port, port=row.port)
            assert [row.address] == net.truth.hops(flow)[row.ttl - 1]


@pytest.mark.privileged
def test_a_balancer_by_destination_shows_when_neighbours_are_asked_for() -> None:
    neighbours = [f"203.0.113.{number}" for number in range(1, 9)]
    with internet("per_destination") as net:
        asked = {"netns": net.client.netns, "confidence": 0.99}
        alone = netlab.multipath("203.0.113.77", **asked)
        hops = netlab.multipath("203.0.113.77", neighbours=neighbours, **asked)
        r1, branches = net.address("r1"), {net.address("a"), net.address("b")}

    assert balancers(alone) == {}
    assert balancers(hops) == {r1: "destination"}
    assert hops["target"].unique().tolist() == ["203.0.113.77", *neighbours]
    assert set(hops.loc[hops["ttl"] == 2, "address"]) == branches
    assert netlab.path_graph(hops).nodes[r1]["balances"] == "destination"


@pytest.mark.privileged
def test_neighbours_are_no_sign_of_a_destination_balancer_where_there_is_none() -> None:
    with internet("chain") as net:
        hops = netlab.multipath(net.address("web"), neighbours=[net.address("r3")], netns=net.client.netns)

    assert balancers(hops) == {}


def balancers(hops: pd.DataFrame) -> dict[str, str]:
    return {n["address"]: n["balances"] for n in hops.attrs["multipath"]["nodes"] if n["balances"]}


@pytest.mark.privileged
def test_a_neighbour_that_is_the_target_takes_no_answers_from_it() -> None:
    with lab.simulated(nx.path_graph(["client", "r1", "web"])) as net:
        web, router = net.address("web"), net.address("r1")
        hops = netlab.multipath(web, neighbours=[web, router, router], netns=net.client.netns)

    assert set(hops.loc[hops["target"] == web, "address"]) == {router, web}
    assert hops["target"].drop_duplicates().tolist() == [web, router]
    assert hops.groupby("target")["trace"].nunique().tolist() == [1, 1]


def test_stopping_leaves_what_was_heard() -> None:
    stop = threading.Event()
    stop.set()
    with internet("chain") as net:
        hops = netlab.multipath(net.address("web"), netns=net.client.netns, stop=stop)

    assert hops.attrs["multipath"]["reached_confidence"] < 0.95


@pytest.mark.privileged
def test_every_probe_that_was_sent_is_counted() -> None:
    with internet("nested") as net:
        found = netlab.multipath(net.address("web"), netns=net.client.netns).attrs["multipath"]

        assert found["probes"] == len(net.truth.log())
        assert found["rule_probes"] <= found["probes"]


@pytest.mark.privileged
def test_a_per_packet_balancer_is_told_from_branches() -> None:
    with internet("per_packet") as net:
        found = netlab.multipath(net.address("web"), netns=net.client.netns, confidence=SURE)
        kinds = {node["address"]: node["balances"] for node in found.attrs["multipath"]["nodes"]}

        assert kinds[net.address("r1")] == "packet"


@pytest.mark.privileged
@pytest.mark.parametrize("length", [1, 2])
def test_behind_a_per_packet_balancer_no_link_is_claimed_that_may_be_none(length: int) -> None:
    graph: nx.Graph[str] = nx.Graph()
    for branch in range(3):
        nx.add_path(graph, ["client", "r1", *(f"{at}{branch}" for at in "ab"[:length]), "r2", "web"])
    graph.nodes["r1"]["balance"] = "packet"
    with lab.simulated(graph, seed=SEED) as net:
        hops = netlab.multipath(net.address("web"), netns=net.client.netns, confidence=SURE)
        drawn = netlab.path_graph(hops)
        truth = undirected(net, graph)

    certain = {(near, far) for near, far, edge in drawn.edges(data=True) if edge["certain"]}
    assert certain <= truth
    assert claimed(hops.attrs["multipath"]) <= truth


@pytest.mark.privileged
def test_limited_rates_are_said_to_lower_the_confidence() -> None:
    graph: nx.Graph[str] = nx.Graph()
    for branch in "abcd":
        nx.add_path(graph, ["client", "r1", branch, "r2", "web"])
    graph.nodes["r2"].update(icmp_per_s=1.0, icmp_burst=6)
    with lab.simulated(graph, seed=SEED) as net:
        hops = netlab.multipath(net.address("web"), netns=net.client.netns)
        truth = undirected(net, graph)

    found = hops.attrs["multipath"]
    assert found["reached_confidence"] < 0.95
    assert claimed(found) <= truth
    assert not any(node["silent_next"] for node in found["nodes"])
    assert netlab.coverage(hops)["what"].tolist().count("branches") == 1


@pytest.mark.privileged
@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_a_silent_router_in_a_diamond_is_a_branch_and_loss_is_none(loss: float) -> None:
    graph: nx.Graph[str] = nx.Graph()
    for branch in "abc":
        nx.add_path(graph, ["client", "r1", branch, "r2", "web"])
    nx.set_edge_attributes(graph, loss / 2, "loss")
    graph.nodes["b"]["silent"] = True
    with lab.simulated(graph, seed=SEED) as net:
        way = {"netns": net.client.netns, "confidence": SURE}
        runs = [netlab.multipath(net.address("web"), **way).attrs["multipath"]["nodes"] for _ in range(5)]
        r1 = net.address("r1")

    silent = [[node["address"] for node in nodes if node["silent_next"]] for nodes in runs]
    assert silent.count([r1]) >= (4 if loss else 5)  # what is lost may be just what would have told


@pytest.mark.privileged
@both
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_real_kernels_balance_and_every_branch_is_found(diamond: Network, family: int, protocol: str) -> None:
    target = "10.99.2.2" if family == 4 else "fd99:2::2"
    hops = netlab.multipath(
        target, netns=diamond.netns("client"), protocol=protocol, confidence=SURE, port=8080
    )
    nexts: dict[str, set[str]] = defaultdict(set)
    for near, far in claimed(hops.attrs["multipath"]):
        nexts[near].add(far)

    first = "10.99.1.2" if family == 4 else "fd99:1::2"
    hop = "10.99.{}.2" if family == 4 else "fd99:{}::2"
    upper = {hop.format(10 + branch) for branch in range(4)}
    assert nexts["source"] == {first}
    assert nexts[first] == upper
    for branch in range(4):
        assert nexts[hop.format(10 + branch)] == {hop.format(20 + branch)}
        assert len(nexts[hop.format(20 + branch)]) == 1


@pytest.mark.privileged
def test_dublin_follows_each_flow_from_end_to_end() -> None:
    with internet("unequal") as net:
        hops = netlab.multipath(net.address("web"), netns=net.client.netns, strategy="dublin", flows=12)
        for flow, rows in hops.groupby("flow"):
            source_port = rows["source_port"].iloc[0]
            truth = net.truth.hops(Flow("web", source_port=source_port))
            assert [[address] for address in rows["address"]] == truth, flow

    assert hops["flow"].nunique() == 12
    assert "multipath" not in hops.attrs


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"strategy": "mad"}, "Did you mean 'mda'"),
        ({"confidence": 1.0}, "confidence 1.0"),
        ({"confidence": 0.3}, "from 0.5 to 0.9999"),
        ({"confidence": 0.9, "strategy": "dublin"}, "Leave it out"),
        ({"flows": 0}, "flows 0"),
        ({"flows": 2001}, "flows 2001"),
        ({"port": 53, "protocol": "icmp"}, "icmp has no ports"),
        ({"neighbours": "192.0.2.1"}, "no list"),
        ({"confidenze": 0.9}, "no option 'confidenze'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        netlab.multipath("127.0.0.1", **options)


@pytest.mark.privileged
def test_a_host_that_is_near_is_found_with_no_router_between() -> None:
    hops = netlab.multipath("127.0.0.1")

    assert isinstance(hops, pd.DataFrame)
    assert claimed(hops.attrs["multipath"]) == {("source", "127.0.0.1")}


REWRITING = {
    "nat_kept": {"home": "source, source port, checksum"},
    "nat_addresses": {"home": "checksum"},
    "nat": {},
    "chain": {},
}


@pytest.mark.privileged
@pytest.mark.parametrize("shape", REWRITING)
def test_a_nat_is_found_by_what_later_quotes_show(shape: str) -> None:
    with internet(shape) as net:
        hops = netlab.multipath(net.address("web"), netns=net.client.netns, strategy="dublin", flows=3)
        graph = netlab.path_graph(hops)
        found = {node: fields for node, fields in graph.nodes(data="rewrites") if fields}
        expected = {net.address(node): fields for node, fields in REWRITING[shape].items()}

    assert found == expected


@pytest.mark.privileged
def test_losses_are_said_to_make_the_confidence_less_sure() -> None:
    graph: nx.Graph[str] = nx.Graph()
    for branch in "abcd":
        nx.add_path(graph, ["client", "r1", branch, "r2", "web"])
    nx.set_edge_attributes(graph, 0.03, "loss")
    with lab.simulated(graph, seed=SEED) as net:
        hops = netlab.multipath(net.address("web"), netns=net.client.netns)

    told = netlab.coverage(hops).set_index("what").loc["branches"]
    assert told["kind"] in {"approximate", "incomplete"}
    assert told["count"] > 0
    assert "which is loss: a branch that never answers looks alike" in told["detail"]


@pytest.mark.privileged
def test_a_silent_branch_among_losses_is_found_or_the_confidence_is_lower() -> None:
    graph: nx.Graph[str] = nx.Graph()
    for branch in "ab":
        nx.add_path(graph, ["client", "r1", branch, "r2", "web"])
    graph.nodes["b"]["silent"] = True
    graph.edges["r1", "a"]["loss"] = 0.2
    runs = []
    for seed in range(12):
        with lab.simulated(graph, seed=seed) as net:
            hops = netlab.multipath(net.address("web"), netns=net.client.netns, timeout_s=0.1)
            met = any("b" in way for way in net.truth.log()["there"])
        runs.append((hops.attrs["multipath"], met))

    silent = [any(node["silent_next"] for node in found["nodes"]) for found, _ in runs]
    # that no flow meets the branch is the risk that the confidence states
    missed = [found for (found, met), shown in zip(runs, silent, strict=True) if met and not shown]
    assert sum(silent) >= 6
    assert sum(found["reached_confidence"] >= 0.95 for found in missed) <= 1


@pytest.mark.privileged
def test_what_was_heard_before_the_host_refused_to_send_is_kept(diamond: Network) -> None:
    too_many = "udp dport 33434 limit rate over 1/hour burst 40 packets"
    drop = f"type filter hook output priority 0\n{too_many} drop"

    with diamond.rules("client", drop):
        hops = netlab.multipath("10.99.2.2", netns=diamond.netns("client"))

    assert hops["address"].notna().sum() >= 20
    assert hops["error"].dropna().str.contains("cannot send a probe").tolist() == [True]
    assert "branches" in netlab.coverage(hops)["what"].tolist()


@pytest.mark.privileged
def test_loss_behind_a_per_packet_balancer_is_no_single_routers() -> None:
    shape = lab.load_shape(shapes.DIRECTORY / "per_packet.toml")
    shape.edges["r1", "b"]["loss"] = shape.edges["b", "r1"]["loss"] = 0.3
    with lab.simulated(shape, seed=SEED) as net:
        hops = netlab.multipath(net.address("web"), netns=net.client.netns, confidence=SURE)
        others = [net.address(node) for node in ("a", "b")]

    graph = netlab.path_graph(hops)

    known = [graph.nodes[node] for node in others]
    assert [node["loss"] for node in known] == [None, None]
    second = hops[hops["ttl"] == 2]
    assert [node["answers"] for node in known] == [
        int((second["address"] == other).sum()) for other in others
    ]
