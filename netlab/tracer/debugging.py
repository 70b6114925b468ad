"""Looking behind a capture: what its programs cost, and their maps as they are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.frames import Gap, Missing
from netlab.kernel.usage import Usage
from netlab.schemas import COST

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


def raw(records: npt.NDArray[np.void]) -> pd.DataFrame:
    """Return records field by field, byte strings in hexadecimal."""
    names = records.dtype.names or ()
    return pd.DataFrame({name: _plain(records[name]) for name in names})


def _plain(values: npt.NDArray[np.generic]) -> list[object] | npt.NDArray[np.generic]:
    if values.dtype.kind == "S" or values.ndim > 1:
        return [value.tobytes().hex() for value in np.ascontiguousarray(values)]
    return values
