"""A given number of flows, each followed from end to end, as dublin-traceroute does."""

from __future__ import annotations

from netlab.path.mda import AHEAD, Ask, Limits
from netlab.path.sightings import Sightings

_SCOUT = 0
_TRIES = 2


class Sweep:
    """Probes each flow at each TTL up to its own end; the first goes ahead to find how far that is."""

    def __init__(self, limits: Limits) -> None:
        self.sightings = Sightings(limits.first_ttl, enough=1)
        self._limits = limits

    def next(self) -> list[Ask]:
        """Return what to send now."""
        extent = self.sightings.extent
        asks = [ask for flow in range(self._limits.flows) for ask in self._due(flow, extent)]
        for flow, ttl in asks:
            self.sightings.sent(flow, ttl)
        return asks

    def _due(self, flow: int, extent: int) -> list[Ask]:
        first, last = self._limits.first_ttl, self.sightings.ends.get(flow, self._limits.max_ttl)
        cells = {ttl: self.sightings.cells[ttl].get(flow) for ttl in range(first, last + 1)}
        lost = [
            ttl
            for ttl, cell in cells.items()
            if cell and cell.lost < _TRIES and not (cell.heard or cell.waiting)
        ]
        again = [ttl for ttl in lost if ttl <= extent + 1]
        waiting = sum(cell.waiting for cell in cells.values() if cell)
        fresh = [ttl for ttl, cell in cells.items() if cell is None]
        if flow == _SCOUT:
            fresh = fresh[: max(0, AHEAD - waiting)]
        else:
            fresh = [ttl for ttl in fresh if ttl <= extent + (not waiting)]
        return [(flow, ttl) for ttl in again + fresh]

    def answered(self, flow: int, ttl: int, address: str, *, ends: bool, late: bool = False) -> None:
        """Take an answer; *late* if the probe had been given up."""
        self.sightings.answered(flow, ttl, address, ends=ends, late=late)

    def unanswered(self, flow: int, ttl: int) -> None:
        """Take it that a probe will not be answered."""
        self.sightings.unanswered(flow, ttl)
