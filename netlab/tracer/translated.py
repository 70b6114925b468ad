"""What is known of translations at one moment, and the `nat_*` columns that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from netlab import addresses
from netlab.frames import Gap, Missing
from netlab.kernel import ctlives
from netlab.kernel.ctlives import Entries, Flags
from netlab.kernel.ctwatch import LOOK_AROUND_S
from netlab.tracer import natjoin
from netlab.tracer.layout import AF_INET, Direction
from netlab.tracer.natjoin import Times, Tuples
from netlab.tracer.records import Readable

WHAT = "nat_*"
_LOOPBACK4 = np.frombuffer(bytes(10) + b"\xff\xff\x7f", np.uint8)
_LOOPBACK6 = np.frombuffer(bytes(15) + b"\x01", np.uint8)
_ADDRESSES, _PORTS = ("local_address", "remote_address"), ("local_port", "remote_port")
_DOUBTFUL = (
    "their tuple was used again within moments: the translation may be that of the attempt before or after, "
    "which then may lack it"
)
_REPLACED = (
    "their conntrack entry ended while they were open, and the next one translates them differently: the "
    "columns tell the latest, and what was sent before went elsewhere"
)
_CONTESTED = "conntrack has their tuple in several zones, translated in different ways"
_UNHEARD = (
    "they opened while netlab did not listen to conntrack in their network namespace or the "
    f"host's: one is found up to {LOOK_AROUND_S:g} s after it came, if it is still there; whether they were "
    "translated is not known"
)
_KINDS = {
    _DOUBTFUL: Gap.APPROXIMATE,
    _REPLACED: Gap.APPROXIMATE,
    _CONTESTED: Gap.UNAVAILABLE,
    _UNHEARD: Gap.UNSEEN,
}

Spans: TypeAlias = tuple[tuple[int, int], ...]  # from when until when


@dataclass(frozen=True, slots=True)
class Translated:
    """The `nat_*` columns of attempts, and what they lack."""

    columns: dict[str, Any]
    missing: list[Missing]


@dataclass(frozen=True, slots=True)
class NatTable:
    """The translations known at one moment."""

    entries: Entries
    host: int  # inode
    missing: list[Missing]
    listened: Mapping[int, Spans] = field(default_factory=dict)  # by the namespace's inode
    since_ns: int = ctlives.NEVER  # nothing was translated before, or somebody listened everywhere

    @classmethod
    def nothing(cls, *missing: Missing) -> NatTable:
        """Know no translation."""
        return cls(np.empty(0, ctlives.LIFE), 0, list(missing))

    def of(self, attempts: Readable) -> Translated:
        """Look the attempts up in their own namespace, and what leaves it in the host's."""
        closed_ns = attempts["closed_ns"].astype(np.int64)
        times = Times(
            attempts["opened_ns"].astype(np.int64),
            np.where(closed_ns == 0, ctlives.NEVER, closed_ns),
            attempts["direction"] == Direction.OUTGOING,
        )
        if not len(self.entries):
            return Translated({}, self._gaps({_UNHEARD: self._unheard(attempts["netns"], times)}))
        return self.beyond(_tuples(attempts), times)

    def beyond(self, before: Tuples, times: Times) -> Translated:
        """Look up tuples of sockets, as they were at the time of each."""
        own = natjoin.beyond(before, times, self.entries)
        after, doubtful, contested, replaced = own.tuples, own.doubtful, own.contested, own.replaced
        out = np.flatnonzero((before["netns"] != self.host) & ~contested & ~_stays(after))
        leaving = after[out]
        leaving["netns"] = self.host
        there = natjoin.beyond(leaving, times.where(out), self.entries)
        there.tuples["netns"] = before["netns"][out]
        after[out] = there.tuples
        doubtful[out] |= there.doubtful
        contested[out] |= there.contested
        replaced[out] |= there.replaced
        after[contested] = before[contested]
        translated = after != before
        gaps = self._gaps(
            {
                _DOUBTFUL: doubtful & ~contested,
                _REPLACED: replaced & ~contested,
                _CONTESTED: contested,
                _UNHEARD: self._unheard(before["netns"], times) & ~translated,
            }
        )
        return Translated(_columns(after, translated), gaps)

    def _gaps(self, found: Mapping[str, Flags]) -> list[Missing]:
        """Return what is missing in general, and in the rows *found* by the reason."""
        counts = {detail: int(np.count_nonzero(which)) for detail, which in found.items()}
        gaps = [Missing(WHAT, _KINDS[detail], count, detail) for detail, count in counts.items() if count]
        return [*self.missing, *gaps]

    def _unheard(self, netns: npt.NDArray[Any], times: Times) -> Flags:
        """Tell which opened while nobody listened in their namespace, or in the host's."""
        unheard = ~self._within(self.host, times.opened_ns)
        order = np.argsort(netns, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(netns[order])) + 1):
            if len(rows):
                unheard[rows] |= ~self._within(int(netns[rows[0]]), times.opened_ns[rows])
        return unheard & (times.opened_ns >= self.since_ns)

    def _within(self, inode: int, moments_ns: npt.NDArray[Any]) -> Flags:
        """Tell at which moments somebody listened in the namespace."""
        within = np.zeros(len(moments_ns), bool)
        for since_ns, until_ns in self.listened.get(inode, ()):
            within |= (moments_ns >= since_ns) & (moments_ns < until_ns)
        return within


def _tuples(attempts: Readable) -> Tuples:
    return tuples_of(attempts, attempts["protocol"], attempts["netns"])


def tuples_of(ends: Readable, protocol: npt.NDArray[Any], netns: npt.NDArray[Any]) -> Tuples:
    """Return the tuples of records with addresses, ports and a family; IPv4 fills the first four bytes."""
    tuples = np.empty(len(ends), natjoin.TUPLE)
    tuples["protocol"], tuples["netns"] = protocol, netns
    four = ends["family"] == AF_INET
    for name in _PORTS:
        tuples[name] = ends[name]
    for name in _ADDRESSES:
        tuples[name] = ends[name]
        tuples[name][four] = ctlives.mapped(ends[name][four, :4])
    return tuples


def _stays(tuples: Tuples) -> Flags:
    """Tell which packets do not leave their namespace: every one has the same loopback addresses."""
    stays = np.zeros(len(tuples), bool)
    for name in _ADDRESSES:
        stays |= (tuples[name][:, : len(_LOOPBACK4)] == _LOOPBACK4).all(axis=1)
        stays |= (tuples[name] == _LOOPBACK6).all(axis=1)
    return stays


def _columns(tuples: Tuples, translated: Flags) -> dict[str, Any]:
    if not translated.any():
        return {}
    rows = pa.array(np.cumsum(translated) - 1, mask=~translated)
    texts = {name: addresses.ipv6_text(tuples[name][translated]).take(rows) for name in _ADDRESSES}
    return {f"nat_{name}": addresses.column([text]) for name, text in texts.items()} | {
        f"nat_{name}": np.ma.array(tuples[name], mask=~translated) for name in _PORTS
    }
