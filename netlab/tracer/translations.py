"""What conntrack translates while a capture runs, and the `nat_*` columns of its attempts."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from netlab import addresses
from netlab.errors import BadInput, NetlabError
from netlab.frames import Gap, Missing
from netlab.kernel import capabilities, clock, conntrack, ctlives, netlink, netns as namespaces, spaces
from netlab.kernel.ctlisten import Group, Listener
from netlab.kernel.ctlives import Entries, Flags, Lives
from netlab.kernel.ctwanted import Wanted
from netlab.kernel.ctwatch import LOOK_AROUND_S, Watch
from netlab.tracer import natjoin
from netlab.tracer.layout import Direction
from netlab.tracer.natjoin import Times, Tuples
from netlab.tracer.records import Attempts

_AF_INET = 2
_INIT = 1
# Until a rule loads it nothing is translated; to listen would load it.
_CONNTRACK = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_LOOPBACK4 = np.frombuffer(bytes(10) + b"\xff\xff\x7f", np.uint8)
_LOOPBACK6 = np.frombuffer(bytes(15) + b"\x01", np.uint8)
_ADDRESSES, _PORTS = ("local_address", "remote_address"), ("local_port", "remote_port")
_WHAT = "nat_*"

_NOT_ASKED = "{}(nat=True) looks translations up"
_SILENT = (
    "net.netfilter.nf_conntrack_events is 0 in so many network namespaces: only entries that were there when "
    "netlab looked are known. Run there: sysctl -w net.netfilter.nf_conntrack_events=1"
)
_LATE = (
    "network namespaces that were made, or whose conntrack was loaded, after the start, and were found up to "
    f"{LOOK_AROUND_S:g} s later: of entries from before only those that were still there are known"
)
_DOUBTFUL = (
    "their tuple was used again within moments: the translation may be that of the attempt before or after, "
    "which then may lack it"
)
_CONTESTED = "conntrack has their tuple in several zones, translated in different ways"


@dataclass(frozen=True, slots=True)
class Host:
    """The namespace that translates beside each connection's own."""

    inode: int
    file: Path


@dataclass(frozen=True, slots=True)
class Translated:
    """The `nat_*` columns of attempts, and what they lack."""

    columns: dict[str, Any]
    missing: list[Missing]


@dataclass(frozen=True, slots=True)
class Known:
    """The translations known at one moment."""

    entries: Entries
    host: int  # inode
    missing: list[Missing]

    @classmethod
    def nothing(cls, *missing: Missing) -> Known:
        """Know no translation."""
        return cls(np.empty(0, ctlives.LIFE), 0, list(missing))

    def of(self, attempts: Attempts) -> Translated:
        """Look the attempts up in their own namespace, and what leaves it in the host's."""
        if not len(self.entries):
            return Translated({}, self.missing)
        closed_ns = attempts["closed_ns"].astype(np.int64)
        times = Times(
            attempts["opened_ns"].astype(np.int64),
            np.where(closed_ns == 0, ctlives.NEVER, closed_ns),
            attempts["direction"] == Direction.OUTGOING,
        )
        return self.beyond(_tuples(attempts), times)

    def beyond(self, before: Tuples, times: Times) -> Translated:
        """Look up tuples of sockets, as they were at the time of each."""
        own = natjoin.beyond(before, times, self.entries)
        after, doubtful, contested = own.tuples, own.doubtful, own.contested
        out = np.flatnonzero((before["netns"] != self.host) & ~contested & ~_stays(after))
        leaving = after[out]
        leaving["netns"] = self.host
        there = natjoin.beyond(leaving, times.where(out), self.entries)
        there.tuples["netns"] = before["netns"][out]
        after[out] = there.tuples
        doubtful[out] |= there.doubtful
        contested[out] |= there.contested
        after[contested] = before[contested]
        gaps = [
            Missing(_WHAT, Gap.APPROXIMATE, int(np.count_nonzero(doubtful & ~contested)), _DOUBTFUL),
            Missing(_WHAT, Gap.UNAVAILABLE, int(np.count_nonzero(contested)), _CONTESTED),
        ]
        return Translated(
            _columns(after, after != before), [*self.missing, *(gap for gap in gaps if gap.count)]
        )


def _tuples(attempts: Attempts) -> Tuples:
    return tuples_of(attempts, attempts["protocol"], attempts["netns"])


def tuples_of(ends: npt.NDArray[np.void], protocol: npt.NDArray[Any], netns: npt.NDArray[Any]) -> Tuples:
    """Return the tuples of records with addresses, ports and a family; IPv4 fills the first four bytes."""
    tuples = np.empty(len(ends), natjoin.TUPLE)
    tuples["protocol"], tuples["netns"] = protocol, netns
    four = ends["family"] == _AF_INET
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


