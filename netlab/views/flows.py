"""A connection graph as columns of boxes: who calls on the left of who is called, cut to what can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import networkx as nx

from netlab.tracer.graphedges import service_key
from netlab.views.text import DASH, counted, legible, milliseconds, octets

Graph: TypeAlias = "nx.MultiDiGraph[Any]"
Id: TypeAlias = tuple[Hashable, ...]

_LONGEST, _LONGEST_NAME = 42, 32
_NAMED = 2  # errors in a box
_NAT = {"dnat": "DNAT", "snat": "SNAT", "both": "DNAT and SNAT"}


class Column(IntEnum):
    """Where a box stands, from left to right."""

    NEXT_HOP_IN = 0
    CALLER = 1
    NAT_IN = 2
    PROCESS = 3
    NAT_OUT = 4
    CALLED = 5
    NEXT_HOP_OUT = 6


HEADINGS = {
    Column.NEXT_HOP_IN: "next hop to callers",
    Column.CALLER: "callers",
    Column.NAT_IN: "translated",
    Column.PROCESS: "processes",
    Column.NAT_OUT: "translated",
    Column.CALLED: "called",
    Column.NEXT_HOP_OUT: "next hop",
}


@dataclass(slots=True)
class Tally:
    """How many connections, and how many of them failed."""

    connections: int = 0
    failures: int = 0

    def add(self, other: Tally) -> None:
        """Count another one's connections, too."""
        self.connections += other.connections
        self.failures += other.failures


@dataclass(slots=True)
class Box:
    """One box: what stands in it, and what it stands for."""

    column: Column
    title: str
    notes: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    errors: Counter[str] = field(default_factory=Counter)
    unnamed: bool = False  # whether there were errors beside those
    bytes: list[int] = field(default_factory=list)
    rtts_ms: list[float] = field(default_factory=list)
    rest: bool = False  # stands for those that did not fit

    def fail(self, edge: Mapping[str, Any]) -> None:
        """Count an edge's failures under the most frequent one's name."""
        if edge["error"]:
            self.errors[edge["error"]] += edge["failures"]
            self.unnamed |= edge.get("errors", 1) > 1

    @property
    def figures(self) -> str:
        """The counts and measures, of which unknown ones are left out."""
        if self.column in {Column.NEXT_HOP_IN, Column.NEXT_HOP_OUT}:
            return ""
        parts = [counted(self.tally.connections, "connection")]
        if self.rtts_ms:
            low, high = min(self.rtts_ms), max(self.rtts_ms)
            parts.append(
                milliseconds(low) if low == high else f"{milliseconds(low)} {DASH} {milliseconds(high)}"
            )
        if self.bytes:
            parts.append(octets(sum(self.bytes)))
        return " · ".join(parts)

    @property
    def failed(self) -> str:
        """The failures in words; empty where there are none."""
        if not self.tally.failures:
            return ""
        names = [legible(name, 20) for name, _ in self.errors.most_common(_NAMED)]
        if names and (self.unnamed or len(self.errors) > _NAMED):
            names.append("others")
        return f"{self.tally.failures} failed" + (f": {', '.join(names)}" if names else "")


