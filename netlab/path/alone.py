"""Probes one at a time: where only one can be under way, or answers do not say which one they are for.

An answer without a mark is taken for the probe that is under way alone, after everything before it has had
the whole timeout, unless somebody at another TTL has its address: it may be a second copy then. So a row is
wrong only if an answer came later than the timeout, and from a router that had not answered before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from netlab.path.engine import PATIENCE_FACTOR, PATIENCE_FLOOR_NS, Channel, Plan
from netlab.path.pace import Pace
from netlab.path.state import UDP_REPLY, Answer, Probe, Run, timing


def probe_path(plan: Plan, channel: Channel, run: Run, *, pace: Pace, marks: Iterator[int]) -> None:
    """Do what `netlab.path.engine.probe_path` does with one probe under way at a time.

    The largest TTL comes first: how long the destination takes to answer tells how long a silent hop in front
    of it is worth waiting for. TTLs behind the last one that answered are asked once.
    """
    asking = _Asking(plan, channel, run, pace, marks)
    asking.ask(plan.max_ttl, 0, plan.timeout_ns)
    for ttl in range(plan.first_ttl, plan.max_ttl):
        if ttl < (run.end_ttl or plan.max_ttl):
            asking.ask(ttl, 0, asking.patience_ns(ttl))
    last = run.end_ttl or max((run.probes[mark].ttl for mark in run.answers), default=0)
    for attempt in range(1, plan.queries):
        for ttl in range(plan.first_ttl, last + 1):
            asking.ask(ttl, attempt, asking.patience_ns(ttl))


def ask_again(plan: Plan, channel: Channel, run: Run, *, pace: Pace, marks: Iterator[int]) -> None:
    """Replace unanswered probes of *run*, by TTL, until the answers that came without a mark have a place."""
    asking = _Asking(plan, channel, run, pace, marks)
    asking.listen(max(probe.sent_ns for probe in run.probes.values()) + plan.timeout_ns)
    silent = -1
    for old, answer in run.reported():
        if not run.unplaced or old.ttl > (run.end_ttl or plan.max_ttl):
            break
        if answer is not None or old.ttl == silent:
            continue
        run.void.add(old.mark)
        if asking.ask(old.ttl, old.attempt, plan.timeout_ns):
            run.unplaced -= 1
        else:
            silent = old.ttl  # it would not answer the next one either
    run.unplaced = min(run.unplaced, sum(answer is None for _, answer in run.reported()))


class _Asking:
    def __init__(self, plan: Plan, channel: Channel, run: Run, pace: Pace, marks: Iterator[int]) -> None:
        self._plan = plan
        self._channel = channel
        self._run = run
        self._pace = pace
        self._marks = marks

    def ask(self, ttl: int, attempt: int, patience_ns: int) -> bool:
        """Send one probe and wait for its answer; return whether there is one."""
        now = self._channel.now_ns()
        self.listen(now + self._pace.delay_ns(now))
        probe = self._send(ttl, attempt)
        until = probe.sent_ns + patience_ns
        while probe.mark not in self._run.answers and (wait := until - self._channel.now_ns()) > 0:
            for answer in self._nameless(wait):
                if self._is_new(answer, ttl):
                    self._run.take(replace(answer, mark=probe.mark))
        answered = probe.mark in self._run.answers
        self._run.given_up_early += not answered and patience_ns < self._plan.timeout_ns
        return answered

    def listen(self, until_ns: int) -> None:
        """Take the answers that are there, and those that come until a moment."""
        wait = 0
        while True:
            self._run.unplaced += len(self._nameless(max(0, wait)))
            wait = until_ns - self._channel.now_ns()
            if wait <= 0:
                return

    def patience_ns(self, ttl: int) -> int:
        """Return how long to wait: less than the timeout where a later hop is known to answer sooner."""
        answered = [(self._run.probes[mark], answer) for mark, answer in self._run.answers.items()]
        slowest = max((timing(p, answer)[0] for p, answer in answered if p.ttl >= ttl), default=0)
        patience = max(PATIENCE_FLOOR_NS, PATIENCE_FACTOR * slowest) if slowest else self._plan.timeout_ns
        return min(self._plan.timeout_ns, patience)

    def _nameless(self, wait_ns: int) -> list[Answer]:
        """Keep the answers that say which probe they are for; return errors that do not."""
        found = []
        for answer in self._channel.receive(wait_ns):
            if answer.mark is not None or answer.reply == UDP_REPLY:  # a server may send a reply again
                self._run.take(answer)
            elif answer.flow == self._run.flow:
                found.append(answer)
        return found

    def _send(self, ttl: int, attempt: int) -> Probe:
        flow, mark, now = self._run.flow, next(self._marks), self._channel.now_ns()
        wall = self._channel.send(flow, ttl, mark)
        probe = Probe(flow=flow, mark=mark, ttl=ttl, attempt=attempt, sent_ns=now, wall_ns=wall)
        self._pace.sent(now)
        self._run.probes[mark] = probe
        return probe

    def _is_new(self, answer: Answer, ttl: int) -> bool:
        """Return whether no probe of another TTL was answered from the same address."""
        return all(
            known.address != answer.address or self._run.probes[mark].ttl == ttl
            for mark, known in self._run.answers.items()
        )
