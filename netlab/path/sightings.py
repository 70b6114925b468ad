"""Where flows have been seen, and from that which router leads to which.

The chart is computed anew from all answers each time, so a late answer, or one that shows an earlier
conclusion to be wrong, needs no repair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias

# How often a probe is sent before its silence is believed: where nobody at all has answered; behind a router
# that is silent itself; and where others answer, so that the silence would be a branch of its own.
TRIES_WHERE_SILENT, TRIES_BEHIND_SILENT, TRIES_AMONG_ANSWERS = 2, 3, 4
# There it is sent more often until loss alone is an unlikely reason for any such silence, or it is given up.
# How much is lost is known from flows that had answered: they are asked again.
LOST_BY_CHANCE = 0.01
# With fewer checks a silent branch beside routers that lose a fifth is more often in doubt than found.
MOST_TRIES, MOST_CHECKS = 12, 24
MOST_UNKNOWN = 4  # flows through one place; then nothing more is asked through it


@dataclass(frozen=True, slots=True)
class Place:
    """Where a flow is at a TTL.

    It has several addresses when packets of one flow get to any of them, and none when nobody answers; then
    it is known by the place before it.
    """

    ttl: int
    addresses: frozenset[str]
    behind: Place | None = None

    @property
    def silent(self) -> bool:
        """Whether nobody answers here."""
        return not self.addresses


@dataclass(slots=True)
class Stop:
    """What is known of a place: the flows that go on from it, those seen there, and where they went.

    `answers` counts what came from the next TTL. `mixed` says that packets of one flow may get to any of
    several addresses there, `unknown` for how many flows too much was lost to tell, and `sequence` when each
    flow's next place was known.
    """

    through: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    onward: dict[Place, list[int]] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    answers: int = 0
    mixed: bool = False
    unknown: int = 0
    sequence: list[tuple[int, Place]] = field(default_factory=list)

    @property
    def tested(self) -> int:
        """How many choices of its next hop have been seen."""
        return self.answers if self.mixed else sum(map(len, self.onward.values()))

    @property
    def width(self) -> int:
        """How many next hops it has shown."""
        return len(self.addresses) + any(place.silent for place in self.onward)

    @property
    def again(self) -> int:
        """How many answers came from flows that had answered before."""
        return self.answers - sum(len(flows) for place, flows in self.onward.items() if not place.silent)

    def misses(self, place: Place) -> int:
        """Return how many flows were seen elsewhere since one was last seen at *place*."""
        latest = [near for _, near in sorted(self.sequence, key=lambda item: item[0])]
        return latest[::-1].index(place)


Chart: TypeAlias = dict[Place, Stop]  # in order of TTL


class Fate(Enum):
    """What has become of the probes of one flow to one TTL."""

    HEARD = auto()
    PENDING = auto()
    TO_REPEAT = auto()
    SILENT = auto()
    UNKNOWN = auto()  # too much is lost here to tell


@dataclass(slots=True)
class Cell:
    """The probes of one flow to one TTL; `order` says how many cells had an answer before this one."""

    sent: int = 0
    waiting: int = 0
    lost: int = 0
    heard: dict[str, int] = field(default_factory=dict)
    ends: bool = False
    order: int = 0


@dataclass(slots=True)
class _Checks:
    """Probes of flows that had answered at a TTL before."""

    sent: int = 0
    waiting: int = 0
    lost: int = 0

    @property
    def loss(self) -> float:
        return (self.lost + 1) / (self.sent + 2)  # Laplace's rule of succession


class Sightings:
    """The answers to all flows from *first_ttl* on.

    Where *enough* flows have all gone on to the same place, others are taken to go there.
    """

    def __init__(self, first_ttl: int, *, enough: int) -> None:
        self.enough = enough
        self.source = Place(first_ttl - 1, frozenset({"source"}))
        self.cells: dict[int, dict[int, Cell]] = defaultdict(dict)  # by TTL and flow
        self.ends: dict[int, int] = {}  # by flow
        self._reach: dict[int, int] = {}  # by flow: the highest TTL heard from up to its end
        self._checks: dict[int, _Checks] = defaultdict(_Checks)
        self._answering: set[int] = set()  # TTLs
        self._heard = 0

    @property
    def extent(self) -> int:
        """The highest TTL that an answer came from."""
        return max(self._reach.values(), default=self.source.ttl)

    def sent(self, flow: int, ttl: int) -> None:
        """Note that a probe is under way."""
        cell = self.cells[ttl].setdefault(flow, Cell())
        cell.sent += 1
        cell.waiting += 1
        if cell.heard:
            self._checks[ttl].sent += 1
            self._checks[ttl].waiting += 1

    def answered(self, flow: int, ttl: int, address: str, *, ends: bool, late: bool = False) -> None:
        """Note that a probe was answered; *late* if it had been given up."""
        cell = self.cells[ttl][flow]
        if late:
            cell.lost -= 1
        else:
            cell.waiting -= 1
            if cell.heard:
                self._checks[ttl].waiting -= 1
        if not cell.heard:
            self._heard += 1
            cell.order = self._heard
        cell.heard[address] = cell.heard.get(address, 0) + 1
        if ends:
            cell.ends = True
            self.ends[flow] = self._reach[flow] = min(ttl, self.ends.get(flow, ttl))
        elif ttl < self.ends.get(flow, ttl + 1):
            self._reach[flow] = max(ttl, self._reach.get(flow, ttl))
        if ttl <= self._reach.get(flow, 0):
            self._answering.add(ttl)

    def unanswered(self, flow: int, ttl: int) -> None:
        """Note that a probe is given up."""
        cell = self.cells[ttl][flow]
        cell.waiting -= 1
        cell.lost += 1
        if cell.heard:
            self._checks[ttl].waiting -= 1
            self._checks[ttl].lost += 1

    def hop(self, ttl: int) -> Iterator[tuple[int, Cell]]:
        """Yield the flows that were probed at *ttl* and had not ended before, and what came of it."""
        cells = self.cells.get(ttl, {})
        return ((flow, cell) for flow, cell in cells.items() if self.ends.get(flow, ttl) >= ttl)

    def fate(self, ttl: int, cell: Cell, near: Place | None) -> Fate:
        """Return what has become of the probes of a flow that was at *near* before."""
        if cell.heard:
            return Fate.HEARD
        if cell.waiting:
            return Fate.PENDING
        tries = self._tries(ttl, near)
        if cell.lost < tries:
            return Fate.TO_REPEAT
        checks, cells = self._checks[ttl], len(self.cells[ttl])
        loss = max(checks.loss, self._loss(ttl))
        if tries < TRIES_AMONG_ANSWERS or (loss**cell.lost * cells <= LOST_BY_CHANCE and not checks.waiting):
            return Fate.SILENT
        hopeless = checks.sent >= MOST_CHECKS and loss**MOST_TRIES * cells > LOST_BY_CHANCE
        if cell.lost < MOST_TRIES and not hopeless:
            return Fate.TO_REPEAT
        return Fate.PENDING if checks.waiting else Fate.UNKNOWN

    def _loss(self, ttl: int) -> float:
        heard = [cell for _, cell in self.hop(ttl) if cell.heard]
        return sum(cell.lost for cell in heard) / max(1, sum(cell.sent for cell in heard))

    def _tries(self, ttl: int, near: Place | None) -> int:
        if ttl > self.extent + 1:
            return 1  # when a later hop answers, the rest follows
        if ttl not in self._answering:
            return TRIES_WHERE_SILENT
        return TRIES_BEHIND_SILENT if near and near.silent else TRIES_AMONG_ANSWERS

    def chart(self) -> Chart:
        """Return what is known of each place."""
        at = dict.fromkeys(sorted({flow for hop in self.cells.values() for flow in hop}), self.source)
        stops = {self.source: Stop(through=[*at])}
        chart = dict(stops)
        for ttl in range(self.source.ttl + 1, self.extent + 2):
            seen = self._follow(ttl, at, stops)
            at = self._implied(ttl, stops) | seen
            following: Chart = {}
            for stop in stops.values():
                for place, flows in stop.onward.items():
                    following.setdefault(place, Stop()).seen += flows
            for flow, place in at.items():
                following.setdefault(place, Stop()).through.append(flow)
            stops = following
            chart |= stops
        return chart

    def _follow(self, ttl: int, before: dict[int, Place], stops: Chart) -> dict[int, Place]:
        """Add to the stops before *ttl* where their flows were seen; return where those that go on are."""
        for flow, cell in self.hop(ttl):
            if flow in before and cell.heard:
                stop = stops[before[flow]]
                stop.addresses |= cell.heard.keys()
                stop.answers += sum(cell.heard.values())
                stop.mixed |= len(cell.heard) > 1 or len(before[flow].addresses) > 1
        several = [set(cell.heard) for _, cell in self.hop(ttl) if len(cell.heard) > 1]
        groups = _joined([*several, *(stop.addresses for stop in stops.values() if stop.mixed)])
        after = {}
        places: dict[str, Place] = {}
        for flow, cell in self.hop(ttl):
            near = before.get(flow)
            if cell.heard:
                address = next(iter(cell.heard))
                place = places.get(address) or places.setdefault(
                    address, Place(ttl, groups.get(address, frozenset({address})))
                )
            elif near is None:
                continue
            elif (fate := self.fate(ttl, cell, near)) is Fate.SILENT:
                place = Place(ttl, frozenset(), near)
            else:
                stops[near].unknown += fate is Fate.UNKNOWN
                continue
            if near is not None:
                stops[near].onward.setdefault(place, []).append(flow)
                stops[near].sequence.append((cell.order, place))
            if not cell.ends:
                after[flow] = place
        return after

    def _implied(self, ttl: int, stops: Chart) -> dict[int, Place]:
        heard = {flow for flow, cell in self.hop(ttl) if cell.heard}
        implied: dict[int, Place] = {}
        for near, stop in stops.items():
            if place := self.only_next(near, stop):
                implied |= {flow: place for flow in stop.through if flow not in heard}
        return implied

    def only_next(self, near: Place, stop: Stop) -> Place | None:
        """Return the one place that all flows through *near* go on to, if there is such a place."""
        if len(stop.onward) != 1 or stop.tested < self.enough:
            return None
        place, flows = next(iter(stop.onward.items()))
        hop = self.cells[near.ttl + 1]
        return None if all(hop[flow].ends for flow in flows) else place

    def unheard(self, ttl: int, at: dict[int, Place]) -> list[int]:
        """Return the flows to probe again at *ttl*, and others that show how much is lost there."""
        fates = {flow: self.fate(ttl, cell, at.get(flow)) for flow, cell in self.hop(ttl)}
        hop = self.cells[ttl]
        again = [flow for flow, fate in fates.items() if fate is Fate.TO_REPEAT]
        doubtful = sum(hop[flow].lost > 1 for flow in again)
        answering = [flow for flow, fate in fates.items() if fate is Fate.HEARD and not hop[flow].waiting]
        answering.sort(key=lambda flow: hop[flow].sent)
        return again + answering[: max(0, min(doubtful, MOST_CHECKS - self._checks[ttl].sent))]


def _joined(sets: Iterable[set[str]]) -> dict[str, frozenset[str]]:
    """Return for each member the union of the sets that it is in and of those that share members with it."""
    unions: list[frozenset[str]] = []
    for members in sets:
        touching = [union for union in unions if union & members]
        unions = [union for union in unions if union not in touching]
        unions.append(frozenset(members).union(*touching))
    return {member: union for union in unions for member in union}