@dataclass(slots=True)
class Flows:
    """The boxes, and the lines between them; a line without a tally only says what leads where."""

    boxes: dict[Id, Box] = field(default_factory=dict)
    lines: dict[tuple[Id, Id], Tally | None] = field(default_factory=dict)

    def column(self, column: Column) -> list[Id]:
        """Return the boxes of one column."""
        return [name for name, box in self.boxes.items() if box.column is column]

    def kept(self, most: int) -> Flows:
        """Return the flows with at most *most* boxes in each column, the rest of them in one box more."""
        new: dict[Id, Id] = {}
        result = Flows()
        for column in Column:
            ranked = sorted(self.column(column), key=self._rank)
            fits = ranked if len(ranked) <= most else ranked[: most - 1]
            result.boxes.update({name: self.boxes[name] for name in fits})
            new.update({name: name for name in fits})
            if len(fits) < len(ranked):
                rest: Id = ("rest", column)
                result.boxes[rest] = self._rest(column, ranked[len(fits) :])
                new.update(dict.fromkeys(ranked[len(fits) :], rest))
        for (near, far), tally in self.lines.items():
            result.join(new[near], new[far], tally)
        return result

    def _rank(self, name: Id) -> tuple[Any, ...]:
        box = self.boxes[name]
        return -box.tally.failures, -box.tally.connections, box.title, box.notes

    def _rest(self, column: Column, names: list[Id]) -> Box:
        box = Box(column, f"… and {len(names)} more", rest=True)
        for name in names:
            box.tally.add(self.boxes[name].tally)
            box.errors.update(self.boxes[name].errors)
            box.unnamed |= self.boxes[name].unnamed
        return box

    def join(self, near: Id, far: Id, tally: Tally | None) -> None:
        """Add a line, or to a line."""
        known = self.lines.setdefault((near, far), None if tally is None else Tally())
        if known is not None and tally is not None:
            known.add(tally)


def flows(graph: Graph) -> Flows:
    """Return the boxes and lines of a connection graph."""
    found = Flows()
    for node, data in graph.nodes(data=True):
        if data["kind"] == "process":
            found.boxes["process", node] = _process(data)
    direct = _direct(graph)
    for near, far, data in graph.edges(data=True):
        if data["kind"] == "connects" or (data["kind"] == "translated" and near not in direct):
            ids = [_box(found, graph, direct.get(end) or end, data) for end in (near, far)]
            found.join(ids[0], ids[1], Tally(data["connections"], data["failures"]))
            if far in direct:
                _seen_as(found.boxes[ids[1]], graph.nodes[far])
    _next_hops(found, graph, direct)
    _tell_namespaces(found, graph)
    return found


def _tell_namespaces(found: Flows, graph: Graph) -> None:
    """Say of addresses that every namespace has which namespace's they are, where there are several."""
    spaces = {node: data["netns"] for node, data in graph.nodes(data=True) if data.get("netns") is not None}
    if len(set(spaces.values())) > 1:
        for (_, node, *_), box in found.boxes.items():
            if node in spaces:
                box.notes.append(f"in netns {spaces[node]}")


def _direct(graph: Graph) -> dict[Id, Id]:
    """Return the addresses behind translations that change only the caller: they need no box of their own."""
    return {
        near: far
        for near, far, data in graph.edges(data=True)
        if data["kind"] == "translated"
        and data["direction"] != "incoming"
        and graph.nodes[near]["nat"] == "snat"
    }


def _seen_as(box: Box, translation: Mapping[str, Any]) -> None:
    note = f"caller seen as {legible(translation['client'], _LONGEST)}"
    if note not in box.notes:
        box.notes.append(note)


def _box(found: Flows, graph: Graph, node: Id, edge: Mapping[str, Any]) -> Id:
    """Return the box that *node* is at this edge, made when it is met first."""
    data = graph.nodes[node]
    if data["kind"] == "process":
        found.boxes["process", node].fail(edge)
        return "process", node
    incoming = edge["direction"] == "incoming"
    if data["kind"] == "translation":
        name: Id = (Column.NAT_IN if incoming else Column.NAT_OUT, node)
        if name not in found.boxes:
            found.boxes[name] = _translation(data, incoming=incoming)
        if edge["kind"] == "connects":
            _measure(found.boxes[name], edge)
        return name
    name = _outer(node, edge)
    if name not in found.boxes:
        found.boxes[name] = _address(data, edge, incoming=incoming)
    _measure(found.boxes[name], edge)
    return name


