"""What a capture knows at one moment, and what it says it does not know."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.frames import Gap, Missing
from netlab.kernel import clock
from netlab.kernel.keys import chosen
from netlab.kernel.processes import numbered_by_root
from netlab.kernel.sockdiag import State
from netlab.tracer import rows
from netlab.tracer.closed import Ended
from netlab.tracer.filters import Filter
from netlab.tracer.layout import AF_INET6, NOT_COUNTED, NOT_TOLD, PidSource
from netlab.tracer.merge import Table, merge
from netlab.tracer.owners import Owners, Processes
from netlab.tracer.records import Attempts, Cookies, end_unseen, is_udp
from netlab.tracer.snapshot import Snapshot
from netlab.tracer.socketgaps import UNCOUNTED_RTOS, UNTOLD_MARK
from netlab.tracer.system import System
from netlab.tracer.translated import NatTable

_SHIFT_NS = 100_000_000  # what a clock that is being disciplined does not do at once


@dataclass(frozen=True, slots=True)
class Clock:
    """The kernel time of a look, and what to add to a kernel time to get UTC, as it was at the start."""

    now_ns: int
    to_utc_ns: int
    shifted_ns: int = 0  # by how much UTC has been set since the start, or the host was suspended

    @classmethod
    def read(cls, now_ns: int, to_utc_ns: int) -> Clock:
        """Compare the system's clock with what it was at the start."""
        return cls(now_ns, to_utc_ns, clock.to_utc_ns() - to_utc_ns)

    def missing(self) -> list[Missing]:
        """Say that times are not those of the system's clock now."""
        if abs(self.shifted_ns) < _SHIFT_NS:
            return []
        detail = (
            f"the system's clock moved by {self.shifted_ns / 1e9:+.1f} s since the start: times are as it was"
        )
        return [Missing("opened_at, closed_at, last_packet_at, at", Gap.APPROXIMATE, None, detail)]


