"""The plan of the practice network: who is linked to whom, under which addresses, with which services.

Pure data, so that a test or a notebook can ask what is true before anything is built::

    client ── gateway ── r1 ── r2 ── r3 ─┬─ web
             (NAT)                       └─ db

The client's network is private (10.0.0.0/24, fd00::/64) and unknown beyond the gateway. Link number n beyond
it is 198.18.n.0/24, of the benchmark range (RFC 2544), and 2001:db8:n::/64, of the documentation range
(RFC 3849). On every link the end nearer to the gateway is .1 (::1) and the other one .2 (::2).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

import networkx as nx

from netlab.checks import choice

Family = Literal[4, 6]
Network = IPv4Network | IPv6Network

FAMILIES: tuple[Family, Family] = (4, 6)
CLIENT, GATEWAY, ROUTERS, SERVERS = "client", "gateway", ("r1", "r2", "r3"), ("web", "db")
HOSTS = (CLIENT, GATEWAY, *ROUTERS, *SERVERS)


@dataclass(frozen=True, slots=True)
class Link:
    """A point-to-point link; *near* is the end nearer to the gateway."""

    near: str
    far: str
    network4: IPv4Network
    network6: IPv6Network

    def network(self, family: Family) -> Network:
        """Return the link's prefix of one family."""
        return self.network4 if family == 4 else self.network6

    def address(self, host: str, family: Family) -> str:
        """Return *host*'s address on this link."""
        return str(self.network(family)[1 if host == self.near else 2])

    def peer(self, host: str) -> str:
        """Return the host at the other end."""
        return self.far if host == self.near else self.near


def _link(near: str, far: str, network4: str, network6: str) -> Link:
    return Link(near, far, IPv4Network(network4), IPv6Network(network6))


INSIDE = _link(GATEWAY, CLIENT, "10.0.0.0/24", "fd00::/64")
OUTSIDE = (
    _link(GATEWAY, "r1", "198.18.1.0/24", "2001:db8:1::/64"),
    _link("r1", "r2", "198.18.2.0/24", "2001:db8:2::/64"),
    _link("r2", "r3", "198.18.3.0/24", "2001:db8:3::/64"),
    _link("r3", "web", "198.18.4.0/24", "2001:db8:4::/64"),
    _link("r3", "db", "198.18.5.0/24", "2001:db8:5::/64"),
)
LINKS = (INSIDE, *OUTSIDE)


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of the practice network.

    On web: `http` and `slow_http` (which thinks for `slow_answer_s` first), `udp_echo`. On db: `http` and
    `tcp_echo`.
    On both: nothing listens on `refuses`, and the firewall drops what comes to `drops`. The gateway forwards
    its own `forwarded` to web's `http` (DNAT).
    """

    http: int = 80
    slow_http: int = 8081
    udp_echo: int = 5353
    tcp_echo: int = 5432
    refuses: int = 9
    drops: int = 6666
    forwarded: int = 8088
    slow_answer_s: float = 0.5


PORTS = Ports()
LISTENING = (("web", PORTS.http), ("web", PORTS.slow_http), ("db", PORTS.http), ("db", PORTS.tcp_echo))


def links_of(host: str) -> list[Link]:
    """Return the links that *host* is an end of, nearest to the client first."""
    return [link for link in LINKS if host in {link.near, link.far}]


def address(host: str, family: Family) -> str:
    """Return *host*'s address as a service: a server's or client's only one, a router's toward the client."""
    return links_of(host)[0].address(host, family)


def graph() -> nx.Graph[str]:
    """Return the network as a graph: nodes with `role` and addresses, edges with `network4`, `network6`."""
    network: nx.Graph[str] = nx.Graph()
    for role, hosts in (
        ("client", (CLIENT,)),
        ("gateway", (GATEWAY,)),
        ("router", ROUTERS),
        ("server", SERVERS),
    ):
        for host in hosts:
            network.add_node(host, role=role, address4=address(host, 4), address6=address(host, 6))
    for link in LINKS:
        network.add_edge(link.near, link.far, network4=str(link.network4), network6=str(link.network6))
    return network


def path(server: str, family: Family) -> list[str]:
    """Return the addresses that answer a trace from the client: TTL 1, TTL 2, …, the server itself last.

    A router answers from the interface that the probe came in by, which is the one toward the client.
    """
    choice("server", server, SERVERS)
    hosts = nx.shortest_path(graph(), CLIENT, server)
    return [address(host, family) for host in hosts[1:]]


def routes(host: str, family: Family) -> list[tuple[str, str]]:
    """Return the (prefix, next hop) pairs that *host* needs; beyond the gateway nobody knows the inside.

    There is no default route: an address outside the plan, such as this machine's name server, is
    unreachable at once instead of after a time-out.
    """
    network = graph()
    known = LINKS if host in {CLIENT, GATEWAY} else OUTSIDE
    pairs = []
    for link in known:
        if host in {link.near, link.far}:
            continue
        target = min((link.near, link.far), key=lambda end: nx.shortest_path_length(network, host, end))
        following = nx.shortest_path(network, host, target)[1]
        shared = next(own for own in links_of(host) if following in {own.near, own.far})
        pairs.append((str(link.network(family)), shared.address(following, family)))
    return pairs
