"""The endpoints for connection tracking: its tables, how full they are, and what happens in them."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Query, Request, Response

from netlab.agent import serving
from netlab.agent.listeners import HeldListener, Listeners
from netlab.agent.models import Fills, ListenerState, Listening, Packet, Spaces, Tracked
from netlab.agent.serving import ERRORS, framed, placed
from netlab.agent.work import Limit
from netlab.kernel.conntrack import conntrack
from netlab.kernel.ctfill import conntrack_fill
from netlab.kernel.ctstats import conntrack_stats
from netlab.kernel.nat import nat
from netlab.kernel.translation import Translation, translate

Heard = Literal["entries", "events", "table"]


def add(app: FastAPI, listeners: Listeners) -> None:
    """Add /conntrack and what is below it, /nat and /translate."""
    _add_tables(app)
    _add_listeners(app, listeners)


def _add_tables(app: FastAPI) -> None:
    table = serving.table(app)

    @table("/conntrack", most=2)
    async def tracked(request: Request, wanted: Annotated[Tracked, Query()]) -> Response:
        """Return what the kernel's connection tracking holds now."""
        return await framed(request, lambda _: conntrack(**placed(request, wanted)))

    @table("/nat", most=2)
    async def translated(request: Request, wanted: Annotated[Tracked, Query()]) -> Response:
        """Return the tracked connections that are translated."""
        return await framed(request, lambda _: nat(**placed(request, wanted)))

    @table("/conntrack/stats", most=2)
    async def counted(request: Request, wanted: Annotated[Spaces, Query()]) -> Response:
        """Return what connection tracking dropped and could not enter, and how full its tables are."""
        return await framed(request, lambda _: conntrack_stats(**placed(request, wanted)))

    @app.get("/translate", responses=ERRORS, dependencies=[Depends(Limit(8))])
    def translation(request: Request, asked: Annotated[Packet, Query()]) -> Translation | None:
        """Return what a packet's addresses and ports become, or were; null if no such flow is tracked."""
        return translate(**placed(request, asked))

    @app.get("/conntrack/fill", responses=ERRORS, dependencies=[Depends(Limit(2))])
    def fill(request: Request, wanted: Annotated[Spaces, Query()]) -> Fills:
        """Return how many entries the table of each namespace has, and may have."""
        levels, missing = conntrack_fill(**placed(request, wanted))
        return Fills(levels=[asdict(one) for one in levels], coverage=[asdict(one) for one in missing])


def _add_listeners(app: FastAPI, listeners: Listeners) -> None:
    table = serving.table(app)

    @app.post(
        "/conntrack/events",
        status_code=HTTPStatus.CREATED,
        responses=ERRORS,
        dependencies=[Depends(Limit(2))],
    )
    def listen(request: Request, asked: Listening) -> ListenerState:
        """Begin to listen for entries that are made, change or end; it ends when nobody reads it."""
        return _state(listeners.create(placed(request, asked)))

    @app.get("/conntrack/events", responses=ERRORS)
    def list_listeners() -> list[ListenerState]:
        """Return the listeners, which does not count as reading them."""
        return [_state(held) for held in listeners.all()]

    @app.get("/conntrack/events/{name}", responses=ERRORS)
    def listener_state(name: str) -> ListenerState:
        """Return whether one listens, and in which namespaces."""
        return _state(listeners.get(name))

    @app.post("/conntrack/events/{name}/stop", responses=ERRORS, dependencies=[Depends(Limit(2))])
    def stop(name: str) -> ListenerState:
        """End listening; what was heard can be read until it is deleted."""
        held = listeners.get(name)
        held.end()
        return _state(held)

    @app.delete("/conntrack/events/{name}", status_code=HTTPStatus.NO_CONTENT, responses=ERRORS)
    def delete(name: str) -> None:
        """End listening and forget what was heard."""
        listeners.holding.let_go(listeners.get(name))

    @table("/conntrack/events/{name}/{what}", most=2)
    async def heard(request: Request, name: str, what: Heard) -> Response:
        """Return the entries that were made, every message, or the entries there are by what was heard."""
        held = listeners.get(name)
        return await framed(request, lambda _: getattr(held.events, what)())


def _state(held: HeldListener) -> ListenerState:
    return ListenerState(
        name=held.name,
        state="closed" if held.is_closed else "listening",
        namespaces=sorted(held.events.namespaces),
        options=dict(held.options),
    )
