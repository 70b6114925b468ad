"""How long each conntrack entry lived, and what it translated: told by its messages, kept when it is gone.

The kernel's message about an entry has no time unless nf_conntrack_timestamp is on. What is known is between
which two readings of the socket it came; so a life has for its begin and its end the earliest and the latest
moment, by the kernel's own clock.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from netlab.kernel import ctentries, ctframe, keys, nlmessages
from netlab.kernel.ctlisten import Heard

NEVER = np.iinfo(np.int64).max

LIFE = np.dtype(
    [
        ("src", "u1", 16),  # an IPv4 address is mapped into IPv6
        ("dst", "u1", 16),
        ("reply_src", "u1", 16),
        ("reply_dst", "u1", 16),
        ("made_since_ns", "i8"),
        ("made_until_ns", "i8"),
        ("ended_since_ns", "i8"),
        ("ended_until_ns", "i8"),
        ("order", "u8"),  # of arrival
        ("netns", "u4"),
        ("zone", "u4"),  # above its 16 bits the direction, if it is of one only
        ("id", "u4"),
        ("sport", "u2"),
        ("dport", "u2"),
        ("reply_sport", "u2"),
        ("reply_dport", "u2"),
        ("protocol", "u1"),
        ("kind", "u1"),
        ("padding", "u1", 2),
    ]
)
_NEW, _FOUND, _DESTROY = range(3)
_ENTRY = ["netns", "zone", "protocol", "src", "dst", "sport", "dport"]
_NUMBERS = ["id", "sport", "dport", "reply_sport", "reply_dport", "protocol"]
_FOLLOWED = (6, 17)  # TCP and UDP
_AT_ONCE = 8192  # messages that wait before they are looked at
_PREFIX = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)  # RFC 4291 section 2.5.5.2

Entries = npt.NDArray[np.void]  # of LIFE
Flags = npt.NDArray[np.bool_]


class Lives:
    """The lives of TCP and UDP entries that translate; at most about *most*, the oldest go first.

    Where one namespace has several zones, those that do not translate are kept as well: they tell that a
    tuple is not the one of another zone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._live = np.empty(0, LIFE)
        self._over: list[Entries] = []
        self._waiting: dict[int, list[Heard]] = {}
        self._waiting_messages = 0
        self._zoned: set[int] = set()
        self._following = 0
        self.dropped = 0

    def hear(self, inode: int, heard: Heard) -> None:
        """Take note of the events or of the dump of a namespace, in the order they came in."""
        if heard.found:
            self._find(inode, heard)
            return
        self._waiting.setdefault(inode, []).append(heard)
        self._waiting_messages += len(heard.dump)
        if self._waiting_messages > max(_AT_ONCE, len(self._live) // 2):
            self._settle()

    def leave(self, inode: int, since_ns: int, until_ns: int) -> None:
        """End what lives in a namespace that is gone: another may get its number."""
        self._settle()
        self._end(self._live["netns"] == inode, since_ns, until_ns)
        self._zoned.discard(inode)

    def all(self) -> Entries:
        """Return every life that is kept."""
        self._settle()
        self._over = [keys.joined(self._over, LIFE)]
        return keys.joined([*self._over, self._live], LIFE)

    def _find(self, inode: int, heard: Heard) -> None:
        """Compare what a dump found with what should be there."""
        self._settle()
        found = self._numbered(messages(inode, [heard]))
        if not heard.dump.interrupted:  # else an entry may be there and not listed
            here = self._live["netns"] == inode
            known = [*_ENTRY, "id"]
            lacking = keys.places(keys.packed(self._live, known), keys.packed(found, known).unique()) < 0
            self._end(here & lacking, heard.since_ns, heard.until_ns)
        self._tell(found)

    def _settle(self) -> None:
        """Look at what waits."""
        waiting, self._waiting, self._waiting_messages = self._waiting, {}, 0
        if waiting:
            told = [messages(inode, heard) for inode, heard in waiting.items()]
            self._tell(self._numbered(keys.joined(told, LIFE)))

    def _numbered(self, entries: Entries) -> Entries:
        entries["order"] = np.arange(self._following, self._following + len(entries))
        self._following += len(entries)
        return entries

    def _tell(self, entries: Entries) -> None:
        self._zoned |= set(entries["netns"][entries["zone"] != 0].tolist())
        known = lives(keys.joined([self._live, entries], LIFE))
        keep = translates(known) | np.isin(known["netns"], list(self._zoned))
        known = keys.chosen(known, keep)
        ended = known["ended_until_ns"] != NEVER
        self._live = keys.chosen(known, ~ended)
        self._put_away(keys.chosen(known, ended))

    def _end(self, which: Flags, since_ns: int, until_ns: int) -> None:
        over = keys.chosen(self._live, which)
        over["ended_since_ns"], over["ended_until_ns"] = since_ns, until_ns
        self._live = keys.chosen(self._live, ~which)
        self._put_away(over)

    def _put_away(self, over: Entries) -> None:
        self._over.append(over)
        kept = sum(map(len, self._over)) + len(self._live)
        while kept > self._most and self._over:
            oldest = self._over.pop(0)
            rest = oldest[kept - self._most :]
            if len(rest):
                self._over.insert(0, rest)
            self.dropped += len(oldest) - len(rest)
            kept -= len(oldest) - len(rest)
        if kept > self._most:
            self._live = self._live[kept - self._most :]
            self.dropped += kept - self._most


def listed(inode: int, dump: nlmessages.Dump) -> Entries:
    """Return the entries that a dump of a namespace listed, as living now."""
    nothing = np.zeros(len(dump), np.int64)
    return lives(messages(inode, [Heard(dump, nothing, 0, found=True, first=True, since_ns=0, until_ns=0)]))


def messages(inode: int, heard: Sequence[Heard]) -> Entries:
    """Return what was heard in a namespace, one record for each message about TCP or UDP.

    Of an end the begin is not known, and of a begin the end.
    """
    dump = nlmessages.Dump.joined([one.dump for one in heard])
    counts = [len(one.dump) for one in heard]
    told = np.zeros(len(dump), LIFE)
    found = np.repeat([one.found for one in heard], counts)
    delete = dump.types() == ctentries.DELETE
    told["netns"] = inode
    told["kind"] = np.select([found, delete], [_FOUND, _DESTROY], _NEW)
    since, until = (
        np.repeat([getattr(one, name) for one in heard], counts) for name in ("since_ns", "until_ns")
    )
    to_utc = np.repeat([one.at_ns[0] - one.until_ns if len(one.at_ns) else 0 for one in heard], counts)
    told["made_since_ns"], told["made_until_ns"] = np.where(delete, 0, since), until
    told["ended_since_ns"] = np.where(delete, since, NEVER)
    told["ended_until_ns"] = np.where(delete, until, NEVER)
    for group in dump.groups(ctframe.BODY):
        _fill(told, group.rows, ctentries.decoded(group), to_utc)
    return told[np.isin(told["protocol"], _FOLLOWED)]


def _fill(
    told: Entries, rows: nlmessages.Rows, entries: ctentries.Entries, to_utc_ns: npt.NDArray[np.int64]
) -> None:
    for name, octets in entries.places.items():
        told[name][rows] = mapped(octets)
    for name in _NUMBERS:
        numbers = entries.numbers[name]
        if numbers is not None:
            told[name][rows] = numbers
    zone, direction = entries.numbers["zone"], entries.numbers["zone_direction"]
    told["zone"][rows] = zone if direction is None else zone + (direction << 16)  # type: ignore[operator]
    _stamp(told, rows, entries, to_utc_ns)


def _stamp(
    told: Entries, rows: nlmessages.Rows, entries: ctentries.Entries, to_utc_ns: npt.NDArray[np.int64]
) -> None:
    """Narrow the moments down to what the kernel says, if it does: of a begin only since Linux 6.14."""
    kind = told["kind"][rows]
    for ours, theirs, known in (
        ("made", "at", kind == _NEW),
        ("made", "started_at", kind >= 0),
        ("ended", "stopped_at", kind == _DESTROY),
    ):
        stamps = entries.numbers[theirs]
        if stamps is not None:
            mine = rows[known]
            at_ns = stamps[known].astype(np.int64) - to_utc_ns[mine]
            since, until = f"{ours}_since_ns", f"{ours}_until_ns"
            # A stamp from before UTC was set says nothing.
            within = (at_ns >= told[since][mine]) & (at_ns <= told[until][mine])
            told[since][mine[within]] = told[until][mine[within]] = at_ns[within]


def mapped(octets: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return addresses of one family in 16 bytes each."""
    if octets.shape[1] == 16:
        return octets
    return np.hstack([np.broadcast_to(_PREFIX, (len(octets), len(_PREFIX))), octets])


def lives(told: Entries) -> Entries:
    """Put what was told of each entry into one record: its begin, and its end if it has one.

    A tuple has one entry at a time in its zone: where another follows, the first has ended by then.
    """
    if not len(told):
        return told
    codes, _ = keys.numbered(keys.packed(told, _ENTRY))
    order = np.lexsort((told["order"], codes))
    told, codes = keys.chosen(told, order), codes[order]
    before, after = told[:-1], told[1:]
    same_tuple = codes[1:] == codes[:-1]
    # What a dump finds may be told of later; an entry made after it may have the id of the one before.
    later = after["made_since_ns"] >= before["made_until_ns"]
    made_anew = (after["kind"] == _NEW) & ((before["kind"] == _NEW) | later)
    goes_on = same_tuple & (before["id"] == after["id"]) & (before["kind"] != _DESTROY) & ~made_anew
    first = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    last = np.append(first[1:], len(told)) - 1
    known = keys.chosen(told, first)
    for name in ("ended_since_ns", "ended_until_ns"):
        known[name] = told[name][last]
    followed = np.append(same_tuple[last[:-1]], [False]) & (known["ended_until_ns"] == NEVER)
    following = np.flatnonzero(followed) + 1
    known["ended_since_ns"][followed] = known["made_since_ns"][following]
    known["ended_until_ns"][followed] = known["made_until_ns"][following]
    return known


def translates(entries: Entries) -> Flags:
    """Tell which entries have a reply that is not the mirror image of the original."""
    same: Flags = (entries["sport"] == entries["reply_dport"]) & (entries["dport"] == entries["reply_sport"])
    same &= (entries["src"] == entries["reply_dst"]).all(axis=1)
    same &= (entries["dst"] == entries["reply_src"]).all(axis=1)
    return ~same
