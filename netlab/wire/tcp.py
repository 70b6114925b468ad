"""TCP headers (RFC 9293), whole and as the eight bytes that an ICMP error quotes."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from netlab.errors import DecodeError
from netlab.wire import checksum, ip

_HEADER = struct.Struct("!HHIIBBHHH")
_START = struct.Struct("!HHI")

END, NO_OPERATION, MSS, SACK_PERMITTED, SACK, TIMESTAMPS = 0, 1, 2, 4, 5, 8  # kinds of option


class Flags(enum.IntFlag):
    """The control bits."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class TCP:
    """A TCP header."""

    source_port: int
    destination_port: int
    sequence: int
    acknowledgment: int
    flags: Flags
    window: int
    urgent: int = 0
    options: bytes = b""

    def encode(self, source: bytes, destination: bytes, payload: bytes = b"") -> bytes:
        """Return the segment between two packed addresses; options must be a multiple of four bytes."""
        length = _HEADER.size + len(self.options)
        before = (
            self.source_port,
            self.destination_port,
            self.sequence,
            self.acknowledgment,
            length // 4 << 4,
            self.flags,
            self.window,
        )
        blank = _HEADER.pack(*before, 0, self.urgent) + self.options + payload
        value = checksum.transport(source, destination, ip.TCP, blank)
        return _HEADER.pack(*before, value, self.urgent) + self.options + payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first eight bytes of a segment: all that RFC 792 promises of it in a quote."""

    source_port: int
    destination_port: int
    sequence: int


def decode(data: bytes) -> tuple[TCP, bytes]:
    """Return the header at the start of *data* and the payload.

    Raises DecodeError if *data* ends inside the header.
    """
    if len(data) < _HEADER.size:
        raise DecodeError(f"TCP header cut off after {len(data)} bytes")
    source_port, destination_port, sequence, acknowledgment, *rest = _HEADER.unpack_from(data)
    offset, flags, window, _, urgent = rest
    length = (offset >> 4) * 4
    if not _HEADER.size <= length <= len(data):
        raise DecodeError(f"TCP header length {length} does not fit in {len(data)} bytes")
    header = TCP(
        source_port=source_port,
        destination_port=destination_port,
        sequence=sequence,
        acknowledgment=acknowledgment,
        flags=Flags(flags),
        window=window,
        urgent=urgent,
        options=data[_HEADER.size : length],
    )
    return header, data[length:]


def encode_options(*options: tuple[int, bytes]) -> bytes:
    """Return options, given as (kind, value), padded to whole words; raises ValueError above 40 bytes."""
    packed = b"".join(bytes([kind, 2 + len(value)]) + value for kind, value in options)
    if len(packed) > 40:
        raise ValueError(f"{len(packed)} bytes of TCP options do not fit")
    return bytes([NO_OPERATION]) * (-len(packed) % 4) + packed


def decode_options(data: bytes) -> dict[int, bytes]:
    """Return the value of each option in *data* by kind; one that is cut off ends the list."""
    found: dict[int, bytes] = {}
    place = 0
    while place < len(data) and data[place] != END:
        if data[place] == NO_OPERATION:
            place += 1
            continue
        length = data[place + 1] if place + 1 < len(data) else 0
        if length < 2 or place + length > len(data):
            break
        found[data[place]] = data[place + 2 : place + length]
        place += length
    return found


def encode_sack(blocks: Iterable[tuple[int, int]]) -> bytes:
    """Return the value of a SACK option (RFC 2018): the first byte of each block and the one after it."""
    return b"".join(struct.pack("!II", *block) for block in blocks)


def decode_start(data: bytes) -> Start:
    """Return what the first eight bytes say; raises DecodeError if there are fewer."""
    if len(data) < _START.size:
        raise DecodeError(f"TCP header cut off after {len(data)} bytes")
    source_port, destination_port, sequence = _START.unpack_from(data)
    return Start(source_port=source_port, destination_port=destination_port, sequence=sequence)
