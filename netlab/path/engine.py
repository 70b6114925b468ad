"""When to send which probe, and how long to wait for its answer.

Probes leave in the order of their TTLs, all queries to one TTL together, with a window of them under way:
what is answered, or silent for long enough, makes room for the next. So a path is known after hardly more
than its longest round trip, few packets go past its end, and routers that answer a few probes at once and
then one a second (Linux: six) answer those that count.

A closed TCP port answers each SYN for itself (RFC 9293 section 3.10.7.1). A port that accepts one takes no
second of the same flow until the first one's connection was reset: Linux resets both, others challenge the
second (section 3.10.7.4). So from the first acceptance on SYNs to the end go one after the other, and those
that met another's connection are void and sent again. What is sent within a connection goes one after the
other from the start: one probe to each TTL finds the end first.

A target that answers without saying which probe it means is found by sending one probe at a time, to one TTL
after the other behind the last that is known.

Times are integers in nanoseconds, so that waiting until a moment really reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from netlab.path import loop
from netlab.path.pace import Pace
from netlab.path.patience import END_FLOOR_NS, Patience
from netlab.path.state import CHALLENGE, RST, SYN_ACK, Answer, Probe, Run, timing

WINDOW = 16  # as traceroute(8)
MILLISECOND = 10**6

# How long a silent probe keeps its place in the window at most: so long that few packets go past the end of a
# path with long round trips, and so short that thirty silent hops do not take long.
WINDOW_HOLD_NS = 100 * MILLISECOND
BLIND_HOLD_NS = 50 * MILLISECOND  # while nothing at all has answered
# How many resets by a target that accepts count as meetings, for each query: a firewall may reset for good.
_MEETINGS = 4


class Turns(Enum):
    """How many probes of one flow a target answers at a time."""

    TOGETHER = auto()
    SINGLE = auto()
    UNTIL_ACCEPTED = auto()  # together, and one at a time from the first that it accepts


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to probe: TTLs from first to max, `queries` times each, waiting at most `timeout_ns`."""

    first_ttl: int
    max_ttl: int
    queries: int
    timeout_ns: int
    turns: Turns = Turns.TOGETHER


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
    prober = Prober(plan, channel.send, run, marks)

    def hear(wait_ns: int) -> list[tuple[list[int], Answer]]:
        return [([0], answer) for answer in channel.receive(wait_ns)]

    loop.drive([prober], hear, channel.now_ns, pace)


