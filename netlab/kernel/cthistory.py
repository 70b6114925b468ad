"""What was heard of conntrack entries as frames: every message, every new entry, and the table as it stands.

A message says only part of what its entry is: the state when that changed, the counters at the end. What an
entry is now is therefore its last message, filled up from those before; a dump says everything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.kernel import ctentries, ctframe, nlmessages
from netlab.kernel.ctframe import BODY, Part
from netlab.kernel.ctlisten import Heard
from netlab.schemas import CONNTRACK, CONNTRACK_EVENTS

_CREATED = 0x600  # NLM_F_CREATE | NLM_F_EXCL
_KINDS = ["new", "update", "destroy", "found"]
NEW, UPDATE, DESTROY, FOUND = range(4)
_CLOCKS = ["kernel", "user"]
# The id alone is a hash of 32 bits: of 100,000 entries two share one more often than not.
KEY = ["netns", "id", "protocol", "src", "sport", "dst", "dport", "zone"]


@dataclass(frozen=True, slots=True)
class History:
    """All messages in the order they came in; the arrays have a place for each row of the frame."""

    frame: pd.DataFrame  # columns as in CONNTRACK_EVENTS
    kinds: npt.NDArray[np.int64]  # places in _KINDS
    first: npt.NDArray[np.bool_]  # of the dump at the start
    superseded: npt.NDArray[np.bool_]  # from before a later dump of the same namespace

    @classmethod
    def of(cls, heard: Mapping[int, Sequence[Heard]]) -> History:
        """Put together what was heard in each namespace, by inode."""
        joined = [(inode, one) for inode, all_of_it in heard.items() for one in _blocks_joined(all_of_it)]
        parts: list[Part] = []
        rows: list[dict[str, npt.NDArray[np.int64]]] = []
        for inode, one in joined:
            for group in one.dump.groups(BODY):
                parts.append(Part(inode, ctentries.decoded(group)))
                rows.append({name: values[group.rows] for name, values in one.columns().items()})
        if not rows:
            nothing = np.zeros(0, np.int64)
            return cls(CONNTRACK_EVENTS.empty(), nothing, nothing > 0, nothing > 0)
        column = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        frame = _framed(parts, column)
        order = np.lexsort((column["place"], column["order"]))
        return cls(
            frame.iloc[order].reset_index(drop=True),
            column["kind"][order],
            column["first"][order] > 0,
            column["superseded"][order] > 0,
        )

    def new(self) -> pd.DataFrame:
        """Return each entry that was made meanwhile as it was when it was first heard of."""
        known = self.frame.duplicated(KEY).to_numpy()
        following = pd.Series(self.kinds).groupby(self._entry_codes()).shift(-1).to_numpy()
        # The message of an entry may wait in the socket while a dump finds the entry: then it is kept, as it
        # tells how the entry was made.
        found = (self.kinds == FOUND) & ~self.first & ~known & (following != NEW)
        return self._entries((self.kinds == NEW) | found)

    def table(self, namespaces: Collection[int]) -> pd.DataFrame:
        """Return the entries that are there after the last message, in namespaces that are there, too."""
        codes = self._entry_codes()
        last = np.zeros(codes.max(initial=-1) + 1, np.intp)
        last[codes] = np.arange(len(codes))  # of equal places the last is kept
        dying = self.frame["status"].astype("string").str.contains("dying", regex=False).fillna(value=False)
        gone = (self.kinds == DESTROY) | self.superseded | dying.to_numpy(dtype=bool)
        gone |= ~self.frame["netns"].isin(namespaces).to_numpy(dtype=bool)
        alive = np.zeros(len(codes), bool)
        alive[last] = ~gone[last]
        entries = self._entries(alive)
        partial = (self.kinds != FOUND)[alive]
        for name in ("state", "timeout_s", "helper", "labels", "secctx", "started_at", "use"):
            entries[name] = _filled(self.frame[name], codes, alive, partial)
        return entries

    def _entry_codes(self) -> npt.NDArray[np.int64]:
        """Return a number for each row that rows of the same entry share."""
        entries = self.frame.groupby(KEY, sort=False, dropna=False, observed=True)
        return entries.ngroup().to_numpy().astype(np.int64)

    def _entries(self, keep: npt.NDArray[np.bool_]) -> pd.DataFrame:
        entries = self.frame.loc[keep, CONNTRACK.names].reset_index(drop=True)
        entries.attrs = {"schema": CONNTRACK.name, "coverage": list(self.frame.attrs["coverage"])}
        return entries


def _filled(
    values: pd.Series,
    codes: npt.NDArray[np.int64],
    rows: npt.NDArray[np.bool_],
    partial: npt.NDArray[np.bool_],
) -> pd.Series:
    """Return the *rows* of a column, missing ones filled with what the same entry had before."""
    known = np.flatnonzero(values.notna().to_numpy())
    latest = np.full(codes.max(initial=-1) + 1, -1)
    latest[codes[known]] = known
    places = np.flatnonzero(rows)
    fill = latest[codes[places]]
    source = np.where(partial & (fill >= 0), fill, places)
    return values.iloc[source].reset_index(drop=True)


@dataclass(frozen=True, slots=True)
class _Joined:
    """Consecutive blocks of events, or one dump, of one namespace."""

    dump: nlmessages.Dump
    at_ns: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    found: bool
    first: bool
    superseded: npt.NDArray[np.bool_]

    def columns(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return what is known of each message beside its attributes."""
        update = np.where(self.dump.flags() & _CREATED == _CREATED, NEW, UPDATE)
        kinds = np.where(self.dump.types() == ctentries.DELETE, DESTROY, update)
        return {
            "at_ns": self.at_ns,
            "order": self.order,
            "place": np.arange(len(kinds)),
            "kind": np.full(len(kinds), FOUND) if self.found else kinds,
            "first": np.full(len(kinds), int(self.first)),
            "superseded": self.superseded.astype(np.int64),
        }


