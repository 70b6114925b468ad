"""What holds something of the kernel's, and gives it back when a block ends, whole also on Ctrl-C."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


def uninterrupted(work: Callable[[], T]) -> T:
    """Do *work* as a whole: Ctrl-C reaches the main thread only, so that one has another do it, and waits."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


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
