"""The endpoints for what applications say: in a capture that everybody shares for it, and in clients' own."""

from __future__ import annotations

import pandas as pd
from fastapi import FastAPI, Request, Response

from netlab.agent import serving
from netlab.agent.captures import Captures
from netlab.agent.models import Spoken
from netlab.agent.serving import framed
from netlab.tracer.session import Capture


def add(app: FastAPI, captures: Captures) -> None:
    """Add /dns, /protocols, and the requests of one capture."""
    table = serving.table(app)

    @table("/dns", most=2)
    async def lookups(request: Request) -> Response:
        """Return the DNS lookups since somebody first asked; when nobody asks any more, reading ends."""
        return await framed(request, lambda _: captures.speaking().capture.dns())

    @table("/protocols", most=2)
    async def counted(request: Request) -> Response:
        """Count what was asked in every protocol and what became of it, since somebody first asked."""
        return await framed(request, lambda _: captures.speaking().capture.protocol_stats())

    @table("/protocols/{name}", most=2)
    async def spoken(request: Request, name: Spoken) -> Response:
        """Return the requests of one protocol, or the TLS handshakes, since somebody first asked."""
        return await framed(request, lambda _: _said(captures.speaking().capture, name))

    @table("/captures/{name}/requests", most=4)
    async def requests(request: Request, name: str, protocol: Spoken | None = None) -> Response:
        """Return the requests that a capture has read: of all its protocols, or of one."""
        held = captures.get(name)
        return await framed(request, lambda _: held.capture.requests(protocol))


def _said(capture: Capture, protocol: str) -> pd.DataFrame:
    return capture.tls() if protocol == "tls" else capture.requests(protocol)
