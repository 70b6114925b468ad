"""What an eBPF program or map costs: the kernel's own account, read from /proc/self/fdinfo."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from netlab.kernel import syscall
from netlab.kernel.syscall import Command

_RUN_TIME = struct.pack("=I", 0)  # BPF_STATS_RUN_TIME, since Linux 5.8


@dataclass(frozen=True, slots=True)
class Usage:
    """One program or map; None is what the kernel does not say."""

    name: str
    kind: str  # program or map
    runs: int | None
    run_ns: int | None
    memory_bytes: int | None
    max_entries: int | None
    misses: int | None  # runs that the kernel left out, because the program was running on that CPU


def of(name: str, kind: str, descriptor: int) -> Usage:
    """Read the account of the program or map behind *descriptor*."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    said = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def number(key: str) -> int | None:
        return int(said[key], 0) if key in said else None

    runs = number("run_cnt") or None  # 0 also when nobody has switched the statistics on
    return Usage(
        name,
        kind,
        runs,
        runs and number("run_time_ns"),
        number("memlock"),
        number("max_entries"),
        number("recursion_misses"),
    )


def count_runs() -> int | None:
    """Make the kernel count the runs of every program until the returned descriptor is closed.

    None where the kernel cannot; the sysctl kernel.bpf_stats_enabled may have it count anyway.
    """
    descriptor = syscall.bpf(Command.ENABLE_STATS, _RUN_TIME)
    return descriptor if descriptor >= 0 else None
