"""Whether connection tracking has room for what is new, or drops it."""

from __future__ import annotations

import time

import pandas as pd

from netlab.checkup.finding import Finding, State, grant_or_leave
from netlab.errors import CapabilityError
from netlab.kernel.ctstats import conntrack_stats

_FULL = 0.8  # of the table, from where a burst may fill it
_WATCH_S = 0.2  # what was dropped long ago is no longer news, and only a change tells
_TURNS = 1 << 32  # the kernel's counters begin again there


def room() -> Finding:
    """Tell whether each new connection gets a place in the table, and a port where it is translated."""
    try:
        before = conntrack_stats()
    except CapabilityError as error:
        raise CapabilityError(error.problem, fix=grant_or_leave("CAP_NET_ADMIN")) from error
    if not _dropped(before):
        return judged(before, before)
    time.sleep(_WATCH_S)
    return judged(before, conntrack_stats())


def judged(before: pd.DataFrame, after: pd.DataFrame) -> Finding:
    """Return what two looks at the counters of one namespace tell."""
    dropped, now = _dropped(after), (_dropped(after) - _dropped(before)) % _TURNS
    since = f"{dropped:,} packets were dropped for want of an entry since this network namespace began"
    if now:
        unported = (_unported(after) - _unported(before)) % _TURNS
        why = f"{since}, {now} just now: {unported} found their tuple taken, {now - unported} the table full"
        fix = "netlab.nat() says which destination takes the ports of NAT: give it more addresses or ports"
        return Finding(State.NO, why, fix if unported else _larger(after))
    entries, most = (after[name].max() for name in ("entries", "max_entries"))
    if pd.isna(entries) or pd.isna(most):
        return Finding(State.UNKNOWN, f"this kernel does not tell how full its table is here; {since}")
    held = f"{entries:,} of {most:,} entries are taken"
    if entries > _FULL * most:
        return Finding(State.NO, f"{held}, and {since}", _larger(after))
    return Finding(State.YES, f"{held}; {since}")


def _larger(stats: pd.DataFrame) -> str:
    most = stats["max_entries"].max()
    size = "N" if pd.isna(most) else 2 * most
    return f"sudo sysctl -w net.netfilter.nf_conntrack_max={size}, in the host's own network namespace"


def _dropped(stats: pd.DataFrame) -> int:
    return int(stats["drop"].sum())  # those of insert_failed are among them


def _unported(stats: pd.DataFrame) -> int:
    return int(stats["insert_failed"].sum())
