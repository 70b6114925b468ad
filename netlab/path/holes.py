"""MTU holes (RFC 2923 section 2.1) as evidence about hops: what `netlab.path.path_mtu` found out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.path.evidence import Hop
from netlab.path.mtu import SILENT

_COLUMNS = ("target", "protocol", "mtu_bytes", "ttl", "address", "told", "at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A link behind the hop at `ttl` that loses packets above `mtu_bytes` and tells nobody.

    `echoed` says that the answers were as large as the probes.
    """

    ttl: int | None
    address: str | None
    mtu_bytes: int
    echoed: bool

    def is_behind(self, hop: Hop) -> bool:
        """Whether it is behind this hop, which may have changed since."""
        return self.address is not None and (self.ttl, self.address) == (hop.ttl, hop.address)

    def in_words(self, *, may_be_back: bool) -> str:
        """Return what was seen; *may_be_back* says that large answers may have got lost as well."""
        way = ", on the way there or back" if may_be_back else ""
        return f"packets above {self.mtu_bytes} bytes vanish behind it without a word{way}; smaller ones pass"


def holes(mtu: pd.DataFrame | None, targets: Collection[str]) -> dict[str, list[Hole]]:
    """Return the holes on the way to each of *targets* when it was last tried.

    Raises
    ------
    BadInput
        If *mtu* is no such frame, or about none of the targets.
    """
    if mtu is None:
        return {}
    fix = "Pass what netlab.path.path_mtu returned, or several of those concatenated"
    checks.columns("mtu", mtu, _COLUMNS, fix=fix)
    known = mtu[mtu["target"].isin(list(targets))]
    if known.empty:
        raise BadInput(
            f"mtu is about {', '.join(sorted(set(mtu['target']))) or 'nothing'}, and hops is not",
            fix="Call netlab.path.path_mtu with the target of the trace",
        )
    latest = known[known["at"] == known.groupby("target")["at"].transform("max")]
    silent: Any = latest[latest["told"] == SILENT].astype(object)
    found: dict[str, list[Hole]] = {}
    for row in silent.where(silent.notna(), None).itertuples():
        hole = Hole(ttl=row.ttl, address=row.address, mtu_bytes=row.mtu_bytes, echoed=row.protocol == "icmp")
        found.setdefault(row.target, []).append(hole)
    return found


def behind(hop: Hop, known: Collection[Hole]) -> Hole | None:
    """Return the hole behind *hop*; of several, the one that lets the least through."""
    return min((hole for hole in known if hole.is_behind(hop)), key=lambda hole: hole.mtu_bytes, default=None)


def unplaced(target: str, known: Collection[Hole], hops: Collection[Hop]) -> list[Missing]:
    """Return the holes that are behind none of *hops*."""
    return [
        Missing(
            "MTU hole",
            Gap.UNSEEN,
            1,
            f"on the way to {target} packets above {hole.mtu_bytes} bytes vanish without a word; behind which"
            " hop is not known, or another answers in its place now",
        )
        for hole in known
        if not any(hole.is_behind(hop) for hop in hops)
    ]
