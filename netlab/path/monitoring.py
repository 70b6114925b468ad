"""`netlab.path.monitor`: a path probed again and again, to be looked at at any moment."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import pandas as pd

from netlab import checks
from netlab.closing import Runs
from netlab.errors import CapabilityError, CaptureError
from netlab.frames import Missing
from netlab.kernel import capabilities, netns as namespaces
from netlab.path import methods, rows
from netlab.path.channel import StationChannel
from netlab.path.findings import Findings
from netlab.path.leaving import Leaving
from netlab.path.methods import Method
from netlab.path.origin import origins
from netlab.path.probes import Protocol
from netlab.path.requests import ports_of
from netlab.path.rounds import Rounds
from netlab.path.rows import Traced
from netlab.path.state import Run
from netlab.path.target import resolve as addresses_of, routed
from netlab.path.watching import Watch

Begin = Callable[[], Watch]

_KINDS = (Protocol.UDP, Protocol.TCP, Protocol.ICMP)  # probes that need no connection


class Monitor(Findings, Runs):
    """A path that is probed as long as the block is entered; made by `netlab.path.monitor`."""

    def __init__(self, target: str, begin: Begin, *, waits: bool) -> None:
        self._target = target
        self._begin = begin
        self._waits = waits
        self._watch: Watch | None = None
        self._process = os.getpid()

    def __repr__(self) -> str:
        state = "new" if self._watch is None else "stopped" if self._watch.ended.is_set() else "running"
        return f"<netlab monitor of {self._target}: {state}>"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None:
            self._looking().check()

    def start(self) -> Self:
        """Open the sockets and begin to probe; returns at once, or raises what prevents it."""
        if self._watch is not None:
            raise CaptureError("this monitor was started before", fix="Make a new one")
        self._watch = self._begin()
        self._forgotten = weakref.finalize(self, _close_elsewhere, self._watch, self._process)
        self._forgotten.atexit = False  # the thread and the sockets go with the process anyway
        return self

    def stop(self) -> None:
        """End it; what was found stays. Safe to call again."""
        if self._watch is not None and os.getpid() == self._process:
            self._watch.close()

    @property
    def _ends(self) -> bool:
        return self._waits

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it ends by itself, at most *timeout_s*; return whether it has. Ctrl-C interrupts."""
        return self._looking().ended.wait(timeout_s)

    @property
    def started(self) -> bool:
        """Whether it was ever started."""
        return self._watch is not None

    @property
    def running(self) -> bool:
        """Whether it probes now."""
        return self._watch is not None and not self._watch.ended.is_set()

    def hops(self) -> pd.DataFrame:
        """Return every probe to a hop so far, as in `netlab.schemas.HOPS`: what a trace returns.

        `run` is the round. Rounds of the last `timeout_s` are left out, since it is not known yet which of
        their probes are lost; the coverage has their number.

        Raises
        ------
        CaptureError
            Before the start.
        NetlabError
            What ended the monitor, if an error did.
        """
        watch = self._looking()
        watch.check()
        return watch.hops()

    def end_to_end(self) -> pd.DataFrame:
        """Return every probe that was sent through to the target, in the same form; their TTL is 64.

        It is what the target's loss is measured by when the path becomes longer, and when its hops are
        silent.
        """
        watch = self._looking()
        watch.check()
        return watch.ends()

    def _looking(self) -> Watch:
        if self._watch is None:
            raise CaptureError("this monitor was not started", fix="Enter it with `with`, or call start()")
        return self._watch


def _close_elsewhere(watch: Watch, process: int) -> None:
    """End a monitor that nobody has any more; in a thread, because garbage is collected anywhere."""
    if os.getpid() == process:
        threading.Thread(target=watch.close, name="netlab-forgotten", daemon=True).start()


