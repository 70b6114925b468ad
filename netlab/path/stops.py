"""What each trace met at each TTL, as tables: the arithmetic under `netlab.path.graph`.

A *trace* here is one run of one flow of one call: only within it do neighbouring TTLs tell a link. A *stop*
is a node that a trace met at a TTL: an address, a silence with a name, or at TTL 0 the source.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import pandas as pd

SOURCE = "source"
SILENT = "* ttl "

_AT = ["trace", "ttl"]
_WHERE = ["host", "netns"]
_CONSTANT = ["flow", "target", "gateway", "interface"]  # within a trace
_READ = [*_WHERE, "gateway", "interface", "trace", "target", "run", "ttl", "address", "rtt_ms", "sent_at"]

_Nodes: TypeAlias = tuple[str, ...]
_Heard: TypeAlias = dict[int, set[str]]  # by TTL: who answered a trace


def zoned(hops: pd.DataFrame) -> pd.DataFrame:
    """Return the hops with link-local addresses that were met on several links told apart by these.

    Such an address is a neighbour's on each link (RFC 4007 section 5), and fe80::1 is many routers' choice.
    """
    local = [address for address in hops["address"].dropna().unique() if _is_link_local(address)]
    met = hops[hops["address"].isin(local)].reindex(columns=["address", *_WHERE, "interface"]).astype(object)
    links = met.drop_duplicates()
    several = links[links.groupby("address")["address"].transform("size") > 1]
    if several.empty:
        return hops
    told: list[str] = []
    for name in ("interface", *_WHERE):
        if len(several[["address", *told]].drop_duplicates()) < len(several):
            told += [name] * (len(several[name].drop_duplicates()) > 1)
    zones = met.loc[met["address"].isin(several["address"]), ["address", *told]].astype(str)
    return hops.assign(
        address=hops["address"].mask(
            hops.index.isin(zones.index), (zones["address"] + "%" + zones[told].agg("/".join, axis="columns"))
        )
    )


def _is_link_local(address: str) -> bool:
    return address.startswith(("fe80:", "169.254."))  # RFC 4291 section 2.5.6, RFC 3927


def probes(hops: pd.DataFrame, flow: pd.Series[int]) -> pd.DataFrame:
    """Return the probes of every trace, numbered `trace`, after a row at TTL 0 for its source.

    `node` is who answered, missing of a probe that only was lost. Silent TTLs have a node with a name of its
    own; those after the last answer are left out, but for who answered other traces there: these lost probes.
    `flow` is the number given for each row of *hops*.
    """
    table = hops.reindex(columns=_READ).assign(flow=flow.to_numpy()).astype({"ttl": "int64"})
    told = [*_WHERE, "trace", "run", "flow"]
    table["trace"] = table.groupby(told, dropna=False, sort=False, observed=True).ngroup()
    table["node"] = table.pop("address").astype(object)
    table["rtt_ms"] = table["rtt_ms"].astype("float64")
    start = table.drop_duplicates("trace")
    sources = start.drop(columns="sent_at").assign(ttl=0, node=_sources(start[_WHERE]), rtt_ms=0.0)
    answered = table["node"].notna()
    last = table["ttl"].where(answered).groupby(table["flow"]).transform("max")
    found = pd.concat([sources, table[table["ttl"] <= last]]).sort_values(_AT, kind="stable")
    return _named(found.drop(columns=_WHERE).reset_index(drop=True))


def _sources(hosts: pd.DataFrame) -> list[str]:
    """Return a name for each row's source: plain while there is only one."""
    distinct = hosts.drop_duplicates()
    if len(distinct) < 2:
        return [SOURCE] * len(hosts)
    crowded = distinct.groupby("host", dropna=False)["netns"].transform("size") > 1
    names = {}
    for (host, netns), several in zip(distinct.itertuples(index=False, name=None), crowded, strict=True):
        words = [SOURCE, *([] if pd.isna(host) else [host])]
        names[str(host), str(netns)] = " ".join(
            [*words, f"netns {netns}"] if several and not pd.isna(netns) else words
        )
    return [names[str(host), str(netns)] for host, netns in hosts.itertuples(index=False, name=None)]


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Name the nodes of TTLs where a trace heard nobody.

    It is the node that alone answered other traces of its flow there, between the same neighbours: then
    the probes were lost. Else it is a silence, the same only between the same neighbours: they would join
    strangers.
    """
    kind = table["trace"].map(_kinds(table))  # one of a thousand traces stands for all that heard the same
    told = table.assign(kind=kind)[["kind", "flow", "ttl", "node"]]
    heard: dict[int, _Heard] = defaultdict(lambda: defaultdict(set))
    alike: dict[int, list[_Heard]] = defaultdict(list)
    for number, flow, ttl, node in told.dropna(subset=["node"]).drop_duplicates().to_numpy():
        if number not in heard:
            alike[flow].append(heard[number])
        heard[number][ttl].add(node)
    silent = table["node"].isna() & table.groupby(_AT)["node"].transform("count").eq(0)
    places = told[silent].groupby(["kind", "flow", "ttl"], sort=False)
    lost: dict[tuple[int, int, tuple[int, ...], tuple[_Nodes, ...]], str | None] = {}
    known: dict[tuple[int, tuple[_Nodes, ...]], str] = {}
    numbers: dict[int, int] = defaultdict(int)
    names: list[str | None] = []
    for number, flow, ttl in places.size().index:
        nodes = heard[number]
        met = [*nodes]
        place = bisect(met, ttl)
        beside = tuple(met[place - 1 : place + 1])  # the last one before, and the next one if there is one
        ends = tuple(tuple(sorted(nodes[at])) for at in beside)
        here = flow, ttl, beside, ends
        if here not in lost:
            lost[here] = _only(alike[flow], ttl, {at: nodes[at] for at in beside})
        between = ttl, ends
        if lost[here] is None and between not in known and len(ends) > 1:
            numbers[ttl] += 1
            known[between] = f"{SILENT}{ttl}" + (f" #{numbers[ttl]}" if numbers[ttl] > 1 else "")
        names.append(lost[here] or known.get(between))
    table.loc[silent, "node"] = np.array(names, object)[places.ngroup()]
    return table[~silent | table["node"].notna()].reset_index(drop=True)


def _kinds(table: pd.DataFrame) -> dict[int, int]:
    """Return a number for each trace, the same for those of one flow that heard the same at each TTL."""
    met = table.loc[table["node"].notna(), ["trace", "flow", "ttl", "node"]]
    answer = met.groupby(["flow", "ttl", "node"], sort=False).ngroup().rename("answer")
    heard = (
        pd.concat([met["trace"], answer], axis="columns").drop_duplicates().sort_values(["trace", "answer"])
    )
    traces, first = np.unique(heard["trace"].to_numpy(), return_index=True)
    kinds: dict[bytes, int] = {}
    parts = np.split(heard["answer"].to_numpy(), first)[1:]
    return {
        trace: kinds.setdefault(part.tobytes(), len(kinds))
        for trace, part in zip(traces.tolist(), parts, strict=True)
    }


def _only(traces: Iterable[_Heard], ttl: int, beside: _Heard) -> str | None:
    """Return the node that alone answered at *ttl* to those *traces* that heard the same *beside* it."""
    same = (heard for heard in traces if beside.items() <= heard.items())
    nodes = set().union(*(heard.get(ttl, set()) for heard in same))
    return nodes.pop() if len(nodes) == 1 else None


def stops(table: pd.DataFrame) -> pd.DataFrame:
    """Return the stops among *table*, what `probes` returned, by trace and TTL.

    `probes` are those that the node answered, and those that nobody did where it alone had answered others;
    `shared` are those that nobody did where several have answered one trace of the flow: behind a balancer
    that takes each packet by itself. `first` and `last` are when the first and the last that it answered were
    sent.
    """
    sent = table["ttl"] > 0
    answers = table["rtt_ms"].notna() & sent
    counted = table.assign(
        answers=answers, own=sent & table["node"].notna(), at=table["sent_at"].where(answers)
    )
    lost = (table["node"].isna() & sent).groupby([table["trace"], table["ttl"]]).sum().rename("lost")
    found = (
        counted.groupby([*_AT, "node"], sort=False)
        .agg(
            probes=("own", "sum"),
            answers=("answers", "sum"),
            first=("at", "min"),
            last=("at", "max"),
        )
        .reset_index()
        .join(lost, on=_AT)
    )
    found = found.join(table.drop_duplicates("trace").set_index("trace")[_CONSTANT], on="trace")
    beside = found.groupby(_AT)["node"].transform("size")
    alone = beside.groupby([found["flow"], found["ttl"]]).transform("max").eq(1)
    found["shared"] = found["lost"].mask(alone, 0)
    found["probes"] += found.pop("lost").where(alone, 0)
    return found


def steps(found: pd.DataFrame) -> pd.DataFrame:
    """Return each pair of a stop and one at the next TTL of the same trace, from `near` to `far`.

    The figures are those of the farther stop. A step is `certain` if there was only one stop at either end.
    """
    beside = found.groupby(_AT)["node"].transform("size")
    near = found[_AT].assign(near=found["node"], near_beside=beside, next=found["ttl"] + 1)
    far = found.rename(columns={"node": "far", "ttl": "next"}).assign(far_beside=beside)
    pairs = near.merge(far, on=["trace", "next"])
    pairs["certain"] = pairs[["near_beside", "far_beside"]].min(axis="columns").eq(1)
    return pairs.drop(columns=["near_beside", "far_beside", "next"])
