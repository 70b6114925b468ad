"""The attempts that ended: kept in order, numbered, bounded, every drop counted."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netlab.frames import Gap, Missing
from netlab.tracer.records import Attempts, chosen, joined

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ended:
    """What is kept at one moment, in the order of arrival."""

    attempts: Attempts
    numbers: Numbers  # ascending; those of dropped attempts are left out
    following: int  # the number that the next attempt gets


class Closed:
    """Keeps at most *most* attempts; those without payload and error go first, then the oldest.

    Attempts are numbered from 0 in the order of arrival, so that a reader can say what it has seen.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._blocks: list[Attempts] = []
        self._numbers: list[Numbers] = []
        self._kept = 0
        self._lock = threading.Lock()
        self.following = 0  # the number that the next attempt gets

    def append(self, block: Attempts) -> None:
        """Add attempts that have just ended."""
        if not len(block):
            return
        with self._lock:
            self._blocks.append(block)
            self._numbers.append(np.arange(self.following, self.following + len(block)))
            self.following += len(block)
            self._kept += len(block)
            if self._kept > self._most + self._most // 8:  # not each time: what stays is copied
                self._trim()

    def all(self) -> Ended:
        """Return what is kept."""
        with self._lock:
            self._trim()
            return Ended(self._blocks[0], self._numbers[0], self.following)

    @property
    def dropped(self) -> int:
        """How many were dropped for want of room."""
        return self.following - min(self._kept, self._most)

    def losses(self) -> list[Missing]:
        """Say how many were dropped."""
        if not self.dropped:
            return []
        detail = f"only {self._most} closed attempts are kept: empty ones went first, then the oldest"
        return [Missing("connections", Gap.LOST, self.dropped, detail)]

    def _trim(self) -> None:
        attempts = joined(self._blocks)
        numbers = np.concatenate([np.empty(0, np.int64), *self._numbers])
        excess = len(attempts) - self._most
        if excess > 0:
            keep = np.sort(np.argsort(~_is_empty(attempts), kind="stable")[excess:])
            attempts, numbers = chosen(attempts, keep), numbers[keep]
        self._blocks, self._numbers, self._kept = [attempts], [numbers], len(attempts)


def _is_empty(attempts: Attempts) -> npt.NDArray[np.bool_]:
    payload = (attempts["bytes_sent"] != 0) | (attempts["bytes_received"] != 0)
    empty: npt.NDArray[np.bool_] = ~payload & (attempts["error"] == 0)
    return empty
