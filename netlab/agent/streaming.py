"""Answers in parts: the table as it is so far, again and again, and in the end the whole one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import pandas as pd
from fastapi import Response
from fastapi.responses import StreamingResponse

from netlab.agent import formats, problems
from netlab.agent.formats import Format
from netlab.errors import NetlabError

Seen: TypeAlias = Callable[[pd.DataFrame], object]
Work: TypeAlias = Callable[[threading.Event, Seen], pd.DataFrame]


async def streamed(work: Work, kind: Format) -> Response:
    """Return the answer with each table that *work* shows, and with the one that it returns.

    What fails before there is a table is raised; later it is the last part. *work* is told to stop when the
    client hangs up.
    """
    parts = _parts(work, kind)
    first = await anext(parts)
    return StreamingResponse(_with(first, parts), media_type=kind.value)


async def _with(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


async def _parts(work: Work, kind: Format) -> AsyncIterator[bytes]:
    loop, stop, shown = asyncio.get_running_loop(), threading.Event(), False
    coming: asyncio.Queue[pd.DataFrame | NetlabError | None] = asyncio.Queue()

    def give(part: pd.DataFrame | NetlabError | None) -> None:
        loop.call_soon_threadsafe(coming.put_nowait, part)

    def run() -> None:
        try:
            give(work(stop, give))
        except NetlabError as error:
            give(error)
        finally:
            give(None)

    done = loop.run_in_executor(None, run)
    try:
        while (part := await coming.get()) is not None:
            if isinstance(part, pd.DataFrame):
                yield formats.encoded(part, kind)
            elif shown:
                yield formats.framed(bytes(problems.told(part).body), kind)
            else:
                raise part
            shown = True
        await done
    finally:
        stop.set()
