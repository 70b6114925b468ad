"""The attempts that ended: kept in order, numbered, bounded, every drop counted."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netlab.frames import Cause, Gap, Missing
from netlab.kernel.keys import chosen
from netlab.kernel.sockdiag import State
from netlab.tracer.layout import ATTEMPT
from netlab.tracer.records import Attempts, is_udp, joined, put

Numbers = npt.NDArray[np.int64]

# Attempts in one block. Blocks are of one size and used again, because the C library keeps the holes that
# pieces of many sizes leave between them, and the process would grow for hours.
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Ended:
    """Attempts that ended, in the order of arrival."""

    attempts: Attempts
    numbers: Numbers  # ascending; those of dropped attempts are left out
    following: int  # the number that the next attempt gets


class Closed:
    """Keeps at most *most* attempts; those without payload and error go first, then the oldest.

    Attempts are numbered from 0 in the order of arrival, so that a reader can say what it has seen.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._blocks: list[_Block] = []
        self._spare: list[_Block] = []
        self._kept = 0
        self._lock = threading.Lock()
        self.following = 0  # the number that the next attempt gets
        self.followers: list[Callable[[Attempts], None]] = []  # are given what is added, too

    def append(self, attempts: Attempts) -> None:
        """Add attempts that have just ended."""
        for follower in self.followers.copy():
            follower(attempts)
        with self._lock:
            self._put(attempts, np.arange(self.following, self.following + len(attempts)))
            self.following += len(attempts)
            if self._kept > self.most + self.most // 8:  # not each time: every attempt is looked at
                self._trim()

    def since(self, number: int) -> Ended:
        """Return what is kept of the attempts from *number* on, at the cost of these alone; from 0 on all."""
        with self._lock:
            if not number:
                self._trim()
            before = bisect_right(self._blocks, number, key=lambda block: int(block.numbers[0]))
            blocks = self._blocks[max(before - 1, 0) :]
            numbers = np.concatenate([np.empty(0, np.int64), *(block.numbers for block in blocks)])
            first = int(np.searchsorted(numbers, number))
            attempts = joined(block.attempts for block in blocks)
            return Ended(attempts[first:], numbers[first:], self.following)

    @property
    def dropped(self) -> int:
        """How many were dropped for want of room."""
        return self.following - self._kept

    def _put(self, attempts: Attempts, numbers: Numbers) -> None:
        self._kept += len(attempts)
        while len(attempts):
            if not self._blocks or not self._blocks[-1].room:
                self._blocks.append(self._spare.pop() if self._spare else _Block())
            taken = self._blocks[-1].take(attempts, numbers)
            attempts, numbers = attempts[taken:], numbers[taken:]

    def losses(self) -> list[Missing]:
        """Say how many were dropped."""
        if not self.dropped:
            return []
        detail = f"only {self.most} closed attempts are kept: empty ones went first, then the oldest"
        return [Missing("connections", Gap.LOST, self.dropped, detail, Cause.LET_GO)]

    def _trim(self) -> None:
        excess = self._kept - self.most
        if excess <= 0:
            return
        empty = np.concatenate([_is_empty(block.attempts) for block in self._blocks])
        keep = np.ones(len(empty), bool)
        keep[np.argsort(~empty, kind="stable")[:excess]] = False
        blocks, self._blocks, self._kept = self._blocks, [], 0
        for block in blocks:
            mine, keep = np.split(keep, [len(block.numbers)])
            attempts, numbers = chosen(block.attempts, mine), block.numbers[mine]
            block.clear()
            self._spare.append(block)
            self._put(attempts, numbers)


class _Block:
    """Room for some attempts, filled from the start."""

    def __init__(self) -> None:
        self._attempts, self._numbers = np.empty(_BLOCK, ATTEMPT), np.empty(_BLOCK, np.int64)
        self._used = 0

    def clear(self) -> None:
        self._used = 0

    @property
    def room(self) -> int:
        return _BLOCK - self._used

    @property
    def attempts(self) -> Attempts:
        return self._attempts[: self._used]

    @property
    def numbers(self) -> Numbers:
        return self._numbers[: self._used]

    def take(self, attempts: Attempts, numbers: Numbers) -> int:
        """Add what there is room for of the attempts, and return how many that were."""
        taken = min(self.room, len(attempts))
        end = self._used + taken
        put(attempts[:taken], into=self._attempts[self._used : end])
        self._numbers[self._used : end] = numbers[:taken]
        self._used = end
        return taken


def _is_empty(attempts: Attempts) -> npt.NDArray[np.bool_]:
    payload = (attempts["bytes_sent"] != 0) | (attempts["bytes_received"] != 0)
    failed = (attempts["error"] != 0) | (attempts["unsent"] != 0)
    failed |= ~is_udp(attempts) & (attempts["last_state"] == State.SYN_SENT)  # given up by its own process
    empty: npt.NDArray[np.bool_] = ~payload & ~failed
    return empty
