"""The open sockets of every network namespace, listed by sock_diag, as attempt records with owners."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from netlab.frames import Missing
from netlab.kernel import netlink, sequences, sockdiag, spaces
from netlab.kernel.keys import chosen, joined
from netlab.kernel.processes import Process
from netlab.kernel.sockdiag import Sockets, State
from netlab.tracer import directions
from netlab.tracer.holders import Holders
from netlab.tracer.layout import ATTEMPT, NOT_COUNTED, NOT_TOLD, Direction
from netlab.tracer.records import Cookies

# Listening is no connection; SYN_RECV is mostly no socket yet (struct request_sock).
_NO_CONNECTION = (State.LISTEN, State.SYN_RECV)

_TABLES: dict[int, Callable[[], Sockets]] = {
    socket.IPPROTO_TCP: partial(sockdiag.tcp_sockets, without=[State.TIME_WAIT]),  # no socket any more
    socket.IPPROTO_UDP: sockdiag.udp_sockets,
}
_COUNTERS = {
    "packets_sent": "segs_out",
    "packets_received": "segs_in",
    "retransmits": "total_retrans",
    "cwnd": "snd_cwnd",
    "out_of_order": "rcv_ooopack",
}


# By the names of their columns; `UNTOLD` where nobody told.
QUEUES = np.dtype([("receive_queue_bytes", "i8"), ("send_queue_bytes", "i8")])
UNTOLD = -1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Sockets listed at one moment: attempt records, TCP states, inodes, owners, and queues if told."""

    attempts: npt.NDArray[np.void]
    states: npt.NDArray[np.uint8]
    inodes: npt.NDArray[np.uint64]
    owners: dict[int, Process]
    missing: list[Missing]
    complete: frozenset[int] = frozenset()  # inodes of the namespaces whose every socket is listed
    half_open: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))  # by cookie
    queues: npt.NDArray[np.void] | None = None  # of dtype QUEUES

    @classmethod
    def empty(cls) -> Snapshot:
        """Return a snapshot without sockets."""
        return cls(np.empty(0, ATTEMPT), np.empty(0, np.uint8), np.empty(0, np.uint64), {}, [])


def take(
    only: Collection[int] | None = None,
    *,
    protocol: int = 0,
    holders: Holders | None = None,
    ownerless: Cookies | None = None,
) -> Snapshot:
    """List the sockets of *protocol* (0: both) in every namespace, or in those whose inodes are in *only*.

    *holders* remembers who holds them from list to list, and is asked only about *ownerless*, if given.
    """
    read = [read for number, read in _TABLES.items() if protocol in {0, number}]
    answers = spaces.ask(
        spaces.ALL,
        lambda: (sockdiag.joined(table() for table in read), directions.ephemeral_ports()),
        only=only,
    )
    listed, half_open = [], [np.empty(0, np.uint64)]
    for inode, (sockets, ephemeral) in answers.by_inode.items():
        half_open.append(sockets.cookie[sockets.state == State.SYN_RECV])
        udp = sockets.protocol == socket.IPPROTO_UDP
        connected = udp | (sockets.whole & ~np.isin(sockets.state, _NO_CONNECTION))
        direction = directions.of(sockets, ephemeral)[connected]
        direction[direction == directions.NO_PEER] = Direction.UNKNOWN
        listed.append((_attempts(sockets.where(connected), direction, inode), sockets.where(connected)))
    cut = [netlink.INTERRUPTED] if any(sockets.interrupted for _, sockets in listed) else []
    complete = [inode for inode, (sockets, _) in answers.by_inode.items() if not sockets.interrupted]
    return replace(
        _with_owners(listed, [*answers.missing, *cut], holders or Holders(), ownerless),
        complete=frozenset(complete),
        half_open=np.concatenate(half_open),
    )


def _attempts(sockets: Sockets, direction: npt.NDArray[np.uint8], inode: int) -> npt.NDArray[np.void]:
    attempts = np.zeros(len(sockets), ATTEMPT)
    for name in ("family", "local_port", "remote_port", "local_address", "remote_address"):
        attempts[name] = sockets.records[name]
    attempts["protocol"] = sockets.protocol
    attempts["rtos"] = np.ma.filled(sockets.info("total_rto").astype(np.uint32), NOT_COUNTED)
    attempts["rwnd_limited_ms"] = sockets.info("rwnd_limited").filled(0) // 1000
    attempts["mark"] = sockets.mark.filled(NOT_TOLD)
    attempts["interface"] = sockets.records["interface"]
    attempts["netns"], attempts["cookie"], attempts["direction"] = inode, sockets.cookie, direction
    attempts["bytes_sent"] = sequences.bytes_sent(sockets, direction == Direction.OUTGOING).filled(0)
    attempts["bytes_received"] = sockets.bytes_received.filled(0)
    attempts["srtt_us"] = sockets.rtt_us.filled(0)
    attempts["rtt_var_us"] = sockets.rtt_var_us.filled(0)
    attempts["min_rtt_us"] = sockets.info("min_rtt").filled(0)
    for ours, theirs in _COUNTERS.items():
        attempts[ours] = sockets.info(theirs).filled(0)
    return attempts


def _with_owners(
    listed: list[tuple[npt.NDArray[np.void], Sockets]],
    missing: list[Missing],
    holders: Holders,
    ownerless: Cookies | None,
) -> Snapshot:
    attempts = joined((part for part, _ in listed), ATTEMPT)
    records = joined((sockets.records for _, sockets in listed), sockdiag.MESSAGE)
    queues = joined((_queues(sockets) for _, sockets in listed), QUEUES)
    # A dump that was interrupted can list one twice.
    first = np.unique(attempts["cookie"], return_index=True)[1]
    attempts, records, queues = (chosen(part, first) for part in (attempts, records, queues))
    attempts["uid"] = records["uid"]
    running = holders.fill(attempts, records["inode"], ownerless)
    inodes = records["inode"].astype(np.uint64)
    return Snapshot(attempts, records["state"], inodes, running, missing, queues=queues)


def _queues(sockets: Sockets) -> npt.NDArray[np.void]:
    queues = np.empty(len(sockets), QUEUES)
    queues["receive_queue_bytes"] = sockets.receive_queue_bytes.filled(UNTOLD)
    queues["send_queue_bytes"] = sockets.send_queue_bytes.filled(UNTOLD)
    return queues
