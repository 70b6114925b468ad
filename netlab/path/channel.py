"""The engine's seam on this host's network where there is one target: a station with one outlet."""

from __future__ import annotations

from collections.abc import Mapping

from netlab.path import station
from netlab.path.methods import AnyOutlet, AnyStation
from netlab.path.outlet import Outlet
from netlab.path.probes import Flow
from netlab.path.state import Answer


class StationChannel:
    """What an outlet sends and its station hears, as `netlab.path.watching.Channel`.

    The station is the channel's from now on, and has no other outlet.
    """

    def __init__(self, on: AnyStation, outlet: AnyOutlet) -> None:
        self._station = on
        self._outlet = outlet

    def close(self) -> None:
        """Close the station; doing it again does nothing."""
        self._station.close()

    @property
    def dropped(self) -> int:
        """How many packets the kernel dropped because they were not read in time."""
        return self._station.dropped

    @property
    def held(self) -> int:
        """How many probes had to wait for this host's own queue."""
        return self._station.held

    @property
    def unreadable(self) -> int:
        """How many packets came that are not what they claim to be."""
        return self._station.unreadable

    @property
    def strangers(self) -> Mapping[str, int]:
        """How many answers came from which address that nobody had asked."""
        return self._station.strangers

    def now_ns(self) -> int:
        """Return the monotonic time."""
        return station.now_ns()

    def send(self, flow: int, ttl: int, mark: int) -> int:
        """Send a probe, as the outlet does."""
        return self._outlet.send(flow, ttl, mark)

    def receive(self, wait_ns: int) -> list[Answer]:
        """Return the answers that are there, waiting up to *wait_ns* for the first."""
        return [answer for _, answer in self._station.receive(wait_ns)]


class SizedChannel(StationChannel):
    """The same of raw sockets, which send probes of any size, as `netlab.path.mtu.Channel`."""

    def __init__(self, on: station.Station, outlet: Outlet) -> None:
        super().__init__(on, outlet)
        self._sizing = outlet

    def flow(self, number: int) -> Flow:
        """Return a flow, ready to be probed."""
        return self._sizing.flow(number)

    def send(self, flow: int, ttl: int, mark: int, *, size_bytes: int = 0) -> int:
        """Send a probe, of a given size if that matters, as the outlet does."""
        return self._sizing.send(flow, ttl, mark, size_bytes=size_bytes)
