"""Which flow to probe at which TTL next, until every branch is known: multipath detection.

After Augustin, Friedman and Teixeira, "Measuring load-balanced paths in the Internet" (IMC 2007): each
router is sent flows that are known to reach it until `netlab.path.stopping` says that it has no more next
hops. Flows known to reach it are found by probing new ones at its TTL. What differs here: nothing waits for
a hop to be finished; flows are taken to pass through what all of them must pass through; a balancer's flows
are probed again to see whether they stay on one branch; and silence is told from loss.

Pure: no sockets and no clock. What to send follows from what has been heard, and from nothing else.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from netlab.path.sightings import MOST_UNKNOWN, Chart, Fate, Place, Sightings, Stop
from netlab.path.stopping import missed, points

AHEAD = 3  # TTLs that the first flow probes before the nearer ones have answered
# Of the flows that a branch lacks, so many shall be expected among the new ones that are sent together. A new
# flow for each would cost the fewest probes, and a round trip whenever it takes another branch.
EXPECTED = 0.25
_SCOUT = 0
_OPEN = {Fate.PENDING, Fate.TO_REPEAT}

Ask = tuple[int, int]  # flow, TTL


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where to look, how sure to be, and how many flows there are."""

    confidence: float
    first_ttl: int
    max_ttl: int
    flows: int


