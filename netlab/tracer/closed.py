"""The attempts that ended: kept in order, numbered, bounded, every drop counted."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netlab.tracer.records import Attempts, chosen, joined

Numbers = npt.NDArray[np.int64]

# Attempts in one block. Memory is taken and given back in pieces of this size, however much is kept: the C
# library keeps what large copies leave between others, and the process would seem to grow.
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
        self._most = most
        self._blocks: list[tuple[Attempts, Numbers]] = []
        self._kept = 0
        self.following = 0  # the number that the next attempt gets

    def append(self, attempts: Attempts) -> None:
        """Add attempts that have just ended."""
        self._put(attempts, np.arange(self.following, self.following + len(attempts)))
        self.following += len(attempts)
        if self._kept > self._most + self._most // 8:  # not each time: every attempt is looked at
            self._trim()

    def all(self) -> Ended:
        """Return what is kept."""
        self._trim()
        return self.since(0)

    def since(self, number: int) -> Ended:
        """Return what is kept of the attempts from *number* on, at the cost of these alone."""
        block = bisect_right(self._blocks, number, key=lambda one: int(one[1][0])) - 1
        parts = self._blocks[max(block, 0) :]
        numbers = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
        first = int(np.searchsorted(numbers, number))
        return Ended(joined(part[0] for part in parts)[first:], numbers[first:], self.following)

    @property
    def newest(self) -> Attempts:
        """The attempts that were added last, and some before."""
        return self._blocks[-1][0] if self._blocks else joined([])

    @property
    def dropped(self) -> int:
        """How many were dropped for want of room."""
        return self.following - self._kept

    def _put(self, attempts: Attempts, numbers: Numbers) -> None:
        """Add to the last block, or begin another when it is full."""
        if not len(attempts):
            return
        self._kept += len(attempts)
        if self._blocks and len(self._blocks[-1][0]) + len(attempts) <= _BLOCK:
            last = self._blocks.pop()
            attempts, numbers = joined([last[0], attempts]), np.concatenate([last[1], numbers])
        self._blocks.append((attempts, numbers))

    def _trim(self) -> None:
        excess = self._kept - self._most
        if excess <= 0:
            return
        empty = np.concatenate([_is_empty(attempts) for attempts, _ in self._blocks])
        keep = np.ones(len(empty), bool)
        keep[np.argsort(~empty, kind="stable")[:excess]] = False
        blocks, self._blocks, self._kept, start = self._blocks, [], 0, 0
        for attempts, numbers in blocks:
            mine = keep[start : start + len(attempts)]
            start += len(attempts)
            if mine.all():
                self._put(attempts, numbers)
            else:
                self._put(chosen(attempts, mine), numbers[mine])


def _is_empty(attempts: Attempts) -> npt.NDArray[np.bool_]:
    payload = (attempts["bytes_sent"] != 0) | (attempts["bytes_received"] != 0)
    empty: npt.NDArray[np.bool_] = ~payload & (attempts["error"] == 0)
    return empty
