"""What rtnetlink tells of one network namespace: its links, addresses, neighbours and rules.

Source: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h and fib_rules.h. Numbers in the
messages are the host's, addresses are in network order.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab import addresses
from netlab.kernel import netlink, nlmessages
from netlab.kernel.nlattr import attribute

T = TypeVar("T")
Array: TypeAlias = npt.NDArray[Any]
Neighbours: TypeAlias = dict[tuple[int, str], tuple[str | None, str | None]]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ROUTE = 0  # NETLINK_ROUTE
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_GET_LINK, _GET_ADDRESS, _GET_NEIGHBOUR, _GET_RULE = 18, 22, 30, 34

_LINK = np.dtype([("family", "u1"), ("", "u1"), ("type", "u2"), ("index", "i4"), ("", "V8")])
_LINK_MAC, _LINK_NAME, _LINK_PEER, _LINK_MASTER, _LINK_INFO, _LINK_PEER_NETNS = 1, 3, 5, 10, 18, 37
_LINK_INFO_KIND = 1
_EXT_MASK, _SKIP_STATS = 29, 1 << 3  # IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS

_ADDRESS = np.dtype([("family", "u1"), ("prefix", "u1"), ("flags", "u1"), ("scope", "u1"), ("index", "u4")])
_ADDRESS_NETWORK, _ADDRESS_LOCAL = (1,), (2,)  # the peer's where the link is point-to-point

_NEIGHBOUR = np.dtype(
    [("family", "u1"), ("", "V3"), ("index", "i4"), ("state", "u2"), ("flags", "u1"), ("type", "u1")]
)
_NEIGHBOUR_ADDRESS, _NEIGHBOUR_MAC, _NEIGHBOUR_MASTER = (1,), (2,), (9,)
_PERMANENT = 0x80  # NUD_PERMANENT: in a bridge's table, a MAC of the bridge or of one of its ports
_NUD = {
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x40: "noarp",
    0x80: "permanent",
}

_RULE = np.dtype([("family", "u1"), ("", "V2"), ("tos", "u1"), ("", "V8")])  # struct fib_rule_hdr
_RULE_SELECTORS = {
    **dict.fromkeys([(22,), (23,), (24,)], "flow"),  # protocol and ports
    **dict.fromkeys([(12,), (17,), (25,), (26,)], "other"),  # tunnel id, outgoing interface, DSCP, flow label
    (10,): "mark",
    (20,): "uid",
}


@dataclass(frozen=True, slots=True)
class Link:
    """An interface: *kind* as in `ip -d link` ("" where it has none), *master* an index or 0.

    *peer* is the index of the other end of a pair (veth, netkit), or of the interface below (vlan, macvlan),
    or 0. If that one is in another namespace, *peer_netns* is the id which this namespace has for the other.
    """

    index: int
    name: str
    kind: str
    master: int
    mac: str | None = None
    peer: int = 0
    peer_netns: int | None = None


def text(packed: bytes) -> str:
    """Return one address as text; ValueError if it is none."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def attributes(payload: bytes) -> dict[int, bytes]:
    """Return what is nested in an attribute, by type; the last one of a type counts."""
    found, at = {}, 0
    while at + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = payload[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def each_distinct(octets: npt.NDArray[np.uint8], parse: Callable[[bytes], T]) -> list[T]:
    """Return what *parse* makes of each row of bytes; equal rows are parsed once."""
    rows = np.ascontiguousarray(octets).view(f"V{octets.shape[1]}").ravel()
    codes, distinct = pd.factorize(rows.astype(object))
    parsed = [parse(one) for one in distinct]
    return [parsed[code] for code in codes]


def links(kernel: socket.socket) -> dict[int, Link]:
    """Return the interfaces by index."""
    body = bytes(_LINK.itemsize) + attribute(_EXT_MASK, struct.pack("=I", _SKIP_STATS))
    dump = netlink.dump_over(kernel, _GET_LINK, body, doing="list interfaces")
    index = dump.body(_LINK)["index"]
    found = {}
    for group in dump.groups(_LINK.itemsize):
        masters = group.get((_LINK_MASTER,), "u4")
        names = each_distinct(group.octets((_LINK_NAME,)), _string)
        kinds = [""] * len(names)
        if group.length((_LINK_INFO,)) > 0:
            kinds = each_distinct(group.octets((_LINK_INFO,)), _kind)
        macs = _macs(group, (_LINK_MAC,))
        peers, spaces = group.get((_LINK_PEER,), "i4"), group.get((_LINK_PEER_NETNS,), "i4")
        for place, row in enumerate(group.rows):
            found[int(index[row])] = Link(
                int(index[row]),
                names[place],
                kinds[place],
                0 if masters is None else int(masters[place]),
                macs[place],
                0 if peers is None else int(peers[place]),
                None if spaces is None else int(spaces[place]),
            )
    return found


def _string(payload: bytes) -> str:
    return payload.split(b"\0")[0].decode(errors="backslashreplace")


def _kind(payload: bytes) -> str:
    return _string(attributes(payload).get(_LINK_INFO_KIND, b""))


def interface_addresses(kernel: socket.socket) -> dict[int, list[tuple[str, Network]]]:
    """Return for each interface's index its addresses: the local one, and the network it is in.

    They differ where the link is point-to-point: the network is then the peer's.
    """
    dump = netlink.dump_over(kernel, _GET_ADDRESS, bytes(_ADDRESS.itemsize), doing="list addresses")
    bodies = dump.body(_ADDRESS)
    found: dict[int, list[tuple[str, Network]]] = {}
    for group in _of_ip(dump, bodies, _ADDRESS_NETWORK):
        place = _ADDRESS_LOCAL if group.length(_ADDRESS_LOCAL) > 0 else _ADDRESS_NETWORK
        places = group.octets(place), group.octets(_ADDRESS_NETWORK)
        for row, local, network in zip(group.rows, *places, strict=True):
            whole = ipaddress.ip_interface((network.tobytes(), int(bodies["prefix"][row])))
            local_text = text(local.tobytes())
            found.setdefault(int(bodies["index"][row]), []).append((local_text, whole.network))
    return found


def neighbours(kernel: socket.socket) -> Neighbours:
    """Return the MAC and the state of each neighbour, by the interface's index and its address.

    A neighbour that did not answer has no MAC, one that was not asked yet no state.
    """
    found: Neighbours = {}
    for family, number in FAMILIES.items():
        body = bytes([number]).ljust(_NEIGHBOUR.itemsize, b"\0")
        dump = netlink.dump_over(kernel, _GET_NEIGHBOUR, body, doing="list neighbours")
        bodies = dump.body(_NEIGHBOUR)
        for group in _of_ip(dump, bodies, _NEIGHBOUR_ADDRESS):
            some = bodies[group.rows]
            texts = addresses.text(family, group.octets(_NEIGHBOUR_ADDRESS)).to_pylist()
            keys = zip(some["index"].tolist(), texts, strict=True)
            states = map(_NUD.get, some["state"].tolist())
            macs = _macs(group, _NEIGHBOUR_MAC)
            found.update(zip(keys, zip(macs, states, strict=True), strict=True))
    return found


def bridged(kernel: socket.socket) -> dict[tuple[int, str], set[int]]:
    """Return where bridges send frames: the port's index by the bridge's index and the MAC.

    A MAC that is the bridge's own leads to the bridge itself. Each VLAN may have a port of its own.
    """
    body = bytes([socket.AF_BRIDGE]).ljust(_NEIGHBOUR.itemsize, b"\0")
    dump = netlink.dump_over(kernel, _GET_NEIGHBOUR, body, doing="list bridges' forwarding tables")
    bodies = dump.body(_NEIGHBOUR)
    found: dict[tuple[int, str], set[int]] = {}
    for group in dump.groups(_NEIGHBOUR.itemsize):
        masters = group.get(_NEIGHBOUR_MASTER, "u4")
        if masters is None:  # a device's own table, not a bridge's
            continue
        own = bodies["state"][group.rows] & _PERMANENT != 0
        ports = np.where(own, masters, bodies["index"][group.rows])
        for bridge, mac, port in zip(masters, _macs(group, _NEIGHBOUR_MAC), ports, strict=True):
            found.setdefault((int(bridge), mac or ""), set()).add(int(port))
    return found


def _of_ip(dump: nlmessages.Dump, bodies: Array, place: nlmessages.Path) -> Iterator[nlmessages.Group]:
    """Return the groups of messages about IP addresses; a bridge's forwarding table is neighbours, too."""
    for group in dump.groups(bodies.dtype.itemsize):
        families = bodies["family"][group.rows]
        if group.length(place) in {4, 16} and np.isin(families, list(FAMILIES.values())).all():
            yield group


def _macs(group: nlmessages.Group, path: nlmessages.Path) -> list[str | None]:
    """Return link-layer addresses as text, whatever their length; tunnels have IP addresses there."""
    if group.length(path) < 1:
        return [None] * len(group.rows)
    return [octets.tobytes().hex(":") for octets in group.octets(path)]


def rule_selectors(kernel: socket.socket) -> set[str]:
    """Return what policy rules look at beside addresses: mark, uid, flow (protocol and ports), other."""
    found = set()
    for number in FAMILIES.values():
        body = bytes([number]).ljust(_RULE.itemsize, b"\0")
        dump = netlink.dump_over(kernel, _GET_RULE, body, doing="list policy rules")
        for group in dump.groups(_RULE.itemsize):
            found |= {_RULE_SELECTORS[path] for path in group.payloads if path in _RULE_SELECTORS}
        if dump.body(_RULE)["tos"].any():
            found.add("other")
    return found
