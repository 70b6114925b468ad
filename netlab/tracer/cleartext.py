"""What is said inside TLS: the clear text that bpf/tls.c hands up, read like the payload of packets.

A session waits until it is known which connection it speaks over. What is never known to be a connection's is
thrown away, and counted.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from netlab.frames import Gap, Missing
from netlab.kernel.bpf import CgroupHook, Program
from netlab.protocols.masking import Masking
from netlab.tracer.budgets import ClearBudgets
from netlab.tracer.conversations import Account, Conversations, Request
from netlab.tracer.layout import CLEAR, CONVERSATION
from netlab.tracer.limits import Limits
from netlab.tracer.packets import Pieces
from netlab.tracer.readers import Readers
from netlab.tracer.records import Attempts
from netlab.tracer.stacks import Stacks
from netlab.tracer.tlsprobes import TlsProbes

clear_layouts = {"netlab_clear": CLEAR}

_MOST_WAITING = 8192  # pieces of sessions whose connection is not known: 4 MiB
_CPU_BITS = 8  # of a session's number, below the time when it was first seen


@dataclass(frozen=True, slots=True)
class Clear:
    """What was read inside TLS by some moment."""

    requests: list[Request]
    account: Account
    stacks: dict[int, str]  # by cookie
    missing: list[Missing]
    over_tls: int  # connections

    def joined(self, plain: Account) -> Account:
        """Return one account of packets and clear text; of *plain*, what is TLS is accounted for here."""
        both = {
            one.name: getattr(plain, one.name) + getattr(self.account, one.name) for one in fields(Account)
        }
        return Account(**both | {"ignored": max(0, plain.ignored - self.over_tls) + self.account.ignored})


class ClearText:
    """Reads the *wanted* protocols inside TLS as long as *program* is attached to the cgroup *root*."""

    def __init__(
        self, program: Program, root: Path, wanted: frozenset[str], masks: Masking, limits: Limits
    ) -> None:
        self._readers = Readers(wanted, None, masks)
        self._talks = Conversations(
            self._readers,
            wanted,
            ClearBudgets(program),
            max_open=limits.max_open,
            max_requests=limits.max_requests,
            seen="tls",
        )
        self._max_open = limits.max_open
        self._ring = program.ring("netlab_clears", CLEAR)
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

    def heard(self, stacks: Stacks) -> Clear:
        """Return what was understood by now; *stacks* are what packets tell of connections."""
        told = {cookie: f"tls+{stack}" for cookie, stack in self._readers.stacks.by_cookie().items()}
        over_tls, account = stacks.over_tls(), self._talks.account()
        return Clear(self._talks.requests(), account, told, self._missing(over_tls), len(over_tls))

    def _missing(self, over_tls: set[int]) -> list[Missing]:
        waiting = int(self._waiting["piece"]["bytes"].sum())
        return [
            Missing("requests", Gap.UNAVAILABLE, len(over_tls - self._sessions.keys()), _NOT_CLEAR),
            Missing("requests", Gap.UNAVAILABLE, self._homeless_bytes + waiting, _HOMELESS),
            Missing("requests", Gap.UNSEEN, self._unsure_bytes, _UNSURE),
            Missing("requests", Gap.UNAVAILABLE, self._probes.refused, _REFUSED),
            Missing("requests", Gap.UNAVAILABLE, self._probes.unreadable, _UNREADABLE),
        ]

    def _take(self, *, final: bool) -> None:
        block = self._ring.read()
        if not len(block) and not self._talks.is_cut:
            return
        block = self._sure(block)
        block = np.concatenate([self._waiting, block]) if len(self._waiting) else block
        pieces = self._joined(block)
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
        unwanted = np.unique(block["session"][known & (block["piece"]["conversation"]["budget"] == 0)])
        sessions, first = np.unique(block["session"][known], return_index=True)
        homes = block["piece"][known][first]
        late = np.flatnonzero(~known & np.isin(block["session"], sessions))
        home = homes[np.searchsorted(sessions, block["session"][late])]
        block = block.copy()
        block["piece"]["cookie"][late] = home["cookie"]
        for end in CONVERSATION.names or ():
            if end != "budget":
                block["piece"]["conversation"][end][late] = home["conversation"][end]
        known[late] = True
        self._wait(block[~known])
        joined: Pieces = block[known & ~np.isin(block["session"], unwanted)]
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
        pairs = np.unique(np.stack([cookies, sessions], axis=1), axis=0)
        for cookie, session in pairs.tolist():
            if self._sessions.get(cookie, session) != session:
                self._talks.end(cookie)
            self._sessions[cookie] = session
        while len(self._sessions) > self._max_open:
            self._sessions.popitem(last=False)


_NOT_CLEAR = (
    "connections spoke TLS whose clear text was not seen: not by OpenSSL or GnuTLS, or these are part of the "
    "program, or were called in a way that is not followed"
)
_HOMELESS = "bytes of clear text are of no connection that is known"
_UNSURE = "bytes were said while the probes of a TLS library were being placed"
_REFUSED = "TLS libraries could not be probed"
_UNREADABLE = "processes could not be asked for their TLS libraries; root with CAP_SYS_PTRACE may"
