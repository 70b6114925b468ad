"""Conntrack followed while a capture runs, or listed once: what it translates."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from netlab.errors import BadInput, NetlabError
from netlab.frames import Gap, Missing
from netlab.kernel import (
    capabilities,
    clock,
    conntrack,
    ctlives,
    keys,
    netlink,
    netns as namespaces,
    nlmessages,
    spaces,
)
from netlab.kernel.ctlisten import Group, Listener
from netlab.kernel.ctlives import Lives
from netlab.kernel.ctwanted import Wanted
from netlab.kernel.ctwatch import LOOK_AROUND_S, Watch
from netlab.tracer.natjoin import Times, Tuples
from netlab.tracer.translated import WHAT, NatTable, Spans, Translated

_INIT = 1
# Until a rule loads it nothing is translated; to listen would load it.
_CONNTRACK = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_MOST_SPANS = 64  # of one inode, which the kernel uses again: who asks about older ones is told too much
_NOT_ASKED = "{}(nat=True) looks translations up"
_SILENT = (
    "net.netfilter.nf_conntrack_events is 0 in so many network namespaces: only entries that were there when "
    "netlab looked are known. Run there: sysctl -w net.netfilter.nf_conntrack_events=1"
)

_SILENCED = (
    "net.netfilter.nf_conntrack_events was set to 0 in so many network namespaces while netlab listened: of "
    "entries made while it was, only those that were there when netlab looked are known"
)


@dataclass(frozen=True, slots=True)
class Host:
    """The namespace that translates beside each connection's own."""

    inode: int
    file: Path

    def still_there(self) -> dict[int, Path]:
        """Return it as `netlab.kernel.netns.everywhere` does; nothing when its file is gone, or another's."""
        with suppress(NetlabError):
            if namespaces.inode(self.file) == self.inode:
                return {self.inode: self.file}
        return {}


class Translations(Watch):
    """Follows what is translated in the namespaces *wanted* (none: all) and on the *host*."""

    def __init__(self, host: Host, wanted: Collection[int], most: int) -> None:
        self._host, self._wanted, self._most = host, frozenset(wanted), most
        self._lives = Lives(most)
        self._listened: dict[int, Spans] = {}
        self._since_ns = 0  # nothing was translated before
        super().__init__(self._namespaces, again=True, groups=Group.NEW | Group.DESTROY)

    def now(self) -> NatTable:
        """Return what is known of everything that happened until now; after the end, until then."""
        gaps = []
        try:
            self._catch_up(settle=True)
        except NetlabError as error:
            gaps.append(Missing(WHAT, Gap.INCOMPLETE, None, str(error)))
        entries = self._lives.all() if self._stop.is_set() else self._done(self._lives.all)
        gaps += self._gaps()
        return NatTable(entries, self._host.inode, gaps, self._listened.copy(), self._since_ns)

    def _gaps(self) -> list[Missing]:
        listeners = self._all()
        lost, refused, dumps = (
            sum(getattr(one, name) for one in listeners) for name in ("lost", "refused", "resyncs")
        )
        failures = self._failures()
        gaps = [
            Missing(
                WHAT,
                Gap.LOST,
                lost,
                f"messages found the socket's buffer full; {dumps} dumps made up for it",
            ),
            Missing(WHAT, Gap.LOST, refused, "messages of conntrack were cut, or not from the kernel"),
            Missing(
                WHAT, Gap.LOST, self._lives.dropped, f"only {self._most} translations are kept, the latest"
            ),
            Missing(WHAT, Gap.UNAVAILABLE, sum(one.began_silent for one in listeners), _SILENT),
            Missing(WHAT, Gap.UNSEEN, sum(one.silenced_ns is not None for one in listeners), _SILENCED),
            Missing(WHAT, Gap.UNAVAILABLE, len(failures), str(failures[0]) if failures else ""),
        ]
        return [gap for gap in gaps if gap.count]

    # What follows runs in the thread.

    def _namespaces(self) -> dict[int, Path]:
        if not _CONNTRACK.exists():
            self._since_ns = clock.now_ns()
            return {}
        there = self._host.still_there() | namespaces.everywhere()
        return {
            inode: file
            for inode, file in there.items()
            if not self._wanted or inode in self._wanted or inode == self._host.inode
        }

    def _joined(self, listener: Listener) -> None:
        since_ns = clock.now_ns() if self._looked_around_at else 0  # the first dumps tell what was before
        before = self._listened.get(listener.inode, ())[-_MOST_SPANS:]
        self._listened[listener.inode] = (*before, (since_ns, ctlives.NEVER))
        self._absorb(listener)

    def _absorb(self, listener: Listener) -> None:
        for heard in listener.taken():
            self._lives.hear(listener.inode, heard)

    def _take_from(self, listener: Listener, *, settle: bool) -> None:
        listener.receive(self._receiver, self._orders)
        untold = listener.stale or not listener.setting
        listener.resync(next(self._orders), force=settle and untold)
        self._absorb(listener)

    def _gone(self, listener: Listener) -> None:
        now_ns = clock.now_ns()
        *before, (since_ns, _) = self._listened[listener.inode]
        self._listened[listener.inode] = (*before, (since_ns, now_ns))
        self._lives.leave(listener.inode, now_ns - round(2 * LOOK_AROUND_S * 1e9), now_ns)


class NoTranslations:
    """Stands in where translations are not looked up; *missing* says why."""

    def __init__(self, missing: Missing) -> None:
        self._missing = missing

    def now(self) -> NatTable:
        """Return that nothing is known."""
        return NatTable.nothing(self._missing)

    def close(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""


def begin(host: Host | None, wanted: Collection[int], most: int) -> Translations | NoTranslations:
    """Follow translations where that is asked for and possible."""
    if host is None:
        return NoTranslations(Missing(WHAT, Gap.UNAVAILABLE, None, _NOT_ASKED.format("netlab.capture")))
    try:
        capabilities.require("CAP_NET_ADMIN", doing="look translations up")
        return Translations(host, wanted, most)
    except NetlabError as error:
        return NoTranslations(Missing(WHAT, Gap.UNAVAILABLE, None, str(error)))


def of_open(host: Host | None, tuples: Tuples) -> Translated:
    """Return the translations of sockets that are open now, by a dump of their namespaces and the host's."""
    if host is None:
        detail = _NOT_ASKED.format("netlab.connections")
        return Translated({}, [Missing(WHAT, Gap.UNAVAILABLE, None, detail)])
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
        return Translated({}, [Missing(WHAT, Gap.UNAVAILABLE, None, str(error))])
    missing = [Missing(WHAT, gap.kind, gap.count, f"{gap.what}: {gap.detail}") for gap in answers.missing]
    if any(dump.interrupted for dump in dumps.values()):
        missing.append(replace(netlink.INTERRUPTED, what=WHAT))
    entries = [ctlives.listed(inode, dump) for inode, dump in dumps.items()]
    known = NatTable(keys.joined(entries, ctlives.LIFE), host.inode, missing)
    return known.beyond(tuples, times)


def _dump() -> nlmessages.Dump:
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
