"""A capture's look at what it follows: what the programs said, joined to the sockets there are."""

from __future__ import annotations

import socket
from functools import partial

from netlab.closing import uninterrupted
from netlab.kernel import clock
from netlab.tracer.closed import Ended
from netlab.tracer.layout import PidSource
from netlab.tracer.life import Life, State, Watch
from netlab.tracer.look import Clock, Look
from netlab.tracer.records import Cookies, take_owners


class Looking(Life):
    """A capture that can be looked at."""

    def _look(self, watch: Watch, *, since: int = 0) -> Look:
        """Look at every open attempt and those that ended: all that are kept, or from number *since* on.

        What is taken over from the programs is taken as a whole: an interrupt in between would lose rows.
        """
        opened, now_ns = uninterrupted(watch.open), self._stopped_ns or clock.now_ns()
        now = self._now if self._state is State.STOPPED else self._snapshot_of(opened)
        over, ended = uninterrupted(partial(_ended, watch, since))
        look = Look.of(
            ended,
            opened,
            self._before,
            now,
            over=over,
            wanted=self._options.wanted,
            system=self._system,
            at=Clock.read(now_ns, self._to_utc_ns),
            losses=watch.losses(),
            processes=watch.processes(),
            nat=self._nat.now(),  # last: of what was read before, everything was told by then
        )
        lists_tcp = self._options.wanted.protocol != socket.IPPROTO_UDP  # else others' attempts seem gone
        if self._state is not State.STOPPED and lists_tcp:
            uninterrupted(partial(watch.settle, look.unlisted(), look.held(), look.at.now_ns))
        return look


def _ended(watch: Watch, since: int) -> tuple[Cookies, Ended]:
    """Return what has ended, also while the sockets were listed; in this order, see `merge.merge`."""
    watch.drain()
    over, ended = watch.over(), watch.closed(since)
    if (ended.attempts["pid_source"] == PidSource.NONE).any():
        take_owners(ended.attempts, watch.late_owners())
    return over, ended
