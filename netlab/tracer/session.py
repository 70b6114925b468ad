"""A running capture: its life, and the tables of what it saw."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

import pandas as pd
from tqdm.auto import tqdm

from netlab.errors import CaptureError
from netlab.frames import Gap, Missing
from netlab.tracer import debugging, events, rows, snapshot
from netlab.tracer.filters import Filter
from netlab.tracer.layout import PidSource
from netlab.tracer.limits import Limits
from netlab.tracer.live import Live, monotonic_to_utc_ns
from netlab.tracer.merge import Table, merge
from netlab.tracer.records import end_unseen
from netlab.tracer.snapshot import Snapshot

_BAR_FROM_S = 2.0  # shorter waits need no progress bar
_TICK_S = 0.2
_GRACE_S = 10.0  # a capture that should have ended this long ago will not


@dataclass(frozen=True, slots=True)
class Options:
    """What `netlab.capture()` was asked for, checked."""

    wanted: Filter
    limits: Limits
    duration_s: float | None
    backfill: bool
    events: bool
    cost: bool


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


class Capture:
    """TCP connection attempts followed by eBPF; made by `netlab.capture()`.

    Use it as a context manager, or call `start()` and `stop()`. What was seen stays readable after the end.
    """

    def __init__(self, options: Options) -> None:
        self._options, self._wanted, self._duration_s = options, options.wanted, options.duration_s
        self._state = State.NEW
        self._live: Live | None = None
        self._process = os.getpid()
        self._to_utc_ns = self._stopped_ns = 0
        self._before = self._now = Snapshot.empty()
        self._ended = threading.Event()
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<netlab capture: {self._state}>"

    @property
    def state(self) -> State:
        """Where the capture is in its life: new, running, paused or stopped."""
        return self._state

    def start(self) -> Self:
        """Attach the programs, then list what is open already; returns when both are done, or raises.

        In this order nothing falls between: a socket that opens meanwhile is in both, and counted once.
        """
        self._expect(State.NEW, doing="start")
        self._live = Live(
            self._wanted, self._options.limits, changes=self._options.events, cost=self._options.cost
        )
        try:
            self._to_utc_ns = monotonic_to_utc_ns()
            if self._options.backfill:
                self._before = snapshot.take()
            self._live.tcp.expect(self._before.attempts, complete=self._options.backfill)
        except BaseException:
            self._live.close()
            raise
        self._state = State.RUNNING
        if self._duration_s is not None:
            threading.Thread(target=self._stop_in_time, name="netlab-duration", daemon=True).start()
        return self

    def _stop_in_time(self) -> None:
        if not self._ended.wait(self._duration_s):
            self.stop()

    def pause(self) -> None:
        """Stop following new attempts; those already followed go on. Skipped ones are counted."""
        self._expect(State.RUNNING, doing="pause").pause(paused=True)
        self._state = State.PAUSED

    def resume(self) -> None:
        """Follow new attempts again."""
        self._expect(State.PAUSED, doing="resume").pause(paused=False)
        self._state = State.RUNNING

    def stop(self) -> None:
        """Detach everything and keep what was seen; safe to call again."""
        if os.getpid() != self._process:
            self._leave_to_parent()
            return
        with self._lock:
            if self._state is State.STOPPED:
                return
            try:
                if self._live is not None:
                    self._now = self._snapshot_of_open(self._live)
            finally:  # an interrupt in the last look must not leave anything attached
                if self._live is not None:
                    self._live.close()
                self._stopped_ns = time.monotonic_ns()
                self._state = State.STOPPED
                self._ended.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of a capture with a duration; tell whether it has ended.

        Parameters
        ----------
        timeout_s
            Wait at most this many seconds.
        """
        if self._state is State.NEW:
            raise CaptureError("this capture has not been started", fix=_ADVICE[State.NEW])
        if self._duration_s is None and timeout_s is None:
            raise CaptureError(
                "this capture has no duration to wait for", fix="Give duration_s= or timeout_s="
            )
        total = min(limit for limit in (self._duration_s, timeout_s) if limit is not None)
        deadline = time.monotonic() + (total if timeout_s is not None else total + _GRACE_S)
        with tqdm(
            total=round(total, 1), unit="s", desc="capturing", leave=False, disable=total < _BAR_FROM_S
        ) as bar:
            while not self._ended.wait(min(_TICK_S, max(0.0, deadline - time.monotonic()))):
                bar.update(min(_TICK_S, total - bar.n))
                if time.monotonic() >= deadline:
                    break
        return self._ended.is_set()

    def connections(self) -> pd.DataFrame:
        """Return one row per attempt seen so far, open and closed, failed ones with their errno.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.CONNECTIONS`; counters of open connections are those of this moment, or of
            the end of the capture.
        """
        with self._lock:
            return self._frame(*self._look())

    def failures(self) -> pd.DataFrame:
        """Return the attempts that failed: the rows of `connections()` that have an `error` or a `reason`."""
        frame = self.connections()
        return frame[frame["error"].notna() | frame["reason"].notna()].reset_index(drop=True)

    def events(self) -> pd.DataFrame:
        """Return every change of a TCP connection's state, in the order of the kernel's clock on all CPUs.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.EVENTS`.

        Raises
        ------
        CaptureError
            If the capture was not made with `events=True`.
        """
        if not self._options.events:
            raise CaptureError(
                "this capture did not record events", fix="Make it with netlab.capture(events=True)"
            )
        with self._lock:
            table, now = self._look()
            live = self._started()
            frame = events.frame(live.tcp.changes(), table.attempts, to_utc_ns=self._to_utc_ns)
            frame.attrs["coverage"] = self._frame(table, now).attrs["coverage"]
            return frame

    def cost(self) -> pd.DataFrame:
        """Return what each of the capture's programs cost so far.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.COST`: how often each program ran, its time, and the memory of programs and
            maps. Runs are counted in captures made with `cost=True`, and while kernel.bpf_stats_enabled is 1.
        """
        with self._lock:
            return debugging.cost(self._started().usage())

    def debug_maps(self) -> dict[str, pd.DataFrame]:
        """Return the programs' maps as they are, one raw frame each: for finding out why a row looks odd."""
        with self._lock:
            return {name: debugging.raw(records) for name, records in self._started().maps().items()}

    def _started(self) -> Live:
        if os.getpid() != self._process:
            raise CaptureError(
                f"this capture belongs to process {self._process}, which this one was forked from",
                fix="Ask there, or start a capture of its own here",
            )
        if self._live is None:
            raise CaptureError("this capture has not been started", fix=_ADVICE[State.NEW])
        return self._live

    def _look(self) -> tuple[Table, Snapshot]:
        """Return every attempt of anyone, and the sockets listed for it."""
        live = self._started()
        now = self._now if self._state is State.STOPPED else self._snapshot_of_open(live)
        opened = live.tcp.open()  # before the closed ones: see merge()
        return merge(live.tcp.closed(), opened, self._before, now), now

    def _frame(self, table: Table, now: Snapshot) -> pd.DataFrame:
        wanted = table.where(self._wanted.keeps(table.attempts))
        return rows.connections(
            wanted,
            to_utc_ns=self._to_utc_ns,
            now_ns=self._stopped_ns or time.monotonic_ns(),
            command_lines=self._before.command_lines | now.command_lines,
            missing=dict.fromkeys(
                [
                    *self._started().losses(),
                    *self._before.missing,
                    *now.missing,
                    *self._guesses(table, wanted),
                ]
            ),
        )

    def _guesses(self, table: Table, wanted: Table) -> list[Missing]:
        """Say of how many attempts something is not known, or guessed."""
        possible = self._wanted.of_anyone().keeps(table.attempts)
        ownerless = int((possible & (table.attempts["pid_source"] == PidSource.NONE)).sum())
        guessed = int(
            (table if self._wanted.direction else wanted).backfilled.sum()
        )  # a wrong guess hides it
        unknown = (
            Missing("connections", Gap.UNSEEN, ownerless, _MAY_BELONG)
            if self._wanted.by_owner
            else Missing("pid, process", Gap.UNAVAILABLE, ownerless, _OWNERLESS)
        )
        direction = Missing("direction", Gap.APPROXIMATE, guessed, _FROM_PORTS)
        ends = int(end_unseen(wanted.attempts).sum())
        starts = int(((wanted.attempts["opened_ns"] == 0) & ~wanted.backfilled).sum())
        missed = [
            Missing("closed_at, error, counters", Gap.UNSEEN, ends, _END_MISSED),
            Missing("opened_at", Gap.UNSEEN, starts, _START_MISSED),
        ]
        return [gap for gap in (unknown, direction, *missed) if gap.count]

    def _leave_to_parent(self) -> None:
        """In a forked child, close its copies of the descriptors and nothing else."""
        if self._live is not None and self._state is not State.STOPPED:
            self._state = State.STOPPED
            self._live.abandon()

    def _snapshot_of_open(self, live: Live) -> Snapshot:
        """List the sockets of the namespaces that have open attempts."""
        opened = live.tcp.open()
        only = {*opened["netns"].tolist(), *self._before.attempts["netns"].tolist()}
        return snapshot.take(only) if only else Snapshot.empty()

    def _expect(self, state: State, *, doing: str) -> Live:
        if self._state is not state:
            raise CaptureError(f"this capture is {self._state}: it cannot {doing}", fix=_ADVICE[self._state])
        return self._live  # type: ignore[return-value]  # every state but NEW has one

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._duration_s is not None:
                self.wait()
        finally:
            self.stop()


_OWNERLESS = (
    "accepted by the kernel outside any process, and nobody was seen to hold, read or close the socket"
)
_MAY_BELONG = f"their owner is not known, so they may belong to the process asked for: {_OWNERLESS}"
_END_MISSED = "the kernel did not run the program when the connection ended"
_START_MISSED = "they ended before netlab had listed what was open, or the kernel did not run the program"
_FROM_PORTS = "of connections older than the capture, direction is told from the ports"
