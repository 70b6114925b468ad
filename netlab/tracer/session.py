"""A running capture: its life, and the tables of what it saw."""

from __future__ import annotations

import os
import threading
import time
import weakref
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from netlab.errors import CaptureError
from netlab.tracer import clients, debugging, deltas, dropjoin, events, snapshot
from netlab.tracer.filters import Filter
from netlab.tracer.limits import Limits
from netlab.tracer.live import Live, monotonic_to_utc_ns
from netlab.tracer.look import Clock, Look
from netlab.tracer.poll import Poll
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
    drops: bool
    cost: bool
    client_expiry_s: float
    mode: str  # ebpf or poll
    poll_every_s: float


Watch: TypeAlias = Live | Poll


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


def _close_elsewhere(watch: Watch, process: int) -> None:
    """End what a capture that nobody has any more has left running.

    In a thread of its own: garbage is collected anywhere, in the thread that `close` waits for too.
    """
    if os.getpid() == process:
        threading.Thread(target=watch.close, name="netlab-forgotten", daemon=True).start()


class Capture:
    """TCP connection attempts and UDP flows followed by eBPF; made by `netlab.capture()`.

    Use it as a context manager, or call `start()` and `stop()`. What was seen stays readable after the end.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._state = State.NEW
        self._watch: Watch | None = None
        self._process = os.getpid()
        self._to_utc_ns = self._stopped_ns = 0
        self._before = self._now = Snapshot.empty()
        self._clients = clients.Clients(options.client_expiry_s)
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
        with self._lock:
            self._expect(State.NEW, doing="start")
            watch = self._begin()
            try:
                self._to_utc_ns = monotonic_to_utc_ns()
                if self._options.backfill:
                    self._before = snapshot.take(protocol=self._options.wanted.protocol)
                watch.expect(self._before.attempts, complete=self._options.backfill)
            except BaseException:
                watch.close()
                raise
            self._watch, self._state = watch, State.RUNNING
            self._forgotten = weakref.finalize(self, _close_elsewhere, watch, self._process)
            self._forgotten.atexit = False  # descriptors go with the process anyway
        if self._options.duration_s is not None:
            threading.Thread(target=self._stop_in_time, name="netlab-duration", daemon=True).start()
        return self

    def _begin(self) -> Watch:
        options = self._options
        if options.mode == "poll":
            return Poll(options.limits, options.wanted.protocol, every_s=options.poll_every_s)
        return Live(
            options.wanted,
            options.limits,
            changes=options.events,
            cost=options.cost,
            drops=options.drops,
        )

    def _stop_in_time(self) -> None:
        if not self._ended.wait(self._options.duration_s):
            self.stop()

    def pause(self) -> None:
        """Stop following new attempts; those already followed go on. Skipped ones are counted."""
        with self._lock:
            self._expect(State.RUNNING, doing="pause").pause(paused=True)
            self._state = State.PAUSED

    def resume(self) -> None:
        """Follow new attempts again."""
        with self._lock:
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
                if self._watch is not None:
                    self._now = self._snapshot_of_open(self._watch)
            finally:  # an interrupt in the last look must not leave anything attached
                if self._watch is not None:
                    self._watch.close()
                    self._forgotten.detach()
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
        if self._options.duration_s is None and timeout_s is None:
            raise CaptureError(
                "this capture has no duration to wait for", fix="Give duration_s= or timeout_s="
            )
        total = min(limit for limit in (self._options.duration_s, timeout_s) if limit is not None)
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
            return self._connections_and_drops()[0]

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
            look = self._look()
            kept, changed = look.kept(), self._started().changes()
            frame = events.frame(changed, kept.attempts, to_utc_ns=self._to_utc_ns)
            frame.attrs["coverage"] = look.frame(kept).attrs["coverage"]
            return frame

    def drops(self) -> pd.DataFrame:
        """Return the packets that this host dropped and the TCP resets it sent and received, with the reason.

        Alike ones (same tuple, reason and place) are one row. Filters by process and direction do not apply
        to packets; the coverage says so, and the `pid` column tells whose connection it was, where known.
        What is dropped in a pause is counted in the coverage only.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.DROPS`.

        Raises
        ------
        CaptureError
            If the capture was not made with `drops=True`.
        """
        with self._lock:
            connections, drops = self._connections_and_drops()
            if drops is None:
                raise CaptureError(
                    "this capture did not record drops", fix="Make it with netlab.capture(drops=True)"
                )
            return dropjoin.with_owners(drops, connections)

    def _connections_and_drops(self) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Return the attempts, what drops explain in their `reason`, and those drops if there are any."""
        look, source = self._look(), self._started().drops
        connections = look.frame(look.kept())
        if source is None:
            return connections, None
        drops = source.frame(to_utc_ns=self._to_utc_ns)
        return dropjoin.with_drops(connections, drops), drops

    def register(self, client: str) -> None:
        """Begin to keep account for *client* of what changes; safe to call again.

        Parameters
        ----------
        client
            Its name. Clients of different names do not take anything from each other. One that has not asked
            for `client_expiry_s` is forgotten.

        Raises
        ------
        BadInput
            If the name is empty, too long or has control characters.
        """
        with self._lock:
            look, now_ns = self._look(), time.monotonic_ns()
            told, closed = look.told()
            opened = told.where(np.arange(closed, len(told.attempts))).attempts
            self._clients.register(client, opened, look.ended.following, now_ns)

    def delta(self, client: str) -> pd.DataFrame:
        """Return what changed since this client's last call, or since it registered.

        Parameters
        ----------
        client
            The name it registered with.

        Returns
        -------
        DataFrame
            Schema `netlab.schemas.DELTAS`: the columns of `connections()`, which are of the whole life, and
            beside them the change. Attempts that are not new, not newly closed and unchanged are left out.
            Each attempt is told as closed once; `netlab.coverage` counts those dropped before they were told.

        Raises
        ------
        CaptureError
            If the client has not registered, or was silent for too long.
        """
        with self._lock:
            self._started()
            account = replace(self._clients.get(client, time.monotonic_ns()))
            look = self._look(since=account.seen)
            told, closed = look.told()
            change = clients.changes(account, told.attempts[:closed], told.attempts[closed:])
            dropped = look.dropped(account.seen)
            account.seen, account.closed_dropped = look.ended.following, account.closed_dropped + dropped
            changed = np.flatnonzero(change["is_changed"])
            order = changed[np.argsort(told.attempts["opened_ns"][changed], kind="stable")]
            frame = deltas.frame(look.frame(told.where(order)), change[order], dropped)
            self._clients.keep(account)  # not before: after an interrupt the next call tells all of it
            return frame

    def debug_state(self, client: str) -> dict[str, int]:
        """Return what is kept for *client*: for finding out why its account looks odd."""
        with self._lock:
            watch = self._started()
            account = self._clients.get(client, time.monotonic_ns())
            return {
                "open_tracked": len(account.keys),
                "closed_unseen": watch.closed(account.seen).following - account.seen,
                "closed_dropped": account.closed_dropped,
                "underflows": account.underflows,
            }

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

    def _started(self) -> Watch:
        if os.getpid() != self._process:
            raise CaptureError(
                f"this capture belongs to process {self._process}, which this one was forked from",
                fix="Ask there, or start a capture of its own here",
            )
        if self._watch is None:
            raise CaptureError("this capture has not been started", fix=_ADVICE[State.NEW])
        return self._watch

    def _look(self, *, since: int = 0) -> Look:
        """Look at every open attempt and those that ended: all that are kept, or from number *since* on."""
        watch = self._started()
        now = self._now if self._state is State.STOPPED else self._snapshot_of_open(watch)
        opened, over = watch.open(), watch.over()
        look = Look.of(
            watch.closed(since),
            opened,
            self._before,
            now,
            over=over,
            wanted=self._options.wanted,
            clock=Clock(self._stopped_ns or time.monotonic_ns(), self._to_utc_ns),
            losses=watch.losses(),
            processes=watch.processes(),
        )
        if self._state is not State.STOPPED:
            watch.expire(look.unlisted(), look.clock.now_ns)
        return look

    def _leave_to_parent(self) -> None:
        """In a forked child, close its copies of the descriptors and nothing else."""
        if self._watch is not None and self._state is not State.STOPPED:
            self._state = State.STOPPED
            self._watch.abandon()

    def _snapshot_of_open(self, watch: Watch) -> Snapshot:
        """List the sockets of the namespaces that have open attempts."""
        opened = watch.open()
        only = {*opened["netns"].tolist(), *self._before.attempts["netns"].tolist()}
        return snapshot.take(only, protocol=self._options.wanted.protocol) if only else Snapshot.empty()

    def _expect(self, state: State, *, doing: str) -> Watch:
        if self._state is not state:
            raise CaptureError(f"this capture is {self._state}: it cannot {doing}", fix=_ADVICE[self._state])
        return self._watch  # type: ignore[return-value]  # every state but NEW has one

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._options.duration_s is not None:
                self.wait()
        finally:
            self.stop()
