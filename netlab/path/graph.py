"""Traces as a graph: nodes are the addresses that answered, edges the steps that packets took."""

from __future__ import annotations

from typing import Any, TypeAlias

import networkx as nx
import pandas as pd

from netlab import checks
from netlab.frames import attached, known_gaps
from netlab.path import branches, rewriting, stops as tables
from netlab.path.extent import is_within_path

_COLUMNS = ["target", "run", "flow", "ttl", "address", "rtt_ms", "reached", "name"]
_FLOW = ["target", "target_address", "protocol", "source_address", "source_port", "port", "flow"]
_FLOW += ["host", "netns"]  # containers of many hosts have one address
_HIGH = 0.95  # quantile

_ENDS = ["near", "far"]
_NO_TIMES = {"rtt_ms": None, "rtt_min_ms": None, "rtt_max_ms": None, "rtt_p95_ms": None}

Figures: TypeAlias = dict[Any, dict[str, Any]]  # attributes by node, or by the ends of an edge


def path_graph(hops: pd.DataFrame) -> nx.DiGraph[str]:
    """Draw the hops of one or many traces as one directed graph.

    The traces may be to many targets, from many hosts, of many flows and times. An edge joins two nodes only
    if one flow in one run of one trace met them at one TTL and the next. A TTL where nothing answered is a
    node of its own, so that no link is claimed past it; silent TTLs after the last answer are left out.

    Parameters
    ----------
    hops
        What `netlab.traceroute` returned, or several of those joined by `netlab.concat`.

    Returns
    -------
    DiGraph
        Nodes are addresses, `"* ttl N"` for a silent TTL (numbered where different traces were silent between
        different neighbours), and `"source"`, or `"source HOST"` for each host where there are several.
        Link-local addresses on several links have what tells these apart, as in `"fe80::1%eth0"`. The
        graph has `target`, the hops' `coverage`, and `flows`: what tells each of the flows apart.

        A node has `ttl` (the lowest it was met at, 0 at a source), `probes` (answered by it, or by nobody
        where it alone answered others of the flow, behind the same hop), `answers`, `shared` (probes that
        nobody answered where it and others did: any of them may have lost those), `loss` (share of probes
        without an answer; not known where some are shared), `rtt_ms` (median), `rtt_min_ms`, `rtt_p95_ms`,
        `rtt_max_ms`, `flows` (places in the graph's `flows`), `targets`, `first_seen` and `last_seen` (when
        the first and last answered probe was sent), `reached`, `name`, `silent`, `source`, `rewrites` (fields
        of probes that a NAT rewrites, as later quotes show), `mpls` (the label stacks that its answers
        showed), `asn` and `as_name` (of `netlab.path.with_asn`), and, of `netlab.multipath`, `balances`
        ("flow", "packet", "unknown") and `confidence`: that no next hop is missing.

        An edge has `probes`, `answers`, `shared`, `loss`, `rtt_ms`, `flows`, `targets`, `first_seen` and
        `last_seen` of its farther node on that step, `rtt_increase_ms` (difference of the medians),
        `confidence`, and `certain`: False where one trace met several nodes at both TTLs, so that any one of
        the pairs may be no link. Edges from a source have the `gateway` and `interface` that the probes left
        by. What is not known is None.

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
    checks.columns("path_graph()", hops, _COLUMNS, fix="Pass what netlab.traceroute returned")
    probed = hops["ttl"].notna()  # a target that could not be probed is a row without
    hops = hops[probed].reset_index(drop=True)
    flow, flows = _flows(hops)
    on_path = _on_path(hops, flow)
    hops, flow = tables.zoned(hops[on_path]), flow[on_path]
    probes = tables.probes(hops, flow)
    stops = tables.stops(probes)
    graph: nx.DiGraph[str] = nx.DiGraph(
        target=", ".join(sorted(hops["target"].dropna().unique())),
        coverage=known_gaps(hops),
        flows=flows,
    )
    _add_nodes(graph, probes, stops)
    _add_edges(graph, probes, stops)
    _add_marks(graph, hops)
    told = []
    for found in attached(hops, "multipath"):
        branches.annotate(graph, found)
        told.append(graph.graph["multipath"])
    if len(told) > 1:
        graph.graph["multipath"] = told
    for address, fields in rewriting.boxes(hops).items():
        graph.nodes[address]["rewrites"] = fields
    return graph


def _flows(hops: pd.DataFrame) -> tuple[pd.Series[int], list[dict[str, Any]]]:
    """Return the number of each row's flow, and what tells the flows apart."""
    wires = hops.reindex(columns=_FLOW).astype(object)
    number = wires.groupby(_FLOW, dropna=False, sort=False).ngroup()
    distinct = wires[~number.duplicated()]
    return number, [*_records(distinct).values()]


