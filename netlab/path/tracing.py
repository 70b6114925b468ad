"""Traces to any number of targets through one station."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from netlab.errors import NetlabError
from netlab.frames import Gap, Missing
from netlab.kernel.netns import NetNs, entered
from netlab.path import interruption, leaving, loop, methods, sack
from netlab.path.losses import losses
from netlab.path.methods import AnyOutlet, AnyProber, AnyStation
from netlab.path.origin import Origin, origins
from netlab.path.pace import Pace
from netlab.path.probes import MARKS, Protocol
from netlab.path.requests import Request
from netlab.path.rows import Traced
from netlab.path.state import Answer, Run
from netlab.path.station import now_ns
from netlab.path.target import Target, routed

_SHOWN_EVERY_S = 0.2

_Choice: TypeAlias = tuple[Target, bytes] | NetlabError


class Trail:
    """All runs to one target, one after the other, as `netlab.path.loop.Track`.

    It ends early where the kernel no longer lets the probes out: `error` is why.
    """

    def __init__(
        self, request: Request, outlet: AnyOutlet, marks: Iterator[int], on_run: Callable[[], object]
    ) -> None:
        self.outlet = outlet
        self.runs: list[Run] = []
        self.error: NetlabError | None = None
        self._request = request
        self._strategy = methods.strategy(request.method, request.protocol)
        self._marks = marks
        self._on_run = on_run
        self._prober: AnyProber | None = None

    def step(self, now_ns: int) -> int | None:
        """Send at most one probe; return how long to wait then, 0 after a probe, None when all is done."""
        try:
            while (wait := self._prober.step(now_ns) if self._prober else None) is None:
                if self._prober:
                    self._on_run()
                if len(self.runs) == self._request.runs:
                    self._prober = None
                    return None
                # Before where the target was last met somebody who rejects some packets hides no probe to it.
                known_end = next((run.target_ttl for run in reversed(self.runs) if run.target_ttl), 0)
                self.runs.append(Run(len(self.runs), known_end=known_end))
                self._prober = self._strategy(
                    self._request.plan, self.outlet.send, self.runs[-1], self._marks
                )
        except NetlabError as error:
            self.error = error
            self.abandon()
            return None
        return wait

    def take(self, answer: Answer) -> None:
        """Give an answer to the run that is going on."""
        if self._prober:
            self._prober.take(answer)

    def abandon(self) -> None:
        """Leave the run that is going on as it is."""
        if self._prober:
            self._prober.abandon()
            self._prober = None


def trace(
    request: Request,
    targets: Sequence[tuple[str, Sequence[Target] | NetlabError]],
    *,
    stopped: Callable[[], bool] | None = None,
    on_run: Callable[[], object] = lambda: None,
    seen: Callable[[list[Traced]], object] | None = None,
) -> tuple[list[Traced], list[Missing]]:
    """Trace to each of *targets*, given by name and addresses; return what was found and what the host lost.

    Ctrl-C ends it as *stopped* does: with what has been heard until then. *seen* is told that now and then
    while it goes on.
    """
    with contextlib.ExitStack() as resources:
        with entered(request.netns):  # once, for all that is done in it
            chosen = [(name, _chosen(addresses, request.netns)) for name, addresses in targets]
            good = [choice for _, choice in chosen if not isinstance(choice, NetlabError)]
            if not good:
                return [
                    _failed(name, choice) for name, choice in chosen if isinstance(choice, NetlabError)
                ], []
            ways = origins(good, request.netns)
            station = _station(request, {target.family for target, _ in good})
            resources.enter_context(station)
            request = replace(request, method=methods.method_of(station))
            trails = _Trails(request, station, on_run)
            found = [(name, choice, trails.add(choice)) for name, choice in chosen]

        def traced() -> list[Traced]:
            place = iter(ways)
            return [_traced(name, choice, trail, place, request) for name, choice, trail in found]

        begin_s = time.monotonic()
        trails.drive(stopped if seen is None else _showing(traced, seen, stopped))
    missing = [*losses(station), *methods.unseen(station, reached=trails.reached), *trails.unbegun()]
    missing += [*trails.beyond(), *leaving.changes(ways, good, request.netns, begin_s)]
    return traced(), missing


def _showing(
    traced: Callable[[], list[Traced]],
    seen: Callable[[list[Traced]], object],
    stopped: Callable[[], bool] | None,
) -> Callable[[], bool]:
    """Return what the loop asks in place of *stopped*: it tells *seen* what has been traced, now and then."""
    shown_s = time.monotonic()

    def asked() -> bool:
        nonlocal shown_s
        if time.monotonic() - shown_s >= _SHOWN_EVERY_S:
            seen(traced())
            shown_s = time.monotonic()
        return stopped() if stopped else False

    return asked


def _station(request: Request, families: Collection[int]) -> AnyStation:
    return methods.station(
        request.method,
        request.protocol,
        families,
        port=request.port,
        source_port=request.source_port,
        netns=request.netns,
        patience_s=request.plan.timeout_ns / 10**9,
        tos=request.tos,
    )


def _chosen(addresses: Sequence[Target] | NetlabError, netns: NetNs) -> _Choice:
    if isinstance(addresses, NetlabError):
        return addresses
    try:
        return routed(list(addresses), netns)
    except NetlabError as error:
        return error


class _Series:
    """The trails to one address, one after the other, because all their probes are of one flow.

    A target that answers one SYN of a flow at a time would answer one trail and not the other, and an answer
    that does not say which probe it is for could be either's. No two of their probes have the same mark.
    """

    def __init__(self, outlet: AnyOutlet, marks: Iterator[int]) -> None:
        self.outlet = outlet
        self.marks = marks
        self.trails: list[Trail] = []
        self._done = 0

    def step(self, now_ns: int) -> int | None:
        """Let the first trail that is not done take its turn."""
        while self._done < len(self.trails):
            wait = self.trails[self._done].step(now_ns)
            if wait is not None:
                return wait
            self._done += 1
        return None

    def take(self, answer: Answer) -> None:
        """Give an answer to the trail that is going on."""
        if self._done < len(self.trails):
            self.trails[self._done].take(answer)


class _Trails:
    """The trails of one station."""

    def __init__(self, request: Request, station: AnyStation, on_run: Callable[[], object]) -> None:
        self._request = request
        self._station = station
        self._on_run = on_run
        self._trails: list[Trail] = []
        self._series: dict[Target, _Series] = {}
        self._places: dict[int, list[int]] = {}

    def add(self, choice: _Choice) -> Trail | NetlabError:
        if isinstance(choice, NetlabError):
            return choice
        try:
            series = self._series_to(*choice)
        except NetlabError as error:
            return error
        trail = Trail(self._request, series.outlet, series.marks, self._on_run)
        series.trails.append(trail)
        self._trails.append(trail)
        return trail

    def _series_to(self, target: Target, source: bytes) -> _Series:
        key = replace(target, name=target.address)
        if key not in self._series:
            outlet = methods.outlet(self._station, target, source)
            self._places[id(outlet)] = [len(self._series)]
            self._series[key] = _Series(outlet, marks(self._request))
        return self._series[key]

    def drive(self, stopped: Callable[[], bool] | None) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            loop.drive(
                [*self._series.values()],
                self._hear,
                now_ns,
                Pace(self._request.packets_per_s),
                stopped=stopped,
            )
        for trail in self._trails:
            trail.abandon()

    @property
    def reached(self) -> bool:
        """Whether every run met its target."""
        return all(run.target_ttl for trail in self._trails for run in trail.runs)

    def unbegun(self) -> list[Missing]:
        count = sum(self._request.runs - len(trail.runs) for trail in self._trails if trail.error is None)
        return [Missing(interruption.RUNS, Gap.INCOMPLETE, count, "they had not begun")] if count else []

    def beyond(self) -> list[Missing]:
        """Return how many paths are known to go on behind the last TTL that may be probed."""
        last = self._request.plan.max_ttl
        count = sum(_goes_on(trail.runs, last) for trail in self._trails)
        detail = f"the path goes on past max_ttl={last}: a router answered there, and nothing ended it"
        return [Missing("hops", Gap.INCOMPLETE, count, detail)] if count else []

    def _hear(self, wait_ns: int) -> list[tuple[list[int], Answer]]:
        return [(self._places[id(outlet)], answer) for outlet, answer in self._station.receive(wait_ns)]


def marks(request: Request) -> Iterator[int]:
    """Yield the numbers of probes: from anywhere on and round and round, or as many as there are."""
    if request.protocol is Protocol.SACK:
        return iter(range(1, sack.MARKS + 1))  # `netlab.path.requests` sees that they suffice
    # Going on with the marks from run to run keeps an answer that comes a run late from fitting anything;
    # starting anywhere does the same for the next trace from this port.
    start = random.randrange(MARKS)  # noqa: S311 - no secret
    return (1 + number % MARKS for number in itertools.count(start))


def _goes_on(runs: Sequence[Run], last_ttl: int) -> bool:
    return all(run.end_ttl is None for run in runs) and any(run.passed_ttl == last_ttl for run in runs)


def _traced(
    name: str, choice: _Choice, trail: Trail | NetlabError, ways: Iterator[Origin], request: Request
) -> Traced:
    if isinstance(choice, NetlabError):
        return _failed(name, choice)
    way = next(ways)  # there is one for each choice that is no error, in order
    if isinstance(trail, NetlabError):
        return Traced(name=name, target=choice[0], origin=way, error=trail)
    return Traced(
        name=name,
        target=choice[0],
        origin=way,
        tos=request.tos,
        method=request.method.value,
        ports=trail.outlet.ports,
        runs=trail.runs,
        error=trail.error,
    )


def _failed(name: str, error: NetlabError) -> Traced:
    return Traced(name=name, target=None, error=error)
