"""The endpoints: each checks what it is asked, calls one function of netlab, and answers with its frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Literal

import pandas as pd
from fastapi import Depends, FastAPI, Query, Request, Response
from starlette.types import ASGIApp

import netlab
from netlab.agent import formats, problems
from netlab.agent.captures import Captures
from netlab.agent.formats import Format
from netlab.agent.models import (
    Account,
    Answer,
    Asked,
    Family,
    Health,
    Name,
    Netns,
    Port,
    Probing,
    State,
    Tracked,
)
from netlab.agent.problems import Problem, RefusedError
from netlab.agent.telemetry import CONTENT_TYPE, Counted, Telemetry
from netlab.agent.work import Limit, done
from netlab.kernel.conntrack import conntrack
from netlab.kernel.gateway import gateway
from netlab.kernel.nat import nat
from netlab.kernel.routes import routes
from netlab.path.trace import traceroute
from netlab.tracer.sockets import connections

Work = Callable[[threading.Event], pd.DataFrame]
_TABLES: dict[str, dict[str, Any]] = {kind.value: {} for kind in Format}
_ERRORS: dict[int | str, dict[str, Any]] = {
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


def create(captures: Captures) -> ASGIApp:
    """Return the agent's application over these captures."""
    app = FastAPI(title="netlab agent", version=netlab.__version__, docs_url=None, redoc_url=None)
    telemetry, started_s = Telemetry(captures), time.monotonic()
    problems.install(app)

    @app.get("/health")
    async def health() -> Health:
        """Tell that the agent answers."""
        return Health(status="ok", version=netlab.__version__, uptime_s=time.monotonic() - started_s)

    @app.get("/metrics", dependencies=[Depends(Limit(2))], response_class=Response)
    def metrics() -> Response:
        """Return every counter for Prometheus."""
        return Response(telemetry.text(), media_type=CONTENT_TYPE)

    _add_connections(app, captures)
    _add_captures(app, captures)
    _add_tables(app)
    _add_debugging(app, captures)
    _add_what_is_missing(app)
    return Counted(app, telemetry)


def _add_connections(app: FastAPI, captures: Captures) -> None:
    table = _table(app)

    @app.post("/register", responses=_ERRORS, dependencies=[Depends(Limit(8, queue=248))])
    def register(client: Name) -> Account:
        """Begin to keep account for a client of what changes; one that is known stays as it is."""
        return captures.shared().accounts.register(client)

    @table("/connections", most=4, queue=252)  # each takes a moment, and dashboards ask in step
    async def changed(request: Request, client: Name, after: Answer = None) -> Response:
        """Return what changed since this client's last call: closed and open connections.

        With the number of the last answer that arrived (the header Netlab-Answer), one that got lost counts
        as not given.
        """
        told = {}

        def delta(_: threading.Event) -> pd.DataFrame:
            frame, account = captures.shared().accounts.delta(client, after=after)
            told.update(account.headers())
            return frame

        answer = await _framed(request, delta)
        answer.headers.update(told)
        return answer

    @table("/connections/now", most=4)
    async def now(request: Request, netns: Netns = None, port: Port = None) -> Response:
        """Return the sockets that are open now; no client's account changes."""
        return await _framed(request, lambda _: connections(netns=_place(request, netns), port=port))


def _add_captures(app: FastAPI, captures: Captures) -> None:
    table = _table(app)

    @app.post(
        "/captures", status_code=HTTPStatus.CREATED, responses=_ERRORS, dependencies=[Depends(Limit(2))]
    )
    def create_capture(asked: Asked) -> State:
        """Start a capture with filters of its own; it ends when nobody reads it."""
        return _state(captures.create(asked.model_dump(exclude_none=True)))

    @app.get("/captures", responses=_ERRORS)
    def list_captures() -> list[State]:
        """Return the captures that run, which does not count as reading them."""
        return [_state(held) for held in captures.all()]

    @app.get("/captures/{name}", responses=_ERRORS)
    def capture_state(name: str) -> State:
        """Return where a capture is in its life."""
        return _state(captures.get(name))

    @app.post("/captures/{name}/{action}", responses=_ERRORS, dependencies=[Depends(Limit(2))])
    def act(name: str, action: Literal["pause", "resume", "stop"]) -> State:
        """Interrupt a capture, let it go on, or end it; what it saw can be read until it is deleted."""
        held = captures.get(name)
        {"pause": held.capture.pause, "resume": held.capture.resume, "stop": held.capture.stop}[action]()
        return _state(held)

    @app.delete("/captures/{name}", status_code=HTTPStatus.NO_CONTENT, responses=_ERRORS)
    def delete(name: str) -> None:
        """Stop a capture and forget what it saw."""
        captures.end(name)

    @table("/captures/{name}/{what}", most=4)
    async def read(
        request: Request, name: str, what: Literal["connections", "failures", "events", "drops", "cost"]
    ) -> Response:
        """Return one of a capture's tables."""
        held = captures.get(name)
        return await _framed(request, lambda _: getattr(held.capture, what)())


