"""What is true of a simulated internet: where a flow can go, what would answer it, and what has happened."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, TypeAlias

import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.lab.internet.forward import Internet
from netlab.lab.internet.journey import Entry, Journey
from netlab.lab.internet.routing import Atlas
from netlab.lab.internet.shape import CLIENT
from netlab.wire import icmp, ip, tcp, udp

Family: TypeAlias = Literal[4, 6]
Log: TypeAlias = Callable[[], list[Entry]]

_PROTOCOLS = {"udp": ip.UDP, "tcp": ip.TCP, "icmp": ip.ICMP}
_MOST_TTL = 255


@dataclass(frozen=True, slots=True)
class Flow:
    """The packets that a per-flow load balancer cannot tell apart.

    Parameters
    ----------
    target
        A node's name or an address.
    protocol
        "udp", "tcp" or "icmp" (echo requests).
    source_port, port
        The ports; for ICMP `port` is the checksum, which balancers take for ports.
    family
        4 or 6, where the target is a name.
    label
        The IPv6 flow label.
    """

    target: str
    protocol: str = "udp"
    source_port: int = 40000
    port: int = 33434
    family: Family = 4
    label: int = 0


class Truth:
    """Answers from the shape itself, and from the log of the process that carries the packets.

    It works on a graph alone, too: `Truth(Atlas(epochs(graph)), seed)` needs no privileges.
    """

    def __init__(self, atlas: Atlas, seed: int, log: Log = list) -> None:
        self._atlas = atlas
        self._seed = seed
        self._log = log

    def address(self, node: str, family: Family = 4) -> str:
        """Return the address of a node.

        Raises
        ------
        BadInput
            If there is no such node.
        """
        nodes = self._atlas.at(0).shape.nodes
        return str(ip_address(nodes[checks.choice("node", node, nodes)].address(family)))

    def paths(self, flow: Flow, *, at_s: float = 0.0) -> list[tuple[str, ...]]:
        """Return the paths that packets of *flow* can take: the nodes from the first router to the end.

        There is one unless a balancer on the way sends each packet by itself.
        """
        return sorted({journey.there for journey in self._possible(flow, _MOST_TTL, at_s)})

    def hops(self, flow: Flow, *, at_s: float = 0.0) -> list[list[str | None]]:
        """Return who can answer packets of *flow* by TTL, from 1 to where a longer life changes nothing.

        An entry is a sorted list of addresses, with None where a packet can stay unanswered. Nothing is lost
        and no rate limit is reached.
        """
        table: list[list[str | None]] = []
        for ttl in range(1, _MOST_TTL + 1):
            journeys = self._possible(flow, ttl, at_s)
            found = {_answering(journey) for journey in journeys}
            table.append(sorted(found, key=lambda address: address or ""))
            if not any(journey.expired for journey in journeys):
                break
        return table

    def log(self) -> pd.DataFrame:
        """Return what happened to each packet that the client has sent so far, in order.

        Asking takes the carrying process a moment; do it when nothing is under way.

        Returns
        -------
        DataFrame
            `number`, `entered_at` (the kernel's wall clock), `family`, `protocol` (number), `ttl`, `source`,
            `target`, `source_port`, `port`, `there` and `back` (tuples of the nodes that the packet and
            its answer came to), `outcome` (`netlab.lab.internet.journey.Outcome`), `place` (the node or link
            where it ended), `answered_by`, `delay_ms` (how long the way there and back takes, missing without
            an answer), `late_ms` (how much later the answer was put into the kernel, missing while it is
            under way and if the kernel refused it), `rtt_ms` (the sum: the true round-trip time).
        """
        rows = [_row(entry) for entry in self._log()]
        frame = pd.DataFrame(rows, columns=_COLUMNS)
        frame["entered_at"] = pd.to_datetime(frame["entered_at"], unit="ns", utc=True)
        frame = frame.astype(dict.fromkeys(("source_port", "port"), "Int64"))
        frame = frame.astype(dict.fromkeys(("delay_ms", "late_ms"), "Float64"))
        frame["rtt_ms"] = frame["delay_ms"] + frame["late_ms"]
        return frame

    def journeys(self) -> list[Journey]:
        """Return the journey of each packet so far: its bytes and its answer's, and where they went."""
        return [entry.journey for entry in self._log()]

    def _possible(self, flow: Flow, ttl: int, at_s: float) -> list[Journey]:
        packet = self._packet(flow, ttl)
        return list(Internet(self._atlas, self._seed).possible(packet, round(at_s * 10**9)))

    def _packet(self, flow: Flow, ttl: int) -> bytes:
        target = self._packed(flow)
        family = 4 if len(target) == 4 else 6
        source = self._atlas.at(0).shape.nodes[CLIENT].address(family)
        protocol = _PROTOCOLS[checks.choice("protocol", flow.protocol, _PROTOCOLS)]
        transport = _transport(flow, source, target)
        header: ip.Header
        if family == 4:
            header = ip.IPv4(source=source, destination=target, protocol=protocol, ttl=ttl)
        else:
            number = ip.ICMPV6 if protocol == ip.ICMP else protocol
            header = ip.IPv6(
                source=source, destination=target, protocol=number, ttl=ttl, flow_label=flow.label
            )
        return header.encode(transport)

    def _packed(self, flow: Flow) -> bytes:
        nodes = self._atlas.at(0).shape.nodes
        if flow.target in nodes:
            return nodes[flow.target].address(flow.family)
        try:
            return ip_address(flow.target).packed
        except ValueError:
            fix = checks.nearest(flow.target, nodes)
            raise BadInput(f"{flow.target!r} is neither a node nor an address", fix=fix) from None


def _transport(flow: Flow, source: bytes, target: bytes) -> bytes:
    if flow.protocol == "udp":
        return udp.encode(source, target, (flow.source_port, flow.port), b"")
    if flow.protocol == "tcp":
        syn = tcp.TCP(
            source_port=flow.source_port,
            destination_port=flow.port,
            sequence=0,
            acknowledgment=0,
            flags=tcp.Flags.SYN,
            window=0,
        )
        return syn.encode(source, target)
    family = 4 if len(target) == 4 else 6
    # A body that makes the checksum what was asked: two words, the second in place of what the first lacks.
    blank = icmp.Message(family=family, type=icmp.ECHO_REQUEST[family], code=0, rest=bytes(4), body=bytes(2))
    zero = int.from_bytes(blank.encode(source, target)[2:4], "big")
    word = (zero - flow.port) % 0xFFFF
    echo = icmp.Message(family=family, type=blank.type, code=0, rest=bytes(4), body=word.to_bytes(2, "big"))
    return echo.encode(source, target)


def _answering(journey: Journey) -> str | None:
    return str(ip_address(ip.decode(journey.answer)[0].source)) if journey.answer else None


_COLUMNS = [
    *("number", "entered_at", "family", "protocol", "ttl", "source", "target", "source_port", "port"),
    *("there", "back", "outcome", "place", "answered_by", "delay_ms", "late_ms"),
]


def _row(entry: Entry) -> tuple[object, ...]:
    journey = entry.journey
    header, transport = ip.decode(journey.packet)
    ports: tuple[int | None, int | None] = None, None
    if header.protocol in {ip.UDP, ip.TCP} and len(transport) >= 4:
        ports = int.from_bytes(transport[:2], "big"), int.from_bytes(transport[2:4], "big")
    kind = socket.AF_INET if header.family == 4 else socket.AF_INET6
    return (
        journey.number,
        entry.entered_ns,
        header.family,
        header.protocol,
        header.ttl,
        socket.inet_ntop(kind, header.source),
        socket.inet_ntop(kind, header.destination),
        *ports,
        journey.there,
        journey.back,
        journey.outcome.value,
        journey.place,
        journey.answered_by,
        None if journey.delay_ns is None else journey.delay_ns / 10**6,
        None if entry.late_ns is None else entry.late_ns / 10**6,
    )