class Prober:
    """The strategy of one run, as `netlab.path.loop.Track`."""

    def __init__(
        self, plan: Plan, send: Callable[[int, int, int], int], run: Run, marks: Iterator[int]
    ) -> None:
        self._plan = plan
        self._send_probe = send
        self._run = run
        self._marks = marks
        self._pending: dict[int, Probe] = {}
        self._sent = dict.fromkeys(range(plan.first_ttl, plan.max_ttl + 1), 0)
        self._patience = Patience(plan.timeout_ns)
        self._end_rtt = 0
        self._serial = plan.turns is Turns.SINGLE
        self._accepts = False  # whether the target has accepted a SYN
        self._meetings = 0
        self._trial: int | None = None  # the TTL to which alone a probe is under way, to place its answer

    @property
    def _last_ttl(self) -> int:
        return self._run.end_ttl or self._plan.max_ttl

    def step(self, now_ns: int) -> int | None:
        """Send a probe if one is due; return how long to wait, 0 after a probe, None when all is done."""
        ttl = self._next_ttl(now_ns)
        if ttl is not None:
            self._send(ttl, now_ns)
            return 0
        wait = self._wait_ns(now_ns)
        if wait > 0:
            return wait
        self._run.given_up_early = sum(
            now_ns - probe.sent_ns < self._plan.timeout_ns for probe in self._awaited()
        )
        return None

    def take(self, answer: Answer) -> None:
        """Keep an answer and learn from it."""
        if answer.flow == self._run.flow and answer.mark is None:
            if answer.reply == CHALLENGE:
                self._send_again(answer)
                return
            answer = self._placed(answer)
        if self._is_meeting(answer):
            return
        end_before = self._run.end_ttl
        probe = self._run.take(answer)
        if probe is None:
            return
        self._pending.pop(probe.mark, None)
        accepted = self._plan.turns is Turns.UNTIL_ACCEPTED and answer.reply == SYN_ACK and not self._accepts
        if accepted:
            self._accept()
        if accepted or (self._serial and self._run.end_ttl != end_before):
            self._void_later_than(probe)
        round_trip, _ = timing(probe, answer)
        if probe.ttl == self._run.end_ttl:
            self._end_rtt = min(self._end_rtt or round_trip, round_trip)
        self._patience.learn(probe.ttl, round_trip)

    def abandon(self) -> None:
        """Leave the run as it is: what is under way counts for nothing."""
        awaited = self._awaited()
        self._run.void.update(probe.mark for probe in awaited)
        self._run.cut_short = True

    def _send(self, ttl: int, now_ns: int) -> None:
        mark = next(self._marks)
        flow = self._run.flow
        wall_ns = self._send_probe(flow, ttl, mark)
        probe = Probe(flow=flow, mark=mark, ttl=ttl, attempt=self._sent[ttl], sent_ns=now_ns, wall_ns=wall_ns)
        self._sent[ttl] += 1
        self._run.probes[mark] = self._pending[mark] = probe

    def _placed(self, answer: Answer) -> Answer:
        """Return an answer of the target with the mark of the one probe that can have got there lately.

        Many UDP servers answer without repeating any of the probe, and some firewalls reset without saying
        what. With several probes under way there is no telling which one it is for.
        """
        nearest = self._run.end_ttl or self._trial
        if nearest is None:
            self._serial = True
            earliest = min((probe.sent_ns for probe in self._pending.values()), default=answer.received_ns)
            self._patience.learn(0, answer.received_ns - earliest)
            return answer
        hold = self._hold_ns()
        young = [
            probe
            for probe in self._pending.values()
            if probe.ttl >= nearest and answer.received_ns - probe.sent_ns < hold
        ]
        if len(young) != 1:
            return answer
        self._run.placed += 1
        return answer._replace(mark=young[0].mark)

    def _send_again(self, challenge: Answer) -> None:
        """Send a SYN again that overtook the reset of the connection before it.

        This process may hear a SYN-ACK before its own kernel, which resets what that offers, on another core.
        """
        for probe in list(self._pending.values()):
            age = challenge.received_ns - probe.sent_ns
            # Discovery causes challenges too, which come while the next probe is only just under way.
            if probe.ttl == self._run.end_ttl and age > self._end_rtt // 2:
                self._void(probe)

    def _accept(self) -> None:
        """Go on one SYN at a time; those that were reset met the connection of one that was accepted."""
        self._accepts = self._serial = True
        for mark, answer in self._run.answers.items():
            if answer.reply == RST and mark not in self._run.void:
                self._void(self._run.probes[mark])

    def _is_meeting(self, answer: Answer) -> bool:
        """Return whether *answer* resets a SYN that met another's connection, which is void then."""
        if not self._accepts or answer.reply != RST or answer.flow != self._run.flow:
            return False
        probe = self._pending.get(answer.mark or 0)
        if probe is None or self._meetings >= _MEETINGS * self._plan.queries:
            return False
        self._meetings += 1
        self._void(probe)
        return True

    def _void_later_than(self, first: Probe) -> None:
        overlapping = [p for p in self._pending.values() if p.ttl == first.ttl and p.sent_ns >= first.sent_ns]
        for probe in overlapping:
            self._void(probe)

    def _void(self, probe: Probe) -> None:
        self._pending.pop(probe.mark, None)
        self._run.void.add(probe.mark)
        self._sent[probe.ttl] -= 1

    def _next_ttl(self, now_ns: int) -> int | None:
        """Return the TTL to probe now, or None if that must wait or all is sent."""
        if self._searching:
            if self._younger(now_ns, self._hold_ns()):
                return None
            if self._try_next():
                return self._trial
        if len(self._pending) >= WINDOW <= len(self._younger(now_ns, self._window_hold_ns())):
            return None
        return self._due_singly(now_ns) if self._serial else next(self._unsent(), None)

    def _due_singly(self, now_ns: int) -> int | None:
        """Return the TTL to probe next where the end answers one probe at a time: first each of them once."""
        end, held = self._run.end_ttl, self._younger(now_ns, self._hold_ns())
        waiting = any(probe.ttl == end for probe in held)
        due = [(self._sent[ttl], ttl) for ttl in self._unsent() if not (waiting and ttl == end)]
        count, ttl = min(due, default=(0, None))
        return None if count and end is None and held else ttl

    @property
    def _searching(self) -> bool:
        """Whether the target has answered without saying which probe, and may be found yet."""
        exhausted = self._trial is not None and self._trial > self._plan.max_ttl
        return bool(self._run.unplaced) and self._run.end_ttl is None and not exhausted

    def _unsent(self) -> Iterator[int]:
        """Yield the TTLs that get another probe, the nearest first."""
        last, queries = self._last_ttl, self._plan.queries
        return (ttl for ttl, count in self._sent.items() if count < queries and ttl <= last)

    def _try_next(self) -> bool:
        """Go on to the next TTL at which the target may be, in place of what discovery sent there."""
        beyond = 1 + max((self._run.probes[mark].ttl for mark in self._run.answers), default=0)
        self._trial = max(beyond, self._plan.first_ttl) if self._trial is None else self._trial + 1
        if self._trial > self._plan.max_ttl:
            return False
        for probe in [probe for probe in self._pending.values() if probe.ttl == self._trial]:
            self._void(probe)
        return True

    def _awaited(self) -> list[Probe]:
        return [probe for probe in self._pending.values() if probe.ttl <= self._last_ttl]

    def _younger(self, now_ns: int, age_ns: int) -> list[Probe]:
        """Return the unanswered probes that left less than *age_ns* ago."""
        last, since = self._last_ttl, now_ns - age_ns
        return [probe for probe in self._pending.values() if probe.sent_ns > since and probe.ttl <= last]

    def _window_hold_ns(self) -> int:
        return min(self._hold_ns(), WINDOW_HOLD_NS)

    def _hold_ns(self) -> int:
        return self._patience.with_hop_ns(0, BLIND_HOLD_NS)

    def _wait_ns(self, now_ns: int) -> int:
        """Return how long to listen before something can be sent, 0 or less when the run is complete."""
        if self._searching or any(self._unsent()):
            holds = (self._window_hold_ns(), self._hold_ns())
            ends = [probe.sent_ns + hold - now_ns for probe in self._awaited() for hold in holds]
            return min(left for left in ends if left > 0)
        deadlines = [probe.sent_ns + self._patience_with_ns(probe) for probe in self._awaited()]
        return max(deadlines, default=now_ns) - now_ns

    def _patience_with_ns(self, probe: Probe) -> int:
        patience = self._patience.with_hop_ns(probe.ttl, self._plan.timeout_ns)
        floor = END_FLOOR_NS if probe.ttl == self._run.end_ttl else 0
        return max(patience, min(floor, self._plan.timeout_ns))
