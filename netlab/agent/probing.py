"""The endpoints that send probes: /traceroute, /multipath and /path_mtu; hanging up ends the probing."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from netlab.agent import serving
from netlab.agent.formats import STREAMS
from netlab.agent.models import Probing, Sizing, Spreading, Timed
from netlab.agent.serving import framed, kind_of, placed
from netlab.agent.streaming import Work, streamed
from netlab.path.multipath import multipath
from netlab.path.pathmtu import path_mtu
from netlab.path.trace import traceroute


def add(app: FastAPI) -> None:
    """Add them."""
    table = serving.table(app)

    @table("/traceroute/{host}", most=4)
    async def traced(request: Request, host: str, wanted: Annotated[Probing, Query()]) -> Response:
        """Return the routers between the agent's host and another.

        As application/x-ndjson the table comes line by line as it is so far, the last line is the answer.
        """
        options = _options(request, wanted)
        return await _probed(request, lambda stop, seen: traceroute(host, stop=stop, seen=seen, **options))

    @table("/multipath/{host}", most=2)
    async def spread(request: Request, host: str, wanted: Annotated[Spreading, Query()]) -> Response:
        """Return the probes of many flows to a host, which show all the ways that packets take."""
        options = _options(request, wanted)
        return await _probed(request, lambda stop, _: multipath(host, stop=stop, **options))

    @table("/path_mtu/{host}", most=2)
    async def sized(request: Request, host: str, wanted: Annotated[Sizing, Query()]) -> Response:
        """Return how large packets to a host may be, and which hops limit them."""
        options = _options(request, wanted)
        return await _probed(request, lambda stop, _: path_mtu(host, stop=stop, **options))


def _options(request: Request, wanted: Timed) -> dict[str, Any]:
    options = placed(request, wanted)
    options["timeout_s"] = options.pop("timeout_ms", wanted.timeout_ms) / 1000
    return options


async def _probed(request: Request, work: Work) -> Response:
    """Return what *work* finds: as it comes where a stream is asked for, else at the end."""
    kind = kind_of(request)
    if kind in STREAMS:
        return await streamed(work, kind)
    return await framed(request, lambda stop: work(stop, None))
