"""One network namespace's routing: answers are kept until the kernel says that something changed.

The kernel tells listeners of changed routes, rules, links, addresses and neighbours (rtnetlink(7)), but not
of what it learns for one destination by redirects or path MTU discovery, nor of sysctls: who keeps this
looks at its age, too.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from netlab.closing import Closes
from netlab.errors import KernelError
from netlab.kernel import lookups, natrules, netlink, rtnetlink
from netlab.kernel.lookups import Question

_MOST_ANSWERS = 1 << 16
_LARGEST = 1 << 16
_SOL_NETLINK, _ADD_MEMBERSHIP, _CAP_ACK = 270, 1, 10  # the last: errors come without the request in them
_GROUPS = {
    "link": 1,
    "neighbour": 3,
    "IPv4 address": 5,
    "IPv4 route": 7,
    "IPv4 rule": 8,
    "IPv6 address": 9,
    "IPv6 route": 11,
    "IPv6 rule": 19,
    "IPv4 netconf": 24,
    "IPv6 netconf": 25,
    "next hop object": 32,
}  # RTNLGRP_*
_NEIGHBOUR_MESSAGES = {28, 29}  # RTM_NEWNEIGH, RTM_DELNEIGH
_HEADER = struct.Struct("=IH")  # length and type
_HASH_POLICIES = ("ipv4/fib_multipath_hash_policy", "ipv6/fib_multipath_hash_policy")
_WITH_NEIGHBOUR = {"unicast", "anycast"}
_NO_MAC = "00:00:00:00:00:00"


def _listening() -> socket.socket:
    """Return a socket that hears of every change; what it does not fit is lost, and the kernel says so."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, rtnetlink.ROUTE)
    try:
        events.settimeout(0)
        events.bind((0, 0))
        for group in _GROUPS.values():
            with contextlib.suppress(OSError):  # an older kernel lacks the newest groups
                events.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except BaseException:
        events.close()
        raise
    return events


def _hashes_flow() -> bool:
    """Tell whether the choice among several next hops looks at ports, in the calling thread's namespace."""
    for name in _HASH_POLICIES:
        with contextlib.suppress(OSError):  # no IPv6 here, or not readable
            if Path("/proc/sys/net", name).read_text(encoding="ascii").strip() != "0":
                return True
    return False


def _holds(network: rtnetlink.Network, address: str | None) -> bool:
    return address is not None and ipaddress.ip_address(address) in network


@dataclass(frozen=True, slots=True)
class Way:
    """Which way a packet goes; the fields are columns of `netlab.schemas.GATEWAY`."""

    type: str | None
    gateway: str | None
    mac: str | None
    neighbour: str | None
    interface: str | None
    interface_kind: str | None
    vrf: str | None
    address: str | None
    subnet: str | None
    table: int | None
    route: str | None
    metric: int | None
    nexthops: int | None
    mtu: int | None
    error: str | None
    reason: str | None


_COPIED = [field.name for field in fields(lookups.Answer) if field.name not in {"index", "object"}]


