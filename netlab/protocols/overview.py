"""`netlab.protocol_stats`: what was asked in every protocol, and what became of it, in one table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from netlab.checks import tabular
from netlab.errors import BadInput
from netlab.frames import concat, known_gaps
from netlab.protocols.stats import CLASS, KEYS, Tally
from netlab.schemas import DNS, PROTOCOL_STATS, REQUESTS

_FIX = "Pass what cap.requests() and cap.dns() returned, or call cap.protocol_stats()"
_ENDS = ("direction", "local_address", "local_port", "remote_address", "remote_port")
_CONVERSATIONS = "conversations"  # of lookups that were asked again: what both ends tell counts once
_UNANSWERED = {
    "timeout": "unanswered",
    "closed": "unanswered",
    "unreachable": "unanswered",
    "pending": "pending",
    "missed": "missed",
}


def protocol_stats(*heard: pd.DataFrame) -> pd.DataFrame:
    """Count requests, TLS handshakes and DNS lookups by what was asked and the class of the answer.

    Parameters
    ----------
    *heard
        What `Capture.requests()` returned, which has the handshakes, and what `Capture.dns()` did; also those
        of several captures or hosts.

    Returns
    -------
    DataFrame
        Schema `netlab.schemas.PROTOCOL_STATS`. Latencies last until the first byte of the answer, and of DNS
        from the first query to the answer; quantiles are within 1 % (see `netlab.request_stats`). What
        both ends tell, on this host or on two of these, counts once, as the client saw it.

    Raises
    ------
    BadInput
        If a frame is neither of requests nor of lookups.

    Examples
    --------
    >>> import netlab
    >>> lookups = netlab.schemas.DNS.frame({"name": ["db1"], "type": ["A"], "rcode": ["timeout"]})
    >>> netlab.protocol_stats(lookups)[["protocol", "resource", "status_class"]].values.tolist()
    [['dns', 'db1', 'unanswered']]
    """
    requests = concat([_requests(frame) for frame in heard] or [REQUESTS.empty()])
    stats = Tally.of(requests, (*KEYS, CLASS)).stats()
    found = PROTOCOL_STATS.frame({name: stats[name] for name in PROTOCOL_STATS.names})
    found.attrs["coverage"] = known_gaps(requests)
    return found


def _requests(frame: pd.DataFrame) -> pd.DataFrame:
    """Return *frame* as one of requests."""
    tabular("protocol_stats()", frame, fix=_FIX)
    if frame.attrs.get("schema") == DNS.name:
        return _lookups(frame)
    if not set(REQUESTS.names) <= set(frame.columns):
        raise BadInput(
            "protocol_stats() counts requests and DNS lookups",
            fix=_FIX,
        )
    is_tls = frame["protocol"] == "tls"
    if not is_tls.any():
        return frame
    named = frame.assign(resource=frame["resource"].where(~is_tls, frame["host"]))
    named.attrs = frame.attrs
    return named


def _lookups(dns: pd.DataFrame) -> pd.DataFrame:
    rcode = dns["rcode"].astype("string")
    outcome = rcode.map(_UNANSWERED).astype("string").fillna("answered")
    answered = outcome == "answered"
    requests = REQUESTS.frame(
        {
            "protocol": np.full(len(dns), "dns"),
            "operation": dns["type"].astype("string"),
            "resource": dns["name"],
            "status": rcode.where(answered),
            "error": rcode.where(answered & (rcode != "NOERROR")),
            "outcome": outcome,
            "requested_at": dns["asked_at"],
            "latency_ms": dns["latency_ms"],
            "response_bytes": dns["answer_bytes"],
            **{name: dns[name] for name in _ENDS},
        }
    )
    if _CONVERSATIONS in dns:  # recordings of older versions have none
        requests[_CONVERSATIONS] = dns[_CONVERSATIONS].array
    requests.attrs["coverage"] = known_gaps(dns)
    return requests
