"""Routing loops: packets that come back to routers that they have passed, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from netlab.path.evidence import Hop
from netlab.path.rejections import is_rejected

_RETURNS = 2  # so many answers must come from routers that have answered before


@dataclass(frozen=True, slots=True)
class Stop:
    """What a loop is told by of one TTL: who answers, whether somebody rejects, whether it is the target."""

    ttl: int
    address: str | None
    addresses: int
    rejected: int
    reached: bool


@dataclass(frozen=True, slots=True)
class Loop:
    """From TTL `first_ttl` on so many `routers` take turns; `address`, the first, answers at `ttls`."""

    first_ttl: int
    routers: int
    address: str
    ttls: tuple[int, ...]

    def in_words(self) -> str:
        """Return what was seen, for people."""
        shown = ", ".join(map(str, self.ttls[:4])) + (", …" if len(self.ttls) > 4 else "")
        return (
            f"a routing loop of {self.routers} routers: packets come back to {self.address}, which answers "
            f"at TTL {shown}, and never get to the target"
        )


def in_probes(probes: pd.DataFrame) -> Loop | None:
    """Return the loop that the *probes* to one target end in, or None; the rows are those of a traceroute."""
    rejected = is_rejected(probes) if "reply" in probes.columns else pd.Series(data=False, index=probes.index)
    reached = probes["reached"].fillna(value=False).astype(bool)
    hops = []
    for ttl, part in probes.groupby("ttl", sort=True):
        addresses = part["address"].dropna().unique()
        hops.append(
            Stop(
                ttl=int(str(ttl)),
                address=str(addresses[0]) if len(addresses) else None,
                addresses=len(addresses),
                rejected=int(rejected[part.index].sum()),
                reached=bool(reached[part.index].any()),
            )
        )
    return find(hops)


def find(hops: Sequence[Hop | Stop]) -> Loop | None:
    """Return the loop that the *hops* of a target that was not reached end in, or None.

    All that answer from its beginning on, up to the last, do so in turn. Some may be silent, or have spent
    what their rate limit lets them answer. One address at neighbouring TTLs is no loop: a NAT may put it
    into all that comes through it.
    """
    if any(hop.rejected or hop.reached for hop in hops):
        return None
    for place, hop in enumerate(hops):
        tail = hops[place:]
        if any(later.addresses > 1 for later in tail):
            continue
        for routers in range(2, len(tail) // 2 + 1):
            ttls = _turns(tail, routers)
            if ttls and hop.address is not None:
                return Loop(hop.ttl, routers, hop.address, ttls)
    return None


def _turns(tail: Sequence[Hop | Stop], routers: int) -> tuple[int, ...]:
    """Return the TTLs of the first of the *tail* if so many take turns in it, else nothing."""
    first = tail[0]
    by_turn: dict[int, str] = {}
    answers = [hop for hop in tail if hop.address is not None]
    for hop in answers:
        if by_turn.setdefault((hop.ttl - first.ttl) % routers, str(hop.address)) != hop.address:
            return ()
    distinct = set(by_turn.values())
    if len(distinct) < len(by_turn) or len(answers) - len(distinct) < _RETURNS:
        return ()
    ttls = tuple(hop.ttl for hop in answers if hop.address == first.address)
    return ttls if len(ttls) > 1 else ()
