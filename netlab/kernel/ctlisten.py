"""A socket that hears what happens to conntrack entries in one network namespace, and what it heard.

The kernel throws messages away that find the socket's buffer full. It says so once (ENOBUFS) and counts them:
the number is exact. What they said is found again, as far as it still exists, by a dump.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

import numpy as np
import numpy.typing as npt

from netlab.errors import CaptureError, NetlabError
from netlab.kernel import clock, conntrack, netlink, netns as namespaces, nlmessages
from netlab.kernel.ctwanted import Wanted
from netlab.kernel.manymsg import Receiver, give_room

LISTEN = "listen for conntrack entries"
_STATISTICS = 0x104  # (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET_STATS_CPU
_BUFFER_BYTES = 32 << 20  # some 40,000 messages: the kernel charges one far more than its length
_LARGEST_BUFFER = 512 << 20
_SO_MEMINFO = 55
_SIOCGSKNS = 0x894C  # a descriptor of the socket's network namespace
_MEMINFO = struct.Struct("=9I")  # SK_MEMINFO_*; the last counts the messages thrown away
_RESYNC_S = 1.0  # not more often: a dump takes time that listening needs
_SYSCTL = Path("/proc/sys/net/netfilter/nf_conntrack_events")


class Group(IntFlag):
    """What there is to listen for: NFNLGRP_CONNTRACK_* as bits, linux/netfilter/nfnetlink_compat.h."""

    NEW = 1
    UPDATE = 2
    DESTROY = 4
    ALL = NEW | UPDATE | DESTROY


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Messages of one kind of source, in the order they came in.

    What events tell, and what a dump finds to be different, happened between *since_ns* and *until_ns* by the
    kernel's clock.
    """

    dump: nlmessages.Dump
    at_ns: npt.NDArray[np.int64]  # when each was read, UTC: the same moment as until_ns
    order: int  # of all that this process heard
    found: bool  # by a dump; what it lacks was gone then
    first: bool  # the dump at the start
    since_ns: int
    until_ns: int


def _load() -> None:
    """Load the module that tells of entries: binding alone has the kernel load it, and does not wait."""
    netlink.dump(conntrack.NETFILTER, _STATISTICS, bytes(4), doing=LISTEN, module=conntrack.MODULE)


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise netlink.refusal(error.errno, LISTEN, module=conntrack.MODULE) from error


