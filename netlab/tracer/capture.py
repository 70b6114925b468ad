"""`netlab.capture()`: follow TCP connection attempts, and ask at any moment what was seen."""

from __future__ import annotations

import os
import threading
import time
from enum import StrEnum
from types import TracebackType
from typing import Self

import pandas as pd
from tqdm.auto import tqdm

from netlab import checks
from netlab.errors import CaptureError
from netlab.frames import Gap, Missing
from netlab.kernel import capabilities, spaces
from netlab.kernel.bpf import load_bcc
from netlab.tracer import rows, snapshot
from netlab.tracer.excludes import Excluded
from netlab.tracer.filters import Addresses, Filter, Names, Pids, Ports, Spaces
from netlab.tracer.layout import PidSource
from netlab.tracer.merge import Table, merge
from netlab.tracer.snapshot import Snapshot
from netlab.tracer.source import TcpSource, monotonic_to_utc_ns

_BAR_FROM_S = 2.0  # shorter waits need no progress bar
_TICK_S = 0.2
_GRACE_S = 10.0  # a capture that should have ended this long ago will not


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


@checks.options
def capture(
    *,
    duration_s: float | None = None,
    port: Ports = None,
    pid: Pids = None,
    process: Names = None,
    remote: Addresses = None,
    local: Addresses = None,
    protocol: str | None = None,
    netns: Spaces = spaces.ALL,
    direction: str | None = None,
    exclude_remote: Excluded | None = None,
    exclude_local: Excluded | None = None,
    backfill: bool = True,
    max_open: int = 65_536,
    max_closed: int = 1_000_000,
) -> Capture:
    """Follow TCP connection attempts over IPv4 and IPv6 in every network namespace of this host.

    Parameters
    ----------
    duration_s
        Stop after this many seconds; leaving the `with` block then waits for the end. Without it the capture
        goes on until the block is left or `stop()` is called.
    port
        Follow only attempts with this port, or one of these, at either end.
    pid, process
        Follow only attempts of these process ids or command names (any match). The owner of an accepted
        connection is known when it is looked for or closed, so this filter is applied to those afterwards.
    remote, local
        Follow only attempts whose end is one of these addresses or in one of these CIDRs. An IPv4-mapped
        IPv6 address counts as the IPv4 address in it.
    protocol
        "tcp" or "udp"; all that is followed by default.
    netns
        Follow only attempts in these network namespaces: a name under /run/netns, a path, a process id, an
        inode as in the frames' `netns` column, or several; None is the calling thread's own, "all" is all.
    direction
        "outgoing" or "incoming". Of a connection older than the capture it is told from the ports; where that
        is not possible the connection is kept, and its `direction` is "unknown".
    exclude_remote, exclude_local
        Leave out attempts with this end: an address, a CIDR or "*", mapped to ports, ranges or "*", each for
        one protocol if that is named first, such as `{"10.0.0.0/8": ["80", "8000-8999", "udp 53"]}`.
    backfill
        List the connections that are open already, too.
    max_open, max_closed
        How many attempts are kept at a time; what does not fit is counted in the coverage.

    Returns
    -------
    Capture
        Not started yet: enter it with `with`, or call `start()`.

    Raises
    ------
    BadInput
        If an option cannot be right.
    CapabilityError
        If this process may not attach eBPF programs, or BCC is missing; the message has the fix.

    Notes
    -----
    State changes come from the raw tracepoint `inet_sock_set_state` (net/ipv4/af_inet.c), counters from the
    kernel's own `struct tcp_sock` at the moment of closing; nothing runs per packet.

    Filters are compiled into the programs; one with more than 64 ranges, networks or other items is applied
    to what they report instead, with the same result.

    Examples
    --------
    >>> import netlab
    >>> with netlab.capture(port=443) as cap:
    ...     pass
    >>> cap.connections().columns[:3].tolist()
    ['protocol', 'family', 'state']
    """
    wanted = Filter.of(
        port=port,
        pid=pid,
        process=process,
        remote=remote,
        local=local,
        protocol=protocol,
        netns=netns,
        direction=direction,
        exclude_remote=exclude_remote,
        exclude_local=exclude_local,
    )
    if duration_s is not None:
        checks.positive("duration_s", duration_s, unit="seconds")
    checks.whole("max_open", max_open, 1, 1 << 24)
    checks.whole("max_closed", max_closed, 1, 1 << 30)
    capabilities.require("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", doing="follow connections with eBPF")
    load_bcc()
    return Capture(wanted, duration_s=duration_s, backfill=backfill, max_open=max_open, max_closed=max_closed)


