"""UDP flows from the programs of bpf/udp.c: those running, those whose socket closed, those gone idle."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from netlab.errors import CapabilityError, KernelError
from netlab.frames import Gap, Missing
from netlab.kernel import btf, capabilities, clock, netstat
from netlab.kernel.bpf import CgroupHook, Program
from netlab.kernel.keys import chosen
from netlab.tracer import directions
from netlab.tracer.closed import Closed
from netlab.tracer.filters import Filter
from netlab.tracer.idle import UdpTimeouts
from netlab.tracer.layout import ATTEMPT, FLOW_KEY, Direction
from netlab.tracer.records import Attempts, joined, same_flow, summed

_FLOW_HOOKS = {
    "netlab_udp_released": CgroupHook.SOCK_RELEASE,
    "netlab_datagram_received": CgroupHook.INET_INGRESS,
    "netlab_datagram_sent": CgroupHook.INET_EGRESS,
    "netlab_udp_created": CgroupHook.SOCK_CREATE,  # last: of a socket that it saw every packet is seen
}
_TRACEPOINTS = {
    "netlab_datagram_refused": ("udp_fail_queue_rcv_skb", "receive_drops"),
    "netlab_socket_error": ("inet_sk_error_report", "error"),
}
_SWEEP_EVERY_S = 2.0
_SINGLE_MOST = 65_536  # flows beyond those of the map
_TOO_MANY = f"packets of yet more flows: as many again as max_open, {_SINGLE_MOST} at least, were added up"
_COUNTED = "packets, bytes of UDP flows"
_RECEIVED = "packets_received, bytes_received of UDP flows"
_DISCARDED = (
    "datagrams were discarded at their socket, for a wrong checksum or by its own filter{full}: "
    "at most so many are counted as received"
)
_FULL = ("RcvbufErrors", "MemErrors")
_FULL6 = ", or of IPv6 for its full queue, which is told since Linux 6.5"
_TELLS_FULL6 = (6, 5, 0)  # udpv6_queue_rcv_one_skb(), net/ipv6/udp.c
_DENIED_TOO = "before Linux 5.18 what programs of control groups deny, such as IPAddressDeny=, is counted too"


def verdict_macro() -> dict[str, str]:
    """Tell the programs that this kernel keeps what those of control groups said of a packet, if it does."""
    kept = btf.has_field("task_struct", "bpf_ctx") and btf.has_field("bpf_cg_run_ctx", "retval")
    return {"NETLAB_VERDICT": "1"} if kept else {}


class UdpSource:
    """Follows UDP flows as long as *program* is attached."""

    def __init__(self, program: Program, wanted: Filter, ended: Closed) -> None:
        self._program, self._ended = program, ended
        self._ports = directions.Ports()  # tell the direction of older flows, so that it is not asked before
        self._wanted = replace(wanted, direction=Direction.UNKNOWN)
        self._missing: list[Missing] = []
        self._released = np.empty(0, ATTEMPT)  # sockets that were closed: cookie and moment
        self._single = np.empty(0, ATTEMPT)  # flows that did not fit into the map, added up here
        self._untold = 0  # packets of flows that did not fit here either
        self._listed = self._over = np.empty(0, np.uint64)  # cookies of older sockets, and which had a flow
        self._last_open: Attempts | None = None
        self._lock = threading.RLock()
        self._timeouts = UdpTimeouts()
        self._receiving: set[int] = set()  # inodes of the namespaces where datagrams were counted as received
        self._discarded_before = _discarded(self._wanted.netns or None)
        self._discarded: dict[int, int] = {}
        self._next_sweep = 0.0
        self._reports = program.ring("netlab_flow_reports", ATTEMPT)
        self._flows = program.map("netlab_flows", FLOW_KEY, ATTEMPT)
        self._attach()

    def _attach(self) -> None:
        root = capabilities.cgroup2_mount()
        if root is None:
            raise CapabilityError(
                "no cgroup v2 tree is mounted, and UDP is followed on its root",
                fix=f'Run: {capabilities.MOUNT_CGROUP2}; or capture(protocol="tcp")',
            )
        if outside := capabilities.outside_cgroup(root):
            self._missing.append(Missing("UDP flows", Gap.UNSEEN, None, f"{outside} none is seen"))
        for function, hook in _FLOW_HOOKS.items():
            self._program.attach_cgroup(function, root, hook)
        if not verdict_macro():
            self._missing.append(Missing(_COUNTED, Gap.APPROXIMATE, None, _DENIED_TOO))
        for function, (event, lack) in _TRACEPOINTS.items():
            try:
                self._program.attach_typed_tracepoint(function, event)
            except KernelError as error:
                self._missing.append(Missing(lack, Gap.UNAVAILABLE, None, f"{error}: not known of UDP flows"))

    def drain(self) -> None:
        """Take over what the programs reported since the last call, and now and then what has ended since."""
        with self._lock:
            self._take_reports()
            if time.monotonic() >= self._next_sweep:
                self._sweep()

    def _take_reports(self) -> None:
        reports = self._reports.read()
        if not len(reports):
            return
        ended, empty = reports["closed_ns"] != 0, reports["opened_ns"] == 0
        self._released = joined([self._released, chosen(reports, empty)])
        self._single = self._bounded(summed(joined([self._single, chosen(reports, ~ended)])))
        flows = chosen(reports, ended & ~empty)
        self._note_receivers(flows)
        self._append(self._whole(flows, flows))

    def _bounded(self, flows: Attempts) -> Attempts:
        """Keep the oldest: who sends from ever other ports must not fill the memory."""
        over = flows[max(self._flows.entries, _SINGLE_MOST) :]
        self._untold += int(over["packets_sent"].sum() + over["packets_received"].sum())
        return flows[: len(flows) - len(over)]

    def _note_receivers(self, flows: Attempts) -> None:
        self._receiving.update(np.unique(flows["netns"][flows["packets_received"] != 0]).tolist())

    def _whole(self, parts: Attempts, flows: Attempts) -> Attempts:
        """Put to the *parts* of ended *flows* what was added up here of them."""
        if not len(self._single):
            return parts
        theirs = same_flow(self._single, flows)
        whole = summed(joined([parts, chosen(self._single, theirs)]))
        self._single = chosen(self._single, ~theirs)
        return whole

    def _sweep(self) -> Attempts:
        """Move the flows that have ended out of the map, and return the others.

        A flow whose socket is closed ended then; an idle one ended with its last packet.
        """
        self._next_sweep = time.monotonic() + _SWEEP_EVERY_S
        self._take_reports()
        settled = len(self._released)  # every flow of these is in the map by now
        keys, flows = self._flows.items()
        self._take_reports()  # after the map: what leaves it meanwhile is then in both, and counted once
        running = summed(joined([flows, self._single])) if len(self._single) else flows
        self._note_receivers(running)
        over = self._are_over(running)
        if over.any():
            gone = chosen(running, over)
            theirs = over if running is flows else same_flow(flows, gone)
            taken = self._flows.take(keys[theirs])  # once more, and at once: a packet may have come meanwhile
            self._end(self._whole(taken, gone))
        self._released = self._released[settled:]  # the map was read too early for some flows of the others
        return chosen(running, ~over)

    def _are_over(self, flows: Attempts) -> npt.NDArray[np.bool_]:
        if not len(flows):
            return np.zeros(0, bool)
        idle_ns = clock.now_ns() - flows["last_ns"].astype(np.int64)
        over: npt.NDArray[np.bool_] = idle_ns > self._timeouts.of(flows)
        return over | np.isin(flows["cookie"], self._released["cookie"])

    def _end(self, flows: Attempts) -> None:
        place = np.searchsorted(np.sort(self._released["cookie"]), flows["cookie"])
        by_cookie = self._released[np.argsort(self._released["cookie"])]
        last_ns = np.maximum(flows["last_ns"], flows["opened_ns"])  # it is a jiffy old at most
        if len(by_cookie):
            found = by_cookie[place.clip(max=len(by_cookie) - 1)]
            last_ns = np.where(found["cookie"] == flows["cookie"], found["closed_ns"], last_ns)
        flows["closed_ns"] = last_ns
        self._append(flows)

    def _append(self, flows: Attempts) -> None:
        kept = chosen(flows, self._wanted.may_keep(flows))
        self._ports.settle(kept)
        self._ended.append(kept)
        self._over = np.union1d(self._over, np.intersect1d(flows["cookie"], self._listed))

    def open(self) -> Attempts:
        """Return the flows that are running, in no order; after the end, those that were running then."""
        if self._last_open is not None:
            return self._last_open
        with self._lock:
            running = self._sweep()
            self._ports.settle(running)
            return running

    def expect(self, listed: Attempts, *, complete: bool) -> None:  # noqa: ARG002 - as of every source
        """Remember the *listed* sockets; a flow begins with the first packet that is seen."""
        with self._lock:
            self._listed = listed["cookie"]

    def over(self) -> npt.NDArray[np.uint64]:
        """Return the cookies of the listed sockets of which a flow has ended."""
        with self._lock:
            return self._over

    def pause(self) -> None:
        """Go on with the flows that are followed; the programs leave out new ones."""

    def last(self) -> None:
        """Keep the running flows, whose map goes away."""
        self._last_open = self.open()
        self._count_discarded()

    def losses(self) -> list[Missing]:
        """Say what this source cannot see."""
        if self._last_open is None:
            self._count_discarded()
        discarded = _DISCARDED.format(full="" if _tells_full6() else _FULL6)
        gaps = [
            Missing(_RECEIVED, Gap.APPROXIMATE, self._newly_discarded(), discarded),
            Missing(_COUNTED, Gap.LOST, self._untold, _TOO_MANY),
        ]
        return [*self._missing, *(gap for gap in gaps if gap.count)]

    def _newly_discarded(self) -> int:
        return netstat.gained(self._discarded_before, self._discarded)

    def _count_discarded(self) -> None:
        """Ask where it matters; a namespace that is gone meanwhile keeps its last count."""
        with self._lock:
            receiving = set(self._receiving)
        if receiving:
            self._discarded |= _discarded(receiving)


def _discarded(only: Collection[int] | None) -> dict[int, int]:
    """Return how many datagrams each namespace discarded at their socket; full queues are told elsewhere."""
    return netstat.everywhere(_discarded_here, only=only)


def _discarded_here() -> int:
    counts = netstat.counters()
    discarded = counts.get("Udp.InErrors", 0) + counts.get("Udp6.InErrors", 0)
    told = ("Udp", "Udp6") if _tells_full6() else ("Udp",)
    return discarded - sum(counts.get(f"{udp}.{full}", 0) for udp in told for full in _FULL)


def _tells_full6() -> bool:
    return btf.version(os.uname().release) >= _TELLS_FULL6
