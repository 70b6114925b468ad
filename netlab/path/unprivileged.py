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

from netlab.path.connecting import SynLine
from netlab.path.kinds import SynFlow
from netlab.path.lines import EchoLine, UdpLine
from netlab.path.outlet import BaseOutlet
from netlab.path.plain import PlainStation, connect
from netlab.path.probes import Protocol
from netlab.path.target import Target

if TYPE_CHECKING:
    from netlab.path.plain import AnyLine


class PlainOutlet(BaseOutlet[PlainStation]):
    """Probes of any number of flows to one target, sent and heard by a station of ordinary sockets.

    Raises
    ------
    ProbeError
        If there is no port for flow 0.
    CapabilityError
        If the kernel does not allow such a socket, or does not tell enough by it.
    """

    def __init__(self, station: PlainStation, target: Target, source: bytes) -> None:
        super().__init__(station, target, source)
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
        line = self._opened(number)
        self._station.add(line)
        self._lines[number] = line
        return line

    def _opened(self, number: int) -> AnyLine:
        station = self._station
        sock = station.hold(station.open(self.target.family))
        own = station.bind(sock, self.target, self._source, number)
        if station.protocol is Protocol.ICMP:
            line: EchoLine | UdpLine = EchoLine(self._echo(number, own), sock)
        else:
            flow = self._with_ports(number, own, station.port)
            if isinstance(flow, SynFlow):  # whose attempts have sockets of their own: this one holds the port
                return SynLine(station, self, self._source, flow)
            line = UdpLine(flow, sock)
        if code := connect(sock, self.target, station.port, line.flow):
            raise self._unsent(OSError(code, os.strerror(code)))
        station.watch(sock, self, line, selectors.EVENT_READ)
        return line
