"""The engine's seam on this host's network: raw sockets, filtered and timed by the kernel."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import selectors
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from netlab.errors import CapabilityError, DecodeError, ProbeError
from netlab.kernel.netns import NetNs, entered
from netlab.path import filters
from netlab.path.listening import Ear, Heard
from netlab.path.probes import Flow, Protocol
from netlab.path.state import UDP_REPLY, Answer
from netlab.path.target import Target
from netlab.wire import icmp, udp

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_ERRORS = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_KIND = {Protocol.UDP: socket.SOCK_DGRAM, Protocol.TCP: socket.SOCK_STREAM}

_Meaning: TypeAlias = tuple[str, tuple[int, ...]] | None  # what it says, and the marks it may carry


class RawChannel(contextlib.AbstractContextManager["RawChannel"]):
    """Probes of one flow through raw sockets, as `netlab.path.engine.Channel`.

    A socket of the probes' own protocol is bound to the source port and never sends: it keeps other
    programs off the port, and for UDP it receives what the target answers. For TCP nobody listens on it,
    so the kernel itself resets the connection that a SYN-ACK offers, as a prober should.

    `unreadable` counts packets that the filters let through but are not what they claim to be.

    Raises
    ------
    ProbeError
        If the source port is taken.
    CapabilityError
        Without CAP_NET_RAW.
    """

    def __init__(
        self,
        protocol: Protocol,
        target: Target,
        source: bytes,
        *,
        port: int,
        source_port: int | None,
        netns: NetNs,
    ) -> None:
        self.unreadable = 0
        self._target = target
        with contextlib.ExitStack() as resources, entered(netns):
            reserved = resources.enter_context(_reserved(protocol, target, source, source_port))
            self.flow = Flow(
                protocol=protocol,
                source=source,
                target=target.packed,
                source_port=reserved.getsockname()[1],
                port=port,
                salt=secrets.randbits(16),
            )
            self._sender = resources.enter_context(_raw(target.family, socket.IPPROTO_RAW))
            errors = resources.enter_context(_raw(target.family, _ERRORS[target.family]))
            self._ears: dict[Ear, Callable[[Heard], _Meaning]] = {
                Ear(errors, filters.errors(self.flow)): self._error
            }
            if protocol is Protocol.UDP:
                self._ears[Ear(reserved)] = self._datagram
            else:
                segments = resources.enter_context(_raw(target.family, socket.IPPROTO_TCP))
                self._ears[Ear(segments, filters.segments(self.flow))] = self._segment
            self._selector = resources.enter_context(selectors.DefaultSelector())
            for ear in self._ears:
                self._selector.register(ear, selectors.EVENT_READ)
            self._resources = resources.pop_all()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; doing it again does nothing."""
        self._resources.close()

    @property
    def dropped(self) -> int:
        """How many packets the kernel dropped because they were not read in time."""
        return sum(ear.dropped for ear in self._ears)

    def now_ns(self) -> int:
        """Return the monotonic time."""
        return time.monotonic_ns()

    def send(self, ttl: int, mark: int) -> int:
        """Send a probe; return the wall-clock time just before it left.

        Raises
        ------
        ProbeError
            If the kernel does not let it out: the route is gone, or a local firewall rule drops it.
        """
        packet = self.flow.packet(ttl, mark)
        to = self._target.sockaddr(0)
        now = time.time_ns()
        try:
            self._sender.sendto(packet, to)
        except OSError as error:
            raise _unsent(self._target, error) from error
        return now

    def receive(self, wait_ns: int) -> list[Answer]:
        """Return the answers that are there, waiting up to *wait_ns* for the first."""
        ready = [key.fileobj for key, _ in self._selector.select(wait_ns / 10**9)]
        understood = [
            self._understood(heard, meaning_of)
            for ear, meaning_of in self._ears.items()
            if ear in ready
            for heard in ear.heard()
        ]
        return [answer for answer in understood if answer is not None]

    def _understood(self, heard: Heard, meaning_of: Callable[[Heard], _Meaning]) -> Answer | None:
        try:
            meaning = meaning_of(heard)
        except DecodeError:
            self.unreadable += 1
            return None
        if meaning is None:
            return None
        reply, marks = meaning
        return Answer(
            marks=marks,
            address=heard.address,
            reply=reply,
            ttl=heard.ttl,
            stamp_ns=heard.stamp_ns,
            received_ns=heard.received_ns,
        )

    def _error(self, heard: Heard) -> _Meaning:
        message = icmp.decode(self.flow.family, heard.data)
        if message.error is None:
            return None
        return message.error.value, self.flow.quoted(icmp.quote(message))

    def _segment(self, heard: Heard) -> _Meaning:
        return self.flow.segment(heard.data) if heard.address == self._target.address else None

    def _datagram(self, heard: Heard) -> _Meaning:
        if (heard.address, heard.port) != (self._target.address, self.flow.port):
            return None
        # Echo servers send the whole probe back, DNS servers its first two bytes, the query's id.
        return UDP_REPLY, udp.mark(heard.data)


def _raw(family: int, protocol: int) -> socket.socket:
    try:
        return socket.socket(_FAMILY[family], socket.SOCK_RAW, protocol)
    except PermissionError as error:
        raise CapabilityError(
            "traceroute cannot open raw sockets: this process lacks CAP_NET_RAW",
            fix=f"Run as root, or: sudo setcap cap_net_raw+ep {Path(sys.executable).resolve()}",
        ) from error


def _reserved(protocol: Protocol, target: Target, source: bytes, port: int | None) -> socket.socket:
    """Return a socket bound to *port* of the source address, or to one that the kernel picks."""
    family = _FAMILY[target.family]
    sock = socket.socket(family, _KIND[protocol])
    try:
        address = socket.inet_ntop(family, source)
        sock.bind((address, port or 0) if target.family == 4 else (address, port or 0, 0, target.scope))
    except OSError as error:
        sock.close()
        raise ProbeError(
            f"cannot use {protocol} source port {port} of {address}: {os.strerror(error.errno or 0)}",
            fix="Choose another source_port, or none",
        ) from error
    return sock


def _unsent(target: Target, error: OSError) -> ProbeError:
    reason = os.strerror(error.errno or 0)
    fix = (
        "A local firewall rule drops the probes: look at `nft list ruleset`"
        if error.errno == errno.EPERM
        else f"Look at `ip route get {target.address}`"
    )
    return ProbeError(f"cannot send a probe to {target.name} ({target.address}): {reason}", fix=fix)
