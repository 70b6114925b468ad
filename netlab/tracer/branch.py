"""A capture with a filter of its own over the programs of one that runs: nothing is attached for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from netlab.closing import Closes
from netlab.errors import CaptureError
from netlab.frames import Gap, Missing
from netlab.kernel import clock
from netlab.kernel.keys import chosen
from netlab.kernel.usage import Usage
from netlab.tracer.closed import Closed, Ended
from netlab.tracer.filters import Filter
from netlab.tracer.layout import Direction
from netlab.tracer.life import Base
from netlab.tracer.live import Live
from netlab.tracer.options import Options
from netlab.tracer.owners import Processes
from netlab.tracer.records import Attempts, Cookies, is_udp
from netlab.tracer.session import Capture
from netlab.tracer.translations import NoTranslations, Translations

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class _Last:
    """What there was when a branch ended."""

    open: Attempts
    late: Attempts
    over: Cookies
    losses: list[Missing]
    processes: Processes
    usage: list[Usage]
    maps: dict[str, npt.NDArray[np.void]]


class Branch(Closes):
    """Keeps what *wanted* may select of what ends in *live*, from now on; the rest it asks *live* for."""

    drops = None

    def __init__(self, live: Live, wanted: Filter, most: int) -> None:
        self._live, self._wanted = live, wanted
        self._any_direction = replace(wanted, direction=Direction.UNKNOWN)
        self._closed = Closed(most)
        self._pauses: list[tuple[int, int]] = []
        self._skipped = 0
        self._last: _Last | None = None
        live.drain()  # what ended before is not this branch's
        live.ends.followers.append(self._take)

    def _take(self, ended: Attempts) -> None:
        mine, late = self._mine(ended), self._in_pause(ended)
        self._skipped += int((mine & late).sum())
        self._closed.append(chosen(ended, mine & ~late))

    def _mine(self, attempts: Attempts) -> npt.NDArray[np.bool_]:
        """Tell which may be wanted; of older UDP sockets the direction is told from the ports, later."""
        anyway: npt.NDArray[np.bool_] = is_udp(attempts) & self._any_direction.may_keep(attempts)
        return anyway | self._wanted.may_keep(attempts)

    def _in_pause(self, attempts: Attempts) -> npt.NDArray[np.bool_]:
        opened_ns = attempts["opened_ns"].astype(np.int64)
        paused = [(opened_ns >= since) & (opened_ns < until) for since, until in self._pauses]
        return np.logical_or.reduce(paused) if paused else np.zeros(len(attempts), bool)

    def pause(self, *, paused: bool) -> None:
        """Begin or stop leaving out new attempts; those already followed go on."""
        now_ns = clock.now_ns()
        if paused:
            self._pauses.append((now_ns, _NEVER))
        elif self._pauses:
            self._pauses[-1] = (self._pauses[-1][0], now_ns)

    def expect(self, listed: Attempts, *, complete: bool) -> None:
        """Do nothing: the programs were told of the sockets that were there before them."""

    def drain(self) -> None:
        """Take over what the programs reported."""
        if self._last is None:
            self._live.drain()

    def late_owners(self) -> Attempts:
        """Return whose the attempts were that ended before anything told."""
        return self._live.late_owners() if self._last is None else self._last.late

    def settle(self, unlisted: Attempts, held: Attempts, now_ns: int) -> None:
        """End the attempts whose socket is gone, and remember whose others are."""
        self._live.settle(unlisted, held, now_ns)

    def open(self) -> Attempts:
        """Return the attempts that are open now, or were at the end."""
        if self._last is not None:
            return self._last.open
        opened = self._live.open()
        return chosen(opened, ~self._in_pause(opened)) if self._pauses else opened

    def closed(self, since: int = 0) -> Ended:
        """Return the attempts that ended and are kept, oldest first: all, or from number *since* on."""
        return self._closed.since(since)

    def over(self) -> Cookies:
        """Return the cookies of the attempts listed at first that have ended."""
        return self._live.over() if self._last is None else self._last.over

    def losses(self) -> list[Missing]:
        """Say what the programs could not keep or see, and what this branch left out."""
        if self._last is not None:
            return self._last.losses
        skipped = self._skipped
        if self._pauses:
            opened = self._live.open()
            skipped += int((self._mine(opened) & self._in_pause(opened)).sum())
        detail = "attempts began while the capture was paused"
        paused = [Missing("connections", Gap.UNSEEN, skipped, detail)] if skipped else []
        return [*self._live.losses(self._closed), *paused]

    def changes(self) -> npt.NDArray[np.void]:
        """Refuse: the programs do not report changes of state to a branch."""
        raise CaptureError("this capture did not record events", fix="Make it with events=True")

    def heard(self) -> None:
        """Return that nothing was read of what connections say: the programs that are shared do not."""

    def totals(self) -> None:
        """Return that nothing was read, as `heard` does."""

    def processes(self) -> Processes:
        """Return what the programs read of the owners."""
        return self._live.processes() if self._last is None else self._last.processes

    def usage(self) -> list[Usage]:
        """Return what the programs cost, which is for everybody who shares them."""
        return self._live.usage() if self._last is None else self._last.usage

    def maps(self) -> dict[str, npt.NDArray[np.void]]:
        """Return the raw contents of the maps."""
        return self._live.maps() if self._last is None else self._last.maps

    def close(self) -> None:
        """Follow no more and keep what was seen; safe to call again."""
        if self._last is None:
            live = self._live
            try:
                live.drain()
                self._last = _Last(
                    self.open(),
                    live.late_owners(),
                    live.over(),
                    self.losses(),
                    live.processes(),
                    live.usage(),
                    live.maps(),
                )
            finally:
                if self._take in live.ends.followers:
                    live.ends.followers.remove(self._take)

    def abandon(self) -> None:
        """There are no descriptors of its own to let go of in a forked child."""


def suffices(base: Options, asked: Options) -> bool:
    """Tell whether the programs of a capture of everything, with options *base*, do all that is *asked*.

    What is not named here they were compiled, sized or attached for: who asks for another gets his own.
    """
    limits = replace(
        asked.limits,
        max_closed=base.limits.max_closed,
        max_nat=base.limits.max_nat,
        max_drops=base.limits.max_drops,  # without drops= and protocols= nobody counts these two
        max_requests=base.limits.max_requests,
    )
    same = replace(
        asked,
        wanted=base.wanted,
        limits=limits,
        duration_s=base.duration_s,
        client_expiry_s=base.client_expiry_s,
        poll_every_s=base.poll_every_s,
        nat=base.nat,
        spoken=asked.spoken or base.spoken,
    )
    return same == base


class Branched(Capture):
    """A capture with *options* of its own over the programs of the one that *base* is of."""

    def __init__(self, options: Options, base: Base) -> None:
        super().__init__(options)
        self._base, self._lock = base, base.lock

    def _attach(self) -> None:
        live, options = self._base.watch, self._options
        if not isinstance(live, Live):
            raise CaptureError("only a capture with eBPF can be shared", fix="Start one of its own")
        self._nat = self._translations()
        self._watch = Branch(live, options.wanted, options.limits.max_closed)
        self._attached.callback(self._watch.close)
        self._close_when_forgotten()

    def _translations(self) -> Translations | NoTranslations:
        """Return what translates: what *base* knows already, unless somebody else was asked for."""
        options, base = self._options, self._base.options
        if (options.nat, options.limits.max_nat) == (base.nat, base.limits.max_nat):
            return self._base.nat
        own = self._system.translations(options.nat, options.wanted.netns, options.limits.max_nat)
        self._attached.callback(own.close)
        return own

    def _list_before(self) -> None:
        self._to_utc_ns = clock.to_utc_ns()  # not as it was when the capture that runs began
        self._before = self._base.before
