"""What probes tell of each hop: when they were sent, and whether they were answered."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.path import course, segments
from netlab.path.bucket import Flags, Limit, Reals
from netlab.path.course import Change
from netlab.path.extent import RUN, has_reached

Numbers: TypeAlias = npt.NDArray[np.int64]

COLUMNS = (*segments.COLUMNS, "attempt", "reply_id")
_REJECTIONS = {
    "admin-prohibited": "communication administratively prohibited",
    "net-unreachable": "network unreachable",
    "host-unreachable": "host unreachable",
    "port-unreachable": "port unreachable",
}
_SEEKING_RUNS = 3  # that a monitor may need to find the end


@dataclass(slots=True)
class Hop:
    """The probes of one TTL, in order: when each was sent, and whether it was answered.

    A rejected probe is answered. `rejected` counts those and `rejection` says in words who did that and why;
    `turned_back` counts those that are lost all the same, because this is the end and they did not get here.
    """

    ttl: int
    address: str | None
    addresses: int
    at_s: Reals
    answered: Flags
    reply_ids: Reals
    changed: bool = False
    behind_change: bool = False
    overshot: bool = False
    limit: Limit | None = None
    rejected: int = 0
    rejection: str = ""
    turned_back: int = 0
    reached: bool = False
    flows: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    dead: list[int] = field(default_factory=list)

    @property
    def probes(self) -> int:
        """How many were sent."""
        return len(self.answered)

    @property
    def answers(self) -> int:
        """How many were answered."""
        return int(self.answered.sum())

    @property
    def lost(self) -> int:
        """How many were not."""
        return self.probes - self.answers

    @property
    def loss(self) -> float:
        """The share that was not."""
        return self.lost / self.probes

    @property
    def span_s(self) -> float:
        """From the first probe to the last."""
        return float(self.at_s[-1] - self.at_s[0])

    def between(self, first_s: float, last_s: float) -> Hop:
        """Return the part of it from one time to another."""
        inside = (self.at_s >= first_s) & (self.at_s <= last_s)
        return dataclasses.replace(
            self,
            at_s=self.at_s[inside],
            answered=self.answered[inside],
            reply_ids=self.reply_ids[inside],
            flows=self.flows[inside],
        )


def hops_of(probes: pd.DataFrame, flows: list[segments.Course]) -> list[Hop]:
    """Return what is known of each TTL, since the path last changed there or before.

    Else a hop behind a new one would be judged by what the old one lost, which no hop before it shows now.
    """
    since = _changed_at(flows)
    start = probes["sent_at"].min()
    found = []
    for ttl, part in probes.groupby("ttl", sort=True):
        changed = max((at for where, at in since.items() if where <= int(str(ttl))), default=None)
        kept = part if changed is None else part[part["sent_at"] >= changed]
        rejected = kept[kept["rejected"]]
        turned_back = int((kept["rejected"] & kept["at_end"]).sum())
        arrived = kept[~kept["rejected"] & kept["address"].notna()]
        addresses = (arrived if len(arrived) else kept)["address"].value_counts()
        found.append(
            Hop(
                ttl=int(str(ttl)),
                address=str(addresses.index[0]) if len(addresses) else None,
                addresses=len(addresses),
                at_s=(kept["sent_at"] - start).dt.total_seconds().to_numpy(np.float64),
                answered=kept["address"].notna().to_numpy(bool),
                reply_ids=kept["reply_id"].to_numpy(np.float64, na_value=np.nan),
                changed=int(str(ttl)) in since,
                behind_change=changed is not None and int(str(ttl)) not in since,
                rejected=len(rejected),
                flows=kept["flow"].to_numpy(np.int64),
                rejection=_in_words(rejected) if len(rejected) else "",
                turned_back=turned_back,
                reached=bool(has_reached(kept).any()),
            )
        )
    return [hop for hop in found if hop.probes]


def _in_words(rejected: pd.DataFrame) -> str:
    """Return who rejected most of the probes, and with what."""
    who, what = (str(rejected[column].mode().iloc[0]) for column in ("address", "reply"))
    return f"rejected by {who}: {_REJECTIONS.get(what, what)}"


def overshot(every: pd.DataFrame, counted: pd.DataFrame) -> bool:
    """Whether more probes met the end than its TTL tells: of a prober that does not know yet where it is."""
    last, last_counted = (probes.groupby(RUN)["ttl"].max() for probes in (every, counted))
    return bool((every["attempt"] > 0).any()) or int((last > last_counted).sum()) > _SEEKING_RUNS


def _changed_at(flows: list[segments.Course]) -> dict[int, Any]:
    """Return by TTL when a flow last got another hop there, unless a load balancer moved it."""
    latest: dict[int, Any] = {}
    for flow in flows:
        for change in course.changes(flow, flows):
            if change.kind is not Change.REMAP:
                for ttl in change.ttls_with_new_ends:
                    latest[ttl] = max(latest.get(ttl, change.at), change.at)
    return latest
