"""Attempt records to the `connections` frame."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from netlab import addresses
from netlab.columns import categories
from netlab.frames import Missing
from netlab.kernel.processes import printable
from netlab.kernel.sockdiag import State
from netlab.schemas import CONNECTIONS
from netlab.tracer.fields import Fields
from netlab.tracer.layout import AF_INET6, NOT_COUNTED, NOT_KNOWN, NOT_TOLD, Direction, PidSource
from netlab.tracer.merge import Table
from netlab.tracer.owners import Owned, Owners
from netlab.tracer.reasons import explain
from netlab.tracer.records import Readable, begun_unseen, end_unseen, is_udp
from netlab.tracer.snapshot import QUEUES, UNTOLD
from netlab.tracer.translated import NatTable

_NO_RTT = 0xFFFFFFFF  # the kernel's windowed minimum before the first sample

# RFC 9293 section 3.3.2, spelt as ss(8) does; code 0 is not known, and the last one is UNCONNECTED.
STATES = [
    None,
    *("closed" if s is State.CLOSE else s.name.lower().replace("_", "-") for s in State),
    "unconnected",
]
_DIRECTIONS = [direction.name.lower() for direction in Direction]
_MOMENTS = ("opened_ns", "established_ns", "closed_ns")
_COUNTERS = ("bytes_sent", "bytes_received", "packets_sent", "packets_received")
_PID_SOURCES = [None, *(source.name.lower() for source in PidSource if source)]


def connections(
    table: Table,
    *,
    to_utc_ns: int,
    now_ns: int,
    owners: Owners,
    nat: NatTable,
    missing: Iterable[Missing],
    untold: Collection[str] = (),
) -> pd.DataFrame:
    """Build the frame, oldest attempt first, those with an unknown start before all.

    Parameters
    ----------
    table
        The merged attempts.
    to_utc_ns
        What to add to a kernel time (CLOCK_MONOTONIC, nanoseconds) to get UTC.
    now_ns
        The present kernel time, where the age of open attempts ends.
    owners
        What is known of the owners.
    nat
        What is known of translations.
    missing
        What the frame lacks.
    untold
        Columns that nobody tells of any row: they are missing.
    """
    if not len(table.attempts):
        return CONNECTIONS.empty(missing)
    order = np.argsort(table.attempts["opened_ns"], kind="stable")
    attempts, states, queues = Fields(table.attempts, order), table.states[order], table.queues[order]
    known, translated = owners.identify(attempts), nat.of(attempts)
    data = {
        **identity(attempts),
        "state": categories(states, STATES),
        "seen": categories(table.backfilled[order].astype(np.int8), ["live", "backfill"]),
        "inode": _unless_zero(table.inodes[order]),
        "mark": np.ma.array(attempts["mark"], mask=attempts["mark"] == NOT_TOLD),
        "bound_ifindex": _unless_zero(attempts["interface"]),
        **{name: np.ma.masked_equal(queues[name], UNTOLD) for name in QUEUES.names or ()},
    }
    parts = (
        _owner(attempts, known),
        _times(attempts, to_utc_ns, now_ns),
        _counters(attempts, states),
        _outcome(attempts, states),
        translated.columns,
    )
    lacks = [*missing, *known.missing(), *translated.missing]
    told = {name: column for name, column in (data | dict(ChainMap(*parts))).items() if name not in untold}
    return CONNECTIONS.frame(told, lacks)


def identity(attempts: Readable) -> dict[str, Any]:
    """Return the columns that say which connection it is."""
    portless = (attempts["remote_port"] == 0) & (is_udp(attempts) | ~attempts["remote_address"].any(axis=1))
    return {
        "protocol": categories(is_udp(attempts).astype(np.int8), ["tcp", "udp"]),
        "family": np.where(attempts["family"] == AF_INET6, 6, 4),
        "direction": categories(attempts["direction"], _DIRECTIONS),
        "local_address": _address(attempts, "local_address"),
        "local_port": _unless_zero(attempts["local_port"]),
        "remote_address": _address(attempts, "remote_address"),
        "remote_port": np.ma.array(attempts["remote_port"], mask=portless),  # TCP may ask for port 0
        "netns": _unless_zero(attempts["netns"]),
        "cookie": _unless_zero(attempts["cookie"]),
    }


def owner_names(attempts: Readable) -> dict[str, Any]:
    """Return the owner's pid and command name."""
    unknown = attempts["pid_source"] == PidSource.NONE
    raw = np.ascontiguousarray(attempts["process"])
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(raw), [None, pa.py_buffer(raw)])
    distinct = column.dictionary_encode()
    names = [printable(name.rstrip(b"\0")) for name in distinct.dictionary.to_pylist()]
    process = addresses.column([pa.array(names, pa.large_string()).take(distinct.indices)])
    return {
        "pid": np.ma.array(attempts["pid"], mask=unknown),
        "process": pd.Series(process).mask(unknown | (raw == b"")),  # who was gone before it was asked
    }


