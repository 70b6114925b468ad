"""multipath(): probes beside the stopping rule's own, time, branches missed and links that are not there.

On simulated internets with 20 ms per link, except the widest, whose links take no time. Needs root.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import networkx as nx
import pandas as pd

import netlab
from netlab import lab

RUNS = 100
CONFIDENCE = 0.95
LINK_MS = 20
PEER_PROBES, PEER_S = (
    90,
    1.3,
)  # what the fastest of the other tools needs for a 4-way balancer, without delays
KINDS = ("udp", "tcp", "icmp")

Graph = Any  # networkx's, of strings


def measure() -> Iterator[tuple[str, float, str]]:
    for name, graph in (
        ("4-way balancer, 6 hops", diamond(length=1, tail=3)),
        ("4-way balancer, branches of two", diamond(length=2, tail=1)),
        ("4-way balancer, one hop before the target", diamond(length=1, tail=0)),
    ):
        yield from _economy(name, graph)
    for kind in KINDS:
        yield from _truth(f"4-way balancer, {kind}", diamond(length=2, tail=1), protocol=kind)
    yield from _truth("nested diamond, 16 wide", _nested(), protocol="udp")


def diamond(*, length: int, tail: int) -> Graph:
    """Return a 4-way balancer whose branches have *length* routers, with *tail* behind them."""
    graph: Graph = nx.Graph()
    for branch in range(4):
        inner = [f"b{branch}{place}" for place in range(length)]
        nx.add_path(graph, ["client", "r1", *inner, *(f"t{place}" for place in range(tail)), "web"])
    return graph


def _nested() -> Graph:
    graph: Graph = nx.Graph()
    for outer in range(4):
        for inner in range(4):
            way = [f"a{outer}", f"b{outer}{inner}", f"c{outer}", "end", "web"]
            nx.add_path(graph, ["client", "r1", *way])
    return graph


def _economy(name: str, graph: Graph) -> Iterator[tuple[str, float, str]]:
    nx.set_edge_attributes(graph, LINK_MS / 2, "delay_ms")
    found, took_s, hops_s = [], [], []
    with lab.simulated(graph) as net:
        for _ in range(RUNS // 5):
            began = time.monotonic()
            hops = netlab.multipath(net.address("web"), netns=net.client.netns, confidence=CONFIDENCE)
            took_s.append(time.monotonic() - began)
            hops_s.append(hops["rtt_ms"].max() / 1000)
            found.append(hops.attrs["multipath"])
    probes = [run["probes"] for run in found]
    rule = statistics.mean(run["rule_probes"] for run in found)
    middle = statistics.mean(probes)
    detail = f"{min(probes)} to {max(probes)}, mean {middle:.0f}; the stopping points alone {rule:.0f}"
    yield f"multipath: {name}: probes over {PEER_PROBES}", middle / PEER_PROBES, detail
    detail = (
        f"median {statistics.median(took_s):.2f} s, most {max(took_s):.2f}; RTT {max(hops_s) * 1000:.0f} ms"
    )
    yield f"multipath: {name}: time over {PEER_S} s", statistics.median(took_s) / PEER_S, detail


def _truth(name: str, graph: Graph, *, protocol: str) -> Iterator[tuple[str, float, str]]:
    missed = false = probes = rule = 0
    with lab.simulated(graph) as net:
        links = links_both_ways(net, graph)
        ways = nx.all_simple_paths(graph, "client", "web")
        wanted = {(net.address(near), net.address(far)) for way in ways for near, far in pairwise(way[1:])}
        for _ in range(RUNS):
            hops = netlab.multipath(
                net.address("web"), netns=net.client.netns, protocol=protocol, confidence=CONFIDENCE
            )
            known = drawn(hops)
            false += bool(known - links)
            missed += bool(wanted - known)
            probes += hops.attrs["multipath"]["probes"]
            rule += hops.attrs["multipath"]["rule_probes"]
    allowed = (1 - CONFIDENCE) * RUNS
    detail = (
        f"{missed} of {RUNS} runs; {probes / RUNS:.0f} probes, the stopping points alone {rule / RUNS:.0f}"
    )
    yield f"multipath: {name}: incomplete graphs over the {allowed:.0f} stated", missed / allowed, detail
    yield f"multipath: {name}: graphs with a link that is not there", float(false), f"of {RUNS} runs"


def links_both_ways(net: Any, graph: Graph) -> set[tuple[str, str]]:
    """Return the links of a simulated internet by their ends' addresses."""
    ends = [(net.address(near), net.address(far)) for near, far in graph.edges]
    return {link for near, far in ends for link in ((near, far), (far, near))}


def drawn(hops: pd.DataFrame) -> set[tuple[str, str]]:
    """Return the links between hops that netlab is sure of."""
    graph = netlab.path_graph(hops)
    return {(near, far) for near, far, sure in graph.edges(data="certain") if sure and near != "source"}
