"""What every request passes first: is the peer served at all, and is the body of a size to read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from netlab.agent import problems
from netlab.agent.problems import RefusedError

MOST_BODY_BYTES = 1 << 20
BODY_WITHIN_S = 10.0


class Gate:
    """Refuses who may not ask, bodies that are too large, and those that never end.

    Parameters
    ----------
    app
        What serves the others.
    admit
        Returns why a request is refused, None if it is served.
    """

    def __init__(self, app: ASGIApp, admit: Callable[[Scope], RefusedError | None]) -> None:
        self._app, self._admit = app, admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._admit(scope)
        if refusal is not None:
            await problems.told(refusal)(scope, receive, send)
            return
        body = await _body(receive)
        if isinstance(body, HTTPStatus):
            limit = f"a body has at most {MOST_BODY_BYTES} bytes and is sent within {BODY_WITHIN_S:g} s"
            await problems.answer(body, body.phrase, limit)(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)


async def _body(receive: Receive) -> bytes | HTTPStatus:
    """Return the whole body, or why it is refused."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return b""
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MOST_BODY_BYTES:
                    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        return HTTPStatus.REQUEST_TIMEOUT


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return what gives *body* first, and then whatever *receive* does."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
