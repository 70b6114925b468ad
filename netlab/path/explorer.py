"""Many flows to one target at once, as a strategy asks for them: sends, waits, and tells it what was heard.

What is waited for how long is as in `netlab.path.engine`: a hop gets three times the round-trip time of
those that are further away and have answered. A probe past all that answered gets as long as the slowest
answer suggests, so that the search goes on; before the end, all of them get the full timeout.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Protocol

from netlab.path.engine import BLIND_HOLD_NS
from netlab.path.mda import Ask
from netlab.path.patience import FACTOR, Patience
from netlab.path.state import Answer, Probe, Run, timing


class Strategy(Protocol):
    """What to send next, as it follows from what was heard."""

    def next(self) -> list[Ask]:
        """Return what to send now; the caller sends all of it, and says later what was heard."""

    def answered(self, flow: int, ttl: int, address: str, *, ends: bool, late: bool = False) -> None:
        """Take an answer; *late* if the probe had been given up."""

    def unanswered(self, flow: int, ttl: int) -> None:
        """Take it that a probe will not be answered."""


class Explorer:
    """Does what *strategy* says, as `netlab.path.loop.Track`; `runs` has what each flow has met.

    Parameters
    ----------
    send
        Sends a probe of a flow to a TTL with a mark; returns the wall-clock time just before it left.
    marks
        Numbers, which may come round again: no two probes of a flow have the same.
    """

    def __init__(
        self,
        strategy: Strategy,
        send: Callable[[int, int, int], int],
        *,
        number: int,
        timeout_ns: int,
        marks: Iterator[int],
    ) -> None:
        self.runs: dict[int, Run] = {}
        self._strategy = strategy
        self._send_probe = send
        self._number = number
        self._timeout_ns = timeout_ns
        self._marks = marks
        self._asked: deque[Ask] = deque()
        self._attempts: Counter[Ask] = Counter()
        # By TTL, and there in order of sending: the first of each is the first to be given up.
        self._pending: defaultdict[int, dict[tuple[int, int], Probe]] = defaultdict(dict)
        self._given_up: dict[tuple[int, int], Probe] = {}
        self._patience = Patience(timeout_ns)
        self._news = True

    def step(self, now_ns: int) -> int | None:
        """Send a probe if one is due; return how long to wait, 0 after a probe, None when all is done."""
        self._give_up(now_ns)
        if self._news and not self._asked:
            self._asked.extend(self._strategy.next())
            self._news = False
        if self._asked:
            self._send(*self._asked.popleft(), now_ns)
            return 0
        if oldest := [next(iter(probes.values())) for probes in self._pending.values() if probes]:
            return max(1, min(map(self._deadline, oldest)) - now_ns)
        last = max((self._last_deadline(probe) for probe in self._hopeful()), default=now_ns)
        if last > now_ns:
            return last - now_ns
        for probe in self._hopeful():
            run = self.runs[probe.flow]
            run.given_up_early += now_ns - probe.sent_ns < self._timeout_ns
        return None

    def take(self, answer: Answer) -> None:
        """Keep an answer and tell the strategy."""
        run = self.runs.get(answer.flow)
        if run is None:
            return
        probe = run.take(self._placed(answer) if answer.mark is None else answer)
        if probe is None:
            return
        key = probe.flow, probe.mark
        late = self._given_up.pop(key, None) is not None
        self._pending[probe.ttl].pop(key, None)
        round_trip, _ = timing(probe, answer)
        self._patience.learn(probe.ttl, round_trip)
        self._strategy.answered(probe.flow, probe.ttl, answer.address, ends=answer.ends_path, late=late)
        self._news = True

    def abandon(self) -> None:
        """Leave the runs as they are: what is under way counts for nothing."""
        for probe in self._awaited():
            self.runs[probe.flow].void.add(probe.mark)
            self.runs[probe.flow].cut_short = True

    def _send(self, flow: int, ttl: int, now_ns: int) -> None:
        run = self.runs.setdefault(flow, Run(self._number, flow))
        mark = next(mark for mark in self._marks if mark not in run.probes)
        probe = Probe(
            flow=flow,
            mark=mark,
            ttl=ttl,
            attempt=self._attempts[flow, ttl],
            sent_ns=now_ns,
            wall_ns=self._send_probe(flow, ttl, mark),
        )
        self._attempts[flow, ttl] += 1
        run.probes[mark] = self._pending[ttl][flow, mark] = probe

    def _placed(self, answer: Answer) -> Answer:
        """Return a target's answer that names no probe with the mark of the one that it must be for."""
        run = self.runs[answer.flow]
        heard = max(
            (run.probes[mark].ttl for mark in run.answers if run.probes[mark].ttl != run.end_ttl), default=0
        )
        candidates = [p for p in self._awaited() if p.flow == answer.flow and p.ttl > heard]
        return answer._replace(mark=candidates[0].mark) if len(candidates) == 1 else answer

    def _give_up(self, now_ns: int) -> None:
        for probes in self._pending.values():
            while probes and self._deadline(probe := next(iter(probes.values()))) <= now_ns:
                key = probe.flow, probe.mark
                self._given_up[key] = probes.pop(key)
                self._strategy.unanswered(probe.flow, probe.ttl)
                self._news = True

    def _awaited(self) -> Iterator[Probe]:
        return itertools.chain.from_iterable(probes.values() for probes in self._pending.values())

    def _deadline(self, probe: Probe) -> int:
        blind_ns = max(BLIND_HOLD_NS, FACTOR * self._patience.longest_ns)
        return probe.sent_ns + self._patience.with_hop_ns(probe.ttl, blind_ns)

    def _last_deadline(self, probe: Probe) -> int:
        return probe.sent_ns + self._patience.with_hop_ns(probe.ttl, self._timeout_ns)

    def _hopeful(self) -> list[Probe]:
        """Return the probes without an answer that could still tell something."""
        return [
            probe for probe in self._given_up.values() if probe.ttl < (self.runs[probe.flow].end_ttl or 256)
        ]
