"""Who the owners are: what the programs read when they met a process, and what /proc says now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.frames import Gap, Missing
from netlab.kernel import cgroups
from netlab.kernel.processes import Process, printable
from netlab.tracer.layout import ATTEMPT, PROCESS, PROCESS_KEY, PidSource
from netlab.tracer.records import OWNER, Attempts, Readable


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes that the programs have met, by pid and start: a pid alone is used again."""

    keys: npt.NDArray[np.void]
    found: npt.NDArray[np.void]

    @classmethod
    def none(cls) -> Processes:
        """Return that no process was met."""
        return cls(np.empty(0, PROCESS_KEY), np.empty(0, PROCESS))

    def all(self) -> list[Process]:
        """Return every process that was met and read."""
        keys = zip(self.keys["pid"].tolist(), self.keys["started_ns"].tolist(), strict=True)
        return [_described(*key, one) for key, one in zip(keys, self.found, strict=True) if one["read"]]

    def of(self, owners: Attempts) -> list[Process | None]:
        """Return who the owner of each attempt is, None where it was not met or has been forgotten."""
        known = pd.MultiIndex.from_arrays([self.keys["pid"], self.keys["started_ns"]])
        wanted = pd.MultiIndex.from_arrays([owners["pid"], owners["process_started_ns"]])
        return [
            _described(*owner, self.found[place]) if place >= 0 and self.found[place]["read"] else None
            for owner, place in zip(_keys(owners), known.get_indexer(wanted).tolist(), strict=True)
        ]


Running: TypeAlias = Callable[[Collection[int]], Mapping[int, Process]]
_CGROUPS = PROCESS["cmdline"].itemsize  # where they begin in a record; numpy cuts them at a NUL


def _described(pid: int, started_ns: int, record: np.void) -> Process:
    raw = record.tobytes()
    line = printable(raw[: record["cmdline_bytes"]].rstrip(b"\0").replace(b"\0", b" "))
    names, middle = raw[_CGROUPS : _CGROUPS + record["cgroup_bytes"]], record["unified_bytes"]
    paths = [_path(names[:middle], cut=record["unified_cut"])]
    if len(names) > middle:
        paths.append(_path(names[middle:], cut=record["legacy_cut"]))
    where = cgroups.best(path for path in paths if path)
    return Process(
        pid=pid,
        name="",
        cmdline=line or None,
        uid=0,
        netns=None,
        nspid=int(record["nspid"]) or None,
        cgroup=where.path,
        container=where.container,
        started_ns=started_ns,
    )


def _path(names: bytes, *, cut: int) -> str | None:
    """Put names, the innermost first, each with its NUL, into a path; None if not even that one is known."""
    if cut and not names:
        return None
    parts = [printable(name) for name in reversed(names.split(b"\0")[:-1])]
    return f"{cgroups.CUT if cut else ''}{cgroups.ROOT}{'/'.join(parts)}"


@dataclass(frozen=True, slots=True)
class Owned:
    """Who the owners of a table's attempts are: each distinct one once, and its place for each attempt."""

    who: list[Process | None]
    places: npt.NDArray[np.intp]
    forgotten: int  # attempts whose owner was known and is no more

    def columns(self) -> dict[str, Any]:
        """Return the columns `cmdline`, `nspid`, `cgroup` and `container`."""
        return {
            name: pd.Series(
                pd.array([one and getattr(one, name) for one in self.who], dtype).take(self.places)
            )
            for name, dtype in _COLUMNS.items()
        }

    def missing(self) -> list[Missing]:
        """Say of how many attempts the owner is only known by pid and name."""
        return [Missing(_WHO, Gap.LOST, self.forgotten, _FORGOTTEN)] if self.forgotten else []


_COLUMNS: dict[str, Any] = {"cmdline": "string", "nspid": "Int64", "cgroup": "string", "container": "string"}
_WHO = ", ".join(_COLUMNS)
_FORGOTTEN = (
    "their process has exited and is not remembered: at most max_processes are, and with mode='poll' none"
)


@dataclass(frozen=True, slots=True)
class Owners:
    """What is known of the owners: of those that programs met, and of those that hold sockets."""

    met: Processes
    holding: dict[tuple[int, int], Process]  # by pid and start
    running: Running

    @classmethod
    def of(cls, met: Processes, *holding: dict[int, Process], running: Running) -> Owners:
        """Put together what the programs met and who was found to hold sockets, the latest last.

        *running* tells who of others runs.
        """
        found = (process for each in holding for process in each.values())
        return cls(met, {(process.pid, process.started_ns): process for process in found}, running)

    def identify(self, attempts: Readable) -> Owned:
        """Tell who the owners of *attempts* are."""
        places, distinct = _distinct(attempts)
        if not len(distinct):
            return Owned([None], places, 0)
        met = self.met.of(distinct)
        held = distinct["pid_source"] == PidSource.SOCKET
        who = [
            self.holding.get(owner) if holds else process
            for owner, holds, process in zip(_keys(distinct), held, met, strict=True)
        ]
        gone = np.array([one is None for one in who]) & (distinct["pid_source"] != PidSource.NONE)
        for place, process in _still_there(distinct, np.flatnonzero(gone), self.running):
            who[place], gone[place] = process, False
        return Owned(who, places, int(np.count_nonzero(gone[places])))


def _distinct(attempts: Readable) -> tuple[npt.NDArray[np.intp], Attempts]:
    """Return which of the distinct owners each attempt has, and a record of each with nothing else."""
    owners = pd.DataFrame({name: attempts[name] for name in ("pid", "process_started_ns", "pid_source")})
    places = np.asarray(owners.groupby(list(owners), sort=False).ngroup(), np.intp)
    first = np.unique(places, return_index=True)[1]
    distinct = np.zeros(len(first), ATTEMPT)
    for name in OWNER:
        distinct[name] = attempts[name][first]
    return places, distinct


def _keys(owners: Attempts) -> list[tuple[int, int]]:
    return list(zip(owners["pid"].tolist(), owners["process_started_ns"].tolist(), strict=True))


def _still_there(
    owners: Attempts, gone: npt.NDArray[np.intp], running: Running
) -> Iterator[tuple[int, Process]]:
    """Look for those that are *gone* where *running* tells; a pid is one process by its start and name."""
    there = running(set(owners["pid"][gone].tolist()))
    for place in gone.tolist():
        owner = owners[place]
        process = there.get(int(owner["pid"]))
        if (
            process
            and process.began(int(owner["process_started_ns"]))
            and process.name == printable(owner["process"])
        ):
            yield place, process
