"""A packet followed through the network namespaces of this host, by what the kernel knows now.

In each namespace it is translated as its conntrack entry says, routed by the kernel's own look-up, and sent
on by the interface to that one's other end. A destination is rewritten before the route is looked up, a
source after it (the hooks of nf_nat: PREROUTING and OUTPUT, INPUT and POSTROUTING).
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from netlab.errors import NetlabError
from netlab.frames import Gap, Missing
from netlab.kernel import forwarding, natrules, netns as namespaces, onward, spaces
from netlab.kernel.lookups import Question
from netlab.kernel.onward import End, Onward
from netlab.kernel.routing import Routing, Way
from netlab.kernel.rtnetlink import Link
from netlab.kernel.translation import Direction, Side, in_zones
from netlab.tracer import ends, unforwarded, waygaps
from netlab.tracer.stations import FourTuple, Station

_MOST_PLACES = 32  # namespaces and bridges; more is taken for a loop
_UNPLUGGED = "the interface that it would come by is gone"
_SCOPELESS = "the destination is link-local, and which link is not known"
_LOOP = "the packet has been here: it goes round"
_FAR = f"not followed any further after {_MOST_PLACES} network namespaces and bridges"
_GONE = "this network namespace has no process and no name here: it is gone, or of another host"
_NO_ENTRY = "no conntrack entry (a reset deletes it, others expire): whether it is translated is not known"
_CONTESTED = "conntrack has it in several zones, translated in different ways: not known which applies"
_BY_ROW = "no conntrack entry any more: the connection's nat_* columns say what it became, not where"


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known of the connection whose packets are followed."""

    protocol: str
    packet: FourTuple  # as this end's socket sends it
    beyond: FourTuple | None  # the same after translation, as the row's nat_* columns have it
    netns: int
    answers: bool  # this end was called
    lasting: bool  # open, and of a protocol whose entry lives as long: no entry is no translation
    uid: int | None = None
    mark: int | None = None
    bound: int = 0  # index of the interface that its socket is bound to


@dataclass(frozen=True, slots=True)
class _At:
    """Where a packet is: it came by the interface with this index (0: its own socket sent it) to this MAC."""

    netns: int
    packet: FourTuple
    index: int = 0
    mac: str | None = None
    next_hop: str = ""
    mark: int | None = None  # not known: it is lost between namespaces (skb_scrub_packet()), and rules set it


