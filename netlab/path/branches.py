"""What a search for all branches has found: nodes and links, each with how sure that is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import networkx as nx

from netlab.path.mda import Search
from netlab.path.sightings import Chart, Place, Stop
from netlab.path.stopping import missed

Account: TypeAlias = dict[str, Any]  # as JSON has it

FLOW, PACKET, DESTINATION, UNKNOWN = "flow", "packet", "destination", "unknown"
_SHOWN = ("confidence", "reached_confidence", "probes", "rule_probes", "flows", "flows_exhausted")


def account(search: Search) -> Account:
    """Return what *search* has found, as `hops.attrs["multipath"]` has it.

    `confidence` is what was asked for and `reached_confidence` what the answers allow: that no branch is
    missing. `probes` is how many were sent, `rule_probes` how many the stopping points alone ask for, without
    those that find flows, repeat, or replace lost ones.

    Each of `nodes` has `ttl`, `address`, `next` (addresses), `silent_next`, `tested` (flows that were seen to
    pass it), `balances` ("flow", "packet", "destination", "unknown", or None for a single next hop) and
    `confidence`, that no other next hop is missing. Each of `links` has `ttl` (of its nearer end), `from`,
    `to`, `flows` (how many were seen at both ends), `certain` (False if packets of one flow took several
    ways, so that the two may be on different ones) and `confidence`, that the flows really stay on it.
    """
    chart = search.chart()
    cells = [cell for hop in search.sightings.cells.values() for cell in hop.values()]
    tested = {place: stop for place, stop in chart.items() if _is_tested(search, place, stop)}
    untested = [
        stop
        for stop in tested.values()
        if stop.tested < search.points(max(stop.width, 1)) or _may_hide_silence(stop)
    ]
    risk = sum(map(_missed, untested))
    return {
        "confidence": search.limits.confidence,
        "reached_confidence": max(0.0, search.limits.confidence - risk),
        "probes": sum(cell.sent for cell in cells),
        "rule_probes": sum(search.points(max(stop.width, 1)) for stop in tested.values()),
        "flows": len({flow for hop in search.sightings.cells.values() for flow in hop}),
        "flows_exhausted": search.exhausted,
        "nodes": [
            _node(search, chart, place, address) for place in chart for address in sorted(place.addresses)
        ],
        "links": _links(search, chart),
    }


def compare(found: Account, ways: Iterable[Mapping[int, str]]) -> None:
    """Mark in *found* where the ways to other targets, by TTL, leave the ones to this target.

    A router that sends all flows to the target to one next hop, and a flow to another target elsewhere,
    balances by destination, or has another route for it.
    """
    nodes = {(node["ttl"], node["address"]): node for node in found["nodes"]}
    first = min((node["ttl"] for node in found["nodes"]), default=0)
    for way in ways:
        steps = {first: "source", **way}
        for ttl, address in steps.items():
            node, onward = nodes.get((ttl, address)), steps.get(ttl + 1)
            if node and onward and len(node["next"]) == 1 and node["next"] != [onward]:
                node["balances"] = DESTINATION


def annotate(graph: nx.DiGraph[str], found: Account) -> None:
    """Give the nodes and edges of *graph* the confidence that the search has in them."""
    graph.graph["multipath"] = {name: found[name] for name in _SHOWN}
    for node in found["nodes"]:
        if node["address"] in graph and node["confidence"] is not None:
            known = graph.nodes[node["address"]]
            known["confidence"] = min(node["confidence"], known["confidence"] or 1.0)
            known["balances"] = node["balances"] or known["balances"]
        if node["balances"] == PACKET:
            _share(graph, node["next"])
    links = {(link["from"], link["to"]): link for link in found["links"]}
    for near, far, edge in graph.edges(data=True):
        link = links.get((near, far))
        if link is not None:
            edge["certain"], edge["confidence"] = link["certain"], link["confidence"]


def _share(graph: nx.DiGraph[str], beside: Sequence[str]) -> None:
    """Tell of nodes that a balancer takes packets to in turn that what one of them lost may be another's."""
    for node in filter(graph.has_node, beside):
        for figures in (graph.nodes[node], *(edge for *_, edge in graph.in_edges(node, data=True))):
            lost = figures["probes"] - figures["answers"]
            if lost:
                figures.update(shared=figures["shared"] + lost, probes=figures["answers"], loss=None)


def _is_tested(search: Search, place: Place, stop: Stop) -> bool:
    beyond = place.silent and place.ttl >= search.sightings.extent
    goes_on = bool(stop.through) or place == search.sightings.source
    return goes_on and not beyond and place.ttl < search.limits.max_ttl


def _node(search: Search, chart: Chart, place: Place, address: str) -> Account:
    stop = chart[place]
    known = _is_tested(search, place, stop)
    return {
        "ttl": place.ttl,
        "address": address,
        "next": sorted(stop.addresses),
        "silent_next": any(onward.silent for onward in stop.onward),
        "tested": stop.tested,
        "balances": _balances(search, chart, place, stop),
        "confidence": 1 - _missed(stop) if known else None,
    }


def _missed(stop: Stop) -> float:
    """Return how likely one more next hop would not have shown."""
    return 1.0 if _may_hide_silence(stop) else missed(max(stop.width, 1), stop.tested)


def _may_hide_silence(stop: Stop) -> bool:
    """Whether flows that nothing came back of may have had a next hop of their own, which is silent.

    They are not a sample of all flows: each that went there is one of them, however many others are known.
    """
    return stop.unknown > 0 and not any(place.silent for place in stop.onward)


def _balances(search: Search, chart: Chart, place: Place, stop: Stop) -> str | None:
    if stop.width < 2:
        return None
    if stop.mixed:
        return PACKET if len(place.addresses) == 1 else UNKNOWN
    return FLOW if stop.again >= search.repeats(chart, stop) else UNKNOWN


def _links(search: Search, chart: Chart) -> list[Account]:
    at: dict[int, int] = defaultdict(int)
    for place in chart:
        at[place.ttl] += 1
    doubt = 0.0  # that flows do not stay where they were seen, by the balancers so far
    links = []
    for place, stop in chart.items():
        if len(stop.addresses) > 1 and not stop.mixed:
            doubt = max(doubt, len(stop.addresses) ** -float(stop.again))
        hop = search.sightings.cells.get(place.ttl, {})
        for onward, flows in stop.onward.items():
            seen = [flow for flow in flows if flow in hop or place == search.sightings.source]
            if not seen:
                continue
            certain = 1 in {len(place.addresses), len(onward.addresses)}
            alone = 1 in {at[place.ttl], at[onward.ttl]}
            links += [
                {
                    "ttl": place.ttl,
                    "from": near,
                    "to": far,
                    "flows": len(seen),
                    "certain": certain,
                    "confidence": (1.0 if alone else 1 - doubt) if certain else None,
                }
                for near in sorted(place.addresses)
                for far in sorted(onward.addresses & stop.addresses)
            ]
    return links
