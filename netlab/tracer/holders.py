"""Which processes hold listed sockets, asked of /proc about each socket once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.kernel import clock, processes
from netlab.kernel.processes import Process
from netlab.tracer.layout import ATTEMPT, PidSource
from netlab.tracer.records import Attempts, Cookies

_AGAIN_NS = 10 * 10**9
_OWNER = ["pid", "process_started_ns", "process", "pid_source"]
_Flags: TypeAlias = npt.NDArray[np.bool_]


class Holders:
    """Gives listed sockets their owners, and remembers them: the answer costs a walk over all open files.

    So an owner is the process that held the socket when it was first asked about, as those that the programs
    tell are. A socket that nobody holds may be on its way to a process and is asked about again after 10 s.
    """

    def __init__(self) -> None:
        self._told = np.empty(0, ATTEMPT)
        self._asked: Cookies = np.empty(0, np.uint64)
        self._asked_ns = 0
        self._running: dict[int, Process] = {}

    def fill(
        self, attempts: Attempts, inodes: npt.NDArray[np.integer[Any]], ownerless: Cookies | None = None
    ) -> dict[int, Process]:
        """Fill the owners of listed *attempts*, whose sockets have *inodes*; return those processes.

        Nobody is asked if only others than *ownerless* are not known, 0 for any of them; None is all.
        """
        self._recall(attempts)
        unknown = (inodes != 0) & (attempts["pid_source"] == PidSource.NONE)  # no inode: no file of anyone's
        if ownerless is not None and not (ownerless == 0).any():
            unknown &= np.isin(attempts["cookie"], ownerless)
        is_old = clock.now_ns() - self._asked_ns > _AGAIN_NS
        if (unknown if is_old else unknown & ~np.isin(attempts["cookie"], self._asked)).any():
            self._ask(attempts, inodes, unknown)
        held = set(attempts["pid"].tolist())
        self._told, self._running = attempts, {pid: p for pid, p in self._running.items() if pid in held}
        return self._running

    def _recall(self, attempts: Attempts) -> None:
        if len(self._told):
            places = pd.Index(self._told["cookie"]).get_indexer(pd.Index(attempts["cookie"]))
            known = np.flatnonzero(places >= 0)
            for name in _OWNER:
                attempts[name][known] = self._told[name][places[known]]

    def _ask(self, attempts: Attempts, inodes: npt.NDArray[np.integer[Any]], unknown: _Flags) -> None:
        self._asked, self._asked_ns = attempts["cookie"][unknown], clock.now_ns()
        pids = processes.owners().of(inodes)
        owned = np.flatnonzero(unknown & ~np.ma.getmaskarray(pids))
        holders = np.ma.getdata(pids)[owned].tolist()
        found = processes.describe(set(holders))
        attempts["pid"][owned] = holders
        attempts["process_started_ns"][owned] = [found[p].started_ns if p in found else 0 for p in holders]
        attempts["process"][owned] = [found[p].name.encode()[:15] if p in found else b"" for p in holders]
        attempts["pid_source"][owned] = PidSource.SOCKET
        self._running |= found
