"""Who the owners are: what the programs read when they met a process, and what /proc says now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.kernel.processes import Process, container, printable
from netlab.tracer.layout import PROCESS, PROCESS_KEY, PidSource
from netlab.tracer.records import Attempts


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes that the programs have met, by pid and start: a pid alone is used again."""

    keys: npt.NDArray[np.void]
    found: npt.NDArray[np.void]

    @classmethod
    def none(cls) -> Processes:
        """Return that no process was met."""
        return cls(np.empty(0, PROCESS_KEY), np.empty(0, PROCESS))

    def of(self, owners: pd.MultiIndex) -> list[Process | None]:
        """Return who each owner (pid, start) is, None where it was not met or has been forgotten."""
        known = pd.MultiIndex.from_arrays([self.keys["pid"], self.keys["started_ns"]])
        places = known.get_indexer(owners).tolist()
        pids = owners.get_level_values(0).tolist()
        return [
            self._described(pid, self.found[place]) if place >= 0 else None
            for pid, place in zip(pids, places, strict=True)
        ]

    def _described(self, pid: int, record: np.void) -> Process:
        raw = record.tobytes()[: int(record["cmdline_bytes"])]  # the first field; numpy cuts it at a NUL
        line = printable(raw.rstrip(b"\0").replace(b"\0", b" "))
        group = bytes(record["cgroup"]).decode(errors="replace")
        return Process(
            pid=pid,
            name="",
            cmdline=line or None,
            uid=0,
            netns=None,
            nspid=int(record["nspid"]) or None,
            container=container(f"0::/{group}\n"),
        )


@dataclass(frozen=True, slots=True)
class Owners:
    """What is known of the owners: of those that programs met, and of those that hold sockets now, by pid."""

    met: Processes
    holding: dict[int, Process]

    @classmethod
    def none(cls) -> Owners:
        """Return that nothing is known of anybody."""
        return cls(Processes.none(), {})

    def columns(self, attempts: Attempts) -> dict[str, Any]:
        """Return the columns `cmdline`, `nspid` and `container` of attempts."""
        who = pd.MultiIndex.from_arrays(
            [attempts["pid"], attempts["process_started_ns"], attempts["pid_source"]]
        )
        places, distinct = who.factorize()
        owners = pd.MultiIndex.from_tuples([one[:2] for one in distinct]) if len(distinct) else None
        met = [] if owners is None else self.met.of(owners)
        known = [
            self._who(process, pid, source) for process, (pid, _, source) in zip(met, distinct, strict=True)
        ]
        return {
            "cmdline": _taken([one and one.cmdline for one in known], "string", places),
            "nspid": _taken([one and one.nspid for one in known], "Int64", places),
            "container": _taken([one and one.container for one in known], "string", places),
        }

    def _who(self, met: Process | None, pid: int, source: int) -> Process | None:
        """Trust /proc only for who holds a socket now: otherwise the pid may be another process's by now."""
        match source:
            case PidSource.NONE:
                return None
            case PidSource.SOCKET:
                return self.holding.get(pid)
            case _:
                return met


def _taken(values: list[Any], dtype: Any, places: npt.NDArray[np.intp]) -> pd.Series:
    return pd.Series(pd.array(values, dtype=dtype).take(places))