def _add_tables(app: FastAPI) -> None:
    table = _table(app)

    @table("/conntrack", most=2)
    async def tracked(request: Request, wanted: Annotated[Tracked, Query()]) -> Response:
        """Return what the kernel's connection tracking holds now."""
        return await _framed(request, lambda _: conntrack(**_placed(request, wanted)))

    @table("/nat", most=2)
    async def translated(request: Request, wanted: Annotated[Tracked, Query()]) -> Response:
        """Return the tracked connections that are translated."""
        return await _framed(request, lambda _: nat(**_placed(request, wanted)))

    @table("/routes", most=2)
    async def every_route(request: Request, netns: Netns = None, family: Family = None) -> Response:
        """Return every route of every table."""
        return await _framed(request, lambda _: routes(netns=_place(request, netns), family=family))

    @table("/routes/{address}", most=8)
    async def way(request: Request, address: str, netns: Netns = None) -> Response:
        """Return which way packets to an address go, or why not."""
        return await _framed(request, lambda _: gateway(address, netns=_place(request, netns)))

    @table("/traceroute/{host}", most=4)
    async def traced(request: Request, host: str, probing: Annotated[Probing, Query()]) -> Response:
        """Return the routers between the agent's host and another; hanging up ends the probing."""
        options = _placed(request, probing)
        timeout_s = options.pop("timeout_ms") / 1000
        return await _framed(
            request, lambda stop: traceroute(host, timeout_s=timeout_s, stop=stop, **options)
        )


def _add_debugging(app: FastAPI, captures: Captures) -> None:
    table = _table(app)

    @app.get("/debug/state", responses=_ERRORS)
    def state(client: Name) -> dict[str, int]:
        """Return what is kept for a client, and take nothing from its account."""
        return captures.shared().capture.debug_state(client)

    @app.get("/debug/maps", responses=_ERRORS, dependencies=[Depends(Limit(1))])
    def maps() -> dict[str, int]:
        """Return how many entries each of the programs' maps has."""
        return {name: len(frame) for name, frame in captures.shared().capture.debug_maps().items()}

    @table("/debug/ebpf_maps", most=1)
    async def cost(request: Request) -> Response:
        """Return what each program and map costs."""
        return await _framed(request, lambda _: captures.shared().capture.cost())

    @table("/debug/conntrack/host", most=1)
    async def host(request: Request) -> Response:
        """Return what connection tracking holds in every network namespace."""
        return await _framed(request, lambda _: conntrack(netns="all"))


def _add_what_is_missing(app: FastAPI) -> None:
    """Say what this version does not have, rather than that there is no such thing."""

    async def missing() -> Response:
        message = "this version does not look into what applications say"
        return problems.answer(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented", message)

    for path in ("/dns", "/protocols/{name}"):
        app.add_api_route(path, missing, methods=["GET"], responses={501: {"model": Problem}})


def _table(app: FastAPI) -> Callable[..., Callable[[Any], Any]]:
    """Return what adds an endpoint that answers with a frame, so many requests at a time."""

    def add(path: str, *, most: int, queue: int = 0) -> Callable[[Any], Any]:
        return app.get(
            path,
            dependencies=[Depends(_accepted), Depends(Limit(most, queue=queue))],
            response_class=Response,
            responses={HTTPStatus.OK.value: {"content": _TABLES}, **_ERRORS},
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


async def _framed(request: Request, work: Work) -> Response:
    """Return the answer with the frame that *work* makes, which ends when the client hangs up."""
    kind = formats.chosen(request.headers.get("accept")) or Format.JSON

    def both(stop: threading.Event) -> tuple[bytes, dict[str, str]]:
        frame = work(stop)
        return formats.encoded(frame, kind), formats.headers(frame)

    body, headers = await done(request, both)
    return Response(body, media_type=kind.value, headers=headers)


def _place(request: Request, netns: str | int | None) -> str | int:
    """Return the namespace to look into: that of who asks, if it names no other."""
    asking: int = request.state.peer.pid
    return asking if netns is None else netns


def _placed(request: Request, asked: Tracked | Probing) -> dict[str, Any]:
    return {**asked.model_dump(), "netns": _place(request, asked.netns)}


def _state(held: Any) -> State:
    return State(name=held.name, state=held.capture.state.value, options=dict(held.options))
