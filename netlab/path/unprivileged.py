"""The engine's seam without CAP_NET_RAW: datagram sockets and what their error queues say.

A flow is one socket, bound and connected: all its probes have one five-tuple and one IPv6 flow label, and the
TTL is set before each.

ICMP errors about UDP come without the UDP header. Where a router quotes only the eight bytes of RFC 792,
nothing is left that says which probe it is for: its answer has no mark, and `netlab.path.alone` asks again,
one probe at a time. A socket for each TTL would not help, because of two sockets with the same five-tuple the
kernel gives an error to either. Echo requests have their number in those eight bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import selectors
import socket
import time

from netlab.errors import CapabilityError, ProbeError
from netlab.kernel.netns import NetNs, entered
from netlab.path.kinds import EchoFlow, UdpFlow
from netlab.path.lines import EchoLine, Line, UdpLine
from netlab.path.probes import MARKS, Flow, Protocol
from netlab.path.state import Answer
from netlab.path.target import FAMILIES, Sockaddr, Target

METHOD = "unprivileged"

_ECHO = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_IPV6_FLOWINFO_SEND = 33  # linux/in6.h


class DatagramChannel(contextlib.AbstractContextManager["DatagramChannel"]):
    """Probes of any number of UDP or ICMP echo flows to one target, as `netlab.path.engine.Channel`.

    Parameters
    ----------
    port
        The destination port; ICMP has none.
    source_port
        The source port of flow 0, which flow n comes n after; None for ports that the kernel picks.

    Raises
    ------
    ProbeError
        If the source port is taken.
    CapabilityError
        For ICMP, if net.ipv4.ping_group_range does not have a group of this process.
    """

    def __init__(
        self,
        protocol: Protocol,
        target: Target,
        source: bytes,
        *,
        port: int = 0,
        source_port: int | None = None,
        netns: NetNs = None,
    ) -> None:
        self._protocol = protocol
        self._target = target
        self._source = source
        self._port = port
        self._source_port = source_port
        self._netns = netns
        self._salt = secrets.randbits(32)
        self._checksum = secrets.randbelow(MARKS)
        self._lines: dict[int, Line] = {}
        self._early: list[Answer] = []
        with contextlib.ExitStack() as resources:
            self._selector = resources.enter_context(selectors.DefaultSelector())
            self._resources = resources
            self._line(0)
            self._resources = resources.pop_all()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; doing it again does nothing."""
        self._resources.close()

    @property
    def dropped(self) -> int:
        """How many packets the kernel dropped because they were not read in time."""
        return sum(line.queue.dropped for line in self._lines.values())

    @property
    def unreadable(self) -> int:
        """How many packets came that are not what they claim to be."""
        return sum(line.unreadable for line in self._lines.values())

    @property
    def ports(self) -> dict[int, tuple[int | None, int | None]]:
        """The source and destination port of each flow that was probed."""
        return {number: line.flow.ports for number, line in self._lines.items()}

    def now_ns(self) -> int:
        """Return the monotonic time."""
        return time.monotonic_ns()

    def send(self, flow: int, ttl: int, mark: int) -> int:
        """Send a probe; return the wall-clock time just before it left.

        Raises
        ------
        ProbeError
            If the kernel does not let it out: the route is gone, or a local firewall rule drops it.
        """
        try:
            now, early = self._line(flow).send(ttl, mark)
        except OSError as error:
            raise unsent(self._target, error) from error
        self._early += early
        return now

    def receive(self, wait_ns: int) -> list[Answer]:
        """Return the answers that are there, waiting up to *wait_ns* for the first."""
        answers, self._early = self._early, []
        for key, _ in self._selector.select(0 if answers else wait_ns / 10**9):
            answers += itertools.chain(key.data.errors(), key.data.replies())
        return answers

    def _line(self, number: int) -> Line:
        known = self._lines.get(number)
        if known is not None:
            return known
        sock = self._resources.enter_context(self._socket())
        wanted = None if self._source_port is None else self._source_port + number
        bind(sock, self._target, self._source, wanted)
        own = sock.getsockname()[1]
        line: Line
        if self._protocol is Protocol.ICMP:
            line = EchoLine(self._echo(number, own), sock)
        else:
            line = UdpLine(self._datagrams(number, own), sock)
        try:
            sock.connect(labelled(sock, self._target, self._port, line.flow))
        except OSError as error:
            raise unsent(self._target, error) from error
        self._selector.register(line.queue, selectors.EVENT_READ, line)
        self._lines[number] = line
        return line

    def _socket(self) -> socket.socket:
        echo = self._protocol is Protocol.ICMP
        number = _ECHO[self._target.family] if echo else socket.IPPROTO_UDP
        with entered(self._netns):
            try:
                return socket.socket(FAMILIES[self._target.family], socket.SOCK_DGRAM, number)
            except PermissionError as error:
                raise CapabilityError(
                    "traceroute cannot send echo requests: this process has neither CAP_NET_RAW nor a group "
                    "in net.ipv4.ping_group_range",
                    fix="Use protocol='udp', run as root, or allow pings: "
                    "sudo sysctl -w net.ipv4.ping_group_range='0 2147483647'",
                ) from error

    def _echo(self, number: int, identifier: int) -> EchoFlow:
        return EchoFlow(
            number=number,
            source=self._source,
            target=self._target.packed,
            salt=self._salt,
            identifier=identifier,
            checksum=1 + (self._checksum + number) % MARKS,
        )

    def _datagrams(self, number: int, source_port: int) -> UdpFlow:
        return UdpFlow(
            number=number,
            source=self._source,
            target=self._target.packed,
            salt=self._salt,
            source_port=source_port,
            port=self._port,
        )


def bind(sock: socket.socket, target: Target, source: bytes, port: int | None) -> None:
    """Bind *sock* to *port* of the source address, or to one that the kernel picks.

    Raises
    ------
    ProbeError
        If the port is taken.
    """
    address = socket.inet_ntop(sock.family, source)
    try:
        sock.bind((address, port or 0) if target.family == 4 else (address, port or 0, 0, target.scope))
    except (OSError, OverflowError) as error:
        which = "a source port" if port is None else f"source port {port}"
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "there is no such port"
        raise ProbeError(
            f"cannot use {which} of {address}: {reason}", fix="Choose another source_port, or none"
        ) from error


def labelled(sock: socket.socket, target: Target, port: int, flow: Flow) -> Sockaddr:
    """Return where to connect *sock*, with the flow label that it then sends (RFC 3542 section 6.5).

    Left alone, the kernel gives each socket a label of its own, and the sockets of one flow several.
    """
    if target.family == 4:
        return target.sockaddr(port)
    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FLOWINFO_SEND, 1)
    return target.address, port, flow.label, target.scope


def unsent(target: Target, error: OSError) -> ProbeError:
    """Return what to say when the kernel does not let a probe out."""
    reason = os.strerror(error.errno or 0)
    return ProbeError(
        f"cannot send a probe to {target.name} ({target.address}): {reason}",
        fix=f"Look at `ip route get {target.address}` and, for a rule that drops it, at `nft list ruleset`",
    )
