"""Whose packet it is: connections found by tuple and time."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import pandas as pd

from netlab.wire import ip
from netlab.wire.fivetuple import FiveTuple

End: TypeAlias = tuple[bytes, int]

_PROTOCOLS = {"tcp": ip.TCP, "udp": ip.UDP}
_EVER_NS, _NEVER_NS = -(2**63), 2**63 - 1
_CLOCK_NS = 1_000_000  # captures count microseconds, and read the clock a little later
_HANDSHAKE_NS = 3_000_000_000  # an accepted connection is known from the end of its handshake
_TAIL_NS = 60_000_000_000  # what comes after the end: last acknowledgments, and what is sent again
_COLUMNS = [
    "protocol", "netns", "process", "pid", "error", "reason", "opened_at", "closed_at", "local_address",
    "local_port", "remote_address", "remote_port", "nat_local_address", "nat_local_port",
    "nat_remote_address", "nat_remote_port",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Owned:
    """A connection from its first to its last packet, and what to say of it."""

    opened_ns: int
    closed_ns: int
    said: str


class Owners:
    """Connections by their tuples, as their socket sees them and beyond the translation."""

    def __init__(self, connections: pd.DataFrame) -> None:
        found: dict[Any, dict[Any, list[Owned]]] = defaultdict(lambda: defaultdict(list))
        table = connections.reindex(columns=_COLUMNS)
        places = connections.index.tolist()
        rows = table.astype(object).where(table.notna(), None).itertuples(index=False, name=None)
        for place, values in zip(places, rows, strict=True):
            row = dict(zip(_COLUMNS, values, strict=True))
            owned = Owned(
                _ns(row["opened_at"], _EVER_NS), _ns(row["closed_at"], _NEVER_NS), _said(place, row)
            )
            for protocol, local, remote in set(_tuples(row)):
                found[protocol, frozenset((local, remote))][local, row["netns"]].append(owned)
        self._found = {
            key: [sorted(lives, key=lambda owned: owned.opened_ns) for lives in sides.values()]
            for key, sides in found.items()
        }

    def of(self, packet: FiveTuple, at_ns: int) -> list[str]:
        """Return what to say of each connection that *packet* belongs to: on loopback there are two."""
        ends = frozenset(((packet.source, packet.sport), (packet.destination, packet.dport)))
        sides = self._found.get((packet.protocol, ends), [])
        lives = [_life(side, at_ns, is_syn=packet.is_syn) for side in sides]
        return list(dict.fromkeys(life.said for life in lives if life is not None))


def _life(lives: list[Owned], at_ns: int, *, is_syn: bool) -> Owned | None:
    """Return which of the connections that had a tuple one after the other a packet belongs to."""
    following = bisect_right(lives, at_ns + _CLOCK_NS, key=lambda owned: owned.opened_ns)
    last = lives[following - 1] if following else None
    if last is not None and at_ns <= last.closed_ns + _CLOCK_NS:
        return last
    coming = lives[following] if following < len(lives) else None
    if coming is not None and coming.opened_ns - at_ns <= _HANDSHAKE_NS and (is_syn or last is None):
        return coming
    return last if last is not None and at_ns - last.closed_ns <= _TAIL_NS else None


def _tuples(row: dict[str, Any]) -> Iterator[tuple[int, End, End]]:
    """Return the tuples that a connection's packets may have: of each end, before and after translation."""
    protocol = _PROTOCOLS.get(row["protocol"])
    for local in ("", "nat_"):
        for remote in ("", "nat_"):
            told = [row[f"{local}local_address"], row[f"{local}local_port"]]
            told += [row[f"{remote}remote_address"], row[f"{remote}remote_port"]]
            if protocol is not None and None not in told:
                yield protocol, (_packed(told[0]), told[1]), (_packed(told[2]), told[3])


@cache
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _ns(time: Any, missing_ns: int) -> int:
    return missing_ns if time is None else int(time.value)


def _said(place: Any, row: dict[str, Any]) -> str:
    who = "unknown process" if row["process"] is None else row["process"]
    pid = "" if row["pid"] is None else f"[{row['pid']}]"
    end = "" if row["error"] is None else f", {row['error']}"
    why = "" if row["reason"] is None else f": {row['reason']}" if end else f", {row['reason']}"
    return f"{who}{pid} attempt {place}{end}{why}"
