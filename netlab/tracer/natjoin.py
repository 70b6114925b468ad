"""Which conntrack entry is a connection's: the one with its tuple, in its network namespace, in its time.

Tuples are used again. The attempts of one tuple are in order, and so are the entries: an entry belongs to the
first attempt that had not closed when it was made. Where the times overlap, because it is only known between
which two readings an entry was made, they are counted off: each attempt has one entry of its own if there are
enough of them. An attempt that made no entry uses the one that is still there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from netlab.kernel import keys
from netlab.kernel.ctlives import Entries

TUPLE = np.dtype(
    [
        ("netns", "u4"),
        ("protocol", "u1"),
        ("local_address", "u1", 16),
        ("local_port", "u2"),
        ("remote_address", "u1", 16),
        ("remote_port", "u2"),
    ]
)
# One entry serves both ends. The one that opened the connection sees the original tuple, and the world beyond
# the translation sees the reply's; the one that accepted it sees the reply tuple.
_ENDS = ["local_address", "local_port", "remote_address", "remote_port"]
_SIDES = [
    (["src", "sport", "dst", "dport"], ["reply_dst", "reply_dport", "reply_src", "reply_sport"]),
    (["reply_src", "reply_sport", "reply_dst", "reply_dport"], ["dst", "dport", "src", "sport"]),
]
_EARLY_NS = 10_000_000  # an entry is made when the first packet leaves, which may be just before it is seen
_NOTHING = -1

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Tuples = npt.NDArray[np.void]  # of TUPLE


@dataclass(frozen=True, slots=True)
class Times:
    """When attempts began and ended, by the kernel's clock; 0 and `NEVER` where it is not known."""

    opened_ns: Numbers
    closed_ns: Numbers
    outgoing: Flags

    def where(self, keep: npt.NDArray[np.intp] | Flags) -> Times:
        """Return only the attempts that *keep* selects."""
        return Times(self.opened_ns[keep], self.closed_ns[keep], self.outgoing[keep])


@dataclass(frozen=True, slots=True)
class Found:
    """What became of tuples; the arrays are as long as they."""

    tuples: Tuples  # as they are beyond the translation, or as they were
    translated: Flags
    doubtful: Flags  # the attempt before or after may have made the entry
    contested: Flags  # entries of several zones say different things: none was taken
    replaced: Flags  # an entry that says something else was there before, in the attempt's time


def beyond(tuples: Tuples, times: Times, entries: Entries) -> Found:
    """Return what the namespaces of the *tuples* translate them to, at the time of each."""
    found = Found(tuples.copy(), *np.zeros((4, len(tuples)), bool))
    codes, distinct = keys.numbered(keys.packed(tuples, TUPLE.names or ()))
    sides = _sides(entries, distinct)
    known = np.zeros(len(tuples), bool)
    for zone in range(int(sides.zone.max(initial=_NOTHING)) + 1):  # of most tuples there is one
        here = sides.where(sides.zone == zone)
        rows = np.flatnonzero(np.isin(codes, here.codes))
        place, doubtful, replaced = _matched(codes[rows], times.where(rows), here)
        hit = rows[place != _NOTHING]
        after = keys.chosen(here.after, place[place != _NOTHING])
        differs = known[hit] & (after != found.tuples[hit])
        found.contested[hit[differs]] = True
        found.tuples[hit] = after
        found.doubtful[rows] |= doubtful
        found.replaced[rows] |= replaced & ~doubtful
        known[hit] = True
    found.tuples[found.contested] = tuples[found.contested]
    found.translated[:] = found.tuples != tuples
    return found


@dataclass(frozen=True, slots=True)
class _Sides:
    """Entries as one end of their connection sees them, in the order of codes, zones and arrival."""

    codes: Numbers  # of the tuple
    zone: Numbers  # counted from 0 in each code
    entries: Entries
    after: Tuples

    def where(self, keep: Flags | npt.NDArray[np.intp]) -> _Sides:
        return _Sides(
            self.codes[keep], self.zone[keep], keys.chosen(self.entries, keep), keys.chosen(self.after, keep)
        )


