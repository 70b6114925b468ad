"""A packet under way: what routers read and change of it."""

from __future__ import annotations

import struct

from netlab.errors import DecodeError
from netlab.wire import checksum, icmp, ip

_LIMIT = {4: 576, 6: 1280}  # of a whole ICMP error: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4
_HEADERS = {4: 20 + 8, 6: 40 + 8}
_PORTED = {ip.TCP, ip.UDP}
_ICMP = {4: ip.ICMP, 6: ip.ICMPV6}
_CHECKSUM_AT = {ip.UDP: 6, ip.TCP: 16, ip.ICMP: 2, ip.ICMPV6: 2}
_OFFSET = 0x1FFF
_WORD = struct.Struct("!H")


class Parcel:
    """An IP packet: the header, its time to live and service class apart since each router may change them.

    Parameters
    ----------
    header
        The header as it was sent; `ttl` and `tos` of the parcel are newer.
    transport
        What follows it.
    """

    __slots__ = ("cut_bytes", "header", "may_be_cut", "tos", "transport", "ttl")

    def __init__(self, header: ip.Header, transport: bytes) -> None:
        self.header = header
        self.transport = transport
        self.ttl = header.ttl
        self.tos = header.tos if isinstance(header, ip.IPv4) else header.traffic_class
        self.may_be_cut = isinstance(header, ip.IPv4) and not header.flags_offset & ip.DONT_FRAGMENT
        self.cut_bytes = 0  # how much of the transport is in each fragment, if a router has cut it

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.header.family

    @property
    def is_fragment(self) -> bool:
        """Whether the sender has cut it."""
        if isinstance(self.header, ip.IPv4):
            return bool(self.header.flags_offset & (ip.MORE_FRAGMENTS | _OFFSET))
        return self.header.protocol == ip.FRAGMENT and len(self.transport) >= 8

    @property
    def has_ports(self) -> bool:
        """Whether the transport starts with a source and a destination port."""
        return self.header.protocol in _PORTED and self._is_first and len(self.transport) >= 8

    @property
    def is_icmp(self) -> bool:
        """Whether it is a whole ICMP message of its family."""
        return self.header.protocol == _ICMP[self.family] and self._is_first and len(self.transport) >= 8

    @property
    def _is_first(self) -> bool:
        """Whether it has the start of the transport: it is whole, or the first fragment."""
        if isinstance(self.header, ip.IPv4):
            return not self.header.flags_offset & _OFFSET
        return self.header.protocol != ip.FRAGMENT or not self._offset6

    @property
    def _offset6(self) -> int:
        return int.from_bytes(self.transport[2:4], "big") & 0xFFF8

    @property
    def is_error(self) -> bool:
        """Whether it is an ICMP error, about which no other error may be sent (RFC 1122 section 3.2.2)."""
        if not self.is_icmp:
            return False
        kind, code = self.transport[0], self.transport[1]
        return icmp.Message(family=self.family, type=kind, code=code, rest=b"", body=b"").error is not None

    @property
    def may_be_answered(self) -> bool:
        """Whether an ICMP error may be sent about it: neither an error itself nor a later fragment."""
        return self._is_first and not self.is_error

    @property
    def flow(self) -> bytes:
        """What a per-flow load balancer looks at (Augustin et al., IMC 2006, section 2.1)."""
        header = self.header
        first = b"" if self.is_fragment else self.transport[:4]
        label = header.flow_label.to_bytes(3, "big") if isinstance(header, ip.IPv6) else b""
        return b"".join((header.source, header.destination, bytes([header.protocol]), first, label))

    def current(self) -> ip.Header:
        """Return the header as it is now."""
        if isinstance(self.header, ip.IPv4):
            return self.header._replace(ttl=self.ttl, tos=self.tos)
        return self.header._replace(ttl=self.ttl, traffic_class=self.tos)

    def encode(self) -> bytes:
        """Return the packet."""
        return self.current().encode(self.transport)

    def quoted(self, most: int | None = None) -> bytes:
        """Return the start of the packet for an ICMP error: *most* bytes of transport, or all that fit.

        Of a packet that was cut it is the first fragment.
        """
        packet = self.encode()
        begin = len(packet) - len(self.transport)
        if self.cut_bytes and isinstance(self.header, ip.IPv4):
            first = self.header._replace(flags_offset=self.header.flags_offset | ip.MORE_FRAGMENTS)
            packet = first._replace(ttl=self.ttl, tos=self.tos).encode(self.transport[: self.cut_bytes])
        end = _LIMIT[self.family] - _HEADERS[self.family]
        return packet[: end if most is None else min(end, begin + most)]

    def fits(self, mtu_bytes: int) -> bool:
        """Return whether it passes a link, cut into fragments if it may be."""
        header = self.header
        size = 20 + len(header.options) if isinstance(header, ip.IPv4) else 40
        if size + (self.cut_bytes or len(self.transport)) <= mtu_bytes:
            return True
        if not self.may_be_cut:
            return False
        self.cut_bytes = (mtu_bytes - size) // 8 * 8
        return True

    @property
    def has_right_checksum(self) -> bool:
        """Whether its transport is undamaged, as far as a checksum tells."""
        protocol, transport = self.header.protocol, self.transport
        if protocol not in _CHECKSUM_AT or (
            protocol == ip.UDP and self.family == 4 and not any(transport[6:8])
        ):
            return True
        if protocol == ip.ICMP:
            return not checksum.internet(transport)
        return not checksum.transport(self.header.source, self.header.destination, protocol, transport)

    def readdress(self, *, source: bytes = b"", destination: bytes = b"") -> None:
        """Change addresses, and with them the transport checksum that covers them."""
        header = self.header
        source, destination = source or header.source, destination or header.destination
        if header.protocol != ip.ICMP:
            self._reseal(header.source + header.destination, source + destination)
        self.header = header._replace(source=source, destination=destination)

    def word(self, place: int) -> int:
        """Return the 16-bit word at *place* of the transport."""
        return int(_WORD.unpack_from(self.transport, place)[0])

    def set_word(self, place: int, value: int) -> None:
        """Change a 16-bit word of the transport, and with it the checksum."""
        old, new = self.transport[place : place + 2], _WORD.pack(value)
        self.transport = self.transport[:place] + new + self.transport[place + 2 :]
        self._reseal(old, new)

    def _reseal(self, before: bytes, after: bytes) -> None:
        """Bring the transport checksum up to date, if there is one and it was not cut off."""
        place = _CHECKSUM_AT.get(self.header.protocol)
        if place is None or not self._is_first or len(self.transport) < place + 2:
            return
        value = self.word(place)
        if self.header.protocol == ip.UDP and not value:
            return
        value = checksum.updated(value, before, after)
        if self.header.protocol == ip.UDP:
            value = value or 0xFFFF
        self.transport = self.transport[:place] + _WORD.pack(value) + self.transport[place + 2 :]


def received(packet: bytes) -> Parcel:
    """Return the parcel that *packet* is; raises DecodeError if its header is damaged."""
    header, transport = ip.decode(packet)
    if header.family == 4 and checksum.internet(packet[: (packet[0] & 0xF) * 4]):
        raise DecodeError("IPv4 header with a wrong checksum")
    return Parcel(header, transport)
