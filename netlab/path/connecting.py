"""The engine's seam for TCP without CAP_NET_RAW: connect(2), one attempt at a time.

An ICMP error about a SYN ends the attempt, and since Linux 6.2 the error queue says who sent it
(tcp_v4_err() in net/ipv4/tcp_ipv4.c). All attempts go from one port to one port, so that load balancers send
them one way; that is why there is never more than one. The kernel numbers the SYNs and drops what is about
another than the one under way, so an answer is never taken for a later probe's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from dataclasses import dataclass

import numpy as np

from netlab.errors import CapabilityError
from netlab.kernel import capabilities
from netlab.kernel.netns import NetNs, entered
from netlab.kernel.sockdiag import TCP_INFO
from netlab.path.errorqueue import ErrorQueue
from netlab.path.kinds import SynFlow
from netlab.path.lines import set_ttl
from netlab.path.state import RST, SYN_ACK, Answer
from netlab.path.target import FAMILIES, Target
from netlab.path.unprivileged import bind, labelled, unsent

# The kernel sends a SYN again after a second (RFC 6298 section 2), and an answer could then be to either.
LONGEST_NS = 900 * 10**6

_SINCE = (6, 2)
_SYN_SENT, _CLOSE = 2, 7  # include/net/tcp_states.h
_ABORT = struct.pack("=ii", 1, 0)  # struct linger: close() sends a reset, and nothing stays behind


@dataclass(slots=True)
class _Attempt:
    flow: SynFlow
    mark: int
    sock: socket.socket
    queue: ErrorQueue
    wall_ns: int
    refused: bool  # connect() itself said so


class ConnectChannel(contextlib.AbstractContextManager["ConnectChannel"]):
    """SYNs to one target by connect(2), as `netlab.path.engine.Channel`, for `netlab.path.alone` to drive.

    A probe that is sent ends the one before. `dropped` is 0: no answer waits behind another.

    Parameters
    ----------
    source_port
        The source port of flow 0, which flow n comes n after; None for ports that the kernel picks.

    Raises
    ------
    ProbeError
        If the source port is taken.
    CapabilityError
        Before Linux 6.2, which does not tell a TCP socket who sent an error.
    """

    dropped = 0

    def __init__(
        self,
        target: Target,
        source: bytes,
        *,
        port: int,
        source_port: int | None = None,
        netns: NetNs = None,
    ) -> None:
        if capabilities.kernel_version() < _SINCE:
            raise CapabilityError(
                "traceroute cannot probe with tcp: this process lacks CAP_NET_RAW, and this kernel is older "
                "than 6.2",
                fix=f"Use protocol='udp', or: {capabilities.grant(['CAP_NET_RAW'])}",
            )
        self.unreadable = 0
        self._target = target
        self._source = source
        self._port = port
        self._source_port = source_port
        self._netns = netns
        self._flows: dict[int, SynFlow] = {}
        self._attempt: _Attempt | None = None
        with contextlib.ExitStack() as resources:
            self._resources = resources
            self._flow(0)
            self._resources = resources.pop_all()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the attempt that is under way; doing it again does nothing."""
        self._end()
        self._resources.close()

    @property
    def ports(self) -> dict[int, tuple[int | None, int | None]]:
        """The source and destination port of each flow that was probed."""
        return {number: flow.ports for number, flow in self._flows.items()}

    def now_ns(self) -> int:
        """Return the monotonic time."""
        return time.monotonic_ns()

    def send(self, flow: int, ttl: int, mark: int) -> int:
        """Send a SYN instead of the one before; return the wall-clock time just before it left.

        Raises
        ------
        ProbeError
            If the kernel does not let it out, because there is no route.
        """
        self._end()
        of = self._flow(flow)
        with contextlib.ExitStack() as opened:
            sock = opened.enter_context(self._socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            set_ttl(sock, ttl)
            bind(sock, self._target, self._source, of.source_port)
            to, queue = labelled(sock, self._target, self._port, of), ErrorQueue(sock)
            now = time.time_ns()
            code = sock.connect_ex(to)
            if code not in {0, errno.EINPROGRESS, errno.ECONNREFUSED}:
                raise unsent(self._target, OSError(code, os.strerror(code)))
            opened.pop_all()
        self._attempt = _Attempt(of, mark, sock, queue, now, refused=code == errno.ECONNREFUSED)
        return now

    def receive(self, wait_ns: int) -> list[Answer]:
        """Return the answer if it is there, waiting up to *wait_ns* for it."""
        attempt = self._attempt
        if attempt is None:
            time.sleep(wait_ns / 10**9)
            return []
        ready = select.poll()
        ready.register(attempt.sock, select.POLLIN | select.POLLOUT)
        if not attempt.refused and not ready.poll(wait_ns / 10**6):
            return []
        answer = self._reported(attempt) or _answered(attempt, self._target.address)
        if answer is None and not _is_asking(attempt.sock):
            self._end()  # it failed in a way that tells nothing, and would be ready for ever
        if answer is None:
            return []
        self._end()
        return [answer]

    def _reported(self, attempt: _Attempt) -> Answer | None:
        for reported in attempt.queue.errors():
            if reported.quoted[:4] == attempt.flow.key:
                return Answer(
                    flow=attempt.flow.number,
                    mark=attempt.mark,
                    address=reported.address,
                    reply=reported.error.value,
                    ttl=reported.heard.ttl,
                    stamp_ns=reported.heard.stamp_ns,
                    received_ns=reported.heard.received_ns,
                )
            self.unreadable += 1
        return None

    def _end(self) -> None:
        if self._attempt is not None:
            self._attempt.sock.close()
            self._attempt = None

    def _flow(self, number: int) -> SynFlow:
        known = self._flows.get(number)
        if known is not None:
            return known
        holder = self._resources.enter_context(self._socket())
        bind(
            holder,
            self._target,
            self._source,
            None if self._source_port is None else self._source_port + number,
        )
        # Only now: the port is nobody else's, and the attempts from it may share it.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        flow = SynFlow(
            number=number,
            source=self._source,
            target=self._target.packed,
            salt=0,
            source_port=holder.getsockname()[1],
            port=self._port,
        )
        self._flows[number] = flow
        return flow

    def _socket(self) -> socket.socket:
        with entered(self._netns):
            return socket.socket(FAMILIES[self._target.family], socket.SOCK_STREAM)


def _answered(attempt: _Attempt, address: str) -> Answer | None:
    """Return what the target itself said."""
    received_ns = time.monotonic_ns()
    code = (
        errno.ECONNREFUSED if attempt.refused else attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    )
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
        flow=attempt.flow.number,
        mark=attempt.mark,
        address=address,
        reply=reply,
        ttl=None,
        stamp_ns=stamp_ns,
        received_ns=received_ns,
    )


def _is_asking(sock: socket.socket) -> bool:
    return bool(_tcp_info(sock)["state"] == _SYN_SENT)


def _tcp_info(sock: socket.socket) -> np.void:
    told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.itemsize)
    info: np.void = np.frombuffer(told.ljust(TCP_INFO.itemsize, bytes(1)), TCP_INFO)[0]
    return info
