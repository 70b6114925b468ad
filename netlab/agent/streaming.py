"""Answers in parts: the table as it is so far, again and again, and in the end the whole one."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import pandas as pd
from fastapi import Response
from fastapi.responses import StreamingResponse

from netlab.agent import formats, problems
from netlab.agent.formats import Format
from netlab.errors import NetlabError

Seen: TypeAlias = Callable[[pd.DataFrame], object]
Work: TypeAlias = Callable[[threading.Event, Seen | None], pd.DataFrame]

_BEAT_S = 5.0  # how long a client hears nothing, at most


async def streamed(work: Work, kind: Format) -> Response:
    """Return the answer with each table that *work* shows, and with the one that it returns.

    A part is empty where nothing came for a while. What fails before there is a part is raised; later it is
    the last part. *work* is told to stop when the client hangs up.
    """
    parts = _parts(work, kind)
    first = await anext(parts)
    return StreamingResponse(_with(first, parts), media_type=kind.value)


async def _with(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


async def _parts(work: Work, kind: Format) -> AsyncIterator[bytes]:
    stop, coming, shown = threading.Event(), _Latest(), False

    def run() -> None:
        try:
            coming.give(work(stop, coming.give))
        except NetlabError as error:
            coming.give(error)

    done = asyncio.get_running_loop().run_in_executor(None, run)
    done.add_done_callback(lambda _: coming.end())
    try:
        async for part in coming:
            if part is None:
                yield formats.framed(b"", kind)
            elif isinstance(part, pd.DataFrame):
                yield await asyncio.to_thread(formats.encoded, part, kind)
            elif shown:
                yield formats.framed(bytes(problems.told(part).body), kind)
            else:
                raise part
            shown = True
        await done
    finally:
        stop.set()


class _Latest:
    """What was given last and nobody took yet: who reads slowly gets fewer tables, and fills no memory.

    Iteration ends when no more comes; it gives None when nothing came for a while.
    """

    def __init__(self) -> None:
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        self._waiting: deque[pd.DataFrame | NetlabError] = deque(maxlen=1)
        self._is_over = False

    def give(self, part: pd.DataFrame | NetlabError) -> None:
        """Take the next part, in any thread."""
        self._loop.call_soon_threadsafe(self._take, part)

    def end(self) -> None:
        """No more will come."""
        self._is_over = True
        self._news.set()

    def _take(self, part: pd.DataFrame | NetlabError) -> None:
        self._waiting.append(part)
        self._news.set()

    def __aiter__(self) -> _Latest:
        return self

    async def __anext__(self) -> pd.DataFrame | NetlabError | None:
        if not self._waiting and not self._is_over:
            self._news.clear()
            try:
                async with asyncio.timeout(_BEAT_S):
                    await self._news.wait()
            except TimeoutError:
                return None
        if self._waiting:
            return self._waiting.popleft()
        raise StopAsyncIteration