class Capture:
    """TCP connection attempts followed by eBPF; made by `netlab.capture()`.

    Use it as a context manager, or call `start()` and `stop()`. What was seen stays readable after the end.
    """

    def __init__(
        self, wanted: Filter, *, duration_s: float | None, backfill: bool, max_open: int, max_closed: int
    ) -> None:
        self._wanted, self._duration_s, self._backfill = wanted, duration_s, backfill
        self._max_open, self._max_closed = max_open, max_closed
        self._state = State.NEW
        self._source: TcpSource | None = None
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
        self._source = TcpSource(self._wanted, max_open=self._max_open, max_closed=self._max_closed)
        try:
            self._to_utc_ns = monotonic_to_utc_ns()
            if self._backfill:
                self._before = snapshot.take()
            self._source.expect(self._before.attempts)
        except BaseException:
            self._source.close()
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
                if self._source is not None:
                    self._now = self._snapshot_of_open(self._source)
            finally:  # an interrupt in the last look must not leave anything attached
                if self._source is not None:
                    self._source.close()
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
        if os.getpid() != self._process:
            raise CaptureError(
                f"this capture belongs to process {self._process}, which this one was forked from",
                fix="Ask there, or start a capture of its own here",
            )
        with self._lock:
            if self._source is None:
                raise CaptureError(
                    "this capture has not been started", fix="Enter it with `with`, or call start()"
                )
            now = self._now if self._state is State.STOPPED else self._snapshot_of_open(self._source)
            opened = self._source.open()  # before the closed ones: see merge()
            table = merge(self._source.closed(), opened, self._before, now)
            wanted = table.where(self._wanted.keeps(table.attempts))
            return rows.connections(
                wanted,
                to_utc_ns=self._to_utc_ns,
                now_ns=self._stopped_ns or time.monotonic_ns(),
                command_lines=self._before.command_lines | now.command_lines,
                missing=dict.fromkeys(
                    [
                        *self._source.losses(),
                        *self._before.missing,
                        *now.missing,
                        *self._guesses(table, wanted),
                    ]
                ),
            )

    def failures(self) -> pd.DataFrame:
        """Return the attempts that failed: the rows of `connections()` that have an `error`."""
        frame = self.connections()
        return frame[frame["error"].notna()].reset_index(drop=True)

    def _guesses(self, table: Table, wanted: Table) -> list[Missing]:
        """Say of how many attempts something is not known, or guessed."""
        possible = self._wanted.of_anyone().keeps(table.attempts)
        ownerless = int((possible & (table.attempts["pid_source"] == PidSource.NONE)).sum())
        guessed = int(wanted.backfilled.sum())
        unknown = (
            Missing("connections", Gap.UNSEEN, ownerless, _MAY_BELONG)
            if self._wanted.by_owner
            else Missing("pid, process", Gap.UNAVAILABLE, ownerless, _OWNERLESS)
        )
        direction = Missing("direction", Gap.APPROXIMATE, guessed, _FROM_PORTS)
        return [gap for gap in (unknown, direction) if gap.count]

    def _leave_to_parent(self) -> None:
        """In a forked child, close its copies of the descriptors and nothing else."""
        if self._source is not None and self._state is not State.STOPPED:
            self._state = State.STOPPED
            self._source.abandon()

    def _snapshot_of_open(self, source: TcpSource) -> Snapshot:
        """List the sockets of the namespaces that have open attempts."""
        opened = source.open()
        only = {*opened["netns"].tolist(), *self._before.attempts["netns"].tolist()}
        return snapshot.take(only) if only else Snapshot.empty()

    def _expect(self, state: State, *, doing: str) -> TcpSource:
        if self._state is not state:
            raise CaptureError(f"this capture is {self._state}: it cannot {doing}", fix=_ADVICE[self._state])
        return self._source  # type: ignore[return-value]  # every state but NEW has one

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
_FROM_PORTS = "of connections older than the capture, direction is told from the ports"
