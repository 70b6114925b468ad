"""What a trace says is what is true of the simulated internet: every shape, kind of probe and IP version."""

from __future__ import annotations

import ipaddress
import itertools
import random
import time

import networkx as nx
import pytest
from shapes import Case, cases

from netlab import lab
from netlab.lab.internet.truth import Flow
from netlab.path.graph import path_graph
from netlab.path.stops import SOURCE
from netlab.path.trace import traceroute
from netlab.wire import ip

pytestmark = pytest.mark.privileged

SHAPES = {case.name: case for case in cases()}
CHANGING = {name for name, case in SHAPES.items() if case.graph.graph.get("changes")}
RANDOM = range(20)
KINDS = [(protocol, family) for protocol in ("udp", "tcp", "icmp") for family in (4, 6)]
PORTS = {"udp": [53, 54, 55], "tcp": [80, 81, 82, 83, 84, 85], "icmp": []}  # of the shape "hosts"


@pytest.mark.parametrize("name", sorted(set(SHAPES) - CHANGING))
def test_hops_and_graph_of_every_shape_are_the_truth(name: str) -> None:
    case = SHAPES[name]
    with lab.simulated(case.graph) as net:
        for target, (protocol, family) in itertools.product(targets(case), KINDS):
            if ipaddress.ip_address(where := address(net, target, family)).version != family:
                continue
            for port in [None, *(PORTS[protocol] if name == "hosts" else [])]:
                # the bucket of that router has as many tokens as there are kinds
                compare(net, where, protocol, port, queries=1 if name == "rate_limit" else 2)


@pytest.mark.parametrize("name", sorted(CHANGING))
def test_a_path_that_changes_is_the_truth_of_its_time(name: str) -> None:
    case = SHAPES[name]
    times = sorted({0.0, *(change["at_s"] for change in case.graph.graph["changes"])})
    with lab.simulated(case.graph) as net:
        begin = time.monotonic()
        for at_s in times:
            time.sleep(max(0.0, begin + at_s - time.monotonic()))
            for (protocol, family), target in itertools.product(KINDS, targets(case)):
                compare(net, address(net, target, family), protocol)


@pytest.mark.parametrize("seed", RANDOM)
def test_hops_and_graph_of_random_shapes_are_the_truth(seed: int) -> None:
    with lab.simulated(shape(seed), seed=seed) as net:
        for protocol, family in KINDS:
            compare(net, address(net, "web", family), protocol)


def shape(seed: int) -> nx.Graph[str]:
    """Return a path with shortcuts, delays, and routers that are silent, hidden, terse or balance oddly."""
    draw = random.Random(seed)
    middle = [f"r{number}" for number in range(draw.randint(2, 9))]
    graph: nx.Graph[str] = nx.path_graph(["client", *middle, "web"])
    for _ in range(draw.randint(0, 6)):
        near = draw.choice(middle)
        nx.add_path(graph, [near, f"x{len(graph)}", draw.choice(middle)])
    graph.remove_edges_from(nx.selfloop_edges(graph))
    for node in middle[1:]:
        habits = [{}, {}, {"silent": True}, {"hidden": True}, {"quote_bytes": 8}, {"reply_ttl": 255}]
        graph.nodes[node].update(draw.choice(habits))
        graph.nodes[node]["balance"] = draw.choice(["flow", "flow", "destination", "packet"])
    graph.nodes["web"]["tcp"] = draw.choice(["rst-ack", "syn-ack", "sack", "rst"])
    graph.nodes["web"]["udp"] = draw.choice(["port-unreachable", "reply", "prohibited", "silent"])
    for _, _, link in graph.edges(data=True):
        link["delay_ms"] = draw.choice([0, 1, 2, 5])
    return graph


def targets(case: Case) -> list[str]:
    """Return what the shape's expectations are about."""
    wanted = [other.wanted for other in cases() if other.name == case.name]
    return sorted({table["target"] for table in wanted if "target" in table})


def address(net: lab.SimulatedInternet, target: str, family: int) -> str:
    return net.address(target, family) if target in net.topology else target


def compare(
    net: lab.SimulatedInternet, target: str, protocol: str, port: int | None = None, *, queries: int = 2
) -> None:
    before = len(net.truth.journeys())
    hops = traceroute(
        target,
        protocol=protocol,
        port=port,
        netns=net.client.netns,
        max_ttl=16,
        queries=queries,
        timeout_s=0.2,
    )
    first = net.truth.journeys()[before]
    flow = flow_of(first.packet, target, protocol)
    true = [{who or "" for who in hop} for hop in net.truth.hops(flow, at_s=first.at_ns / 10**9)]
    found = [set(group["address"].fillna("")) for _, group in hops.groupby("ttl")]
    what = f"{protocol} to {target} port {port}: {found} is not {true}"

    assert all(hop == {""} for hop in found[len(true) :]), what
    if all(len(hop) == 1 for hop in true):
        assert found[: len(true)] == true, what
        assert len(found) == len(true) or true[-1] == {""}, what
        nodes, edges = drawn([hop for (hop,) in true])
        graph = path_graph(hops)
        assert (set(graph.nodes), set(graph.edges)) == (nodes, edges), what
    else:  # some router takes each packet as it likes
        assert all(hop <= allowed for hop, allowed in zip(found, true, strict=False)), what


def flow_of(packet: bytes, target: str, protocol: str) -> Flow:
    header, transport = ip.decode(packet)
    ports = (int.from_bytes(transport[at : at + 2], "big") for at in (0, 2))
    source_port, port = ports  # the port is the checksum of ICMP
    label = header.flow_label if isinstance(header, ip.IPv6) else 0
    return Flow(target, protocol, source_port=source_port, port=port, label=label)


def drawn(hops: list[str]) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the nodes and edges of the path up to its last answer."""
    while hops and not hops[-1]:
        hops = hops[:-1]
    nodes = [SOURCE, *(hop or f"* ttl {ttl}" for ttl, hop in enumerate(hops, 1))]
    return set(nodes), set(itertools.pairwise(nodes))