class Walk:
    """The stations of one flow, found by `go`."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.stations: list[Station] = []
        self._gaps: Counter[tuple[str, Gap, str]] = Counter()
        self._own = namespaces.inode()
        # The own one by its thread's number: it is looked at from threads that are elsewhere.
        here = Path(f"/proc/self/task/{threading.get_native_id()}/ns/net")
        self._files: Mapping[int, Path] = {**namespaces.everywhere(), self._own: here}
        self._root: int | None = None
        with contextlib.suppress(NetlabError):
            self._root = namespaces.inode(1)

    @property
    def missing(self) -> list[Missing]:
        """What could not be told, for the coverage."""
        return [Missing(what, kind, count, detail) for (what, kind, detail), count in self._gaps.items()]

    def go(self) -> None:
        """Follow the packet until it reaches a socket, leaves the host, or cannot be followed."""
        at: _At | None = _At(self.flow.netns, self.flow.packet, mark=self.flow.mark)
        been: set[_At] = set()
        while at is not None:
            if at in been or len(been) == _MOST_PLACES:
                self._end(at, _LOOP if at in been else _FAR)
                return
            been.add(at)
            at = self._visited(at)

    def _visited(self, at: _At) -> _At | None:
        """Visit the place, in a thread that enters its namespace."""
        if at.netns not in self._files:
            self._end(at, _GONE)
            return None
        file = None if at.netns == self._own else str(self._files[at.netns])
        try:
            (found,) = spaces.ask(file, lambda: self._visit(at)).by_inode.values()
        except NetlabError as error:
            self._end(at, str(error))
            return None
        return found

    def _visit(self, at: _At) -> _At | None:
        if namespaces.inode() != at.netns:  # another one has its name or its process's number by now
            self._end(at, _GONE)
            return None
        with Routing() as routing:
            known = Onward.here(at.netns, routing.links, self._files)
            if at.index:
                port = routing.links.get(at.index)
                if port is None:
                    self._end(at, _UNPLUGGED)
                    return None
                self.stations[-1] = replace(self.stations[-1], to_interface=port.name)
                came = known.comes_to(port)
                if isinstance(came, End):
                    self._end(at, came.detail)
                    return None
                at = replace(at, index=came.index)
                if onward.is_bridge(came) and not _is_for(came, at, known, routing):
                    new = at.packet
                    if forwarding.filters_bridged(new.family):
                        new = self._translate(at)
                    if new.dst == at.packet.dst:  # else it is routed (br_nf_pre_routing_finish())
                        return self._bridge(replace(at, packet=new), known, came)
                    return self._route(at, new, routing, known)
            return self._route(at, self._translate(at), routing, known)

    # -- translation -------------------------------------------------------------------------------------

    def _translate(self, at: _At) -> FourTuple:
        """Return the packet as it leaves this namespace, and note the translation."""
        packet, here = at.packet, self._station("translation", at, source="conntrack")
        try:
            several = set(in_zones(self.flow.protocol, *packet))
        except NetlabError as error:
            self._note(replace(here, detail=f"not known: {error}"))
            self._lacks("translations", str(error))
            return packet
        if len(several) > 1:
            self._note(replace(here, detail=_CONTESTED))
            self._lacks("translations", _CONTESTED)
            return packet
        found = next(iter(several), None)
        if found is not None and found.asked is Side.BEFORE:
            new = FourTuple(found.src, found.sport or 0, found.dst, found.dport or 0)
            if new != packet:
                answers = found.direction is Direction.REPLY
                self._note(_translated(here, new, answers=answers))
            return new
        if self.flow.lasting or natrules.present() is False:
            return packet
        if self._beyond_is_here(at) and self.flow.beyond:
            known = replace(here, source="connection", detail=_BY_ROW)
            self._note(_translated(known, self.flow.beyond, answers=self.flow.answers))
            self._lacks("translations", _BY_ROW, Gap.APPROXIMATE)
            return self.flow.beyond
        self._note(replace(here, detail=_NO_ENTRY))
        self._lacks("translations", _NO_ENTRY)
        return packet

    def _beyond_is_here(self, at: _At) -> bool:
        """Tell whether what the row knows is taken to have happened here.

        That is the first namespace on the way which may have done it: the root's or one that forwards, not a
        container's own.
        """
        untouched = at.packet == self.flow.packet and self.flow.beyond not in {None, self.flow.packet}
        return untouched and (at.index != 0 or at.netns == self._root)

    # -- route -------------------------------------------------------------------------------------------

    def _route(self, at: _At, new: FourTuple, routing: Routing, known: Onward) -> _At | None:
        routed = FourTuple(at.packet.src, at.packet.sport, new.dst, new.dport)
        here = self._station("route", at, packet=routed, source="routing")
        question = self._question(at, routed, routing)
        if question is None:
            self._note(replace(here, detail=_SCOPELESS))
            self._lacks("stations", _SCOPELESS)
            return None
        (way,) = routing.ways([question])
        here = _with_way(here, way)
        for doubt in waygaps.of_packet(way, routing.looks_at, marked=at.mark is not None):
            here = replace(here, detail="; ".join(filter(None, (here.detail, doubt))))
            self._lacks("routes", doubt, Gap.APPROXIMATE)
        if way.type == "local":
            self._note(here)
            self._note(self._peer(at, new))
            return None
        if dropped := unforwarded.refusal(way, routed, arrived=at.index != 0):
            self._note(replace(here, error="EHOSTUNREACH", reason=dropped))
            return None
        link = next((link for link in routing.links.values() if link.name == way.interface), None)
        if link is None or way.type != "unicast":
            self._note(here if way.error else replace(here, detail=f"{way.type}: not followed"))
            return None
        next_hop = way.gateway or new.dst
        if onward.is_bridge(link):
            self._note(here)
            return self._bridge(replace(at, packet=new, mac=way.mac, next_hop=next_hop), known, link)
        on = replace(at, packet=new, index=0, mac=way.mac, next_hop=next_hop)
        return self._onward(on, here, link, known)

    def _question(self, at: _At, packet: FourTuple, routing: Routing) -> Question | None:
        """Return what to ask; None of a link-local destination whose link is not known."""
        destination, source = (ipaddress.ip_address(one) for one in (packet.dst, packet.src))
        interface = 0 if at.index else self.flow.bound or routing.interface_of(packet.src)
        if packet.family == 6 and destination.is_link_local and not (interface or at.index):
            return None
        return Question(
            family=packet.family,
            destination=destination.packed,
            source=source.packed,
            mark=at.mark or 0,
            protocol={"tcp": 6, "udp": 17}[self.flow.protocol],
            source_port=packet.sport,
            port=packet.dport,
            arrived=at.index,
            interface=interface,
            uid=None if at.index else self.flow.uid,
        )

    def _bridge(self, at: _At, known: Onward, bridge: Link) -> _At | None:
        port = known.port(bridge, at.mac)
        here = self._station("bridge", at, mac=at.mac, source="bridge")
        if isinstance(port, End):
            self._note(replace(here, interface=bridge.name, interface_kind=bridge.kind, detail=port.detail))
            self._lacks("stations", port.detail)
            return None
        here = replace(here, interface=port.name, interface_kind=port.kind or None)
        return self._onward(at, here, port, known)

    def _onward(self, at: _At, here: Station, link: Link, known: Onward) -> _At | None:
        """Note the station with where its interface leads to, and go there."""
        peer = known.peer(link)
        if isinstance(peer, End):
            self._note(replace(here, detail="; ".join(filter(None, (here.detail, peer.detail)))))
            if not peer.outside:
                self._lacks("stations", peer.detail)
            return None
        self._note(replace(here, to_netns=peer.netns))
        mark = at.mark if peer.netns == at.netns else None
        return replace(at, netns=peer.netns, index=peer.index, mark=mark)

    def _peer(self, at: _At, packet: FourTuple) -> Station:
        """Return the station of the other end's socket, looked up in the calling thread's namespace."""
        here = self._station("peer", at, packet=packet, source="sockets")
        return ends.peer(here, self.flow.protocol, packet)

    # -- notes -------------------------------------------------------------------------------------------

    def _station(self, station: str, at: _At, **known: Any) -> Station:
        defaults = {"packet": at.packet, "netns": at.netns, "protocol": self.flow.protocol}
        return Station(station=station, **{**defaults, **known})

    def _note(self, station: Station) -> None:
        self.stations.append(station)

    def _lacks(self, what: str, detail: str, kind: Gap = Gap.UNAVAILABLE) -> None:
        self._gaps[what, kind, detail] += 1

    def _end(self, at: _At, why: str) -> None:
        """End the way here, and say why."""
        self._note(self._station("unknown", at, detail=why))
        self._lacks("stations", why)


def _is_for(bridge: Link, at: _At, known: Onward, routing: Routing) -> bool:
    """Tell whether a frame on *bridge* is for the bridge itself, by its MAC or else by the next hop."""
    port = known.port(bridge, at.mac)
    if isinstance(port, Link):
        return port.index == bridge.index
    packed = ipaddress.ip_address(at.next_hop).packed
    family = 4 if len(packed) == 4 else 6
    (way,) = routing.ways([Question(family, packed)])
    return way.type == "local"


def _translated(here: Station, new: FourTuple, *, answers: bool) -> Station:
    """Return the station with its translation; answers are turned back, ends exchanged."""
    old = here.packet or new
    source, destination = (old[:2] != new[:2]), (old[2:] != new[2:])
    snat, dnat = (destination, source) if answers else (source, destination)
    nat = {(True, True): "both", (True, False): "snat", (False, True): "dnat"}.get((snat, dnat))
    return replace(here, new=new, nat=nat, flow_direction="reply" if answers else "original")


def _with_way(here: Station, way: Way) -> Station:
    names = ("type", "gateway", "mac", "interface", "interface_kind", "subnet", "error", "reason")
    return replace(here, **{name: getattr(way, name) for name in names})
