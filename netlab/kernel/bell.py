"""A wait that programs of the kernel end early, when what they send cannot wait its turn."""

from __future__ import annotations

import os
import select

from netlab.closing import Closes


class Bell(Closes):
    """Waits for records sent with BPF_RB_FORCE_WAKEUP, and for `ring()`.

    Records that are sent without wake it neither when they come nor later: the events are edges (epoll(7)).
    """

    def __init__(self) -> None:
        self._events = select.epoll()  # which closes itself, if there is no descriptor left for the other
        self._rung = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._events.register(self._rung, select.EPOLLIN)

    def hear(self, descriptor: int) -> None:
        """Ring when the ring buffer of *descriptor* does, which stays the caller's."""
        self._events.register(descriptor, select.EPOLLIN | select.EPOLLET)

    def wait(self, timeout_s: float) -> bool:
        """Return whether it rang within so many seconds; once `ring()` was called it does for ever."""
        return bool(self._events.poll(timeout_s))

    def ring(self) -> None:
        """End the wait of another thread."""
        os.eventfd_write(self._rung, 1)

    def close(self) -> None:
        """Give the descriptors back; nobody may wait any more."""
        if not self._events.closed:
            self._events.close()
            os.close(self._rung)
