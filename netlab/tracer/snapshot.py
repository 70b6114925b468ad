"""The open TCP sockets of every network namespace, listed by sock_diag, as attempt records with owners."""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netlab.frames import Missing
from netlab.kernel import netlink, processes, sockdiag, spaces
from netlab.kernel.processes import Process
from netlab.kernel.sockdiag import Sockets, State
from netlab.tracer.layout import ATTEMPT, NOT_COUNTED, Direction, PidSource
from netlab.tracer.sockets import directions, ephemeral_ports

# Not sockets any more, or not yet: struct inet_timewait_sock and struct request_sock.
_NO_SOCKETS = (State.TIME_WAIT, State.SYN_RECV)

# What directions() answers: incoming, outgoing, unknown, and sockets without a peer.
_DIRECTIONS = np.array(
    [Direction.INCOMING, Direction.OUTGOING, Direction.UNKNOWN, Direction.UNKNOWN], np.uint8
)

_COUNTERS = {
    "packets_sent": "segs_out",
    "packets_received": "segs_in",
    "retransmits": "total_retrans",
    "cwnd": "snd_cwnd",
    "out_of_order": "rcv_ooopack",
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Sockets listed at one moment: attempt records, TCP states, inodes, and the owners."""

    attempts: npt.NDArray[np.void]
    states: npt.NDArray[np.uint8]
    inodes: npt.NDArray[np.uint64]
    owners: dict[int, Process]
    missing: list[Missing]

    @classmethod
    def empty(cls) -> Snapshot:
        """Return a snapshot without sockets."""
        return cls(np.empty(0, ATTEMPT), np.empty(0, np.uint8), np.empty(0, np.uint64), {}, [])


def take(only: Collection[int] | None = None) -> Snapshot:
    """List the TCP sockets of every namespace, or of those whose inodes are in *only*."""
    answers = spaces.ask(spaces.ALL, _sockets_here, only=only)
    listed = []
    for inode, (sockets, ephemeral) in answers.by_inode.items():
        connected = sockets.records["state"] != State.LISTEN
        direction = _DIRECTIONS[directions(sockets, ephemeral)[connected]]
        listed.append((_attempts(sockets.where(connected), direction, inode), sockets.where(connected)))
    cut = [netlink.INTERRUPTED] if any(sockets.interrupted for _, sockets in listed) else []
    return _with_owners(listed, [*answers.missing, *cut])


def _sockets_here() -> tuple[Sockets, range]:
    return sockdiag.tcp_sockets(without=_NO_SOCKETS), ephemeral_ports()


def _attempts(sockets: Sockets, direction: npt.NDArray[np.uint8], inode: int) -> npt.NDArray[np.void]:
    attempts = np.zeros(len(sockets), ATTEMPT)
    for name in ("family", "local_port", "remote_port", "local_address", "remote_address"):
        attempts[name] = sockets.records[name]
    attempts["protocol"] = socket.IPPROTO_TCP
    attempts["rtos"] = np.ma.filled(sockets.info("total_rto").astype(np.uint32), NOT_COUNTED)
    attempts["rwnd_limited_us"] = sockets.info("rwnd_limited").filled(0)
    attempts["netns"], attempts["cookie"], attempts["direction"] = inode, sockets.cookie, direction
    attempts["bytes_sent"] = sockets.bytes_sent.filled(0)
    attempts["bytes_received"] = sockets.bytes_received.filled(0)
    attempts["srtt_us"] = sockets.rtt_us.filled(0)
    attempts["rtt_var_us"] = sockets.rtt_var_us.filled(0)
    attempts["min_rtt_us"] = sockets.info("min_rtt").filled(0)
    for ours, theirs in _COUNTERS.items():
        attempts[ours] = sockets.info(theirs).filled(0)
    return attempts


def _with_owners(listed: list[tuple[npt.NDArray[np.void], Sockets]], missing: list[Missing]) -> Snapshot:
    attempts = np.concatenate([np.empty(0, ATTEMPT), *(part for part, _ in listed)])
    records = np.concatenate([np.empty(0, sockdiag.MESSAGE), *(sockets.records for _, sockets in listed)])
    owners = processes.owners()
    pids = owners.of(records["inode"])
    owned = ~np.ma.getmaskarray(pids)
    running = processes.describe(set(pids.compressed().tolist()))
    names = {pid: process.name.encode()[:15] for pid, process in running.items()}
    attempts["pid"] = pids.filled(0)
    attempts["uid"] = records["uid"]
    attempts["process"] = [names.get(pid, b"") for pid in attempts["pid"].tolist()]
    attempts["pid_source"] = np.where(owned, PidSource.SOCKET, PidSource.NONE)
    first = np.unique(attempts["cookie"], return_index=True)[
        1
    ]  # a dump that was interrupted can list one twice
    return Snapshot(
        attempts[first], records["state"][first], records["inode"][first].astype(np.uint64), running, missing
    )
