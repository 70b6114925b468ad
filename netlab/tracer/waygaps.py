"""What the `via_*` columns of connections lack, and which of them may be another way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.frames import Gap, Missing
from netlab.kernel.routing import Way

WHAT = "via_*"
_SCOPELESS = "the peer's address is link-local, and which link is not known"
_UNNAMED = "a type of route that this version does not know"
GUESSED = {
    "mark": "policy rules look at the packets' mark, which is not known of these: taken for 0",
    "remark": (
        "policy rules look at the packets' mark, which rules of netfilter may set (type route, mangle): the "
        "way is that of the socket's mark"
    ),
    "uid": "policy rules look at the user, which is not known of these: taken for this process's",
    "other": "policy rules look at what connections do not tell, such as the type of service: taken for none",
}
_UNMARKED = "policy rules look at the packets' mark, which is not known: taken for 0"
_ENDED = "of connections that ended: the way is that of now"
_BALANCED = (
    "the route has several next hops: the kernel may have chosen before the socket had its address or "
    "port, or by a hash that no look-up repeats, and have taken another"
)
_UNTRACKED = (
    "translated ones, of which conntrack does not tell, or not any more, whether their own network namespace "
    "does it: the way is that to the address that the socket uses"
)
_REROUTED = (
    "translated ones, for which the kernel looks for a way again without the user and the ports that policy "
    "rules, or the choice among several next hops, look at: the way is that with them"
)


def unasked(count: int, silent: list[Missing]) -> list[Missing]:
    """Say of how many connections the namespace did not answer, and what the first *silent* one said."""
    if not count:
        return []
    detail = silent[0].detail if silent else "their network namespaces have no process and no name here"
    return [Missing(WHAT, Gap.UNAVAILABLE, count, detail)]


def unanswered(codes: npt.NDArray[Any], ways: list[Way | None]) -> list[Missing]:
    """Say of which connections the kernel knows no way, and why."""
    rows = np.bincount(codes, minlength=len(ways))
    reasons: Counter[str] = Counter()
    for count, way in zip(rows.tolist(), ways, strict=True):
        if way is None or way.type is None:
            reasons[(way.reason or _UNNAMED) if way else _SCOPELESS] += count
    return [Missing(WHAT, Gap.UNAVAILABLE, count, reason) for reason, count in reasons.items()]


def balanced(
    codes: npt.NDArray[Any], ways: list[Way | None], repeatable: npt.NDArray[np.bool_]
) -> list[Missing]:
    """Say of how many connections the next hop is one of several and may be another."""
    several = np.array([way is not None and (way.nexthops or 0) > 1 for way in ways], bool)[codes]
    count = int((several & ~repeatable).sum())
    return [Missing(WHAT, Gap.APPROXIMATE, count, _BALANCED)] if count else []


def of_packet(way: Way, looks_at: set[str], *, marked: bool) -> list[str]:
    """Return why a packet may go, or have gone, another way than the one that a look-up tells.

    *looks_at* is what the way depends on in its namespace, *marked* whether the packet's mark is known.
    """
    doubts = [_UNMARKED] if "mark" in looks_at and not marked else []
    doubts += [GUESSED["remark"]] if "remark" in looks_at and marked else []
    if (way.nexthops or 0) > 1 and ("flow" in looks_at or ":" in (way.route or "")):
        doubts.append(_BALANCED)
    return doubts


def doubtful(connections: pd.DataFrame, looked_at: Mapping[str, pd.Series[bool]]) -> list[Missing]:
    """Say which connections' packets may go, or may have gone, another way.

    *looked_at* tells of which connections the rules look at each of what is in `GUESSED`.
    """
    doubts = {
        **{GUESSED[what]: looking & _unknown(connections, what) for what, looking in looked_at.items()},
        _ENDED: connections["closed_at"].notna(),
    }
    return _approximate(doubts)


def redirected(unknown: npt.NDArray[np.bool_], rerouted: npt.NDArray[np.bool_]) -> list[Missing]:
    """Say for which connections another address than the socket's may count, or may count otherwise."""
    return _approximate({_UNTRACKED: unknown, _REROUTED: rerouted})


def _approximate(doubts: Mapping[str, Any]) -> list[Missing]:
    counts = {reason: int(which.sum()) for reason, which in doubts.items()}
    return [Missing(WHAT, Gap.APPROXIMATE, count, reason) for reason, count in counts.items() if count]


def _unknown(connections: pd.DataFrame, what: str) -> pd.Series[bool] | bool:
    return connections[what].isna() if what in connections else True
