"""`netlab.probe()`: a program of one's own, and what it sends and counts as DataFrames."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Self

import pandas as pd

from netlab import checks
from netlab.closing import Closes, uninterrupted
from netlab.errors import BadInput, CaptureError, KernelError
from netlab.kernel import capabilities, clock
from netlab.kernel.compiler import require_bcc
from netlab.probes.hooks import Kind
from netlab.probes.outputs import Entries, Glance, Records, Slots
from netlab.probes.program import ProbeProgram
from netlab.probes.source import Source, read
from netlab.turns import Turns

_DRAIN_EVERY_S = 0.05


@checks.options
def probe(text: str, *, binaries: Mapping[str, str] | None = None, max_rows: int = 1_000_000) -> Probe:
    """Run eBPF C of your own, written for BCC, and read what it sends and counts as DataFrames.

    Parameters
    ----------
    text
        The C. A function runs where its name says: `raw_tracepoint__EVENT`, `tracepoint__CATEGORY__EVENT`,
        `uprobe__LIBRARY__SYMBOL` (`uretprobe__…` at the return), `cgroup__HOOK` (`inet_ingress`,
        `inet_egress`, `sock_create`, `sock_release`, `sock_ops`, `inet4_connect`, `inet6_connect`),
        `socket__NAME` (every packet of this network namespace), and where the kernel has them
        `kprobe__FUNCTION` and `kretprobe__FUNCTION`. What it returns is ignored: a probe decides nothing.
        The kernel's types are there without any `#include`.
    binaries
        Paths of the programs and libraries that uprobes name: `{"app": "/usr/bin/app"}`.
    max_rows
        How many records of a ring buffer are kept; those that come later are counted.

    Returns
    -------
    Probe
        Not attached yet: enter it with `with`, or call `start()`.

    Raises
    ------
    BadInput
        If nothing of the text runs anywhere, or it uses what netlab does not read.
    CapabilityError
        If this process may not attach eBPF programs, this kernel has no such hook, or BCC is missing.
    ProgramError
        If the text does not compile (the message has its lines) or the kernel refuses it.

    Notes
    -----
    `BPF_RINGBUF_OUTPUT` and `BPF_PERF_OUTPUT` become frames of the struct that is sent; hashes, arrays and
    histograms become frames of their entries. Records that did not fit into a ring buffer are counted and in
    the frame's coverage. Which member becomes what: `netlab.probes.columns.columns`.

    Examples
    --------
    >>> import netlab
    >>> with netlab.probe('''
    ...     BPF_HASH(changes, u32);
    ...     RAW_TRACEPOINT_PROBE(inet_sock_set_state) {
    ...         u32 state = ctx->args[2];
    ...         changes.increment(state);
    ...         return 0;
    ...     }
    ... ''') as states:
    ...     pass
    >>> states["changes"].columns.tolist()
    ['key', 'value']
    """
    if not isinstance(text, str):
        raise BadInput(f"a probe is C as text, not {type(text).__name__}", fix="Pass a string")
    checks.whole("max_rows", max_rows, 1, 1 << 32)
    capabilities.require_bpf(doing="run an eBPF probe")
    require_bcc()
    declared = read(text)
    if any(hook.kind is Kind.SOCKET for hook in declared.hooks):
        capabilities.require("CAP_NET_RAW", doing="look at packets")
    return Probe(declared, text, binaries or {}, max_rows)


class Probe(Closes):
    """A program of one's own while it runs, and what it saw; made by `netlab.probe()`.

    `probe["events"]` is the frame of the ring buffer or map of that name, at any moment and after the end.
    """

    def __init__(self, declared: Source, text: str, binaries: Mapping[str, str], max_rows: int) -> None:
        self._source, self._text, self._binaries, self._max_rows = declared, text, binaries, max_rows
        self._program: ProbeProgram | None = None
        self._rings: dict[str, Records] = {}
        self._maps: dict[str, Entries] = {}
        self._lock = Turns()
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._drain_until_closed, name="netlab-probe", daemon=True)

    def __enter__(self) -> Self:
        return self.start()

    @property
    def rings(self) -> tuple[str, ...]:
        """The names of the ring buffers, known from the text."""
        return self._source.rings

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the frames, ring buffers first; none before the probe has been started."""
        return (*self._rings, *self._maps)

    def start(self) -> Self:
        """Compile and attach; returns when every function runs, or raises."""
        if self._program is not None:
            raise CaptureError("this probe has been started before", fix="Make a new one with netlab.probe()")
        program = ProbeProgram(self._source, self._text)
        to_utc_ns = clock.to_utc_ns()
        try:
            rings = {
                name: Records(program, name, place, self._max_rows, to_utc_ns)
                for place, name in enumerate(self._source.rings)
            }
            maps = {
                name: Entries(program, name, table, self._slots(name), to_utc_ns)
                for name, table in program.description.tables.items()
            }
            for hook in self._source.hooks:
                program.attach(hook, self._binaries)
        except BaseException:
            program.close()
            raise
        self._rings, self._maps, self._program = rings, maps, program
        self._reader.start()
        return self

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return the frame of one ring buffer (a row per record) or map (a row per entry)."""
        output = self._looked_at(name)
        with self._lock:
            return output.frame(self._skipped)

    def glance(self, name: str, rows: int) -> Glance:
        """Return at most *rows* rows of an output, the latest records of a ring buffer, soon also of many."""
        output = self._looked_at(name)
        with self._lock:
            return output.glance(rows, self._skipped)

    def close(self) -> None:
        """Detach everything and keep what was seen; safe to call again, and from a signal handler."""
        with self._lock:
            is_put_off = self._lock.postpones(self.close)
        if not is_put_off:
            uninterrupted(self._close)

    def _looked_at(self, name: str) -> Records | Entries:
        """Return an output as it is now."""
        if self._program is None:
            raise CaptureError(
                "this probe has not been started", fix="Use it in a with block, or call start()"
            )
        checks.choice("output", name, self.names)
        output = self._rings.get(name) or self._maps[name]
        uninterrupted(lambda: self._read([output]))
        return output

    def _read(self, outputs: Iterable[Records | Entries]) -> None:
        with self._lock:
            if self._program is None or self._ended.is_set():
                return
            for output in outputs:
                output.read()
            self._skipped = self._program.misses(*(hook.compiled for hook in self._source.hooks))

    def _close(self) -> None:
        if self._program is None or self._ended.is_set():
            return
        self._program.detach()
        try:
            self._read([*self._rings.values(), *self._maps.values()])
        finally:
            with self._lock:
                self._ended.set()
                self._program.close()
            self._reader.join()

    def _slots(self, name: str) -> Slots:
        if name not in self._source.histograms:
            return Slots.NONE
        return Slots.LOGARITHMIC if self._source.logarithmic else Slots.LINEAR

    def _drain_until_closed(self) -> None:
        while not self._ended.wait(_DRAIN_EVERY_S):
            with self._lock, suppress(KernelError):  # whoever looks next gets the same
                if not self._ended.is_set():
                    for ring in self._rings.values():
                        ring.drain()
