"""The endpoints: each checks what it is asked, calls one function of netlab, and answers with its frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Literal

import pandas as pd
from fastapi import Depends, FastAPI, Query, Request, Response
from starlette.types import ASGIApp

import netlab
from netlab.agent import inspecting, probing, problems, serving, speaking, tracking
from netlab.agent.accounts import Accounts
from netlab.agent.captures import Captures, HeldCapture
from netlab.agent.holding import Holding
from netlab.agent.listeners import Listeners
from netlab.agent.models import (
    Account,
    Answer,
    Asked,
    Family,
    Health,
    Listed,
    Name,
    Netns,
    Sent,
    State,
    Waiting,
)
from netlab.agent.serving import ERRORS, framed, place, placed
from netlab.agent.telemetry import CONTENT_TYPE, Counted, Telemetry
from netlab.agent.work import Limit
from netlab.kernel.gateway import gateway
from netlab.kernel.routes import routes
from netlab.tracer.listeners import listeners
from netlab.tracer.sockets import connections

Table = Literal["connections", "failures", "events", "drops", "cost", "dns", "names", "tls", "protocol_stats"]


def create(holding: Holding) -> ASGIApp:
    """Return the agent's application; *holding* is where what clients begin is held."""
    app = FastAPI(title="netlab agent", version=netlab.__version__, docs_url=None, redoc_url=None)
    captures, listeners = Captures(holding), Listeners(holding)
    telemetry, started_s = Telemetry(captures, listeners), time.monotonic()
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
    speaking.add(app, captures)
    _add_captures(app, captures)
    tracking.add(app, listeners)
    _add_tables(app)
    probing.add(app)
    inspecting.add(app, captures, telemetry)
    return Counted(app, telemetry)


def _add_connections(app: FastAPI, captures: Captures) -> None:
    table = serving.table(app)

    @app.post("/register", responses=ERRORS, dependencies=[Depends(Limit(8, queue=248))])
    def register(client: Name) -> Account:
        """Begin to keep account for a client of what changes; one that is known stays as it is."""
        return captures.shared().accounts.register(client)

    @table("/connections", most=4, queue=252)  # each takes a moment, and dashboards ask in step
    async def changed(request: Request, client: Name, after: Answer = None) -> Response:
        """Return what changed since this client's last call: closed and open connections.

        With the number of the last answer that arrived (the header Netlab-Answer), one that got lost counts
        as not given.
        """
        return await _changed(request, lambda: captures.shared().accounts, client, after)

    @table("/connections/now", most=4)
    async def now(request: Request, wanted: Annotated[Listed, Query()]) -> Response:
        """Return the sockets that are open now; no client's account changes."""
        return await framed(request, lambda _: connections(**placed(request, wanted)))

    @table("/listeners", most=4)
    async def waiting(request: Request, wanted: Annotated[Waiting, Query()]) -> Response:
        """Return the sockets that wait for anybody, with their queues and drops."""
        return await framed(request, lambda _: listeners(**placed(request, wanted)))


def _add_captures(app: FastAPI, captures: Captures) -> None:
    table = serving.table(app)

    @app.post("/captures", status_code=HTTPStatus.CREATED, responses=ERRORS, dependencies=[Depends(Limit(2))])
    def create_capture(request: Request, asked: Asked) -> State:
        """Start a capture with filters of its own; it ends when nobody reads it."""
        return _state(captures.create(placed(request, asked)))

    @app.get("/captures", responses=ERRORS)
    def list_captures() -> list[State]:
        """Return the captures that run, which does not count as reading them."""
        return [_state(held) for held in captures.all()]

    @app.get("/captures/{name}", responses=ERRORS)
    def capture_state(name: str) -> State:
        """Return where a capture is in its life."""
        return _state(captures.get(name))

    @app.post("/captures/{name}/register", responses=ERRORS, dependencies=[Depends(Limit(2))])
    def register_with(name: str, client: Name) -> Account:
        """Begin to keep account for a client of what changes in a capture."""
        return captures.get(name).accounts.register(client)

    @table("/captures/{name}/delta", most=4)
    async def changed_in(request: Request, name: str, client: Name, after: Answer = None) -> Response:
        """Return what changed in a capture since this client's last call, as `/connections` does."""
        accounts = captures.get(name).accounts
        return await _changed(request, lambda: accounts, client, after)

    @app.post("/captures/{name}/{action}", responses=ERRORS, dependencies=[Depends(Limit(2))])
    def act(name: str, action: Literal["pause", "resume", "stop"]) -> State:
        """Interrupt a capture, let it go on, or end it; what it saw can be read until it is deleted."""
        held = captures.own(name)
        {"pause": held.capture.pause, "resume": held.capture.resume, "stop": held.capture.stop}[action]()
        return _state(held)

    @app.delete("/captures/{name}", status_code=HTTPStatus.NO_CONTENT, responses=ERRORS)
    def delete(name: str) -> None:
        """Stop a capture and forget what it saw."""
        captures.holding.let_go(captures.own(name))

    @table("/captures/{name}/{what}", most=4)
    async def read(request: Request, name: str, what: Table) -> Response:
        """Return one of a capture's tables."""
        held = captures.get(name)
        return await framed(request, lambda _: getattr(held.capture, what)())


async def _changed(
    request: Request, accounts: Callable[[], Accounts], client: str, after: int | None
) -> Response:
    """Return what changed since the client's last answer, with the number of this one."""
    told = {}

    def delta(_: threading.Event) -> pd.DataFrame:
        frame, account = accounts().delta(client, after=after)
        told.update(account.headers())
        return frame

    answer = await framed(request, delta)
    answer.headers.update(told)
    return answer


def _add_tables(app: FastAPI) -> None:
    table = serving.table(app)

    @table("/routes", most=2)
    async def every_route(request: Request, netns: Netns = None, family: Family = None) -> Response:
        """Return every route of every table."""
        return await framed(request, lambda _: routes(netns=place(request, netns), family=family))

    @table("/routes/{address}", most=8)
    async def way(request: Request, address: str, sent: Annotated[Sent, Query()]) -> Response:
        """Return which way packets to an address go, or why not."""
        return await framed(request, lambda _: gateway(address, **placed(request, sent)))


def _state(held: HeldCapture) -> State:
    """Return what everybody may know of a capture: its rules may quote what they hide, so only how many."""
    rules = {name: len(held.options[name]) for name in ("mask", "mask_names") if held.options.get(name)}
    options = {**held.options, **{name: f"{count} of its own" for name, count in rules.items()}}
    return State(name=held.name, state=held.capture.state.value, options=options)
