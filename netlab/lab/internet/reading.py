"""A networkx graph, or a TOML file of one, as a checked shape."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Iterable, Mapping
from itertools import count, pairwise
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import networkx as nx

from netlab import checks
from netlab.errors import BadInput
from netlab.lab.internet import attributes as known
from netlab.lab.internet.shape import CLIENT, Epoch, Link, Node, Shape

Graph: TypeAlias = "nx.Graph[str]"

# Where addresses that nobody gave come from: the benchmark and documentation ranges (RFC 2544, RFC 3849).
_POOL4, _POOL6 = ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("2001:db8::/64")

_SMALLEST6 = 1280  # RFC 8200 section 5: a device with a smaller MTU has no IPv6


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
    return float(known.number(0, 1e6)(f"at_s of {what}", given))


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
                    self.own(known.address(family)(f"address{family} of node {name!r}", given), name)
        self._free = {4: self._unused(_POOL4), 6: self._unused(_POOL6)}

    def _unused(self, pool: Any) -> Iterable[bytes]:
        return iter(a for a in (pool[number].packed for number in count(1)) if a not in self._owners)

    def own(self, address: bytes, name: str) -> None:
        """Note that *address* is *name*'s; refuse it if another node has it."""
        if self._owners.setdefault(address, name) != name:
            text = ipaddress.ip_address(address)
            raise BadInput(f"nodes {self._owners[address]!r} and {name!r} have the same address {text}")

    def take(self, family: int, name: str) -> bytes:
        """Return the next free address of *family* for *name*."""
        address = next(iter(self._free[family]))
        self.own(address, name)
        return address

    def check(self, links: Mapping[str, tuple[Link, ...]]) -> None:
        """Refuse addresses of interfaces that another node has."""
        for link in (link for of_node in links.values() for link in of_node):
            for address in filter(None, (link.far_address4, link.far_address6)):
                self.own(address, link.far)


def _node(name: str, attributes: Mapping[str, Any], addresses: _Addresses) -> Node:
    checked = known.checked(f"node {name!r}", attributes, known.NODE)
    for outside in (checked.get("nat4"), checked.get("nat6"), *checked.get("dnat", ())):
        if outside:
            addresses.own(outside, name)
    for family in (4, 6):
        if not checked.get(f"address{family}"):
            checked[f"address{family}"] = addresses.take(family, name)
    if bool(checked.get("icmp_per_s")) != bool(checked.get("icmp_burst")):
        raise BadInput(f"node {name!r} has only one of icmp_per_s and icmp_burst", fix="Give both or none")
    return Node(name=name, **checked)


def _link(near: str, far: str, attributes: Mapping[str, Any]) -> Link:
    checked = known.checked(f"link {near!r} to {far!r}", attributes, known.LINK)
    if near == CLIENT and checked.get("mtu_bytes", _SMALLEST6) < _SMALLEST6:
        raise BadInput(
            f"mtu_bytes of link {near!r} to {far!r}: IPv6 needs {_SMALLEST6} at least",
            fix="Make a link behind it narrow: this one is the device itself",
        )
    for field in ("delay", "jitter"):
        checked[f"{field}_ns"] = round(checked.pop(f"{field}_ms", 0) * 10**6)
    return Link(near=near, far=far, **checked)
