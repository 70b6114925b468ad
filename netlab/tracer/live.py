"""The programs of one capture: compiled as one, attached, drained by one thread, detached together."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

import numpy as np
import numpy.typing as npt

from netlab.closing import Closes
from netlab.frames import Gap, Missing
from netlab.kernel import heap, sockmaps
from netlab.kernel.bell import Bell
from netlab.kernel.bpf import Program
from netlab.kernel.usage import Usage, count_runs
from netlab.tracer import losses
from netlab.tracer.budgets import budget_numbers
from netlab.tracer.cleartext import clear_layouts
from netlab.tracer.closed import Closed, Ended
from netlab.tracer.drops import DropSource, drop_layouts, drop_macros
from netlab.tracer.filters import Filter
from netlab.tracer.layout import (
    ATTEMPT,
    CHANGE,
    DROP_NUMBERS,
    LARGE_NUMBERS,
    NUMBERS,
    OF_FILE,
    PROCESS,
    PROCESS_KEY,
    SHARED,
    Counter,
)
from netlab.tracer.limits import Limits
from netlab.tracer.macros import kernel_macros
from netlab.tracer.owners import Processes
from netlab.tracer.payload import Heard, PayloadSource, Spoken, Totals, payload_layouts, payload_macros
from netlab.tracer.records import Attempts, joined
from netlab.tracer.tcp import TcpSource
from netlab.tracer.udp import UdpSource

_DRAIN_EVERY_S = 0.05
_REST_S = 0.005  # between two readings, however urgent the next one is
_TRIM_EVERY_S = 30.0
_FILES = {socket.IPPROTO_TCP: ["tcp"], socket.IPPROTO_UDP: ["udp"]}


class Source(Protocol):
    """One family of programs: what it reports is taken over often, and once more after it was detached."""

    def drain(self) -> None:
        """Take over what the programs reported since the last call."""

    def last(self) -> None:
        """Keep what can be read only as long as the maps are there; nothing runs any more."""

    def open(self) -> Attempts:
        """Return what is open now, or was at the end."""

    def expect(self, listed: Attempts, *, complete: bool) -> None:
        """Tell of the sockets that were there before; *complete* says that none was left out."""

    def over(self) -> npt.NDArray[np.uint64]:
        """Return the cookies of the listed sockets of which something has ended, kept or not."""

    def pause(self) -> None:
        """From now on nothing new is followed."""

    def losses(self) -> list[Missing]:
        """Say what this source cannot see."""


class Live(Closes):
    """Follows what *wanted* selects, from construction to `close()`; attaches *after* that has returned."""

    def __init__(
        self,
        wanted: Filter,
        limits: Limits,
        *,
        changes: bool,
        cost: bool,
        drops: bool = False,
        spoken: Spoken | None = None,
        after: Callable[[], object],
    ) -> None:
        self._limits = limits
        self._run_counts: int | None = None
        self._ended = threading.Event()
        self._failed, self._failure = 0, ""
        self._last_processes, self._last_usage = Processes.none(), list[Usage]()
        self._last_counters: dict[int, int] = dict.fromkeys(map(int, Counter), 0)
        self._last_misses = 0
        self.ends = Closed(limits.max_closed)
        files = _FILES.get(wanted.protocol, ["tcp", "udp"])
        settings = wanted.macros() | kernel_macros(changes=changes)
        layouts = SHARED | {struct: layout for file in files for struct, layout in OF_FILE[file].items()}
        numbers: dict[str, int] = {**NUMBERS}
        if drops:
            settings |= drop_macros()
            layouts |= drop_layouts
            numbers |= DROP_NUMBERS
        if spoken:
            settings |= payload_macros(files, spoken, limits)
            layouts |= payload_layouts
            numbers |= budget_numbers | LARGE_NUMBERS
        clear = bool(spoken and spoken.clear_text)
        layouts |= clear_layouts if clear else {}
        extra = ["drops"] * drops + ["payload"] * bool(spoken) + ["tls"] * clear
        sizes = limits.sizes()
        self._sources: dict[str, Source] = {}  # by the map of what is open
        self._held = ExitStack()
        try:
            self._bell = self._held.enter_context(Bell())
            self.program = self._held.enter_context(
                Program(*files, *extra, settings=settings, layouts=layouts, numbers=numbers, sizes=sizes)
            )
            after()
            if cost:
                self._run_counts = count_runs()
            self._counters = self.program.map("netlab_counters", "u4", "u8")
            self._paused = self.program.map("netlab_paused", "u4", "u4")
            self._processes = self.program.map("netlab_processes", PROCESS_KEY, PROCESS)
            self._tcp = TcpSource(self.program, wanted, self.ends) if "tcp" in files else None
            if self._tcp:
                self._sources["netlab_open"] = self._tcp
            if "udp" in files:
                self._sources["netlab_flows"] = UdpSource(self.program, wanted, self.ends)
            self.drops = DropSource(self.program, wanted) if drops else None
            self._payload = PayloadSource(self.program, files, spoken, limits) if spoken else None
            if self._payload:
                self.ends.followers.append(self._payload.closings.note)
                for ring in ("netlab_pieces", *["netlab_clears"] * clear):
                    self._bell.hear(self.program.descriptor(ring))
        except BaseException:
            self._release()
            raise
        self._reader = threading.Thread(target=self._drain_until_closed, name="netlab-live", daemon=True)
        self._reader.start()

    def _drain_until_closed(self) -> None:
        trimmed_s = time.monotonic()
        while not self._ended.wait(_REST_S):
            self._bell.wait(_DRAIN_EVERY_S - _REST_S)
            try:
                self.drain()
            except Exception as error:  # noqa: BLE001 - such as want of descriptors, which passes
                self._note(error)
            if time.monotonic() - trimmed_s > _TRIM_EVERY_S:
                heap.trim()
                trimmed_s = time.monotonic()

    def drain(self) -> None:
        """Take over what the programs reported; nothing after `close()`."""
        if not self._ended.is_set():
            for source in self._sources.values():
                source.drain()
            if self._payload:
                self._payload.drain()

    def expect(self, listed: Attempts, *, complete: bool) -> None:
        """Tell of the attempts that were open before; see `Source.expect`."""
        for source in self._sources.values():
            source.expect(listed, complete=complete)
        if self._payload:
            self._payload.expect(listed)

    def open(self) -> Attempts:
        """Return the attempts that are open now, or were at the end."""
        return joined(source.open() for source in self._sources.values())

    def closed(self, since: int = 0) -> Ended:
        """Return the attempts that ended and are kept, oldest first: all, or from number *since* on."""
        return self.ends.since(since)

    def over(self) -> npt.NDArray[np.uint64]:
        """Return the cookies of the attempts open before that have ended; to be read before `closed()`."""
        return np.concatenate([source.over() for source in self._sources.values()])

    def late_owners(self) -> Attempts:
        """Return whose the attempts were that ended before anything told; see `TcpSource`."""
        return self._tcp.late_owners() if self._tcp else np.empty(0, ATTEMPT)

    def settle(self, unlisted: Attempts, held: Attempts, now_ns: int) -> None:
        """End the attempts whose socket is gone, and remember whose others are; see `TcpSource`."""
        if self._tcp:
            self._tcp.remember(held)
            self._tcp.expire(unlisted, now_ns)

    def changes(self) -> npt.NDArray[np.void]:
        """Return every state change, in the order of the kernel's clock."""
        return self._tcp.changes() if self._tcp else np.empty(0, CHANGE)

    def processes(self) -> Processes:
        """Return what the programs read of the owners when they met them."""
        return self._last_processes if self._ended.is_set() else Processes(*self._processes.items())

    def heard(self) -> Heard | None:
        """Return the requests that were read by now; None if nobody asked for them."""
        self.drain()
        return self._payload.heard(self._counts()) if self._payload else None

    def totals(self) -> Totals | None:
        """Return how much was heard by now; None if nobody asked for it."""
        self.drain()
        return self._payload.totals(self._counts()) if self._payload else None

    def pause(self, *, paused: bool) -> None:
        """Begin or stop following new attempts; those already followed go on."""
        if paused:
            for source in self._sources.values():
                source.pause()
        self._paused.set(0, int(paused))

    def losses(self, ends: Closed | None = None) -> list[Missing]:
        """Say what the programs could not keep or see, and what was let go of, by *ends* if that is given."""
        counts = self._counts()
        missed = self._last_misses if self._ended.is_set() else self._misses()
        counted = losses.counted(counts, missed, self._limits.max_open)
        blind = [gap for source in self._sources.values() for gap in source.losses()]
        if self._failed:
            detail = f"readings of what the programs reported failed, the last one for: {self._failure}"
            blind.append(Missing("connections", Gap.INCOMPLETE, self._failed, detail))
        return [*blind, *(ends or self.ends).losses(), *counted, *sockmaps.missing()]

    def _misses(self) -> int:
        return self.program.misses("netlab_state_changed")

    def _counts(self) -> dict[int, int]:
        return self._last_counters if self._ended.is_set() else self._read_counters()

    def _read_counters(self) -> dict[int, int]:
        keys, values = self._counters.items()
        return dict(zip(keys.tolist(), values.tolist(), strict=True))

    def usage(self) -> list[Usage]:
        """Return what the programs and maps cost; at the end, what they had cost by then."""
        return self._last_usage if self._ended.is_set() else self.program.usage()

    def maps(self) -> dict[str, npt.NDArray[np.void]]:
        """Return the raw contents of the maps."""
        counters = np.array(list(self._counts().items()), [("counter", "u4"), ("count", "u8")])
        running = {name: source.open() for name, source in self._sources.items()}
        return running | {"netlab_counters": counters}

    def close(self) -> None:
        """Detach everything and keep what was seen; safe to call again."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._bell.ring()
        self._reader.join()
        try:
            self.program.detach()
            self._keep_last()
        except Exception as error:
            self._note(error)
            raise
        finally:
            self._release()

    def _keep_last(self) -> None:
        for source in self._sources.values():
            source.drain()
            source.last()
        if self.drops:
            self.drops.last()
        if self._payload:
            self._payload.last()
        self._last_processes = Processes(*self._processes.items())
        self._last_counters = self._read_counters()
        self._last_misses = self._misses()
        self._last_usage = self.program.usage()

    def _note(self, error: Exception) -> None:
        self._failed, self._failure = self._failed + 1, str(error)

    def _release(self) -> None:
        self._held.close()
        if self._run_counts is not None:
            os.close(self._run_counts)
            self._run_counts = None

    def abandon(self) -> None:
        """Let go of a forked child's copies without reading: what it took its parent would never see."""
        self._release()
