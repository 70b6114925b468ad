"""One loop for any number of traces: whoever may send takes its turn, and all wait together.

It is plain and synchronous, so that it works in a notebook whose own event loop is running, and each turn is
a function call: a task per probe would cost more than sending it.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from netlab.path.pace import Pace
from netlab.path.state import Answer

# Waits up to so many ns for the first answer; returns what came, and the places of the tracks it may be for.
Hear: TypeAlias = Callable[[int], Iterable[tuple[Sequence[int], Answer]]]

_LOOK_NS = 50 * 10**6  # how often to ask whether to stop
# So many packets leave before another look at what came: the queries to a TTL, as a rule. Looking costs more
# than sending, and what an answer between them tells would stop none of those.
_BURST = 3
# A track may give a probe up at its turn. If the last look at what came is older than this, because this
# process did not run since, another one comes first. It is far below the shortest patience.
_FRESH_NS = 10**6


class Track(Protocol):
    """What the loop drives: something that sends probes and learns from answers."""

    def step(self, now_ns: int) -> int | None:
        """Send at most one probe; return how long to wait then, 0 after a probe, None when all is done."""

    def take(self, answer: Answer) -> None:
        """Learn from an answer, which may be somebody else's."""


@dataclass(slots=True, eq=False)
class _Turn:
    """When it is a track's turn: now if *queued*, else at *at_ns*."""

    track: Track
    at_ns: int = 0
    queued: bool = True
    done: bool = False


def drive(
    tracks: Sequence[Track],
    hear: Hear,
    now_ns: Callable[[], int],
    pace: Pace,
    *,
    stopped: Callable[[], bool] | None = None,
) -> None:
    """Take turns until all *tracks* are done, or *stopped* says so.

    *pace* bounds what all of them send together.
    """
    turns = _Turns(tracks, hear)
    looked_ns = now_ns()
    unheard = 0
    while turns.active and not (stopped and stopped()):
        now = now_ns()
        if now - looked_ns > _FRESH_NS:
            looked_ns = now
            turns.listen(0)
        turns.wake(now)
        pause = pace.delay_ns(now) if turns.queue else turns.next_ns - now
        if turns.queue and not pause and turns.take(now):
            pace.sent(now)
            unheard += 1
            if unheard < _BURST:
                continue
        if not turns.active:
            break
        unheard = 0
        if not pause:
            looked_ns = now_ns()
        turns.listen(min(pause, _LOOK_NS) if stopped else pause)


class _Turns:
    """Whose turn it is: a queue of those that may send, and a heap of those that wait."""

    def __init__(self, tracks: Sequence[Track], hear: Hear) -> None:
        self._turns = [_Turn(track) for track in tracks]
        self._hear = hear
        self.queue = deque(self._turns)
        self.active = len(self._turns)
        self._timers: list[tuple[int, int, _Turn]] = []
        self._serial = itertools.count()

    @property
    def next_ns(self) -> int:
        """When the next of those that wait has its turn."""
        return self._timers[0][0]

    def listen(self, wait_ns: int) -> None:
        """Give what comes within that time to those it may be for: it is their turn then."""
        for places, answer in self._hear(wait_ns):
            for place in places:
                self._turns[place].track.take(answer)
                self._call(self._turns[place])

    def wake(self, now_ns: int) -> None:
        """Queue those that have waited long enough."""
        while self._timers and self._timers[0][0] <= now_ns:
            at_ns, _, turn = heapq.heappop(self._timers)
            if at_ns == turn.at_ns:  # else an answer has called it earlier
                self._call(turn)

    def take(self, now_ns: int) -> bool:
        """Let the first of the queue take its turn; return whether it has sent something."""
        turn = self.queue.popleft()
        turn.queued = False
        wait = turn.track.step(now_ns)
        if wait is None:
            turn.done = True
            self.active -= 1
        elif wait:
            turn.at_ns = now_ns + wait
            heapq.heappush(self._timers, (turn.at_ns, next(self._serial), turn))
        else:
            self._call(turn)
        return wait == 0

    def _call(self, turn: _Turn) -> None:
        if not turn.queued and not turn.done:
            turn.queued = True
            self.queue.append(turn)
