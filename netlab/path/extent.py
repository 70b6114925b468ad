"""Which probes of a series of runs count: those that can have met a hop of the path, in order."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.wire import icmp

FLOW = ["target", "flow"]
RUN = [*FLOW, "run"]
SOURCE = ["host", "netns"]

# What tells one flow from another, of those that have one number in several frames.
_WIRE = [*SOURCE, "source_address", "target_address", "protocol", "source_port", "port"]
# So many runs, and at least half of those that met it elsewhere, must have met the end at one TTL further on,
# none where it was, for it to have moved there.
MOVED_RUNS = 8


def in_order(hops: pd.DataFrame, columns: Sequence[str], who: str) -> pd.DataFrame:
    """Return *columns* of the probes in *hops*, by the time of sending; refuse what is no frame of hops.

    Runs of one trace stay in their order where the clock was set back between them.
    Where there are several traces of one target, its runs are numbered through them, and so are its flows
    where one number stands for several: other ports, another protocol, another source.
    """
    checks.columns(who, hops, columns, fix="Pass what netlab.traceroute returned")
    probes = hops.dropna(subset=["ttl"])  # a target that could not be probed is a row without
    ordered = _by_time(probes)
    found = ordered[list(columns)].assign(flow=_flows_numbered_through(ordered))
    return found.assign(run=_numbered_through(ordered)) if "trace" in ordered else found


def _by_time(probes: pd.DataFrame) -> pd.DataFrame:
    if not {"trace", "target", "run"} <= set(probes.columns):
        return probes.sort_values("sent_at", kind="stable", ignore_index=True)
    runs = probes.groupby(["target", "trace", "run"], observed=True, dropna=False)["sent_at"]
    begin = runs.min()
    if not (begin.groupby(level=[0, 1], observed=True, dropna=False).cummax() > begin).any():
        return probes.sort_values("sent_at", kind="stable", ignore_index=True)
    # No run begins before an earlier one of its trace: those after the step wait for the clock.
    in_turn = probes.assign(begin=runs.transform("min")).sort_values(["run", "sent_at"], kind="stable")
    traces = in_turn.groupby(["target", "trace"], observed=True, dropna=False)["begin"]
    ordered = in_turn.assign(begin=traces.cummax()).sort_values(["begin", "run", "sent_at"])
    return ordered.drop(columns="begin").reset_index(drop=True)


def of_one_source(hops: pd.DataFrame, who: str) -> None:
    """Refuse hops that several hosts or namespaces saw: at one TTL they are others."""
    sources = hops.reindex(columns=["ttl", *SOURCE]).dropna(subset=["ttl"])[SOURCE].drop_duplicates()
    if len(sources) > 1:
        fix = "Take each by itself: for _, one in hops.groupby(['host', 'netns'])"
        raise BadInput(f"{who} takes hops of one source, and these are of {len(sources)}", fix=fix)


def _numbered_through(hops: pd.DataFrame) -> pd.Series:
    if hops["trace"].nunique() < 2:
        return hops["run"]
    several = hops.groupby("target", observed=True)["trace"].transform("nunique") > 1
    keys = ["target", "trace", "run"]
    met = hops.groupby(keys, observed=True, dropna=False, sort=False).ngroup()  # in order of time
    number = met.groupby(hops["target"], observed=True).rank("dense") - 1
    return hops["run"].where(~several, number.astype("Int64"))


def wires(hops: pd.DataFrame) -> pd.DataFrame:
    """Return for each of the hops what tells its flow from all others, of other calls, too."""
    found = hops.reindex(columns=[*FLOW, *_WIRE, "trace"])
    # Calls with echo requests are of other flows, which no other column tells.
    return found.assign(trace=found["trace"].where(found["source_port"].isna()))


def _flows_numbered_through(hops: pd.DataFrame) -> pd.Series:
    wire = wires(hops).groupby([*FLOW, *_WIRE, "trace"], dropna=False, sort=False, observed=True).ngroup()
    ambiguous = wire.groupby([hops[key] for key in FLOW], observed=True).transform("nunique") > 1
    if not ambiguous.any():
        return hops["flow"]
    several = ambiguous.groupby(hops["target"], observed=True).transform("any")
    number = wire.groupby(hops["target"], observed=True).rank("dense") - 1
    return hops["flow"].where(~several, number.astype("Int64"))


def within_path(probes: pd.DataFrame) -> pd.DataFrame:
    """Return the probes, in order, that are not past the end that their flow's path had then.

    A run in which the answer at the end is lost goes on and is answered at a TTL past it. Those probes are
    only there where another one was lost, and mostly answered: counted, they would make the end look longer
    and its loss smaller. Where a TTL did not answer, it ended the path if it did so when it last answered,
    or when it next will; but not if the end has moved further away since, behind a hop that is silent.
    """
    return probes[is_within_path(probes).to_numpy()].reset_index(drop=True)


def is_within_path(probes: pd.DataFrame) -> pd.Series[bool]:
    """Return for each of the probes, in order, whether it is not past the end: see `within_path`."""
    ended = ends_path(probes).astype("float64").where(probes["address"].notna())
    of_ttl = [probes[key] for key in (*FLOW, "ttl")]
    before = ended.groupby(of_ttl, observed=True).ffill()
    ends = before.fillna(ended.groupby(of_ttl, observed=True).bfill()) == 1
    of_run = [probes[key] for key in RUN]
    ttl = probes["ttl"].astype("float64")
    met = ttl.where(ended == 1).groupby(of_run, observed=True).transform("min")
    while True:
        last = ttl.where(ends).groupby(of_run, observed=True).transform("min")
        passed = ends & (ttl < _moved_to(probes[RUN].assign(last=last, met=met)))
        if not passed.any():
            return ~(ttl > last)
        ends &= ~passed


def _moved_to(probes: pd.DataFrame) -> pd.Series[float]:
    """Return where the end has been since it moved past the `last` of each run, NaN where it has not.

    `met` is where the run itself met the end.
    """
    runs = probes.drop_duplicates(RUN)
    further = runs["met"] > runs["last"]
    flow = runs.groupby(FLOW, observed=True, dropna=False, sort=False).ngroup()
    there = (runs["met"] <= runs["last"]).groupby(flow).cumsum()
    stretch = there.groupby([flow, there], sort=False).ngroup()
    since = further.groupby(stretch).cumsum() > 0
    times = runs[further].groupby([stretch[further], "met"]).size().rename("times").reset_index(level="met")
    total = times["times"].groupby(level=0).transform("sum")
    often = times[(times["times"] >= MOVED_RUNS) & (2 * times["times"] >= total)]
    end = stretch.map(often["met"].groupby(level=0).min()).where(since)
    key = probes.groupby(RUN, observed=True, dropna=False, sort=False).ngroup()
    return key.map(dict(zip(key.loc[runs.index], end, strict=True)))


def ends_path(hops: pd.DataFrame) -> pd.Series[bool]:
    """Return for each of the hops whether its answer says that packets go no further."""
    replied = hops["reply"].notna() & (hops["reply"] != icmp.Error.TIME_EXCEEDED.value)
    return replied | has_reached(hops)  # a payload tells no replies


def has_reached(hops: pd.DataFrame) -> pd.Series[bool]:
    """Return for each of the hops whether the target answered: without an answer it did not."""
    return hops["reached"].fillna(value=False).astype(bool)


def at_the_end(ends: pd.DataFrame, hops: pd.DataFrame) -> pd.DataFrame:
    """Return the probes that went through to the target as ones to the end that their flow's path had then.

    Where no probe to a hop has met the end they are left as they are.
    """
    met = hops.loc[ends_path(hops), ["sent_at", "flow", "ttl"]].rename(columns={"ttl": "end"})
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
