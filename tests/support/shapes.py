"""The shapes of tests/data/simulated: graphs with what is expected of them, by node names."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
from scapy.layers import inet, inet6

from netlab.lab.internet import reading
from netlab.lab.internet.forward import Internet
from netlab.lab.internet.routing import Atlas
from netlab.lab.internet.truth import Flow, Truth

DIRECTORY = Path(__file__).parents[1] / "data" / "simulated"


@dataclass
class Case:
    """One expectation of one shape; `wanted` is its table in the file."""

    name: str
    number: int
    wanted: dict[str, Any]
    graph: nx.DiGraph

    def __str__(self) -> str:
        return f"{self.name}-{self.number}"

    @property
    def family(self) -> int:
        return self.wanted.get("family", 4)

    @property
    def atlas(self) -> Atlas:
        return Atlas(reading.epochs(self.graph))

    @property
    def at_s(self) -> float:
        return self.wanted.get("at_s", 0)

    def flow(self, source_port: int = 40000, target: str = "") -> Flow:
        return Flow(
            target or self.wanted["target"],
            protocol=self.wanted.get("protocol", "udp"),
            port=self.wanted.get("port", 33434),
            source_port=source_port,
            family=self.family,
        )

    def address(self, place: str) -> str | None:
        """Return the address of a node, an address as it is, None for silence."""
        if not place:
            return None
        return (
            str(ipaddress.ip_address(place))
            if place not in self.graph
            else self.truth().address(place, self.family)
        )

    def addresses(self, hops: list[list[str]]) -> list[set[str | None]]:
        return [{self.address(place) for place in places} for places in hops]

    def truth(self, seed: int = 0) -> Truth:
        return Truth(self.atlas, seed)

    def internet(self, seed: int = 0) -> Internet:
        return Internet(self.atlas, seed)

    def probe(self, ttl: int, *, size: int = 0, tos: int = 0, dont_fragment: bool = False) -> bytes:
        """Return a probe made by scapy, *size* bytes in all."""
        flow = self.flow()
        target, source = self.address(flow.target), self.truth().address("client", self.family)
        if self.family == 4:
            flags = "DF" if dont_fragment else 0
            header = inet.IP(src=source, dst=target, ttl=ttl, tos=tos, id=4711, flags=flags)
        else:
            header = inet6.IPv6(src=source, dst=target, hlim=ttl, tc=tos)
        if flow.protocol == "udp":
            transport = inet.UDP(sport=flow.source_port, dport=flow.port)
        elif flow.protocol == "tcp":
            transport = inet.TCP(sport=flow.source_port, dport=flow.port, seq=0x01020304, flags="S")
        else:
            transport = inet.ICMP(id=77, seq=5) if self.family == 4 else inet6.ICMPv6EchoRequest(id=77, seq=5)
        packet = header / transport
        return bytes(packet / bytes(max(size - len(packet), 0)))


def parsed(packet: bytes) -> Any:
    return inet.IP(packet) if packet[0] >> 4 == 4 else inet6.IPv6(packet)


_V4 = {
    (11, 0): "time-exceeded",
    (3, 3): "port-unreachable",
    (3, 13): "admin-prohibited",
    (3, 0): "net-unreachable",
}
_V4 |= {(0, 0): "echo-reply", (3, 4): "too-big", (3, 2): "protocol-unreachable"}
_V6 = {
    (3, 0): "time-exceeded",
    (1, 4): "port-unreachable",
    (1, 1): "admin-prohibited",
    (1, 0): "net-unreachable",
}
_V6 |= {(129, 0): "echo-reply", (2, 0): "too-big", (4, 1): "protocol-unreachable"}
_TCP = {"SA": "syn-ack", "R": "rst", "RA": "rst-ack", "A": "ack"}


def kind(answer: bytes) -> str:
    """Return what an answer says, as scapy reads it."""
    packet = parsed(answer)
    if inet.TCP in packet and packet.payload.__class__ is inet.TCP:
        return _TCP[str(packet[inet.TCP].flags)]
    if packet.payload.__class__ is inet.UDP:
        return "udp-reply"
    if packet.version == 4:
        return _V4[packet[inet.ICMP].type, packet[inet.ICMP].code]
    return _V6[packet.payload.type, packet.payload.code]


def quote(answer: bytes) -> bytes:
    """Return what an ICMP error quotes."""
    return bytes(parsed(answer).payload)[8:]


def cases() -> list[Case]:
    found = []
    for file in sorted(DIRECTORY.glob("*.toml")):
        graph = reading.load_shape(file)
        found += [Case(file.stem, n, wanted, graph) for n, wanted in enumerate(graph.graph["expected"])]
    return found


def having(key: str) -> list[Case]:
    chosen = [case for case in cases() if key in case.wanted]
    assert chosen, f"no shape says {key}"
    return chosen
