"""`request_stats`: counts, errors, bytes and latency quantiles of requests, in a form that adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from netlab.checks import nearest, tabular
from netlab.errors import BadInput
from netlab.frames import Schema, known_gaps
from netlab.protocols import classes, sketch
from netlab.protocols.bothends import told_once
from netlab.schemas import PROTOCOL_STATS, REQUEST_STATS, REQUESTS

KEYS = ("protocol", "operation", "resource")
CLASS = "status_class"  # is made of other columns where it is asked for

_OF_ANSWER = ("told", "failed", "outcome", "bucket")
_OUTCOMES = ("answered", "unanswered", "missed", "pending")
_SIZES = ("request_bytes", "response_bytes")
_BOUNDS = {"max_ms": "max", "first_at": "min", "last_at": "max"}
_SHARES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
_COUNTED = ("protocol", "status", "error", "outcome", "requested_at", "latency_ms", *_SIZES)
_MEASURED = {"requested_at", "latency_ms", "duration_ms", *_SIZES}
_GROUPABLE = [*(name for name in REQUESTS.with_host().names if name not in _MEASURED), CLASS]


def request_stats(requests: pd.DataFrame, by: str | Sequence[str] = KEYS) -> pd.DataFrame:
    """Count requests and their errors, and say how long answers took.

    A request that both its ends tell, where client and server are on one host, counts once, as the client saw
    it, unless *by* tells the ends apart, as "direction" and "process" do. Behind NAT it counts at each end:
    nothing says that the two are one.

    Parameters
    ----------
    requests
        What `Capture.requests()` returned, or several of those put together by `netlab.concat`.
    by
        The columns of it, or the one, whose values tell the groups; "status_class" is what
        `netlab.protocol_stats` groups by.

    Returns
    -------
    DataFrame
        One row per group, as in `netlab.schemas.REQUEST_STATS`, with the columns of *by* in front, in their
        order. Quantiles are within 1 % of a latency that was measured (DDSketch, VLDB 2019); the maximum is
        exact. `Tally` holds the same in a form that adds up over captures and hosts.

    Raises
    ------
    BadInput
        If *requests* is no such frame, or *by* names no column to group by.

    Examples
    --------
    >>> import netlab
    >>> row = {"protocol": ["http"] * 2, "operation": ["GET"] * 2, "status": ["200", "500"]}
    >>> row["error"] = [None, "Internal Server Error"]
    >>> rows = netlab.schemas.REQUESTS.frame({**row, "latency_ms": [1.0, 3.0], "outcome": ["answered"] * 2})
    >>> stats = netlab.request_stats(rows, by=["operation"])
    >>> stats[["requests", "errors", "statuses", "max_ms"]].values.tolist()
    [[2, 1, '500: 1', 3.0]]
    """
    tabular("request_stats()", requests, fix="Pass what cap.requests() returned")
    stats = Tally.of(requests, [by] if isinstance(by, str) else by).stats()
    stats.attrs["coverage"] = known_gaps(requests)
    return stats


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Requests counted by group, answer and bucket of latency: what adds up without a loss of accuracy."""

    by: tuple[str, ...]
    cells: pd.DataFrame  # one row per group, answer, outcome and bucket

    @classmethod
    def of(cls, requests: pd.DataFrame, by: Sequence[str] = KEYS) -> Tally:
        """Count *requests*, as `request_stats` takes them."""
        if CLASS in by:
            requests = requests.assign(**{CLASS: classes.of(requests)})
        keys = _keys(requests, by)
        requests = told_once(requests, keys)
        latency = requests["latency_ms"]
        known = latency.notna().to_numpy()
        places = np.zeros(len(requests), np.int64)
        places[known] = sketch.buckets(latency[known].to_numpy(np.float64))
        copied = [*keys, "outcome", "request_bytes", "response_bytes"]
        cells = requests[list(dict.fromkeys(copied))].assign(
            told=classes.word(requests),
            failed=requests["error"].notna(),
            bucket=pd.array(np.ma.array(places, mask=~known), dtype="Int64"),
            requests=pd.array(np.ones(len(requests), np.int64), dtype="Int64"),
            max_ms=latency,
            first_at=requests["requested_at"],
            last_at=requests["requested_at"],
        )
        for name in {*keys, "outcome"}:
            if cells[name].dtype == "category":
                cells[name] = cells[name].astype("string")  # categories of two captures differ
        return cls(keys, _added_up(cells, keys))

    def __add__(self, other: Tally) -> Tally:
        """Add what *other* counted by the same keys."""
        if self.by != other.by:
            raise BadInput(
                f"counts by {', '.join(self.by)} and by {', '.join(other.by)} do not add up",
                fix="Make both by the same columns, in one order",
            )
        return Tally(self.by, _added_up(pd.concat([self.cells, other.cells]), self.by))

    def stats(self) -> pd.DataFrame:
        """Return one row per group, as `request_stats` does."""
        cells = self.cells.assign(
            group=self.cells.groupby(list(self.by), dropna=False, sort=True).ngroup().astype("int64")
        )
        groups = cells.groupby("group")
        found = cells.drop_duplicates("group").set_index("group").sort_index()[list(self.by)]
        found["requests"] = groups["requests"].sum()
        for outcome in _OUTCOMES:
            found[outcome] = (
                cells["requests"].where(cells["outcome"] == outcome, 0).groupby(cells["group"]).sum()
            )
        found["errors"] = cells["requests"].where(cells["failed"], 0).groupby(cells["group"]).sum()
        found["statuses"] = _statuses(cells[cells["failed"]])
        for size in _SIZES:
            found[size] = groups[size].sum(min_count=1)
        found = found.join(_quantiles(cells, len(found)))
        found["max_ms"] = groups["max_ms"].max()
        for name in _SHARES:
            found[name] = found[name].clip(upper=found["max_ms"])  # a bucket reaches beyond what is in it
        found["first_at"], found["last_at"] = groups["first_at"].min(), groups["last_at"].max()
        return _schema(self.by).frame({str(name): pd.array(values) for name, values in found.items()})


