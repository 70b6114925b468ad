"""`netlab.dns_stats`: lookups counted by their outcome, and how long they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.frames import Schema, known_gaps
from netlab.protocols.bothends import told_once
from netlab.schemas import DNS, DNS_STATS

_GROUPS = (
    "server_address",
    "name",
    "type",
    "process",
    "container",
    "direction",
    "service",
    "transport",
    "netns",
)
_COUNTED = {
    "NOERROR": "noerror",
    "NXDOMAIN": "nxdomain",
    "SERVFAIL": "servfail",
    "REFUSED": "refused",
    "timeout": "timeouts",
    "closed": "timeouts",
    "unreachable": "timeouts",
    "pending": "pending",
    "missed": "pending",
}
_OUTCOMES = [*dict.fromkeys(_COUNTED.values()), "other"]
_COUNTS = ["lookups", "retries", *_OUTCOMES]
_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
_WAITS = {"wait_p50_ms": 0.5, "wait_p99_ms": 0.99}


def dns_stats(frame: pd.DataFrame, by: Sequence[str] = ("server_address", "name", "type")) -> pd.DataFrame:
    """Count lookups by outcome, and tell the quantiles of their latencies, which are exact for the frame.

    A lookup that both its ends tell, as with a resolver on this host, counts once, as the asker saw it,
    unless *by* tells the ends apart, as "direction" and "process" do. Where an address is translated between
    the two (DNAT), both count.

    Parameters
    ----------
    frame
        What `Capture.dns()` returned.
    by
        What a row stands for: any of server_address, name, type, process, container, direction, service,
        transport, netns.

    Returns
    -------
    DataFrame
        Schema `netlab.schemas.DNS_STATS` with the columns of *by* in front, in their order, and none of the
        others that lookups can be counted by; those asked most come first.

    Raises
    ------
    BadInput
        If *frame* is none of DNS lookups, or a name in *by* is not known.

    Examples
    --------
    >>> import netlab
    >>> int(netlab.dns_stats(netlab.schemas.DNS.empty(), by=["server_address"])["lookups"].sum())
    0
    """
    names = _names(by)
    checks.tabular("dns_stats()", frame, fix="Pass what cap.dns() returned")
    if frame.attrs.get("schema") != DNS.name and not set(DNS.names) <= set(frame.columns):
        raise BadInput("dns_stats() counts DNS lookups", fix="Pass what cap.dns() returned")
    gaps = known_gaps(frame)
    frame = told_once(frame, names)
    schema = _schema(names)
    if frame.empty:
        stats = schema.empty()
        stats.attrs["coverage"] = gaps
        return stats
    outcomes = frame["rcode"].astype(object).map(_COUNTED).fillna("other")
    rows = (
        frame[names]
        .astype(object)
        .assign(
            lookups=1,
            retries=frame["retries"].astype("int64"),
            answer=frame["answer_ms"].astype("float64"),
            wait=frame["latency_ms"].astype("float64"),
            **{outcome: (outcomes == outcome).astype("int64") for outcome in _OUTCOMES},
        )
    )
    groups = rows.groupby(names, sort=True, dropna=False)
    found = groups[_COUNTS].sum()
    for column, share in _QUANTILES.items():
        found[column] = groups["answer"].quantile(share)
    for column, share in _WAITS.items():
        found[column] = groups["wait"].quantile(share)
    found["max_ms"], found["wait_max_ms"] = groups["answer"].max(), groups["wait"].max()
    if "server_address" in names:
        found = _with_passed_over(found, frame, names)
    found = found.reset_index()
    asked = found["lookups"] + found.get("passed_over", 0)
    found = found.loc[asked.sort_values(ascending=False, kind="stable").index]
    columns = [name for name in schema.names if name in found]
    stats = schema.frame(
        {name: pd.array(found[name].astype(object) if name in names else found[name]) for name in columns}
    )
    stats.attrs["coverage"] = gaps
    return stats


def _schema(names: list[str]) -> Schema:
    """Return the columns of counts by *names*."""
    known = {column.name: column for column in DNS_STATS.columns}
    return replace(
        DNS_STATS,
        columns=(
            *(known[name] for name in names),
            *(column for column in DNS_STATS.columns if column.name not in _GROUPS),
        ),
    )


def _names(by: Sequence[str]) -> list[str]:
    names = [by] if isinstance(by, str) else list(dict.fromkeys(by))
    if not names:
        raise BadInput("dns_stats() needs something to count by", fix=f"Known: {', '.join(_GROUPS)}")
    return [checks.choice("by", name, _GROUPS) for name in names]


def _with_passed_over(found: pd.DataFrame, frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Add how many lookups each server left to another, servers that never answered included."""
    silent = frame[[*names, "silent_servers"]].astype(object).dropna(subset=["silent_servers"])
    servers = silent["silent_servers"].str.split(" ").map(set)
    passed = silent.assign(answering=silent["server_address"], server_address=servers)
    passed = passed.explode("server_address")
    others = passed[passed["server_address"] != passed["answering"]]
    times = others.groupby(names, sort=True, dropna=False).size().rename("passed_over")
    joined = found.join(times, how="outer")
    counted = [*_COUNTS, "passed_over"]
    return joined.assign(**{name: joined[name].fillna(0).astype(np.int64) for name in counted})