def _measure(box: Box, edge: Mapping[str, Any]) -> None:
    box.tally.add(Tally(edge["connections"], edge["failures"]))
    box.fail(edge)
    known = [edge[name] for name in ("bytes_sent", "bytes_received") if edge[name] is not None]
    box.bytes += [sum(known)] if known else []
    box.rtts_ms += [] if edge["rtt_ms"] is None else [edge["rtt_ms"]]


def _process(data: Mapping[str, Any]) -> Box:
    pid = "" if data["pid"] is None else f"pid {data['pid']}"
    title = legible(data["process"], _LONGEST_NAME) if data["process"] else pid or "unknown process"
    many = counted(data["pids"], "process", "processes") if (data["pids"] or 0) > 1 else ""
    inside = f"in {legible(data['container'], 12)}" if data["container"] else ""
    on = f"on {legible(data['host'], 24)}" if data["host"] else ""
    note = " · ".join(filter(None, (many, pid if data["process"] else "", inside, on)))
    return Box(Column.PROCESS, title, [note] if note else [], Tally(data["connections"], data["failures"]))


def _address(data: Mapping[str, Any], edge: Mapping[str, Any], *, incoming: bool) -> Box:
    address, port = legible(data["address"], _LONGEST), edge["port"]
    suffix = "/udp" if edge["protocol"] == "udp" else ""
    notes = [legible(data["name"], _LONGEST)] if data["name"] else []
    if incoming:
        return Box(Column.CALLER, f"{address} → :{port}{suffix}" if port else address + suffix, notes)
    if port is None:
        return Box(Column.CALLED, address + suffix, [*notes, "who called is not known"])
    return Box(Column.CALLED, f"{_end(address, port)}{suffix}", notes)


def _translation(data: Mapping[str, Any], *, incoming: bool) -> Box:
    column = Column.NAT_IN if incoming else Column.NAT_OUT
    told = []
    if data["new_service"]:
        service, new = (_end(data[name], data[f"{name}_port"]) for name in ("service", "new_service"))
        told.append(f"{new} → {service}" if incoming else f"{service} → {new}")
    if data["client"]:
        told.append(f"caller seen as {legible(data['client'], _LONGEST)}")
    return Box(column, _NAT[data["nat"]], told)


def _end(address: object, port: object) -> str:
    text = legible(address, _LONGEST)
    text = f"[{text}]" if ":" in text else text
    return text if port is None else f"{text}:{port}"


def _outer(node: Id, edge: Mapping[str, Any]) -> Id:
    """Return the name of an address's box: one for each port that it calls, or is called at."""
    return Column.CALLER if edge["direction"] == "incoming" else Column.CALLED, node, service_key(edge)


def _next_hops(found: Flows, graph: Graph, direct: Mapping[Id, Id]) -> None:
    """Add the gateways behind the outer boxes that they lead to."""
    behind: dict[Id, set[Id]] = {}
    for near, far in found.lines:
        for inner, end in ((near, far), (far, near)):
            behind.setdefault(inner, set()).add(end)
    for near, far, data in graph.edges(data=True):
        if data["kind"] != "via":
            continue
        node = direct.get(near, near)
        ends = {_outer(node, data)}
        if graph.nodes[node]["kind"] == "translation":
            column = Column.NAT_IN if data["direction"] == "incoming" else Column.NAT_OUT
            ends = {end for end in behind[column, node] if end[0] != "process"}
        for end in sorted(ends, key=str):
            _next_hop(found, end, far, graph.nodes[far])


def _next_hop(found: Flows, end: Id, node: Id, data: Mapping[str, Any]) -> None:
    back = found.boxes[end].column is Column.CALLER
    column = Column.NEXT_HOP_IN if back else Column.NEXT_HOP_OUT
    name: Id = (column, node)
    if name not in found.boxes:
        notes = [legible(data[what], 24) for what in ("interface", "mac") if data[what]]
        title = legible(data["address"], _LONGEST)
        found.boxes[name] = Box(
            column, title, [" · ".join(notes)] if notes else [], Tally(data["connections"])
        )
    found.join(*((name, end) if back else (end, name)), None)
