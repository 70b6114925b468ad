"""The kernel's own clock, which programs stamp records with, and UTC."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

_NS = 1_000_000_000


def now_ns() -> int:
    """Return CLOCK_MONOTONIC in nanoseconds as eBPF programs read it: that of no time namespace."""
    return time.monotonic_ns() - _namespace_offset_ns("monotonic")


def to_utc_ns() -> int:
    """Return what to add to `now_ns` to get UTC, as the system's clock is set now.

    Of three readings the quickest counts: nothing came in between its two clocks for long.
    """
    readings = [(now_ns(), time.time_ns(), now_ns()) for _ in range(3)]
    before, utc_ns, after = min(readings, key=lambda reading: reading[2] - reading[0])
    return utc_ns - (before + after) // 2


def since_boot_ns(shown_ns: int) -> int:
    """Return the time since boot, as programs read it, of one that /proc shows, such as a process's start."""
    return shown_ns - _namespace_offset_ns("boottime")


@cache
def _namespace_offset_ns(clock: str) -> int:
    """Return by how much this process's time namespace has moved *clock* (time_namespaces(7))."""
    try:
        lines = Path("/proc/self/timens_offsets").read_text(encoding="ascii").splitlines()
    except OSError:  # a kernel without time namespaces
        return 0
    offsets = (line.split() for line in lines)
    return sum(int(s) * _NS + int(ns) for name, s, ns in offsets if name == clock)
