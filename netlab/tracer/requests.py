"""What was asked and answered, as the `requests` frame, with the owners of the connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from netlab.frames import Gap, Missing
from netlab.schemas import REQUESTS
from netlab.tracer import rows
from netlab.tracer.exchanges import Request
from netlab.tracer.layout import ATTEMPT, CONVERSATION
from netlab.tracer.records import Attempts, is_udp

_TEXTS = ("operation", "resource", "host", "status", "error", "version")
_NUMBERS = ("request_bytes", "response_bytes", "stream", "partition", "records")
_OWNER = ("pid", "process", "container")
_HTTPS = 443
_QUIC = "flows of UDP on port 443 are not read: what is said there is HTTP/3, if it is what the port is for"


def frame(
    requests: list[Request], connections: pd.DataFrame, *, to_utc_ns: int, missing: Iterable[Missing]
) -> pd.DataFrame:
    """Build the frame, first request first.

    Parameters
    ----------
    requests
        What was heard.
    connections
        The frame of the connections they were heard on.
    to_utc_ns
        What to add to a time of the kernel to get UTC.
    missing
        What the frame lacks.
    """
    if not requests:
        return REQUESTS.empty(missing)
    requests = sorted(requests, key=lambda request: request.exchange.requested_ns)
    exchanges = [request.exchange for request in requests]
    asked = times([one.requested_ns for one in exchanges])
    answered, ended = (
        times([getattr(one, name) for one in exchanges]) for name in ("answered_ns", "ended_ns")
    )
    data: dict[str, Any] = {
        "protocol": [one.protocol for one in exchanges],
        "outcome": [one.outcome.value for one in exchanges],
        "requested_at": asked + to_utc_ns,
        "latency_ms": (answered - asked) / 1e6,
        "duration_ms": (ended - asked) / 1e6,
        **{name: [getattr(one, name) for one in exchanges] for name in (*_TEXTS, *_NUMBERS)},
        "seen": [request.seen for request in requests],
        **ends(requests),
    }
    data |= owners(data["cookie"], connections)
    return REQUESTS.frame(data, missing)


def over_quic(attempts: Attempts) -> list[Missing]:
    """Say how many flows may be HTTP/3, which is over QUIC: nobody on the way can read that (RFC 9000)."""
    is_https = (attempts["remote_port"] == _HTTPS) | (attempts["local_port"] == _HTTPS)
    count = int(np.count_nonzero(is_https & is_udp(attempts)))
    return [Missing("requests", Gap.UNAVAILABLE, count, _QUIC)] if count else []


def times(values: list[int | None]) -> Any:
    """Return *values* as a column in which some are missing."""
    return np.ma.array(
        [value or 0 for value in values], mask=[value is None for value in values], dtype=np.int64
    )


def ends(requests: list[Request]) -> dict[str, Any]:
    """Return the columns of the connections' ends."""
    theirs = np.frombuffer(b"".join([request.ends for request in requests]), CONVERSATION)
    attempts = np.zeros(len(theirs), ATTEMPT)
    for name in (
        "local_address",
        "remote_address",
        "local_port",
        "remote_port",
        "netns",
        "family",
        "protocol",
    ):
        attempts[name] = theirs[name]
    attempts["cookie"] = [request.cookie for request in requests]
    attempts["direction"] = [request.direction for request in requests]
    identity = rows.identity(attempts)
    return {name: identity[name] for name in identity if name in REQUESTS.names and name != "protocol"}


def owners(cookies: Any, connections: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of the processes that have the connections with these cookies."""
    known = connections.dropna(subset="cookie").drop_duplicates("cookie", keep="last").set_index("cookie")
    places = known.index.get_indexer(pd.Index(np.asarray(cookies), dtype="Int64"))
    return {name: known[name].array.take(places, allow_fill=True) for name in _OWNER}