def _sides(entries: Entries, distinct: pa.Array) -> _Sides:
    """Return the sides of the entries that are among the *distinct* tuples."""
    codes, rows, after = [], [], []
    for here, there in _SIDES:
        place = keys.places(keys.packed(entries, ["netns", "protocol", *here]), distinct)
        mine = np.flatnonzero(place != _NOTHING)
        seen = np.empty(len(mine), TUPLE)
        for name in ("netns", "protocol"):
            seen[name] = entries[name][mine]
        for ours, theirs in zip(_ENDS, there, strict=True):
            seen[ours] = entries[theirs][mine]
        codes.append(place[mine])
        rows.append(mine)
        after.append(seen)
    code, row = np.concatenate(codes), np.concatenate(rows)
    chosen = keys.chosen(entries, row)
    order = np.lexsort((chosen["order"], chosen["zone"], code))
    code, chosen = code[order], keys.chosen(chosen, order)
    same_code = code[1:] == code[:-1]
    steps = np.concatenate([[0], same_code & (chosen["zone"][1:] != chosen["zone"][:-1])])[: len(code)]
    number = np.cumsum(steps)
    starts = np.concatenate([[0], np.flatnonzero(~same_code) + 1])[: len(code)]
    zone = number - np.repeat(number[starts], np.diff(np.append(starts, len(code)))) if len(code) else number
    return _Sides(code, zone, chosen, keys.chosen(keys.joined(after, TUPLE), order))


def _matched(codes: Numbers, times: Times, sides: _Sides) -> tuple[Numbers, Flags, Flags]:
    """Return the place of each attempt's entry, whether it may be another attempt's, and if it replaced one.

    There is one zone for each code.
    """
    place, (doubtful, replaced) = np.full(len(codes), _NOTHING), np.zeros((2, len(codes)), bool)
    order = np.lexsort((times.opened_ns, times.closed_ns, codes))
    codes, times = codes[order], times.where(order)
    owners, first, last = _owners(codes, times, sides)
    owned = np.flatnonzero(owners != _NOTHING)  # the others were made when every attempt was over
    if not len(owned):
        return place, doubtful, replaced
    attempts = np.arange(len(codes))
    newest = np.searchsorted(owners[owned], attempts, side="right") - 1
    entry = owned[newest.clip(min=0)]
    begun_with = owners[entry] == attempts
    since, until = (sides.entries[name][entry] for name in ("ended_since_ns", "ended_until_ns"))
    there = np.where(begun_with, until >= times.opened_ns, since > times.opened_ns)
    same = (newest >= 0) & (sides.codes[entry] == codes)
    taken = there & same
    place[order[taken]] = entry[taken]
    doubtful[order] = same & (first[entry] < last[entry]) & (attempts <= last[entry])
    before, after = owned[:-1], owned[1:]
    again = (owners[before] == owners[after]) & (sides.after[before] != sides.after[after])
    again &= sides.entries["ended_since_ns"][before] >= times.opened_ns[owners[before]]
    replaced[order[owners[after[again]]]] = True
    return place, doubtful, replaced


def _owners(codes: Numbers, times: Times, sides: _Sides) -> tuple[Numbers, Numbers, Numbers]:
    """Return the attempt that made each entry, by its place, and the first and the last that can have.

    The attempts are in the order of codes and ends, the entries in that of codes and arrival.
    """
    after_another = np.concatenate([[False], codes[1:] == codes[:-1]])
    begun_ns = np.where(after_another, np.concatenate([[0], times.closed_ns[:-1]]), 0)
    early_ns = np.where(times.outgoing, times.opened_ns - _EARLY_NS, 0)
    ends, begins, since, until = _in_line(
        (codes, times.closed_ns),
        (codes, np.maximum(begun_ns, early_ns)),
        (sides.codes, sides.entries["made_since_ns"]),
        (sides.codes, sides.entries["made_until_ns"]),
    )
    first = np.searchsorted(ends, since)
    last = np.searchsorted(np.maximum.accumulate(begins), until, side="right") - 1
    somebody = first < len(codes)
    somebody[somebody] = codes[first[somebody]] == sides.codes[somebody]
    # Others were there before the attempt, which found them or not.
    own = somebody & (last >= first)
    own[own] = sides.entries["ended_until_ns"][own] >= times.opened_ns[first[own]]
    last = np.maximum(first, last)
    group = np.cumsum(np.concatenate([[0], sides.codes[1:] != sides.codes[:-1]])[: len(own)])
    apart = group * (len(own) + 1) - np.cumsum(own)  # counting off begins anew in each group
    counted = np.maximum.accumulate(first - ~own + apart) - apart
    owners = np.maximum.accumulate(np.clip(counted, first, last))
    return np.where(somebody, owners, _NOTHING), first, np.where(own, last, first)


def _in_line(*moments: tuple[Numbers, Numbers]) -> list[Numbers]:
    """Return numbers that are in order as the pairs of code and time are."""
    _, ranks = np.unique(np.concatenate([time for _, time in moments]), return_inverse=True)
    ends = np.cumsum([len(time) for _, time in moments])[:-1]
    return [(code << 32) | rank for (code, _), rank in zip(moments, np.split(ranks, ends), strict=True)]
