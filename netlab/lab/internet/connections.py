"""The TCP (RFC 9293) of a simulated host: it accepts, acknowledges, and sends nothing of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from netlab.wire import tcp
from netlab.wire.tcp import Flags

_MODULUS = 2**32
_WINDOW = 65535
_MSS = (1460).to_bytes(2, "big")


@dataclass(slots=True)
class _Connection:
    """The receiving half: what is expected next, and what came ahead of that, newest first (RFC 2018)."""

    isn: int
    first: int  # the peer's initial sequence number
    expected: int
    permits_sack: bool
    is_half_open: bool = True  # the peer has not acknowledged yet
    ahead: list[tuple[int, int]] = field(default_factory=list)


class Connections:
    """All connections of one host, by whatever tells them apart."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Connection] = {}

    def answer(self, key: bytes, segment: tcp.TCP, payload: bytes, *, sack: bool) -> tcp.TCP | None:
        """Return what a listening port answers to *segment*, or None where that is nothing."""
        connection = self._open.get(key)
        if segment.flags & Flags.RST:
            if connection and segment.sequence == connection.expected:
                del self._open[key]
            return None
        if segment.flags & Flags.SYN:
            return self._opened(key, connection, segment, sack=sack)
        if connection is None:
            return reset(segment, payload)
        connection.is_half_open = False
        if payload or segment.flags & Flags.FIN:
            return self._taken(key, connection, segment, len(payload))
        return None

    def _opened(
        self, key: bytes, connection: _Connection | None, segment: tcp.TCP, *, sack: bool
    ) -> tcp.TCP | None:
        if segment.flags & Flags.ACK:
            return None
        if connection is not None and connection.first != segment.sequence:
            ahead = (segment.sequence - connection.expected) % _MODULUS
            if connection.is_half_open and ahead < _WINDOW:
                del self._open[key]  # as Linux does: tcp_check_req() in net/ipv4/tcp_minisocks.c
                return reset(segment)
            return _acknowledging(segment, connection)  # a challenge (RFC 9293 section 3.10.7.4)
        permits = sack and tcp.SACK_PERMITTED in tcp.decode_options(segment.options)
        if connection is None:
            isn = int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big")
            expected = (segment.sequence + 1) % _MODULUS
            connection = self._open[key] = _Connection(isn, segment.sequence, expected, permits)
        options = [(tcp.MSS, _MSS), *([(tcp.SACK_PERMITTED, b"")] if permits else [])]
        return _reply(
            segment,
            Flags.SYN | Flags.ACK,
            sequence=connection.isn,
            acknowledgment=(segment.sequence + 1) % _MODULUS,
            options=tcp.encode_options(*options),
        )

    def _taken(self, key: bytes, connection: _Connection, segment: tcp.TCP, size: int) -> tcp.TCP:
        begin = (segment.sequence - connection.expected) % _MODULUS
        late = begin >= _MODULUS // 2
        if begin == 0:
            _advance(connection, size)
            if segment.flags & Flags.FIN and connection.expected == (segment.sequence + size) % _MODULUS:
                connection.expected = (connection.expected + 1) % _MODULUS
                del self._open[key]
                return _acknowledging(segment, connection, Flags.ACK | Flags.FIN)
        elif not late and size:
            _keep(connection, (segment.sequence, (segment.sequence + size) % _MODULUS))
        return _acknowledging(segment, connection)


def _advance(connection: _Connection, size: int) -> None:
    """Take *size* expected bytes, and what had come ahead of them."""
    connection.expected = (connection.expected + size) % _MODULUS
    while joined := [b for b in connection.ahead if _within(connection.expected, b)]:
        connection.expected = joined[0][1]
        connection.ahead.remove(joined[0])


def _keep(connection: _Connection, block: tuple[int, int]) -> None:
    """Keep a block that came early, joined with those it touches, in front of the others."""
    while touching := [b for b in connection.ahead if _within(b[0], block) or _within(block[0], b)]:
        other = touching[0]
        connection.ahead.remove(other)
        begin = block[0] if _within(other[0], block) else other[0]
        end = max((block[1] - begin) % _MODULUS, (other[1] - begin) % _MODULUS)
        block = (begin, (begin + end) % _MODULUS)
    connection.ahead.insert(0, block)


def _within(number: int, block: tuple[int, int]) -> bool:
    """Return whether *number* is in the block or right after it."""
    return (number - block[0]) % _MODULUS <= (block[1] - block[0]) % _MODULUS


def _acknowledging(segment: tcp.TCP, connection: _Connection, flags: Flags = Flags.ACK) -> tcp.TCP:
    blocks = connection.ahead[:4] if connection.permits_sack else []
    options = tcp.encode_options((tcp.SACK, tcp.encode_sack(blocks))) if blocks else b""
    return _reply(
        segment,
        flags,
        sequence=(connection.isn + 1) % _MODULUS,
        acknowledgment=connection.expected,
        options=options,
    )


def reset(segment: tcp.TCP, payload: bytes = b"", *, bare: bool = False) -> tcp.TCP | None:
    """Return what a closed port answers (RFC 9293 section 3.10.7.1), *bare* without the acknowledgment."""
    if segment.flags & Flags.RST:
        return None
    if segment.flags & Flags.ACK:
        return _reply(segment, Flags.RST, sequence=segment.acknowledgment, acknowledgment=0)
    length = len(payload) + bool(segment.flags & Flags.SYN) + bool(segment.flags & Flags.FIN)
    if bare:
        return _reply(segment, Flags.RST, sequence=0, acknowledgment=0)
    acknowledged = (segment.sequence + length) % _MODULUS
    return _reply(segment, Flags.RST | Flags.ACK, sequence=0, acknowledgment=acknowledged)


def _reply(
    segment: tcp.TCP, flags: Flags, *, sequence: int, acknowledgment: int, options: bytes = b""
) -> tcp.TCP:
    return tcp.TCP(
        source_port=segment.destination_port,
        destination_port=segment.source_port,
        sequence=sequence,
        acknowledgment=acknowledgment,
        flags=flags,
        window=0 if flags & Flags.RST else _WINDOW,
        options=options,
    )
