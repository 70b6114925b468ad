"""A networkx graph, or a TOML file of one, as a checked shape: the only place that reads attributes."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Callable, Iterable, Mapping
from itertools import count, pairwise
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import networkx as nx

from netlab import checks
from netlab.errors import BadInput
from netlab.lab.internet.shape import CLIENT, Balance, Echo, Epoch, Link, Node, Quotes, Shape, Tcp, Udp
from netlab.wire import icmp, ip
from netlab.wire.extensions import Label

Graph: TypeAlias = "nx.Graph[str]"
_Check: TypeAlias = Callable[[str, Any], Any]  # (what it is about, value) → what the shape has

_PROTOCOLS = {
    "udp": frozenset({ip.UDP}),
    "tcp": frozenset({ip.TCP}),
    "icmp": frozenset({ip.ICMP, ip.ICMPV6}),
}
# Where addresses that nobody gave come from: the benchmark and documentation ranges (RFC 2544, RFC 3849).
_POOL4, _POOL6 = ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("2001:db8::/64")


def load_shape(path: str | PathLike[str]) -> nx.DiGraph[str]:
    r"""Read the graph of a simulated internet from a TOML file.

    The file has `[nodes.NAME]` tables, a list of `[[links]]`, one of `[[changes]]`, and anything else, which
    becomes an attribute of the graph as it is: a test's expectation, for example. A link is `between = ["a",
    "b"]`, both directions alike (more names are a row of links), or `from = "a"` and `to = "b"`, that
    direction only. A later link may change some of an earlier one, and names nodes that need no table.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    DiGraph
        What `netlab.lab.simulated` takes; its docstring lists the attributes.

    Raises
    ------
    BadInput
        If the file cannot be read, is no TOML, or a link does not say between which nodes it is.

    Examples
    --------
    >>> import netlab, tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     _ = file.write('[[links]]\nbetween = ["client", "r1"]\ndelay_ms = 5')
    ...     file.flush()
    ...     graph = netlab.lab.load_shape(file.name)
    >>> graph.edges["client", "r1"]
    {'delay_ms': 5}
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} cannot be read: {error}", fix="Give a TOML file of nodes and links"
        ) from error
    graph: nx.DiGraph[str] = nx.DiGraph()
    for name, attributes in found.pop("nodes", {}).items():
        graph.add_node(name, **attributes)
    for number, link in enumerate(found.pop("links", [])):
        for ends in _ends(f"link {number} of {path}", link):
            graph.add_edge(*ends, **{k: v for k, v in link.items() if k not in {"between", "from", "to"}})
    graph.graph.update(found)
    return graph


def _ends(what: str, link: Mapping[str, Any]) -> list[tuple[str, str]]:
    match link:
        case {"between": [str(), str(), *_] as row} if all(isinstance(name, str) for name in row):
            return [ends for pair in pairwise(row) for ends in (pair, pair[::-1])]
        case {"from": str(near), "to": str(far)}:
            return [(near, far)]
    raise BadInput(f"{what} does not say where it is", fix='Give between = ["a", "b"], or from and to')


def epochs(graph: Graph) -> list[Epoch]:
    """Return the shapes of *graph* over time, the first from 0 on."""
    if not isinstance(graph, nx.Graph) or graph.is_multigraph():
        raise BadInput(f"a {type(graph).__name__} is no shape of an internet", fix="Give a Graph or DiGraph")
    directed = nx.DiGraph(graph)
    found = [Epoch(0, _shape(directed))]
    changes = graph.graph.get("changes", [])
    for number, change in enumerate(sorted(changes, key=lambda change: _at(change, "a change"))):
        from_ns = round(_at(change, f"change {number}") * 10**9)
        _apply(directed, change, f"change {number}")
        if from_ns == found[-1].from_ns:
            found.pop()
        found.append(Epoch(from_ns, _shape(directed)))
    return found


def _at(change: Any, what: str) -> float:
    given = change.get("at_s") if isinstance(change, Mapping) else None
    return float(_number(0, 1e6)(f"at_s of {what}", given))


def _apply(graph: nx.DiGraph[str], change: Mapping[str, Any], what: str) -> None:
    new = {
        key: value for key, value in change.items() if key not in {"at_s", "node", "between", "from", "to"}
    }
    if "node" in change:
        if change["node"] not in graph:
            raise BadInput(
                f"{what} is about node {change['node']!r}", fix=checks.nearest(change["node"], graph)
            )
        graph.nodes[change["node"]].update(new)
        return
    for ends in _ends(what, change):
        if ends not in graph.edges:
            raise BadInput(f"{what} is about a link {ends[0]} to {ends[1]}, which is not there", fix=_LINKS)
        graph.edges[ends].update(new)


_LINKS = "A link that comes later is there from the start with up = False"


def _shape(graph: nx.DiGraph[str]) -> Shape:
    if CLIENT not in graph or not graph.out_degree(CLIENT):
        raise BadInput(f"no node called {CLIENT!r} with a link", fix="It is where this host's packets enter")
    addresses = _Addresses(graph)
    nodes = {name: _node(name, graph.nodes[name], addresses) for name in graph}
    links: dict[str, tuple[Link, ...]] = {
        name: tuple(_link(name, far, graph.edges[name, far]) for far in sorted(graph.successors(name)))
        for name in graph
    }
    addresses.check(links)
    return Shape(nodes, links)


class _Addresses:
    """Gives addresses to nodes without, and finds those given twice."""

    def __init__(self, graph: nx.DiGraph[str]) -> None:
        self._owners: dict[bytes, str] = {}
        for name in graph:
            if not isinstance(name, str) or not name:
                raise BadInput(f"node {name!r} has no name that is a string", fix="networkx.relabel_nodes()")
            for family in (4, 6):
                given = graph.nodes[name].get(f"address{family}")
                if given is not None:
                    self._own(_address(family)(f"address{family} of node {name!r}", given), name)
        self._free = {4: self._unused(_POOL4), 6: self._unused(_POOL6)}

    def _unused(self, pool: Any) -> Iterable[bytes]:
        return iter(a for a in (pool[number].packed for number in count(1)) if a not in self._owners)

    def _own(self, address: bytes, name: str) -> None:
        if self._owners.setdefault(address, name) != name:
            text = ipaddress.ip_address(address)
            raise BadInput(f"nodes {self._owners[address]!r} and {name!r} have the same address {text}")

    def take(self, family: int, name: str) -> bytes:
        """Return the next free address of *family* for *name*."""
        address = next(iter(self._free[family]))
        self._own(address, name)
        return address

    def check(self, links: Mapping[str, tuple[Link, ...]]) -> None:
        """Refuse addresses of interfaces that another node has."""
        for link in (link for of_node in links.values() for link in of_node):
            for address in filter(None, (link.far_address4, link.far_address6)):
                self._own(address, link.far)


def _node(name: str, attributes: Mapping[str, Any], addresses: _Addresses) -> Node:
    checked = _checked(f"node {name!r}", attributes, _NODE)
    for family in (4, 6):
        if not checked.get(f"address{family}"):
            checked[f"address{family}"] = addresses.take(family, name)
    if bool(checked.get("icmp_per_s")) != bool(checked.get("icmp_burst")):
        raise BadInput(f"node {name!r} has only one of icmp_per_s and icmp_burst", fix="Give both or none")
    return Node(name=name, **checked)


def _link(near: str, far: str, attributes: Mapping[str, Any]) -> Link:
    checked = _checked(f"link {near!r} to {far!r}", attributes, _LINK)
    for field in ("delay", "jitter"):
        checked[f"{field}_ns"] = round(checked.pop(f"{field}_ms", 0) * 10**6)
    return Link(near=near, far=far, **checked)


def _checked(what: str, attributes: Mapping[str, Any], known: Mapping[str, _Check]) -> dict[str, Any]:
    for key in attributes:
        if key not in known:
            raise BadInput(f"{what} has an unknown attribute {key!r}", fix=checks.nearest(key, known))
    return {key: known[key](f"{key} of {what}", value) for key, value in attributes.items()}


def _number(low: float, high: float) -> _Check:
    def check(what: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise BadInput(f"{what}: {value!r} is not a number from {low:g} to {high:g}")
        return float(value)

    return check


def _whole(low: int, high: int) -> _Check:
    return lambda what, value: checks.whole(what, value, low, high)


def _flag(what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadInput(f"{what}: {value!r} is neither true nor false")
    return value


def _word(kind: Any) -> _Check:
    return lambda what, value: kind(checks.choice(what, value, list(kind)))


def _by_port(kind: Any) -> _Check:
    word = _word(kind)

    def check(what: str, value: Any) -> dict[int, Any]:
        if not isinstance(value, Mapping):
            raise BadInput(f"{what}: {value!r} is no table of ports")
        # TOML's keys are strings.
        numbers = {int(k) if isinstance(k, str) and k.isdecimal() else k: v for k, v in value.items()}
        return {checks.port(port, f"port {port!r} in {what}"): word(what, v) for port, v in numbers.items()}

    return check


def _address(family: int) -> _Check:
    def check(what: str, value: Any) -> bytes:
        try:
            found = ipaddress.ip_address(value)
        except ValueError:
            found = None
        if found is None or found.version != family or found.is_multicast or found.is_loopback:
            raise BadInput(f"{what}: {value!r} is no IPv{family} address of a host")
        return found.packed

    return check


def _prefixes(what: str, value: Any) -> tuple[tuple[int, int, int], ...]:
    try:
        networks = [ipaddress.ip_network(prefix) for prefix in _several(what, value)]
    except ValueError as error:
        raise BadInput(f"{what}: {error}", fix="Give networks such as 203.0.113.0/24") from error
    return tuple((n.max_prefixlen, int(n.network_address), int(n.netmask)) for n in networks)


def _silence(what: str, value: Any) -> frozenset[icmp.Error]:
    if isinstance(value, bool):
        return frozenset(icmp.Error) if value else frozenset()
    return frozenset(_word(icmp.Error)(what, word) for word in _several(what, value))


def _protocols(what: str, value: Any) -> frozenset[int]:
    words = [checks.choice(what, word, _PROTOCOLS) for word in _several(what, value)]
    return frozenset().union(*(_PROTOCOLS[word] for word in words))


def _several(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise BadInput(f"{what}: {value!r} is no list")
    return list(value)


def _labels(what: str, value: Any) -> tuple[Label, ...]:
    stack = []
    for entry in _several(what, value):
        known = {"label": _whole(0, 2**20 - 1), "traffic_class": _whole(0, 7), "ttl": _whole(0, 255)}
        table = entry if isinstance(entry, Mapping) else {"label": entry}
        if "label" not in table:
            raise BadInput(f"{what}: {entry!r} has no label")
        stack.append(Label(**_checked(what, table, known)))
    if len(stack) > 16:
        raise BadInput(f"{what}: a stack of {len(stack)} labels", fix="Give 16 at most")
    return tuple(stack)


def _translations(what: str, value: Any) -> dict[bytes, bytes]:
    if not isinstance(value, Mapping):
        raise BadInput(f"{what}: {value!r} is no table of addresses")
    pairs = {}
    for outside, inside in value.items():
        family = 6 if ":" in str(outside) else 4
        pairs[_address(family)(what, outside)] = _address(family)(what, inside)
    return pairs


_NODE: dict[str, _Check] = {
    "address4": _address(4),
    "address6": _address(6),
    "prefixes": _prefixes,
    "balance": _word(Balance),
    "silent": _silence,
    "answers_from4": _address(4),
    "answers_from6": _address(6),
    "reply_ttl": _whole(1, 255),
    "quote_bytes": _whole(8, 65535),
    "icmp_per_s": _number(0.001, 1e6),
    "icmp_burst": _whole(1, 10**6),
    "mpls": _labels,
    "hidden": _flag,
    "set_ttl": _whole(1, 255),
    "set_dscp": _whole(0, 63),
    "set_ecn": _whole(0, 3),
    "set_ip_id": _flag,
    "nat4": _address(4),
    "nat6": _address(6),
    "nat_port_shift": _whole(0, 65534),
    "nat_quotes": _word(Quotes),
    "dnat": _translations,
    "filters": _protocols,
    "prohibits": _protocols,
    "tcp": _word(Tcp),
    "tcp_ports": _by_port(Tcp),
    "udp": _word(Udp),
    "udp_ports": _by_port(Udp),
    "echo": _word(Echo),
}
_LINK: dict[str, _Check] = {
    "delay_ms": _number(0, 1e6),
    "jitter_ms": _number(0, 1e6),
    "loss": _number(0, 1),
    "mtu_bytes": _whole(68, 65535),
    "metric": _whole(1, 10**6),
    "up": _flag,
    "far_address4": _address(4),
    "far_address6": _address(6),
}
