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
from netlab.path.kinds import EchoFlow, SynFlow, UdpFlow
from netlab.path.listening import Ear, Heard
from netlab.path.matching import Match, Register
from netlab.path.ports import Ports
from netlab.path.probes import MARKS, Flow, Protocol, Vary
from netlab.path.state import Answer
from netlab.path.target import FAMILIES, Target
from netlab.wire import icmp

_ERRORS = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_ANSWERS = {Protocol.UDP: socket.IPPROTO_UDP, Protocol.TCP: socket.IPPROTO_TCP}

_Meaning: TypeAlias = Callable[[Heard], Match | None]


class RawChannel(contextlib.AbstractContextManager["RawChannel"]):
    """Probes of any number of flows to one target through raw sockets, as `netlab.path.engine.Channel`.

    `unreadable` counts packets that the filters let through but are not what they claim to be.

    Parameters
    ----------
    port
        The destination port; ICMP has none.
    source_port
        The source port of flow 0, which flow n comes n after; None for ports that the kernel picks.
    vary
        Which port makes another flow. ICMP flows differ in their checksum.

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
        port: int = 0,
        source_port: int | None = None,
        vary: Vary = Vary.SOURCE_PORT,
        netns: NetNs = None,
    ) -> None:
        self.unreadable = 0
        self._protocol = protocol
        self._target = target
        self._source = source
        self._register = Register()
        self._salt = secrets.randbits(32)
        self._identifier, self._checksum = secrets.randbits(16), secrets.randbelow(MARKS)
        self._ears: dict[Ear, _Meaning] = {}
        with contextlib.ExitStack() as resources, entered(netns):
            self._sender = resources.enter_context(_raw(target.family, socket.IPPROTO_RAW))
            errors = resources.enter_context(_raw(target.family, _ERRORS[target.family]))
            if protocol is Protocol.ICMP:
                self._ears[Ear(errors, filters.echoes(target.family, self._identifier))] = self._message
            else:
                self._ports = resources.enter_context(
                    Ports(protocol, target, source, port=port, first=source_port, vary=vary, netns=netns)
                )
                answers = resources.enter_context(_raw(target.family, _ANSWERS[protocol]))
                number = _ANSWERS[protocol]
                self._ears[Ear(errors, filters.errors(target.family, number, self._ports.remote))] = (
                    self._message
                )
                self._answers = Ear(answers, filters.NOTHING)
                self._ears[self._answers] = self._transport
            self._selector = resources.enter_context(selectors.DefaultSelector())
            for ear in self._ears:
                self._selector.register(ear, selectors.EVENT_READ)
            self.flow(0)
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

    @property
    def ports(self) -> dict[int, tuple[int | None, int | None]]:
        """The source and destination port of each flow that was probed."""
        return {number: flow.ports for number, flow in self._register.flows.items()}

    def flow(self, number: int) -> Flow:
        """Return a flow, ready to be probed.

        Raises
        ------
        ProbeError
            If there is no port for it.
        """
        known = self._register.flows.get(number)
        if known is not None:
            return known
        flow = self._echo(number) if self._protocol is Protocol.ICMP else self._with_ports(number)
        self._register.add(flow)
        return flow

    def _echo(self, number: int) -> EchoFlow:
        return EchoFlow(
            number=number,
            source=self._source,
            target=self._target.packed,
            salt=self._salt,
            identifier=self._identifier,
            checksum=1 + (self._checksum + number) % MARKS,
        )

    def _with_ports(self, number: int) -> UdpFlow | SynFlow:
        source_port, port = self._ports.of(number)
        self._answers.narrow(filters.answers(self._target.family, self._ports.remote, self._ports.own))
        kind = UdpFlow if self._protocol is Protocol.UDP else SynFlow
        return kind(
            number=number,
            source=self._source,
            target=self._target.packed,
            salt=self._salt,
            source_port=source_port,
            port=port,
        )

    def now_ns(self) -> int:
        """Return the monotonic time."""
        return time.monotonic_ns()

    def send(self, flow: int, ttl: int, mark: int) -> int:
        """Send a probe; return the wall-clock time just before it left.

        Raises
        ------
        ProbeError
            If the kernel does not let it out, because the route is gone or a local firewall rule drops it, or
            if there is no port for the flow.
        """
        packet = self.flow(flow).packet(ttl, mark)
        to = self._target.sockaddr(0)
        self._register.sent(flow, mark)
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
            self._understood(heard, meaning)
            for ear, meaning in self._ears.items()
            if ear in ready
            for heard in ear.heard()
        ]
        return [answer for answer in understood if answer is not None]

    def _understood(self, heard: Heard, meaning: _Meaning) -> Answer | None:
        try:
            match = meaning(heard)
        except DecodeError:
            self.unreadable += 1
            return None
        if match is None:
            return None
        return Answer(
            flow=match.flow,
            mark=match.mark,
            address=heard.address,
            reply=match.reply,
            ttl=heard.ttl,
            identification=heard.identification,
            stamp_ns=heard.stamp_ns,
            received_ns=heard.received_ns,
        )

    def _message(self, heard: Heard) -> Match | None:
        message = icmp.decode(self._target.family, heard.data)
        if message.type == icmp.ECHO_REPLY[self._target.family]:
            return self._register.answer(heard.data)
        return self._register.error(message)

    def _transport(self, heard: Heard) -> Match | None:
        return self._register.answer(heard.data) if heard.address == self._target.address else None


def _raw(family: int, protocol: int) -> socket.socket:
    try:
        return socket.socket(FAMILIES[family], socket.SOCK_RAW, protocol)
    except PermissionError as error:
        raise CapabilityError(
            "traceroute cannot open raw sockets: this process lacks CAP_NET_RAW",
            fix=f"Run as root, or: sudo setcap cap_net_raw+ep {Path(sys.executable).resolve()}",
        ) from error


def _unsent(target: Target, error: OSError) -> ProbeError:
    reason = os.strerror(error.errno or 0)
    fix = (
        "A local firewall rule drops the probes: look at `nft list ruleset`"
        if error.errno == errno.EPERM
        else f"Look at `ip route get {target.address}`"
    )
    return ProbeError(f"cannot send a probe to {target.name} ({target.address}): {reason}", fix=fix)
