"""Ordinary sockets that probe any number of targets at once, for a process without CAP_NET_RAW."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from netlab.errors import CapabilityError, ProbeError
from netlab.kernel.netns import NetNs, entered
from netlab.path.opening import opening
from netlab.path.probes import MARKS, Flow, Protocol
from netlab.path.state import Answer
from netlab.path.target import FAMILIES, Target

if TYPE_CHECKING:
    from netlab.path.connecting import SynLine
    from netlab.path.lines import Line
    from netlab.path.unprivileged import PlainOutlet

    AnyLine: TypeAlias = Line | SynLine

_KINDS = {
    Protocol.UDP: (socket.SOCK_DGRAM, {4: socket.IPPROTO_UDP, 6: socket.IPPROTO_UDP}),
    Protocol.ICMP: (socket.SOCK_DGRAM, {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}),
    Protocol.TCP: (socket.SOCK_STREAM, {4: socket.IPPROTO_TCP, 6: socket.IPPROTO_TCP}),
}
_TOS = {4: (socket.IPPROTO_IP, socket.IP_TOS), 6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}
_IPV6_FLOWINFO_SEND = 33  # linux/in6.h


class PlainStation(contextlib.AbstractContextManager["PlainStation"]):
    """Opens the sockets of its outlets and waits for all of them, as `netlab.path.station.Station` does.

    `salt` and `checksum` tell its packets from others': see `netlab.path.probes.Flow` and
    `netlab.path.kinds.EchoFlow`.

    Parameters
    ----------
    protocol
        The kind of probe.
    port
        The destination port; ICMP has none.
    source_port
        The source port of flow 0, which flow n comes n after; None for ports that the kernel picks.
    tos
        The probes' traffic class: DSCP and ECN.
    """

    def __init__(
        self, protocol: Protocol, *, port: int, source_port: int | None, netns: NetNs, tos: int = 0
    ) -> None:
        self.protocol = protocol
        self.tos = tos
        self.port = port
        self.salt = secrets.randbits(32)
        self.checksum = secrets.randbelow(MARKS)
        self._first = source_port
        self._netns = netns
        self._lines: list[AnyLine] = []
        self._eager: list[tuple[PlainOutlet, AnyLine]] = []
        self._ports: dict[tuple[bytes, int, int], int] = {}
        with opening("sockets"), contextlib.ExitStack() as resources:
            self._selector = resources.enter_context(selectors.DefaultSelector())
            self._held = resources.enter_context(contextlib.ExitStack())
            self._resources = resources.pop_all()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; doing it again does nothing."""
        with self._resources:
            for line in self._lines:
                line.close()

    @property
    def dropped(self) -> int:
        """How many packets the kernel dropped because they were not read in time."""
        return sum(line.dropped for line in self._lines)

    @property
    def held(self) -> int:
        """How many probes had to wait for this host's own queue."""
        return sum(line.held for line in self._lines)

    @property
    def unreadable(self) -> int:
        """How many packets came that are not what they claim to be."""
        return sum(line.unreadable for line in self._lines)

    @property
    def strangers(self) -> dict[str, int]:
        """How many echo replies came from which address that nobody had asked.

        Others do not get to connected sockets: ping_lookup() in net/ipv4/ping.c does not look who sends.
        """
        return sum((line.strangers for line in self._lines), Counter())

    def open(self, family: int) -> socket.socket:
        """Return a new socket of the probes' protocol.

        Raises
        ------
        ProbeError
            If this process has too many files open, or the kernel has no such sockets.
        CapabilityError
            For ICMP, if net.ipv4.ping_group_range does not have a group of this process.
        """
        kind, numbers = _KINDS[self.protocol]
        with entered(self._netns), opening("a socket"):
            try:
                sock = socket.socket(FAMILIES[family], kind, numbers[family])
            except PermissionError as error:
                raise CapabilityError(
                    "traceroute cannot send echo requests: this process has neither CAP_NET_RAW nor a group "
                    "in net.ipv4.ping_group_range",
                    fix="Use protocol='udp', run as root, or allow pings: "
                    "sudo sysctl -w net.ipv4.ping_group_range='0 2147483647'",
                ) from error
        sock.setsockopt(*_TOS[family], self.tos)
        return sock

    def bind(self, sock: socket.socket, target: Target, source: bytes, flow: int) -> int:
        """Bind *sock* to the source port of a flow and return it; ICMP has an identifier for each socket.

        Sockets of one flow share the port, and with nobody else: the first one takes it alone.

        Raises
        ------
        ProbeError
            If the port is taken.
        """
        key = source, target.scope, flow
        known = self._ports.get(key)
        if known is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wanted = known or (0 if self._first is None else self._first + flow)
        address = socket.inet_ntop(sock.family, source)
        try:
            sock.bind((address, wanted) if target.family == 4 else (address, wanted, 0, target.scope))
        except (OSError, OverflowError) as error:
            which = f"source port {wanted}" if wanted else "a source port"
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "there is no such port"
            raise ProbeError(
                f"cannot use {which} of {address}: {reason}", fix="Choose another source_port, or none"
            ) from error
        own: int = sock.getsockname()[1]
        if known is None and self.protocol is not Protocol.ICMP:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._ports[key] = own
        return own

    def hold(self, sock: socket.socket) -> socket.socket:
        """Keep *sock* open until the station is closed."""
        return self._held.enter_context(sock)

    def add(self, line: AnyLine) -> None:
        """Count what *line* misses."""
        self._lines.append(line)

    def watch(self, sock: socket.socket, outlet: PlainOutlet, line: AnyLine, events: int) -> None:
        """Wait for *sock*, too: *line* reads it, for *outlet*."""
        self._selector.register(sock, events, (outlet, line))

    def unwatch(self, sock: socket.socket) -> None:
        """Wait for *sock* no more."""
        with contextlib.suppress(KeyError):  # an interrupt came before it was waited for
            self._selector.unregister(sock)

    def eager(self, outlet: PlainOutlet, line: AnyLine) -> None:
        """Look at *line* before waiting: it has read answers already."""
        self._eager.append((outlet, line))

    def receive(self, wait_ns: int) -> list[tuple[PlainOutlet, Answer]]:
        """Return the answers that are there, waiting up to *wait_ns* for the first."""
        eager, self._eager = self._eager, []
        ready = self._selector.select(0 if eager else wait_ns / 10**9)
        return [
            (outlet, answer)
            for outlet, line in [*eager, *(key.data for key, _ in ready)]
            for answer in line.answers()
        ]


def connect(sock: socket.socket, target: Target, port: int, flow: Flow) -> int:
    """Connect *sock*, with the flow label that it then sends (RFC 3542 section 6.5); return an errno.

    Left alone, the kernel gives each socket a label of its own, and the sockets of one flow several.
    """
    if target.family == 4:
        return sock.connect_ex(target.sockaddr(port))
    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FLOWINFO_SEND, 1)
    return sock.connect_ex((target.address, port, flow.label, target.scope))