@checks.options
def monitor(
    target: str,
    *,
    every_s: float = 1.0,
    duration_s: float | None = None,
    protocol: str = "udp",
    port: int | None = None,
    family: int | None = None,
    max_ttl: int = 30,
    flows: int = 1,
    timeout_s: float = 1.0,
    source_port: int | None = None,
    method: str = "auto",
    netns: namespaces.NetNs = None,
    max_probes: int = 500_000,
) -> Monitor:
    """Probe each hop of a path, and its target, at a steady pace, and look at any moment what was found.

    A thread sends a round of probes every *every_s*, all at once, and waits for nothing. The target gets one
    probe a round: in turn one with the TTL of the path's end and one with TTL 64 (or `max_ttl` if that is
    larger), which goes through also when the path has become longer. Never more than 1000 packets are sent in
    a second.

    Parameters
    ----------
    target
        A host name or an address. Of several addresses the first that this host has a route to.
    every_s
        From one round to the next, 0.1 to 3600 seconds. Linux hosts answer one probe a second each: a faster
        monitor measures that (`explain` says so) and not the path.
    duration_s
        Begin no more rounds after so many seconds; leaving the `with` block then waits for the end. Without
        it the monitor goes on until the block is left or `stop()` is called, and what was sent in the last
        `timeout_s` counts for nothing.
    protocol
        "udp", "tcp" (SYNs) or "icmp".
    port, family, source_port, netns
        As in `netlab.traceroute`.
    max_ttl
        The last TTL to try.
    method
        "raw", "unprivileged" (not for tcp) or "auto", as in `netlab.traceroute`. Unprivileged, a UDP probe
        that a router quotes eight bytes of counts as lost, because which one it was is not told: the
        coverage says how often.
    flows
        How many flows take turns, one a round; two or more tell a load balancer's remap from a new route.
    timeout_s
        A probe that is not answered within so many seconds is lost.
    max_probes
        How many probes to keep; of older ones only their number is known, and when those that are kept begin.

    Returns
    -------
    Monitor
        Not started yet: enter it with `with`, or call `start()`. It has `hops()`, `end_to_end()`, `stats()`,
        `changes()`, `runs()` and `explain()`, each a frame.

    Raises
    ------
    BadInput
        If an argument cannot be right.
    ProbeError
        If the target has no address or no route; on starting, if the source port is taken.
    CapabilityError
        Without CAP_NET_RAW with `method="raw"` or "tcp"; unprivileged "icmp" on starting, where the sysctl
        net.ipv4.ping_group_range allows no group of this process; with `netns` without CAP_SYS_ADMIN.

    Examples
    --------
    >>> import netlab
    >>> with netlab.path.monitor("127.0.0.1", every_s=0.1, duration_s=0.5) as watched:
    ...     pass
    >>> watched.stats()["address"].unique().tolist()
    ['127.0.0.1']
    """
    kind = Protocol(checks.choice("protocol", protocol, _KINDS))
    port, source_port = ports_of(kind, port, source_port)
    every_ns = round(checks.between("every_s", every_s, 0.1, 3600, unit="seconds") * 10**9)
    timeout_ns = round(checks.positive("timeout_s", timeout_s, unit="seconds", most=60) * 10**9)
    duration_ns = None
    if duration_s is not None:
        most = threading.TIMEOUT_MAX
        duration_ns = round(checks.positive("duration_s", duration_s, unit="seconds", most=most) * 10**9)
    max_ttl = checks.whole("max_ttl", max_ttl, 1, 255)
    flows = checks.whole("flows", flows, 1, 64)
    max_probes = checks.whole("max_probes", max_probes, 1000, 1 << 30)
    namespaces.path(netns)
    how = methods.chosen(Method(checks.choice("method", method, list(Method))), netns)
    if how is Method.UNPRIVILEGED and kind is Protocol.TCP:
        raise CapabilityError(
            "a monitor cannot probe with tcp without CAP_NET_RAW: only one attempt can be under way",
            fix=f"Use protocol='udp', or: {capabilities.grant(['CAP_NET_RAW'])}",
        )
    chosen, source = routed(addresses_of(target, family, netns), netns)
    (origin,) = origins([(chosen, source)], netns)
    leaving = Leaving(origin, chosen, source, netns)

    def begin() -> Watch:
        def framed(runs: Sequence[Run], missing: Sequence[Missing]) -> pd.DataFrame:
            name, kept, ports = chosen.name, how.value, outlet.ports
            parts = [
                Traced(name=name, target=chosen, origin=way, method=kept, ports=ports, runs=part)
                for way, part in leaving.parts(runs)
            ]
            unseen = methods.unseen(station, reached=any(run.target_ttl for run in runs))
            return rows.frame_of(parts, kind.value, missing=[*missing, *unseen])

        with contextlib.ExitStack() as resources:
            station = methods.station(
                how, kind, [chosen.family], port=port, source_port=source_port, netns=netns
            )
            resources.enter_context(station)
            outlet = methods.outlet(station, chosen, source)
            channel = StationChannel(station, outlet)
            rounds = Rounds(
                channel,
                every_ns=every_ns,
                timeout_ns=timeout_ns,
                max_ttl=max_ttl,
                flows=flows,
                leaving=leaving.look,
            )
            rounds.send_due()
            watch = Watch(channel, rounds, framed, most=max_probes, duration_ns=duration_ns)
            resources.pop_all()  # its thread closes the station now
        return watch

    return Monitor(target, begin, waits=duration_s is not None)
