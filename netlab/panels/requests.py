"""`netlab.panels.LiveRequests`: what applications ask and are answered, failures first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.panels.listing import LiveTable
from netlab.panels.live import Feed
from netlab.panels.rates import activity
from netlab.panels.sources import feed_of
from netlab.panels.table import Field, Searched, Table, number, said
from netlab.panels.words import ends, owner
from netlab.schemas import REQUESTS
from netlab.tracer.readers import PROTOCOLS
from netlab.views.text import DASH, milliseconds, octets

_SEARCHED: list[Searched] = [
    "protocol", "operation", "resource", "host", "status", "error", "outcome", "process", "pid",
    ("remote_address", "remote_port"), ("local_address", "local_port"), "container", "direction",
]  # fmt: skip
_READ = tuple(name for name in PROTOCOLS if name != "dns")  # whose lookups are no requests
_IDENTITY = ["protocol", "cookie", "requested_at", "stream", "operation", "resource"]


def _answer(rows: pd.DataFrame) -> list[str]:
    """Return the error's name with its code, or the code, or what became of a request without either."""
    parts = (rows[name].astype("string").fillna("") for name in ("status", "error", "outcome"))
    return [
        " ".join(dict.fromkeys(filter(None, (status, error)))) or outcome
        for status, error, outcome in zip(*parts, strict=True)
    ]


def _client(rows: pd.DataFrame) -> list[str]:
    return _end(rows, here="outgoing")


def _server(rows: pd.DataFrame) -> list[str]:
    return _end(rows, here="incoming")


def _end(rows: pd.DataFrame, *, here: str) -> list[str]:
    local, remote = (ends(rows[f"{side}_address"], rows[f"{side}_port"]) for side in ("local", "remote"))
    ours = rows["direction"].eq(here).fillna(value=False)
    return [mine if is_ours else theirs for mine, theirs, is_ours in zip(local, remote, ours, strict=True)]


def _seen_by(rows: pd.DataFrame) -> list[str]:
    names = {"outgoing": "client", "incoming": "server"}
    return rows["direction"].astype("string").map(names).fillna(DASH).tolist()


_FIELDS = [
    Field("answer", "Answer", "the error, or the answer's code", by="status", text=_answer),
    Field("operation", "Operation", "method, command or API", by="operation", text=said("operation", str)),
    Field("resource", "Resource", "path, table, topic or key", by="resource", text=said("resource", str)),
    number("latency_ms", "Latency", "to the answer's first byte", milliseconds),
    number("duration_ms", "Whole", "to the answer's last byte", milliseconds),
    Field("protocol", "Protocol", "what is spoken", by="protocol", text=said("protocol", str)),
    Field("end", "Seen by", "the end that this row was read at", by="direction", text=_seen_by),
    Field("process", "Process", "owner at this end and its process id", by="process", text=owner),
    Field("client", "Client", "who asked", by="local_address", text=_client),
    Field("server", "Server", "who answers", by="remote_address", text=_server),
    number("request_bytes", "Asked", "the request's size", octets),
    number("response_bytes", "Answered", "the answer's size", octets),
]


def _failed(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return (rows["error"].notna() | rows["outcome"].eq("unanswered").fillna(value=False)).to_numpy(bool)


def _failures_first(rows: pd.DataFrame) -> npt.NDArray[np.intp]:
    return np.lexsort((-rows["requested_at"].astype("int64").to_numpy(), ~_failed(rows)))


@runtime_checkable
class RequestFeed(Feed, Protocol):
    """What `LiveRequests` follows: a `Capture` with protocols, or what gives the rows of a recording."""

    def requests(self, protocol: str | None = None) -> pd.DataFrame:
        """Return every request so far, as in `netlab.schemas.REQUESTS`; called from another thread."""


class LiveRequests(LiveTable[RequestFeed, pd.DataFrame]):
    """A table of requests as they are read from packets: failures first, click a row for all of it.

    Parameters
    ----------
    source
        What to follow: a `Capture` made with `protocols=`, or nothing: then the panel makes its own.
    protocols
        What its own capture reads, such as `("http", "redis")`; by default all that netlab reads.
    **options
        What else `netlab.capture()` takes, such as `port=8080`, `process="nginx"` or `duration_s=60`.

    Raises
    ------
    BadInput
        If an option cannot be right, or options come with a source that has its own.
    CapabilityError
        When it starts, if this process may not attach eBPF programs.

    Notes
    -----
    A request between two processes of this host is two rows, one at each end: the server's row has its own
    time, so that what the network took is the difference. Requests that failed, or whose connection ended
    without an answer, come first.

    Examples
    --------
    >>> import netlab.panels
    >>> panel = netlab.panels.LiveRequests(protocols=("http",), port=80)
    >>> panel.state.value
    'not started'
    >>> panel.close()
    """

    def __init__(
        self, source: RequestFeed | None = None, *, protocols: Sequence[str] | None = None, **options: Any
    ) -> None:
        if protocols is not None or source is None:
            options["protocols"] = _READ if protocols is None else protocols
        super().__init__(
            feed_of(source, RequestFeed, options),
            Table(_FIELDS, searched=_SEARCHED, identity=_IDENTITY, order=_failures_first, bad=_failed),
            REQUESTS,
            duration_s=options.get("duration_s"),
        )

    def _read(self, feed: RequestFeed) -> pd.DataFrame:
        return feed.requests()

    def _show(self, seen: pd.DataFrame) -> None:
        asked = seen["requested_at"]
        self._list(activity(self.feed, "requests", asked, asked[_failed(seen)]), seen)
