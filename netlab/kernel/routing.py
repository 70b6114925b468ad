"""One network namespace's routing as known now: answers are kept until the kernel says that something changed.

The kernel tells listeners of changed routes, rules, links, addresses and neighbours (rtnetlink(7)), but not
of what it learns for one destination by redirects or path MTU discovery, nor of sysctls: answers have a
greatest age, too.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from netlab.closing import Closes
from netlab.errors import KernelError
from netlab.kernel import lookups, netlink, rtnetlink
from netlab.kernel.lookups import Question

MAX_AGE_S = 60.0
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
_WITH_NEIGHBOUR = ["unicast", "anycast"]


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


def _destinations(questions: list[Question]) -> pd.Series[str]:
    return pd.Series([lookups.text(question.destination) for question in questions], dtype="string")


def _holds(network: rtnetlink.Network, address: str | None) -> bool:
    return not pd.isna(address) and ipaddress.ip_address(address) in network


class Routing(Closes):
    """The routing of the calling thread's namespace, from now until it is closed."""

    def __init__(self, max_age_s: float = MAX_AGE_S) -> None:
        self._max_age_s = max_age_s
        with contextlib.ExitStack() as opened:
            try:
                self._kernel = opened.enter_context(netlink.opened(rtnetlink.ROUTE))
                self._kernel.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
                self._events = opened.enter_context(_listening())
            except OSError as error:
                raise netlink.refusal(error.errno, "listen for changed routes") from error
            self._policies = [
                opened.enter_context(file.open(encoding="ascii"))  # read again later, in this namespace
                for name in _HASH_POLICIES
                if (file := Path("/proc/sys/net", name)).exists()
            ]
            self._forget()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Give the sockets back; safe to call again."""
        self._opened.close()

    def refresh(self) -> None:
        """Hear what changed, and forget what it touches."""
        changed, neighbours = self._heard()
        if changed or time.monotonic() - self._since > self._max_age_s:
            self._forget()
        elif neighbours:
            self._neighbours = self._told = None

    @property
    def looks_at(self) -> set[str]:
        """What the choice of a route depends on here beside addresses: mark, uid, flow (protocol and ports)."""
        return self._looks_at

    @property
    def links(self) -> dict[int, rtnetlink.Link]:
        """The interfaces by index."""
        return self._links

    def interface_of(self, source: str) -> int:
        """Return the interface that packets from *source* are bound to, or 0: a VRF's, or a link's own address.

        A socket that has an address in a VRF is bound to the VRF; a link-local address says which link
        as long as no other has the same.
        """
        places = self._places.get(source, set())
        if ipaddress.ip_address(source).is_link_local and source.count(":"):
            return next(iter(places)) if len(places) == 1 else 0
        domains = {self._vrf(index) for index in places}
        return domains.pop() if len(domains) == 1 else 0

    def answers(self, questions: Sequence[Question]) -> pd.DataFrame:
        """Return an answer to each question, in order, with names, neighbours and subnets.

        Columns are those of `netlab.schemas.GATEWAY` from `type` on. Call `refresh` first.
        """
        new = [question for question in dict.fromkeys(questions) if question not in self._numbers]
        if len(self._numbers) + len(new) > _MOST_ANSWERS:
            self._forget()
            new = list(dict.fromkeys(questions))
        if new:
            told = lookups.answers(self._kernel, new)
            told["next_hop"] = told["gateway"].fillna(_destinations(new))
            self._known = pd.concat([self._known, told], ignore_index=True) if self._numbers else told
            self._numbers.update(zip(new, itertools.count(len(self._numbers))))
            self._told = None
        if self._told is None:
            self._told = self._described()
        return self._told.iloc[[self._numbers[question] for question in questions]].reset_index(drop=True)

    def _described(self) -> pd.DataFrame:
        if self._neighbours is None:
            self._neighbours = rtnetlink.neighbours(self._kernel)
        known = self._known
        keys = known[["index", "next_hop"]].mask(~known["type"].isin(_WITH_NEIGHBOUR))
        met = self._neighbours.rename(columns={"address": "next_hop", "state": "neighbour"})
        met = keys.merge(met.astype({"index": "Int64"}), on=["index", "next_hop"], how="left")
        links = known["index"].map(self._links)
        vrfs = {index: self._links[vrf].name for index in self._links if (vrf := self._vrf(index))}
        places = zip(known["index"], known["address"], known["next_hop"], strict=True)
        return known.assign(
            mac=met["mac"].mask(met["mac"].isin(["", "00:00:00:00:00:00"])),
            neighbour=met["neighbour"],
            interface=links.map(lambda link: link.name, na_action="ignore"),
            interface_kind=links.map(lambda link: link.kind or None, na_action="ignore"),
            vrf=known["index"].map(vrfs),
            subnet=[self._subnet(*place) for place in places],
        ).astype(dict.fromkeys(("interface", "interface_kind", "vrf", "subnet"), "string"))

    def _vrf(self, index: int) -> int:
        """Return the index of the VRF that an interface belongs to or is, or 0."""
        own = self._links.get(index)
        master = self._links.get(own.master) if own else None
        for link in (own, master):
            if link and link.kind == "vrf":
                return link.index
        return 0

    def _subnet(self, index: int | None, address: str | None, next_hop: str | None) -> str | None:
        """Return the interface's network that has the source address, or else the next hop."""
        if index is pd.NA:
            return None
        networks = self._networks.get((index, address), [])
        if networks:
            return str(max(networks, key=lambda network: _holds(network, next_hop)))
        around = [network for network in self._on.get(index, []) if _holds(network, next_hop)]
        return str(max(around, key=lambda network: network.prefixlen)) if around else None

    def _forget(self) -> None:
        """Know nothing but what the namespace consists of."""
        self._since = time.monotonic()
        self._numbers: dict[Question, int] = {}
        self._known = self._told = self._neighbours = None
        self._links = rtnetlink.links(self._kernel)
        self._places: dict[str, set[int]] = {}
        self._networks, self._on = {}, {}
        for index, some in rtnetlink.interface_addresses(self._kernel).items():
            for local, network in some:
                self._places.setdefault(local, set()).add(index)
                self._networks.setdefault((index, local), []).append(network)
                self._on.setdefault(index, []).append(network)
        self._looks_at = rtnetlink.rule_selectors(self._kernel)
        for file in self._policies:
            file.seek(0)
            if file.read().strip() != "0":
                self._looks_at.add("flow")

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
