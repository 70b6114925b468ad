"""How long a hundred targets take beside one, on a simulated internet with 20 ms for each hop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import networkx as nx

from netlab import lab
from netlab.path import trace_many

ROUNDS, TARGETS = 3, 100
_HOP_MS = 20


def _clocked(call: Callable[[], object]) -> float:
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def measure() -> Iterator[tuple[str, float, str]]:
    """Take turns, so that both meet the same machine."""
    graph = nx.path_graph(["client", *(f"r{number}" for number in range(1, 8)), "web"])
    nx.set_edge_attributes(graph, _HOP_MS / 2, "delay_ms")
    graph.nodes["web"]["prefixes"] = ["203.0.113.0/24"]
    targets = [f"203.0.113.{number}" for number in range(TARGETS)]
    with lab.simulated(graph) as net:
        one, many = [], []
        for _ in range(ROUNDS):
            one.append(_clocked(lambda: trace_many(targets[:1], netns=net.client.netns)))
            many.append(_clocked(lambda: trace_many(targets, netns=net.client.netns)))
    first, all_of_them = statistics.median(one), statistics.median(many)
    detail = f"one {first:.3f} s, {TARGETS} targets {all_of_them:.3f} s, 8 hops, {_HOP_MS} ms each"
    yield f"many: {TARGETS} targets at once over one", all_of_them / first, detail