def _owner(attempts: Readable, known: Owned) -> dict[str, Any]:
    unknown = attempts["pid_source"] == PidSource.NONE
    return {
        **owner_names(attempts),
        **known.columns(),
        "uid": np.ma.array(attempts["uid"], mask=unknown),
        "pid_source": categories(attempts["pid_source"], _PID_SOURCES),
    }


def _times(attempts: Readable, to_utc_ns: int, now_ns: int) -> dict[str, Any]:
    opened, established, closed = (attempts[name].astype(np.int64) for name in _MOMENTS)
    ended = np.where(closed == 0, now_ns, closed)
    unseen = end_unseen(attempts) | (attempts["unsent"] != 0)  # of those the release of the socket was seen
    shook_hands = (opened != 0) & (established != 0) & (attempts["direction"] == Direction.OUTGOING)
    deferred_us = attempts["deferred_us"]
    shook_hands &= ~begun_unseen(attempts) & (deferred_us != NOT_KNOWN)
    return {
        "opened_at": np.ma.array(opened + to_utc_ns, mask=opened == 0),
        "closed_at": np.ma.array(closed + to_utc_ns, mask=(closed == 0) | unseen),
        "duration_s": np.ma.array((ended - opened) / 1e9, mask=(opened == 0) | unseen),
        "connect_ms": np.ma.array((established - opened) / 1e6 - deferred_us / 1e3, mask=~shook_hands),
        "last_packet_at": np.ma.array(
            np.maximum(attempts["last_ns"].astype(np.int64), opened) + to_utc_ns,
            mask=attempts["last_ns"] == 0,
        ),
        "assured": np.ma.array(established != 0, mask=attempts["last_ns"] == 0),
    }


def _counters(attempts: Readable, states: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Return the kernel's counters; an open attempt that sock_diag did not list has none to show."""
    udp, flow = is_udp(attempts), attempts["last_ns"] != 0
    unmeasured = np.where(udp, ~flow, (states == 0) | end_unseen(attempts))
    columns = {name: np.ma.array(attempts[name], mask=unmeasured) for name in _COUNTERS}
    unmeasured = unmeasured | udp
    unsampled = unmeasured | (attempts["srtt_us"] == 0)
    untimed = attempts["min_rtt_us"] == _NO_RTT
    return columns | {
        "receive_drops": np.ma.array(attempts["receive_drops"], mask=~flow),
        "retransmits": np.ma.array(attempts["retransmits"], mask=unmeasured),
        "out_of_order": np.ma.array(attempts["out_of_order"], mask=unmeasured),
        "rtos": np.ma.array(attempts["rtos"], mask=unmeasured | (attempts["rtos"] == NOT_COUNTED)),
        "rwnd_limited_ms": np.ma.array(attempts["rwnd_limited_ms"], mask=unmeasured),
        "cwnd": np.ma.array(attempts["cwnd"], mask=unmeasured | (attempts["cwnd"] == 0)),
        "syn_retransmits": _syn_retransmits(attempts, states),
        "rtt_ms": np.ma.array(attempts["srtt_us"] / 1e3, mask=unsampled),
        "rtt_var_ms": np.ma.array(attempts["rtt_var_us"] / 1e3, mask=unsampled),
        "min_rtt_ms": np.ma.array(attempts["min_rtt_us"] / 1e3, mask=unsampled | untimed),
    }


def _syn_retransmits(attempts: Readable, states: npt.NDArray[np.uint8]) -> Any:
    """Before the handshake ends every retransmission is a SYN; of a start nobody saw nothing is known."""
    open_now, unshaken = attempts["closed_ns"] == 0, attempts["established_ns"] == 0
    connecting = open_now & (states == State.SYN_SENT)
    count = np.where(connecting, attempts["retransmits"], attempts["syn_retransmits"])
    failed = ~open_now & (attempts["last_state"] == State.SYN_SENT)
    unseen = is_udp(attempts) | (attempts["opened_ns"] == 0) | (unshaken & ~connecting & ~failed)
    return np.ma.array(count, mask=unseen)


def _outcome(attempts: Readable, states: npt.NDArray[np.uint8]) -> dict[str, Any]:
    error, reason = explain(attempts, states)
    return {"error": error, "reason": reason}


def _address(attempts: Readable, name: str) -> Any:
    """Return one address column."""
    text = addresses.mixed(attempts["family"] != AF_INET6, attempts[name])
    nowhere = attempts["remote_port"] == 0
    nowhere[nowhere] = ~attempts[name][nowhere].any(axis=1)
    return pd.Series(text).mask(nowhere) if nowhere.any() else text


def _unless_zero(values: npt.NDArray[Any]) -> Any:
    return np.ma.array(values, mask=values == 0)
