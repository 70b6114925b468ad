"""An outlet to one target: its flows, and what has been sent over them."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Generic, TypedDict, TypeVar

from netlab.errors import ProbeError
from netlab.path import quotes
from netlab.path.kinds import EchoFlow, SynFlow, UdpFlow
from netlab.path.matching import Match, Register
from netlab.path.moulds import Mould
from netlab.path.probes import MARKS, Flow, Protocol
from netlab.path.quotes import Quoted
from netlab.path.sack import SackFlow
from netlab.path.station import Station
from netlab.path.target import Target
from netlab.wire import icmp, ip

if TYPE_CHECKING:
    from netlab.path.plain import PlainStation

_KEY = 4  # bytes of `netlab.path.probes.Flow.key`

AStation = TypeVar("AStation", "Station", "PlainStation")


class _Common(TypedDict):
    """What every kind of flow has."""

    number: int
    source: bytes
    target: bytes
    salt: int
    tos: int


class BaseOutlet(Generic[AStation]):
    """What an outlet is whatever its sockets: it makes the flows to one target."""

    def __init__(self, station: AStation, target: Target, source: bytes) -> None:
        self.target = target
        self.tos = station.tos
        self._station: AStation = station
        self._source = source

    def _common(self, number: int) -> _Common:
        return {
            "number": number,
            "source": self._source,
            "target": self.target.packed,
            "salt": self._station.salt,
            "tos": self.tos,
        }

    def _echo(self, number: int, identifier: int) -> EchoFlow:
        checksum = 1 + (self._station.checksum + number) % MARKS
        return EchoFlow(**self._common(number), identifier=identifier, checksum=checksum)

    def _with_ports(self, number: int, source_port: int, port: int) -> UdpFlow | SynFlow:
        kind = UdpFlow if self._station.protocol is Protocol.UDP else SynFlow
        return kind(**self._common(number), source_port=source_port, port=port)

    def _unsent(self, error: OSError) -> ProbeError:
        name, address = self.target.name, self.target.address
        rule = "`nft list ruleset`, for a local firewall rule that drops it"
        fixes = {
            errno.EPERM: rule,
            errno.ENOBUFS: "`tc -s qdisc`: this host's own queue is full and drops what is sent",
        }
        fix = fixes.get(error.errno or 0, f"`ip route get {address}`, and at {rule}")
        reason = os.strerror(error.errno or 0)
        return ProbeError(f"cannot send a probe to {name} ({address}): {reason}", fix=f"Look at {fix}")


class Outlet(BaseOutlet[Station]):
    """Probes of any number of flows to one target, sent and heard by a station.

    `register` matches answers to them, `departures` has when the kernel sent each (flow, mark), wall clock.

    Raises
    ------
    ProbeError
        If there is no port for flow 0.
    """

    def __init__(self, station: Station, target: Target, source: bytes) -> None:
        super().__init__(station, target, source)
        self.register = Register()
        self.departures: dict[tuple[int, int], int] = {}
        self._moulds: dict[int, Mould] = {}
        self._header = ip.SIZE[target.family]
        self.flow(0)
        station.join(self)

    @property
    def ports(self) -> dict[int, tuple[int | None, int | None]]:
        """The source and destination port of each flow that was asked for."""
        flows = self.register.flows.copy()  # another thread may be adding one
        return {number: flow.ports for number, flow in flows.items()}

    def flow(self, number: int) -> Flow:
        """Return a flow, ready to be probed.

        Raises
        ------
        ProbeError
            If there is no port for it.
        """
        known = self.register.flows.get(number)
        if known is not None:
            return known
        flow = self._made(number)
        self.register.add(flow)
        return flow

    def send(self, flow: int, ttl: int, mark: int, *, size_bytes: int = 0) -> int:
        """Send a probe, of a given size if that matters; return the wall-clock time just before it left.

        Raises
        ------
        ProbeError
            If the kernel does not let it out, because the route is gone or a local firewall rule drops it, or
            if there is no port for the flow.
        """
        if size_bytes:
            packet = self.flow(flow).packet(ttl, mark, size_bytes=size_bytes)
        else:
            packet = self.packet(flow, ttl, mark)
        self.register.sent(flow, mark)
        self.departures.pop((flow, mark), None)
        try:
            return self._station.send(self, (flow, mark), packet)
        except OSError as error:
            raise self._unsent(error) from error

    def packet(self, flow: int, ttl: int, mark: int) -> bytes:
        """Return the probe of a flow; raises as `flow` does."""
        return self._mould(flow).packet(ttl, mark)

    def about(self, says: icmp.Error, message: icmp.Message) -> tuple[Match, Quoted | None] | None:
        """Return which probe an ICMP error is about, and what it shows of it; None if it is none of these.

        Most routers quote a probe as it was sent, and one look tells so.

        Raises
        ------
        DecodeError
            If the error quotes too little.
        """
        flow = self.register.keyed(message.body[self._header : self._header + _KEY])
        found = self._mould(flow.number).found(message.body) if flow else None
        if flow and found and self.register.is_sent(flow.number, found[1]):
            ttl, mark = found
            return Match(says.value, flow.number, mark), quotes.unaltered(ttl, self.tos, message)
        quote = icmp.quote(message)
        match = self.register.error(says, quote)
        if match is None or match.mark is None:
            return match and (match, None)
        sent = self.packet(match.flow, quote.header.ttl, match.mark)
        return match, quotes.quoted(sent, quote, message)

    def _mould(self, flow: int) -> Mould:
        mould = self._moulds.get(flow)
        if mould is None:
            mould = self._moulds[flow] = Mould(self.flow(flow))
        return mould

    def _made(self, number: int) -> Flow:
        station = self._station
        if station.protocol is Protocol.ICMP:
            return self._echo(number, station.identifier)
        source_port, port = station.ports(self.target, self._source, number)
        if station.protocol is not Protocol.SACK:
            return self._with_ports(number, source_port, port)
        agreed = station.connect(self.target, self._source, number)
        return SackFlow(
            **self._common(number),
            source_port=source_port,
            port=port,
            sequence=agreed.sequence,
            acknowledgment=agreed.acknowledgment,
            timestamps=agreed.timestamps,
        )
