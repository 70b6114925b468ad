"""The engine's seam on this host's network for one target: a station with one outlet."""

from __future__ import annotations

import contextlib

from netlab.kernel.netns import NetNs
from netlab.path import station
from netlab.path.outlet import Outlet
from netlab.path.probes import Flow, Protocol, Vary
from netlab.path.state import Answer
from netlab.path.target import Target


class RawChannel(contextlib.AbstractContextManager["RawChannel"]):
    """Probes of any number of flows to one target through raw sockets, as `netlab.path.engine.Channel`.

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
        with contextlib.ExitStack() as resources:
            self._station = resources.enter_context(
                station.Station(
                    protocol, [target.family], port=port, source_port=source_port, vary=vary, netns=netns
                )
            )
            self._line = Outlet(self._station, target, source)
            self._resources = resources.pop_all()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; doing it again does nothing."""
        self._resources.close()

    @property
    def dropped(self) -> int:
        """How many packets the kernel dropped because they were not read in time."""
        return self._station.dropped

    @property
    def unreadable(self) -> int:
        """How many packets came that are not what they claim to be."""
        return self._station.unreadable

    @property
    def ports(self) -> dict[int, tuple[int | None, int | None]]:
        """The source and destination port of each flow that was probed."""
        return self._line.ports

    def flow(self, number: int) -> Flow:
        """Return a flow, ready to be probed; raises ProbeError if there is no port for it."""
        return self._line.flow(number)

    def now_ns(self) -> int:
        """Return the monotonic time."""
        return station.now_ns()

    def send(self, flow: int, ttl: int, mark: int, *, size_bytes: int = 0) -> int:
        """Send a probe, of a given size if that matters; return the wall-clock time just before it left.

        Raises
        ------
        ProbeError
            If the kernel does not let it out, or there is no port for the flow.
        """
        return self._line.send(flow, ttl, mark, size_bytes=size_bytes)

    def receive(self, wait_ns: int) -> list[Answer]:
        """Return the answers that are there, waiting up to *wait_ns* for the first."""
        return [answer for _, answer in self._station.receive(wait_ns)]
