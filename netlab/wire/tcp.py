"""TCP headers (RFC 9293), whole and as the eight bytes that an ICMP error quotes."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from netlab.errors import DecodeError
from netlab.wire import checksum, ip

_HEADER = struct.Struct("!HHIIBBHHH")
_START = struct.Struct("!HHI")


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


def decode_start(data: bytes) -> Start:
    """Return what the first eight bytes say; raises DecodeError if there are fewer."""
    if len(data) < _START.size:
        raise DecodeError(f"TCP header cut off after {len(data)} bytes")
    source_port, destination_port, sequence = _START.unpack_from(data)
    return Start(source_port=source_port, destination_port=destination_port, sequence=sequence)
