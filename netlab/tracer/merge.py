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

from netlab.kernel.keys import chosen
from netlab.kernel.sockdiag import State
from netlab.tracer.layout import NOT_TOLD, Direction, PidSource
from netlab.tracer.records import (
    OWNER,
    Attempts,
    Cookies,
    begun_unseen,
    has_peer,
    is_udp,
    joined,
    never_sent,
    without,
)
from netlab.tracer.snapshot import QUEUES, UNTOLD, Snapshot

Places = npt.NDArray[np.intp]
NO_COOKIES = np.empty(0, np.uint64)

UNCONNECTED = max(State) + 1  # a UDP socket in CLOSE

_TUPLE = ["netns", "protocol", "family", "local_address", "remote_address", "local_port", "remote_port"]
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
    "rwnd_limited_ms",
]


@dataclass(frozen=True, slots=True)
class Table:
    """One row per attempt: the record, its TCP state, its socket's inode (0 where not known) and queues."""

    attempts: Attempts
    states: npt.NDArray[np.uint8]
    inodes: npt.NDArray[np.uint64]
    backfilled: npt.NDArray[np.bool_]  # open before the capture and listed at its start, or `begun_unseen`
    queues: npt.NDArray[np.void]  # of dtype QUEUES

    def where(self, keep: npt.NDArray[Any]) -> Table:
        """Return the rows that *keep* selects: flags or places."""
        return Table(
            chosen(self.attempts, keep),
            self.states[keep],
            self.inodes[keep],
            self.backfilled[keep],
            self.queues[keep],
        )


def merge(
    closed: Attempts,
    opened: Attempts,
    before: Snapshot,
    now: Snapshot,
    *,
    now_ns: int,
    over: Cookies = NO_COOKIES,
) -> Table:
    """Join what the programs saw with the sockets listed at the start (*before*) and *now*, at *now_ns*.

    *opened* and *over* have to be read before *closed*: an attempt that ends in between is then in both, and
    only its closed record counts. *over* are those of *before* that have ended: *closed* may not have them.
    """
    opened = without(opened, _ended(opened, closed))
    older = chosen(before.attempts, has_peer(before.attempts))
    older = without(older, _listed(older, closed) | _listed(older, opened) | np.isin(older["cookie"], over))
    attempts = joined([closed, opened, older])
    _fill_owner(attempts, before)

    states = np.full(len(attempts), State.CLOSE, np.uint8)
    inodes = np.zeros(len(attempts), np.uint64)
    queues = _untold(len(attempts))
    running = slice(len(closed), None)
    _fill_owner(attempts[running], now)
    states[running], inodes[running], queues[running] = _measure(attempts[running], now)
    states[running][never_sent(attempts[running], now_ns)] = State.CLOSE
    _name_udp_states(attempts[running], states[running])

    places = _places(attempts, before.attempts)
    backfilled = ((attempts["opened_ns"] == 0) & (places >= 0)) | begun_unseen(attempts)
    return Table(attempts, states, inodes, backfilled, queues)


def _ended(opened: Attempts, closed: Attempts) -> npt.NDArray[np.bool_]:
    """Tell which open records have a closed one: the same socket with the same start.

    The start moves on when the SYN is sent. A record from before that has ended too when any later attempt of
    its socket has: there is no second one before the first is over.
    """
    ended: npt.NDArray[np.bool_] = np.isin(opened["socket"], closed["socket"])
    same = np.flatnonzero(ended)
    ours, theirs = (
        pd.MultiIndex.from_arrays([part["socket"], part["opened_ns"]]) for part in (opened[same], closed)
    )
    ended[same] = ours.isin(theirs)
    for place in same[(opened["unsent"][same] != 0) & ~ended[same]]:  # caught in connect(): hardly ever one
        of_socket = closed["socket"] == opened["socket"][place]
        ended[place] = (of_socket & (closed["opened_ns"] >= opened["opened_ns"][place])).any()
    return ended


def _listed(listed: Attempts, seen: Attempts) -> npt.NDArray[np.bool_]:
    """Tell which listed sockets the programs saw too."""
    unnumbered = seen[seen["cookie"] == 0]
    by_cookie = np.isin(listed["cookie"], seen["cookie"])
    return by_cookie | _tuples(listed).isin(_tuples(unnumbered)) if len(unnumbered) else by_cookie


def _places(attempts: Attempts, listed: Attempts) -> Places:
    """Return where each attempt's socket is in *listed*, -1 where it is not, or where several may be it."""
    if not len(listed):
        return np.full(len(attempts), -1)
    places: Places = pd.Index(listed["cookie"]).get_indexer(pd.Index(attempts["cookie"]))
    unnumbered = np.flatnonzero(attempts["cookie"] == 0)
    if len(unnumbered):
        tuples = _tuples(listed)
        alone = np.flatnonzero(~tuples.duplicated(keep=False))  # SO_REUSEPORT: the others share theirs
        found = tuples[alone].get_indexer(_tuples(attempts[unnumbered]))
        places[unnumbered] = np.append(alone, -1)[found]
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
    known = np.flatnonzero(places >= 0)
    ownerless = known[attempts["pid_source"][known] == PidSource.NONE]
    for name in OWNER:
        attempts[name][ownerless] = listed.attempts[name][places[ownerless]]
    undirected = known[attempts["direction"][known] == Direction.UNKNOWN]
    attempts["direction"][undirected] = listed.attempts["direction"][places[undirected]]


def _measure(
    attempts: Attempts, now: Snapshot
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64], npt.NDArray[np.void]]:
    """Give open attempts their counters as they are now; return their states, inodes and queues."""
    queues = _untold(len(attempts))
    if not len(now.attempts):
        return np.zeros(len(attempts), np.uint8), np.zeros(len(attempts), np.uint64), queues
    places = _places(attempts, now.attempts)
    found, known = chosen(now.attempts, places), places >= 0
    states, inodes = np.where(known, now.states[places], 0), np.where(known, now.inodes[places], 0)
    told = known & (found["mark"] != NOT_TOLD)
    attempts["mark"] = np.where(told, found["mark"], attempts["mark"])
    attempts["interface"] = np.where(known, found["interface"], attempts["interface"])
    known &= ~is_udp(attempts)  # one socket has many flows, and the kernel counts for none of them
    if now.queues is not None:
        queues[known] = now.queues[places[known]]
    for name in _MEASURED:
        attempts[name] = np.where(known, found[name], attempts[name])
    for name in ("local_port", "local_address"):  # connect() picks them after the first state change
        choose = known if attempts[name].ndim == 1 else known[:, None]
        attempts[name] = np.where(choose, found[name], attempts[name])
    return states.astype(np.uint8), inodes, queues


def _untold(size: int) -> npt.NDArray[np.void]:
    return np.full(size, UNTOLD).astype(QUEUES)


def _name_udp_states(attempts: Attempts, states: npt.NDArray[np.uint8]) -> None:
    """Say of running UDP flows whether their socket is connected, which it was or was not at the start.

    Of sockets that were silent and are not listed any more nothing else tells the end.
    """
    udp, flow = is_udp(attempts), attempts["opened_ns"] != 0
    unlisted = udp & (states == 0)
    states[udp & (states == State.CLOSE)] = UNCONNECTED
    states[unlisted] = np.where(flow, attempts["last_state"], State.CLOSE)[unlisted]
    states[unlisted & flow & (states == State.CLOSE)] = UNCONNECTED
