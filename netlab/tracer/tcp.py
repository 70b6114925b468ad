"""TCP attempts from the programs of bpf/tcp.c: ended ones, open ones, and the state changes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from netlab.errors import CapabilityError, KernelError
from netlab.frames import Cause, Gap, Missing
from netlab.kernel import capabilities, keys
from netlab.kernel.bpf import CgroupHook, Program
from netlab.kernel.keys import chosen
from netlab.tracer.closed import Closed
from netlab.tracer.expiry import Absent
from netlab.tracer.filters import Filter
from netlab.tracer.layout import ATTEMPT, CHANGE, LATE_OWNER, PidSource
from netlab.tracer.networks import End
from netlab.tracer.records import Attempts, adopt, joined, take_owners, without

_CHANGES_EACH = 10  # of both ends of one connection
Changes = npt.NDArray[np.void]
Cookies = npt.NDArray[np.uint64]

_TRACEPOINTS = {
    "netlab_received": "tcp_rcv_space_adjust",
    "netlab_state_changed": "inet_sock_set_state",
    "netlab_state_nested": "inet_sock_set_state",  # after the other: the kernel runs them in this order
}
_CONNECT_HOOKS = {
    "netlab_socket_released": CgroupHook.SOCK_RELEASE,
    "netlab_asked4": CgroupHook.INET4_CONNECT,
    "netlab_asked6": CgroupHook.INET6_CONNECT,
}
_ROUTE_TRACEPOINTS = {"netlab_route4": "fib_table_lookup", "netlab_route6": "fib6_table_lookup"}
_NO_UNSENT = "connect() calls that fail before the first packet, for want of a route, are not seen"
_NO_FAST_OPEN = "connections that Fast Open begins are seen when their handshake ends"
_UNJUDGED = (
    "attempts that found no room when they began, and that nothing was told of later: most have a local end "
    "that local= or exclude_local= leaves out, the others failed before the first packet"
)
_NO_ROUTES = "why connect() failed before the first packet is not known"


class TcpSource:
    """Follows TCP attempts as long as *program* is attached."""

    def __init__(self, program: Program, wanted: Filter, ended: Closed) -> None:
        self._program, self._wanted, self._ended = program, wanted, ended
        self._missing: list[Missing] = []
        self._told = np.empty(0, np.uint64)  # cookies of the ends that were reported last
        self._changes: list[Changes] = []
        self._changes_kept = self._changes_dropped = 0
        self._changes_most = _CHANGES_EACH * ended.most
        self._unfollowed = np.empty(0, ATTEMPT)  # attempts that began when the map was full
        self._unjudged = 0  # those of them that had no end, and whose local end a filter asks for
        self._held = np.empty(0, ATTEMPT)  # attempts whose owner only the last list of sockets told
        self._absent = Absent()
        self._last_open: Attempts | None = None
        self._last_late: Attempts | None = None
        self._listed: Cookies | None = None
        self._over = np.empty(0, np.uint64)  # those of the listed attempts that have ended
        self._strangers = True  # whether an end without a start counts, whoever's it is
        self._lock = threading.Lock()
        self._reports = program.ring("netlab_reports", ATTEMPT)
        self._change_ring = program.ring("netlab_changes", CHANGE)
        self._open = program.map("netlab_open", "u8", ATTEMPT)
        self._late = program.map("netlab_late_owners", "u8", LATE_OWNER)
        self._attach()

    def _attach(self) -> None:
        """Attach connect() last; `detach` goes the other way.

        A call that the hooks of connect() have seen then finds the programs that see how it goes on.
        """
        for function, event in _TRACEPOINTS.items():
            self._program.attach_typed_tracepoint(function, event)
        try:
            self._program.attach_typed_tracepoint("netlab_accepted_early", "tcp_cong_state_set")
        except KernelError as error:
            self._miss("opened_at", f"{error}; {_NO_FAST_OPEN}")
        try:
            for function, event in _ROUTE_TRACEPOINTS.items():
                self._program.attach_raw_tracepoint(function, event)
        except KernelError as error:
            self._miss("error", f"{error}; {_NO_ROUTES}")
        self._attach_connect(capabilities.cgroup2_mount())

    def _attach_connect(self, root: Path | None) -> None:
        if root is None:
            self._miss("connections", f"no cgroup v2 tree is mounted; {_NO_UNSENT}")
            return
        if outside := capabilities.outside_cgroup(root):
            self._missing.append(Missing("connections", Gap.UNSEEN, None, f"{outside} {_NO_UNSENT}"))
        try:
            for function, hook in _CONNECT_HOOKS.items():
                self._program.attach_cgroup(function, root, hook)
        except (KernelError, CapabilityError) as error:
            self._miss("connections", f"{error}; {_NO_UNSENT}")

    def _miss(self, what: str, detail: str) -> None:
        self._missing.append(Missing(what, Gap.UNAVAILABLE, None, detail))

    def drain(self) -> None:
        """Take over what the programs reported since the last call."""
        with self._lock:
            changes = self._change_ring.read()
            if len(changes):
                self._keep_changes(changes)
            reports = self._reports.read()
            if not len(reports):
                return
            ended, left, self._unfollowed = adopt(self._unfollowed, reports)
            ended = without(ended, ~self._known(ended))
            self._told = ended["cookie"]
            judged = self._judged(chosen(left, self._wanted.may_keep(left)))
            self._end(joined([ended, judged]) if len(judged) else ended)

    def _judged(self, starts: Attempts) -> Attempts:
        """Return those of *starts* without an end that are wanted.

        Of others that cannot be told: connect() chooses the local end after the start.
        """
        if not self._wanted.asks("local"):
            return starts
        known = End.of(starts, "local").known
        self._unjudged += int(np.count_nonzero(~known))
        return chosen(starts, known)

    def _end(self, attempts: Attempts) -> None:
        """Keep what has ended, and note which of the listed attempts are among it."""
        take_owners(attempts, self._held)
        self._ended.append(attempts)
        older = attempts["cookie"][attempts["opened_ns"] == 0]
        self._over = np.union1d(self._over, self._of_listed(older))

    def _known(self, ended: Attempts) -> npt.NDArray[np.bool_]:
        """Tell which ended attempts belong here; who owns those without an owner a snapshot may know."""
        followed = ended["opened_ns"] != 0
        if not followed.all():  # nearly always they are
            known = np.isin(ended["cookie"], [] if self._listed is None else self._listed)
            known &= ~np.isin(ended["cookie"], self._over)  # else the end of its socket's next connection
            followed |= self._first_told(ended) & (known | self._strangers)
        mine: npt.NDArray[np.bool_] = followed & self._wanted.may_keep(ended)
        return mine

    def _first_told(self, ended: Attempts) -> npt.NDArray[np.bool_]:
        """Tell of which ends nothing was told before: a program that was interrupted may tell of one twice.

        A socket's next connection may end with it in one block, behind it.
        """
        told = np.concatenate([self._told, ended["cookie"]])
        first = np.zeros(len(told), bool)
        first[np.unique(told, return_index=True)[1]] = True
        fresh: npt.NDArray[np.bool_] = (ended["cookie"] == 0) | first[len(self._told) :]
        return fresh

    def expect(self, listed: Attempts, *, complete: bool) -> None:
        """Take ends without a start for those of the *listed* attempts.

        Any other end without a start is of an attempt that nobody wanted to follow; or, when the list is
        *complete*, every owner and direction is followed and nothing was paused, of one whose start was
        missed.
        """
        self.drain()
        with self._lock:
            hidden = self._wanted.by_owner or self._wanted.direction  # an end alone does not tell these
            self._strangers = complete and not hidden
            self._listed = listed["cookie"][self._wanted.may_keep(listed)]
            self._over = self._of_listed(self._over)

    def _of_listed(self, cookies: Cookies) -> Cookies:
        return cookies if self._listed is None else np.intersect1d(cookies, self._listed)

    def over(self) -> Cookies:
        """Return the cookies of the listed attempts that have ended, kept or not."""
        with self._lock:
            return self._over

    def pause(self) -> None:
        """From now on ends without a start are of attempts that began in the pause."""
        self._strangers = False

    def open(self) -> Attempts:
        """Return the attempts that are open now, in no order; after the end, those that were open then."""
        if self._last_open is not None:
            return self._last_open
        followed = self._open.items()[1]
        self.drain()
        with self._lock:
            alone = self._unfollowed.copy()
            alone["unsent"] = 0  # whether the SYN followed was not told
            return joined([followed, alone])

    def remember(self, held: Attempts) -> None:
        """Know whose the *held* attempts are when they end: then nobody has their descriptors any more."""
        with self._lock:
            self._held = held

    def late_owners(self) -> Attempts:
        """Return, by cookie, who closed the descriptors of connections that had ended with no owner known."""
        if self._last_late is not None:
            return self._last_late
        cookies, owners = self._late.items()
        found = np.zeros(len(cookies), ATTEMPT)
        found["cookie"], found["pid_source"] = cookies, PidSource.CLOSE
        for name in owners.dtype.names or ():
            found[name] = owners[name]
        return chosen(found, found["pid"] != 0)

    def expire(self, unlisted: Attempts, now_ns: int) -> None:
        """End the attempts whose socket was not listed for a while: nothing else would tell of their end.

        Parameters
        ----------
        unlisted
            The open attempts that the present list of sockets should have and has not.
        now_ns
            The present kernel time.
        """
        with self._lock:
            over = self._absent.gone(unlisted, now_ns)
            if not len(over):
                return
            for key, opened_ns in zip(over["socket"], over["opened_ns"], strict=True):
                followed = self._open.get(key)
                if (
                    followed is not None and followed["opened_ns"] == opened_ns
                ):  # else another socket's by now
                    self._open.delete(key)
            alone = np.isin(over["socket"], self._unfollowed["socket"])
            kept = ~np.isin(self._unfollowed["socket"], over["socket"])
            self._unfollowed = chosen(self._unfollowed, kept)
            wanted = self._wanted.may_keep(over)
            self._end(joined([chosen(over, wanted & ~alone), self._judged(chosen(over, wanted & alone))]))

    def _keep_changes(self, changes: Changes) -> None:
        """Keep as many as there can be of the closed attempts that are kept; the oldest go first."""
        self._changes.append(changes)
        self._changes_kept += len(changes)
        while self._changes_kept - len(self._changes[0]) >= self._changes_most:
            self._changes_kept -= len(self._changes[0])
            self._changes_dropped += len(self._changes.pop(0))

    def changes(self) -> Changes:
        """Return every state change that is kept, in the order of the kernel's clock."""
        with self._lock:
            together = keys.joined(self._changes, CHANGE)
            self._changes = [chosen(together, np.argsort(together["at_ns"], kind="stable"))]
            return self._changes[0]

    def last(self) -> None:
        """Keep what only maps hold, which go away."""
        self._last_open, self._last_late = self.open(), self.late_owners()

    def losses(self) -> list[Missing]:
        """Say what this source cannot see, and what it did not keep."""
        most, each = self._changes_most, _CHANGES_EACH
        kept = f"only some {most} state changes are kept, {each} for each closed attempt"
        lost = [
            Missing("events", Gap.LOST, self._changes_dropped, kept, Cause.LET_GO),
            Missing("connections", Gap.UNSEEN, self._unjudged, _UNJUDGED),
        ]
        return [*self._missing, *(gap for gap in lost if gap.count)]
