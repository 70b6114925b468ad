"""What holds something of the kernel's, and gives it back when a block ends, whole also on Ctrl-C."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self


def uninterrupted(work: Callable[[], None]) -> None:
    """Do *work* as a whole, in a thread of its own: Ctrl-C reaches the main thread only, which waits here."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()


class Closes(ABC):
    """A context manager that closes itself."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; safe to call again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
