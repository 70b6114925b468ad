"""A capture without eBPF: the socket tables looked at again and again, and how much that misses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.closing import Closes
from netlab.frames import Gap, Missing
from netlab.kernel import clock, netstat
from netlab.kernel.keys import chosen
from netlab.kernel.sockdiag import State
from netlab.kernel.usage import Usage
from netlab.tracer.closed import Closed, Ended
from netlab.tracer.layout import ATTEMPT, CHANGE
from netlab.tracer.limits import Limits
from netlab.tracer.owners import Processes
from netlab.tracer.records import Attempts, has_peer, is_udp, joined
from netlab.tracer.snapshot import Snapshot
from netlab.tracer.system import System


class Poll(Closes):
    """Lists *system*'s sockets of *protocol* (0: of both) every *every_s* seconds, up to `close()`.

    What appears between two looks has opened, and what is gone has closed.
    """

    drops = None  # a list of sockets has no packets

    def __init__(self, limits: Limits, protocol: int, *, every_s: float, system: System) -> None:
        self._system, self._protocol, self._every_s = system, protocol, every_s
        self._closed = Closed(limits.max_closed)
        # Open at the last look: since before, since, or since a pause.
        self._before = self._opened = self._skipped = np.empty(0, ATTEMPT)
        self._away: dict[int, int] = {}  # since when, of those that the last look missed, by cookie
        self._over = np.empty(0, np.uint64)  # cookies of what was there before and is gone
        self._tcp_opened = self._skipped_in_all = 0
        self._paused = False
        self._failed, self._failure = 0, ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._opens_at_start = system.opens()
        self._thread = threading.Thread(target=self._look_until_closed, name="netlab-poll", daemon=True)

    def expect(self, listed: Attempts, *, complete: bool) -> None:
        """Begin to look: what is *listed* was there before, if the list is *complete*."""
        before = listed if complete else self._listed().attempts
        self._before = chosen(before, has_peer(before))
        self._thread.start()

    def _look_until_closed(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self.look(self._listed())
            except Exception as error:  # noqa: BLE001 - such as want of descriptors, which passes
                self._failed, self._failure = self._failed + 1, str(error)

    def _listed(self) -> Snapshot:
        return self._system.take(protocol=self._protocol)

    def look(self, listed: Snapshot) -> None:
        """Compare the sockets that are there now with those of the last look."""
        with self._lock:
            now, now_ns = chosen(listed.attempts, has_peer(listed.attempts)), clock.now_ns()
            before, opened, skipped = (
                _Compared.of(known, now, self._away, now_ns)
                for known in (self._before, self._opened, self._skipped)
            )
            for over in (before.gone, opened.gone):
                self._closed.append(over)
            for over in (before.gone, opened.gone, skipped.gone):
                self._system.forget(over["cookie"].tolist())
            self._over = np.union1d(self._over, before.gone["cookie"])
            self._away = before.away | opened.away | skipped.away
            self._before, self._opened, self._skipped = before.there, opened.there, skipped.there
            known = joined([self._before, self._opened, self._skipped])
            new = chosen(now, ~np.isin(now["cookie"], known["cookie"]))
            new["opened_ns"], new["socket"] = now_ns, new["cookie"]
            self._tcp_opened += int(np.count_nonzero(~is_udp(new)))
            if self._paused:
                self._skipped = joined([self._skipped, new])
                self._skipped_in_all += len(new)
            else:
                self._opened = joined([self._opened, new])

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

    def late_owners(self) -> Attempts:
        """Return none: who holds a socket now is all that is known."""
        return np.empty(0, ATTEMPT)

    def settle(self, unlisted: Attempts, held: Attempts, now_ns: int) -> None:
        """Do nothing: each look ends what is gone, and lists who holds the others."""

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
        gaps = [
            *self._system.missing,
            Missing("opened_at, closed_at", Gap.APPROXIMATE, None, f"late by up to {self._every_s:g} s"),
            *self._missed(),
        ]
        for count, kind, detail in (
            (self._skipped_in_all, Gap.UNSEEN, _IN_PAUSE),
            (self._failed, Gap.INCOMPLETE, f"looks failed, the last one for: {self._failure}"),
        ):
            if count:
                gaps.append(Missing("connections", kind, count, detail))
        return [*gaps, *self._closed.losses()]

    def _missed(self) -> list[Missing]:
        """Say how many connections were too short to be seen, as far as somebody counts them."""
        counts = self._system.opens()
        if counts is None or self._opens_at_start is None:
            return [Missing("connections", Gap.UNSEEN, None, _UNCOUNTED)]
        opened = 0 if self._protocol == socket.IPPROTO_UDP else netstat.gained(self._opens_at_start, counts)
        missed = max(0, opened - self._tcp_opened)
        return [Missing("connections", Gap.UNSEEN, missed, _TOO_SHORT)] if missed else []

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
            for _ in range(2):  # what one look misses may be there
                self.look(self._listed())

    def abandon(self) -> None:
        """In a forked child there is nothing to let go of."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """What became of sockets that were there, at the next look.

    One that two looks in a row miss has closed when the first one did: a list that is made while others come
    and go may skip it, and a namespace may fail to answer.
    """

    there: Attempts  # with their counters as they are now, where they are listed again
    gone: Attempts
    away: dict[int, int]  # since when, of those that this look was the first to miss, by cookie

    @classmethod
    def of(cls, known: Attempts, now: Attempts, away: Mapping[int, int], now_ns: int) -> _Compared:
        place = pd.Index(now["cookie"]).get_indexer(pd.Index(known["cookie"]))
        listed = np.flatnonzero(place >= 0)
        same = _same_ends(chosen(known, listed), chosen(now, place[listed]))
        there, missed = chosen(now, place[listed[same]]), chosen(known, place < 0)
        for name in ("opened_ns", "socket"):
            there[name] = known[name][listed[same]]
        since_ns = np.array([away.get(cookie, 0) for cookie in missed["cookie"].tolist()], np.uint64)
        left, waiting = chosen(missed, since_ns != 0), chosen(missed, since_ns == 0)
        left["closed_ns"] = since_ns[since_ns != 0]
        elsewhere = chosen(known, listed[~same])  # the socket has connected again meanwhile
        elsewhere["closed_ns"] = now_ns
        gone = joined([left, elsewhere])
        gone["last_state"] = State.CLOSE  # nobody saw in which state it was
        return cls(joined([there, waiting]), gone, dict.fromkeys(waiting["cookie"].tolist(), now_ns))


def _same_ends(ones: Attempts, others: Attempts) -> npt.NDArray[np.bool_]:
    """Tell which of *ones* have the ends that the record at the same place of *others* has."""
    same = np.ones(len(ones), bool)
    for name in ("local_port", "remote_port"):
        same &= ones[name] == others[name]
    for name in ("local_address", "remote_address"):
        same &= (ones[name] == others[name]).all(axis=1)
    return same


_TOO_SHORT = (
    "connections that the kernel counted as opened, beyond those seen: too short for a look, or failed"
)
_UNCOUNTED = "those shorter than the time between two looks; how many they are, nobody counts on this system"
_IN_PAUSE = "attempts began while the capture was paused"
