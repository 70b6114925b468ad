"""Probes one at a time: where only one can be under way, or answers do not say which one they are for.

An answer without a mark is taken for the probe that is under way alone, after everything before it has had
the whole timeout, unless somebody at another TTL has its address: it may be a second copy then. So a row is
wrong only if an answer came later than the timeout, and from a router that had not answered before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypeAlias

from netlab.path.engine import Plan, Prober
from netlab.path.patience import Patience
from netlab.path.state import UDP_REPLY, Answer, Probe, Run, timing

Send: TypeAlias = Callable[[int, int, int], int]


class _Single(ABC):
    """Sends what `_asks` yields (TTL, attempt, patience), one at a time, as `netlab.path.loop.Track`."""

    def __init__(self, plan: Plan, send: Send, run: Run, marks: Iterator[int]) -> None:
        self._plan = plan
        self._run = run
        self._send = send
        self._marks = marks
        self._order = self._asks()
        self._probe: Probe | None = None
        self._until_ns = 0

    @abstractmethod
    def _asks(self) -> Iterator[tuple[int, int, int]]:
        """Yield what to send next; the one before has then been answered, or has not been in its time."""

    @property
    def _is_answered(self) -> bool:
        return self._probe is not None and self._probe.mark in self._run.answers

    def step(self, now_ns: int) -> int | None:
        """Send a probe if one is due; return how long to wait, 0 after a probe, None when all is done."""
        if now_ns < self._until_ns and not self._is_answered:
            return self._until_ns - now_ns
        if self._probe and not self._is_answered:
            self._run.given_up_early += now_ns - self._probe.sent_ns < self._plan.timeout_ns
        ask = next(self._order, None)
        if ask is None:
            return None
        ttl, attempt, patience_ns = ask
        flow, mark = self._run.flow, next(self._marks)
        wall_ns = self._send(flow, ttl, mark)
        self._probe = Probe(flow=flow, mark=mark, ttl=ttl, attempt=attempt, sent_ns=now_ns, wall_ns=wall_ns)
        self._run.probes[mark] = self._probe
        self._until_ns = now_ns + patience_ns
        return 0

    def take(self, answer: Answer) -> None:
        """Keep an answer."""
        self._run.take(answer)

    def abandon(self) -> None:
        """Leave the run as it is: what is under way counts for nothing."""
        if self._probe and not self._is_answered:
            self._run.void.add(self._probe.mark)
        self._run.cut_short = True


class OneByOne(_Single):
    """The strategy of one run, like `netlab.path.engine.Prober`, with one probe under way.

    The largest TTL comes first: how long the destination takes to answer tells how long a silent hop in front
    of it is worth waiting for. TTLs behind the last one that answered are asked once.
    """

    def __init__(self, plan: Plan, send: Send, run: Run, marks: Iterator[int]) -> None:
        super().__init__(plan, send, run, marks)
        self._patience = Patience(plan.timeout_ns)

    def take(self, answer: Answer) -> None:
        """Keep an answer and learn from it."""
        probe = self._run.take(answer)
        if probe is not None:
            self._patience.learn(probe.ttl, timing(probe, answer)[0])

    def _asks(self) -> Iterator[tuple[int, int, int]]:
        plan, run = self._plan, self._run
        yield plan.max_ttl, 0, plan.timeout_ns
        for ttl in range(plan.first_ttl, plan.max_ttl):
            if ttl < (run.end_ttl or plan.max_ttl):
                yield ttl, 0, self._patience_ns(ttl)
        last = run.end_ttl or max((run.probes[mark].ttl for mark in run.answers), default=0)
        for attempt in range(1, plan.queries):
            for ttl in range(plan.first_ttl, last + 1):
                yield ttl, attempt, self._patience_ns(ttl)

    def _patience_ns(self, ttl: int) -> int:
        """Return how long to wait: less than the timeout where a later hop is known to answer sooner."""
        return self._patience.with_hop_ns(ttl, self._plan.timeout_ns)


class Twice:
    """The strategy of one run: `netlab.path.engine.Prober`, then once more where answers had no mark."""

    def __init__(self, plan: Plan, send: Send, run: Run, marks: Iterator[int]) -> None:
        self._prober = Prober(plan, send, run, marks)
        self._again: _Again | None = None
        self._plan, self._send, self._run, self._marks = plan, send, run, marks

    def step(self, now_ns: int) -> int | None:
        """Send a probe if one is due; return how long to wait, 0 after a probe, None when all is done."""
        if self._again is None:
            wait = self._prober.step(now_ns)
            if wait is not None or not self._run.too_short:
                return wait
            self._again = _Again(self._plan, self._send, self._run, self._marks)
        return self._again.step(now_ns)

    def take(self, answer: Answer) -> None:
        """Keep an answer and learn from it."""
        if self._again is not None:
            self._again.take(answer)
        elif answer.mark is None and answer.reply != UDP_REPLY:
            self._run.too_short += answer.flow == self._run.flow
        else:
            self._prober.take(answer)

    def abandon(self) -> None:
        """Leave the run as it is: what is under way counts for nothing."""
        (self._again or self._prober).abandon()


class _Again(_Single):
    """Replaces unanswered probes, by TTL, until the answers that came without a mark have a place."""

    def __init__(self, plan: Plan, send: Send, run: Run, marks: Iterator[int]) -> None:
        super().__init__(plan, send, run, marks)
        self._until_ns = max(probe.sent_ns for probe in run.probes.values()) + plan.timeout_ns

    def _asks(self) -> Iterator[tuple[int, int, int]]:
        silent, run = -1, self._run
        for old, answer in run.reported():
            if not run.too_short or old.ttl > (run.end_ttl or self._plan.max_ttl):
                break
            if answer is not None or old.mark in run.answers or old.ttl == silent:
                continue
            run.void.add(old.mark)
            yield old.ttl, old.attempt, self._plan.timeout_ns
            if not self._is_answered:
                silent = old.ttl  # it would not answer the next one either
        run.too_short = min(run.too_short, sum(answer is None for _, answer in run.reported()))

    def take(self, answer: Answer) -> None:
        """Keep an answer, and one without a mark if it can be for the probe under way only."""
        if answer.mark is not None or answer.reply == UDP_REPLY:  # a server may send a reply again
            self._run.take(answer)
        elif answer.flow == self._run.flow and self._probe is None:
            self._run.too_short += 1
        elif self._probe and not self._is_answered and self._is_new(answer, self._probe.ttl):
            self._run.take(answer._replace(mark=self._probe.mark))
            self._run.too_short -= 1
            self._run.short_placed += 1

    def _is_new(self, answer: Answer, ttl: int) -> bool:
        """Return whether no probe of another TTL was answered from the same address."""
        return answer.flow == self._run.flow and all(
            known.address != answer.address or self._run.probes[mark].ttl == ttl
            for mark, known in self._run.answers.items()
        )
