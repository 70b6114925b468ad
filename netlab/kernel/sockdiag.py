"""The sockets of a network namespace as the kernel lists them, over sock_diag(7).

Source: include/uapi/linux/inet_diag.h and net/ipv4/inet_diag.c. What this kernel's struct tcp_info does not
reach is masked. No privilege is needed.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from netlab.kernel import keys, netlink, nlmessages
from netlab.kernel.tcpinfo import TCP_INFO

Records: TypeAlias = npt.NDArray[np.void]
Masked: TypeAlias = np.ma.MaskedArray[Any, Any]

_SOCK_DIAG = 4
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_INFO, _MARK = 2, 15  # INET_DIAG_INFO, INET_DIAG_MARK
_REQUEST = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2, with an empty socket id
_NAMES = {socket.IPPROTO_TCP: "TCP", socket.IPPROTO_UDP: "UDP"}  # and of kernel modules: tcp_diag
_EVERY_STATE = 0xFFF  # without TCPF_BOUND_INACTIVE: a port that is bound and not used is no connection


class State(IntEnum):
    """Socket states, include/net/tcp_states.h."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    TIME_WAIT = 6
    CLOSE = 7  # UDP: not connected
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


MESSAGE = np.dtype(  # struct inet_diag_msg
    [
        ("family", "u1"),
        ("state", "u1"),
        ("timer", "u1"),
        ("retrans", "u1"),
        ("local_port", ">u2"),
        ("remote_port", ">u2"),
        ("local_address", "u1", 16),
        ("remote_address", "u1", 16),
        ("interface", "u4"),
        ("cookie_low", "u4"),
        ("cookie_high", "u4"),
        ("expires", "u4"),
        ("rqueue", "u4"),
        ("wqueue", "u4"),
        ("uid", "u4"),
        ("inode", "u4"),
    ]
)

_UNMEASURED = 0xFFFFFFFF  # tcpi_min_rtt before the first sample
_FIN_RECEIVED = State.CLOSE_WAIT, State.LAST_ACK, State.CLOSING
_UNACKNOWLEDGED = State.SYN_SENT, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK  # a SYN or a FIN


@dataclass(frozen=True, slots=True)
class Sockets:
    """Sockets, one a row: the records of the dumps, and tcp_info as far as this kernel fills it."""

    protocol: npt.NDArray[np.uint8]  # IPPROTO_TCP or IPPROTO_UDP
    records: Records  # of dtype MESSAGE
    tcp_info: Records  # of dtype TCP_INFO, zero where nothing is known
    known: npt.NDArray[np.int64]  # bytes of tcp_info that are filled
    mark: Masked  # SO_MARK; the kernel tells it only with CAP_NET_ADMIN, and of no socket in TIME_WAIT
    interrupted: bool  # see nlmessages.Dump

    def __len__(self) -> int:
        return len(self.records)

    def where(self, keep: npt.NDArray[Any]) -> Sockets:
        """Return the sockets that *keep* (flags or places) selects."""
        return Sockets(
            self.protocol[keep],
            keys.chosen(self.records, keep),
            keys.chosen(self.tcp_info, keep),
            self.known[keep],
            self.mark[keep],
            self.interrupted,
        )

    @property
    def cookie(self) -> npt.NDArray[np.uint64]:
        """The socket cookies, as getsockopt(SO_COOKIE) gives them."""
        low, high = self.records["cookie_low"], self.records["cookie_high"]
        return low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)

    @property
    def family(self) -> npt.NDArray[np.uint8]:
        """4 or 6."""
        return np.where(self.records["family"] == socket.AF_INET, 4, 6).astype(np.uint8)

    @property
    def state(self) -> npt.NDArray[np.uint8]:
        """Numbers as in `State`."""
        state: npt.NDArray[np.uint8] = self.records["state"]
        return state

    @property
    def owned(self) -> npt.NDArray[np.bool_]:
        """Where a process holds the socket; not so in SYN-RECEIVED, TIME-WAIT, or after close(2)."""
        owned: npt.NDArray[np.bool_] = self.records["inode"] != 0
        return owned

    @property
    def whole(self) -> npt.NDArray[np.bool_]:
        """Where TCP has a socket, and not just its remains: those are in TIME-WAIT, or in FIN-WAIT-2."""
        whole: npt.NDArray[np.bool_] = self.known > 0
        return whole

    def info(self, field: str) -> Masked:
        """Return one field of tcp_info, masked where the kernel gave none.

        A listening socket's tcp_info says nothing about traffic, and is masked too.
        """
        absent = self.known < _end(field)
        return np.ma.array(self.tcp_info[field], mask=absent | (self.state == State.LISTEN))

    def lacks(self, field: str) -> npt.NDArray[np.bool_]:
        """Where the kernel gave tcp_info, and is too old for this field of it."""
        given, short = self.known > 0, self.known < _end(field)
        lacks: npt.NDArray[np.bool_] = given & short & (self.state != State.LISTEN)
        return lacks

    @property
    def bytes_sent(self) -> Masked:
        """Payload bytes sent, each once: tcpi_bytes_sent has the retransmitted ones again."""
        return self._signed("bytes_sent") - self._signed("bytes_retrans")

    @property
    def bytes_received(self) -> Masked:
        """Payload bytes received in order: tcpi_bytes_received has the peer's FIN as one byte (tcp_fin())."""
        fin = np.isin(self.state, _FIN_RECEIVED)
        return self._signed("bytes_received") - fin

    @property
    def receive_queue_bytes(self) -> Masked:
        """Payload that the process has not read yet; of UDP its memory. A FIN is a byte to the kernel."""
        queued = self.records["rqueue"].astype(np.int64)
        return self._queued(queued - (np.isin(self.state, _FIN_RECEIVED) & (queued > 0)))

    @property
    def send_queue_bytes(self) -> Masked:
        """Payload that the peer has not acknowledged yet; of UDP its memory. SYN and FIN are bytes, too."""
        queued = self.records["wqueue"].astype(np.int64)
        return self._queued(queued - (np.isin(self.state, _UNACKNOWLEDGED) & (queued > 0)))

    def _queued(self, values: npt.NDArray[np.int64]) -> Masked:
        """Return *values* but of what has no queue: a listening socket's are of connections."""
        is_tcp = self.protocol == socket.IPPROTO_TCP
        return np.ma.array(values, mask=is_tcp & (~self.whole | (self.state == State.LISTEN)))

    @property
    def rtt_us(self) -> Masked:
        """Smoothed round-trip time in microseconds, masked before the first sample."""
        return np.ma.masked_equal(self.info("rtt"), 0)

    @property
    def rtt_var_us(self) -> Masked:
        """Round-trip time variation in microseconds, masked before the first sample."""
        return np.ma.masked_where(np.ma.getmaskarray(self.rtt_us), self.info("rttvar"))

    @property
    def min_rtt_us(self) -> Masked:
        """Smallest round-trip time in microseconds, masked before the first sample."""
        return np.ma.masked_equal(self.info("min_rtt"), _UNMEASURED)

    def _signed(self, field: str) -> Masked:
        values = self.info(field)
        return np.ma.array(values.data.astype(np.int64), mask=values.mask)


