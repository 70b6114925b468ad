"""A capture without eBPF: the socket tables looked at again and again, and how much that misses."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from netlab.closing import Closes
from netlab.frames import Gap, Missing
from netlab.kernel import clock, netstat, spaces
from netlab.kernel.sockdiag import State
from netlab.kernel.usage import Usage
from netlab.tracer import snapshot
from netlab.tracer.closed import Closed, Ended
from netlab.tracer.layout import ATTEMPT, CHANGE
from netlab.tracer.limits import Limits
from netlab.tracer.owners import Processes
from netlab.tracer.records import Attempts, chosen, has_peer, joined
from netlab.tracer.snapshot import Snapshot

_OPENS = ("Tcp.ActiveOpens", "Tcp.PassiveOpens")  # RFC 4022: one each for the two ends of a connection


class Poll(Closes):
    """Lists the sockets of *protocol* (0: of both) every *every_s* seconds, from construction to `close()`.

    What appears between two looks has opened, and what is gone has closed.
    """

    drops = None  # a list of sockets has no packets

    def __init__(self, limits: Limits, protocol: int, *, every_s: float) -> None:
        self._protocol, self._every_s = protocol, every_s
        self._closed = Closed(limits.max_closed)
        self._before = self._opened = np.empty(0, ATTEMPT)  # open at the last look: since before, or since
        self._skipped = np.empty(0, np.uint64)  # cookies of what opened while paused
        self._over = np.empty(0, np.uint64)  # cookies of what was there before and is gone
        self._seen_to_open, self._paused = 0, False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._opens_at_start = _opens()
        self._thread = threading.Thread(target=self._look_until_closed, name="netlab-poll", daemon=True)

    def expect(self, listed: Attempts, *, complete: bool) -> None:
        """Begin to look: what is *listed* was there before, if the list is *complete*."""
        before = listed if complete else self._listed().attempts
        self._before = chosen(before, has_peer(before))
        self._thread.start()

    def _look_until_closed(self) -> None:
        while not self._ended.wait(self._every_s):
            self.look(self._listed())

    def _listed(self) -> Snapshot:
        return snapshot.take(protocol=self._protocol)

    def look(self, listed: Snapshot) -> None:
        """Compare the sockets that are there now with those of the last look."""
        with self._lock:
            now, now_ns = chosen(listed.attempts, has_peer(listed.attempts)), clock.now_ns()
            was_there = self._before["cookie"]
            self._before = self._still_there(self._before, now, now_ns)
            self._over = np.union1d(self._over, np.setdiff1d(was_there, self._before["cookie"]))
            self._opened = self._still_there(self._opened, now, now_ns)
            known = [self._before["cookie"], self._opened["cookie"], self._skipped]
            new = chosen(now, ~np.isin(now["cookie"], np.concatenate(known)))
            if self._paused:
                self._skipped = np.concatenate([self._skipped, new["cookie"]])
                return
            new["opened_ns"], new["socket"] = now_ns, new["cookie"]
            self._seen_to_open += len(new)
            self._opened = joined([self._opened, new])

    def _still_there(self, known: Attempts, now: Attempts, now_ns: int) -> Attempts:
        """Return those that are listed again, with their counters as they are now; the others have closed."""
        order = np.argsort(now["cookie"])
        place = np.searchsorted(now["cookie"], known["cookie"], sorter=order)
        place = order[place.clip(max=max(len(now) - 1, 0))] if len(now) else np.zeros(len(known), np.intp)
        here = now["cookie"][place] == known["cookie"] if len(now) else np.zeros(len(known), bool)
        gone = chosen(known, ~here)
        gone["closed_ns"], gone["last_state"] = now_ns, State.CLOSE  # nobody saw in which state it was
        self._closed.append(gone)
        there = chosen(now, place[here])
        for name in ("opened_ns", "socket"):
            there[name] = known[name][here]
        return there

    def open(self) -> Attempts:
        """Return the attempts that were seen to open and are open."""
        with self._lock:
            return self._opened

    def closed(self, since: int = 0) -> Ended:
        """Return the attempts that are gone: all that are kept, or from number *since* on."""
        with self._lock:
            return self._closed.since(since)

    def drain(self) -> None:
        """Do nothing: what has ended since the last look the next one finds."""

    def over(self) -> npt.NDArray[np.uint64]:
        """Return the cookies of the attempts open before that are gone; to be read before `closed()`."""
        with self._lock:
            return self._over

    def expire(self, unlisted: Attempts, now_ns: int) -> None:
        """Do nothing: each look ends what is gone."""

    def changes(self) -> npt.NDArray[np.void]:
        """Return no state change: a list of sockets has none."""
        return np.empty(0, CHANGE)

    def heard(self) -> None:
        """Return that nothing was read of what connections say: a list of sockets has none of it."""

    def totals(self) -> None:
        """Return that nothing was read, as `heard` does."""

    def pause(self, *, paused: bool) -> None:
        """Begin or stop following new attempts; those already followed go on."""
        if not self._ended.is_set():
            self.look(self._listed())  # what is new until this moment belongs to what was until now
        self._paused = paused

    def losses(self) -> list[Missing]:
        """Say what polling cannot see, and how much that may be."""
        opens = _opens()
        missed = sum(count - self._opens_at_start.get(netns, 0) for netns, count in opens.items())
        missed -= self._seen_to_open + len(self._skipped)
        gaps = [
            Missing("error, reason, connect_ms, established", Gap.UNAVAILABLE, None, _NO_REASON),
            Missing("opened_at, closed_at", Gap.APPROXIMATE, None, f"late by up to {self._every_s:g} s"),
            Missing("bytes, packets, retransmits", Gap.APPROXIMATE, None, _LAST_LOOK),
        ]
        if missed > 0:
            gaps.append(Missing("connections", Gap.UNSEEN, missed, _TOO_SHORT))
        if len(self._skipped):
            gaps.append(Missing("connections", Gap.UNSEEN, len(self._skipped), _IN_PAUSE))
        gaps += self._closed.losses()
        return gaps

    def processes(self) -> Processes:
        """Return nothing: only who holds a socket now is known."""
        return Processes.none()

    def usage(self) -> list[Usage]:
        """Return nothing: no program runs in the kernel."""
        return []

    def maps(self) -> dict[str, npt.NDArray[np.void]]:
        """Return what is followed."""
        return {"opened": self.open()}

    def close(self) -> None:
        """Stop looking and keep what was seen; safe to call again."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
            self.look(self._listed())

    def abandon(self) -> None:
        """In a forked child there is nothing to let go of."""


def _opens() -> dict[int, int]:
    """Return how many connections each namespace has begun or accepted since it is there."""
    return spaces.ask(spaces.ALL, _opens_here).by_inode


def _opens_here() -> int:
    counts = netstat.counters()
    return sum(counts[name] for name in _OPENS)


_NO_REASON = "a list of sockets does not say how a connection began or ended; use mode='ebpf'"
_LAST_LOOK = "of closed connections as of the last look that saw them: lower bounds"
_TOO_SHORT = (
    "connections that the kernel counted as opened, beyond those seen: too short for a look, or failed"
)
_IN_PAUSE = "attempts began while the capture was paused"
