"""A packet's journey: out along the links, and its answer back. Bytes and times in, bytes and times out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from netlab.errors import DecodeError
from netlab.lab.internet import hosts, nat, router
from netlab.lab.internet.chance import Chance, Drawn, Told, draw
from netlab.lab.internet.connections import Connections
from netlab.lab.internet.journey import Journey, Outcome
from netlab.lab.internet.parcel import Parcel, received
from netlab.lab.internet.reassembly import Reassembly
from netlab.lab.internet.router import Bucket, Stop, Trip
from netlab.lab.internet.routing import Atlas
from netlab.lab.internet.shape import CLIENT, Balance, Link, Node
from netlab.wire import extensions, icmp, ip

_MOST_LINKS = (
    512  # more than any TTL allows; only translations that lead in a circle of hidden nodes get there
)
_CONTROL = 0xC0  # the precedence of ICMP errors (RFC 1812 section 4.3.2.5)
_ICMP = {4: ip.ICMP, 6: ip.ICMPV6}


_QUIET = {
    hosts.Quiet.SILENT: Outcome.SILENT,
    hosts.Quiet.TAKEN: Outcome.TAKEN,
    hosts.Quiet.DAMAGED: Outcome.DAMAGED,
}
_ERRORS = {  # what a router says about a packet that cannot go on
    Outcome.EXPIRED: icmp.Error.TIME_EXCEEDED,
    Outcome.NO_ROUTE: icmp.Error.NET_UNREACHABLE,
    Outcome.PROHIBITED: icmp.Error.ADMIN_PROHIBITED,
}
_TOO_BIG = {4: icmp.Error.FRAGMENTATION_NEEDED, 6: icmp.Error.PACKET_TOO_BIG}


class Internet:
    """Carries packets over a shape. What it remembers is what routers and hosts do: bindings, buckets, TCP.

    A packet is walked to its end at once, at the times it would be where; so rate limiters see packets in the
    order in which they entered. The nth packet's chance comes from the seed and n, the branch of a flow from
    the seed, the balancer and the flow.

    Parameters
    ----------
    atlas
        The routes over time.
    seed
        Another seed, other losses, jitters and branches.
    """

    def __init__(self, atlas: Atlas, seed: int = 0) -> None:
        self._atlas = atlas
        self._seed = seed
        self._salt = str(seed).encode()
        self._bindings: nat.Bindings = {}
        self._buckets: dict[str, Bucket] = {}
        self._connections: dict[str, Connections] = defaultdict(Connections)
        self._pieces: dict[str, Reassembly] = defaultdict(Reassembly)
        self._answers: dict[str, int] = defaultdict(int)
        self._number = 0

    def carry(self, packet: bytes, at_ns: int, chance: Chance | None = None) -> Journey:
        """Return what happens to *packet*, which the client sends *at_ns* after the start.

        *chance* is drawn from the seed and the packet's number unless given.
        """
        number, self._number = self._number, self._number + 1
        chance = chance or Drawn(self._seed, number)
        try:
            parcel = received(packet)
        except DecodeError:
            return Journey(
                number=number, at_ns=at_ns, packet=packet, there=(), outcome=Outcome.DAMAGED, place=CLIENT
            )
        away = Trip(parcel, self._atlas.at(at_ns).shape.nodes[CLIENT], at_ns, away=True)
        home: Trip | None = None
        outcome, place = Outcome.ANSWERED, CLIENT
        try:
            home = Trip(self._answer(away, chance, number), away.node, away.at_ns, away=False)
            self._send_home(home)
            self._travel(home, chance)
        except Stop as stop:
            outcome, place = stop.outcome, stop.place
        arrived = home if outcome is Outcome.ANSWERED else None
        return Journey(
            number=number,
            at_ns=at_ns,
            packet=packet,
            there=tuple(away.visited),
            back=tuple(home.visited) if home else (),
            outcome=outcome,
            place=place,
            expired=away.expired,
            answered_by=away.node.name if home else "",
            answer=arrived.parcel.encode() if arrived else None,
            delay_ns=arrived.at_ns - at_ns if arrived else None,
        )

    def possible(self, packet: bytes, at_ns: int = 0) -> Iterator[Journey]:
        """Yield what can happen to *packet* where nothing is lost: each choice of the per-packet balancers.

        Nothing is remembered: neither bindings nor what rate limits had left.
        """
        untried: list[tuple[int, ...]] = [()]
        while untried:
            told = Told(untried.pop())
            yield Internet(self._atlas, self._seed).carry(packet, at_ns, told)
            untried += told.untried()

    def _answer(self, trip: Trip, chance: Chance, number: int) -> Parcel:
        """Send a packet on its way; return the answer of the node where the way ended."""
        what: hosts.Answer
        try:
            self._travel(trip, chance)
            trip.parcel = self._whole(trip)
            what = hosts.answer(trip.node, trip.parcel, self._connections[trip.node.name])
        except Stop as stop:
            trip.expired = stop.outcome is Outcome.EXPIRED
            errors = _ERRORS | {Outcome.TOO_BIG: _TOO_BIG[trip.parcel.family]}
            if stop.outcome not in errors or trip.node.name == CLIENT:
                raise
            what = errors[stop.outcome]
        if isinstance(what, hosts.Quiet):
            raise Stop(_QUIET[what], trip.node.name)
        if isinstance(what, icmp.Error):
            return self._error(trip, what, number)
        asked = trip.parcel.header
        tos = trip.parcel.tos if trip.parcel.is_icmp else 0
        addresses = asked.destination, asked.source
        number = self._identification(trip.node, number)
        return _parcel(trip.node, addresses, asked.protocol, what, tos=tos, identification=number)

    def _whole(self, trip: Trip) -> Parcel:
        whole = self._pieces[trip.node.name].join(trip.parcel)
        if whole is None:
            raise Stop(Outcome.FRAGMENT, trip.node.name)
        return whole

    def _error(self, trip: Trip, what: icmp.Error, number: int) -> Parcel:
        node, parcel, family = trip.node, trip.parcel, trip.parcel.family
        if what in node.silent:
            raise Stop(Outcome.SILENT, node.name)
        if not parcel.may_be_answered:
            raise Stop(Outcome.UNANSWERABLE, node.name)
        if node.icmp_burst:
            bucket = self._buckets.setdefault(node.name, Bucket(node.icmp_burst))
            if not bucket.take(trip.at_ns, node):
                raise Stop(Outcome.RATE_LIMITED, node.name)
        incoming = trip.link.far_address(family) if trip.link else b""
        addresses = node.error_source(family) or incoming or node.address(family), parcel.header.source
        mtu_bytes = node.told_mtu if trip.mtu_bytes and node.told_mtu is not None else trip.mtu_bytes
        message = icmp.error(family, what, parcel.quoted(node.quote_bytes), mtu_bytes=mtu_bytes)
        if node.mpls and what in extensions.EXTENSIBLE:
            message = extensions.extended(message, [extensions.encode_labels(node.mpls)])
        transport = message.encode(*addresses)
        number = self._identification(node, number)
        return _parcel(node, addresses, _ICMP[family], transport, tos=_CONTROL, identification=number)

    def _identification(self, node: Node, number: int) -> int:
        if not node.counts_answers:
            return draw(self._salt, b"identification", number.to_bytes(8, "big")) & 0xFFFF
        self._answers[node.name] += 1
        return self._answers[node.name] & 0xFFFF

    def _travel(self, trip: Trip, chance: Chance) -> None:
        """Move the packet from link to link until it has arrived; raise Stop where it cannot go on."""
        for _ in range(_MOST_LINKS):
            self._cross(trip, self._next_link(trip, chance), chance)
            if self._has_arrived(trip):
                return
            router.count_hop(trip)
            if trip.away:
                self._send_on(trip, chance)
            else:
                self._send_home(trip)
        raise Stop(Outcome.ASTRAY, trip.node.name)

    def _next_link(self, trip: Trip, chance: Chance) -> Link:
        routes, node = self._atlas.at(trip.at_ns), trip.node
        owner = routes.owner(trip.parcel.header.destination)
        ways = routes.ways(node.name, owner.name) if owner else ()
        if not ways and node.name == CLIENT:
            ways = routes.shape.links[CLIENT][:1]  # its default route
        if not ways:
            raise Stop(Outcome.NO_ROUTE, node.name)
        if len(ways) == 1:
            return ways[0]
        if node.balance is Balance.PACKET:
            return ways[chance.choose(len(ways))]
        by = trip.parcel.flow if node.balance is Balance.FLOW else trip.parcel.header.destination
        return ways[draw(self._salt, node.name.encode(), by) % len(ways)]

    def _cross(self, trip: Trip, link: Link, chance: Chance) -> None:
        if not trip.parcel.fits(link.mtu_bytes):
            trip.mtu_bytes = link.mtu_bytes
            raise Stop(Outcome.TOO_BIG, link.near)
        if link.loss and chance.share() < link.loss:
            raise Stop(Outcome.LOST, str(link))
        trip.at_ns += link.delay_ns
        if link.jitter_ns:
            trip.at_ns += round(chance.share() * link.jitter_ns)
        trip.link = link
        trip.node = self._atlas.at(trip.at_ns).shape.nodes[link.far]
        trip.visited.append(link.far)

    def _has_arrived(self, trip: Trip) -> bool:
        node, destination = trip.node, trip.parcel.header.destination
        owner = self._atlas.at(trip.at_ns).owner(destination)
        if owner is None or owner.name != node.name:
            return False
        if trip.away:
            if destination in node.dnat:
                return False
            router.filtered(trip)
            return True
        if destination == node.nat(trip.parcel.family):
            return False
        if node.name != CLIENT:
            raise Stop(Outcome.ASTRAY, node.name)
        return True

    def _send_on(self, trip: Trip, chance: Chance) -> None:
        """Do what a node does to the client's packets that it forwards."""
        router.filtered(trip)
        router.rewrite(trip, chance)
        nat.forward_to_inside(trip.node, trip.parcel)
        nat.go_out(trip.node, trip.parcel, self._bindings)

    def _send_home(self, trip: Trip) -> None:
        """Do what a node does to the answers that it forwards or gives itself."""
        node, parcel = trip.node, trip.parcel
        came_in = parcel.header.destination != node.nat(parcel.family) or nat.come_in(
            node, parcel, self._bindings
        )
        if not came_in:
            raise Stop(Outcome.UNTRANSLATED, node.name)
        if node.dnat:
            nat.come_back_from_inside(node, parcel)


def _parcel(
    node: Node,
    addresses: tuple[bytes, bytes],
    protocol: int,
    transport: bytes,
    *,
    tos: int,
    identification: int,
) -> Parcel:
    """Return what *node* sends; *addresses* are source and destination."""
    source, destination = addresses
    header: ip.Header
    if len(source) == 4:
        header = ip.IPv4(
            source=source,
            destination=destination,
            protocol=protocol,
            ttl=node.reply_ttl,
            tos=tos,
            identification=identification,
        )
    else:
        header = ip.IPv6(
            source=source, destination=destination, protocol=protocol, ttl=node.reply_ttl, traffic_class=tos
        )
    parcel = Parcel(header, transport)
    parcel.may_be_cut = True  # by its sender, who is taken to know the MTU of the path
    return parcel
