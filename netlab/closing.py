"""What holds something of the kernel's, and gives it back when a block ends, whole also on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


def uninterrupted(work: Callable[[], T]) -> T:
    """Do *work* as a whole: a Ctrl-C that comes meanwhile is held until it is done.

    Handing it to another thread would not do: Python's own locks, and the start of a thread, are left in the
    middle by an interrupt that comes while the main thread waits for them.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()  # no other thread is interrupted
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # it is the system's, or another language's: nothing is raised here
        return work()
    pressed: list[int] = []
    try:
        signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
        return work()
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            handler(signal.SIGINT, None)


@contextmanager
def _after(error: BaseException | None) -> Iterator[None]:
    """Keep the *error* of a block the one that is raised; one of what follows becomes its note."""
    try:
        yield
    except Exception as another:
        if error is None:
            raise
        error.add_note(f"Nor did it end in order: {type(another).__name__}: {another}")


class Closes(ABC):
    """A context manager that closes itself; the error of a block comes before one of closing."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; safe to call again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _after(error):
            self.close()


class Runs(ABC):
    """A context manager that starts itself; left in order, it first waits for its end, if that comes."""

    @property
    @abstractmethod
    def _ends(self) -> bool:
        """Whether it ends by itself."""

    @abstractmethod
    def start(self) -> Self:
        """Begin."""

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; tell whether that has come."""

    @abstractmethod
    def stop(self) -> None:
        """End it; safe to call again."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._ends:
                self.wait()
        finally:
            with _after(error):
                self.stop()
