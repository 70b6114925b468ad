"""What changed in a table since it was last looked at, whoever keeps the table.

A row is known again by the columns that identify it. Rows that are new or differ are told, with the numbers
of those that they replace; the numbers run through all that was ever told of the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.bundle.history import is_open
from netlab.bundle.saving import normalised
from netlab.frames import Cause
from netlab.schemas import (
    CONNECTIONS,
    CONNTRACK,
    CONNTRACK_EVENTS,
    CONNTRACK_STATS,
    COST,
    DNS,
    DROPS,
    EVENTS,
    HOPS,
    NAMES,
    NAT,
    REQUESTS,
    TLS,
)

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

_ENDS = ["local_address", "local_port", "remote_address", "remote_port"]
_SPOKEN = ["netns", "cookie", "direction", "requested_at", *_ENDS]
_ENTRY = ["netns", "id", "protocol", "src", "sport", "dst", "dport", "zone"]
IDENTITY = {
    CONNECTIONS.name: ["protocol", "netns", "cookie", "opened_at", *_ENDS],
    EVENTS.name: ["at", "cookie", "before", "after", *_ENDS],
    DROPS.name: [
        "kind", "reason", "location", "protocol", "src", "sport", "dst", "dport", "icmp_type", "icmp_code",
        "interface", "netns",
    ],
    REQUESTS.name: ["protocol", "stream", "operation", "resource", *_SPOKEN],
    TLS.name: _SPOKEN,
    DNS.name: ["netns", "cookie", "direction", "asked_at", "name", "type", "service"],
    NAMES.name: ["address", "name", "netns", "pid"],
    HOPS.name: ["trace", "target_address", "flow", "run", "ttl", "attempt"],
    CONNTRACK.name: _ENTRY,
    NAT.name: _ENTRY,
    CONNTRACK_EVENTS.name: ["at", "event", *_ENTRY],
    CONNTRACK_STATS.name: ["netns", "cpu"],
    COST.name: ["kind", "program"],
}  # fmt: skip
_AGES = ["duration_s"]  # grow by themselves: that is no change
# What happened stays, also when it is let go of.
_LASTING = {EVENTS.name, HOPS.name, CONNTRACK_EVENTS.name, REQUESTS.name, TLS.name, DNS.name}
# What coverages call the rows, where not as the schema.
_WHAT = {HOPS.name: "probes", TLS.name: "requests"}
_ODD = np.uint64(0x9E3779B97F4A7C15)
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table at one moment: a hash of what identifies each row, one of all that it says, and its number."""

    frame: pd.DataFrame
    keys: Hashes
    contents: Hashes
    numbers: Numbers

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Table:
        """Hash *frame*; the numbers are given later."""
        identity = [name for name in IDENTITY[frame.attrs["schema"]] if name in frame]
        keys = distinct(hashes(frame[identity]), np.zeros(len(frame), np.int64))
        return cls(frame, keys, hashes(told_of(frame)), np.full(len(frame), -1, np.int64))

    def passing(self) -> npt.NDArray[np.bool_]:
        """Tell which rows are over when the table no longer has them; of others it has only let go."""
        schema = self.frame.attrs["schema"]
        if schema == CONNECTIONS.name:
            return is_open(self.frame)
        return np.full(len(self.frame), schema not in _LASTING)


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """The rows to tell of, and the numbers of earlier ones that are no longer so."""

    now: Table
    rows: pd.DataFrame
    replaces: Numbers
    let_go: int  # rows that were told, have ended, and are no longer in the table

    def differs(self, before: Table | None) -> bool:
        """Tell whether there is anything to say that was not said *before*."""
        if before is None or len(self.rows) or len(self.replaces):
            return True
        told, now = (table.frame.attrs["coverage"] for table in (before, self.now))
        return bool(told != now)


@dataclass(slots=True)
class Track:
    """One table that is followed; *read* returns it as it is now."""

    name: str
    schema: str
    read: Callable[[], pd.DataFrame]
    told: int = 0  # rows, so far
    let_go: int = 0
    segments: int = 0
    read_ns: int = 0  # when it was read last
    before: Table | None = None

    @property
    def now(self) -> pd.DataFrame:
        """The table as it was told last."""
        if self.before is None:
            raise LookupError(f"{self.name} was never told")
        return self.before.frame

    def change(self) -> Change:
        """Return what differs from what was told, and how it will be known again."""
        now, before = Table.of(normalised(self.read())), self.before
        if before is None or before.frame.empty:
            differs = np.ones(len(now.frame), bool)
            replaces, let_go = _NOTHING, 0
        else:
            places = pd.Index(before.keys).get_indexer(pd.Index(now.keys))
            differs = (places < 0) | (before.contents[places] != now.contents)
            now.numbers[~differs] = before.numbers[places[~differs]]
            absent = pd.Index(now.keys).get_indexer(pd.Index(before.keys)) < 0
            passing = before.passing()
            over = before.numbers[absent & passing]
            replaces = np.concatenate([before.numbers[places[differs & (places >= 0)]], over])
            let_go = int(np.count_nonzero(absent & ~passing))
        now.numbers[differs] = self.told + np.arange(np.count_nonzero(differs))
        return Change(now, now.frame[differs], replaces, let_go)

    def coverage(self, change: Change) -> list[dict[str, Any]]:
        """Return the coverage without the rows that the source has let go of: they were told."""
        let_go, found = self.let_go + change.let_go, []
        for gap in change.now.frame.attrs["coverage"]:
            is_told = gap["what"] == _WHAT.get(self.schema, self.schema) and gap.get("cause") == Cause.LET_GO
            found.append(gap | {"count": max(0, gap["count"] - let_go)} if is_told else gap)
        return [gap for gap in found if gap["count"] != 0]

    def accept(self, change: Change, *, written: bool) -> None:
        """Take *change* for told; *written* if there was anything to tell."""
        self.told += len(change.rows)
        self.let_go += change.let_go
        self.segments += written
        self.before = change.now


def told_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that change only when there is something to tell."""
    return frame.drop(columns=_AGES, errors="ignore")


def distinct(keys: Hashes, place: Numbers) -> Hashes:
    """Return keys that tell apart the alike rows of one *place*: they go by their order there."""
    again = pd.Series(keys).groupby([keys, place]).cumcount().to_numpy(np.uint64)
    return np.asarray(keys + again * _ODD, np.uint64)


def hashes(frame: pd.DataFrame) -> Hashes:
    """Return a hash of each row."""
    return np.asarray(pd.util.hash_pandas_object(frame, index=False), np.uint64)
