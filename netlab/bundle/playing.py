"""The clock of a replay: where in the recording it is, how fast it goes, and when it is over."""

from __future__ import annotations

import threading
import time
from datetime import datetime

import pandas as pd

from netlab import checks
from netlab.errors import BadInput, CaptureError
from netlab.tracer.life import State

_NS = 1_000_000_000
_TICK_S = 0.2
_FASTEST = 1e6


class Playhead:
    """Goes from *begin_ns* to *end_ns*, in UTC, at *speed* times the pace of life; needs no thread."""

    def __init__(self, begin_ns: int, end_ns: int, speed: float) -> None:
        self.begin_ns, self.end_ns = begin_ns, end_ns
        self.speed = checks.positive("speed", speed, unit="times the pace of life", most=_FASTEST)
        self._state = State.NEW
        self._place_ns = begin_ns  # at the moment `_since_s`
        self._since_s = 0.0
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """One of new, running, paused, stopped; at the end it is stopped."""
        with self._lock:
            self._settle()
            return self._state

    def now_ns(self) -> int:
        """Return the moment of the recording that is shown."""
        with self._lock:
            self._settle()
            return self._place_ns

    def start(self) -> None:
        """Begin to play."""
        self._go(State.NEW, State.RUNNING, doing="start")

    def pause(self) -> None:
        """Stay where it is."""
        self._go(State.RUNNING, State.PAUSED, doing="pause")

    def resume(self) -> None:
        """Go on."""
        self._go(State.PAUSED, State.RUNNING, doing="resume")

    def stop(self) -> None:
        """End here; safe to call again."""
        with self._lock:
            self._settle()
            self._state = State.STOPPED

    def seek(self, to: str | datetime | float) -> None:
        """Go to a moment: a time, or seconds from the beginning. What has ended can be started there."""
        place_ns = self._moment_ns(to)
        with self._lock:
            self._settle()
            self._place_ns = place_ns
            if self._state is State.STOPPED:
                self._state = State.NEW

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it has ended, at most *timeout_s*; tell whether it has. Ctrl-C interrupts."""
        until_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while (state := self.state) is not State.STOPPED:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                break
            if state is not State.RUNNING and timeout_s is None:
                raise CaptureError(
                    f"this replay is {state}: it does not end by itself", fix="start() it first"
                )
            play_s = (self.end_ns - self.now_ns()) / _NS / self.speed
            time.sleep(max(0.001, min(_TICK_S, left_s, play_s)))
        return self.state is State.STOPPED

    def _settle(self) -> None:
        """Move on to where it is by now."""
        now_s = time.monotonic()
        if self._state is State.RUNNING:
            passed_ns = round((now_s - self._since_s) * self.speed * _NS)
            self._place_ns = min(self.end_ns, self._place_ns + passed_ns)
            if self._place_ns == self.end_ns:
                self._state = State.STOPPED
        self._since_s = now_s

    def _go(self, before: State, after: State, *, doing: str) -> None:
        with self._lock:
            self._settle()
            if self._state is not before:
                raise CaptureError(
                    f"this replay is {self._state}: it cannot {doing}",
                    fix="seek() makes it ready to start" if self._state is State.STOPPED else "",
                )
            self._state = after

    def _moment_ns(self, to: str | datetime | float) -> int:
        span = f"{pd.Timestamp(self.begin_ns, tz='UTC')} to {pd.Timestamp(self.end_ns, tz='UTC')}"
        try:
            if isinstance(to, int | float) and not isinstance(to, bool):
                place_ns = self.begin_ns + round(to * _NS)
            else:
                time = pd.Timestamp(to)
                place_ns = int((time.tz_localize("UTC") if time.tz is None else time).value)
        except (TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"cannot seek to {to!r}: {error}", fix=f"The recording is from {span}") from error
        if not self.begin_ns <= place_ns <= self.end_ns:
            raise BadInput(f"{to!r} is outside of the recording", fix=f"It is from {span}")
        return place_ns
