"""What a router does to a packet that it forwards, and how long it goes on answering."""

from __future__ import annotations

from dataclasses import dataclass, field

from netlab.lab.internet.chance import Chance
from netlab.lab.internet.journey import Outcome
from netlab.lab.internet.parcel import Parcel
from netlab.lab.internet.shape import Link, Node
from netlab.wire import ip


class Stop(Exception):  # noqa: N818 - no error: how trips end before their goal
    """A packet does not go on from *place*."""

    def __init__(self, outcome: Outcome, place: str) -> None:
        super().__init__()
        self.outcome = outcome
        self.place = place


@dataclass(slots=True)
class Trip:
    """A packet on its way, in one direction."""

    parcel: Parcel
    node: Node
    at_ns: int
    visited: list[str] = field(default_factory=list)
    link: Link | None = None
    mtu_bytes: int = 0
    expired: bool = False
    away: bool = field(kw_only=True)


@dataclass(slots=True)
class Bucket:
    """The tokens that a node has left for ICMP errors."""

    tokens: float
    at_ns: int = 0

    def take(self, at_ns: int, node: Node) -> bool:
        """Take a token; return whether there was one."""
        at_ns = max(at_ns, self.at_ns)
        gained = (at_ns - self.at_ns) / 10**9 * node.icmp_per_s
        self.tokens, self.at_ns = min(node.icmp_burst, self.tokens + gained), at_ns
        if self.tokens < 1 - 1e-9:
            return False
        self.tokens -= 1
        return True


def count_hop(trip: Trip) -> None:
    """Take one from the time to live, unless the node does not show itself that way."""
    if trip.node.hidden:
        return
    if trip.parcel.ttl <= 1:
        raise Stop(Outcome.EXPIRED, trip.node.name)
    trip.parcel.ttl -= 1


def filtered(trip: Trip) -> None:
    """Stop a packet of a kind that the node does not let through."""
    protocol = trip.parcel.header.protocol
    if protocol in trip.node.filters:
        raise Stop(Outcome.FILTERED, trip.node.name)
    if protocol in trip.node.prohibits:
        raise Stop(Outcome.PROHIBITED, trip.node.name)


def rewrite(trip: Trip, chance: Chance) -> None:
    """Write over what the node was told to."""
    node, parcel = trip.node, trip.parcel
    if node.set_dscp is not None:
        parcel.tos = node.set_dscp << 2 | parcel.tos & 3
    if node.set_ecn is not None:
        parcel.tos = parcel.tos & ~3 | node.set_ecn
    if node.set_ttl:
        parcel.ttl = node.set_ttl
    if node.set_ip_id and isinstance(parcel.header, ip.IPv4):
        parcel.header = parcel.header._replace(identification=int(chance.share() * 0xFFFF))