def _keys(requests: pd.DataFrame, by: Sequence[str]) -> tuple[str, ...]:
    """Return the columns to group by if they are some, and *requests* has what is counted."""
    absent = [str(name) for name in (*_COUNTED, *by) if name not in requests]
    if absent:
        raise BadInput(
            f"request_stats() finds no column {absent[0]!r}",
            fix=nearest(absent[0], requests.columns) or "Pass what requests() returned, with all its columns",
        )
    keys = tuple(dict.fromkeys(by))
    wrong = [name for name in keys if name not in _GROUPABLE]
    if wrong or not keys:
        raise BadInput(
            f"request_stats() cannot group by {wrong[0] if wrong else 'nothing'}",
            fix=f"Give one or more of {', '.join(_GROUPABLE)}",
        )
    return keys


def _added_up(cells: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    """Put the cells of the same keys, answer, outcome and bucket into one."""
    names = list(dict.fromkeys((*keys, *_OF_ANSWER)))
    groups = cells.groupby(names, dropna=False, sort=False)
    added = groups.agg({"requests": "sum", **_BOUNDS})
    for size in _SIZES:
        added[size] = groups[size].sum(min_count=1)  # of nothing known nothing is known
    return added.reset_index()


def _statuses(failed: pd.DataFrame) -> pd.Series[Any]:
    """Return how often each answer was a failure, the most frequent first, by group."""
    counts = failed.groupby(["group", "told"])["requests"].sum().reset_index()
    counts = counts.sort_values(["requests", "told"], ascending=[False, True])
    words = counts["told"] + ": " + counts["requests"].astype("string")
    return words.groupby(counts["group"]).agg(", ".join).astype("string")


def _quantiles(cells: pd.DataFrame, number: int) -> pd.DataFrame:
    measured = cells[cells["bucket"].notna()].groupby(["group", "bucket"])["requests"].sum().reset_index()
    groups, places, counts = (measured[name].to_numpy(np.int64) for name in ("group", "bucket", "requests"))
    found = {name: sketch.quantile(share, groups, places, counts, number) for name, share in _SHARES.items()}
    return pd.DataFrame({name: pd.array(values, dtype="Float64") for name, values in found.items()})


def _schema(by: tuple[str, ...]) -> Schema:
    """Return the columns of statistics by other keys."""
    known = {column.name: column for column in (*PROTOCOL_STATS.columns, *REQUESTS.with_host().columns)}
    keys = [known[name] for name in by]
    measures = [column for column in REQUEST_STATS.columns if column.name not in KEYS]
    return replace(REQUEST_STATS, columns=(*keys, *measures))
