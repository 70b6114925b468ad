"""Three views of the same sockets become one table: closed attempts, open attempts, and sock_diag's list.

Sockets are joined by their cookie, a number the kernel never gives twice. The few that have none yet, because
they are older than the capture, are joined by namespace and tuple.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.kernel.sockdiag import State
from netlab.tracer.layout import Direction, PidSource
from netlab.tracer.records import Attempts, chosen, joined, never_sent
from netlab.tracer.snapshot import Snapshot

Places = npt.NDArray[np.intp]
Cookies = npt.NDArray[np.uint64]

NO_COOKIES = np.empty(0, np.uint64)

_TUPLE = ["netns", "local_address", "remote_address", "local_port", "remote_port"]
_OWNER = ["pid", "uid", "process", "process_started_ns", "pid_source"]
_MEASURED = [
    "bytes_sent",
    "bytes_received",
    "packets_sent",
    "packets_received",
    "retransmits",
    "srtt_us",
    "rtt_var_us",
    "min_rtt_us",
    "cwnd",
    "out_of_order",
    "rtos",
    "rwnd_limited_us",
]


@dataclass(frozen=True, slots=True)
class Table:
    """One row per attempt: the record, its TCP state and its socket's inode (0 where not known)."""

    attempts: Attempts
    states: npt.NDArray[np.uint8]
    inodes: npt.NDArray[np.uint64]
    backfilled: npt.NDArray[np.bool_]  # open before the capture and listed at its start

    def where(self, keep: npt.NDArray[Any]) -> Table:
        """Return the rows that *keep* selects: flags or places."""
        return Table(
            chosen(self.attempts, keep),
            self.states[keep],
            self.inodes[keep],
            self.backfilled[keep],
        )


def merge(
    closed: Attempts, opened: Attempts, before: Snapshot, now: Snapshot, over: Cookies = NO_COOKIES
) -> Table:
    """Join what the programs saw with the sockets listed at the start (*before*) and *now*.

    *opened* and *over* have to be read before *closed*: an attempt that ends in between is then in both, and
    only its closed record counts. *over* are those of *before* that have ended: *closed* may not have them.
    """
    opened = _without(opened, _ended(opened, closed))
    older = before.attempts
    older = _without(older, _listed(older, closed) | _listed(older, opened) | np.isin(older["cookie"], over))
    attempts = joined([closed, opened, older])
    _fill_owner(attempts, before)

    states = np.full(len(attempts), State.CLOSE, np.uint8)
    inodes = np.zeros(len(attempts), np.uint64)
    running = slice(len(closed), None)
    _fill_owner(attempts[running], now)
    states[running], inodes[running] = _measure(attempts[running], now)
    states[running][never_sent(attempts[running])] = State.CLOSE
    backfilled = (attempts["opened_ns"] == 0) & (_places(attempts, before.attempts) >= 0)
    return Table(attempts, states, inodes, backfilled)


def _without(attempts: Attempts, left_out: npt.NDArray[np.bool_]) -> Attempts:
    return chosen(attempts, ~left_out) if left_out.any() else attempts


def _ended(opened: Attempts, closed: Attempts) -> npt.NDArray[np.bool_]:
    """Tell which open records have a closed one: the same socket with the same start."""
    ours, theirs = (
        pd.MultiIndex.from_arrays([part["socket"], part["opened_ns"]]) for part in (opened, closed)
    )
    return ours.isin(theirs)


def _listed(listed: Attempts, seen: Attempts) -> npt.NDArray[np.bool_]:
    """Tell which listed sockets the programs saw too."""
    unnumbered = seen[seen["cookie"] == 0]
    by_cookie = np.isin(listed["cookie"], seen["cookie"])
    return by_cookie | _tuples(listed).isin(_tuples(unnumbered)) if len(unnumbered) else by_cookie


def _places(attempts: Attempts, listed: Attempts) -> Places:
    """Return where each attempt's socket is in *listed*, -1 where it is not."""
    if not len(listed):
        return np.full(len(attempts), -1)
    places: Places = pd.Index(listed["cookie"]).get_indexer(pd.Index(attempts["cookie"]))
    unnumbered = np.flatnonzero(attempts["cookie"] == 0)
    if len(unnumbered):
        places[unnumbered] = _tuples(listed).get_indexer(_tuples(attempts[unnumbered]))
    return places


def _tuples(attempts: Attempts) -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays(
        [_scalar(attempts[name]) if "address" in name else attempts[name] for name in _TUPLE]
    )


def _scalar(addresses: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    return np.ascontiguousarray(addresses).view("S16").ravel()


def _fill_owner(attempts: Attempts, listed: Snapshot) -> None:
    """Give attempts whose owner or direction the programs did not see those of the listed socket."""
    if not len(listed.attempts):
        return
    places = _places(attempts, listed.attempts)
    found = listed.attempts[places]  # -1 takes any row: the masks below leave it out
    ownerless = (places >= 0) & (attempts["pid_source"] == PidSource.NONE)
    for name in _OWNER:
        attempts[name] = np.where(ownerless, found[name], attempts[name])
    undirected = (places >= 0) & (attempts["direction"] == Direction.UNKNOWN)
    attempts["direction"] = np.where(undirected, found["direction"], attempts["direction"])


def _measure(attempts: Attempts, now: Snapshot) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    """Give open attempts their counters as they are now; return their states and inodes."""
    if not len(now.attempts):
        return np.zeros(len(attempts), np.uint8), np.zeros(len(attempts), np.uint64)
    places = _places(attempts, now.attempts)
    found, known = now.attempts[places], places >= 0
    for name in _MEASURED:
        attempts[name] = np.where(known, found[name], attempts[name])
    for name in ("local_port", "local_address"):  # connect() picks them after the first state change
        choose = known if attempts[name].ndim == 1 else known[:, None]
        attempts[name] = np.where(choose, found[name], attempts[name])
    return np.where(known, now.states[places], 0).astype(np.uint8), np.where(known, now.inodes[places], 0)
