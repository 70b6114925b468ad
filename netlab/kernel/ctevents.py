"""Conntrack entries as they are made, change and end, so that flows which end at once are not missed.

An entry can be gone before a dump looks: a reset in answer to a SYN deletes it (tcp_in_window and
nf_conntrack_tcp_packet, net/netfilter/nf_conntrack_proto_tcp.c). The kernel tells listeners of each entry
when its first packet leaves the host, with both tuples, after translation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.kernel import capabilities, netlink, netns as namespaces, spaces
from netlab.kernel.cthistory import History
from netlab.kernel.ctlisten import Group, Heard, Listener
from netlab.kernel.ctwatch import LOOK_AROUND_S, Watch

_NO_COUNTERS = Missing(
    "packets, bytes, reply_packets, reply_bytes", Gap.UNAVAILABLE, None, "a new entry has counted nothing yet"
)
_SILENT = Missing(
    "entries",
    Gap.UNAVAILABLE,
    None,
    "net.netfilter.nf_conntrack_events was 0: the kernel tells of no entry until it is 1; only those that "
    "the first dump or the last one found are in",
)

_PASSED = Missing(
    "network namespaces",
    Gap.UNSEEN,
    None,
    f"those made and gone between two looks around, {LOOK_AROUND_S:g} s apart, nobody knows of, nor how many",
)
_UNTOLD = "of what was made, changed or ended then only what a dump found is in"


class ConntrackEvents(Watch):
    """Listens for conntrack entries in network namespaces; made by `netlab.conntrack_events()`."""

    def __init__(self, netns: spaces.Spaces, most_bytes: int) -> None:
        everywhere = spaces.is_all(netns)
        find = namespaces.everywhere if everywhere else partial(dict, _files(netns))
        capabilities.require("CAP_NET_ADMIN", doing="listen for conntrack entries")
        self._most_bytes = most_bytes
        self._kept_bytes = 0
        self._dropped = 0
        super().__init__(find, again=everywhere, groups=Group.ALL)

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

    def _history(self, *, current: bool = False) -> tuple[History, bool]:
        """Return what was heard up to now, with *current* after a dump where one is needed."""
        self._catch_up(settle=current)
        listeners = self._all()
        heard: dict[int, list[Heard]] = {}
        for listener in listeners:  # a namespace that is gone leaves its inode to another
            heard.setdefault(listener.inode, []).extend(listener.heard)
        return History.of(heard), any(listener.stale for listener in listeners)

    def _gaps(self, *, new: bool = False) -> list[Missing]:
        """Say what was not heard."""
        listeners = self._all()
        gaps = [_NO_COUNTERS] if new else []
        if any(listener.began_silent for listener in listeners):
            gaps.append(_SILENT)
        spans = [listener.silenced_ns for listener in listeners if listener.silenced_ns]
        if spans:
            between = " and ".join(map(_clock_time, (min(spans)[0], max(end for _, end in spans))))
            detail = f"net.netfilter.nf_conntrack_events was 0 at some time between {between}: {_UNTOLD}"
            gaps.append(Missing("entries", Gap.UNSEEN, None, detail))
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
        if self._again:
            gaps.append(_PASSED)
        if self._late:
            detail = (
                f"made after the start, and found up to {LOOK_AROUND_S:g} s later; those that were gone by "
                "then are not counted"
            )
            gaps.append(Missing("events of network namespaces", Gap.UNSEEN, self._late, detail))
        failures = self._failures()
        if failures:
            gaps.append(Missing("network namespaces", Gap.UNAVAILABLE, len(failures), str(failures[0])))
        return gaps

    # What follows runs in the thread.

    def _joined(self, listener: Listener) -> None:
        self._kept_bytes += listener.kept_bytes

    def _take_from(self, listener: Listener, *, settle: bool) -> None:
        blocks, before = len(listener.heard), listener.kept_bytes
        listener.receive(self._receiver, self._orders)
        full = self._kept_bytes >= self._most_bytes
        if full:
            self._dropped += listener.forget(blocks)
        if settle:
            needed = listener.stale or listener.silent_entries
            listener.resync(next(self._orders), force=needed, replace=full or not listener.stale)
        elif not full:
            listener.resync(next(self._orders))
        self._kept_bytes += listener.kept_bytes - before


def _clock_time(at_ns: int) -> str:
    return f"{datetime.fromtimestamp(at_ns / 1e9, UTC):%H:%M:%S} UTC"


def _files(netns: spaces.Spaces) -> Mapping[int, Path]:
    """Return the namespaces to listen in."""
    if spaces.is_several(netns):
        if not netns:
            raise BadInput("netns is an empty list", fix='Give at least one, or "all"')
        return {namespaces.inode(one): namespaces.path(one) for one in netns}
    one = cast("namespaces.NetNs", netns)
    return {namespaces.inode(one): namespaces.path(one)}


@checks.options
def conntrack_events(*, netns: spaces.Spaces = None, most_bytes: int = 1 << 30) -> ConntrackEvents:
    """Listen for conntrack entries that are made, change or end, from now until the block is left.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id, a list of those, "all" (also namespaces that are made
        later, and are there for a second or more), or None for the calling thread's namespace alone.
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
