"""Which probes of a series of runs count: those that can have met a hop of the path, in order."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from netlab.errors import BadInput
from netlab.wire import icmp

FLOW = ["target", "flow"]
RUN = [*FLOW, "run"]


def in_order(hops: pd.DataFrame, columns: Sequence[str], who: str) -> pd.DataFrame:
    """Return *columns* of *hops*, by the time of sending; refuse what is no frame of hops.

    Where there are several traces of one target, its runs are numbered through them.
    """
    lacking = [name for name in columns if name not in getattr(hops, "columns", ())]
    if lacking:
        raise BadInput(f"{who} needs the column {lacking[0]!r}", fix="Pass what netlab.traceroute returned")
    ordered = hops.sort_values("sent_at", kind="stable", ignore_index=True)
    probes = ordered[list(columns)]
    return probes.assign(run=_numbered_through(ordered)) if "trace" in ordered else probes


def _numbered_through(hops: pd.DataFrame) -> pd.Series:
    if hops["trace"].nunique() < 2:
        return hops["run"]
    several = hops.groupby("target", observed=True)["trace"].transform("nunique") > 1
    begin = hops.groupby(["target", "trace", "run"], observed=True)["sent_at"].transform("min")
    number = begin.groupby(hops["target"], observed=True).rank("dense") - 1
    return hops["run"].where(~several, number.astype("Int64"))


def within_path(probes: pd.DataFrame) -> pd.DataFrame:
    """Return the probes, in order, that are not past the end that their flow's path had then.

    A run in which the answer at the end is lost goes on and is answered at a TTL past it. Those probes are
    only there where another one was lost, and mostly answered: counted, they would make the end look longer
    and its loss smaller. Where a TTL did not answer, it ended the path if it did so when it last answered,
    or when it next will.
    """
    answered = probes["address"].notna()
    ended = (probes["reply"] != icmp.Error.TIME_EXCEEDED.value).astype("float64").where(answered)
    of_ttl = [probes[key] for key in (*FLOW, "ttl")]
    before = ended.groupby(of_ttl, observed=True).ffill()
    ends = before.fillna(ended.groupby(of_ttl, observed=True).bfill()) == 1
    last = probes["ttl"].where(ends).groupby([probes[key] for key in RUN], observed=True).transform("min")
    return probes[(probes["ttl"] <= last).fillna(value=True).to_numpy(bool)].reset_index(drop=True)


def at_the_end(ends: pd.DataFrame, hops: pd.DataFrame) -> pd.DataFrame:
    """Return the probes that went through to the target as ones to the end that their flow's path had then.

    Where no probe to a hop has met the end they are left as they are.
    """
    ended = hops["address"].notna() & (hops["reply"] != icmp.Error.TIME_EXCEEDED.value)
    met = hops.loc[ended, ["sent_at", "flow", "ttl"]].rename(columns={"ttl": "end"})
    nearest = pd.merge_asof(
        ends.reset_index()[["index", "sent_at", "flow"]].sort_values("sent_at", kind="stable"),
        met.sort_values("sent_at", kind="stable"),
        on="sent_at",
        by="flow",
        direction="nearest",
    ).set_index("index")["end"]
    placed = ends.assign(ttl=nearest.reindex(ends.index).fillna(ends["ttl"]).astype("Int64"))
    placed.attrs = ends.attrs
    return placed
