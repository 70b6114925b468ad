"""Blocks of attempt records: put together, chosen from, and starts joined to their ends."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.kernel import keys
from netlab.kernel.keys import chosen
from netlab.tracer.layout import ATTEMPT, PidSource

Attempts: TypeAlias = npt.NDArray[np.void]
Cookies: TypeAlias = npt.NDArray[np.uint64]


class Readable(Protocol):
    """Attempt records as those see them that only read fields: an array of records, or `fields.Fields`."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, name: str, /) -> npt.NDArray[Any]:
        """Return one field of all."""


_CONNECT_S = 1.0  # from connect() to the SYN it takes microseconds
_NEVER = np.iinfo(np.uint64).max
_FLOW = ["cookie", "local_address", "remote_address", "local_port", "remote_port"]
OWNER = ["pid", "uid", "process", "process_started_ns", "pid_source"]
_ADDED = ["bytes_sent", "bytes_received", "packets_sent", "packets_received", "receive_drops"]
_LATEST = ["last_ns", "closed_ns", "error"]  # 0 in the parts that do not know it
_STARTED = [
    "opened_ns",
    "established_ns",
    "pid",
    "uid",
    "process",
    "process_started_ns",
    "pid_source",
    "direction",
]


def joined(parts: Iterable[Attempts]) -> Attempts:
    """Put records under each other."""
    return keys.joined(parts, ATTEMPT)


def put(attempts: Attempts, *, into: Attempts) -> None:
    """Copy records over others."""
    keys.put(attempts, into=into, at=slice(None))


def without(attempts: Attempts, left_out: npt.NDArray[np.bool_]) -> Attempts:
    """Leave out what *left_out* flags, mostly nothing: to copy records takes as long as to read them."""
    return chosen(attempts, ~left_out) if left_out.any() else attempts


def summed(flows: Attempts) -> Attempts:
    """Put the records of each UDP flow together: those of one socket and one tuple."""
    flows = chosen(flows, np.argsort(flows["opened_ns"], kind="stable"))
    places, distinct = _flows(flows).factorize()
    if len(distinct) == len(flows):
        return flows
    together = chosen(flows, np.unique(places, return_index=True)[1])
    for name in _ADDED:
        together[name] = 0
        np.add.at(together[name], places, flows[name])
    for name in _LATEST:
        np.maximum.at(together[name], places, flows[name])
    other_way = flows["direction"] != together["direction"][places]
    answered = np.where(other_way, flows["opened_ns"], flows["established_ns"])
    together["established_ns"] = _NEVER
    np.minimum.at(together["established_ns"], places, np.where(answered, answered, _NEVER))
    together["established_ns"][together["established_ns"] == _NEVER] = 0
    return together


def same_flow(parts: Attempts, flows: Attempts) -> npt.NDArray[np.bool_]:
    """Tell which *parts* are of one of the UDP *flows*: of its socket and its tuple."""
    theirs: npt.NDArray[np.bool_] = _flows(parts).isin(_flows(flows))
    return theirs


def _flows(attempts: Attempts) -> pd.MultiIndex:
    tuples = [attempts[name].view("S16").ravel() if "address" in name else attempts[name] for name in _FLOW]
    return pd.MultiIndex.from_arrays(tuples)


def adopt(starts: Attempts, reports: Attempts) -> tuple[Attempts, Attempts, Attempts]:
    """Join starts that were reported alone to their ends.

    Parameters
    ----------
    starts
        Starts from earlier blocks whose end was not reported yet.
    reports
        The next block, in the order of the kernel: ends, and starts (those have no `closed_ns`).

    Returns
    -------
    tuple
        The ends of the block, those of known starts completed; starts that nothing more will be told of; and
        those that may still have an end.
    """
    if not len(starts) and reports["closed_ns"].all():
        return reports, starts[:0], starts
    both = joined([starts, reports])
    begins, follows = both["closed_ns"] == 0, both["opened_ns"] != 0
    by_socket = np.argsort(both["socket"], kind="stable")  # within one socket they stay in order
    before, after = by_socket[:-1], by_socket[1:]
    same = both["socket"][before] == both["socket"][after]
    # Its socket's memory is another's by now and nothing told of its end: it never left, or nobody wanted it.
    left = same & (both["unsent"][before] != 0) & begins[before] & begins[after]
    both["closed_ns"][before[left]] = both["opened_ns"][after[left]]
    alone = np.zeros(len(both), bool)
    alone[before[left]] = True
    begins &= ~alone
    pairs = same & begins[before] & ~begins[after] & ~follows[after]
    begun, over = before[pairs], after[pairs]
    for name in _STARTED:
        both[name][over] = both[name][begun]
    lacking = both["local_port"][over] == 0  # connect() chooses the local end after the start
    for name in ("local_address", "local_port"):
        both[name][over[lacking]] = both[name][begun[lacking]]
    ended = np.zeros(len(both), bool)
    ended[begun] = True
    return chosen(both, ~begins & ~alone), chosen(both, alone), chosen(both, begins & ~ended)


def take_owners(attempts: Attempts, known: Attempts) -> None:
    """Give attempts without an owner that of the *known* attempt with their cookie."""
    ownerless = np.flatnonzero((attempts["pid_source"] == PidSource.NONE) & (attempts["cookie"] != 0))
    if not len(known) or not len(ownerless):
        return
    places = pd.Index(known["cookie"]).get_indexer(pd.Index(attempts["cookie"][ownerless]))
    found = ownerless[places >= 0]
    for name in OWNER:
        attempts[name][found] = known[name][places[places >= 0]]


def is_udp(attempts: Readable) -> npt.NDArray[np.bool_]:
    """Tell which records are UDP flows."""
    udp: npt.NDArray[np.bool_] = attempts["protocol"] == socket.IPPROTO_UDP
    return udp


def begun_unseen(attempts: Readable) -> npt.NDArray[np.bool_]:
    """Tell which UDP flows need not have begun with the first packet that was seen."""
    flow = is_udp(attempts) & (attempts["last_ns"] != 0)
    unseen: npt.NDArray[np.bool_] = flow & (attempts["complete"] == 0)
    return unseen


def has_peer(attempts: Attempts) -> npt.NDArray[np.bool_]:
    """Tell which sockets are connected: a UDP socket need not be."""
    connected: npt.NDArray[np.bool_] = attempts["remote_port"] != 0
    return connected


def never_sent(attempts: Attempts, now_ns: int) -> npt.NDArray[np.bool_]:
    """Tell which open attempts had failed by *now_ns*: no SYN came after connect()."""
    waited = now_ns - attempts["opened_ns"].astype(np.int64) > _CONNECT_S * 1e9
    failed: npt.NDArray[np.bool_] = (attempts["unsent"] != 0) & (waited | (attempts["error"] != 0))
    return failed


def end_unseen(attempts: Readable) -> npt.NDArray[np.bool_]:
    """Tell which attempts ended unseen: their socket was closed, or its memory another's, by then."""
    unseen: npt.NDArray[np.bool_] = (
        (attempts["closed_ns"] != 0) & (attempts["last_state"] == 0) & (attempts["unsent"] == 0)
    )
    return unseen


def ownerless(opened: Attempts, before: Attempts) -> Cookies:
    """Return the cookies of attempts whose owner neither programs nor the list *before* told; 0 is any."""
    every: Cookies = np.concatenate([opened["cookie"], before["cookie"]])
    unknown = np.concatenate([opened["pid_source"], before["pid_source"]]) == PidSource.NONE
    cookies: Cookies = every[unknown & ((every == 0) | ~np.isin(every, every[~unknown]))]
    return cookies
