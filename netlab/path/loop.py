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
# A track may give a probe up at its turn. If the last look at what came is older, because this process did not
# run in between, another one comes first. It is far below the shortest patience.
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
    turns = [_Turn(track) for track in tracks]
    queue = deque(turns)
    timers: list[tuple[int, int, _Turn]] = []
    serial = itertools.count()
    active = len(turns)
    looked_ns = now_ns()

    def listen(wait_ns: int) -> None:
        for places, answer in hear(wait_ns):
            for place in places:
                turns[place].track.take(answer)
                _call(turns[place], queue)

    while active and not (stopped and stopped()):
        now = now_ns()
        if now - looked_ns > _FRESH_NS:
            looked_ns = now
            listen(0)
        while timers and timers[0][0] <= now:
            at_ns, _, turn = heapq.heappop(timers)
            if at_ns == turn.at_ns:  # else an answer has called it earlier
                _call(turn, queue)
        pause = pace.delay_ns(now) if queue else timers[0][0] - now
        if queue and not pause:
            turn = queue.popleft()
            turn.queued = False
            wait = turn.track.step(now)
            if wait is None:
                turn.done = True
                active -= 1
            elif wait:
                turn.at_ns = now + wait
                heapq.heappush(timers, (turn.at_ns, next(serial), turn))
            else:
                pace.sent(now)
                _call(turn, queue)
        if not active:
            break
        if not pause:
            looked_ns = now_ns()
        listen(min(pause, _LOOK_NS) if stopped else pause)


def _call(turn: _Turn, queue: deque[_Turn]) -> None:
    if not turn.queued and not turn.done:
        turn.queued = True
        queue.append(turn)
