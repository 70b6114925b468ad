"""A lock that signal handlers may ask for in the middle of what holds it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal


class Turns:
    """A lock that its thread may take again, and that says so.

    A signal handler runs in the main thread, in the middle of whatever that does. What needs the locks that
    this holds, Python's own included, has to be put off: there and then it would wait for itself.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0  # how often its thread has it
        self._waiting: list[Callable[[], object]] = []

    def postpones(self, work: Callable[[], object]) -> bool:
        """Tell whether the thread that has it had it before; then *work* is done when it has let go of it."""
        if self._depth > 1:
            self._waiting.append(work)
        return self._depth > 1

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take it; tell whether it was to be had."""
        taken = self._lock.acquire(blocking)
        self._depth += taken
        return taken

    def release(self) -> None:
        """Let go of it, and do what was to wait for that."""
        self._depth -= 1
        waiting: list[Callable[[], object]] = []
        if not self._depth:
            waiting, self._waiting = self._waiting, waiting
        self._lock.release()
        for work in waiting:
            work()

    def __enter__(self) -> Literal[True]:
        self.acquire()
        return True

    def __exit__(self, *_: object) -> None:
        self.release()
