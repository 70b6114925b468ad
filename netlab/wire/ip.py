"""IPv4 (RFC 791) and IPv6 (RFC 8200) headers."""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeAlias

from netlab.errors import DecodeError
from netlab.wire import checksum

ICMP = 1
TCP = 6
UDP = 17
FRAGMENT = 44  # IPv6's extension header (RFC 8200 section 4.5)
EXTENSIONS = (0, 43, FRAGMENT, 60)  # what may stand before IPv6's transport (sections 4.3 to 4.6)
ICMPV6 = 58
DONT_FRAGMENT = 0x4000  # in IPv4's flags_offset, as MORE_FRAGMENTS; the low 13 bits count eights of bytes
MORE_FRAGMENTS = 0x2000

_V4 = struct.Struct("!BBHHHBBH4s4s")
_V6 = struct.Struct("!IHBB16s16s")
_EXTENSION = struct.Struct("!BBH4x")  # what follows, its length, a fragment's place
SIZE = {4: _V4.size, 6: _V6.size}  # bytes of a header without options
_DESTINATION = {4: slice(16, 20), 6: slice(24, 40)}


class IPv4(NamedTuple):  # made for each answer: a frozen dataclass takes three times as long
    """An IPv4 header; addresses are four network-order bytes."""

    source: bytes
    destination: bytes
    protocol: int
    ttl: int
    identification: int = 0
    tos: int = 0
    flags_offset: int = 0
    options: bytes = b""

    @property
    def family(self) -> int:
        """4."""
        return 4

    def encode(self, payload: bytes) -> bytes:
        """Return the packet; raises struct.error when a field does not fit its bits."""
        length = _V4.size + len(self.options)
        fields = (
            0x40 | length // 4,
            self.tos,
            length + len(payload),
            self.identification,
            self.flags_offset,
            self.ttl,
            self.protocol,
        )
        blank = _V4.pack(*fields, 0, self.source, self.destination) + self.options
        sealed = _V4.pack(*fields, checksum.internet(blank), self.source, self.destination)
        return sealed + self.options + payload


class IPv6(NamedTuple):
    """An IPv6 header without extension headers; addresses are sixteen network-order bytes."""

    source: bytes
    destination: bytes
    protocol: int
    ttl: int
    traffic_class: int = 0
    flow_label: int = 0

    @property
    def family(self) -> int:
        """6."""
        return 6

    def encode(self, payload: bytes) -> bytes:
        """Return the packet; raises struct.error when a field does not fit its bits."""
        first = 6 << 28 | self.traffic_class << 20 | self.flow_label
        return _V6.pack(first, len(payload), self.protocol, self.ttl, self.source, self.destination) + payload


Header: TypeAlias = IPv4 | IPv6


def decode(data: bytes) -> tuple[Header, bytes]:
    """Return the header at the start of *data* and what follows it.

    The length field cuts off padding. It is allowed to promise more than is there, as it does in the
    packets that ICMP errors quote.

    Raises
    ------
    DecodeError
        If *data* is neither IPv4 nor IPv6, or ends inside the header.
    """
    version = data[0] >> 4 if data else None
    if version == 4 and len(data) >= _V4.size:
        return _decode_v4(data)
    if version == 6 and len(data) >= _V6.size:
        return _decode_v6(data)
    if version in {4, 6}:
        raise DecodeError(f"IPv{version} header cut off after {len(data)} bytes")
    raise DecodeError(f"no IP packet: version {version}" if data else "no IP packet: no bytes")


def size_of(header: Header) -> int:
    """Return how many bytes *header* takes, with its options."""
    return SIZE[header.family] + (len(header.options) if isinstance(header, IPv4) else 0)


def transport_of(header: Header, behind: bytes) -> tuple[Header, bytes]:
    """Return the header with its transport's protocol, and that transport, which extension headers precede.

    Of what is cut off, or a later fragment, nothing is known: it is returned as it is.
    """
    protocol, rest = header.protocol, behind
    while header.family == 6 and protocol in EXTENSIONS:
        if len(rest) < _EXTENSION.size:
            return header, behind
        following, eights, offset = _EXTENSION.unpack_from(rest)
        if protocol == FRAGMENT and offset & ~7:
            return header, behind
        protocol, rest = following, rest[8 if protocol == FRAGMENT else 8 * (eights + 1) :]
    return (header if rest is behind else header._replace(protocol=protocol)), rest


def destination(family: int, data: bytes) -> bytes:
    """Return where the packet at the start of *data* goes, less than an address if that is cut off."""
    return data[_DESTINATION[family]]


def _decode_v4(data: bytes) -> tuple[IPv4, bytes]:
    first, tos, total, ident, flags_offset, ttl, protocol, _, source, destination = _V4.unpack_from(data)
    length = (first & 0xF) * 4
    if not _V4.size <= length <= len(data):
        raise DecodeError(f"IPv4 header length {length} does not fit in {len(data)} bytes")
    # A length that cannot be, as some hosts quote it: then all that is there is taken.
    end = total if total >= length else len(data)
    header = IPv4(
        source=source,
        destination=destination,
        protocol=protocol,
        ttl=ttl,
        identification=ident,
        tos=tos,
        flags_offset=flags_offset,
        options=data[_V4.size : length],
    )
    return header, data[length:end]


def _decode_v6(data: bytes) -> tuple[IPv6, bytes]:
    first, length, protocol, ttl, source, destination = _V6.unpack_from(data)
    header = IPv6(
        source=source,
        destination=destination,
        protocol=protocol,
        ttl=ttl,
        traffic_class=first >> 20 & 0xFF,
        flow_label=first & 0xFFFFF,
    )
    return header, data[_V6.size : _V6.size + length]
