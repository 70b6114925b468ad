"""The process behind the TUN device: `python driver.py TUN TAP CONTROL`, three descriptors.

It gets the shape through CONTROL, a `multiprocessing` connection, answers requests there for what has
happened so far, and ends when the other end is closed, by SIGKILL too.
"""

from __future__ import annotations

import gc
import heapq
import os
import select
import socket
import struct
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from netlab.kernel import clock
from netlab.lab.internet.forward import Internet
from netlab.lab.internet.journey import Entry
from netlab.lab.internet.routing import Atlas

_SCM_TIMESTAMPNS = 35
_TIME = struct.Struct("qq")
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_STATISTICS = struct.Struct("II")
_LARGEST = 65535
_LATEST_NS = 10**9  # an older stamp is none: the clock was set meanwhile
_SPIN_NS = 60_000  # how long before a packet is due waiting turns into watching: about a wake-up
_AT_ONCE = 64  # packets until the next look at requests, which a flood must not keep waiting
_PRIORITY = 1  # of the real-time class: any is before all ordinary processes


class Driver:
    """Takes packets from the tap, has them carried, and writes answers into the device when they are due."""

    def __init__(self, internet: Internet, tun: int, tap: socket.socket) -> None:
        self.log: list[Entry] = []
        self.overlooked = 0
        self.start_ns = clock.now_ns()
        self._internet = internet
        self._tun = tun
        self._tap = tap
        self._due: list[tuple[int, int, Entry]] = []

    def work(self, control: Connection) -> None:
        """Carry packets until there is something on *control*: a request, or its end."""
        watched: list[Any] = [self._tap, self._tun, control]
        while True:
            left_ns = self._write_due()
            timeout_s = None if left_ns is None else max(left_ns - _SPIN_NS, 0) / 10**9
            ready, _, _ = select.select(watched, [], [], timeout_s)
            if self._tap in ready:
                self._take()
            if self._tun in ready:
                self._drain()
            if control in ready:
                return

    def count_overlooked(self) -> None:
        """Count the packets that entered while the tap was full: they vanished."""
        data = self._tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        self.overlooked += _STATISTICS.unpack(data)[1]  # reading it sets it to 0

    def _write_due(self) -> int | None:
        """Write what is due; return in how many ns the next answer is, if one is under way."""
        while self._due:
            left_ns = self._due[0][0] - clock.now_ns()
            if left_ns > 0:
                return left_ns
            _, _, entry = heapq.heappop(self._due)
            with suppress(OSError):  # somebody took the device down: the answer never gets a time in the log
                os.write(self._tun, entry.journey.answer or b"")
                entry.late_ns = -left_ns
        return None

    def _take(self) -> None:
        """Carry the packets that entered; what is due meanwhile goes first."""
        for _ in range(_AT_ONCE):
            try:
                packet, extra, _, _ = self._tap.recvmsg(_LARGEST, 64)
            except BlockingIOError:
                return
            if not _is_multicast(packet):
                self._carry(packet, _stamp(extra))
            self._write_due()

    def _carry(self, packet: bytes, stamp_ns: int | None) -> None:
        now = clock.now_ns()
        wall = now + clock.to_utc_ns()
        age = 0 if stamp_ns is None else wall - stamp_ns
        if not 0 <= age < _LATEST_NS:
            age = 0
        journey = self._internet.carry(packet, now - age - self.start_ns)
        entry = Entry(journey, wall - age)
        self.log.append(entry)
        if journey.delay_ns is not None:
            heapq.heappush(self._due, (now - age + journey.delay_ns, journey.number, entry))

    def _drain(self) -> None:
        """Empty the device: its packets have come by the tap."""
        with suppress(BlockingIOError):
            while os.read(self._tun, _LARGEST):
                pass


def _is_multicast(packet: bytes) -> bool:
    """Return whether this is the kernel talking to its neighbours, of whom there are none."""
    if packet[0] >> 4 == 6:
        return packet[24] == 0xFF
    return packet[16] >= 224


def _stamp(extra: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == _SCM_TIMESTAMPNS:
            seconds, nanoseconds = _TIME.unpack(data)
            return int(seconds * 10**9 + nanoseconds)
    return None


def _hurry() -> bool:
    """Go before ordinary processes where that is allowed, and never stop to look for garbage cycles."""
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except OSError:
        return False
    return True


def _low(descriptor: int) -> int:
    """Return *descriptor* under the lowest free number: select(2) knows none above 1023, the owner may."""
    low = os.dup(descriptor)
    os.close(descriptor)
    return low


def main(tun: int, tap: int, control: Connection) -> None:
    """Carry packets until the other end of *control* is closed."""
    epochs, seed = control.recv()
    with socket.socket(fileno=_low(tap)) as listening:
        driver = Driver(Internet(Atlas(epochs), seed), _low(tun), listening)
        control.send({"start_ns": driver.start_ns, "real_time": _hurry()})
        with suppress(EOFError, ConnectionError):
            while True:
                driver.work(control)
                _answer(control.recv(), driver, control)


def _answer(request: Any, driver: Driver, control: Connection) -> None:
    if request == "log":
        driver.count_overlooked()
        control.send((driver.log, driver.overlooked))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Connection(_low(int(sys.argv[3]))))
