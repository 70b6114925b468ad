"""The live source of attempts: bpf/tcp.c attached, its ring drained by a thread, its counters read."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

from netlab.errors import CapabilityError, KernelError
from netlab.frames import Gap, Missing
from netlab.kernel import capabilities
from netlab.kernel.bpf import CgroupHook, Program
from netlab.tracer.filters import Filter
from netlab.tracer.layout import ATTEMPT, Counter, PidSource
from netlab.tracer.records import Attempts, adopt, chosen, joined

_DRAIN_EVERY_S = 0.05
_RING_PAGES = 4096  # 16 MiB hold some 64,000 closed attempts: a second of what two cores can open and close
_COOKIE_HOOKS = {
    "netlab_socket_created": CgroupHook.SOCK_CREATE,
    "netlab_socket_used": CgroupHook.SOCK_OPS,
}
_TRACEPOINTS = {
    "netlab_received": "tcp_rcv_space_adjust",
    "netlab_state_changed": "inet_sock_set_state",
}


class TcpSource:
    """Follows TCP attempts from construction to `close()`.

    Parameters
    ----------
    wanted
        Which attempts to follow.
    max_open
        How many attempts can be open at a time.
    max_closed
        How many closed attempts are kept; the oldest go first, counted.
    """

    def __init__(self, wanted: Filter, *, max_open: int, max_closed: int) -> None:
        sizes = {"NETLAB_OPEN_MAX": str(max_open), "NETLAB_RING_PAGES": str(_RING_PAGES)}
        self.missing: list[Missing] = []
        self._wanted, self._max_open, self._max_closed = wanted, max_open, max_closed
        self._blocks: list[Attempts] = []
        self._unfollowed = np.empty(0, ATTEMPT)  # attempts that began when the map was full
        self._listed: npt.NDArray[np.uint64] | None = None
        self._kept = self._dropped = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._program = Program("tcp", settings=wanted.macros() | sizes, layouts={"netlab_attempt": ATTEMPT})
        try:
            self._attach()
        except BaseException:
            self._program.close()
            raise
        self._reader = threading.Thread(target=self._drain_until_closed, name="netlab-tcp", daemon=True)
        self._reader.start()

    def _attach(self) -> None:
        self._ring = self._program.ring("netlab_reports", ATTEMPT)
        self._open = self._program.map("netlab_open", "u8", ATTEMPT)
        self._counters = self._program.map("netlab_counters", "u4", "u8")
        self._paused = self._program.map("netlab_paused", "u4", "u4")
        self._attach_cookie_hooks()
        for function, event in _TRACEPOINTS.items():
            self._program.attach_raw_tracepoint(function, event)

    def _attach_cookie_hooks(self) -> None:
        """Make every socket carry its cookie; without that, joins fall back to addresses and ports."""
        root = capabilities.cgroup2_mount()
        if root is None:
            self._say_no_cookies("no cgroup v2 tree is mounted")
            return
        try:
            for function, hook in _COOKIE_HOOKS.items():
                self._program.attach_cgroup(function, root, hook)
        except (KernelError, CapabilityError) as error:
            self._say_no_cookies(str(error))

    def _say_no_cookies(self, why: str) -> None:
        detail = f"{why}; connections are joined by address and port instead of by socket cookie"
        self.missing.append(Missing("cookie", Gap.UNAVAILABLE, None, detail))

    def _drain_until_closed(self) -> None:
        while not self._ended.wait(_DRAIN_EVERY_S):
            self._drain()

    def _drain(self) -> None:
        with self._lock:
            reports = self._ring.read()
            if not len(reports):
                return
            ended, self._unfollowed = adopt(self._unfollowed, reports)
            block = chosen(ended, self._known(ended))
            self._blocks.append(block)
            self._kept += len(block)
            while self._kept - len(self._blocks[0]) >= self._max_closed:
                gone = self._blocks.pop(0)
                self._kept -= len(gone)
                self._dropped += len(gone)

    def _known(self, ended: Attempts) -> npt.NDArray[np.bool_]:
        """Tell which ended attempts belong here; who owns those without an owner a snapshot may know."""
        followed = ended["opened_ns"] != 0
        if self._listed is not None:
            followed |= np.isin(ended["cookie"], self._listed)
        else:
            followed[:] = True  # open when the capture began, and closed before it could list what is open
        mine: npt.NDArray[np.bool_] = followed & (
            self._wanted.keeps(ended) | (ended["pid_source"] == PidSource.NONE)
        )
        return mine

    def expect(self, listed: Attempts) -> None:
        """Take ends without a start for those of the *listed* attempts; any other began unfollowed."""
        self._drain()
        mine = self._wanted.keeps(listed) | (listed["pid_source"] == PidSource.NONE)
        self._listed = listed["cookie"][mine]

    def pause(self, *, paused: bool) -> None:
        """Begin or stop following new attempts; those already followed go on."""
        self._paused.set(0, int(paused))

    def closed(self) -> Attempts:
        """Return every attempt that ended, oldest first."""
        if not self._ended.is_set():
            self._drain()
        with self._lock:
            self._blocks = [joined(self._blocks)]
            return self._blocks[0]

    def open(self) -> Attempts:
        """Return the attempts that are open now, in no order; none after `close()`."""
        if self._ended.is_set():
            return self._last_open
        return self._followed()

    def _followed(self) -> Attempts:
        followed = self._open.items()[1]
        self._drain()
        with self._lock:
            return joined([followed, self._unfollowed])

    def losses(self) -> list[Missing]:
        """Say what this source could not keep."""
        counts = self._last_counters if self._ended.is_set() else self._read_counters()
        told = [
            (Counter.ATTEMPT_LOST, "connections", Gap.LOST, "attempts did not fit into the ring buffer"),
            (Counter.END_LOST, "closed_at, error", Gap.LOST, "ends did not fit into the ring buffer"),
            (
                Counter.MAP_FULL,
                "connect_ms, syn_retransmits",
                Gap.LOST,
                f"more than {self._max_open} attempts were open at a time",
            ),
            (Counter.WHILE_PAUSED, "connections", Gap.UNSEEN, "attempts began while the capture was paused"),
        ]
        counted = [
            Missing(what, kind, counts[counter], detail)
            for counter, what, kind, detail in told
            if counts[counter]
        ]
        if self._dropped:
            detail = f"only the newest {self._max_closed} closed attempts are kept"
            counted.append(Missing("connections", Gap.LOST, self._dropped, detail))
        return [*self.missing, *counted]

    def _read_counters(self) -> dict[int, int]:
        keys, values = self._counters.items()
        return dict(zip(keys.tolist(), values.tolist(), strict=True))

    def close(self) -> None:
        """Detach everything and keep what was seen; safe to call again."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._reader.join()
        self._program.detach()
        self._last_open, self._last_counters = self._followed(), self._read_counters()
        self._program.close()

    def abandon(self) -> None:
        """Let go of a forked child's copies without reading: what it took its parent would never see."""
        self._program.close()


def monotonic_to_utc_ns() -> int:
    """Return what to add to CLOCK_MONOTONIC nanoseconds to get UTC."""
    before = time.monotonic_ns()
    now = time.time_ns()
    return now - (before + time.monotonic_ns()) // 2
