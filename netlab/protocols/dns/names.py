"""The names of addresses, as answers gave them to the processes of this host."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from netlab import addresses
from netlab.frames import Missing
from netlab.protocols.dns.lookups import Answer
from netlab.protocols.dns.queries import Query
from netlab.protocols.dns.rows import Owners
from netlab.protocols.masking import Mask
from netlab.schemas import NAMES

_LEAST_NS = 60_000_000_000  # resolvers' callers go on using an address whose time to live was 0
_NO_PROCESS = -1
_KEYS = ["netns", "address", "name"]


class Sighting(NamedTuple):
    """One address in one answer that a socket got."""

    netns: int
    cookie: int
    address: str
    name: str
    cname: str | None
    ttl_s: int
    seen_ns: int


class Sightings:
    """The addresses that answers brought, as many as are kept; the oldest go first, and are counted."""

    def __init__(self, max_kept: int) -> None:
        self.dropped = 0
        self._kept: deque[Sighting] = deque(maxlen=max_kept)

    def add(self, query: Query) -> None:
        """Take note of an answered query, if it was asked here."""
        found = sightings(query)
        self.dropped += max(0, len(self._kept) + len(found) - (self._kept.maxlen or 0))
        self._kept.extend(found)

    def all(self) -> list[Sighting]:
        """Return what is kept, the oldest first."""
        return list(self._kept)


def sightings(query: Query) -> list[Sighting]:
    """Return the addresses that a query of this host brought."""
    if not query.outgoing or query.answered_ns is None:
        return []
    answer, ends = Answer.of(query), query.ends
    name, chain, ttl = query.question.name, " ".join(answer.chain) or None, answer.ttl_s or 0
    return [
        Sighting(ends.netns, ends.cookie, _plain(address), name, chain, ttl, query.answered_ns)
        for address in answer.addresses
    ]


def _plain(address: str) -> str:
    return addresses.canonical(address) if address.startswith("::ffff:") else address


def table(seen: Iterable[Sighting], owners: Owners) -> pd.DataFrame:
    """Return sightings as a table, by time, with the process that saw them."""
    found = pd.DataFrame(list(seen), columns=list(Sighting._fields))
    known = [owners.get(cookie) for cookie in found["cookie"].tolist()]
    lasts_ns = np.maximum(found["ttl_s"].astype("int64") * 1_000_000_000, _LEAST_NS)
    return found.assign(
        pid=np.array([owner.pid if owner else _NO_PROCESS for owner in known], np.int64),
        process=pd.array([owner and owner.process for owner in known], dtype="string"),
        until_ns=found["seen_ns"].astype("int64") + lasts_ns,
    ).sort_values("seen_ns", kind="stable", ignore_index=True)


def frame(
    seen: pd.DataFrame, *, to_utc_ns: int, mask: Mask = str, missing: Iterable[Missing] = ()
) -> pd.DataFrame:
    """Return the names of addresses by the schema `netlab.schemas.NAMES`, those seen last first."""
    if seen.empty:
        return NAMES.empty(missing)
    groups = seen.groupby(_KEYS, sort=False)
    last = seen.drop_duplicates(_KEYS, keep="last").set_index(_KEYS)
    last = last.assign(
        first_ns=groups["seen_ns"].min(), until_ns=groups["until_ns"].max(), answers=groups.size()
    )
    last = last.reset_index().sort_values("seen_ns", ascending=False, kind="stable")
    return NAMES.frame(
        {
            "address": last["address"].tolist(),
            "name": [mask(name) for name in last["name"]],
            "cname": [chain and mask(chain) for chain in last["cname"]],
            "ttl_s": last["ttl_s"].to_numpy(),
            "first_at": last["first_ns"].to_numpy() + to_utc_ns,
            "last_at": last["seen_ns"].to_numpy() + to_utc_ns,
            "until": last["until_ns"].to_numpy() + to_utc_ns,
            "answers": last["answers"].to_numpy(),
            "pid": np.ma.array(last["pid"], mask=last["pid"] == _NO_PROCESS),
            "process": last["process"].tolist(),
            "netns": np.ma.array(last["netns"], mask=last["netns"] == 0),
        },
        missing,
    )


def remote_names(connections: pd.DataFrame, seen: pd.DataFrame, *, to_utc_ns: int) -> pd.Series[str]:
    """Return the name by which each connection's process knew the remote address when it opened.

    It is the name that the process itself saw last before, else that any process of its namespace saw last,
    if its time to live was not over. Names that were seen later never count.
    """
    found = pd.Series(pd.NA, index=connections.index, dtype="string")
    if seen.empty or connections.empty:
        return found
    is_asked = connections["opened_at"].notna() & connections["remote_address"].isin(seen["address"])
    rows = connections[is_asked]
    asked = pd.DataFrame(
        {
            "netns": rows["netns"].fillna(0).astype("int64"),
            "pid": rows["pid"].fillna(_NO_PROCESS - 1).astype("int64"),
            "address": rows["remote_address"].astype("str"),
            "at_ns": rows["opened_at"].astype("int64") - to_utc_ns,
        }
    )
    asked = asked.sort_values("at_ns", kind="stable")
    for keys in (["netns", "pid", "address"], ["netns", "address"]):
        rest = asked[found.loc[asked.index].isna()]
        told = _before(rest, seen, keys)
        found.loc[told.index] = told
    return found


def _before(asked: pd.DataFrame, seen: pd.DataFrame, keys: list[str]) -> pd.Series[str]:
    """Return the names seen last before, under the same *keys*, that still held."""
    right = seen[[*keys, "seen_ns", "until_ns", "name"]]
    joined = pd.merge_asof(asked, right, left_on="at_ns", right_on="seen_ns", by=keys)
    held = joined["name"].notna() & (joined["until_ns"] >= joined["at_ns"])
    return pd.Series(joined["name"].where(held).to_numpy(), index=asked.index, dtype="string").dropna()
