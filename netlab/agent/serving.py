"""How endpoints answer with frames: in the format that is asked for, so many requests at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

import pandas as pd
from fastapi import Depends, FastAPI, Request, Response

from netlab.agent import formats, places
from netlab.agent.formats import Format
from netlab.agent.peers import Peer
from netlab.agent.problems import Problem, RefusedError
from netlab.agent.work import Limit, done


class InSpace(Protocol):
    """The arguments of a function that looks into network namespaces."""

    netns: Any

    def model_dump(self, *, exclude_unset: bool) -> dict[str, Any]:
        """Return them by name."""


Work = Callable[[threading.Event], pd.DataFrame]
_TABLES: dict[str, dict[str, Any]] = {kind.value: {} for kind in Format}
ERRORS: dict[int | str, dict[str, Any]] = {
    status.value: {"model": Problem, "description": status.phrase}
    for status in (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.NOT_ACCEPTABLE,
        HTTPStatus.CONFLICT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
}


def table(app: FastAPI) -> Callable[..., Callable[[Any], Any]]:
    """Return what adds an endpoint that answers with a frame, so many requests at a time."""

    def add(path: str, *, most: int, queue: int = 0) -> Callable[[Any], Any]:
        return app.get(
            path,
            dependencies=[Depends(_accepted), Depends(Limit(most, queue=queue))],
            response_class=Response,
            responses={HTTPStatus.OK.value: {"content": _TABLES}, **ERRORS},
        )

    return add


async def _accepted(request: Request) -> None:
    """Refuse a format that nobody can answer in before there is work done for it."""
    if formats.chosen(request.headers.get("accept")) is None:
        known = ", ".join(kind.value for kind in Format)
        raise RefusedError(
            HTTPStatus.NOT_ACCEPTABLE,
            "the Accept header names no format that the agent has",
            fix=f"It has {known}",
        )


async def framed(request: Request, work: Work) -> Response:
    """Return the answer with the frame that *work* makes, which ends when the client hangs up."""
    kind = kind_of(request)

    def both(stop: threading.Event) -> tuple[bytes, dict[str, str]]:
        frame = work(stop)
        return formats.encoded(frame, kind), formats.headers(frame)

    body, headers = await done(request, both)
    return Response(body, media_type=kind.value, headers=headers)


def kind_of(request: Request) -> Format:
    """Return the format that this request is answered in."""
    return formats.chosen(request.headers.get("accept")) or Format.JSON


def place(request: Request, netns: Any) -> Any:
    """Return the namespace to look into: that of who asks on this host, if it names no other."""
    return places.meant(_peer(request), netns)


def placed(request: Request, asked: InSpace) -> dict[str, Any]:
    """Return the arguments that were given, and which namespaces they mean."""
    given = asked.model_dump(exclude_unset=True) | {"netns": place(request, asked.netns)}
    if not isinstance(given.get("nat", False), bool):
        given["nat"] = places.named(_peer(request), given["nat"])
    return given


def _peer(request: Request) -> Peer | None:
    peer: Peer | None = getattr(request.state, "peer", None)
    return peer