def _blocks_joined(heard: Sequence[Heard]) -> list[_Joined]:
    """Join all blocks of events, so that messages of one layout are decoded together; dumps stay apart."""
    last_dump = max((one.order for one in heard if one.found), default=-1)
    joined = [
        _Joined(
            one.dump,
            one.at_ns,
            np.full(len(one.dump), one.order),
            found=True,
            first=one.first,
            superseded=np.full(len(one.dump), one.order < last_dump),
        )
        for one in heard
        if one.found
    ]
    events = [one for one in heard if not one.found]
    if events:
        dump = nlmessages.Dump.joined([one.dump for one in events])
        order = np.repeat([one.order for one in events], [len(one.dump) for one in events])
        at = np.concatenate([one.at_ns for one in events])
        joined.append(_Joined(dump, at, order, found=False, first=False, superseded=order < last_dump))
    return joined


def _framed(parts: list[Part], column: dict[str, npt.NDArray[np.int64]]) -> pd.DataFrame:
    stamped = [part.entries.numbers["at"] for part in parts]
    by_kernel = np.repeat([stamps is not None for stamps in stamped], [len(part.entries) for part in parts])
    at = column["at_ns"].copy()
    at[by_kernel] = np.concatenate(
        [np.zeros(0, np.int64), *(stamps.astype(np.int64) for stamps in stamped if stamps is not None)]
    )
    frame = ctframe.framed(
        parts,
        [],
        CONNTRACK_EVENTS,
        at=np.ma.array(at),
        clock=pd.Categorical.from_codes(np.where(by_kernel, 0, 1), pd.Index(_CLOCKS)),
        event=pd.Categorical.from_codes(column["kind"], pd.Index(_KINDS)),
    )
    frame["mark"] = frame["mark"].fillna(0)  # an event leaves out the mark 0
    return frame