class Listener:
    """Listens in the namespace of the thread that makes it; all methods are for that thread.

    *elsewhere*: that thread is there only for now, and has to enter the namespace again for a dump.
    """

    def __init__(self, groups: Group = Group.ALL, *, elsewhere: bool) -> None:
        self.inode = namespaces.inode()
        self._elsewhere = elsewhere
        self.heard: list[Heard] = []
        self.kept_bytes = 0  # of it, as the kernel sent it
        self.lost = 0
        self.refused = 0
        self.resyncs = 0
        self.unanswered: NetlabError | None = None  # what the last dump failed for
        self._asked: Heard | None = None
        self.setting = 1  # nf_conntrack_events: off, on, or 2: while somebody listens
        self._sysctl: int | None = None
        self.began_silent = False
        self.silenced_ns: tuple[int, int] | None = None  # it was off later on, within these looks (UTC)
        self._looked_ns, self._looked_at_ns = 0, time.time_ns()  # the last look, by both clocks
        self._buffer = _BUFFER_BYTES
        self._stale_since: float | None = None
        self._synced_at = 0.0
        self._empty_ns = self._known_ns = 0  # nothing waited then; everything was known then
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        with _refused():
            self._kernel = socket.socket(socket.AF_NETLINK, kind, conntrack.NETFILTER)
            try:
                self._begin(groups)
            except BaseException:
                self.close()
                raise

    def _begin(self, groups: Group) -> None:
        _load()
        with suppress(OSError):  # no such setting: the kernel tells
            self._sysctl = os.open(_SYSCTL, os.O_RDONLY | os.O_CLOEXEC)
        self.setting = self._read_setting()
        self.began_silent = self.setting == 0
        give_room(self._kernel, self._buffer)
        self._kernel.bind((0, groups))

    @property
    def was_silent(self) -> bool:
        """Tell whether the kernel was seen not to tell of entries, now or before."""
        return self.began_silent or self.silenced_ns is not None

    @property
    def silent_entries(self) -> bool:
        """Tell whether entries may change and end without a word: all, or those from before the start.

        With nf_conntrack_events=2, the default, only entries that are made while somebody on the host listens
        tell of themselves (nf_ct_ecache_ext_add(), net/netfilter/nf_conntrack_ecache.c).
        """
        if self.was_silent:  # what was made then never tells
            return True
        return self.setting == 2 and any(len(heard.dump) for heard in self.heard if heard.first)

    def look(self) -> None:
        """See whether the kernel still tells of entries: the setting may change while we listen."""
        before, self.setting, at_ns = self.setting, self._read_setting(), time.time_ns()
        if before and not self.setting:
            first_ns = self.silenced_ns[0] if self.silenced_ns else self._looked_at_ns
            self.silenced_ns = first_ns, at_ns
            self._known_ns = min(self._known_ns, self._looked_ns)
        elif not before and self.silenced_ns:
            self.silenced_ns = self.silenced_ns[0], at_ns
        if self.setting and not before:
            self._stale_since = time.monotonic()  # a dump finds what is left of what was made meanwhile
        self._looked_ns, self._looked_at_ns = clock.now_ns(), at_ns

    def _read_setting(self) -> int:
        """Return nf_conntrack_events of the namespace that the file was opened in."""
        if self._sysctl is None:
            return 1
        try:
            return int(os.pread(self._sysctl, 16, 0))
        except OSError:  # unloaded
            return 1

    def receive(self, receiver: Receiver, orders: Iterator[int]) -> None:
        """Take what waits."""
        while True:
            asked_ns = clock.now_ns()
            try:
                block = receiver.receive(self._kernel.fileno())
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise CaptureError(f"conntrack events could not be read: {error.strerror}") from error
                self._overflowed()
                continue
            if block is None:
                self.quiet(asked_ns)
                return
            self.refused += block.refused
            until_ns = clock.now_ns()
            at = np.full(len(block.starts), until_ns + clock.to_utc_ns(), np.int64)
            dump = nlmessages.Dump(block.words, block.starts, interrupted=False)
            self._keep(
                Heard(
                    dump,
                    at,
                    next(orders),
                    found=False,
                    first=False,
                    since_ns=self._empty_ns,
                    until_ns=until_ns,
                )
            )

    def quiet(self, at_ns: int) -> None:
        """Know that nothing waited at this moment of the kernel's clock."""
        self._empty_ns = at_ns
        if not self.stale and self.setting:
            self._known_ns = at_ns

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return self._kernel.fileno()

    def _overflowed(self) -> None:
        self._count_lost()
        self._stale_since = time.monotonic()
        if self._buffer < _LARGEST_BUFFER:
            self._buffer *= 2
            give_room(self._kernel, self._buffer)

    def _keep(self, heard: Heard) -> None:
        self.heard.append(heard)
        self.kept_bytes += heard.dump.words.nbytes

    def forget(self, after: int) -> int:
        """Keep only the first *after* blocks of what was heard; return how many messages go."""
        forgotten = self.heard[after:]
        del self.heard[after:]
        self.kept_bytes -= sum(one.dump.words.nbytes for one in forgotten)
        messages = sum(len(one.dump) for one in forgotten)
        if messages:
            self._stale_since = time.monotonic()
        return messages

    def taken(self) -> list[Heard]:
        """Return what was heard since the last call, and let go of it."""
        heard, self.heard, self.kept_bytes, self._asked = self.heard, [], 0, None
        return heard

    def _count_lost(self) -> None:
        said = self._kernel.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        self.lost = _MEMINFO.unpack(said)[-1]

    def resync(self, order: int, *, first: bool = False, force: bool = False, replace: bool = False) -> None:
        """Take a dump if messages were lost, or if it is asked for; call it right after `receive`.

        With *replace* it takes the place of the last one of these: who asks often shall not fill the memory.
        """
        now = time.monotonic()
        due = self._stale_since is not None and now - self._synced_at >= _RESYNC_S
        if not (first or force or due):
            return
        self._synced_at, asked_ns = now, clock.now_ns()
        try:
            with self._entered():
                dump = conntrack.dump(Wanted())
        except NetlabError as error:
            self.unanswered = error
            return
        self.unanswered = None
        since_ns, until_ns = self._known_ns, clock.now_ns()
        at = np.full(len(dump), until_ns + clock.to_utc_ns(), np.int64)
        found = Heard(dump, at, order, found=True, first=first, since_ns=since_ns, until_ns=until_ns)
        if replace:
            self._replace_asked(found)
        self._keep(found)
        self.resyncs += not first
        self._stale_since, self._known_ns = None, asked_ns

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """Be where the socket is: the file that the thread came in by may be gone, with its process."""
        if not self._elsewhere:
            yield
            return
        import fcntl  # not on every system that this module is imported on

        try:
            space = fcntl.ioctl(self._kernel.fileno(), _SIOCGSKNS)
        except OSError as error:
            raise netlink.refusal(error.errno, "find a socket's network namespace") from error
        try:
            with namespaces.entered(f"/proc/self/fd/{space}"):
                yield
        finally:
            os.close(space)

    def _replace_asked(self, found: Heard) -> None:
        if self._asked is not None:
            self.heard.remove(self._asked)
            self.kept_bytes -= self._asked.dump.words.nbytes
        self._asked = found

    @property
    def is_uneventful(self) -> bool:
        """Tell whether there is nothing to say of the namespace: nothing heard, and nothing missed."""
        heard = any(len(one.dump) for one in self.heard)
        return not (heard or self.lost or self.refused or self.unanswered or self.was_silent)

    @property
    def stale(self) -> bool:
        """Tell whether messages were lost that no dump has made up for."""
        return self._stale_since is not None

    def close(self) -> None:
        """Let go of the socket, and with it of the namespace; what was heard stays."""
        if self._kernel.fileno() >= 0:
            self._count_lost()
            self._kernel.close()
        if self._sysctl is not None:
            os.close(self._sysctl)
        self._sysctl = None
