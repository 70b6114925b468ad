"""Network address translation: what goes out, what comes back, and what ICMP errors quote of it.

The translation of ports is a shift, so that it can be foretold: the port or echo identifier of an outgoing
packet grows by `nat_port_shift`, turning over past the largest.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from netlab.lab.internet.parcel import Parcel
from netlab.lab.internet.shape import Node, Quotes
from netlab.wire import checksum, icmp, ip

Bindings: TypeAlias = dict[tuple[str, int, int], tuple[bytes, int]]
# (node, protocol, outside port) → (inside address, inside port); port 0 where the protocol has none

_WORD = struct.Struct("!H")
_ECHO_ID = 4  # its place in an ICMP message
_QUOTE = 8  # where an ICMP error's quote begins
_ADDRESSES = {4: (12, 16, 4), 6: (8, 24, 16)}  # places of source and destination in a header, and their size
_CHECKSUM_AT = {ip.UDP: 6, ip.TCP: 16, ip.ICMP: 2, ip.ICMPV6: 2}
_ECHOES = {*icmp.ECHO_REQUEST.values(), *icmp.ECHO_REPLY.values()}


def go_out(node: Node, parcel: Parcel, bindings: Bindings) -> None:
    """Translate a packet that leaves the inside through *node*."""
    outside = node.nat(parcel.family)
    if not outside:
        return
    place = 0 if parcel.has_ports else _ECHO_ID if parcel.is_icmp and parcel.transport[0] in _ECHOES else None
    inner = parcel.word(place) if place is not None else 0
    outer = _shifted(inner, node.nat_port_shift) if place is not None else 0
    bindings[node.name, parcel.header.protocol, outer] = parcel.header.source, inner
    parcel.readdress(source=outside)
    if place is not None and outer != inner:
        parcel.set_word(place, outer)


def _shifted(port: int, shift: int) -> int:
    return (port - 1 + shift) % 0xFFFF + 1 if port else 0


def come_in(node: Node, parcel: Parcel, bindings: Bindings) -> bool:
    """Translate a packet that comes back to *node*'s outside address; return whether there was a binding."""
    if parcel.is_error:
        return _error_comes_in(node, parcel, bindings)
    place = 2 if parcel.has_ports else _ECHO_ID if parcel.is_icmp else None
    outer = parcel.word(place) if place is not None else 0
    found = bindings.get((node.name, parcel.header.protocol, outer))
    if found is None:
        return False
    address, inner = found
    parcel.readdress(destination=address)
    if place is not None and inner != outer:
        parcel.set_word(place, inner)
    return True


def _error_comes_in(node: Node, parcel: Parcel, bindings: Bindings) -> bool:
    quote = _Quote(parcel.transport, parcel.family)
    place = _ECHO_ID if quote.protocol in {ip.ICMP, ip.ICMPV6} else 0
    outer = quote.word(place)
    found = bindings.get((node.name, quote.protocol, outer))
    if found is None:
        return False
    address, inner = found
    if node.nat_quotes is not Quotes.KEPT:
        seal = node.nat_quotes is Quotes.RESTORED
        quote.readdress(0, address, seal=seal)
        if inner != outer:
            quote.set_word(place, inner, seal=seal)
    parcel.readdress(destination=address)
    _requote(parcel, quote)
    return True


def forward_to_inside(node: Node, parcel: Parcel) -> None:
    """Send a packet for an address that *node* forwards on to the host behind it."""
    if (inside := node.dnat.get(parcel.header.destination)) is not None:
        parcel.readdress(destination=inside)


def come_back_from_inside(node: Node, parcel: Parcel) -> None:
    """Give an answer from a host that *node* forwards to the address that was asked."""
    outside = {inside: virtual for virtual, inside in node.dnat.items()}
    if virtual := outside.get(parcel.header.source):
        parcel.readdress(source=virtual)
    if parcel.is_error:
        quote = _Quote(parcel.transport, parcel.family)
        if (virtual := outside.get(quote.destination)) and node.nat_quotes is not Quotes.KEPT:
            quote.readdress(1, virtual, seal=node.nat_quotes is Quotes.RESTORED)
        _requote(parcel, quote)


def _requote(parcel: Parcel, quote: _Quote) -> None:
    """Put a changed quote into an ICMP error, which then needs a new checksum."""
    kind, code, rest = parcel.transport[0], parcel.transport[1], parcel.transport[4:8]
    body = bytes(quote.message[_QUOTE:])
    message = icmp.Message(family=parcel.family, type=kind, code=code, rest=rest, body=body)
    parcel.transport = message.encode(parcel.header.source, parcel.header.destination)


class _Quote:
    """The quote in an ICMP error, changed in place: it tells the lengths of a packet not all there."""

    def __init__(self, message: bytes, family: int) -> None:
        self.message = bytearray(message)
        self._family = family
        self._transport = _QUOTE + (40 if family == 6 else (message[_QUOTE] & 0xF) * 4)
        self.protocol = message[_QUOTE + (6 if family == 6 else 9)]

    @property
    def destination(self) -> bytes:
        _, place, size = _ADDRESSES[self._family]
        return bytes(self.message[_QUOTE + place : _QUOTE + place + size])

    def word(self, place: int) -> int:
        return int(_WORD.unpack_from(self.message, self._transport + place)[0])

    def readdress(self, which: int, new: bytes, *, seal: bool) -> None:
        """Change the source (0) or destination (1)."""
        place, size = _QUOTE + _ADDRESSES[self._family][which], _ADDRESSES[self._family][2]
        old = bytes(self.message[place : place + size])
        self.message[place : place + size] = new
        if self._family == 4:
            self._update(_QUOTE + 10, old, new)
        if seal and self.protocol != ip.ICMP:
            self._reseal(old, new)

    def set_word(self, place: int, value: int, *, seal: bool) -> None:
        at = self._transport + place
        old, new = bytes(self.message[at : at + 2]), _WORD.pack(value)
        self.message[at : at + 2] = new
        if seal:
            self._reseal(old, new)

    def _reseal(self, old: bytes, new: bytes) -> None:
        if (offset := _CHECKSUM_AT.get(self.protocol)) is None:
            return
        place = self._transport + offset
        if len(self.message) >= place + 2 and (
            self.protocol != ip.UDP or any(self.message[place : place + 2])
        ):
            self._update(place, old, new)

    def _update(self, place: int, old: bytes, new: bytes) -> None:
        value = checksum.updated(_WORD.unpack_from(self.message, place)[0], old, new)
        _WORD.pack_into(self.message, place, value)
