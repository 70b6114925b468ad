"""When to send which probe, and how long to wait for its answer.

A run has two parts. Discovery sends one probe to each TTL, a window of them ahead of what answered, until
the end of the path is known. Repetition sends the other queries to the TTLs of the path only, all at once
except those to the end of the path: they go one after the other, because a second SYN of the same flow is
answered only after the first one's connection was reset (RFC 9293 section 3.10.7.4). When the end answers
only after repetition had begun, what was sent there meanwhile is void and sent again.

Times are integers in nanoseconds, so that waiting until a moment really reaches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from netlab.path.pace import Pace
from netlab.path.state import Answer, Probe, Run, timing

WINDOW = 16  # as traceroute(8): most paths are found in the first round trip, with few packets past the end
MILLISECOND = 10**6

# How long to wait for a hop when a later hop, which is further away, has answered. Three times its
# round-trip time covers a detour on the way back; the floor covers routers that make ICMP errors in
# software, and this process not being scheduled.
PATIENCE_FACTOR = 3
PATIENCE_FLOOR_NS = 10 * MILLISECOND
# How long a silent probe keeps its place in the window while nothing at all has answered.
BLIND_HOLD_NS = 100 * MILLISECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to probe: TTLs from first to max, `queries` times each, waiting at most `timeout_ns`."""

    first_ttl: int
    max_ttl: int
    queries: int
    timeout_ns: int


class Channel(Protocol):
    """The seam to the network: sends numbered probes of numbered flows and hears their answers.

    Flow 0 is the flow that was asked for; another number is a flow that load balancers may send another way.
    Marks are 1 to `netlab.path.probes.MARKS` and tell the probes of one flow apart; an answer to a mark that
    was sent twice is taken for the later probe.
    """

    def now_ns(self) -> int:
        """Return the time of a clock that never jumps."""

    def send(self, flow: int, ttl: int, mark: int) -> int:
        """Send a probe; return the wall-clock time just before it left, in ns since the epoch."""

    def receive(self, wait_ns: int) -> list[Answer]:
        """Return the answers that are there, waiting up to *wait_ns* for the first."""


def probe_path(plan: Plan, channel: Channel, run: Run, *, pace: Pace, marks: Iterator[int]) -> None:
    """Fill *run*, which has its number and its flow, until it is complete; *marks* must not repeat in it."""
    _Prober(plan, channel, run, pace, marks).run()


class _Prober:
    def __init__(self, plan: Plan, channel: Channel, run: Run, pace: Pace, marks: Iterator[int]) -> None:
        self._plan = plan
        self._channel = channel
        self._run = run
        self._pace = pace
        self._marks = marks
        self._pending: dict[int, Probe] = {}
        self._sent = dict.fromkeys(range(plan.first_ttl, plan.max_ttl + 1), 0)
        self._slowest = [0] * (plan.max_ttl + 1)  # by TTL: largest round trip from there or further away
        self._discovering = True

    @property
    def _last_ttl(self) -> int:
        return self._run.end_ttl or self._plan.max_ttl

    def run(self) -> None:
        while True:
            now = self._channel.now_ns()
            ttl = self._next_ttl(now)
            if ttl is not None and not self._pace.delay_ns(now):
                self._send(ttl)
                wait = 0
            elif (wait := self._wait_ns(now, blocked=ttl is None)) <= 0:
                break
            for answer in self._channel.receive(wait):
                self._take(answer)
        self._run.given_up_early = sum(
            now - probe.sent_ns < self._plan.timeout_ns for probe in self._awaited()
        )

    def _send(self, ttl: int) -> None:
        mark = next(self._marks)
        now = self._channel.now_ns()
        flow = self._run.flow
        probe = Probe(
            flow=flow,
            mark=mark,
            ttl=ttl,
            attempt=self._sent[ttl],
            sent_ns=now,
            wall_ns=self._channel.send(flow, ttl, mark),
        )
        self._pace.sent(now)
        self._sent[ttl] += 1
        self._run.probes[mark] = self._pending[mark] = probe

    def _take(self, answer: Answer) -> None:
        end_before = self._run.end_ttl
        probe = self._run.take(answer)
        if probe is None:
            return
        self._pending.pop(probe.mark, None)
        if self._run.end_ttl != end_before:
            self._void_later_than(probe)
        round_trip, _ = timing(probe, answer)
        for ttl in range(probe.ttl + 1):
            self._slowest[ttl] = max(self._slowest[ttl], round_trip)

    def _void_later_than(self, first: Probe) -> None:
        overlapping = [p for p in self._pending.values() if p.ttl == first.ttl and p.sent_ns >= first.sent_ns]
        for probe in overlapping:
            del self._pending[probe.mark]
            self._run.void.add(probe.mark)
            self._sent[probe.ttl] -= 1

    def _next_ttl(self, now: int) -> int | None:
        """Return the TTL to probe now, or None if that must wait or all is sent."""
        unsent = [ttl for ttl, count in self._sent.items() if ttl <= self._last_ttl and not count]
        held = self._held(now)
        if unsent:
            return unsent[0] if len(held) < WINDOW else None
        if self._run.end_ttl is None and self._discovering and held:
            return None
        self._discovering = False
        waiting_for_end = any(probe.ttl == self._run.end_ttl for probe in held)
        due = [
            (count, ttl)
            for ttl, count in self._sent.items()
            if self._wanted(ttl, count) and not (waiting_for_end and ttl == self._run.end_ttl)
        ]
        return min(due)[1] if due else None

    def _wanted(self, ttl: int, count: int) -> bool:
        return ttl <= self._last_ttl and count < self._plan.queries

    def _awaited(self) -> list[Probe]:
        return [probe for probe in self._pending.values() if probe.ttl <= self._last_ttl]

    def _held(self, now: int) -> list[Probe]:
        """Return the unanswered probes that are too young to be taken for silent ones."""
        hold = self._hold_ns()
        return [probe for probe in self._awaited() if now - probe.sent_ns < hold]

    def _hold_ns(self) -> int:
        return self._patience_ns(self._slowest[0], BLIND_HOLD_NS)

    def _patience_ns(self, round_trip: int, blind: int) -> int:
        patience = max(PATIENCE_FLOOR_NS, PATIENCE_FACTOR * round_trip) if round_trip else blind
        return min(self._plan.timeout_ns, patience)

    def _wait_ns(self, now: int, *, blocked: bool) -> int:
        """Return how long to listen before something can be done, 0 when the run is complete."""
        if not blocked:
            return self._pace.delay_ns(now)
        if any(self._wanted(ttl, count) for ttl, count in self._sent.items()):
            return min(probe.sent_ns + self._hold_ns() - now for probe in self._held(now))
        deadlines = [
            probe.sent_ns + self._patience_ns(self._slowest[probe.ttl], self._plan.timeout_ns)
            for probe in self._awaited()
        ]
        return max(deadlines, default=now) - now