@dataclass(frozen=True, slots=True)
class Look:
    """Attempts of anyone: those that *ended* come first in the table, then every open one."""

    table: Table
    ended: Ended
    wanted: Filter
    at: Clock
    owners: Owners
    missing: list[Missing]
    complete: frozenset[int]  # inodes of the namespaces whose every open socket is known now
    nat: NatTable
    system: System
    half_open: npt.NDArray[np.uint64]  # cookies of sockets there that are not connections yet

    @classmethod
    def of(
        cls,
        ended: Ended,
        opened: Attempts,
        before: Snapshot,
        now: Snapshot,
        *,
        over: Cookies,
        wanted: Filter,
        system: System,
        at: Clock,
        losses: list[Missing],
        processes: Processes,
        nat: NatTable,
    ) -> Look:
        """Join what was seen; *opened* and *over* have to be read before *ended*, see `merge`."""
        table = merge(ended.attempts, opened, before, now, now_ns=at.now_ns, over=over)
        missing = [*losses, *at.missing(), *before.missing, *now.missing]
        owners = Owners.of(processes, before.owners, now.owners, running=system.running)
        return cls(table, ended, wanted, at, owners, missing, now.complete, nat, system, now.half_open)

    def unlisted(self) -> Attempts:
        """Return the open TCP attempts that their namespace does not list, though it should.

        Without a cookie nobody can tell: the tuple may not be complete.
        """
        running = slice(len(self.ended.numbers), None)
        attempts = self.table.attempts[running]
        listable = (attempts["protocol"] == socket.IPPROTO_TCP) & (attempts["unsent"] == 0)
        listable &= np.isin(attempts["netns"], list(self.complete))
        listable &= (attempts["cookie"] != 0) & ~np.isin(attempts["cookie"], self.half_open)
        return chosen(attempts, listable & (self.table.states[running] == 0))

    def held(self) -> Attempts:
        """Return the open TCP attempts of which only the list of sockets tells the owner."""
        attempts = self.table.attempts[len(self.ended.numbers) :]
        return chosen(attempts, (attempts["pid_source"] == PidSource.SOCKET) & ~is_udp(attempts))

    def kept(self) -> Table:
        """Return the attempts that the filter keeps."""
        return self.table.where(self.wanted.keeps(self.table.attempts))

    def told(self) -> tuple[Table, int]:
        """Return what a client is told: the wanted attempts, those that ended first; and how many ended."""
        attempts, closed = self.table.attempts, len(self.ended.numbers)
        wanted = self.wanted.keeps(attempts)
        asking = (attempts["unsent"][closed:] != 0) & (self.table.states[closed:] != State.CLOSE)
        fresh = np.flatnonzero(wanted[:closed])
        running = closed + np.flatnonzero(wanted[closed:] & ~asking)
        return self.table.where(np.concatenate([fresh, running])), len(fresh)

    def dropped(self, seen: int) -> int:
        """Return how many attempts from number *seen* on, where this look begins, are not kept."""
        return self.ended.following - seen - len(self.ended.numbers)

    def frame(self, part: Table) -> pd.DataFrame:
        """Return *part* of the attempts by the schema `netlab.schemas.CONNECTIONS`."""
        return rows.connections(
            part,
            to_utc_ns=self.at.to_utc_ns,
            now_ns=self.at.now_ns,
            owners=self.owners,
            nat=self.nat,
            untold=self.system.untold,
            missing=dict.fromkeys([*self.missing, *self._guesses(part)]),
        )

    def _guesses(self, part: Table) -> list[Missing]:
        """Say of how many attempts something is not known, or guessed."""
        possible = self.wanted.of_anyone().keeps(self.table.attempts)
        ownerless = _count(possible & (self.table.attempts["pid_source"] == PidSource.NONE))
        guessed = self.table if self.wanted.direction else part  # a wrong guess may be what left a row out
        udp, flow = is_udp(part.attempts), part.attempts["last_ns"] != 0
        counted = "bytes_sent" not in self.system.untold
        uncounted = part.attempts["rtos"] == NOT_COUNTED
        unseen = (part.attempts["opened_ns"] == 0) & ~part.backfilled
        unlisted = ~udp & (part.attempts["closed_ns"] == 0) & (part.states == 0)
        by_descriptor = part.attempts["pid_source"] == PidSource.SOCKET
        gaps = [
            Missing("connections", Gap.UNSEEN, ownerless, f"{_MAY_BELONG}: {self.system.ownerless}")
            if self.wanted.by_owner
            else Missing("pid, process", Gap.UNAVAILABLE, ownerless, self.system.ownerless),
            Missing("opened_at, bytes, packets", Gap.APPROXIMATE, _count(part.backfilled & flow), _OLDER),
            Missing("bytes, packets", Gap.UNAVAILABLE, _count(udp & ~flow & counted), _SILENT),
            Missing("direction", Gap.APPROXIMATE, _count(guessed.backfilled), _FROM_PORTS),
            Missing("closed_at, error, counters", Gap.UNSEEN, _count(end_unseen(part.attempts)), _END),
            Missing("state, counters", Gap.UNAVAILABLE, _count(unlisted), _UNLISTED),
            Missing("pid", Gap.APPROXIMATE, _count(by_descriptor & (not numbered_by_root())), _OWN_PIDS),
            Missing("opened_at", Gap.UNSEEN, _count(unseen), _START),
            Missing("rtos", Gap.UNAVAILABLE, _count(~udp & uncounted), UNCOUNTED_RTOS),
            Missing("mark", Gap.UNAVAILABLE, _count(part.attempts["mark"] == NOT_TOLD), UNTOLD_MARK),
            Missing("error", Gap.APPROXIMATE, _count(_given_up_at_once(part.attempts)), _ASKED_FOR),
        ]
        return [gap for gap in gaps if gap.count]


def _given_up_at_once(attempts: Attempts) -> npt.NDArray[np.bool_]:
    """Tell which attempts over IPv6 ended without an errno before their SYN was sent again."""
    given_up = (attempts["last_state"] == State.SYN_SENT) & (attempts["error"] == 0)
    once = (attempts["family"] == AF_INET6) & (attempts["packets_sent"] == 1)
    return ~is_udp(attempts) & np.asarray(given_up & once, np.bool_)


def _count(flags: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(flags))


_MAY_BELONG = "their owner is not known, so they may belong to the process asked for"
_OLDER = (
    "UDP flows of sockets older than the capture, used in a pause, or by a process that is not asked for: "
    "what came before is not in them, and what others send on them then is"
)
_SILENT = "connected UDP sockets that were silent in the capture: the kernel counts for none of them"
_ASKED_FOR = (
    "IPv6 attempts given up after one SYN: an ICMP error that came at once, as from a firewall of this host, "
    "leaves nothing when the process has asked for it (SO_ERROR); capture(drops=True) names such a firewall"
)
_END = "the kernel did not run the program when the connection ended; found because its socket is gone"
_UNLISTED = (
    "not in the list of sockets that was made now: they begin or end, or only sockets keep their network "
    "namespace, which cannot be found then"
)
_OWN_PIDS = (
    "netlab runs in a pid namespace of its own: who was found by the descriptor (pid_source socket) has the "
    "number there, others have that of the root's"
)
_START = "they ended before netlab had listed what was open, or the kernel did not run the program"
_FROM_PORTS = (
    "of connections older than the capture, direction is told from TCP's sequence numbers, or else the ports"
)