def _end(field: str) -> int:
    """Return how long tcp_info has to be to have *field*."""
    dtype, offset = TCP_INFO.fields[field][:2]  # type: ignore[index]
    return int(offset + dtype.itemsize)


def tcp_sockets(*, without: Iterable[State] = ()) -> Sockets:
    """Return the TCP sockets of the calling thread's network namespace, with their tcp_info.

    Parameters
    ----------
    without
        Leave out sockets in these states: a busy server has tens of thousands in TIME_WAIT.
    """
    wanted = _EVERY_STATE
    for state in without:
        wanted &= ~(1 << state)
    return _sockets(socket.IPPROTO_TCP, wanted)


def udp_sockets() -> Sockets:
    """Return the UDP sockets of the calling thread's network namespace; they have no tcp_info."""
    return _sockets(socket.IPPROTO_UDP)


def joined(parts: Iterable[Sockets]) -> Sockets:
    """Put several tables below each other."""
    found = list(parts)
    return Sockets(
        np.concatenate([part.protocol for part in found]),
        keys.joined((part.records for part in found), MESSAGE),
        keys.joined((part.tcp_info for part in found), TCP_INFO),
        np.concatenate([part.known for part in found]),
        np.ma.array(
            np.concatenate([part.mark.data for part in found]),
            mask=np.concatenate([np.ma.getmaskarray(part.mark) for part in found]),
        ),
        any(part.interrupted for part in found),
    )


def _sockets(protocol: int, states: int = _EVERY_STATE) -> Sockets:
    families = (socket.AF_INET, socket.AF_INET6)
    tables = (table_of(protocol, dump(family, protocol, states, _INFO)) for family in families)
    found = joined(tables)
    places = latest(found)
    return found if len(places) == len(found) else found.where(places)


def latest(found: Sockets) -> npt.NDArray[np.intp]:
    """Return the places where each socket was listed last.

    The kernel goes on in a chain of its table behind as many as it has listed: where another one came in at
    the front meanwhile, one is listed again.
    """
    again = np.unique(found.cookie[::-1], return_index=True)[1]
    places: npt.NDArray[np.intp] = np.sort(len(found) - 1 - again)
    return places


def dump(family: int, protocol: int, states: int, extension: int) -> nlmessages.Dump:
    """Ask for the sockets in *states* (bits), each with one *extension* (INET_DIAG_*)."""
    name = _NAMES[protocol]
    request = _REQUEST.pack(family, protocol, 1 << (extension - 1), states, b"")
    doing, module = f"list {name} sockets", f"{name.lower()}_diag"
    return netlink.dump(_SOCK_DIAG, _BY_FAMILY, request, doing=doing, module=module)


def table_of(protocol: int, dump: nlmessages.Dump) -> Sockets:
    """Return the sockets of a dump."""
    tcp_info, known = np.zeros(len(dump), TCP_INFO), np.zeros(len(dump), np.int64)
    mark = np.ma.array(np.zeros(len(dump), np.uint32), mask=True)
    for group in dump.groups(MESSAGE.itemsize):
        records = group.prefix((_INFO,), TCP_INFO)
        if records is not None:
            keys.put(records, into=tcp_info, at=group.rows)
            known[group.rows] = group.length((_INFO,))
        marks = group.get((_MARK,), "u4")
        if marks is not None:
            mark[group.rows] = marks
    protocols = np.full(len(dump), protocol, np.uint8)
    return Sockets(protocols, dump.body(MESSAGE), tcp_info, known, mark, dump.interrupted)
