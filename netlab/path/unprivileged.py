"""What is sent to one target without CAP_NET_RAW: by ordinary sockets, which hear by their error queues.

A flow of UDP or echo requests is one socket, bound and connected: all its probes have one five-tuple and one
IPv6 flow label, and the TTL is set before each. A flow of TCP is one connection attempt after the other.

ICMP errors about UDP come without the UDP header. Where a router quotes only the eight bytes of RFC 792,
nothing is left that says which probe it is for: its answer has no mark, and `netlab.path.alone` asks again,
one probe at a time. A socket for each TTL would not help, because of two sockets with the same five-tuple the
kernel gives an error to either. Echo requests have their number in those eight bytes.
"""

from __future__ import annotations

import os
import selectors
from typing import TYPE_CHECKING

from netlab.errors import ProbeError
from netlab.path.connecting import SynLine
from netlab.path.kinds import EchoFlow, SynFlow, UdpFlow
from netlab.path.lines import EchoLine, UdpLine
from netlab.path.plain import PlainStation, connect
from netlab.path.probes import MARKS, Protocol
from netlab.path.target import Target

if TYPE_CHECKING:
    from netlab.path.plain import AnyLine


class PlainOutlet:
    """Probes of any number of flows to one target, sent and heard by a station of ordinary sockets.

    Raises
    ------
    ProbeError
        If there is no port for flow 0.
    CapabilityError
        If the kernel does not allow such a socket, or does not tell enough by it.
    """

    def __init__(self, station: PlainStation, target: Target, source: bytes) -> None:
        self.target = target
        self.tos = station.tos
        self._station = station
        self._source = source
        self._lines: dict[int, AnyLine] = {}
        self.line(0)

    @property
    def ports(self) -> dict[int, tuple[int | None, int | None]]:
        """The source and destination port of each flow that was asked for."""
        return {number: line.flow.ports for number, line in self._lines.items()}

    def send(self, flow: int, ttl: int, mark: int) -> int:
        """Send a probe; return the wall-clock time just before it left.

        Raises
        ------
        ProbeError
            If the kernel does not let it out, because the route is gone or a local firewall rule drops it, or
            if there is no port for the flow.
        """
        line = self.line(flow)
        try:
            now = line.send(ttl, mark)
        except OSError as error:
            raise self._unsent(error) from error
        if line.has_answers:
            self._station.eager(self, line)
        return now

    def line(self, number: int) -> AnyLine:
        """Return the socket of a flow, ready to be probed with."""
        known = self._lines.get(number)
        if known is not None:
            return known
        sock = self._station.hold(self._station.open(self.target.family))
        own = self._station.bind(sock, self.target, self._source, number)
        line: AnyLine
        if self._station.protocol is Protocol.TCP:
            line = SynLine(self._station, self, self._source, self._syns(number, own))
        else:
            is_echo = self._station.protocol is Protocol.ICMP
            line = (
                EchoLine(self._echo(number, own), sock)
                if is_echo
                else UdpLine(self._datagrams(number, own), sock)
            )
            if code := connect(sock, self.target, self._station.port, line.flow):
                raise self._unsent(OSError(code, os.strerror(code)))
            self._station.watch(sock, self, line, selectors.EVENT_READ)
        self._station.add(line)
        self._lines[number] = line
        return line

    def _echo(self, number: int, identifier: int) -> EchoFlow:
        return EchoFlow(
            number=number,
            source=self._source,
            target=self.target.packed,
            salt=self._station.salt,
            identifier=identifier,
            checksum=1 + (self._station.checksum + number) % MARKS,
        )

    def _datagrams(self, number: int, source_port: int) -> UdpFlow:
        return UdpFlow(
            number=number,
            source=self._source,
            target=self.target.packed,
            salt=self._station.salt,
            source_port=source_port,
            port=self._station.port,
        )

    def _syns(self, number: int, source_port: int) -> SynFlow:
        return SynFlow(
            number=number,
            source=self._source,
            target=self.target.packed,
            salt=self._station.salt,
            source_port=source_port,
            port=self._station.port,
        )

    def _unsent(self, error: OSError) -> ProbeError:
        reason = os.strerror(error.errno or 0)
        return ProbeError(
            f"cannot send a probe to {self.target.name} ({self.target.address}): {reason}",
            fix=f"Look at `ip route get {self.target.address}` and, for a rule that drops it, "
            "at `nft list ruleset`",
        )
