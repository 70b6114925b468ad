"""Connections whose sockets are closed, for those who read what they say: told when all of it was read."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator

import numpy as np

from netlab.kernel.keys import chosen
from netlab.tracer.records import Attempts


class Closings:
    """Holds each closed connection for one whole reading of what was said.

    What is said and what is closed comes by two ways, and neither waits for the other.
    """

    def __init__(self) -> None:
        self._noted: deque[Attempts] = deque()
        self._due: list[Attempts] = []

    def note(self, ended: Attempts) -> None:
        """Take attempts that have just ended, in whichever thread."""
        known = (ended["protocol"] == socket.IPPROTO_TCP) & (ended["cookie"] != 0)
        if known.any():
            self._noted.append(chosen(ended, known))

    def turn(self) -> Iterator[np.void]:
        """Yield those that were noted before the last call; to be called before each reading."""
        due = self._due
        self._due = [self._noted.popleft() for _ in range(len(self._noted))]
        return (one for block in due for one in block)
