"""What is said inside TLS: the clear text that bpf/tls.c hands up, read like the payload of packets.

A session waits until it is known which connection it speaks over. What is never known to be a connection's is
thrown away, and counted.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from netlab.frames import Gap, Missing
from netlab.kernel.bpf import CgroupHook, Program
from netlab.tracer.account import Account
from netlab.tracer.budgets import ClearBudgets
from netlab.tracer.conversations import Conversations
from netlab.tracer.exchanges import Fate, Kept, Request
from netlab.tracer.layout import CLEAR, CONVERSATION, Large
from netlab.tracer.limits import Limits
from netlab.tracer.packets import Pieces
from netlab.tracer.readers import Readers
from netlab.tracer.records import Attempts
from netlab.tracer.stacks import Stacks
from netlab.tracer.tlsprobes import TlsProbes

if TYPE_CHECKING:
    from netlab.tracer.lookups import Lookups
    from netlab.tracer.payload import Spoken

clear_layouts = {"netlab_clear": CLEAR}

_MOST_WAITING = 8192  # pieces of sessions whose connection is not known: 4 MiB
_MOST_SESSIONS = 1 << 18  # more than connections are remembered that speak TLS
_CPU_BITS = 8  # of a session's number, below the time when it was first seen


@dataclass(frozen=True, slots=True)
class Clear:
    """What was read inside TLS by some moment."""

    requests: list[Request]
    let_go: Counter[str]  # those that made room for others, by protocol
    account: Account
    stacks: dict[int, str]  # by cookie
    cookies: frozenset[int]
    missing: list[Missing]

    def joined(self, plain: Account) -> Account:
        """Return one account of packets and clear text; of *plain*, what is TLS is accounted for here."""
        return replace(plain, over_tls=0).joined(self.account)


class ClearText:
    """Reads inside TLS what of *spoken* is wanted, as long as *program* is attached to the cgroup *root*.

    DNS goes to *lookups*.
    """

    def __init__(
        self, program: Program, root: Path, spoken: Spoken, lookups: Lookups | None, limits: Limits
    ) -> None:
        self._readers = Readers(spoken.protocols, lookups, spoken.masks, in_tls=True)
        self._kept = Kept(spoken.protocols, spoken.direction, limits.max_requests)
        self._talks = Conversations(
            self._readers,
            self._kept,
            ClearBudgets(program),
            max_open=limits.max_open,
            seen="tls",
        )
        self._ring = program.ring("netlab_clears", CLEAR)
        self._large = program.map("netlab_large", "u4", "u8")
        self._waiting = np.empty(0, CLEAR)
        self._sessions: OrderedDict[int, int] = OrderedDict()  # the one that a connection has now, by cookie
        self._homeless_bytes = self._unsure_bytes = 0
        self._probes = TlsProbes(program)
        program.attach_cgroup("netlab_socket_closed", root, CgroupHook.SOCK_RELEASE)
        program.attach_cgroup("netlab_record_sent", root, CgroupHook.INET_EGRESS)

    def drain(self, stacks: Stacks) -> None:
        """Take over what was said since the last call; *stacks* are what packets tell of connections."""
        self._take(final=False)
        self._probes.look_if_due(lambda: stacks.over_tls() - self._sessions.keys())

    def last(self) -> None:
        """Read what waits for nothing any more."""
        self._take(final=True)

    def expect(self, listed: Attempts) -> None:
        """Tell of the connections that were open before."""
        self._talks.expect(listed["cookie"], listed["direction"])

    @property
    def totals(self) -> Counter[Fate]:
        """How many requests are over."""
        return self._kept.totals

    def heard(self, stacks: Stacks) -> Clear:
        """Return what was understood by now; *stacks* are what packets tell of connections."""
        told = {cookie: f"tls+{stack}" for cookie, stack in self._readers.stacks.by_cookie().items()}
        missing, cookies = self._missing(stacks.over_tls()), frozenset(self._sessions)
        requests, let_go = self._talks.requests(), self._kept.let_go.copy()
        return Clear(requests, let_go, self._talks.account(), told, cookies, missing)

    def _missing(self, over_tls: set[int]) -> list[Missing]:
        waiting = int(self._waiting["piece"]["bytes"].sum())
        return [
            Missing("requests", Gap.UNAVAILABLE, len(over_tls - self._sessions.keys()), _NOT_CLEAR),
            Missing("requests", Gap.UNAVAILABLE, self._homeless_bytes + waiting, _HOMELESS),
            Missing("requests", Gap.UNSEEN, self._unsure_bytes, _UNSURE),
            Missing("requests", Gap.UNAVAILABLE, self._probes.refused, _REFUSED),
            Missing("requests", Gap.UNAVAILABLE, self._probes.crowded_out, _CROWDED_OUT),
            Missing("requests", Gap.UNAVAILABLE, self._probes.unreadable, _UNREADABLE),
        ]

    def _take(self, *, final: bool) -> None:
        block = self._ring.read()
        if len(block):
            self._large.set(Large.LARGE_CLEAR, 0)
        if not len(block) and not self._talks.is_cut:
            return
        for pieces in turns(self._joined(self._sure(block))):
            self._begin(pieces["session"], pieces["piece"]["cookie"])
            said = np.ascontiguousarray(pieces["piece"])
            words = (said["packet_bytes"] == 0) & (said["tcp_flags"] == 0)
            self._talks.take(said[~words], final=final)

    def _sure(self, block: Pieces) -> Pieces:
        """Return what was said when nothing of its session can have been missed without a trace."""
        unsure = self._probes.was_partial(
            (block["session"] >> _CPU_BITS).astype(np.uint64), block["piece"]["at_ns"]
        )
        self._unsure_bytes += int(block["piece"]["bytes"][unsure].sum())
        return block[~unsure]

    def _joined(self, block: Pieces) -> Pieces:
        """Return the pieces whose connection is known and wanted; the others wait."""
        known = block["piece"]["cookie"] != 0
        waited = np.isin(self._waiting["session"], block["session"][known])
        if waited.any():
            block = np.concatenate([self._waiting[waited], block])
            known = block["piece"]["cookie"] != 0
            self._waiting = self._waiting[~waited]
        homes, unwanted = block[known], known & (block["piece"]["conversation"]["budget"] == 0)
        late = np.flatnonzero(~known & np.isin(block["session"], homes["session"]))
        _move(block, late, homes)
        known[late] = True
        if not known.all():
            self._wait(np.concatenate([self._waiting, block[~known]]))
        joined: Pieces = block[known & ~np.isin(block["session"], block["session"][unwanted])]
        return joined

    def _wait(self, block: Pieces) -> None:
        """Keep what may have a connection yet; what was said in a session that is over has none."""
        over = np.unique(block["session"][(block["piece"]["tcp_flags"] != 0)])
        keep = ~np.isin(block["session"], over)
        keep[: max(0, len(block) - _MOST_WAITING)] = False
        self._homeless_bytes += int(block["piece"]["bytes"][~keep].sum())
        self._waiting = block[keep]

    def _begin(self, sessions: npt.NDArray[np.uint64], cookies: npt.NDArray[np.uint64]) -> None:
        """Note which sessions connections have; one that follows another begins to count anew."""
        for cookie, session in set(zip(cookies.tolist(), sessions.tolist(), strict=True)):
            before = self._sessions.get(cookie, session)
            if before != session:
                self._talks.give_up(cookie)
            self._sessions[cookie] = max(session, before)
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)


def turns(pieces: Pieces) -> Iterator[Pieces]:
    """Return the pieces of each connection's first session, then those of the sessions that followed."""
    cookies, sessions = pieces["piece"]["cookie"], pieces["session"]
    order = np.lexsort([sessions, cookies])
    new = np.diff(cookies[order], prepend=~cookies[order[:1]]) != 0
    number = np.cumsum(new | (np.diff(sessions[order], prepend=~sessions[order[:1]]) != 0))
    turn = np.empty(len(pieces), np.intp)
    turn[order] = number - np.maximum.accumulate(number * new)
    if not turn.any():
        yield pieces
        return
    for one in range(turn.max() + 1):
        yield pieces[turn == one]


def _move(block: Pieces, late: npt.NDArray[np.intp], homes: Pieces) -> None:
    """Give the *late* pieces of *block* the connection that others of their session have."""
    if not len(late):
        return
    sessions, first = np.unique(homes["session"], return_index=True)
    home = homes["piece"][first][np.searchsorted(sessions, block["session"][late])]
    block["piece"]["cookie"][late] = home["cookie"]
    for end in set(CONVERSATION.names or ()) - {"budget"}:
        block["piece"]["conversation"][end][late] = home["conversation"][end]


_NOT_CLEAR = (
    "connections spoke TLS whose clear text was not seen: not by OpenSSL or GnuTLS, or these are hidden in "
    "the program, or were called in a way that is not followed"
)
_HOMELESS = "bytes of clear text are of no connection that is known"
_UNSURE = "bytes were said while the probes of a TLS library were being placed"
_REFUSED = "TLS libraries could not be probed"
_CROWDED_OUT = (
    "TLS libraries are not probed: the last quarter of the files that this process may have open is left to "
    "the rest of it; run `ulimit -n 65536` before it starts"
)
_UNREADABLE = "processes could not be asked for their TLS libraries; root with CAP_SYS_PTRACE may"