def _on_path(hops: pd.DataFrame, flow: pd.Series[int]) -> pd.Series[bool]:
    """Return for each of the hops whether it is not past an end that only a lost answer had hidden."""
    read = ["target", "ttl", "address", "reply", "reached", "sent_at"]
    runs = hops.reindex(columns=["trace", "run"]).assign(flow=flow)
    probes = hops.reindex(columns=read).assign(
        flow=flow, run=runs.groupby([*runs], dropna=False, sort=False, observed=True).ngroup()
    )
    return is_within_path(probes.sort_values("sent_at", kind="stable")).reindex(hops.index)


def _add_nodes(graph: nx.DiGraph[str], probes: pd.DataFrame, stops: pd.DataFrame) -> None:
    lowest = stops.groupby("node")["ttl"].min().to_dict()
    times = _times(probes[probes["ttl"] > 0], ["node"])
    sources = set(stops.loc[stops["ttl"] == 0, "node"])
    for node, figures in _told(stops, ["node"]).items():
        graph.add_node(
            node,
            ttl=lowest[node],
            **figures,
            **times.get(node, _NO_TIMES),
            reached=False,
            name=None,
            silent=node.startswith(tables.SILENT),
            source=node in sources,
            confidence=None,
            balances=None,
            rewrites=None,
            mpls=[],
            asn=None,
            as_name=None,
        )


def _add_edges(graph: nx.DiGraph[str], probes: pd.DataFrame, stops: pd.DataFrame) -> None:
    steps = tables.steps(stops)
    told = _told(steps, _ENDS)
    far = _times(_probes_of(steps.assign(node=steps["far"], ttl=steps["ttl"] + 1), probes), _ENDS)
    near = _times(_probes_of(steps.assign(node=steps["near"]), probes), _ENDS)
    certain = steps.groupby(_ENDS)["certain"].any().to_dict()
    for edge, figures in told.items():
        rtt_ms, before_ms = (times.get(edge, _NO_TIMES)["rtt_ms"] for times in (far, near))
        graph.add_edge(
            *edge,
            **figures,
            rtt_ms=rtt_ms,
            rtt_increase_ms=None if rtt_ms is None or before_ms is None else rtt_ms - before_ms,
            certain=certain[edge],
            confidence=None,
        )
    first = steps[steps["ttl"] == 0]
    for way in ("gateway", "interface"):
        for edge, names in _distinct(first, _ENDS, way).items():
            graph.edges[edge][way] = ", ".join(names) or None


def _probes_of(steps: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """Return the probes that were answered by the `node` of each step, with its ends."""
    return steps[[*_ENDS, "trace", "ttl", "node"]].merge(probes, on=["trace", "ttl", "node"])


def _told(stops: pd.DataFrame, by: list[str]) -> Figures:
    """Return by node or edge what its stops add up to."""
    figures = stops.groupby(by, sort=False).agg(
        probes=("probes", "sum"),
        answers=("answers", "sum"),
        shared=("shared", "sum"),
        first_seen=("first", "min"),
        last_seen=("last", "max"),
    )
    known = (figures["probes"] > 0) & (figures["shared"] == 0)
    figures["loss"] = 1 - figures["answers"] / figures["probes"].where(known)
    flows, targets = _distinct(stops, by, "flow"), _distinct(stops, by, "target")
    return {
        key: {**found, "flows": flows[key], "targets": targets[key]}
        for key, found in _records(figures).items()
    }


def _times(probes: pd.DataFrame, by: list[str]) -> Figures:
    """Return by node or edge how long its answers took."""
    groups = probes.dropna(subset=["rtt_ms"]).groupby(by, sort=False)["rtt_ms"]
    figures = {"rtt_ms": groups.median(), "rtt_min_ms": groups.min(), "rtt_max_ms": groups.max()}
    return _records(pd.DataFrame(figures | {"rtt_p95_ms": groups.quantile(_HIGH)}))


def _distinct(table: pd.DataFrame, by: list[str], column: str) -> dict[Any, list[Any]]:
    """Return by node or edge the sorted values of *column*; an empty list where all are missing."""
    found: dict[Any, list[Any]] = {}
    for *place, value in table[[*by, column]].drop_duplicates().itertuples(index=False, name=None):
        values = found.setdefault(tuple(place) if len(by) > 1 else place[0], [])
        if not pd.isna(value):
            values.append(value)
    return {key: sorted(values) for key, values in found.items()}


def _records(figures: pd.DataFrame) -> Figures:
    plain = figures.astype(object)
    return dict(zip(figures.index, plain.where(plain.notna(), None).to_dict("records"), strict=True))


def _add_marks(graph: nx.DiGraph[str], hops: pd.DataFrame) -> None:
    """Add what the hops tell of single addresses."""
    told = hops.reindex(columns=["address", "name", "mpls", "asn", "as_name"]).dropna(subset=["address"])
    for mark in ("name", "asn", "as_name"):
        for address, value in told[["address", mark]].dropna().drop_duplicates().to_numpy():
            graph.nodes[address][mark] = value
    for address, stacks in _distinct(told, ["address"], "mpls").items():
        graph.nodes[address]["mpls"] = stacks
    for address in hops.loc[hops["reached"].fillna(value=False), "address"].unique():
        graph.nodes[address]["reached"] = True
