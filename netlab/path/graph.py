"""A trace as a graph: nodes are the addresses that answered, edges the steps that packets took."""

from __future__ import annotations

import itertools
from bisect import bisect
from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeAlias

import networkx as nx
import pandas as pd

from netlab.errors import BadInput

SOURCE = "source"

_SILENT = "* ttl "
_COLUMNS = ["target", "run", "flow", "ttl", "address", "rtt_ms", "reached", "name"]


@dataclass(slots=True)
class _Tally:
    """What was sent to and heard from a node, or over an edge."""

    probes: int = 0
    rtts_ms: list[float] = field(default_factory=list)

    def add(self, other: _Tally) -> None:
        self.probes += other.probes
        self.rtts_ms += other.rtts_ms

    @property
    def answers(self) -> int:
        return len(self.rtts_ms)

    @property
    def rtt_ms(self) -> float | None:
        return median(self.rtts_ms) if self.rtts_ms else None


_Stop: TypeAlias = dict[str, _Tally]  # the nodes that one trace met at one TTL
_Trace: TypeAlias = dict[int, _Stop]  # by TTL


def path_graph(hops: pd.DataFrame) -> nx.DiGraph[str]:
    """Draw the hops of one or more traces as a directed graph.

    An edge joins two nodes only if one flow in one run met them at one TTL and the next. A TTL where nothing
    answered is a node of its own, so that no link is claimed past it; silent TTLs after the last answer are
    left out.

    Parameters
    ----------
    hops
        What `netlab.traceroute` returned, or several of those concatenated.

    Returns
    -------
    DiGraph
        Nodes are addresses, `"source"`, and `"* ttl N"` for a silent TTL (numbered where different traces
        were silent between different neighbours). The graph has `target` and the hops' `coverage`.

        A node has `ttl` (the lowest it was met at, 0 at the source), `probes` (answered by it, or by nobody
        where it had answered others), `answers`, `loss` (share of probes without an answer), `rtt_ms`
        (median), `reached`, `name` and `silent`. An edge has `probes` and `answers` of its farther node on
        that step, `rtt_increase_ms` (difference of the medians), and `certain`: False where one trace met
        several nodes at both TTLs, so that any one of the pairs may be no link. What is not known is None.

    Raises
    ------
    BadInput
        If *hops* lacks columns of a trace.

    Examples
    --------
    >>> import netlab
    >>> graph = netlab.path_graph(netlab.traceroute("127.0.0.1"))
    >>> list(graph.edges)
    [('source', '127.0.0.1')]
    """
    lacking = [name for name in _COLUMNS if name not in getattr(hops, "columns", ())]
    if lacking:
        raise BadInput(
            f"path_graph() needs the column {lacking[0]!r}", fix="Pass what netlab.traceroute returned"
        )
    graph: nx.DiGraph[str] = nx.DiGraph(
        target=", ".join(sorted(hops["target"].unique())), coverage=hops.attrs.get("coverage", [])
    )
    traces = _traces(hops)
    _add_nodes(graph, traces)
    _add_edges(graph, traces)
    for address, name in hops.dropna(subset=["name"])[["address", "name"]].drop_duplicates().to_numpy():
        graph.nodes[address]["name"] = name
    for address in hops.loc[hops["reached"].fillna(value=False), "address"].unique():
        graph.nodes[address]["reached"] = True
    return graph


def _traces(hops: pd.DataFrame) -> list[_Trace]:
    """Return what each run of each flow met, by TTL up to the last answer, after the source at TTL 0."""
    heard: dict[Hashable, dict[int, list[tuple[Any, Any]]]] = defaultdict(lambda: defaultdict(list))
    columns = hops[["target", "run", "flow", "ttl", "address", "rtt_ms"]].astype(object)
    for target, run, flow, ttl, address, rtt_ms in columns.itertuples(index=False, name=None):
        heard[target, run, flow][ttl].append((address, rtt_ms))
    between = _Silent()
    return [_trace(probes, between) for probes in heard.values()]


def _trace(probes: dict[int, list[tuple[Any, Any]]], between: _Silent) -> _Trace:
    answered = {ttl: _stop(answers) for ttl, answers in probes.items()}
    answered[0] = {SOURCE: _Tally(rtts_ms=[0.0])}
    met = sorted(ttl for ttl, stop in answered.items() if stop)
    trace = {}
    for ttl in sorted(answered):
        if ttl > met[-1]:
            break
        trace[ttl] = answered[ttl]
        if not answered[ttl]:
            place = bisect(met, ttl)
            name = between.name(ttl, [*answered[met[place - 1]]], [*answered[met[place]]])
            trace[ttl] = {name: _Tally(probes=len(probes[ttl]))}
    return trace


def _stop(answers: list[tuple[Any, Any]]) -> _Stop:
    stop: _Stop = defaultdict(_Tally)
    for address, rtt_ms in answers:
        if not pd.isna(address):
            stop[address].rtts_ms.append(rtt_ms)
    lost = sum(pd.isna(address) for address, _ in answers)
    for tally in stop.values():
        tally.probes = len(tally.rtts_ms) + lost
    return dict(stop)


class _Silent:
    """Names silent TTLs: the same name only between the same neighbours, else it would join strangers."""

    def __init__(self) -> None:
        self._known: dict[int, list[object]] = defaultdict(list)

    def name(self, ttl: int, before: list[str], after: list[str]) -> str:
        known, neighbours = self._known[ttl], (sorted(before), sorted(after))
        if neighbours not in known:
            known.append(neighbours)
        number = known.index(neighbours) + 1
        return f"{_SILENT}{ttl}" + (f" #{number}" if number > 1 else "")


def _add_nodes(graph: nx.DiGraph[str], traces: list[_Trace]) -> None:
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    lowest: dict[str, int] = {}
    for trace in traces:
        for ttl, stop in trace.items():
            for node, tally in stop.items():
                tallies[node].add(tally)
                lowest[node] = min(ttl, lowest.get(node, ttl))
    for node, tally in tallies.items():
        graph.add_node(
            node,
            ttl=lowest[node],
            probes=tally.probes,
            answers=tally.answers,
            loss=1 - tally.answers / tally.probes if tally.probes else None,
            rtt_ms=tally.rtt_ms,
            reached=False,
            name=None,
            silent=node.startswith(_SILENT),
        )
    if SOURCE in graph:
        graph.nodes[SOURCE].update(answers=0, rtt_ms=None)  # it was nobody's target


def _add_edges(graph: nx.DiGraph[str], traces: list[_Trace]) -> None:
    ends: dict[tuple[str, str], tuple[_Tally, _Tally]] = defaultdict(lambda: (_Tally(), _Tally()))
    certain: set[tuple[str, str]] = set()
    for near_stop, far_stop in _steps(traces):
        for edge in itertools.product(near_stop, far_stop):
            ends[edge][0].add(near_stop[edge[0]])
            ends[edge][1].add(far_stop[edge[1]])
            if 1 in {len(near_stop), len(far_stop)}:
                certain.add(edge)
    for edge, (near, far) in ends.items():
        graph.add_edge(
            *edge,
            probes=far.probes,
            answers=far.answers,
            rtt_increase_ms=_difference(near.rtt_ms, far.rtt_ms),
            certain=edge in certain,
        )


def _difference(near: float | None, far: float | None) -> float | None:
    return None if near is None or far is None else far - near


def _steps(traces: list[_Trace]) -> Iterator[tuple[_Stop, _Stop]]:
    return ((trace[ttl], trace[ttl + 1]) for trace in traces for ttl in trace if ttl + 1 in trace)
