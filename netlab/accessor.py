"""`frame.netlab`: what can be asked of a frame that netlab returned."""

from __future__ import annotations

from typing import Any

import pandas as pd

from netlab import frames, schemas
from netlab.errors import BadInput
from netlab.frames import Schema
from netlab.tracer import reasons

_CONNECTIONS = {schemas.CONNECTIONS.name, schemas.DELTAS.name}


class Accessor:
    """What can be asked of *frame*; pandas makes one when `frame.netlab` is first used.

    Raises
    ------
    AttributeError
        If netlab did not return the frame, or columns were taken out of it.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        schema = schemas.ALL.get(frame.attrs.get("schema", ""))
        if schema is None:
            raise AttributeError(
                "this frame does not say which kind of netlab's frames it is: use one as netlab returned it; "
                "merge() and new DataFrames drop attrs"
            )
        lacking = [name for name in schema.names if name not in frame.columns]
        if lacking:
            raise AttributeError(f"this {schema.name} frame has lost its column {lacking[0]!r}")
        self._frame = frame
        self._schema = schema

    def __repr__(self) -> str:
        return f"<netlab {self._schema.name} frame: {len(self._frame)} rows>"

    @property
    def schema(self) -> Schema:
        """The frame's columns, with their units and meanings."""
        return self._schema

    @property
    def coverage(self) -> pd.DataFrame:
        """What the frame does not contain, and why, as `netlab.coverage` says it."""
        return frames.coverage(self._frame)

    def failures(self) -> pd.DataFrame:
        """Return the attempts that failed.

        Raises
        ------
        BadInput
            If the frame is not one of connections.
        """
        if self._schema.name not in _CONNECTIONS:
            raise self._refused("failures()", "connections")
        return reasons.failed(self._frame)

    def plot(self, **options: Any) -> Any:
        """Return the picture of the frame: a timeline of connections, times of hops, requests or DNS lookups.

        Parameters
        ----------
        **options
            As of `netlab.plot_timeline`, `netlab.plot_hops`, `netlab.plot_requests` or `netlab.plot_dns`.

        Raises
        ------
        BadInput
            If there is no picture of such a frame.
        """
        if self._schema.name == schemas.HOPS.name:
            from netlab.views.hops import plot_hops

            return plot_hops(self._frame, **options)
        if self._schema.name in _CONNECTIONS:
            from netlab.views.timeline import plot_timeline

            return plot_timeline(self._frame, **options)
        if self._schema.name == schemas.DNS.name:
            from netlab.views.dns import plot_dns

            return plot_dns(self._frame, **options)
        if self._schema.name == schemas.REQUESTS.name:
            from netlab.views.requests import plot_requests

            return plot_requests(self._frame, **options)
        raise self._refused("plot()", "connections, hops, requests and DNS lookups")

    def graph(self) -> Any:
        """Return the frame as a graph: of addresses and steps, or of processes and peers.

        Raises
        ------
        BadInput
            If such a frame makes no graph.
        """
        if self._schema.name == schemas.HOPS.name:
            from netlab.path.graph import path_graph

            return path_graph(self._frame)
        if self._schema.name in _CONNECTIONS:
            from netlab.tracer.graph import connection_graph

            return connection_graph(self._frame)
        raise self._refused("graph()", "connections and hops")

    def _refused(self, what: str, kinds: str) -> BadInput:
        return BadInput(f"a {self._schema.name} frame has no {what}", fix=f"That is for frames of {kinds}")
