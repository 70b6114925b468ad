"""Raw sockets that probe any number of targets at once: one to send by and two to hear by per IP version."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from netlab.errors import CapabilityError, DecodeError, ProbeError
from netlab.kernel.netns import NetNs, entered
from netlab.path import filters, sack
from netlab.path.departures import Sender
from netlab.path.listening import Ear, Heard
from netlab.path.matching import Match
from netlab.path.opening import opening
from netlab.path.ports import Ports
from netlab.path.probes import MARKS, Protocol
from netlab.path.quotes import Quoted
from netlab.path.sack import Handshake
from netlab.path.state import Answer
from netlab.path.target import FAMILIES, Target
from netlab.wire import icmp, ip

if TYPE_CHECKING:
    from netlab.path.outlet import Outlet

_ERRORS = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
# From linux/in.h and linux/in6.h; Python's socket module lacks them. What the kernel remembers of path MTUs
# does not hold back a probe of a size: that is what it is to find out.
_MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_PROBE = 3
_MOST_STRANGERS = 16
_ANSWERS = {
    Protocol.UDP: socket.IPPROTO_UDP,
    Protocol.TCP: socket.IPPROTO_TCP,
    Protocol.SACK: socket.IPPROTO_TCP,
}

# The outlet that an answer is for, what it says, and what it shows of the probe.
_Meant: TypeAlias = "list[tuple[Outlet, Match, Quoted | None]]"
_Meaning: TypeAlias = Callable[[Heard], _Meant]


class Station(contextlib.AbstractContextManager["Station"]):
    """Sends probes and hears answers for any number of outlets, each to a target of its own.

    `salt`, `identifier` and `checksum` tell its packets from others': see `netlab.path.probes.Flow` and
    `netlab.path.kinds.EchoFlow`. `unreadable` counts packets that the filters let through but are not what
    they claim to be, `strangers` by their addresses answers to what those were not asked.

    Parameters
    ----------
    protocol
        The kind of probe.
    families
        The IP versions: 4, 6 or both.
    port
        The destination port; ICMP has none.
    source_port
        The source port of flow 0, which flow n comes n after; None for ports that the kernel picks. Flows of
        ICMP differ in their checksum.
    patience_s
        How long a target may take to accept a connection.
    tos
        The probes' traffic class: DSCP and ECN.

    Raises
    ------
    ProbeError
        If this process has too many files open, or the kernel has no such sockets.
    CapabilityError
        Without CAP_NET_RAW.
    """

    def __init__(
        self,
        protocol: Protocol,
        families: Collection[int],
        *,
        port: int,
        source_port: int | None,
        netns: NetNs,
        patience_s: float = 1.0,
        tos: int = 0,
    ) -> None:
        self._patience_s = patience_s
        self.protocol = protocol
        self.tos = tos
        self.salt = secrets.randbits(32)
        self.identifier, self.checksum = secrets.randbits(16), 1 + secrets.randbelow(MARKS)
        self.unreadable = 0
        self.strangers: Counter[str] = Counter()
        self._port = port
        self._first = source_port
        self._netns = netns
        self._ports: dict[tuple[bytes, int], Ports] = {}
        self._outlets: dict[str, Outlet] = {}  # by the target's address
        self._targets: dict[bytes, Outlet] = {}  # by the same, packed
        self._ears: dict[int, tuple[Ear, _Meaning]] = {}  # by descriptor
        self._poll = select.poll()
        self._senders: dict[int, Sender] = {}
        self._errors: dict[int, Ear] = {}  # by family, as the next
        self._answers: dict[int, Ear] = {}
        with contextlib.ExitStack() as resources, entered(netns), opening("raw sockets"):
            self._held = resources.enter_context(contextlib.ExitStack())
            for family in families:
                sending = resources.enter_context(_raw(family, socket.IPPROTO_RAW))
                sending.setsockopt(*_MTU_DISCOVER[family], _PROBE)
                self._senders[family] = Sender(sending)
                errors = Ear(resources.enter_context(_raw(family, _ERRORS[family])), filters.NOTHING)
                self._errors[family] = errors
                self._listen(errors, self._error_of(family))
                if protocol is Protocol.ICMP:
                    continue
                number = _ANSWERS[protocol]
                self._answers[family] = Ear(resources.enter_context(_raw(family, number)), filters.NOTHING)
                self._listen(self._answers[family], self._transport)
            self._resources = resources.pop_all()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; doing it again does nothing."""
        self._resources.close()

    @property
    def dropped(self) -> int:
        """How many packets the kernel dropped because they were not read in time."""
        return sum(ear.dropped for ear, _ in self._ears.values())

    @property
    def held(self) -> int:
        """How many probes had to wait for this host's own queue."""
        return sum(sender.crowding.held for sender in self._senders.values())

    def join(self, outlet: Outlet) -> None:
        """Give what comes from the target of *outlet*, or is about packets to it, to *outlet*.

        Raises
        ------
        ProbeError
            If another outlet's target has the same address, on another interface.
        """
        address = outlet.target.address
        if self._outlets.setdefault(address, outlet) is not outlet:
            raise ProbeError(
                f"cannot tell answers of {address} on one interface from those on another",
                fix="Probe one interface at a time",
            )
        self._targets[outlet.target.packed] = outlet
        self._hear_errors(outlet.target.family)

    def _hear_errors(self, family: int) -> None:
        """Let in what is about packets to the targets: others' traces are read by those."""
        to = tuple(packed for packed, outlet in self._targets.items() if outlet.target.family == family)
        self._errors[family].narrow(
            filters.echoes(family, self.identifier, to)
            if self.protocol is Protocol.ICMP
            else filters.errors(family, _ANSWERS[self.protocol], self._port, to)
        )

    def ports(self, target: Target, source: bytes, flow: int) -> tuple[int, int]:
        """Return the source and the destination port of a flow; its answers are heard from now on.

        Raises
        ------
        ProbeError
            If the source port is taken, or no port is left.
        """
        key = source, target.scope
        if key not in self._ports:
            ports = Ports(self.protocol, source, target.scope, first=self._first, netns=self._netns)
            self._ports[key] = self._held.enter_context(ports)
        found = self._ports[key].of(flow), self._port
        own = [port for ports in self._ports.values() if ports.family == target.family for port in ports.own]
        self._answers[target.family].narrow(filters.answers(target.family, self._port, own))
        return found

    def connect(self, target: Target, source: bytes, flow: int) -> Handshake:
        """Return what the target says when the kernel connects the flow, whose ports are known, to it.

        Raises
        ------
        NoSackError
            If there is no connection, or one without selective acknowledgments.
        """
        ports = self._ports[source, target.scope]
        sock = ports.holder(flow)
        return sack.connect(
            sock, target, self._port, self._answers[target.family], timeout_s=self._patience_s
        )

    def send(self, outlet: Outlet, probe: tuple[int, int], packet: bytes) -> int:
        """Send the packet of *probe* (flow, mark); return the wall-clock time just before it left.

        Raises
        ------
        OSError
            If the kernel does not let it out.
        """
        sender = self._senders[outlet.target.family]
        return sender.send(packet, outlet.target.sockaddr(0), (outlet, probe))

    def receive(self, wait_ns: int) -> list[tuple[Outlet, Answer]]:
        """Return the answers that are there, waiting up to *wait_ns* for the first."""
        ready = self._poll.poll(max(0, -(-wait_ns // 10**6)))
        for sender in self._senders.values():
            for (outlet, probe), left_ns in sender.stamps():
                outlet.departures[probe] = left_ns
        answers: list[tuple[Outlet, Answer]] = []
        for descriptor, _ in ready:
            ear, meaning = self._ears[descriptor]
            for heard in ear.heard():
                answers += self._understood(heard, meaning)
        return answers

    def _listen(self, ear: Ear, meaning: _Meaning) -> None:
        self._ears[ear.fileno()] = ear, meaning
        self._poll.register(ear, select.POLLIN)

    def _understood(self, heard: Heard, meaning: _Meaning) -> list[tuple[Outlet, Answer]]:
        try:
            found = meaning(heard)
        except DecodeError:
            self.unreadable += 1
            return []
        return [(outlet, self._answer(heard, outlet, match, quoted)) for outlet, match, quoted in found]

    def _answer(self, heard: Heard, outlet: Outlet, match: Match, quoted: Quoted | None) -> Answer:
        return Answer(
            flow=match.flow,
            mark=match.mark,
            address=heard.address,
            reply=match.reply,
            ttl=heard.ttl,
            identification=heard.identification,
            left_ns=None if match.mark is None else outlet.departures.get((match.flow, match.mark)),
            stamp_ns=heard.stamp_ns,
            received_ns=heard.received_ns,
            quoted=quoted,
            turned_back=outlet.register.flows[match.flow].is_turned_back(match.reply, heard.address),
        )

    def _error_of(self, family: int) -> _Meaning:
        def meaning(heard: Heard) -> _Meant:
            message = icmp.decode(family, heard.data)
            if message.type == icmp.ECHO_REPLY[family]:
                return self._transport(heard)
            says = message.error
            if says is None:
                return []
            outlet = self._targets.get(ip.destination(family, message.body))
            if outlet is None:
                icmp.quote(message)  # somebody else's, or damaged
                return []
            found = outlet.about(says, message)
            return [(outlet, *found)] if found else []

        return meaning

    def _transport(self, heard: Heard) -> _Meant:
        outlet = self._outlets.get(heard.address)
        if outlet is not None:
            return [(outlet, match, None) for match in outlet.register.answers(heard.data)]
        if self.protocol is not Protocol.SACK:  # whose connection is to one address
            self._note(heard)
        return []

    def _note(self, heard: Heard) -> None:
        """Count what answers probes and comes from nobody who was asked."""
        # All outlets have the same source ports and the same salt: any of them tells what is an answer.
        asked = next(iter(self._outlets.values()), None)
        known = heard.address in self.strangers or len(self.strangers) < _MOST_STRANGERS
        if asked is not None and known and asked.register.answers(heard.data):
            self.strangers[heard.address] += 1


now_ns = time.monotonic_ns
"""The clock of what is heard."""


def _raw(family: int, protocol: int) -> socket.socket:
    try:
        return socket.socket(FAMILIES[family], socket.SOCK_RAW, protocol)
    except PermissionError as error:
        raise CapabilityError(
            "traceroute cannot open raw sockets: this process lacks CAP_NET_RAW",
            fix=f"Run as root, or: sudo setcap cap_net_raw+ep {Path(sys.executable).resolve()}",
        ) from error