class Translations(Watch):
    """Follows what is translated in the namespaces *wanted* (none: all) and on the *host*."""

    def __init__(self, host: Host, wanted: Collection[int], most: int) -> None:
        self._host, self._wanted, self._most = host, frozenset(wanted), most
        self._lives = Lives(most)
        super().__init__(self._namespaces, again=True, groups=Group.NEW | Group.DESTROY)

    def now(self) -> Known:
        """Return what is known of everything that happened until now; after the end, until then."""
        gaps = []
        try:
            self._catch_up(settle=True)
        except NetlabError as error:
            gaps.append(Missing(_WHAT, Gap.INCOMPLETE, None, str(error)))
        entries = self._lives.all() if self._stop.is_set() else self._thread.submit(self._lives.all).result()
        return Known(entries, self._host.inode, [*gaps, *self._gaps()])

    def _gaps(self) -> list[Missing]:
        listeners = self._all()
        lost, refused, dumps = (
            sum(getattr(one, name) for one in listeners) for name in ("lost", "refused", "resyncs")
        )
        failures = [*self._refusals, *(one for listener in listeners for one in listener.unanswered)]
        gaps = [
            Missing(
                _WHAT,
                Gap.LOST,
                lost,
                f"messages found the socket's buffer full; {dumps} dumps made up for it",
            ),
            Missing(_WHAT, Gap.LOST, refused, "messages of conntrack were cut, or not from the kernel"),
            Missing(
                _WHAT, Gap.LOST, self._lives.dropped, f"only {self._most} translations are kept, the latest"
            ),
            Missing(_WHAT, Gap.UNAVAILABLE, sum(one.setting == 0 for one in listeners), _SILENT),
            Missing(_WHAT, Gap.UNSEEN, self._late, _LATE),
            Missing(_WHAT, Gap.UNAVAILABLE, len(failures), str(failures[0]) if failures else ""),
        ]
        return [gap for gap in gaps if gap.count]

    # What follows runs in the thread.

    def _namespaces(self) -> dict[int, Path]:
        if not _CONNTRACK.exists():
            return {}
        there = {self._host.inode: self._host.file} | namespaces.everywhere()
        return {
            inode: file
            for inode, file in there.items()
            if not self._wanted or inode in self._wanted or inode == self._host.inode
        }

    def _joined(self, listener: Listener) -> None:
        for heard in listener.taken():
            self._lives.hear(listener.inode, heard)

    def _take_from(self, listener: Listener, *, settle: bool) -> None:
        listener.receive(self._receiver, self._orders)
        untold = listener.stale or listener.setting == 0
        listener.resync(next(self._orders), force=settle and untold)
        self._joined(listener)

    def _gone(self, listener: Listener) -> None:
        now_ns = clock.now_ns()
        self._lives.leave(listener.inode, now_ns - round(2 * LOOK_AROUND_S * 1e9), now_ns)


class NoTranslations:
    """Stands in where translations are not looked up; *missing* says why."""

    def __init__(self, missing: Missing) -> None:
        self._missing = missing

    def now(self) -> Known:
        """Return that nothing is known."""
        return Known.nothing(self._missing)

    def close(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""


def begin(host: Host | None, wanted: Collection[int], most: int) -> Translations | NoTranslations:
    """Follow translations where that is asked for and possible."""
    if host is None:
        return NoTranslations(Missing(_WHAT, Gap.UNAVAILABLE, None, _NOT_ASKED.format("netlab.capture")))
    try:
        capabilities.require("CAP_NET_ADMIN", doing="look translations up")
        return Translations(host, wanted, most)
    except NetlabError as error:
        return NoTranslations(Missing(_WHAT, Gap.UNAVAILABLE, None, str(error)))


def of_open(host: Host | None, tuples: Tuples) -> Translated:
    """Return the translations of sockets that are open now, by a dump of their namespaces and the host's."""
    if host is None:
        detail = _NOT_ASKED.format("netlab.connections")
        return Translated({}, [Missing(_WHAT, Gap.UNAVAILABLE, None, detail)])
    if not _CONNTRACK.exists():
        return Translated({}, [])
    everything = np.full(len(tuples), ctlives.NEVER)
    times = Times(np.zeros(len(tuples), np.int64), everything, np.ones(len(tuples), bool))
    wanted = {*np.unique(tuples["netns"]).tolist(), host.inode}
    try:
        capabilities.require("CAP_NET_ADMIN", doing="look translations up")
        answers = spaces.ask(spaces.ALL, _dump, only=wanted)
        dumps = (
            answers.by_inode
            if host.inode in answers.by_inode
            else {**answers.by_inode, **spaces.ask(host.file, _dump).by_inode}
        )
    except NetlabError as error:
        return Translated({}, [Missing(_WHAT, Gap.UNAVAILABLE, None, str(error))])
    missing = [Missing(_WHAT, gap.kind, gap.count, f"{gap.what}: {gap.detail}") for gap in answers.missing]
    if any(dump.interrupted for dump in dumps.values()):
        missing.append(replace(netlink.INTERRUPTED, what=_WHAT))
    entries = [ctlives.listed(inode, dump) for inode, dump in dumps.items()]
    known = Known(np.concatenate([np.empty(0, ctlives.LIFE), *entries]), host.inode, missing)
    return known.beyond(tuples, times)


def _dump() -> netlink.Dump:
    return conntrack.dump(Wanted())


def host_of(netns: bool | namespaces.NetNs) -> Host | None:  # noqa: FBT001 - what users say
    """Return the namespace that *netns* stands for: True is that of process 1, as far as it can be seen."""
    if netns is False:
        return None
    if netns is None:
        raise BadInput("nat is None", fix="Give True, False or a network namespace")
    if netns is not True:
        return Host(namespaces.inode(netns), namespaces.path(netns))
    try:
        return Host(namespaces.inode(_INIT), namespaces.path(_INIT))
    except NetlabError:  # only root sees it, and a container has no other
        return Host(namespaces.inode(), Path(f"/proc/{os.getpid()}/ns/net"))
