"""Looking behind a capture: what its programs cost, and their maps as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab import addresses
from netlab.frames import Gap, Missing
from netlab.kernel import ctlives, ctnames
from netlab.kernel.usage import Usage
from netlab.schemas import CONNTRACK, COST
from netlab.tracer.owners import Processes
from netlab.tracer.translated import NatTable

_UNCOUNTED = (
    "the kernel does not count runs: use netlab.capture(cost=True), or sysctl kernel.bpf_stats_enabled=1"
)


def cost(usages: Iterable[Usage]) -> pd.DataFrame:
    """Return the account of programs and maps, schema `netlab.schemas.COST`."""
    rows = list(usages)
    runs, run_ns = (
        pd.Series([getattr(row, name) for row in rows], dtype="Float64") for name in ("runs", "run_ns")
    )
    uncounted = sum(row.kind == "program" and row.runs is None for row in rows)
    gaps = [Missing("runs, run_ms, ns_per_run", Gap.UNAVAILABLE, uncounted, _UNCOUNTED)] if uncounted else []
    return COST.frame(
        {
            "program": [row.name for row in rows],
            "kind": pd.Categorical([row.kind for row in rows]),
            "runs": runs,
            "run_ms": run_ns / 1e6,
            "ns_per_run": run_ns / runs,
            "memory_bytes": [row.memory_bytes for row in rows],
            "max_entries": [row.max_entries for row in rows],
        },
        gaps,
    )


def translations(known: NatTable) -> pd.DataFrame:
    """Return the entries that connections are joined with, schema `netlab.schemas.CONNTRACK`."""
    entries = known.entries
    ends = {name: addresses.ipv6_text(entries[name]) for name in ("src", "dst", "reply_src", "reply_dst")}
    mapped = np.all(entries["src"][:, :12] == _MAPPED, axis=1)
    protocols = pd.Categorical([ctnames.protocol_name(number) for number in entries["protocol"].tolist()])
    gone = int(np.count_nonzero(entries["ended_until_ns"] != ctlives.NEVER))
    gaps = [Missing("state, status, counters", Gap.UNAVAILABLE, None, "a capture keeps the tuples only")]
    if gone:
        gaps.append(Missing("entries", Gap.APPROXIMATE, gone, "they are gone from the kernel's table"))
    return CONNTRACK.frame(
        ends
        | {name: entries[name] for name in ("sport", "dport", "reply_sport", "reply_dport", "id", "netns")}
        | {
            "protocol": protocols,
            "family": np.where(mapped, 4, 6),
            "zone": entries["zone"] & _ZONE,
        },
        [*known.missing, *gaps],
    )


_MAPPED = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)  # RFC 4291 section 2.5.5.2
_ZONE = 0xFFFF  # above it is the direction, see `ctlives.LIFE`


def processes(met: Processes) -> list[dict[str, Any]]:
    """Return what the programs read of each process that they met."""
    return [
        {
            "pid": one.pid,
            "started_ns": one.started_ns,
            "nspid": one.nspid,
            "cmdline": one.cmdline,
            "cgroup": one.cgroup,
            "container": one.container,
        }
        for one in met.all()
    ]


def raw(records: npt.NDArray[np.void]) -> pd.DataFrame:
    """Return records field by field, byte strings in hexadecimal."""
    names = records.dtype.names or ()
    return pd.DataFrame({name: _plain(records[name]) for name in names})


def _plain(values: npt.NDArray[np.generic]) -> list[object] | npt.NDArray[np.generic]:
    if values.dtype.kind == "S" or values.ndim > 1:
        return [value.tobytes().hex() for value in np.ascontiguousarray(values)]
    return values
