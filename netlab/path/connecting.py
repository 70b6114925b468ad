"""A flow of SYNs by connect(2), one attempt at a time.

An ICMP error about a SYN ends the attempt, and since Linux 6.2 the error queue says who sent it
(tcp_v4_err() in net/ipv4/tcp_ipv4.c). All attempts go from one port to one port, so that load balancers send
them one way; that is why there is never more than one. The kernel numbers the SYNs and drops what is about
another than the one under way, so an answer is never taken for a later probe's.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from netlab.errors import CapabilityError
from netlab.kernel import capabilities
from netlab.kernel.tcpinfo import TCP_INFO
from netlab.path.crowding import Crowding
from netlab.path.errorqueue import ErrorQueue
from netlab.path.kinds import SynFlow
from netlab.path.lines import set_ttl
from netlab.path.plain import PlainStation, connect
from netlab.path.quotes import Quoted
from netlab.path.state import RST, SYN_ACK, Answer

if TYPE_CHECKING:
    from netlab.path.unprivileged import PlainOutlet

# The kernel sends a SYN again after a second (RFC 6298 section 2), and an answer could then be to either.
LONGEST_NS = 900 * 10**6

_SINCE = (6, 2)
_SYN_SENT, _CLOSE = 2, 7  # include/net/tcp_states.h
_REDUCED = 2  # TCP_CA_CWR, while connecting: the local queue dropped the SYN (__tcp_transmit_skb())
_ABORT = struct.pack("=ii", 1, 0)  # struct linger: close() sends a reset, and nothing stays behind


@dataclass(frozen=True, slots=True)
class _Attempt:
    mark: int
    sock: socket.socket
    queue: ErrorQueue
    wall_ns: int


class SynLine:
    """The attempts of one flow; a probe that is sent ends the one before.

    `unreadable` counts errors that are not about it; `dropped` is 0, as no answer waits behind another.

    Raises
    ------
    CapabilityError
        Before Linux 6.2, which does not tell a TCP socket who sent an error.
    """

    dropped = 0
    has_answers = False

    def __init__(self, station: PlainStation, outlet: PlainOutlet, source: bytes, flow: SynFlow) -> None:
        if capabilities.kernel_version() < _SINCE:
            raise CapabilityError(
                "traceroute cannot probe with tcp: this process lacks CAP_NET_RAW, and this kernel is older "
                "than 6.2",
                fix=f"Use protocol='udp', or: {capabilities.grant(['CAP_NET_RAW'])}",
            )
        self.unreadable = 0
        self.strangers: Counter[str] = Counter()  # none: the kernel tells of none
        self.crowding = Crowding()
        self.flow = flow
        self._station = station
        self._outlet = outlet
        self._source = source
        self._attempt: _Attempt | None = None

    @property
    def held(self) -> int:
        """How many SYNs had to wait for this host's own queue."""
        return self.crowding.held

    def close(self) -> None:
        """End the attempt that is under way; doing it again does nothing."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            with attempt.sock:
                self._station.unwatch(attempt.sock)

    def send(self, ttl: int, mark: int) -> int:
        """Send a SYN instead of the one before; return the wall-clock time just before it left.

        Raises
        ------
        OSError
            If the kernel does not let it out.
        """
        self.close()
        self._attempt = attempt = self.crowding.sent(lambda: self._connecting(ttl, mark))
        self._station.watch(attempt.sock, self._outlet, self, selectors.EVENT_READ | selectors.EVENT_WRITE)
        return attempt.wall_ns

    def _connecting(self, ttl: int, mark: int) -> _Attempt:
        target = self._outlet.target
        with ExitStack() as opened:
            sock = opened.enter_context(self._station.open(target.family))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            set_ttl(sock, ttl)
            self._station.bind(sock, target, self._source, self.flow.number)
            queue = ErrorQueue(sock)
            now = time.time_ns()
            code = connect(sock, target, self.flow.port, self.flow)
            if code == errno.EINPROGRESS and _tcp_info(sock)["ca_state"] == _REDUCED:
                code = errno.ENOBUFS  # connect() itself does not tell
            if code not in {0, errno.EINPROGRESS}:
                raise OSError(code, os.strerror(code))
            opened.pop_all()
        return _Attempt(mark, sock, queue, now)

    def answers(self) -> list[Answer]:
        """Return the answer to the SYN that is under way, if it has come."""
        if self._attempt is None:
            return []
        answer = self._reported(self._attempt) or self._answered(self._attempt)
        if answer is not None or _state(self._attempt.sock) != _SYN_SENT:
            self.close()  # also if it failed in a way that tells nothing
        return [] if answer is None else [answer]

    def _reported(self, attempt: _Attempt) -> Answer | None:
        for reported in attempt.queue.errors():
            if reported.quoted[:4] == self.flow.key:
                return Answer(
                    flow=self.flow.number,
                    mark=attempt.mark,
                    address=reported.address,
                    reply=reported.error.value,
                    ttl=reported.heard.ttl,
                    stamp_ns=reported.heard.stamp_ns,
                    received_ns=reported.heard.received_ns,
                    quoted=Quoted(labels=reported.labels),
                    turned_back=self.flow.is_turned_back(reported.error.value, reported.address),
                )
            self.unreadable += 1
        return None

    def _answered(self, attempt: _Attempt) -> Answer | None:
        """Return what the target itself said."""
        received_ns = time.monotonic_ns()
        code = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        info = _tcp_info(attempt.sock)
        stamp_ns = None
        if code == errno.ECONNREFUSED:
            reply = RST
        elif code == errno.ECONNRESET or info["state"] not in {_SYN_SENT, _CLOSE}:
            reply = SYN_ACK
            # The kernel has measured this handshake and nothing else.
            stamp_ns = attempt.wall_ns + 1000 * int(info["rtt"]) if info["rtt"] else None
        else:
            return None
        return Answer(
            flow=self.flow.number,
            mark=attempt.mark,
            address=self._outlet.target.address,
            reply=reply,
            ttl=None,
            stamp_ns=stamp_ns,
            received_ns=received_ns,
        )


def _tcp_info(sock: socket.socket) -> np.void:
    told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.itemsize)
    info: np.void = np.frombuffer(told.ljust(TCP_INFO.itemsize, bytes(1)), TCP_INFO)[0]
    return info


def _state(sock: socket.socket) -> int:
    return int(_tcp_info(sock)["state"])
