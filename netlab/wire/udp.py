"""UDP (RFC 768), and payloads chosen so that the checksum carries a number."""

from __future__ import annotations

import struct
from typing import NamedTuple

from netlab.errors import DecodeError
from netlab.wire import checksum, ip

_HEADER = struct.Struct("!HHHH")
HEADER = _HEADER.size
_MARK = struct.Struct("!HH")
MARKED = _MARK.size  # bytes of a marked payload before its trailer


class UDP(NamedTuple):
    """A UDP header."""

    source_port: int
    destination_port: int
    length: int
    checksum: int


def encode(source: bytes, destination: bytes, ports: tuple[int, int], payload: bytes) -> bytes:
    """Return the datagram between two packed addresses, from and to *ports*."""
    length = _HEADER.size + len(payload)
    blank = _HEADER.pack(*ports, length, 0) + payload
    # A computed 0 is sent as 0xFFFF, because 0 means "no checksum" (RFC 768) and is illegal in IPv6.
    value = checksum.transport(source, destination, ip.UDP, blank) or 0xFFFF
    return _HEADER.pack(*ports, length, value) + payload


def decode(data: bytes) -> tuple[UDP, bytes]:
    """Return the header at the start of *data* and as much of the payload as is there.

    Raises DecodeError if *data* ends inside the header.
    """
    if len(data) < _HEADER.size:
        raise DecodeError(f"UDP header cut off after {len(data)} bytes")
    source_port, destination_port, length, value = _HEADER.unpack_from(data)
    header = UDP(source_port=source_port, destination_port=destination_port, length=length, checksum=value)
    return header, data[_HEADER.size : max(length, _HEADER.size)]


def encode_marked(
    source: bytes, destination: bytes, ports: tuple[int, int], mark: int, trailer: bytes = b""
) -> bytes:
    """Return a datagram that carries *mark* (1 to 0xFFFE) as its checksum and at the start of its payload.

    The two bytes after it make up for it, as in Paris traceroute (Augustin et al., IMC 2006): the
    fields that routers balance by stay the same for every mark, and an ICMP error that quotes only eight
    bytes still tells which datagram it is about. *trailer* is the rest of the payload.
    """
    length = _HEADER.size + MARKED + len(trailer)
    pseudo = checksum.pseudo_header(source, destination, ip.UDP, length)
    blank = _HEADER.pack(*ports, length, 0) + _MARK.pack(mark, 0) + trailer
    payload = _MARK.pack(mark, checksum.word_for(mark, pseudo + blank)) + trailer
    return _HEADER.pack(*ports, length, mark) + payload


def mark(payload: bytes) -> tuple[int, ...]:
    """Return the mark at the start of *payload*, or nothing if it is cut off."""
    return _MARK.unpack_from(payload)[:1] if len(payload) >= _MARK.size else ()
