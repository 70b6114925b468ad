"""The endpoints for finding out why a row looks odd: none takes anything from any client's account."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI, Request, Response

from netlab.agent import serving
from netlab.agent.captures import Captures
from netlab.agent.models import Name
from netlab.agent.problems import RefusedError
from netlab.agent.serving import ERRORS, framed
from netlab.agent.telemetry import Telemetry
from netlab.agent.work import Limit
from netlab.kernel.conntrack import conntrack
from netlab.tracer.session import Capture

MOST_ROWS = 3000


def add(app: FastAPI, captures: Captures, telemetry: Telemetry) -> None:
    """Add the endpoints under /debug, and /conntrack/cached."""

    def watching() -> Capture:
        return captures.shared().capture

    _add_objects(app, watching, telemetry)
    _add_tables(app, watching)


def _add_objects(app: FastAPI, watching: Callable[[], Capture], telemetry: Telemetry) -> None:
    @app.get("/debug/state", responses=ERRORS)
    def state(client: Name) -> dict[str, int]:
        """Return what is kept for a client."""
        return watching().debug_state(client)

    @app.get("/debug/maps", responses=ERRORS, dependencies=[Depends(Limit(1))])
    def maps() -> dict[str, int]:
        """Return how many entries each of the programs' maps has."""
        return {name: len(frame) for name, frame in watching().debug_maps().items()}

    @app.get("/debug/maps/{name}", responses=ERRORS, dependencies=[Depends(Limit(1))])
    def entries(name: str) -> dict[str, Any]:
        """Return the first entries of a map as they are, byte strings in hexadecimal."""
        found = watching().debug_maps()
        if name not in found:
            known = f"It has {', '.join(found)}"
            raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no map {name[:64]!r}", fix=known)
        rows = found[name].head(MOST_ROWS).astype(object).to_dict("records")
        return {"name": name, "entries": len(found[name]), "rows": rows}

    @app.get("/debug/processes", responses=ERRORS, dependencies=[Depends(Limit(1))])
    def processes() -> list[dict[str, Any]]:
        """Return the processes that the programs met, as they were when they were met."""
        return watching().debug_processes()

    @app.get("/debug/telemetry", responses=ERRORS, dependencies=[Depends(Limit(1))])
    def counters() -> dict[str, list[dict[str, Any]]]:
        """Return what /metrics has, as JSON."""
        return telemetry.samples()


def _add_tables(app: FastAPI, watching: Callable[[], Capture]) -> None:
    table = serving.table(app)

    @table("/debug/ebpf_maps", most=1)
    async def cost(request: Request) -> Response:
        """Return what each program and map costs."""
        return await framed(request, lambda _: watching().cost())

    @table("/debug/conntrack/host", most=1)
    async def host(request: Request) -> Response:
        """Return what connection tracking holds in every network namespace."""
        return await framed(request, lambda _: conntrack(netns="all"))

    @table("/conntrack/cached", most=1)
    @table("/debug/conntrack/cached", most=1)
    async def cached(request: Request) -> Response:
        """Return the translations that connections are joined with, those conntrack let go of, too."""
        return await framed(request, lambda _: watching().debug_nat())
