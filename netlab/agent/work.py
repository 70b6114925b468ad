"""Work for a request: in a thread, so many at a time, and not longer than somebody waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from netlab.agent.problems import RefusedError

T = TypeVar("T")
_WAIT_S = 1  # what is asked of who comes when too many are served


class Activity:
    """Knows how long ago *app* served its last request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._serving, self._since_s = app, 0, time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self._serving += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._serving, self._since_s = self._serving - 1, time.monotonic()

    def idle_s(self) -> float:
        """Return for how long there has been nothing to serve."""
        return 0.0 if self._serving else time.monotonic() - self._since_s


class Limit:
    """At most so many requests at a time, and so many more in a queue; others are told when to come back.

    A dependency of FastAPI: it holds a place as long as the request is served.
    """

    def __init__(self, most: int, *, queue: int = 0) -> None:
        self._most, self._room = most, most + queue
        self._places, self._asking = asyncio.Semaphore(most), 0

    async def __call__(self) -> AsyncIterator[None]:
        """Take a place for one request, in the order in which they came."""
        if self._asking >= self._room:
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self._most} requests of this kind are served already",
                fix=f"Ask again in {_WAIT_S} s",
                wait_s=_WAIT_S,
            )
        self._asking += 1
        try:
            async with self._places:
                yield
        finally:
            self._asking -= 1


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
