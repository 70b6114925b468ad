"""Work for a request: in a thread, so many at a time, and not longer than somebody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request

from netlab.agent.problems import RefusedError

T = TypeVar("T")


class Limit:
    """At most so many requests at a time; one more is refused and told when to come back.

    A dependency of FastAPI: it holds a place as long as the request is served.
    """

    def __init__(self, most: int, *, wait_s: int = 1) -> None:
        self._most, self._wait_s, self._busy = most, wait_s, 0

    async def __call__(self) -> AsyncIterator[None]:
        """Take a place for one request."""
        if self._busy >= self._most:
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self._most} requests of this kind are served already",
                fix=f"Ask again in {self._wait_s} s",
                wait_s=self._wait_s,
            )
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1


async def done(request: Request, work: Callable[[threading.Event], T]) -> T:
    """Return what *work* returns; it is told to stop when the client hangs up."""
    stop = threading.Event()
    watcher = asyncio.create_task(_watch(request, stop))
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        watcher.cancel()


async def _watch(request: Request, stop: threading.Event) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    stop.set()