class Routing(Closes):
    """The routing of the calling thread's namespace, from now until it is closed."""

    def __init__(self) -> None:
        self._since_s = time.monotonic()
        self._hashes_flow = _hashes_flow()
        self._answers: dict[Question, lookups.Answer] = {}
        self._ways: dict[Question, Way] = {}
        self._neighbours: rtnetlink.Neighbours | None = None  # None: to be asked for
        with contextlib.ExitStack() as opened:
            try:
                self._kernel = opened.enter_context(netlink.opened(rtnetlink.ROUTE))
                self._kernel.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
                self._events = opened.enter_context(_listening())
            except OSError as error:
                raise netlink.refusal(error.errno, "listen for changed routes") from error
            self._forget()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Give the sockets back; safe to call again."""
        self._opened.close()

    @property
    def age_s(self) -> float:
        """How long ago it was opened: of some changes the kernel does not tell."""
        return time.monotonic() - self._since_s

    def refresh(self) -> None:
        """Hear what changed, and forget what it touches."""
        changed, met = self._heard()
        if changed or not self._whole:
            self._forget()
        elif met:
            self._forget_neighbours()

    @property
    def looks_at(self) -> set[str]:
        """What the way depends on here beside addresses: mark, uid, flow (protocol and ports), other.

        remark: rules of netfilter may give packets another mark than their socket's, and policy rules look at
        it.
        """
        return self._looks_at

    @property
    def rules_look_at(self) -> set[str]:
        """What policy rules look at here beside addresses, in the words of `looks_at`."""
        return self._rules_look_at

    @property
    def links(self) -> dict[int, rtnetlink.Link]:
        """The interfaces by index."""
        return self._links

    def interface_of(self, source: str) -> int:
        """Return the index of what a socket with this address is bound to, or 0.

        That is the VRF that the address is in. A link-local address says which link, as long as no other
        has the same.
        """
        bound = self._places.get(source, set())
        address = ipaddress.ip_address(source)
        if address.version == 4 or not address.is_link_local:
            bound = {self._vrf(index) for index in bound}
        return next(iter(bound)) if len(bound) == 1 else 0

    def ways(self, questions: Sequence[Question]) -> list[Way]:
        """Return the way of each question, in order. Call `refresh` first."""
        new = [question for question in dict.fromkeys(questions) if question not in self._answers]
        if len(self._answers) + len(new) > _MOST_ANSWERS:
            self._forget()
            new = list(dict.fromkeys(questions))
        self._answers.update(zip(new, lookups.answers(self._kernel, new), strict=True))
        return [self._way(question) for question in questions]

    def _way(self, question: Question) -> Way:
        if question in self._ways:
            return self._ways[question]
        answer = self._answers[question]
        next_hop = answer.gateway or rtnetlink.text(question.destination)
        mac, state = None, None
        if answer.type in _WITH_NEIGHBOUR:
            mac, state = self._met().get((answer.index, next_hop), (None, None))
        link = self._links.get(answer.index)
        vrf = self._links.get(self._vrf(answer.index))
        told: dict[str, Any] = {name: getattr(answer, name) for name in _COPIED}
        way = Way(
            mac=None if mac == _NO_MAC else mac,
            neighbour=state,
            interface=link.name if link else None,
            interface_kind=(link.kind or None) if link else None,
            vrf=vrf.name if vrf else None,
            subnet=self._subnet(answer.index, answer.address, next_hop),
            **told,
        )
        self._ways[question] = way
        return way

    def _vrf(self, index: int) -> int:
        """Return the index of the VRF that an interface belongs to or is, or 0."""
        own = self._links.get(index)
        master = self._links.get(own.master) if own else None
        for link in (own, master):
            if link and link.kind == "vrf":
                return link.index
        return 0

    def _subnet(self, index: int, address: str | None, next_hop: str | None) -> str | None:
        """Return the interface's network that has the source address, or else the next hop."""
        networks = self._networks.get((index, address or ""), [])
        if networks:
            return str(max(networks, key=lambda network: _holds(network, next_hop)))
        around = [network for network in self._on.get(index, []) if _holds(network, next_hop)]
        return str(max(around, key=lambda network: network.prefixlen)) if around else None

    def _met(self) -> rtnetlink.Neighbours:
        if self._neighbours is None:
            self._neighbours = rtnetlink.neighbours(self._kernel)
        return self._neighbours

    def _forget_neighbours(self) -> None:
        self._ways.clear()
        self._neighbours = None

    def _forget(self) -> None:
        """Know nothing but what the namespace consists of."""
        self._whole = False  # should the kernel refuse in the middle
        self._answers.clear()
        self._forget_neighbours()
        self._links = rtnetlink.links(self._kernel)
        self._places: dict[str, set[int]] = {}
        self._networks: dict[tuple[int, str], list[rtnetlink.Network]] = {}
        self._on: dict[int, list[rtnetlink.Network]] = {}
        for index, some in rtnetlink.interface_addresses(self._kernel).items():
            for local, network in some:
                self._places.setdefault(local, set()).add(index)
                self._networks.setdefault((index, local), []).append(network)
                self._on.setdefault(index, []).append(network)
        self._rules_look_at = rtnetlink.rule_selectors(self._kernel)
        if "mark" in self._rules_look_at and natrules.rerouting() is not False:
            self._rules_look_at.add("remark")
        self._looks_at = self._rules_look_at | ({"flow"} if self._hashes_flow else set())
        self._whole = True

    def _heard(self) -> tuple[bool, bool]:
        """Tell whether routing has changed, and whether neighbours have."""
        changed = neighbours = False
        while True:
            try:
                block = self._events.recv(_LARGEST)
            except BlockingIOError:
                return changed, neighbours
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelError(f"changes of routes could not be read: {error.strerror}") from error
                changed = True  # some were lost
                continue
            _, kind = _HEADER.unpack_from(block)
            if kind in _NEIGHBOUR_MESSAGES:
                neighbours = True
            else:
                changed = True