class Search:
    """Enumerates the paths to a target; `exhausted` says that it would have needed more flows."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.points = points(limits.confidence, 0, 0)
        self.sightings = Sightings(limits.first_ttl, enough=self.points(1))
        self.exhausted = False
        self._flows = 0

    def next(self) -> list[Ask]:
        """Return what to send now; the caller sends all of it, and says later what was heard."""
        asks = self._sent([*self._scouting(), *self._first_flows()])
        chart = self.chart()
        asks += self._sent([*self._unheard(chart), *self._unconfirmed(chart)])
        asks += self._sent([*self._untested(chart), *self._unsettled(chart)])
        return asks

    def _sent(self, asks: list[Ask]) -> list[Ask]:
        asks = [*dict.fromkeys(asks)]
        for flow, ttl in asks:
            self.sightings.sent(flow, ttl)
        return asks

    def answered(self, flow: int, ttl: int, address: str, *, ends: bool, late: bool = False) -> None:
        """Take an answer; *late* if the probe had been given up."""
        self.sightings.answered(flow, ttl, address, ends=ends, late=late)

    def unanswered(self, flow: int, ttl: int) -> None:
        """Take it that a probe will not be answered."""
        self.sightings.unanswered(flow, ttl)

    def chart(self) -> Chart:
        """Return what is known, and take the stopping points for as many balancers as there are."""
        chart = self.sightings.chart()
        balancers = [stop for stop in chart.values() if stop.width > 1]
        twos = sum(self._has_two(stop) for stop in balancers)
        self.points = points(self.limits.confidence, twos, len(balancers) - twos)
        return chart

    def _has_two(self, stop: Stop) -> bool:
        """Whether it is likely that a balancer has not more than two next hops."""
        return stop.width == 2 and missed(2, stop.tested) <= 1 - self.limits.confidence

    def missing(self, place: Place, stop: Stop) -> int:
        """Return how many more flows must be seen to pass *place*."""
        if not stop.through or place.ttl >= self.limits.max_ttl:
            return 0
        if (place.silent and place.ttl >= self.sightings.extent) or stop.unknown >= MOST_UNKNOWN:
            return 0
        return max(0, self.points(max(stop.width, 1)) - stop.tested)

    def repeats(self, chart: Chart, stop: Stop) -> int:
        """Return how often flows must be seen to take the same branch again for it to be no chance."""
        if stop.mixed or len(stop.addresses) < 2:
            return 0
        # Branches that fan out again are what a per-packet balancer looks like when repetitions missed it.
        fans_out = any(chart[place].width > 1 for place in stop.onward if place in chart)
        chance = (1 - self.limits.confidence) / (100 if fans_out else 1)
        return math.ceil(math.log(chance) / -math.log(len(stop.addresses)))

    def _scouting(self) -> list[Ask]:
        """Send the first flow ahead to find the end of the path."""
        unsent, waiting = [], 0
        last = min(self.limits.max_ttl, self.sightings.ends.get(_SCOUT, self.limits.max_ttl))
        for ttl in range(self.limits.first_ttl, last + 1):
            cell = self.sightings.cells[ttl].get(_SCOUT)
            if cell is None:
                unsent.append((_SCOUT, ttl))
            elif cell.waiting:
                waiting += 1
        self._flows = max(self._flows, _SCOUT + 1)
        return unsent[: max(0, AHEAD - waiting)]

    def _first_flows(self) -> list[Ask]:
        """Send after it as many flows as every router needs anyway, without waiting for one another."""
        asks = []
        flows = min(self.sightings.enough, self.limits.flows)
        for ttl in range(self.limits.first_ttl, self.sightings.extent + 1):
            hop = self.sightings.cells[ttl]
            asks += [
                (flow, ttl)
                for flow in range(flows)
                if flow not in hop and self.sightings.ends.get(flow, ttl) >= ttl
            ]
            self._flows = max(self._flows, flows)
        return asks

    def _unheard(self, chart: Chart) -> list[Ask]:
        at: dict[int, dict[int, Place]] = defaultdict(dict)
        for place, stop in chart.items():
            at[place.ttl + 1] |= dict.fromkeys(stop.through, place)
        last = self.sightings.extent + 1
        ttls = range(self.limits.first_ttl, min(last, self.limits.max_ttl) + 1)
        return [(flow, ttl) for ttl in ttls for flow in self.sightings.unheard(ttl, at[ttl])]

    def _unconfirmed(self, chart: Chart) -> Iterator[Ask]:
        """Probe flows at places where they were only taken to be, if nothing else speaks for a link."""
        for place, stop in chart.items():
            if place == self.sightings.source:
                continue
            hop = self.sightings.cells[place.ttl]
            for flows in stop.onward.values():
                if not any(flow in hop and self._told(place.ttl, flow, place.behind) for flow in flows):
                    yield from ((flow, place.ttl) for flow in [f for f in flows if f not in hop][:1])

    def _told(self, ttl: int, flow: int, near: Place | None) -> bool:
        fate = self.sightings.fate(ttl, self.sightings.cells[ttl][flow], near)
        return fate is not Fate.UNKNOWN

    def _untested(self, chart: Chart) -> list[Ask]:
        """Send flows through the places that need more, and look for such flows where there are none left."""
        asks: list[Ask] = []
        demand: dict[Place, int] = defaultdict(int)
        rarest: dict[Place, int] = defaultdict(int)
        leads, everyones = _leads(chart), self._everyones(chart)
        for place, stop in reversed(chart.items()):
            wanted = max(self.missing(place, stop), demand[place], rarest[place])
            wanted -= self._pending(place, stop)
            if wanted <= 0:
                continue
            hop = self.sightings.cells[place.ttl + 1]
            fresh = [flow for flow in stop.through if flow not in hop][:wanted]
            asks += [(flow, place.ttl + 1) for flow in fresh]
            lacking = wanted - len(fresh)
            if place in everyones:
                asks += [(flow, place.ttl + 1) for flow in self._new_flows(lacking)]
            elif lacking and (found := self._nearest(chart, leads[place], place)):
                share, near = found
                demand[near] += lacking
                rarest[near] = max(rarest[near], math.ceil(EXPECTED * lacking / share))
        return asks

    def _everyones(self, chart: Chart) -> set[Place]:
        """Return the places that every flow passes: the source, and what single next hops it leads to."""
        found = set()
        place: Place | None = self.sightings.source
        while place:
            found.add(place)
            place = self.sightings.only_next(place, chart[place])
        return found

    def _pending(self, place: Place, stop: Stop) -> int:
        hop = self.sightings.cells[place.ttl + 1]
        silence = (hop[flow] for flow in stop.through if flow in hop and not hop[flow].heard)
        return sum(self.sightings.fate(place.ttl + 1, cell, place) in _OPEN for cell in silence)

    def _nearest(self, chart: Chart, leads: list[Place], place: Place) -> tuple[float, Place] | None:
        """Return which share of its flows the place that leads to *place* most sends there, and that place.

        None if there is none that still does.
        """
        likely = [
            (len(chart[near].onward[place]) / chart[near].tested, near)
            for near in leads
            if chart[near].misses(place) < 2 * self.points(chart[near].width)
            and chart[near].unknown < MOST_UNKNOWN
        ]
        return max(likely, key=lambda item: item[0], default=None)

    def _new_flows(self, number: int) -> range:
        new = range(self._flows, min(self._flows + number, self.limits.flows))
        self.exhausted |= len(new) < number
        self._flows += len(new)
        return new

    def _unsettled(self, chart: Chart) -> list[Ask]:
        """Probe flows of balancers again: those of a per-packet balancer do not stay on their branch."""
        asks = []
        for place, stop in chart.items():
            wanted = self.repeats(chart, stop)
            if self.missing(place, stop):  # one tells most; the others can wait for the number of branches
                wanted = min(wanted, 1)
            if stop.again >= wanted:
                continue
            hop = self.sightings.cells[place.ttl + 1]
            cells = [
                (hop[flow].sent, flow)
                for onward, flows in stop.onward.items()
                if not onward.silent
                for flow in flows
            ]
            sent = sum(count - 1 for count, _ in cells)
            waiting = sum(hop[flow].waiting for _, flow in cells)
            number = min(wanted - stop.again, 3 * wanted - sent) - waiting
            asks += [(flow, place.ttl + 1) for _, flow in sorted(cells)[: max(0, number)]]
        return asks


def _leads(chart: Chart) -> dict[Place, list[Place]]:
    """Return for each place those that lead to it."""
    leads: dict[Place, list[Place]] = defaultdict(list)
    for near, stop in chart.items():
        for place in stop.onward:
            leads[place].append(near)
    return leads
