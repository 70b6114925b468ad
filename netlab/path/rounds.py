"""Probing a path again and again at a steady pace, whatever comes back.

Each round sends one probe to each hop at once and waits for nothing: a silent hop delays no other, and loss
does not change the pace. A probe is lost when nothing has answered it within the timeout.

The destination gets one probe a round, too, in turn with the TTL of the path's end and with a large one. More
would find its rate limit (Linux: one ICMP error a second for each peer). The first shows the hop as it is on
the path, the second goes through to the destination also when the path has become longer.

While the end is not known, a round goes on a few TTLs past the last answer, and each round a few more: a path
is found in a few round trips, and the destination hardly gets more than its burst allows. Where the end is
silent and what goes through to it is answered, it may have moved behind a hop that is silent, and is sought
again.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from netlab.errors import ProbeError
from netlab.path.engine import Channel
from netlab.path.pace import Pace
from netlab.path.probes import MARKS
from netlab.path.state import Answer, Probe, Run, timing

END_TTL = 64  # what hosts send with (RFC 1700); no longer path is common
_AHEAD = 4
_SILENCES = 8  # of the end, and as many answers to what goes through
_NEVER_NS = 1 << 63


@dataclass(slots=True)
class Round:
    """The probes to the hops and the one to the end, of one flow; `sent_ns` is when the last of them left."""

    hops: Run
    end: Run
    sent_ns: int = 0

    def probe(self, mark: int) -> Probe:
        """Return the probe of the round with that mark."""
        run = self.hops if mark in self.hops.probes else self.end
        return run.probes[mark]


@dataclass(slots=True)
class _Reach:
    """How far a flow's path is known: its end, the last TTL that answered, the last that was tried.

    `silent` and `passed` are probes to the end without an answer, and probes through to it with one, since
    the end last answered. The end is where the target is if it `is_target`, else where a probe was rejected;
    `rejected` are probes to the target, or further, that were rejected since it last answered.
    """

    end: int | None = None
    is_target: bool = False
    rejected: int = 0
    answered: int = 0
    tried: int = 0
    silent: int = 0
    passed: int = 0

    def hear(self, ttl: int, answer: Answer) -> None:
        """Take the answer to a hop's probe.

        Of ways that packets take in turn one may reject them, while others lead to the target.
        """
        if answer.reached:
            self.end = min(ttl, self.end) if self.end and self.is_target else ttl
            self.is_target, self.rejected = True, 0
        elif answer.ends_path:
            self.rejected += ttl >= (self.end or 0)
            if not self.is_target or self.rejected >= _SILENCES:
                self.end, self.is_target = min(ttl, self.end or ttl), False
        elif self.end is not None and ttl >= self.end:
            self.end, self.is_target, self.tried = None, False, ttl  # the path has become longer
        self.answered = self.end or max(self.answered, ttl)

    def hear_through(self, answer: Answer) -> None:
        """Take the answer to a probe through to the target."""
        self.rejected = 0 if answer.reached else self.rejected + answer.ends_path


class Rounds:
    """The rounds to one target: when to send what, and which probe an answer is for.

    Whoever owns it calls `send_due`, listens on the channel for `wait_ns`, and hands the answers to `take`,
    again and again. A round counts when it is settled, as a whole: to count its answers before its losses
    would make the loss look smaller.

    Parameters
    ----------
    channel
        The seam to the network.
    every_ns, timeout_ns
        From one round's beginning to the next; how long a probe may be answered.
    max_ttl
        The last TTL to try.
    flows
        How many flows take turns, a round each.
    leaving
        Is told the number of each round before its probes leave; a ProbeError keeps them here.

    Attributes
    ----------
    settled
        Rounds none of whose probes is waited for any more, in order; the owner empties it.
    late, unplaced, skipped, unsent
        How many answers came after the timeout; how many did not say which probe they are for; how many
        rounds were left out because this process did not run; how many probes the host refused to send.
    refusal
        Why it refused the last one.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        every_ns: int,
        timeout_ns: int,
        max_ttl: int,
        flows: int = 1,
        leaving: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.settled: list[Round] = []
        self.late = self.unplaced = self.skipped = self.unsent = 0
        self.refusal: ProbeError | None = None
        self._channel = channel
        self._leaving = leaving
        self._kept_here: ProbeError | None = None
        self._every_ns, self._timeout_ns, self._max_ttl, self._flows = every_ns, timeout_ns, max_ttl, flows
        # From anywhere on, so that a late answer to another monitor by the same port fits nothing.
        start = random.randrange(MARKS)  # noqa: S311 - no secret
        self._marks = (1 + number % MARKS for number in itertools.count(start))
        self._pace = Pace()
        self._due_ns = channel.now_ns()
        self._number = 0
        self._reaches = [_Reach() for _ in range(flows)]
        self._under_way: deque[Round] = deque()
        self._by_mark: dict[tuple[int, int], Round] = {}

    def send_due(self) -> None:
        """Send what is due, and settle what nothing is waited for any more."""
        now = self._channel.now_ns()
        if now >= self._due_ns:
            self._begin(now)
        elif self._under_way:
            self._go_on(self._under_way[-1])
        self._settle(self._channel.now_ns())

    def wait_ns(self) -> int:
        """Return how long there is nothing to do but listen."""
        now = self._channel.now_ns()
        moments = [self._due_ns - now, self._pace.delay_ns(now) or self._every_ns]
        moments += [each.sent_ns + self._timeout_ns - now for each in itertools.islice(self._under_way, 1)]
        return max(0, min(moments))

    def take(self, answers: Iterable[Answer]) -> None:
        """Take what was heard."""
        for answer in answers:
            self._take(answer)

    def end(self) -> None:
        """Begin no more rounds; those under way settle in time."""
        self._due_ns = _NEVER_NS

    @property
    def under_way(self) -> int:
        """How many probes belong to rounds that are not settled."""
        return sum(len(each.hops.probes) + len(each.end.probes) for each in self._under_way)

    def _begin(self, now: int) -> None:
        missed = (now - self._due_ns) // self._every_ns
        self.skipped += missed
        self._number += missed
        self._due_ns += (missed + 1) * self._every_ns
        flow = self._number % self._flows
        reach = self._reaches[flow]
        if reach.end is None:
            if reach.tried >= self._max_ttl:
                reach.tried = 0  # the end is not up to there: begin again after the last answer
            reach.tried = max(reach.tried, reach.answered) + _AHEAD
        self._kept_here = self._prevented()
        known_end = (reach.end or 0) if reach.is_target else 0
        this = Round(Run(self._number, flow, known_end=known_end), Run(self._number, flow), now)
        self._under_way.append(this)
        if self._is_end_turn(this):
            self._send(this, this.end, max(END_TTL, self._max_ttl))
        self._go_on(this)
        self._number += 1

    def _prevented(self) -> ProbeError | None:
        """Return what keeps the probes of the next round from leaving."""
        try:
            self._leaving(self._number)
        except ProbeError as error:
            return error
        return None

    def _is_end_turn(self, this: Round) -> bool:
        return this.hops.number // self._flows % 2 == 1

    def _go_on(self, this: Round) -> None:
        """Send the probes to hops that are within reach and were not sent yet in this round."""
        reach = self._reaches[this.hops.flow]
        last = reach.end or min(self._max_ttl, max(reach.tried, reach.answered + _AHEAD))
        if reach.end and self._is_end_turn(this):
            last -= 1
        for ttl in range(len(this.hops.probes) + 1, last + 1):
            if self._pace.delay_ns(self._channel.now_ns()):
                return
            self._send(this, this.hops, ttl)

    def _send(self, this: Round, run: Run, ttl: int) -> None:
        mark, now = next(self._marks), self._channel.now_ns()
        this.sent_ns = now
        self._pace.sent(now)
        wall_ns, refusal = 0, self._kept_here
        if refusal is None:
            try:
                wall_ns = self._channel.send(run.flow, ttl, mark)
            except ProbeError as error:
                if not run.number and self.refusal is None and not self._by_mark:
                    raise
                refusal = error
        if refusal is not None:
            self.unsent, self.refusal = self.unsent + 1, refusal
            run.void.add(mark)
        run.probes[mark] = Probe(flow=run.flow, mark=mark, ttl=ttl, attempt=0, sent_ns=now, wall_ns=wall_ns)
        if mark not in run.void:
            self._by_mark[run.flow, mark] = this

    def _take(self, answer: Answer) -> None:
        if answer.mark is None:
            self.unplaced += 1
            return
        this = self._by_mark.get((answer.flow, answer.mark))
        # By the kernel's stamps, where there are any: it may be read long after it came.
        if this is None or timing(this.probe(answer.mark), answer)[0] > self._timeout_ns:
            self.late += 1
            return
        probe = this.hops.take(answer)
        reach = self._reaches[answer.flow]
        if probe is None:
            this.end.take(answer)
            reach.hear_through(answer)
        else:
            reach.hear(probe.ttl, answer)

    def _settle(self, now: int) -> None:
        if self._is_over(now):
            # What came in time may wait to be read, because this process did not run since the last look.
            self.take(self._channel.receive(0))
        while self._is_over(now):
            self._close(self._under_way.popleft())

    def _is_over(self, now: int) -> bool:
        """Return whether nothing is waited for any more in the first round under way."""
        return bool(self._under_way) and self._under_way[0].sent_ns + self._timeout_ns <= now

    def _close(self, this: Round) -> None:
        for run in (this.hops, this.end):
            for mark in run.probes:
                self._by_mark.pop((run.flow, mark), None)
        self._look_again(this, self._reaches[this.hops.flow])
        self.settled.append(this)

    def _look_again(self, this: Round, reach: _Reach) -> None:
        """Forget an end that has been silent for long although the destination answers."""
        to_end = [mark for mark, probe in this.hops.probes.items() if probe.ttl == reach.end]
        if any(mark in this.hops.answers for mark in to_end):
            reach.silent = reach.passed = 0
            return
        reach.silent += len(to_end)
        reach.passed += sum(answer.ends_path for answer in this.end.answers.values())
        if reach.end is not None and min(reach.silent, reach.passed) >= _SILENCES:
            reach.tried, reach.end, reach.is_target = reach.end, None, False
            reach.silent = reach.passed = 0
