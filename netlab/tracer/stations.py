"""What a packet passes on its way through a host: stations as data, as a frame and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import pandas as pd

from netlab.frames import Missing
from netlab.kernel.processes import printable
from netlab.schemas import EXPLANATION

_LONGEST_NAME, _LONGEST = 80, 400  # bytes of foreign text that are shown


class FourTuple(NamedTuple):
    """The addresses and ports of a packet."""

    src: str
    sport: int
    dst: str
    dport: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.dst else 4


@dataclass(frozen=True, slots=True)
class Station:
    """One station; the fields are columns of `netlab.schemas.EXPLANATION`, None is what does not apply."""

    station: str
    netns: int | None = None
    protocol: str | None = None
    packet: FourTuple | None = None
    new: FourTuple | None = None
    nat: str | None = None
    flow_direction: str | None = None
    type: str | None = None
    gateway: str | None = None
    mac: str | None = None
    interface: str | None = None
    interface_kind: str | None = None
    subnet: str | None = None
    to_interface: str | None = None
    to_netns: int | None = None
    state: str | None = None
    pid: int | None = None
    process: str | None = None
    ttl: int | None = None
    address: str | None = None
    rtt_ms: float | None = None
    error: str | None = None
    reason: str | None = None
    source: str | None = None
    detail: str | None = None


_PACKETS = {"packet": "", "new": "new_"}
_COPIED = [field.name for field in fields(Station) if field.name not in _PACKETS]


def framed(stations: Sequence[Station], names: Mapping[int, str], missing: Iterable[Missing]) -> pd.DataFrame:
    """Return the stations as a frame; *names* are those of namespaces by inode."""
    columns = {name: [getattr(station, name) for station in stations] for name in _COPIED}
    for attribute, prefix in _PACKETS.items():
        packets = [getattr(station, attribute) for station in stations]
        for name in FourTuple._fields:
            columns[prefix + name] = [None if packet is None else getattr(packet, name) for packet in packets]
    columns["step"] = list(range(len(stations)))
    columns["namespace"] = [names.get(station.netns or 0) for station in stations]
    return EXPLANATION.frame(columns, missing)


class Line(NamedTuple):
    """A station in words: where, what, and what is said of it."""

    where: str
    what: str
    said: str


def lines(stations: Sequence[Station], names: Mapping[int, str]) -> list[Line]:
    """Return the stations in words; foreign names are bounded and without control characters."""
    return [Line(_space(one.netns, names), one.nat or one.station, _said(one, names)) for one in stations]


def place(address: str, port: int) -> str:
    """Return one end as text: ``10.0.0.1:80`` or ``[fd00::1]:80``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def plain(text: str, longest: int = _LONGEST) -> str:
    """Return foreign text that does nothing to a terminal, bounded."""
    return printable(text.encode(errors="backslashreplace"), longest)


def _space(inode: int | None, names: Mapping[int, str]) -> str:
    if inode is None:
        return ""
    return plain(names[inode], _LONGEST_NAME) if inode in names else f"netns {inode}"


def _said(one: Station, names: Mapping[int, str]) -> str:
    match one.station:
        case "socket":
            parts = [_owner(one), _tuple(one.packet), one.state]
        case "translation":
            parts = [_change(one)]
        case "route" | "bridge":
            parts = [_way(one), _onward(one, names)]
        case "peer":
            parts = [_owner(one), one.state, one.packet and f"from {place(one.packet.src, one.packet.sport)}"]
        case "hop":
            rtt = None if one.rtt_ms is None else f"{one.rtt_ms:.3g} ms"
            parts = [f"TTL {one.ttl}", one.address or "no answer", rtt]
        case _:
            parts = []
    failure = ": ".join(plain(part) for part in (one.error, one.reason) if part)
    return " · ".join(part for part in (*parts, failure, one.detail and plain(one.detail)) if part)


def _owner(one: Station) -> str:
    known = plain(one.process, _LONGEST_NAME) if one.process else ""
    pid = "" if one.pid is None else f"pid {one.pid}"
    return f"{known} ({pid})" if known and pid else known or pid


def _tuple(packet: FourTuple | None) -> str:
    return f"{place(packet.src, packet.sport)} → {place(packet.dst, packet.dport)}" if packet else ""


def _change(one: Station) -> str:
    if one.packet is None or one.new is None:
        return ""
    before = place(one.packet.src, one.packet.sport), place(one.packet.dst, one.packet.dport)
    after = place(one.new.src, one.new.sport), place(one.new.dst, one.new.dport)
    ends = zip(("source", "destination"), before, after, strict=True)
    turned = " (answers: turned back)" if one.flow_direction == "reply" else ""
    return "; ".join(f"{end} {old} becomes {new}" for end, old, new in ends if old != new) + turned


def _way(one: Station) -> str:
    if one.type == "local":
        return "to this namespace itself"
    if one.interface is None:
        return one.type or ""
    device = plain(one.interface)
    mac = f" ({one.mac})" if one.mac else ""
    if one.station == "bridge":
        return f"by port {device}{mac}"
    return f"by {device} via {one.gateway}{mac}" if one.gateway else f"by {device}, on the link{mac}"


def _onward(one: Station, names: Mapping[int, str]) -> str:
    if one.to_netns is None:
        return ""
    where = f" of {_space(one.to_netns, names)}" if one.to_netns != one.netns else ""
    return f"to {plain(one.to_interface or 'an interface')}{where}"
