"""Conntrack entries as they are made, change and end, so that flows which end at once are not missed.

An entry can be gone before a dump looks: a reset in answer to a SYN deletes it (tcp_in_window and
nf_conntrack_tcp_packet, net/netfilter/nf_conntrack_proto_tcp.c). The kernel tells listeners of each entry
when its first packet leaves the host, with both tuples, after translation.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from netlab import checks
from netlab.closing import Closes
from netlab.errors import BadInput, NetlabError
from netlab.frames import Gap, Missing
from netlab.kernel import capabilities, netlink, netns as namespaces, spaces
from netlab.kernel.cthistory import History
from netlab.kernel.ctlisten import Heard, Listener
from netlab.kernel.manymsg import Receiver

_DRAIN_S = 0.05  # a wake-up for each message is what would cost
_LOOK_AROUND_S = 1.0  # for namespaces that came and went

_NO_COUNTERS = Missing(
    "packets, bytes, reply_packets, reply_bytes", Gap.UNAVAILABLE, None, "a new entry has counted nothing yet"
)
_SILENT = Missing(
    "entries",
    Gap.UNAVAILABLE,
    None,
    "net.netfilter.nf_conntrack_events was 0: the kernel tells of no entry until it is 1; only those that a "
    "dump found are in",
)


class ConntrackEvents(Closes):
    """Listens for conntrack entries in network namespaces; made by `netlab.conntrack_events()`."""

    def __init__(self, netns: spaces.Spaces, most_bytes: int) -> None:
        files = _files(netns)
        capabilities.require("CAP_NET_ADMIN", doing="listen for conntrack entries")
        self._everywhere = netns == spaces.ALL
        self._most_bytes = most_bytes
        self._kept_bytes = 0
        self._dropped = 0
        self._listeners: dict[int, Listener] = {}
        self._left: list[Listener] = []  # of namespaces that are gone
        self._late = 0
        self._refusals: list[NetlabError] = []
        self._receiver = Receiver()
        self._orders = itertools.count()
        self._stop = threading.Event()
        self._failure: NetlabError | None = None
        self._looked_around_at = 0.0
        # All of it happens in this thread: a process counts as being where its first thread is, and must not
        # be found in a namespace that it only listens to.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netlab-conntrack")
        try:
            self._thread.submit(self._start, files).result()
        except BaseException:
            self._thread.shutdown()
            raise
        self._thread.submit(self._listen)

    @property
    def namespaces(self) -> frozenset[int]:
        """The network namespaces listened in at this moment, by inode."""
        return frozenset(self._listeners.copy())

    def entries(self) -> pd.DataFrame:
        """Return every entry made since the start, in order, as it was when it was made.

        Returns
        -------
        DataFrame
            Columns as in `netlab.schemas.CONNTRACK`; counters are not known yet and missing. Entries whose
            message was lost and that a dump found afterwards are there as they were then.
        """
        history, _ = self._history()
        frame = history.new()
        frame.attrs["coverage"] = [asdict(gap) for gap in self._gaps(new=len(frame) > 0)]
        return frame

    def events(self) -> pd.DataFrame:
        """Return every message since the start, in the order they came in: new, update, destroy, found.

        Returns
        -------
        DataFrame
            Columns as in `netlab.schemas.CONNTRACK_EVENTS`. An update has what changed; the counters come
            with destroy, and with found: entries that were there already, or that a dump found after a loss.
        """
        history, _ = self._history()
        history.frame.attrs["coverage"] = [asdict(gap) for gap in self._gaps()]
        return history.frame

    def table(self) -> pd.DataFrame:
        """Return the entries that are there now, or were at the end, as far as was heard.

        Returns
        -------
        DataFrame
            Columns as in `netlab.schemas.CONNTRACK`. After a loss, and where older entries do not tell of
            their end, a dump is taken first.
        """
        history, stale = self._history(current=True)
        frame = history.table(self.namespaces)
        gaps = [
            *self._gaps(),
            Missing(
                "timeout_s, packets, bytes, reply_packets, reply_bytes",
                Gap.APPROXIMATE,
                None,
                "they are those of each entry's last message, and missing where that had none",
            ),
        ]
        if stale:
            gaps.append(Missing("entries", Gap.APPROXIMATE, None, "messages were lost, and no dump followed"))
        frame.attrs["coverage"] = [asdict(gap) for gap in gaps]
        return frame

    def close(self) -> None:
        """Stop listening and keep what was heard; safe to call again."""
        if self._stop.is_set():
            return
        try:
            self._thread.submit(self._take, settle=True).result()
        finally:
            self._stop.set()
            self._thread.shutdown()
            for listener in self._listeners.values():
                listener.close()

    def _history(self, *, current: bool = False) -> tuple[History, bool]:
        """Return what was heard up to now, with *current* after a dump where one is needed."""
        if not self._stop.is_set():
            self._thread.submit(self._take, settle=current).result()
        if self._failure:
            raise self._failure
        listeners = [*self._left, *self._listeners.values()]
        heard: dict[int, list[Heard]] = {}
        for listener in listeners:  # a namespace that is gone leaves its inode to another
            heard.setdefault(listener.inode, []).extend(listener.heard)
        return History.of(heard), any(listener.stale for listener in listeners)

    def _gaps(self, *, new: bool = False) -> list[Missing]:
        """Say what was not heard."""
        listeners = [*self._left, *self._listeners.values()]
        gaps = [_NO_COUNTERS] if new else []
        if any(listener.setting == 0 for listener in listeners):
            gaps.append(_SILENT)
        lost, refused = (sum(getattr(one, name) for one in listeners) for name in ("lost", "refused"))
        if lost:
            resyncs = sum(listener.resyncs for listener in listeners)
            detail = (
                "the socket's buffer was full: so many new, update and destroy messages; entries that were "
                f"still there are in as found by {resyncs} dumps"
            )
            gaps.append(Missing("events", Gap.LOST, lost, detail))
        if any(one.dump.interrupted for listener in listeners for one in listener.heard):
            gaps.append(netlink.INTERRUPTED)
        if refused:
            gaps.append(Missing("events", Gap.LOST, refused, "they were cut, or not from the kernel"))
        if self._dropped:
            detail = f"netlab kept {self._most_bytes} bytes already, as most_bytes= says"
            gaps.append(Missing("events", Gap.LOST, self._dropped, detail))
        if self._late:
            detail = f"made after the start, and found up to {_LOOK_AROUND_S:g} s later"
            gaps.append(Missing("events of network namespaces", Gap.UNSEEN, self._late, detail))
        failures = [*self._refusals, *(one for listener in listeners for one in listener.unanswered)]
        if failures:
            gaps.append(Missing("network namespaces", Gap.UNAVAILABLE, len(failures), str(failures[0])))
        return gaps

    # What follows runs in the thread.

    def _start(self, files: dict[int, Path | None]) -> None:
        for inode, file in files.items():
            self._join(inode, file)
        if self._refusals and not self._listeners:
            raise self._refusals[0]
        self._looked_around_at = time.monotonic()

    def _join(self, inode: int, file: Path | None) -> None:
        """Listen in one more namespace."""
        try:
            with namespaces.entered(file):
                self._listeners[inode] = listener = Listener(file)
        except NetlabError as error:
            self._refusals.append(error)
            return
        listener.resync(next(self._orders), first=True)
        self._kept_bytes += listener.kept_bytes

    def _listen(self) -> None:
        """Take what waits, wait a moment, and queue for the next turn behind what others ask for."""
        if self._stop.is_set() or self._failure:
            return
        try:
            self._take(settle=False)
            if self._everywhere and time.monotonic() - self._looked_around_at >= _LOOK_AROUND_S:
                self._look_around()
        except NetlabError as error:
            self._failure = error
            return
        self._stop.wait(_DRAIN_S)
        with suppress(RuntimeError):  # the interpreter is ending
            self._thread.submit(self._listen)

    def _take(self, *, settle: bool) -> None:
        """Take what waits everywhere; with *settle* make up at once for what was lost or never told."""
        for listener in self._listeners.values():
            self._take_from(listener, settle=settle)

    def _take_from(self, listener: Listener, *, settle: bool) -> None:
        blocks, before = len(listener.heard), listener.kept_bytes
        listener.receive(self._receiver, self._orders)
        full = self._kept_bytes >= self._most_bytes
        if full:
            self._dropped += listener.forget(blocks)
        if settle:
            listener.resync(next(self._orders), force=listener.stale or listener.silent_entries)
        elif not full:
            listener.resync(next(self._orders))
        self._kept_bytes += listener.kept_bytes - before

    def _look_around(self) -> None:
        """Leave the namespaces that are gone, which our sockets alone keep, and join new ones."""
        there = namespaces.everywhere()
        for inode in set(self._listeners) - set(there):
            listener = self._listeners.pop(inode)
            self._take_from(listener, settle=False)
            listener.close()
            self._left.append(listener)
        for inode in set(there) - set(self._listeners):
            self._late += 1
            self._join(inode, there[inode])
        self._looked_around_at = time.monotonic()


def _files(netns: spaces.Spaces) -> dict[int, Path | None]:
    """Return the namespaces to listen in; the own one is None, and takes no privilege to enter."""
    if netns == spaces.ALL:
        files = dict(namespaces.everywhere())
    elif isinstance(netns, Sequence) and not isinstance(netns, str):
        if not netns:
            raise BadInput("netns is an empty list", fix='Give at least one, or "all"')
        files = {namespaces.inode(one): namespaces.path(one) for one in netns}
    else:
        files = {namespaces.inode(netns): namespaces.path(netns)}
    own = namespaces.inode()
    return {inode: None if inode == own else file for inode, file in files.items()}


def conntrack_events(*, netns: spaces.Spaces = None, most_bytes: int = 1 << 30) -> ConntrackEvents:
    """Listen for conntrack entries that are made, change or end, from now until the block is left.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id, a list of those, "all" (also namespaces that are made
        later), or None for the calling thread's namespace.
    most_bytes
        How much to keep, in bytes as the kernel sends them; a message has some 250.

    Returns
    -------
    ConntrackEvents
        Listening already; `entries()` returns what was made, `events()` everything that was heard, and
        `table()` the entries that are there now, as frames.

    Raises
    ------
    BadInput
        If there is no such namespace.
    CapabilityError
        Without CAP_NET_ADMIN.

    Notes
    -----
    The multicast groups NFNLGRP_CONNTRACK_NEW, _UPDATE and _DESTROY of ctnetlink
    (net/netfilter/nf_conntrack_netlink.c). Only namespaces that have a conntrack user, such as a NAT rule,
    make entries. Where nf_conntrack_timestamp is on, a kernel since 6.14 gives every event its time; `clock`
    says whose it is. When events come faster than they can be read, the kernel throws some away and counts
    them: so does the coverage, the socket's buffer is doubled, and a dump finds the entries that are left.

    Examples
    --------
    >>> import netlab
    >>> with netlab.conntrack_events() as events:
    ...     pass
    >>> events.entries().columns[:3].tolist()
    ['protocol', 'family', 'src']
    """
    checks.whole("most_bytes", most_bytes, 1, 1 << 50)
    return ConntrackEvents(netns, most_bytes)
