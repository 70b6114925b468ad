"""An outlet to one target: its flows, and what has been sent over them."""

from __future__ import annotations

import errno
import os

from netlab.errors import ProbeError
from netlab.path.kinds import EchoFlow, SynFlow, UdpFlow
from netlab.path.matching import Register
from netlab.path.probes import MARKS, Flow, Protocol
from netlab.path.sack import SackFlow
from netlab.path.station import Station
from netlab.path.target import Target


class Outlet:
    """Probes of any number of flows to one target, sent and heard by a station.

    `register` matches answers to them, `departures` has when the kernel sent each (flow, mark), wall clock.

    Raises
    ------
    ProbeError
        If there is no port for flow 0.
    """

    def __init__(self, station: Station, target: Target, source: bytes) -> None:
        self.target = target
        self.tos = station.tos
        self.register = Register()
        self.departures: dict[tuple[int, int], int] = {}
        self._station = station
        self._source = source
        self.flow(0)
        station.join(self)

    @property
    def ports(self) -> dict[int, tuple[int | None, int | None]]:
        """The source and destination port of each flow that was asked for."""
        return {number: flow.ports for number, flow in self.register.flows.items()}

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
        flow = self._echo(number) if self._station.protocol is Protocol.ICMP else self._with_ports(number)
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
        packet = self.flow(flow).packet(ttl, mark, size_bytes=size_bytes)
        self.register.sent(flow, mark)
        self.departures.pop((flow, mark), None)
        try:
            return self._station.send(self, (flow, mark), packet)
        except OSError as error:
            raise _unsent(self.target, error) from error

    def _echo(self, number: int) -> EchoFlow:
        return EchoFlow(
            number=number,
            source=self._source,
            target=self.target.packed,
            salt=self._station.salt,
            tos=self.tos,
            identifier=self._station.identifier,
            checksum=1 + (self._station.checksum + number) % MARKS,
        )

    def _with_ports(self, number: int) -> UdpFlow | SynFlow | SackFlow:
        source_port, port = self._station.ports(self.target, self._source, number)
        if self._station.protocol is Protocol.SACK:
            agreed = self._station.connect(self.target, self._source, number)
            return SackFlow(
                number=number,
                source=self._source,
                target=self.target.packed,
                salt=self._station.salt,
                tos=self.tos,
                source_port=source_port,
                port=port,
                sequence=agreed.sequence,
                acknowledgment=agreed.acknowledgment,
                timestamps=agreed.timestamps,
            )
        kind = UdpFlow if self._station.protocol is Protocol.UDP else SynFlow
        return kind(
            number=number,
            source=self._source,
            target=self.target.packed,
            salt=self._station.salt,
            tos=self.tos,
            source_port=source_port,
            port=port,
        )


def _unsent(target: Target, error: OSError) -> ProbeError:
    reason = os.strerror(error.errno or 0)
    fix = (
        "A local firewall rule drops the probes: look at `nft list ruleset`"
        if error.errno == errno.EPERM
        else f"Look at `ip route get {target.address}`"
    )
    return ProbeError(f"cannot send a probe to {target.name} ({target.address}): {reason}", fix=fix)
