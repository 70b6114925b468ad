"""Probes one at a time: where only one can be under way, or answers do not say which one they are for.

An answer without a mark is taken for the one probe that is under way if it is the only such answer while that
probe is waited for, and if nobody at another TTL has the address it is from: a second copy, or an answer that
comes after its own probe was given up, then leaves the hop unknown instead of making it a wrong one. What is
taken wrongly must be the only answer, late by more than the wait, and from a router that never answered else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from netlab.path.engine import MILLISECOND, PATIENCE_FACTOR, PATIENCE_FLOOR_NS, Channel, Plan
from netlab.path.pace import Pace
from netlab.path.state import UDP_REPLY, Answer, Probe, Run, timing

# How long to listen for a second answer after one that does not say which probe it is for.
_SETTLE_NS = 5 * MILLISECOND


def probe_path(plan: Plan, channel: Channel, run: Run, *, pace: Pace, marks: Iterator[int]) -> None:
    """Do what `netlab.path.engine.probe_path` does with one probe under way at a time.

    The largest TTL comes first: how long the destination takes to answer is how long a silent hop in front of
    it can be waited for. TTLs behind the last one that answered are asked once.
    """
    asking = _Asking(plan, channel, run, pace, marks)
    asking.ask(plan.max_ttl, 0)
    for ttl in range(plan.first_ttl, plan.max_ttl):
        if ttl < (run.end_ttl or plan.max_ttl):
            asking.ask(ttl, 0)
    last = run.end_ttl or max((run.probes[mark].ttl for mark in run.answers), default=0)
    for attempt in range(1, plan.queries):
        for ttl in range(plan.first_ttl, last + 1):
            asking.ask(ttl, attempt)


def ask_again(plan: Plan, channel: Channel, run: Run, *, pace: Pace, marks: Iterator[int]) -> None:
    """Replace unanswered probes of *run*, by TTL, until all answers that came without a mark have a place."""
    asking = _Asking(plan, channel, run, pace, marks)
    silent = -1
    for old, answer in run.reported():
        if not run.unplaced or old.ttl > (run.end_ttl or plan.max_ttl):
            break
        if answer is not None or old.ttl == silent:
            continue
        run.void.add(old.mark)
        if asking.ask(old.ttl, old.attempt):
            run.unplaced -= 1
        else:
            silent = old.ttl  # nor will it answer the next one
    unknown = sum(answer is None for _, answer in run.reported())
    run.unplaced = min(run.unplaced, unknown)


class _Asking:
    def __init__(self, plan: Plan, channel: Channel, run: Run, pace: Pace, marks: Iterator[int]) -> None:
        self._plan = plan
        self._channel = channel
        self._run = run
        self._pace = pace
        self._marks = marks

    def ask(self, ttl: int, attempt: int) -> bool:
        """Send one probe and wait for its answer; return whether there is one."""
        self._listen(self._channel.now_ns() + self._pace.delay_ns(self._channel.now_ns()))
        probe = self._send(ttl, attempt)
        patience = self._patience_ns(ttl)
        until, nameless = probe.sent_ns + patience, list[Answer]()
        while probe.mark not in self._run.answers and (wait := until - self._channel.now_ns()) > 0:
            found = self._heard(wait)
            if found and not nameless:
                until = min(until, self._channel.now_ns() + _SETTLE_NS)
            nameless += found
        if probe.mark not in self._run.answers and len(nameless) == 1 and self._is_new(nameless[0], ttl):
            self._run.take(replace(nameless[0], mark=probe.mark))
        answered = probe.mark in self._run.answers
        self._run.given_up_early += not answered and patience < self._plan.timeout_ns
        return answered

    def _listen(self, until: int) -> None:
        """Take what is there, and what comes until a moment."""
        self._heard(0)
        while (wait := until - self._channel.now_ns()) > 0:
            self._heard(wait)

    def _heard(self, wait_ns: int) -> list[Answer]:
        """Keep the answers that say which probe they are for, and return errors that do not."""
        nameless = []
        for answer in self._channel.receive(wait_ns):
            if answer.mark is not None or answer.reply == UDP_REPLY:  # a server may send a reply again
                self._run.take(answer)
            elif answer.flow == self._run.flow:
                nameless.append(answer)
        return nameless

    def _send(self, ttl: int, attempt: int) -> Probe:
        mark, now = next(self._marks), self._channel.now_ns()
        flow = self._run.flow
        wall = self._channel.send(flow, ttl, mark)
        probe = Probe(flow=flow, mark=mark, ttl=ttl, attempt=attempt, sent_ns=now, wall_ns=wall)
        self._pace.sent(now)
        self._run.probes[mark] = probe
        return probe

    def _patience_ns(self, ttl: int) -> int:
        """Return how long to wait: less than the timeout where a later hop is known to answer sooner."""
        answered = [(self._run.probes[mark], answer) for mark, answer in self._run.answers.items()]
        slowest = max((timing(p, answer)[0] for p, answer in answered if p.ttl >= ttl), default=0)
        patience = max(PATIENCE_FLOOR_NS, PATIENCE_FACTOR * slowest) if slowest else self._plan.timeout_ns
        return min(self._plan.timeout_ns, patience)

    def _is_new(self, answer: Answer, ttl: int) -> bool:
        """Return whether no probe of another TTL was answered from the same address."""
        return all(
            known.address != answer.address or self._run.probes[mark].ttl == ttl
            for mark, known in self._run.answers.items()
        )
