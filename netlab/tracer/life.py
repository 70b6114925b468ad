"""The life of a capture: started, paused, stopped, and never left running behind anybody's back."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Self, TypeAlias

from netlab import bars
from netlab.closing import Runs, uninterrupted
from netlab.errors import CaptureError
from netlab.kernel import clock, descriptors
from netlab.tracer import system
from netlab.tracer.holders import Holders
from netlab.tracer.keeping import Kept
from netlab.tracer.live import Live
from netlab.tracer.options import Options
from netlab.tracer.poll import Poll
from netlab.tracer.records import Attempts, ownerless
from netlab.tracer.snapshot import Snapshot
from netlab.tracer.translations import NoTranslations, Translations
from netlab.turns import Turns

if TYPE_CHECKING:
    from netlab.tracer.branch import Branch

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f} of {total:g} s"
_BAR_FROM_S = 2.0  # shorter waits need no progress bar
_TICK_S = 0.2
_GRACE_S = 10.0  # a capture that should have ended this long ago will not

Watch: TypeAlias = "Live | Poll | Branch"


@dataclass(frozen=True, slots=True)
class Base:
    """What a branch takes from the capture that it is of."""

    options: Options
    watch: Watch
    nat: Translations | NoTranslations
    before: Snapshot
    lock: Turns


class State(StrEnum):
    """Where a capture is in its life."""

    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


_ADVICE = {
    State.NEW: "Enter it with `with`, or call start()",
    State.RUNNING: "It runs: stop() ends it, pause() interrupts it",
    State.PAUSED: "resume() goes on, stop() ends it",
    State.STOPPED: "Make a new one with netlab.capture()",
}


def _detach_elsewhere(attached: ExitStack, process: int) -> None:
    """End what a capture that nobody has any more has left running.

    In a thread of its own: garbage is collected anywhere, in the thread that it waits for too.
    """
    if os.getpid() == process:
        threading.Thread(target=attached.close, name="netlab-forgotten", daemon=True).start()


class Life(Runs):
    """A context manager that follows what *options* say as long as it is entered."""

    def __init__(self, options: Options) -> None:
        self._options, self._system = options, system.here()
        self._state = State.NEW
        self._watch: Watch | None = None
        self._attached = ExitStack()  # what has to be closed
        self._process = os.getpid()
        self._to_utc_ns = self._stopped_ns = 0
        self._before = self._now = Snapshot.empty()
        self._holders, self._spaces = Holders(), Kept()
        self._ended, self._lock = threading.Event(), Turns()

    def __repr__(self) -> str:
        return f"<netlab capture: {self._state}>"

    @property
    def state(self) -> State:
        """One of new, running, paused, stopped."""
        return self._state

    @property
    def options(self) -> Options:
        """What it was asked for, checked."""
        return self._options

    def base(self) -> Base:
        """Return what a branch of this capture takes from it."""
        with self._asked() as watch:
            return Base(self._options, watch, self._nat, self._before, self._lock)

    def start(self) -> Self:
        """Attach the programs, then list what is open already; returns when both are done, or raises.

        In this order nothing falls between: a socket that opens meanwhile is in both, and counted once.
        """
        self._refuse_child()
        with self._lock, descriptors.explained(doing="start the capture"):
            self._expect(State.NEW, doing="start")
            try:
                self._attached.callback(self._spaces.close)
                uninterrupted(partial(self._spaces.keep, self._options.wanted))
                uninterrupted(self._attach)
                self._list_before()
                self._state = State.RUNNING
            except BaseException:
                uninterrupted(self._attached.close)
                self._watch, self._state = None, State.NEW
                raise
        if self._options.duration_s is not None:
            threading.Thread(target=self._stop_in_time, name="netlab-duration", daemon=True).start()
        return self

    def _attach(self) -> None:
        """Begin to watch, and hold on to what has to be closed from the moment it is there.

        Translations are looked for while the programs compile, and known before these attach.
        """
        options = self._options
        with ThreadPoolExecutor(1) as aside:
            nat = aside.submit(
                self._system.translations, options.nat, options.wanted.netns, options.limits.max_nat
            )
            try:
                self._watch = self._begin(after=nat.result)
            finally:
                self._nat = nat.result()
                self._attached.callback(self._nat.close)
        self._attached.callback(self._watch.close)
        self._close_when_forgotten()

    def _close_when_forgotten(self) -> None:
        forgotten = weakref.finalize(self, _detach_elsewhere, self._attached, self._process)
        forgotten.atexit = False  # descriptors go with the process anyway
        self._attached.callback(forgotten.detach)

    def _begin(self, after: Callable[[], object]) -> Watch:
        options, wanted = self._options, self._options.wanted
        if options.mode == "poll":
            after()
            return Poll(options.limits, wanted.protocol, every_s=options.poll_every_s, system=self._system)
        return Live(
            wanted,
            options.limits,
            changes=options.events,
            cost=options.cost,
            drops=options.drops,
            spoken=options.spoken,
            after=after,
        )

    def _list_before(self) -> None:
        self._to_utc_ns = clock.to_utc_ns()
        if self._options.backfill:
            wanted = self._options.wanted
            self._before = self._system.take(
                wanted.netns or None, protocol=wanted.protocol, holders=self._holders
            )
        with self._asked() as watch:
            watch.expect(self._before.attempts, complete=self._options.backfill)

    def _stop_in_time(self) -> None:
        if not self._ended.wait(self._options.duration_s):
            self.stop()

    def pause(self) -> None:
        """Stop following new attempts; those already followed go on. Skipped ones are counted."""
        with self._lock:
            watch = self._expect(State.RUNNING, doing="pause")
            uninterrupted(partial(watch.pause, paused=True))
            self._state = State.PAUSED

    def resume(self) -> None:
        """Follow new attempts again."""
        with self._lock:
            watch = self._expect(State.PAUSED, doing="resume")
            uninterrupted(partial(watch.pause, paused=False))
            self._state = State.RUNNING

    def stop(self) -> None:
        """Detach everything and keep what was seen; safe to call again.

        A signal handler may call it, too: in the middle of an answer it is done after that.
        """
        if self._is_inherited():
            self._leave_to_parent()
            return
        with self._lock:
            if self._lock.postpones(self.stop) or self._state is State.STOPPED:
                return
            try:
                if self._watch is not None:
                    self._now = self._snapshot_of(uninterrupted(self._watch.open))
            finally:  # an interrupt in the last look must not leave anything attached
                uninterrupted(self._detach)

    def _detach(self) -> None:
        try:
            self._attached.close()
        finally:
            self._stopped_ns = clock.now_ns()
            self._state = State.STOPPED
            self._ended.set()

    @property
    def _ends(self) -> bool:
        return self._options.duration_s is not None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of a capture with a duration; tell whether it has ended.

        Parameters
        ----------
        timeout_s
            Wait at most this many seconds.
        """
        if self._state is State.NEW:
            raise CaptureError("this capture has not been started", fix=_ADVICE[State.NEW])
        if self._options.duration_s is None and timeout_s is None:
            raise CaptureError(
                "this capture has no duration to wait for", fix="Give duration_s= or timeout_s="
            )
        total = min(limit for limit in (self._options.duration_s, timeout_s) if limit is not None)
        began = time.monotonic()
        deadline = began + (total if timeout_s is not None else total + _GRACE_S)
        with bars.bar(
            total=round(total, 1), desc="capturing", bar_format=_BAR, leave=False, disable=total < _BAR_FROM_S
        ) as bar:
            while not self._ended.wait(min(_TICK_S, max(0.0, deadline - time.monotonic()))):
                now = time.monotonic()
                bar.update(min(now - began, total) - bar.n)
                if now >= deadline:
                    break
        return self._ended.is_set()

    @contextmanager
    def _asked(self) -> Iterator[Watch]:
        """Hold the lock for an answer; not in a forked child, whose copy of it may be held for ever."""
        self._refuse_child()
        with self._lock:
            if self._watch is None:
                raise CaptureError("this capture has not been started", fix=_ADVICE[State.NEW])
            yield self._watch

    def _is_inherited(self) -> bool:
        """Tell whether this process was forked from the capture's."""
        return os.getpid() != self._process

    def _refuse_child(self) -> None:
        if self._is_inherited():
            raise CaptureError(
                f"this capture belongs to process {self._process}, which this one was forked from",
                fix="Ask there, or start a capture of its own here",
            )

    def _leave_to_parent(self) -> None:
        """In a forked child, close its copies of the descriptors and nothing else."""
        if self._watch is not None and self._state is not State.STOPPED:
            self._state = State.STOPPED
            self._watch.abandon()
            self._nat.abandon()
            self._spaces.close()

    def _snapshot_of(self, opened: Attempts) -> Snapshot:
        """List the sockets of the namespaces that have *opened* attempts."""
        before = self._before.attempts
        only = {*opened["netns"].tolist(), *before["netns"].tolist()}
        if not only:
            return Snapshot.empty()
        return self._system.take(
            only,
            protocol=self._options.wanted.protocol,
            holders=self._holders,
            ownerless=ownerless(opened, before),
        )

    def _expect(self, state: State, *, doing: str) -> Watch:
        if self._state is not state:
            raise CaptureError(f"this capture is {self._state}: it cannot {doing}", fix=_ADVICE[self._state])
        return self._watch  # type: ignore[return-value]  # every state but NEW has one
