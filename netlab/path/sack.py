"""Probes within a TCP connection: data out of order, whose arrival selective acknowledgments tell (RFC 2018).

Firewalls and load balancers that treat lone SYNs in their own way see packets of a connection that exists.
The kernel makes it and knows nothing of the probes: one byte each, from behind the one that the target
expects next, so that none is ever delivered. The target may tell of several arrivals at once: Linux holds
acknowledgments back for up to a millisecond (net.ipv4.tcp_comp_sack_delay_ns), which is in the time then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import ClassVar

from netlab.errors import DecodeError, ProbeError
from netlab.path.kinds import PortFlow
from netlab.path.listening import Ear
from netlab.path.probes import identification
from netlab.path.state import RST, SACK
from netlab.path.target import Target
from netlab.wire import icmp, ip, tcp

MARKS = 14_000  # within the ten segments that even a small window has (RFC 6928)
ARRIVALS = 100  # Linux forgets data out of order when its buffer is full: each piece takes room for a segment

_WINDOW = 502
_EDGE = struct.Struct("!I")
_TIMESTAMPS = struct.Struct("!II")
# The target takes no segment whose timestamp is older than the newest in order (RFC 7323 section 5.3), and
# the kernel's own acknowledgments go on: a minute ahead of them is never older.
_AHEAD_MS = 60_000
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class NoSackError(ProbeError):
    """The target takes no connection, or none with selective acknowledgments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SackFlow(PortFlow):
    """Data of a connection. `sequence` and `acknowledgment` are what each side expects next.

    `timestamps` is the option that the target wants in every segment, if it does (RFC 7323).
    """

    sequence: int
    acknowledgment: int
    timestamps: bytes
    numbers: ClassVar = {4: ip.TCP, 6: ip.TCP}
    acknowledges_many: ClassVar = True

    @property
    def hidden(self) -> bytes:
        """Nothing that a NAT would leave alone."""
        return self.key

    @staticmethod
    def hidden_in(transport: bytes) -> bytes:
        """Return the ports."""
        return transport[:4]

    def _transport(self, mark: int, padding_bytes: int) -> bytes:
        return tcp.TCP(
            source_port=self.source_port,
            destination_port=self.port,
            sequence=(self.sequence + mark) % 2**32,
            acknowledgment=self.acknowledgment,
            flags=tcp.Flags.ACK | tcp.Flags.PSH,
            window=_WINDOW,
            options=self.timestamps,
        ).encode(self.source, self.target, bytes(1 + padding_bytes))

    def claims(self, quote: icmp.Quote) -> tuple[int, ...]:
        """Return what the sequence number and the identification show."""
        mark = self._mark(tcp.decode_start(quote.transport).sequence)
        return (mark, *identification(quote)) if 1 <= mark <= MARKS else ()

    def _mark(self, sequence: int) -> int:
        return (sequence - self.sequence) % 2**32

    def answer(self, data: bytes) -> tuple[str, tuple[int, ...]] | None:
        """Return what a segment says: all the bytes in its blocks have arrived."""
        header, _ = tcp.decode(data)
        if header.flags & tcp.Flags.RST:
            return RST, ()
        blocks = tcp.decode_options(header.options).get(tcp.SACK, b"")
        edges = [self._mark(edge) for (edge,) in _EDGE.iter_unpack(blocks[: len(blocks) // 8 * 8])]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        marks = [m for left, right in pairs if 1 <= left < right <= MARKS + 1 for m in range(left, right)]
        return (SACK, tuple(marks)) if marks else None


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the SYN-ACK of a connection says; see `SackFlow`."""

    sequence: int
    acknowledgment: int
    timestamps: bytes


def connect(sock: socket.socket, target: Target, port: int, ear: Ear, *, timeout_s: float) -> Handshake:
    """Connect *sock*, which is bound, and return what *ear* heard of it; closing resets the connection.

    Raises
    ------
    NoSackError
        If there is no connection, or one without selective acknowledgments.
    """
    where = f"port {port} of {target.name}"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.settimeout(timeout_s)
    try:
        sock.connect(target.sockaddr(port))
    except TimeoutError as error:
        raise NoSackError(f"{where} did not accept a connection within {timeout_s:g} s") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise NoSackError(f"{where} did not accept a connection: {reason}") from error
    own_port = sock.getsockname()[1]
    with contextlib.suppress(DecodeError):
        for heard in ear.heard():
            header, _ = tcp.decode(heard.data)
            ports = header.source_port, header.destination_port
            opens = header.flags & (tcp.Flags.SYN | tcp.Flags.ACK) == tcp.Flags.SYN | tcp.Flags.ACK
            if heard.address == target.address and ports == (port, own_port) and opens:
                return _handshake(header, where)
    raise NoSackError(f"the SYN-ACK of {where} was not seen")


def _handshake(header: tcp.TCP, where: str) -> Handshake:
    options = tcp.decode_options(header.options)
    if tcp.SACK_PERMITTED not in options:
        raise NoSackError(f"{where} does not permit selective acknowledgments")
    stamps = options.get(tcp.TIMESTAMPS, b"")
    ours = b""
    if len(stamps) == _TIMESTAMPS.size:
        theirs, echoed = _TIMESTAMPS.unpack(stamps)
        ours = tcp.encode_options((tcp.TIMESTAMPS, _TIMESTAMPS.pack((echoed + _AHEAD_MS) % 2**32, theirs)))
    return Handshake(header.acknowledgment, (header.sequence + 1) % 2**32, ours)
